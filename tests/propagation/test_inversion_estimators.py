"""What the estimators by regularised inversion do with their parameters."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone, is_regressor
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from sktarget.datasets import make_adding, make_delayed_recall, make_temporal_order
from sktarget.propagation import (
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
    RegularizedInversionSequenceClassifier,
    RegularizedInversionSequenceRegressor,
)
from tests.estimators.support import (
    ALL_EPOCHS,
    SeesRates,
    SetsRate,
    assert_same_weights,
    class_data,
    curve_data,
    fit_quietly,
    label_data,
    weights,
    weights_differ,
)

DENSE = [RegularizedInversionClassifier, RegularizedInversionRegressor]
RECURRENT = [
    RegularizedInversionSequenceClassifier,
    RegularizedInversionSequenceRegressor,
]
KINDS = [*DENSE, *RECURRENT]
for_all = pytest.mark.parametrize("kind", KINDS)


def small(kind: type, **more: Any) -> Any:
    settings: dict[str, Any] = {"max_iter": 4, "batch_size": 30, "random_state": 0}
    if kind in DENSE:
        settings["hidden_layer_sizes"] = (7, 6, 5)
    else:
        settings["recurrent_layer_sizes"] = 6
    return kind(**(settings | ALL_EPOCHS | more))


def problem(kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
    made: tuple[NDArray[Any], NDArray[Any]] = {
        RegularizedInversionClassifier: class_data,
        RegularizedInversionRegressor: curve_data,
        RegularizedInversionSequenceClassifier: lambda: make_temporal_order(
            90, 10, random_state=0
        ),
        RegularizedInversionSequenceRegressor: lambda: make_adding(
            90, 10, random_state=0
        ),
    }[kind]()
    return made


def test_fitted_attributes_of_dense_networks() -> None:
    X, y = class_data(3)
    estimator = fit_quietly(small(RegularizedInversionClassifier), X, y)
    assert [c.shape for c in estimator.coefs_] == [(4, 7), (7, 6), (6, 5), (5, 3)]
    assert estimator.displacement_norms_.shape == (3,)
    assert (estimator.displacement_norms_ > 0).all()
    assert estimator.n_layers_ == 5


@pytest.mark.parametrize("return_sequences", [False, True])
def test_fitted_attributes_of_recurrent_networks(return_sequences: bool) -> None:
    X, y = make_temporal_order(90, 10, random_state=0)
    if return_sequences:
        y = X.argmax(axis=1)
    estimator = small(RECURRENT[0], return_sequences=return_sequences)
    fit_quietly(estimator, X, y)
    n_classes = 6 if return_sequences else 4
    assert [c.shape for c in estimator.coefs_] == [(12, 6), (6, n_classes)]
    assert [c.shape for c in estimator.intercepts_] == [(6,), (n_classes,)]
    assert estimator.displacement_norms_.shape == (10,)
    assert estimator.n_layers_ == 3
    shape = (90, 10, 6) if return_sequences else (90, 4)
    assert estimator.predict_proba(X).shape == shape


@for_all
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("linearize", True),
        ("ridge", 3.0),
        ("clip", 0.1),
        ("target_lr", 0.03),
        ("weight_init", "uniform"),
    ],
)
def test_parameters_have_a_say(kind: type, name: str, value: Any) -> None:
    X, y = problem(kind)
    settings = {"solver": "sgd", "learning_rate_init": 0.1}
    plain = fit_quietly(small(kind, **settings), X, y)
    other = fit_quietly(small(kind, **settings, **{name: value}), X, y)
    assert weights_differ(plain, other)


@for_all
def test_uniform_weights_lie_within_their_bounds(kind: type) -> None:
    X, y = problem(kind)
    settings = {"weight_init": "uniform", "solver": "sgd", "learning_rate_init": 1e-12}
    estimator = fit_quietly(small(kind, **settings), X, y)
    # A recurrent layer has two matrices, of inputs and of states; the last matrix of a
    # regression is in units of y.
    matrices = [
        parameter.detach().numpy()
        for name, parameter in estimator.module_.named_parameters()
        if "weight" in name
    ]
    for matrix in matrices[:-1]:
        bound = np.sqrt(6 / sum(matrix.shape))
        assert 0.7 * bound < np.abs(matrix).max() < bound + 1e-6


@for_all
def test_going_on_draws_no_weights(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(small(kind, warm_start=True), X, y)
    same = fit_quietly(small(kind, warm_start=True), X, y)
    fit_quietly(same, X, y)
    fit_quietly(estimator.set_params(weight_init="uniform"), X, y)
    assert_same_weights(estimator, same)


@for_all
def test_ridge_beyond_single_precision_is_refused(kind: type) -> None:
    X, y = problem(kind)
    with pytest.raises(ValueError, match=r"ridge must be finite in torch\.float32"):
        small(kind, ridge=1e39).fit(X.astype(np.float32), y)


@for_all
def test_saturation_is_that_of_the_last_mini_batch(kind: type) -> None:
    X, y = problem(kind)
    settings = {"batch_size": 200, "learning_rate_init": 1e-12, "clip": 0.3}
    estimator = fit_quietly(small(kind, **settings), X, y)
    hidden = []
    if kind in DENSE:
        h = X
        for w, b in zip(estimator.coefs_[:-1], estimator.intercepts_[:-1], strict=True):
            h = np.tanh(h @ w + b)
            hidden.append(h)
    else:
        h = np.zeros((len(X), 6))
        for step in np.moveaxis(X, 2, 0):
            sums = np.hstack([step, h]) @ estimator.coefs_[0]
            h = np.tanh(sums + estimator.intercepts_[0])
            hidden.append(h)
    share = np.mean(np.abs(np.hstack(hidden)) > 0.7)
    assert 0.01 < share < 0.99
    assert estimator.saturation_fraction_ == pytest.approx(share)


@for_all
def test_initial_weights_are_orthogonal(kind: type) -> None:
    X, y = problem(kind)
    estimator = small(kind, max_iter=1, learning_rate_init=1e-12)
    fit_quietly(estimator, X, y)
    maps = estimator.coefs_
    if kind in RECURRENT:
        n = X.shape[1]
        maps = [maps[0][:n], maps[0][n:], maps[1]]
    if is_regressor(estimator):
        maps[-1] = maps[-1] / y.std()
    for weight in maps:
        np.testing.assert_allclose(np.linalg.svd(weight)[1], 1, atol=1e-6)


@for_all
@pytest.mark.parametrize("linearize", [True, False])
@pytest.mark.parametrize("solver", ["adam", "sgd", "rmsprop_centered"])
@pytest.mark.parametrize("method", ["partial_fit", "warm_start"])
def test_going_on_keeps_the_optimiser(
    kind: type, linearize: bool, solver: str, method: str
) -> None:
    X, y = problem(kind)
    settings = {"solver": solver, "momentum": 0.9, "linearize": linearize}
    once = fit_quietly(small(kind, **settings), X, y)
    settings["warm_start"] = method == "warm_start"
    parts = small(kind, **settings, max_iter=1)
    for _ in range(4):
        fit_quietly(
            parts, X, y, method="fit" if method == "warm_start" else "partial_fit"
        )
    assert_same_weights(once, parts)
    np.testing.assert_allclose(once.loss_curve_, parts.loss_curve_)


@for_all
def test_target_lr_of_zero_trains_the_output_layer_alone(kind: type) -> None:
    X, y = problem(kind)
    one = fit_quietly(small(kind, target_lr=0, max_iter=1), X, y)
    more = fit_quietly(small(kind, target_lr=0, max_iter=9), X, y)
    for a, b in zip(one.coefs_[:-1], more.coefs_[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(one.coefs_[-1], more.coefs_[-1])
    assert (more.displacement_norms_ == 0).all()


@for_all
@pytest.mark.usefixtures("global_state_untouched")
def test_random_state_alone_decides(kind: type) -> None:
    X, y = problem(kind)
    a, b = (fit_quietly(small(kind), X, y) for _ in range(2))
    assert_same_weights(a, b)
    assert weights_differ(a, fit_quietly(small(kind, random_state=1), X, y))


@for_all
def test_copies_predict_the_same(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(small(kind), X, y)
    restored = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(estimator.predict(X), restored.predict(X))


@for_all
def test_divergence_at_once_names_what_may_be_at_fault(kind: type) -> None:
    X, y = problem(kind)
    estimator = small(kind, solver="sgd", learning_rate_init=1e30, target_lr=1e10)
    message = (
        r"diverged.*epoch 1 \(learning_rate_init=1e\+30, target_lr=1e\+10, ridge=.*, "
        r"clip=.*\)\. Raise ridge or clip"
    )
    with pytest.raises(ValueError, match=message):
        estimator.fit(X.astype("f4"), y)
    assert not hasattr(estimator, "n_iter_")


@for_all
def test_later_divergence_keeps_the_best_state(kind: type) -> None:
    X, y = problem(kind)
    estimator = small(
        kind, max_iter=30, solver="sgd", callbacks=[SetsRate(1e30, 10)], target_lr=1e5
    )
    with pytest.warns(ConvergenceWarning, match="diverged.*best epoch is kept"):
        estimator.fit(X.astype("f4"), y)
    assert all(np.isfinite(w).all() for w in weights(estimator))
    assert np.isfinite(estimator.loss_curve_).all()
    assert 9 <= estimator.n_iter_ <= 12


class LosesALayer(Callback):
    """Makes the weights of a hidden layer infinite."""

    def on_batch_begin(self, net: Any, **_: Any) -> None:
        weight = net.module_.get_parameter("network.layers.1.weight")
        torch.nn.init.constant_(weight, torch.inf)


def test_failed_factorisation_is_reported_and_undone() -> None:
    X, y = class_data()
    estimator = small(RegularizedInversionClassifier, warm_start=True)
    fit_quietly(estimator, X, y)
    before = estimator.predict_proba(X)
    estimator.set_params(callbacks=[LosesALayer()])
    with pytest.warns(ConvergenceWarning, match="What failed first: the trace"):
        estimator.fit(X, y)
    np.testing.assert_array_equal(estimator.predict_proba(X), before)


# By solver: the rate of mini-batches, of all of 90 rows at once, and of all of 40.
AUTO_RATES = {
    "adam": (0.001, 0.01, 0.01),
    "sgd": (0.1, 0.1, 0.01),
    "rmsprop_centered": (0.01, 0.01, 0.01),
}


@pytest.mark.parametrize("kind", [DENSE[0], RECURRENT[1]])
@pytest.mark.parametrize(("solver", "rates"), AUTO_RATES.items())
def test_automatic_rates(
    kind: type, solver: str, rates: tuple[float, float, float]
) -> None:
    X, y = problem(kind)
    seen = SeesRates()

    def rate(n_rows: int, batch_size: int, method: str = "fit") -> float:
        settings = {"solver": solver, "batch_size": batch_size, "max_iter": 1}
        estimator = small(kind, **settings, callbacks=[seen])
        fit_quietly(estimator, X[:n_rows], y[:n_rows], method)
        (found,) = seen.rates
        return found

    assert (rate(90, 89), rate(90, 90), rate(40, 40)) == rates
    # Of the rows of a call nobody knows whether they are all there are.
    assert rate(40, 40, "partial_fit") == rates[0]
    assert rate(49, 100) == rates[2]
    assert rate(50, 100) == rates[1]


@pytest.mark.parametrize("sizes", [(5,), ()])
def test_one_layer_is_told_to_be_backpropagation(sizes: Any) -> None:
    X, y = class_data()
    estimator = small(RegularizedInversionClassifier, hidden_layer_sizes=sizes)
    with pytest.warns(UserWarning, match=r"hidden layer no target.*backpropagation"):
        fit_quietly(estimator, X, y)


def test_several_labels() -> None:
    X, y = label_data()
    estimator = small(RegularizedInversionClassifier, max_iter=150)
    estimator.set_params(learning_rate_init=0.01)
    assert fit_quietly(estimator, X, y).score(X, y) > 0.6


def test_identity_activation_is_a_linear_model() -> None:
    X, y = class_data(3)
    estimator = small(RegularizedInversionClassifier, activation="identity")
    fit_quietly(estimator.set_params(max_iter=50, learning_rate_init=0.01), X, y)
    assert estimator.saturation_fraction_ == 0
    scores = estimator.decision_function(np.vstack([X[:2], X[:2].mean(axis=0)]))
    np.testing.assert_allclose(scores[2], scores[:2].mean(axis=0))
    assert estimator.score(X, y) > 0.8


def test_unequal_lengths_in_either_form() -> None:
    X, y = make_temporal_order(90, 12, random_state=0)
    lengths = np.random.default_rng(0).integers(8, 13, size=90)
    padded = X.copy()
    for row, length in zip(padded, lengths, strict=True):
        row[:, length:] = np.nan
    series = [row[:, :length] for row, length in zip(X, lengths, strict=True)]
    one = fit_quietly(small(RECURRENT[0]), padded, y)
    other = fit_quietly(small(RECURRENT[0]), series, y)
    assert_same_weights(one, other)
    np.testing.assert_array_equal(one.predict(padded), other.predict(series))
    assert one.displacement_norms_.shape == (12,)


def test_several_numbers_in_their_own_units() -> None:
    X, y = curve_data()
    y = np.column_stack([y, 1e4 * y - 5e5])
    settings = {"max_iter": 150, "learning_rate_init": 0.01}
    estimator = fit_quietly(small(DENSE[1], **settings), X, y)
    scores = 1 - ((estimator.predict(X) - y) ** 2).mean(0) / y.var(0)
    assert (scores > 0.8).all()
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_numbers_of_sequences_are_learnt_through_time(return_sequences: bool) -> None:
    X, y = make_adding(400, 10, random_state=0)
    if return_sequences:
        y = X[:, 1].cumsum(axis=1)
    through_time = {"update": "through_time", "ridge": 10.0, "clip": 1e-3}
    estimator = small(
        RECURRENT[1],
        **through_time,
        linearize=True,
        solver="adam",
        learning_rate_init=0.01,
        recurrent_layer_sizes=20,
        return_sequences=return_sequences,
        max_iter=100,
    )
    missed = 1 - fit_quietly(estimator, X, y).score(X, y)
    assert missed < 0.1
    assert estimator.predict(X).shape == y.shape
    if not return_sequences:  # Random states suffice for running sums.
        alone = fit_quietly(estimator.set_params(target_lr=0.0), X, y)
        assert missed < 0.5 * (1 - alone.score(X, y))


# Of 90 rows, the last mini-batch of 40 has 10.  Where one holds all rows, weights that
# add up to more than their number stand for more rows.
@for_all
@pytest.mark.parametrize(
    ("batch_size", "factors"), [(40, (1, 1e-3, 1e-9, 7)), (200, (0.6, 1e-3, 1e-9))]
)
def test_scale_of_weights_does_not_matter(
    kind: type, batch_size: int, factors: tuple[float, ...]
) -> None:
    X, y = problem(kind)
    weight = 1.0 + np.arange(len(X)) % 2
    batches = {"batch_size": batch_size, "solver": "sgd", "learning_rate_init": 0.01}
    fits = [
        fit_quietly(small(kind, **batches), X, y, sample_weight=weight * factor)
        for factor in factors
    ]
    for other in fits[1:]:
        assert_same_weights(other, fits[0], atol=1e-9)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_weights_of_sequences_are_repeats(return_sequences: bool) -> None:
    X, y = make_temporal_order(40, 10, random_state=0)
    if return_sequences:
        y = X.argmax(axis=1)
        y[::3, 5:] = -1  # Fewer steps count in these.
    settings: dict[str, Any] = {
        "return_sequences": return_sequences,
        "batch_size": 200,
        "solver": "sgd",
        "learning_rate_init": 0.01,
        "target_lr": 20.0,  # far from linear
    }
    weight = 1 + np.arange(40) % 3
    weighted = small(RECURRENT[0], **settings)
    fit_quietly(weighted, X, y, sample_weight=weight)
    rows = np.repeat(np.arange(40), weight)
    repeated = fit_quietly(small(RECURRENT[0], **settings), X[rows], y[rows])
    if not return_sequences:
        assert_same_weights(weighted, repeated, atol=1e-9)
        return
    # A mean over steps is not one over sequences, but comes close to it.
    equal = fit_quietly(small(RECURRENT[0], **settings), X, y)
    settings["learning_rate_init"] = 1e-12
    start = fit_quietly(small(RECURRENT[0], **settings), X, y)
    for before, found, truth, without in zip(
        *(weights(e) for e in (start, weighted, repeated, equal)), strict=True
    ):
        moved, should = (found - before).ravel(), (truth - before).ravel()
        assert np.corrcoef(moved, should)[0, 1] > 0.999
        missed, missed_without = (np.linalg.norm(w - truth) for w in (found, without))
        assert missed < 0.1 * missed_without


def test_padding_of_all_in_a_mini_batch_is_left_out() -> None:
    X, y = make_temporal_order(60, 10, random_state=0)
    longer = np.full((60, 6, 40), np.nan)
    longer[..., :10] = X
    longer[0, :, 10:] = X[0, :, [0] * 30].T  # the only long one
    lengths: list[int] = []

    class SeesSteps(Callback):  # type: ignore[misc]
        def on_train_begin(self, net: Any, **_: Any) -> None:
            layer = net.module_.network.recurrent[0]
            layer.register_forward_pre_hook(lambda _, x: lengths.append(x[0].shape[1]))

    settings = {"batch_size": 30, "shuffle": False, "max_iter": 1}
    estimator = small(RECURRENT[0], **settings, callbacks=[SeesSteps()])
    fit_quietly(estimator, longer, y)
    assert lengths[:2] == [40, 10]
    assert estimator.displacement_norms_.shape == (40,)
    assert (estimator.displacement_norms_[10:] == 0).all()
    assert (estimator.displacement_norms_[:10] > 0).all()


def test_steps_are_learnt() -> None:
    X, y = make_delayed_recall(300, 10, n_timesteps=23, random_state=0)
    estimator = RegularizedInversionSequenceClassifier(
        20,
        return_sequences=True,
        solver="sgd",
        learning_rate_init=0.3,
        batch_size=20,
        max_iter=40,
        random_state=0,
    )
    missed = 1 - fit_quietly(estimator, X, y).score(X, y)
    alone = fit_quietly(clone(estimator).set_params(target_lr=0.0), X, y)
    assert missed < 0.01
    assert missed < 0.25 * (1 - alone.score(X, y))  # Random states hold much.
    lists = estimator.predict([row[:, :7] for row in X[:3]])
    assert [p.shape for p in lists] == [(7,)] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ridge", 0.0),
        ("clip", 0.0),
        ("clip", 1.0),
        ("target_lr", -1.0),
        ("update", "global"),
        ("recurrent_layer_sizes", (5, 5)),
        ("recurrent_layer_sizes", ()),
        ("solver", "lbfgs"),
    ],
)
def test_bad_parameters_are_named(name: str, value: Any) -> None:
    X, y = make_temporal_order(30, 10, random_state=0)
    with pytest.raises(ValueError, match=name):
        small(RECURRENT[0], **{name: value}).fit(X, y)


def test_predictions_follow_from_an_ordinary_module() -> None:
    X, y = make_temporal_order(90, 10, random_state=0)
    estimator = fit_quietly(small(RECURRENT[0]), X, y)
    with torch.no_grad():
        sums = estimator.module_(torch.from_numpy(X).transpose(1, 2))
    np.testing.assert_allclose(estimator.decision_function(X), sums)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_losses_that_grow_without_end_are_divergence(early_stopping: bool) -> None:
    X = np.random.default_rng(0).normal(size=(200, 1, 10)) + 10  # not standardised
    estimator = RegularizedInversionSequenceRegressor(
        random_state=0, early_stopping=early_stopping
    )
    with pytest.warns(ConvergenceWarning, match=r"diverged.*has grown to .*standardis"):
        estimator.fit(X, X[:, 0, -1])
    assert estimator.score(X, X[:, 0, -1]) > -20
