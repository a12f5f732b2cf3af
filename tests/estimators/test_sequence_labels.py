"""Labels of sequences and of steps: which count, how much, and how they train."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score

from sktarget import TargetSpaceSequenceClassifier, TargetSpaceSequenceRegressor
from sktarget.datasets import make_delayed_recall
from tests.estimators.sequence_support import (
    SMALL,
    as_list,
    as_padded,
    fitted,
    lengths_of,
    series,
    small,
    step_labels,
    tokens,
)
from tests.estimators.support import (
    SeesData,
    assert_same_weights,
    fit_quietly,
    weights_differ,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
STEPS: dict[str, Any] = {"return_sequences": True, "batch_size": 1000}


@pytest.mark.parametrize("mark", [-1, np.nan, None])
@pytest.mark.parametrize("form", [list, np.array])
def test_marked_steps_do_not_count_among_texts(mark: Any, form: Any) -> None:
    X, _ = series()
    y = np.where(step_labels(X) == 0, "a", "b").tolist()
    y[0] = form([mark] * len(y[0]))  # no text in this row
    y[1][:2] = [mark, mark]
    model = fitted(X, y, **STEPS)
    assert model.classes_.tolist() == ["a", "b"]


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("form", [list, np.array, None])
def test_large_labels_keep_their_digits_beside_marks(form: Any, dtype: Any) -> None:
    X, _ = series()
    y = [2**60 + row.astype(dtype) for row in step_labels(X)]
    y[0] = np.full(len(y[0]), np.nan)  # no label in this row
    second = [np.nan, *y[1][1:].tolist()]
    if form is not None:
        y[1] = second if form is list else np.array(second, dtype=object)
    model = fitted(X, y, **STEPS)
    assert model.classes_.tolist() == (2**60 + np.unique(step_labels(X))).tolist()


def test_marked_steps_do_not_count() -> None:
    X, _ = series()
    y = step_labels(X)
    marked = y.copy()
    marked[:, :3] = -1
    with_nan = marked.astype(float)
    with_nan[with_nan == -1] = np.nan
    as_objects = np.where(marked == -1, None, y.astype(object))
    models = [
        fitted(X, marked, **STEPS),
        fitted(X, with_nan, **STEPS),
        fitted(X, as_objects, **STEPS),
        fitted(X, y, n_ignored_steps=3, **STEPS),
    ]
    for model in models:
        assert model.classes_.tolist() == [0, 1]
        assert_same_weights(models[0], model)
        wrong = model.predict(X)
        wrong[:, 3:] = 1 - y[:, 3:]
        assert model.score(X, marked) == pytest.approx(
            (model.predict(X) == y)[:, 3:].mean()
        )
        assert model.score(X, with_nan) == model.score(X, marked)
    assert models[-1].score(X, y) == models[0].score(X, marked)
    assert weights_differ(models[0], fitted(X, y, **STEPS))


def test_marks_among_strings() -> None:
    X, _ = series()
    y = step_labels(X)
    names = np.array(["rest", "rise"], dtype=object)[y]
    names[:, 0] = np.nan
    names[:, 1] = -1
    names[:, 2] = None
    model = fitted(X, names, **STEPS)
    assert model.classes_.tolist() == ["rest", "rise"]
    assert_same_weights(model, fitted(X, y, n_ignored_steps=3, **STEPS))


def test_padding_among_strings_of_any_kind() -> None:
    X, _ = series()
    names = np.array(["rest", "rise"])[step_labels(X)]
    padded = X.copy()
    padded[0, ..., -2:] = np.nan
    for classes in (names[:1, :0], names.astype(object)[:1, :0]):
        model = TargetSpaceSequenceClassifier(**SMALL, **STEPS)
        model.partial_fit(X, names, classes=np.array(["rest", "rise"], classes.dtype))
        assert model.predict(padded)[0, -2:].tolist() == ["", ""]


def test_minus_one_is_a_class_of_whole_sequences() -> None:
    X, y = series()
    model = fitted(X, 2 * y - 1, max_iter=60)
    assert model.classes_.tolist() == [-1, 1]
    assert model.score(X, 2 * y - 1) > 0.9


def test_sequences_without_any_label_that_counts_are_left_out() -> None:
    X, _ = series()
    y = step_labels(X)
    y[::2] = -1
    fixed = X[1::2]
    model = fitted(X, y, fixed_batch=fixed, **STEPS)
    assert_same_weights(model, fitted(X[1::2], y[1::2], fixed_batch=fixed, **STEPS))


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_weight_is_repetition(
    per_step: bool, ragged: bool, parameterization: str
) -> None:
    X, y = series()
    if per_step:
        y = step_labels(X)
        y[:, 0] = -1
    if ragged:
        X = as_padded(X)
    weight = np.arange(len(X)) % 4
    settings = STEPS | {
        "return_sequences": per_step,
        "parameterization": parameterization,
        "alpha": 0.1,
    }
    plain, heavy, repeated = (small(**settings) for _ in range(3))
    fit_quietly(plain, X, y, sample_weight=np.ones(len(X)))
    assert_same_weights(plain, fitted(X, y, **settings), atol=1e-10)
    fit_quietly(heavy, X, y, sample_weight=weight)
    order = np.repeat(np.arange(len(X)), weight)
    fit_quietly(repeated, X[order], y[order])
    assert_same_weights(heavy, repeated, atol=1e-8)
    assert weights_differ(plain, heavy)
    assert heavy.score(X, y, sample_weight=weight) == pytest.approx(
        heavy.score(X[order], y[order])
    )


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_alpha_leaves_embeddings_alone(parameterization: str) -> None:
    X, y = tokens()
    settings: dict[str, Any] = {
        "vocabulary_size": 8,
        "embedding_dim": 3,
        "parameterization": parameterization,
        "batch_size": len(X),
        "learning_rate_init": 1e-12,
        "max_iter": 1,
    }
    start, decayed = (fitted(X, y, alpha=alpha, **settings) for alpha in (0.0, 6.0))
    penalty = 0.5 * 6.0 * sum((w**2).sum() for w in start.coefs_) / len(X)
    assert decayed.loss_ - start.loss_ == pytest.approx(penalty, rel=1e-6)


@pytest.mark.parametrize("per_step", [False, True])
def test_class_weight(per_step: bool) -> None:
    X, y = series()
    y = step_labels(X) if per_step else y
    settings = STEPS | {"return_sequences": per_step, "max_iter": 40}
    shares = [
        (fitted(X, y, class_weight={0: a, 1: b}, **settings).predict(X) == 1).mean()
        for a, b in [(30, 1), (1, 1), (1, 30)]
    ]
    assert shares[0] < shares[1] < shares[2]
    counts = np.bincount(y.ravel())
    balanced = {k: y.size / (2 * counts[k]) for k in (0, 1)}
    assert_same_weights(
        fitted(X, y, class_weight="balanced", **settings),
        fitted(X, y, class_weight=balanced, **settings),
        atol=1e-8,
    )


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("per_step", [False, True])
def test_early_stopping(per_step: bool, n_classes: int) -> None:
    X, y = series(60)
    y = step_labels(X) if per_step else y
    y[..., :5] = n_classes - 1
    seen = SeesData()
    settings = {
        "return_sequences": per_step,
        "early_stopping": True,
        "validation_fraction": 0.3,
        "max_iter": 15,
        "learning_rate_init": 0.5,
        "callbacks": [seen],
    }
    model = fitted(as_padded(X), y, **settings)
    assert len(seen.valid) == 18
    assert len(model.validation_scores_) == model.n_iter_
    truth = seen.valid.y.numpy().reshape(18, -1)
    held_out = seen.valid.x.numpy().transpose(0, 2, 1)
    truth = truth if per_step else truth[:, 0]
    assert model.score(held_out, truth) == pytest.approx(model.best_validation_score_)


def test_learns_to_recall_bits() -> None:
    X, y = make_delayed_recall(300, delay=4, n_timesteps=20, random_state=0)
    X_test, y_test = make_delayed_recall(100, delay=4, n_timesteps=40, random_state=1)
    model = TargetSpaceSequenceClassifier(
        recurrent_layer_sizes=(10,),
        return_sequences=True,
        lam=0.1,
        max_iter=40,
        batch_size=50,
        fixed_batch_size=50,
        random_state=0,
    )
    assert model.fit(X, y).score(X_test, y_test) > 0.99


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_fitting_on_is_fitting_at_once(parameterization: str) -> None:
    X, y = series()
    X = as_padded(X)
    settings = {"batch_size": 40, "parameterization": parameterization}
    steps = step_labels(series()[0])
    for labels, more in ((y, {}), (steps, {"return_sequences": True})):
        whole = fitted(X, labels, max_iter=6, **settings, **more)
        halves = small(max_iter=3, warm_start=True, **settings, **more)
        fit_quietly(fit_quietly(halves, X, labels), X, labels)
        assert_same_weights(whole, halves, atol=1e-9)
        parts = small(**settings, **more)
        for _ in range(6):
            parts.partial_fit(X, labels)
        assert_same_weights(whole, parts, atol=1e-9)
        assert parts.loss_curve_ == pytest.approx(whole.loss_curve_)


def test_fitting_on_with_sequences_of_other_lengths() -> None:
    X, _ = series()
    y = step_labels(X)
    model = small(return_sequences=True)
    model.partial_fit(X, y)
    model.partial_fit(as_padded(X), y)
    pairs = zip(y, lengths_of(len(X)), strict=True)
    model.partial_fit(as_list(X), [row[:t] for row, t in pairs])
    model.partial_fit(X[:, :, :4], y[:, :4])
    assert len(model.loss_curve_) == 4
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.fixed_batch_.shape == (40, 2, 9)


def test_cross_validation_of_lists_of_labels() -> None:
    X, _ = series()
    pairs = zip(step_labels(X), lengths_of(len(X)), strict=True)
    labels = [row[:t] for row, t in pairs]
    scores = cross_val_score(
        small(return_sequences=True, max_iter=40), as_list(X), labels, cv=KFold(2)
    )
    assert scores.min() > 0.7


@pytest.mark.slow
def test_recalls_bits_of_twenty_steps_ago() -> None:
    X, y = make_delayed_recall(8000, delay=20, random_state=0)
    X_test, y_test = make_delayed_recall(500, delay=20, random_state=1)
    model = TargetSpaceSequenceClassifier(
        recurrent_layer_sizes=(23,),
        return_sequences=True,
        batch_size=100,
        max_iter=12,  # of 80 iterations
        random_state=0,
    )
    assert model.fit(X, y).score(X_test, y_test) > 0.99


def test_steps_that_all_belong_to_rows_without_weight() -> None:
    X = np.zeros((4, 1, 3))
    y = np.array([[0, 1, 0], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    estimator = TargetSpaceSequenceClassifier(
        return_sequences=True, class_weight="balanced"
    )
    with pytest.raises(ValueError, match="got 0 classes"):
        estimator.fit(X, y, sample_weight=[0.0, 1.0, 1.0, 1.0])


def test_labels_of_several_kinds_are_refused() -> None:
    X, _ = series()
    y: list[Any] = [["up", "down", *["up"] * (x.shape[-1] - 2)] for x in X]
    model = small(return_sequences=True)
    for mark in (np.nan, None, -1):
        y[0][0] = mark
        assert set(fit_quietly(model, X, y).classes_) == {"up", "down"}
    y[0][0] = np.inf
    with pytest.raises(ValueError, match="texts with other labels, such as inf: make"):
        model.fit(X, y)


def test_an_array_of_labels_for_a_list_is_padded() -> None:
    X, _ = series()
    y = step_labels(X)
    model = small(return_sequences=True)
    cut = [row[: x.shape[1]] for row, x in zip(y, as_list(X), strict=True)]
    a, b = (fit_quietly(clone(model), as_list(X), of) for of in (y, cut))
    assert_same_weights(a, b)
    assert a.score(as_list(X), y) == b.score(as_list(X), cut)
    numbers = TargetSpaceSequenceRegressor(
        recurrent_layer_sizes=(3,), return_sequences=True, max_iter=2, random_state=0
    )
    real = y + 0.5
    parts = [row[: x.shape[1]] for row, x in zip(real, as_list(X), strict=True)]
    a, b = (fit_quietly(clone(numbers), as_list(X), of) for of in (real, parts))
    assert_same_weights(a, b)


@pytest.mark.parametrize("per_step", [False, True])
def test_a_sequence_that_does_not_count_does_not_lengthen_the_others(
    per_step: bool,
) -> None:
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(1, 4)) for _ in range(120)]
    long = rng.normal(size=(1, 50))
    model = small(return_sequences=per_step, warm_start=True, fixed_batch_size="auto")
    weight: Any = None
    if per_step:
        y: Any = [(x[0] > 0).astype(int) for x in X]
        more = [*y, np.full(50, -1)]
    else:
        y = np.array([int(x.sum() > 0) for x in X])
        more, weight = np.append(y, 0), np.append(np.ones(120), 0.0)
    without = clone(model).fit(X, y)
    beside = clone(model).fit([*X, long], more, sample_weight=weight)
    assert beside.fixed_batch_.shape == without.fixed_batch_.shape
    assert_same_weights(beside, without)


def test_minus_one_that_may_be_a_class_is_asked_about() -> None:
    X = np.random.default_rng(0).normal(size=(30, 1, 20))
    y = np.digitize(X[:, 0], [-0.5, 0.5]) - 1
    estimator = TargetSpaceSequenceClassifier(return_sequences=True, max_iter=2)
    with pytest.warns(UserWarning, match="-1 between steps.*add 1 to all labels"):
        fit_quietly(estimator, X, y)
    fit_quietly(estimator, X, np.where(y < 0, np.nan, y))  # as the warning says
    fit_quietly(estimator, X, y + 1)
    padded = np.where(np.arange(20) < 15, np.abs(y), -1)
    fit_quietly(estimator, X, padded)
