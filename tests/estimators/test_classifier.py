"""What only the classifier has: labels, probabilities, weights of classes."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.neural_network import MLPClassifier

from sktarget import TargetSpaceClassifier
from tests.estimators.support import (
    ALL_EPOCHS,
    assert_same_weights,
    class_data,
    fit_quietly,
    label_data,
    weights_differ,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6,),
    "lam": 1e-2,
    "learning_rate_init": 0.1,
    "max_iter": 60,
    "random_state": 0,
    **ALL_EPOCHS,
}


def small(**parameters: Any) -> TargetSpaceClassifier:
    return TargetSpaceClassifier(**(SMALL | parameters))


@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("kind_of_label", ["int", "str", "bool", "object"])
def test_labels_of_any_kind(n_classes: int, kind_of_label: str) -> None:
    if kind_of_label == "bool" and n_classes > 2:
        pytest.skip("there are two truth values")
    X, y = class_data(n_classes)
    labels = {
        "int": np.array([7, -3, 100, 5])[y],
        "str": np.array(["pear", "apple", "fig", "plum"])[y],
        "bool": y.astype(bool),
        "object": np.array(["pear", "apple", "fig", "plum"], dtype=object)[y],
    }[kind_of_label]
    estimator = fit_quietly(small(), X, labels)
    assert estimator.classes_.tolist() == sorted(set(labels.tolist()))
    assert estimator.predict(X).dtype == labels.dtype
    assert estimator.score(X, labels) > 0.9
    # The kind of the labels is a matter of names; their order alone matters.
    codes = np.searchsorted(estimator.classes_, labels)
    assert_same_weights(estimator, fit_quietly(small(), X, codes))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_agree(n_classes: int) -> None:
    X, y = class_data(n_classes)
    estimator = fit_quietly(small(), X, y)
    p = estimator.predict_proba(X)
    decision = estimator.decision_function(X)
    assert p.shape == (len(X), n_classes)
    assert decision.shape == ((len(X),) if n_classes == 2 else p.shape)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.exp(estimator.predict_log_proba(X)), p, rtol=1e-10)
    if n_classes == 2:
        np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-decision)), rtol=1e-10)
        chosen = (decision > 0).astype(int)
    else:
        odds = np.exp(decision)
        np.testing.assert_allclose(p, odds / odds.sum(1, keepdims=True), rtol=1e-10)
        chosen = decision.argmax(axis=1)
    np.testing.assert_array_equal(estimator.predict(X), chosen)
    np.testing.assert_array_equal(estimator.predict(X), p.argmax(axis=1))


def test_log_proba_where_probabilities_vanish() -> None:
    X, y = class_data()
    estimator = fit_quietly(small(activation="identity"), X, y)
    far = estimator.predict_log_proba(1e6 * X)
    assert np.isfinite(far).all()
    assert far.min() < -1000


def test_multilabel() -> None:
    X, y = label_data()
    estimator = fit_quietly(small(), X, y)
    p = estimator.predict_proba(X)
    assert estimator.out_activation_ == "logistic"
    assert estimator.classes_.tolist() == [0, 1, 2]
    assert p.shape == estimator.predict(X).shape == y.shape
    np.testing.assert_array_equal(estimator.predict(X), p > 0.5)
    np.testing.assert_allclose(
        p, 1 / (1 + np.exp(-estimator.decision_function(X))), rtol=1e-10
    )
    np.testing.assert_allclose(np.exp(estimator.predict_log_proba(X)), p, rtol=1e-10)
    # Each label is learnt, not only the most frequent outcome.
    most_frequent = np.maximum(y.mean(axis=0), 1 - y.mean(axis=0))
    assert ((estimator.predict(X) == y).mean(axis=0) > most_frequent + 0.1).all()


def test_sparse_labels_are_written_out() -> None:
    X, y = label_data()
    settings: dict[str, Any] = {"max_iter": 5, "random_state": 0}
    dense = fit_quietly(TargetSpaceClassifier((5,), **settings), X, y)
    sparse = fit_quietly(TargetSpaceClassifier((5,), **settings), X, csr_array(y))
    np.testing.assert_array_equal(sparse.predict_proba(X), dense.predict_proba(X))


def test_column_of_labels_warns() -> None:
    X, y = class_data()
    with pytest.warns(DataConversionWarning):
        estimator = fit_quietly(small(), X, y[:, None])
    assert estimator.predict(X).shape == y.shape


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_attributes_of_the_mlp(task: str, early_stopping: bool) -> None:
    X, y = label_data() if task == "multilabel" else class_data(2 + (task[0] == "m"))
    common: dict[str, Any] = {
        "hidden_layer_sizes": (6, 5),
        "max_iter": 4,
        "early_stopping": early_stopping,
        "random_state": 0,
    }
    ours = fit_quietly(TargetSpaceClassifier(**common), X, y)
    theirs = fit_quietly(MLPClassifier(**common), X, y)
    # Two classes take two softmax outputs here, one logistic output there.
    binary = task == "binary"
    for name in ("coefs_", "intercepts_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert [m.shape[:-1] for m in a] == [m.shape[:-1] for m in b]
        assert [m.shape[-1] for m in a] == [6, 5, 2 if binary else 3]
        assert {m.dtype for m in a} == {m.dtype for m in b}
    for name in ("n_layers_", "n_iter_", "t_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.n_outputs_ == (2 if binary else theirs.n_outputs_)
    assert ours.out_activation_ == ("softmax" if binary else theirs.out_activation_)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    for name in ("loss_curve_", "validation_scores_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None)
        assert a is None or len(a) == len(b) == 4
    for name in ("best_loss_", "best_validation_score_"):
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)
    assert ours.loss_ == ours.loss_curve_[-1]
    if early_stopping:
        assert ours.best_validation_score_ == max(ours.validation_scores_)
        assert len(ours.validation_loss_curve_) == 4
    else:
        assert ours.best_loss_ == min(ours.loss_curve_)


def test_loss_curve_is_the_log_loss() -> None:
    X, y = class_data(3)
    settings: dict[str, Any] = {"alpha": 0.0, "batch_size": 90, "warm_start": True}
    estimator = fit_quietly(small(max_iter=5, **settings), X, y)
    p = estimator.predict_proba(X)[np.arange(len(y)), y]
    # The first loss of the next call is that of the weights of this one.
    fit_quietly(estimator.set_params(max_iter=1), X, y)
    np.testing.assert_allclose(estimator.loss_curve_[5], -np.log(p).mean(), rtol=1e-10)


def test_alpha_is_a_penalty_on_the_realised_weights() -> None:
    X, y = class_data(3)
    settings: dict[str, Any] = {"batch_size": 90, "max_iter": 1, "warm_start": True}
    start = fit_quietly(small(alpha=0.0, learning_rate_init=1e-12, **settings), X, y)
    decayed = fit_quietly(small(alpha=6.0, learning_rate_init=1e-12, **settings), X, y)
    penalty = 0.5 * 6.0 * sum((w**2).sum() for w in start.coefs_) / len(X)
    np.testing.assert_allclose(
        decayed.loss_ - start.loss_, penalty, rtol=1e-8, err_msg="alpha in the loss"
    )
    far, near = (
        fit_quietly(small(alpha=alpha, batch_size=90), X, y) for alpha in (0.0, 20.0)
    )
    norms = [sum((w**2).sum() for w in e.coefs_) for e in (far, near)]
    assert norms[1] < 0.7 * norms[0]


@pytest.mark.parametrize(
    "class_weight", [{0: 1.0, 1: 4.0, 2: 0.5}, "balanced"], ids=["dict", "balanced"]
)
def test_class_weight_is_a_weight_of_rows(class_weight: Any) -> None:
    X, y = class_data(3)
    X, y = X[: len(X) - 20], y[: len(y) - 20]
    per_class = class_weight
    if class_weight == "balanced":
        per_class = dict(enumerate(len(y) / (3 * np.bincount(y))))
    of_rows = np.array([per_class[label] for label in y])
    by_class = fit_quietly(small(class_weight=class_weight), X, y)
    by_row = fit_quietly(small(), X, y, sample_weight=of_rows)
    assert_same_weights(by_class, by_row, atol=1e-10)
    assert weights_differ(by_class, fit_quietly(small(), X, y))


def test_class_weight_multiplies_sample_weight() -> None:
    X, y = class_data()
    given = np.random.default_rng(0).uniform(0.5, 2, len(y))
    both = fit_quietly(small(class_weight={0: 3.0, 1: 1.0}), X, y, sample_weight=given)
    product = given * np.where(y == 0, 3.0, 1.0)
    assert_same_weights(
        both, fit_quietly(small(), X, y, sample_weight=product), atol=1e-10
    )


def test_balanced_classes_count_by_weight() -> None:
    X, y = class_data()
    weight = 1.0 + (y == 1)
    by_rows = np.repeat(np.arange(len(y)), weight.astype(int))
    estimator = small(class_weight="balanced")
    weighted = fit_quietly(clone(estimator), X, y, sample_weight=weight)
    repeated = fit_quietly(estimator, X[by_rows], y[by_rows])
    assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-9)


def test_class_weight_of_a_class_that_a_batch_lacks() -> None:
    X, y = class_data()
    estimator = small(class_weight={1: 5.0}).partial_fit(X, y, classes=[0, 1, 2])
    estimator.partial_fit(X[y == 0], y[y == 0])
    assert_array_equal(estimator.classes_, [0, 1, 2])
    with pytest.raises(
        ValueError, match=r"class_weight names \[7\].*classes \[0, 1, 2\]"
    ):
        small(class_weight={7: 1.0}).partial_fit(X, y, classes=[0, 1, 2])


def test_class_weight_may_name_a_class_whose_rows_do_not_count() -> None:
    X, y = class_data(3)
    settings: Any = {"class_weight": {2: 0.0}, "max_iter": 3}
    estimator = small(**settings, warm_start=True)
    for _ in range(2):
        fit_quietly(estimator, X, y)
        assert_array_equal(estimator.classes_, [0, 1])
    held_out = y[:20] < 2
    judged = small(**settings, early_stopping=True)
    fit_quietly(judged, X, y, X_val=X[:20][held_out], y_val=y[:20][held_out])
    assert judged.validation_scores_ is not None


@pytest.mark.parametrize("share", [1e-1, 1e-4])
def test_small_weights_leave_deep_networks_as_they_are(share: float) -> None:
    X = np.random.default_rng(0).normal(size=(400, 4))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    deep = TargetSpaceClassifier((20,) * 4, max_iter=60, random_state=0)
    found = fit_quietly(clone(deep), X, y, sample_weight=np.full(400, share))
    expected = fit_quietly(deep, X, y)
    assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-3)


def test_class_weight_moves_the_boundary() -> None:
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(-0.5, 1, (150, 2)), rng.normal(0.5, 1, (15, 2))]
    y = np.repeat([0, 1], [150, 15])
    plain = fit_quietly(small(hidden_layer_sizes=()), X, y)
    balanced = fit_quietly(small(hidden_layer_sizes=(), class_weight="balanced"), X, y)
    found = [(e.predict(X)[y == 1] == 1).mean() for e in (plain, balanced)]
    assert found[1] > found[0] + 0.2


def test_rows_of_weight_zero_do_not_count_among_classes() -> None:
    X, y = class_data(3)
    estimator = fit_quietly(small(), X, y, sample_weight=(y < 2).astype(float))
    assert estimator.classes_.tolist() == [0, 1]
    assert_same_weights(estimator, fit_quietly(small(), X[y < 2], y[y < 2]), atol=1e-8)


def test_probabilities_of_many_rows_are_those_of_few() -> None:
    X, y = class_data(3)
    estimator = fit_quietly(small(), X, y)
    many = np.tile(X, (1 + 10_000 // len(X), 1))
    assert_allclose(
        estimator.predict_proba(many)[: len(X)], estimator.predict_proba(X), rtol=1e-12
    )
    assert_allclose(estimator.predict_proba(many).sum(1), 1.0, rtol=1e-12)
    assert_allclose(estimator.predict_proba(1e3 * many).sum(1), 1.0, rtol=1e-12)
