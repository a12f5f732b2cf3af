"""`warm_start` and `partial_fit`."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from skorch.callbacks import Callback
from torch import nn

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from tests.estimators.support import (
    ALL_EPOCHS,
    Array,
    SeesData,
    SeesRates,
    assert_same_weights,
    class_data,
    fit_quietly,
    for_both,
    label_data,
    problem,
    reference_weights,
    weights,
    weights_differ,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6,),
    "lam": 1e-2,
    "max_iter": 5,
    "random_state": 0,
    **ALL_EPOCHS,
}


def test_strong_decay_of_a_fit_does_not_reach_later_calls() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(1000, 12))
    y = X[:, 0] + X[:, 1]
    noise = 2 * rng.normal(size=1000)
    # In fewer than 100 epochs L-BFGS is not tried.
    estimator = TargetSpaceRegressor((20,), max_iter=99, random_state=0)
    fit_quietly(estimator, X[:250], (y + noise)[:250])
    assert estimator._run_rules.decays_strongly
    before = estimator.score(X[500:], y[500:])
    for start in range(0, 500, 25):
        rows = slice(start, start + 25)
        estimator.partial_fit(X[rows], (y + noise)[rows])
    assert estimator.score(X[500:], y[500:]) > before - 0.05


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("batch_size", [90, 20])
def test_two_fits_are_one(
    kind: type, parameterization: str, solver: str, batch_size: int
) -> None:
    X, y = problem(kind)
    settings = SMALL | {
        "parameterization": parameterization,
        "solver": solver,
        "batch_size": batch_size,
        "warm_start": True,
    }
    twice = kind(**settings)
    fit_quietly(fit_quietly(twice, X, y), X, y)
    once = fit_quietly(kind(**(settings | {"max_iter": 10})), X, y)
    assert_same_weights(twice, once)  # bit for bit
    assert twice.loss_curve_ == once.loss_curve_
    assert len(twice.loss_curve_) == 10
    assert twice.n_iter_ == 5  # of the last call
    assert twice.t_ == once.t_ == 900


@for_both
def test_one_pass_or_two_after_a_pause(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"fixed_batch_size": None, "batch_size": 90, "warm_start": True}
    twice = kind(**settings)
    fit_quietly(fit_quietly(twice, X, y), X, y)
    once = fit_quietly(kind(**(settings | {"max_iter": 10})), X, y)
    assert_same_weights(twice, once)


@for_both
def test_one_pass_serves_both_batches_after_a_pause(kind: type) -> None:
    X, y = problem(kind)
    X, y = np.r_[X, X[:10]], np.r_[y, y[:10]]
    seen = SeesData()
    settings: dict[str, Any] = {"max_iter": 5, "callbacks": [seen]}
    estimator = kind((6,), warm_start=True, random_state=0, **settings)
    orders = []
    for rows in (X, X, X[::-1]):
        fit_quietly(estimator, rows, y if rows is X else y[::-1])
        orders.append(seen.train.x.numpy())
        np.testing.assert_array_equal(orders[-1], estimator.fixed_batch_)
    assert len(orders[0]) == len(np.unique(X, axis=0))
    # Other rows are taken as they come.
    fit_quietly(estimator, X[:50], y[:50])
    np.testing.assert_array_equal(seen.train.x.numpy(), X[:50])


@for_both
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("method", ["partial_fit", "warm_start"])
@pytest.mark.parametrize("fixed_batch", ["sample", "noise"])
def test_going_on_from_weights_begins_with_them(
    kind: type, untangling: str, method: str, fixed_batch: str
) -> None:
    X, y = problem(kind)
    settings = SMALL | {
        "hidden_layer_sizes": (6, 5),
        "lam": 10.0,
        "alpha": 0.0,
        "untangling": untangling,
        "fixed_batch": fixed_batch,
        "fixed_batch_size": 40,
        "random_state": None,  # so that the fits differ in their X̄
    }
    estimator = fit_quietly(kind(**settings), X, y)
    before = estimator.predict(X), weights(estimator)
    estimator.set_params(learning_rate_init=1e-14)
    if method == "partial_fit":
        estimator.partial_fit(X[::2], y[::2])
    else:
        fit_quietly(estimator.set_params(warm_start=True, max_iter=1), X[::2], y[::2])
    np.testing.assert_allclose(estimator.predict(X), before[0], atol=1e-6)
    for a, b in zip(weights(estimator), before[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_going_on_from_weights_of_convolutions_begins_with_them() -> None:
    X = np.random.default_rng(0).normal(size=(60, 1, 6, 6))
    y = np.arange(60) % 3
    estimator = TargetSpaceClassifier(
        conv_layers=[(3, 4, 2), (3, 4, None)], **(SMALL | {"lam": 10.0})
    )
    before = fit_quietly(estimator, X, y).predict_proba(X)
    estimator.set_params(learning_rate_init=1e-14).partial_fit(X, y)
    np.testing.assert_allclose(estimator.predict_proba(X), before, atol=1e-6)


@for_both
def test_without_warm_start_fit_begins_anew(kind: type) -> None:
    X, y = problem(kind)
    estimator = kind(**SMALL)
    first = weights(fit_quietly(estimator, X, y))
    second = weights(fit_quietly(estimator, X, y))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(estimator.loss_curve_) == 5


@for_both
def test_warm_start_on_other_rows_keeps_the_fixed_batch(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X[:60], y[:60])
    fixed = estimator.fixed_batch_
    fit_quietly(estimator, X[50:], y[50:])
    np.testing.assert_array_equal(estimator.fixed_batch_, fixed)
    for ours, truth in zip(
        weights(estimator), reference_weights(estimator), strict=True
    ):
        np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-10)


@for_both
def test_warm_start_takes_another_rate(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    before = weights(estimator)
    fit_quietly(estimator.set_params(learning_rate_init=1e-12), X, y)
    for a, b in zip(before, weights(estimator), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


@for_both
@pytest.mark.parametrize(
    ("solver", "changes", "named"),
    [
        ("sgd", {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}),
        ("sgd", {"nesterovs_momentum": False}, {"momentum": 0.9, "nesterov": False}),
        ("adam", {"beta_1": 0.5, "epsilon": 1e-3}, {"betas": (0.5, 0.999)}),
        ("lbfgs", {"max_fun": 7}, {"max_eval": 7}),
        ("lbfgs", {"max_fun": 10**6}, {"max_eval": 100}),
    ],
)
def test_warm_start_takes_other_options_of_the_optimiser(
    kind: type, solver: str, changes: dict[str, Any], named: dict[str, Any]
) -> None:
    class SeesOptions(Callback):  # type: ignore[misc]
        def on_train_begin(self, net: Any, **_: Any) -> None:
            self.groups = [dict(group) for group in net.optimizer_.param_groups]

    X, y = problem(kind)
    seen = SeesOptions()
    estimator = kind(**SMALL, warm_start=True, solver=solver, callbacks=[seen])
    fit_quietly(fit_quietly(estimator, X, y).set_params(**changes), X, y)
    for group in seen.groups:
        assert named.items() <= group.items()


def test_the_line_search_of_lbfgs_begins_with_whole_steps() -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(**SMALL, warm_start=True, solver="lbfgs")
    for rate in (0.1, 0.05):
        seen = SeesRates()
        estimator.set_params(learning_rate_init=rate, callbacks=[seen])
        fit_quietly(estimator, X, y)
        assert set(seen.rates) == {1.0}


@for_both
def test_warm_start_takes_another_lam(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    fit_quietly(estimator.set_params(lam=5.0), X, y)
    assert estimator.lam_ == 5.0
    for ours, truth in zip(
        weights(estimator), reference_weights(estimator), strict=True
    ):
        np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-10)


def test_moments_of_other_targets_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = problem(TargetSpaceClassifier)
    model = TargetSpaceClassifier(**SMALL, warm_start=True)
    fit_quietly(model, X, y)
    kept, ask = [], TargetSpaceClassifier._kept_continuation

    def spy(*args: Any) -> Any:
        kept.append(ask(*args))
        return kept[-1]

    monkeypatch.setattr(TargetSpaceClassifier, "_kept_continuation", spy)
    fit_quietly(model, X, y)
    fit_quietly(model.set_params(lam=5.0), X, y)
    fit_quietly(model, X, y)
    fit_quietly(model.set_params(untangling="ocu"), X, y)
    assert [state is None for state in kept] == [False, True, False, True]


@for_both
@pytest.mark.parametrize("first", ["targets", "weights"])
def test_warm_start_cannot_change_the_space(kind: type, first: str) -> None:
    X, y = problem(kind)
    other = {"targets": "weights", "weights": "targets"}[first]
    estimator = fit_quietly(
        kind(**SMALL, warm_start=True, parameterization=first), X, y
    )
    estimator.set_params(parameterization=other)
    with pytest.raises(ValueError, match=f"parameterization='{first}' to '{other}'"):
        estimator.fit(X, y)
    assert hasattr(estimator, "targets_") == (first == "targets")


@for_both
def test_warm_start_takes_another_solver(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    before = estimator.loss_
    fit_quietly(estimator.set_params(solver="lbfgs"), X, y)
    assert estimator.loss_ < before


@for_both
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("dtypes", [("f4", "f8"), ("f8", "f4")])
def test_going_on_in_another_precision(
    kind: type, method: str, dtypes: tuple[str, str]
) -> None:
    X, y = problem(kind)
    estimator = kind(**SMALL, warm_start=True)
    for dtype in dtypes:
        fit_quietly(estimator, X.astype(dtype), y, method)
    assert {w.dtype for w in weights(estimator)} == {np.dtype(dtypes[0])}
    assert np.isfinite(estimator.predict(X)).all()


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("dtypes", [("f4", "f8"), ("f8", "f4")])
def test_going_on_with_a_module_in_another_precision(
    parameterization: str, dtypes: tuple[str, str]
) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(
        module=nn.Linear, parameterization=parameterization, max_iter=3
    )
    for dtype in dtypes:
        fit_quietly(estimator, X.astype(dtype), y, "partial_fit")
    assert {w.dtype for w in weights(estimator)} == {np.dtype(dtypes[0])}


@for_both
def test_warm_start_after_early_stopping_restores_the_best(kind: type) -> None:
    X, y = problem(kind)
    for seed in range(5):
        seen = SeesData()
        settings = SMALL | {"max_iter": 20, "learning_rate_init": 2.0}
        estimator = kind(
            **(settings | {"random_state": seed}),
            early_stopping=True,
            validation_fraction=0.3,
            warm_start=True,
            callbacks=[seen],
        )
        fit_quietly(fit_quietly(estimator, X, y), X, y)
        held_out = seen.valid.x.numpy(), seen.valid.y.numpy().reshape(-1)
        assert estimator.score(*held_out) == pytest.approx(
            estimator.best_validation_score_, abs=1e-12
        )


# --- partial_fit ----------------------------------------------------------------------


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_partial_fit_is_an_epoch_of_fit(kind: type, parameterization: str) -> None:
    X, y = problem(kind)
    settings = SMALL | {"parameterization": parameterization, "batch_size": 90}
    by_parts = kind(**settings)
    for _ in range(5):
        by_parts.partial_fit(X, y)
    assert_same_weights(by_parts, fit_quietly(kind(**settings), X, y))
    assert len(by_parts.loss_curve_) == 5


@for_both
def test_partial_fit_learns_from_a_stream(kind: type) -> None:
    X, y = problem(kind)
    estimator = kind(**SMALL, learning_rate_init=0.03)
    order = np.random.default_rng(0).permutation(len(y))
    for _ in range(25):
        for rows in np.array_split(order, 3):
            estimator.partial_fit(X[rows], y[rows])
    assert estimator.score(X, y) > 0.85
    assert len(estimator.fixed_batch_) == 30


@for_both
def test_partial_fit_goes_on_after_a_plain_fit(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"max_iter": 40, "learning_rate_init": 0.03}
    estimator = fit_quietly(kind(**settings), X, y)
    before, losses = estimator.score(X, y), estimator.loss_curve_
    estimator.set_params(learning_rate_init=1e-12).partial_fit(X, y)
    # The targets of the fit are gone; those that its weights meet come close.
    assert estimator.score(X, y) > before - 0.03
    assert estimator.loss_curve_[:-1] == losses
    assert hasattr(estimator, "targets_")


def test_classes_that_come_later() -> None:
    X, y = class_data(3)
    estimator = TargetSpaceClassifier(**SMALL)
    early = y < 2
    estimator.partial_fit(X[early], y[early], classes=[2, 0, 1])
    assert estimator.classes_.tolist() == [0, 1, 2]
    assert estimator.predict_proba(X).shape == (len(X), 3)
    for _ in range(60):
        estimator.partial_fit(X, y)
    assert (estimator.predict(X)[y == 2] == 2).mean() > 0.7


def test_partial_fit_of_strings_and_of_labels() -> None:
    X, y = class_data()
    names = np.array(["no", "yes"])[y]
    estimator = TargetSpaceClassifier(**SMALL)
    with pytest.warns(match="partial_fit chooses .* 1 row.* for .* up to 7 inputs"):
        estimator.partial_fit(X[:1], names[:1], classes=["yes", "no"])
    estimator.partial_fit(X, names)
    assert estimator.classes_.tolist() == ["no", "yes"]
    X, y = label_data()
    estimator = TargetSpaceClassifier(**SMALL).partial_fit(X, y).partial_fit(X, y)
    assert estimator.predict(X).shape == y.shape


@for_both
def test_partial_fit_weighs_rows(kind: type) -> None:
    X, y = problem(kind)
    weight = np.random.default_rng(0).uniform(0.1, 5, len(y))
    plain = kind(**SMALL, batch_size=90).partial_fit(X, y).partial_fit(X, y)
    heavy = kind(**SMALL, batch_size=90)
    for _ in range(2):
        heavy.partial_fit(X, y, sample_weight=weight)
    assert weights_differ(plain, heavy)
    settings = SMALL | {"max_iter": 2, "batch_size": 90}
    fitted = fit_quietly(kind(**settings), X, y, sample_weight=weight)
    assert_same_weights(heavy, fitted)


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_every_call_drops_out_something_else(parameterization: str) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(
        (8,),
        dropout=0.5,
        parameterization=parameterization,
        random_state=0,
    )
    seen: list[Array] = []

    class Looks(Callback):  # type: ignore[misc]
        def on_train_begin(self, net: Any, **_: Any) -> None:
            net.module_.train()
            dropout = next(
                m for m in net.module_.modules() if isinstance(m, nn.Dropout)
            )
            seen.append(dropout(torch.ones(64)).numpy() > 0)

    estimator.set_params(callbacks=[Looks()])
    for _ in range(5):
        estimator.partial_fit(X, y, classes=np.unique(y))
    assert len({tuple(mask) for mask in seen}) == 5


@for_both
@pytest.mark.parametrize("changed", [{"lam": 5.0}, {"untangling": "ocu"}])
def test_another_way_to_solve_leaves_the_network_as_it_was(
    kind: type, changed: dict[str, Any]
) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    before = estimator.predict(X)
    fit_quietly(estimator.set_params(learning_rate_init=1e-12, **changed), X, y)
    np.testing.assert_allclose(estimator.predict(X), before, atol=1e-5)
    kept = estimator.targets_
    fit_quietly(estimator, X, y)  # Nothing has changed since.
    for now, then in zip(estimator.targets_, kept, strict=True):
        np.testing.assert_allclose(now, then, atol=1e-6)


@pytest.mark.parametrize("order", ["one class first", "sorted"])
def test_later_calls_may_bring_the_other_classes(order: str) -> None:
    scores = []
    for seed in range(3):
        X, y = make_classification(
            600, 10, n_informative=6, n_classes=3, random_state=seed
        )
        rows = np.random.default_rng(seed).permutation(300)
        if order == "sorted":
            rows = np.argsort(y[:300], kind="stable")
        else:
            first = np.flatnonzero(y[:300] == 0)[:30]
            rows = np.concatenate([first, rows[~np.isin(rows, first)]])
        estimator = TargetSpaceClassifier((16,), random_state=seed)
        for _ in range(20):
            for part in np.split(rows, 10):
                estimator.partial_fit(X[part], y[part], classes=[0, 1, 2])
        scores.append(estimator.score(X[300:], y[300:]))
    # From the labels of one class, it would be 0.47 and 0.4.
    assert np.mean(scores) > 0.52


@for_both
@pytest.mark.parametrize("name", ["fixed_batch", "fixed_batch_size"])
def test_warm_start_takes_another_fixed_batch(kind: type, name: str) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    before, sums = estimator.fixed_batch_, estimator.predict(X)
    value = X[5:60] + 0.1 if name == "fixed_batch" else 50
    estimator.set_params(**{name: value}, learning_rate_init=1e-9, max_iter=1)
    fit_quietly(estimator, X, y)
    assert estimator.fixed_batch_.shape != before.shape
    if name == "fixed_batch":
        np.testing.assert_array_equal(estimator.fixed_batch_, value)
    np.testing.assert_allclose(estimator.predict(X), sums, atol=1e-3)
    again = estimator.fixed_batch_
    np.testing.assert_array_equal(fit_quietly(estimator, X, y).fixed_batch_, again)


@for_both
def test_going_on_after_a_plain_fit_counts_repeats_as_weights(kind: type) -> None:
    X, y = problem(kind)
    weight = 1 + np.arange(len(X)) % 2
    rows = np.repeat(np.arange(len(X)), weight)
    fits = []
    for given in ((X, y, weight), (X[rows], y[rows], None)):
        estimator = fit_quietly(kind(random_state=0, max_iter=20), X, y)
        estimator.set_params(warm_start=True)
        fits.append(fit_quietly(estimator, *given[:2], sample_weight=given[2]))
    assert_same_weights(*fits, atol=1e-8)


@for_both
def test_a_few_rows_after_a_plain_fit_lose_what_was_learnt(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**(SMALL | {"hidden_layer_sizes": (70,)})), X, y)
    with pytest.warns(UserWarning, match=r"60 row\(s\).*is lost.*warm_start=True"):
        estimator.partial_fit(X[:60], y[:60])


@for_both
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_moments_of_another_fixed_batch_are_dropped(kind: type, solver: str) -> None:
    X, y = problem(kind)
    settings = SMALL | {"fixed_batch_size": 12, "solver": solver}
    estimator = fit_quietly(kind(**settings, warm_start=True), X, y)
    for size in (len(X), 30):
        fit_quietly(estimator.set_params(fixed_batch_size=size), X, y)
        assert len(estimator.fixed_batch_) == size
        assert np.isfinite(estimator.predict(X)).all()
    estimator.set_params(fixed_batch_size=40)
    fit_quietly(estimator, X, y, method="fit" if solver == "lbfgs" else "partial_fit")
    assert len(estimator.fixed_batch_) == 40


def test_moments_of_other_rows_are_dropped() -> None:
    X, y = class_data()
    settings = SMALL | {"fixed_batch": X[:30]}
    estimator = fit_quietly(TargetSpaceClassifier(**settings, warm_start=True), X, y)
    fresh = copy.deepcopy(estimator)
    del fresh._optimiser_state
    for each in (estimator, fresh):
        fit_quietly(each.set_params(fixed_batch=X[30:60]), X, y)
    assert_same_weights(estimator, fresh)


def test_a_fixed_batch_may_be_given_in_another_form() -> None:
    X, y = class_data()
    settings = SMALL | {"fixed_batch": X[:30]}
    estimator = fit_quietly(TargetSpaceClassifier(**settings, warm_start=True), X, y)
    other = copy.deepcopy(estimator).set_params(fixed_batch=X[:30].tolist())
    for each in (estimator, other):
        fit_quietly(each, X, y)
    assert_same_weights(estimator, other)


@pytest.mark.parametrize("missing", ["_chosen_by"])
def test_states_of_before_go_on(missing: str) -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL, warm_start=True), X, y)
    before = pickle.loads(pickle.dumps(estimator))
    del before.__dict__[missing]
    assert_same_weights(fit_quietly(before, X, y), fit_quietly(estimator, X, y))


@for_both
def test_all_rows_after_a_few_count_repeats_as_weights(kind: type) -> None:
    X, y = problem(kind)
    weight = 1 + np.arange(len(X)) % 2
    rows = np.repeat(np.arange(len(X)), weight)
    fits = []
    for given in ((X, y, weight), (X[rows], y[rows], None)):
        estimator = kind(random_state=0, max_iter=20, fixed_batch_size=50)
        fit_quietly(estimator.set_params(warm_start=True), X, y)
        estimator.set_params(fixed_batch_size="auto")
        fits.append(fit_quietly(estimator, *given[:2], sample_weight=given[2]))
    assert_same_weights(*fits, atol=1e-8)
