"""A validation set of the user's own."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
    TargetSpaceSequenceRegressor,
)
from sktarget.propagation import (
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionSequenceClassifier,
)
from tests.estimators.sequence_support import as_list, series, tokens
from tests.estimators.support import class_data, curve_data, fit_quietly, label_data

Array = NDArray[Any]
SMALL: dict[str, Any] = {"max_iter": 12, "random_state": 0}
TABLE = {**SMALL, "hidden_layer_sizes": (6,)}
DEEP = {**SMALL, "hidden_layer_sizes": (6, 6)}
SERIES = {**SMALL, "recurrent_layer_sizes": (5,)}


def noise(n: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)), rng.normal(size=n)


def sums_of_series() -> tuple[Array, Array]:
    X, _ = series()
    return X, X[:, 0].sum(1)


def running_sums() -> tuple[Array, Array]:
    X, _ = series()
    return X, X[:, 0].cumsum(1)


def signs_of_sums() -> tuple[Array, Array]:
    X, sums = running_sums()
    return X, sums > 0


OF_STEPS = {**SERIES, "return_sequences": True}
KINDS = {
    "classes": (TargetSpaceClassifier(**TABLE), class_data),
    "labels": (TargetSpaceClassifier(**TABLE), label_data),
    "numbers": (TargetSpaceRegressor(**TABLE), curve_data),
    "weight space": (
        TargetSpaceRegressor(**TABLE, parameterization="weights"),
        curve_data,
    ),
    "sequences": (TargetSpaceSequenceClassifier(**SERIES), series),
    "steps": (TargetSpaceSequenceClassifier(**OF_STEPS), signs_of_sums),
    "numbers of sequences": (TargetSpaceSequenceRegressor(**SERIES), sums_of_series),
    "numbers of steps": (TargetSpaceSequenceRegressor(**OF_STEPS), running_sums),
    "difference propagation": (
        DifferenceTargetPropagationRegressor(**DEEP),
        curve_data,
    ),
    "inversion": (RegularizedInversionClassifier(**DEEP), class_data),
    "inversion of sequences": (
        RegularizedInversionSequenceClassifier(**SERIES),
        series,
    ),
}
BY_TARGET_SPACE_ESTIMATORS = [
    name for name in KINDS if "propagation" not in name and "inversion" not in name
]
for_all = pytest.mark.parametrize("kind", list(KINDS))


def parts(kind: str) -> tuple[Any, Array, Array, dict[str, Array]]:
    """Make an estimator, training data, and a validation set."""
    estimator, make = KINDS[kind]
    X, y = make()
    given = {"X_val": X[2::3], "y_val": y[2::3]}
    rest = np.arange(len(X)) % 3 < 2
    return clone(estimator).set_params(early_stopping=True), X[rest], y[rest], given


@for_all
def test_the_best_epoch_on_it_is_kept(kind: str) -> None:
    estimator, X, y, given = parts(kind)
    model = fit_quietly(estimator, X, y, **given)
    assert len(model.validation_scores_) == model.n_iter_
    assert model.best_validation_score_ == max(model.validation_scores_)
    found = model.score(given["X_val"], given["y_val"])
    assert found == pytest.approx(model.best_validation_score_, abs=1e-5)


@for_all
def test_all_rows_are_learnt_and_none_of_its(kind: str) -> None:
    estimator, X, y, given = parts(kind)
    model = fit_quietly(estimator, X, y, **given)
    assert model.t_ == len(X) * model.n_iter_
    others = given | {"y_val": np.roll(given["y_val"], 1, axis=0)}
    other = fit_quietly(clone(estimator), X, y, **others)
    n = min(model.n_iter_, other.n_iter_)
    assert model.loss_curve_[:n] == other.loss_curve_[:n]
    assert model.validation_loss_curve_[:n] != other.validation_loss_curve_[:n]


@pytest.mark.parametrize("kind", BY_TARGET_SPACE_ESTIMATORS)
def test_by_default_its_rows_are_not_learnt_in_the_end_either(kind: str) -> None:
    estimator, X, y, given = parts(kind)
    model = fit_quietly(estimator.set_params(early_stopping="auto"), X, y, **given)
    assert model.validation_scores_ is not None
    assert len(model.validation_scores_) == model.n_iter_
    assert model.t_ == len(X) * model.n_iter_


def test_by_default_it_decides_for_a_handful_of_rows_too() -> None:
    X, y = class_data(n_samples=20)
    model = TargetSpaceClassifier(**TABLE)
    assert fit_quietly(model, X[:12], y[:12]).validation_scores_ is None
    fit_quietly(model, X[:12], y[:12], X_val=X[12:], y_val=y[12:])
    assert model.validation_scores_ is not None


def test_other_rules_are_tried_where_it_is_predicted_badly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 5)), rng.normal(size=300)
    model = TargetSpaceRegressor((20,), random_state=0, max_iter=40, verbose=True)
    fit_quietly(model, X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    printed = capsys.readouterr().out
    assert "trying more alpha" in printed
    assert "Going on" not in printed


@pytest.mark.parametrize("kind", ["classes", "numbers", "steps", "numbers of steps"])
def test_a_weight_of_two_counts_as_two_rows(kind: str) -> None:
    estimator, X, y, given = parts(kind)
    n = len(given["X_val"])
    weighted = fit_quietly(
        estimator, X, y, **given, sample_weight_val=1 + (np.arange(n) < 5)
    )
    twice = np.r_[np.arange(n), np.arange(5)]
    repeated = {name: value[twice] for name, value in given.items()}
    again = fit_quietly(clone(estimator), X, y, **repeated)
    np.testing.assert_allclose(
        weighted.validation_scores_, again.validation_scores_, atol=1e-6
    )
    plain = fit_quietly(clone(estimator), X, y, **given)
    assert weighted.validation_scores_ != plain.validation_scores_


def test_lists_of_other_lengths_are_scored_up_to_their_ends() -> None:
    X, y = series()
    model = TargetSpaceSequenceClassifier(**SERIES, early_stopping=True)
    fit_quietly(model, X[10:, :, :6], y[10:], X_val=as_list(X[:10]), y_val=y[:10])
    found = model.score(as_list(X[:10]), y[:10])
    assert found == pytest.approx(model.best_validation_score_)


def test_the_form_of_its_outputs_is_not_that_of_predictions() -> None:
    X, y = running_sums()
    model = TargetSpaceSequenceRegressor(**OF_STEPS, early_stopping=True)
    fit_quietly(model, X[10:], y[10:], X_val=X[:10], y_val=y[:10, None])
    assert model.predict(X).shape == y.shape


def test_images_may_have_another_form() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(256, size=(60, 1, 6, 6), dtype=np.uint8), np.arange(60) % 2
    model = TargetSpaceClassifier((5,), conv_layers=[(2, 3, 1)], **SMALL)
    flat = X[40:].reshape(20, -1)
    fit_quietly(model, X[:40], y[:40], X_val=flat, y_val=y[40:])
    assert len(model.validation_scores_) == 12


@pytest.mark.parametrize(
    "kind",
    ["numbers", "numbers of sequences", "numbers of steps", "difference propagation"],
)
def test_its_numbers_keep_their_digits_beside_inputs_in_single_precision(
    kind: str,
) -> None:
    estimator, X, y, given = parts(kind)
    y, y_val = 1e8 + y, 1e8 + given["y_val"]  # float32 has steps of 8 there
    curves = []
    for dtype in (np.float64, np.float32):
        X_val = given["X_val"].astype(dtype)
        model = fit_quietly(clone(estimator), X, y, X_val=X_val, y_val=y_val)
        curves.append(model.validation_loss_curve_)
    np.testing.assert_allclose(*curves, rtol=1e-3)


def test_what_an_earlier_fit_has_learnt_does_not_matter() -> None:
    X, y = curve_data()
    model = TargetSpaceRegressor(**TABLE)
    fit_quietly(model, X, 1e4 * y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    ids, kinds = tokens()
    of_tokens = TargetSpaceSequenceClassifier(**SERIES, vocabulary_size=40)
    fit_quietly(of_tokens, ids, kinds).set_params(vocabulary_size=50)
    fit_quietly(of_tokens, ids, kinds, X_val=ids[:10], y_val=kinds[:10])
    assert of_tokens.validation_scores_ is not None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"X_val": np.ones((5, 4))}, "y_val is missing"),
        ({"y_val": np.arange(5) % 2}, "X_val is missing"),
        ({"sample_weight_val": np.ones(5)}, "X_val is missing"),
        (
            {"X_val": np.ones((5, 3)), "y_val": np.arange(5) % 2},
            "The validation set, X_val and y_val: X has 3 features",
        ),
        (
            {"X_val": np.ones((5, 4)), "y_val": np.arange(4) % 2},
            "The validation set, X_val and y_val: .*inconsistent",
        ),
        ({"X_val": np.ones((5, 4)), "y_val": np.arange(5)}, r"classes \[2, 3, 4\]"),
        ({"X_val": np.ones((1, 4)), "y_val": [0]}, "at least two"),
        (
            {
                "X_val": np.ones((5, 4)),
                "y_val": np.arange(5) % 2,
                "sample_weight_val": [1, 0, 0, 0, 0],
            },
            "it has 1 row of positive weight, but needs at least two",
        ),
    ],
)
def test_what_cannot_be_used_is_named(given: dict[str, Any], words: str) -> None:
    X, y = class_data()
    model = fit_quietly(TargetSpaceClassifier(**TABLE), X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=words):
        model.fit(X, y, **given)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_it_needs_early_stopping() -> None:
    X, y = class_data()
    model = TargetSpaceClassifier(**TABLE, early_stopping=False)
    with pytest.raises(ValueError, match="early_stopping=False makes no use of X_val"):
        model.fit(X, y, X_val=X, y_val=y)


def test_rows_that_have_not_been_scaled_are_pointed_out() -> None:
    X, y = class_data()
    model = TargetSpaceClassifier(**TABLE)
    with pytest.warns(UserWarning, match=r"100% of the rows of X_val.*transform_input"):
        fit_quietly(model, X, y, X_val=50 + 100 * X, y_val=y)


@pytest.mark.parametrize(
    "kind", ["numbers", "numbers of sequences", "numbers of steps"]
)
def test_outputs_that_have_not_been_transformed_are_pointed_out(kind: str) -> None:
    estimator, X, y, given = parts(kind)
    given["y_val"] = np.exp(given["y_val"]) + 1000
    with pytest.warns(UserWarning, match="the mean of y_val is far from that of y"):
        fit_quietly(estimator, X, y, **given)


def test_a_pipeline_transforms_it_if_told_to() -> None:
    X, y = class_data()
    X = 50 + 100 * X
    model = TargetSpaceClassifier(**TABLE)
    with sklearn.config_context(enable_metadata_routing=True):
        asking = clone(model).set_fit_request(X_val=True, y_val=True)
        steps = [("scale", StandardScaler()), ("learn", asking)]
        pipeline = Pipeline(steps, transform_input=["X_val"])
        fit_quietly(pipeline, X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    scaler = StandardScaler().fit(X[:60])
    given = {"X_val": scaler.transform(X[60:]), "y_val": y[60:]}
    fit_quietly(model, scaler.transform(X[:60]), y[:60], **given)
    assert pipeline["learn"].validation_scores_ == model.validation_scores_


def test_a_search_hands_it_on() -> None:
    X, y = class_data()
    search = GridSearchCV(make_pipeline(TargetSpaceClassifier(**TABLE)), {}, cv=2)
    name = "targetspaceclassifier__"
    given = {f"{name}X_val": X[:20], f"{name}y_val": y[:20]}
    fit_quietly(search, X, y, **given)
    assert len(search.best_estimator_[-1].validation_scores_) == 12


def test_a_checkpoint_belongs_to_it(tmp_path: Path) -> None:
    X, y = class_data()
    model = TargetSpaceClassifier(**TABLE, checkpoint=tmp_path / "run.npz")
    first = fit_quietly(clone(model), X, y, X_val=X[:20], y_val=y[:20])
    again = fit_quietly(clone(model), X, y, X_val=X[:20], y_val=y[:20])
    assert again.validation_scores_ == first.validation_scores_
    for other in ({"X_val": X[:30], "y_val": y[:30]}, {}):
        with pytest.raises(ValueError, match="another validation set"):
            model.fit(X, y, **other)


@pytest.mark.parametrize("early_stopping", ["auto", True])
def test_a_harder_one_in_a_later_fit_counts_for_itself(early_stopping: Any) -> None:
    X, y = curve_data()
    noisy = y + 2 * np.random.default_rng(0).normal(size=len(y))
    model = TargetSpaceRegressor(
        **TABLE, warm_start=True, early_stopping=early_stopping, learning_rate_init=0.01
    )
    fit_quietly(model, X[:40], y[:40], X_val=X[60:], y_val=y[60:])
    before = [weight.copy() for weight in model.coefs_]
    before_curve = model.loss_curve_
    fit_quietly(model, X[:60], y[:60], X_val=X[60:], y_val=noisy[60:])
    assert model.best_validation_score_ == max(model.validation_scores_[12:])
    if early_stopping is True:
        found = model.score(X[60:], noisy[60:])
        assert found == pytest.approx(model.best_validation_score_, abs=1e-5)
    assert not all(map(np.array_equal, before, model.coefs_))
    assert model.loss_curve_[:12] == before_curve
    scores = model.validation_scores_
    if early_stopping == "auto":
        for method in ("fit", "partial_fit"):
            fit_quietly(model, X, y, method)
            assert model.best_validation_score_ is None
        assert model.validation_scores_ == scores


def test_a_later_fit_goes_on_with_the_same_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    X, y = noise(200)
    model = TargetSpaceRegressor((5, 5), random_state=0, warm_start=True, verbose=True)
    fit_quietly(model, X[:100], y[:100], X_val=X[100:], y_val=y[100:])
    assert "trying" in capsys.readouterr().out
    n = len(model.loss_curve_)
    fit_quietly(model, X[:100], y[:100], X_val=X[100:], y_val=y[100:])
    assert "trying" not in capsys.readouterr().out
    assert len(model.loss_curve_) == n + model.n_iter_


def test_more_rows_later_are_learnt_though_their_loss_is_larger() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=400)
    model = TargetSpaceRegressor((10,), random_state=0, warm_start=True, max_iter=60)
    fit_quietly(model, X[:40], y[:40])
    few = model.best_loss_
    fit_quietly(model, X, y)
    assert model.n_iter_ > 40
    assert model.best_loss_ == min(model.loss_curve_[-model.n_iter_ :])
    assert model.best_loss_ > few


def test_curves_begin_with_the_epochs_before_it() -> None:
    X, y = class_data()
    model = TargetSpaceClassifier(**TABLE, warm_start=True)
    fit_quietly(model, X, y)
    assert model.validation_scores_ is None
    fit_quietly(model, X, y, X_val=X[:20], y_val=y[:20])
    for curve in (model.validation_scores_, model.validation_loss_curve_):
        assert len(curve) == len(model.loss_curve_)
        assert np.isnan(curve[:12]).all()
        assert np.isfinite(curve[12:]).all()
    fit_quietly(model, X, y)
    assert len(model.validation_scores_) == 12 + model.n_iter_


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("settings", [{}, {"learning_rate_init": 0.01}])
def test_runs_without_the_recipe_are_not_repeated(
    kind: Any, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(255, size=(200, 1, 6, 6)).astype(kind), np.arange(200) % 2
    X = X if kind == np.uint8 else X / 255
    model = TargetSpaceClassifier(
        (5,), conv_layers=[(2, 3, 1)], verbose=True, **SMALL, **settings
    )
    given = {"X_val": X[120:], "y_val": rng.permutation(y[120:])}
    fit_quietly(model, X[:120], y[:120], **given)
    in_weights = TargetSpaceClassifier((5,), parameterization="weights", **SMALL)
    given["X_val"] = X[120:, 0, 0]
    fit_quietly(in_weights.set_params(verbose=True), X[:120, 0, 0], y[:120], **given)
    assert "trying" not in capsys.readouterr().out
