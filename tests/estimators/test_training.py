"""What holds for the training of both estimators."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
)
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    RegularizedInversionClassifier,
    RegularizedInversionSequenceClassifier,
)
from tests.estimators.image_support import digits
from tests.estimators.sequence_support import series, tokens
from tests.estimators.support import (
    ALL_EPOCHS,
    SeesData,
    SeesRates,
    assert_learns,
    assert_same_weights,
    class_data,
    curve_data,
    fit_quietly,
    for_both,
    problem,
    weights_differ,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6,),
    "activation": "tanh",
    "lam": 1e-2,
    "learning_rate_init": 0.03,
    "max_iter": 15,
    "random_state": 0,
    **ALL_EPOCHS,
}
for_both_spaces = pytest.mark.parametrize("parameterization", ["targets", "weights"])


# --- Sample weights -------------------------------------------------------------------


@for_both
@for_both_spaces
@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_of_one_are_none(
    kind: type, parameterization: str, early_stopping: bool
) -> None:
    X, y = problem(kind)
    settings = SMALL | {
        "parameterization": parameterization,
        "early_stopping": early_stopping,
    }
    none = fit_quietly(kind(**settings), X, y)
    ones = fit_quietly(kind(**settings), X, y, sample_weight=np.ones(len(y)))
    assert_same_weights(none, ones, atol=1e-9)


@for_both
@for_both_spaces
@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e9])
def test_scale_of_weights_is_immaterial(
    kind: type, parameterization: str, factor: float
) -> None:
    X, y = problem(kind)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(y))
    settings = SMALL | {"parameterization": parameterization, "alpha": 0.0}
    a = fit_quietly(kind(**settings), X, y, sample_weight=weight)
    b = fit_quietly(kind(**settings), X, y, sample_weight=factor * weight)
    assert_same_weights(a, b, atol=1e-8)
    assert weights_differ(a, fit_quietly(kind(**settings), X, y))


@for_both
@for_both_spaces
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("fixed_batch", ["sample", "noise"])
def test_weights_are_repetitions(
    kind: type, parameterization: str, alpha: float, fixed_batch: str
) -> None:
    X, y = problem(kind)
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    settings = SMALL | {
        "parameterization": parameterization,
        "alpha": alpha,
        "batch_size": 1000,
        "fixed_batch": fixed_batch,
        "fixed_batch_size": 30,
    }
    weighted = fit_quietly(kind(**settings), X, y, sample_weight=weight)
    many_X, many_y = np.repeat(X, weight, axis=0), np.repeat(y, weight)
    order = np.random.default_rng(1).permutation(len(many_y))
    repeated = fit_quietly(kind(**settings), many_X[order], many_y[order])
    assert_same_weights(weighted, repeated, atol=1e-8)


# --- Types ----------------------------------------------------------------------------


@for_both
@for_both_spaces
@pytest.mark.parametrize(
    ("given", "used"),
    [("f4", "f4"), ("f8", "f8"), ("i8", "f8"), ("i4", "f8"), ("?", "f8")],
)
def test_arithmetic_follows_x(
    kind: type, parameterization: str, given: str, used: str
) -> None:
    X, y = problem(kind)
    X = np.round(10 * X).astype(given)
    settings = SMALL | {"parameterization": parameterization, "max_iter": 2}
    estimator = fit_quietly(kind(**settings), X, y)
    found = {w.dtype for w in estimator.coefs_ + estimator.intercepts_}
    assert found == {np.dtype(used)}
    for other in (np.float32, np.float64, np.int64):
        assert len(estimator.predict(X.astype(other))) == len(X)


@for_both
def test_orders_and_read_only_memory(kind: type) -> None:
    X, y = problem(kind)
    estimator = kind(**SMALL)
    plain = fit_quietly(estimator, X, y).predict(X)
    for same in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X.tolist()):
        np.testing.assert_array_equal(
            fit_quietly(kind(**SMALL), same, y).predict(X), plain
        )
    frozen = X.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(
        fit_quietly(kind(**SMALL), frozen, y).predict(frozen), plain
    )


@for_both
def test_names_of_columns(kind: type) -> None:
    X, y = problem(kind)
    frame = pd.DataFrame(X, columns=list("abcd")[: X.shape[1]])
    estimator = fit_quietly(kind(**SMALL), frame, pd.Series(y, index=frame.index[::-1]))
    assert estimator.feature_names_in_.tolist() == frame.columns.tolist()
    assert_same_weights(estimator, fit_quietly(kind(**SMALL), X, y))
    with pytest.raises(ValueError, match=r"(?s)feature names should match.*- z"):
        estimator.predict(frame.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="same order"):
        estimator.predict(frame[frame.columns[::-1]])


# --- Reproducibility ------------------------------------------------------------------


@for_both
@for_both_spaces
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_random_state_alone_decides(
    kind: type, parameterization: str, solver: str, global_state_untouched: None
) -> None:
    X, y = problem(kind)
    settings = SMALL | {
        "parameterization": parameterization,
        "solver": solver,
        "batch_size": 20,
        "dropout": 0.0 if solver == "lbfgs" else 0.2,
        "early_stopping": True,
        "max_iter": 4,
    }
    a = fit_quietly(kind(**settings), X, y)
    state = torch.get_rng_state()
    try:
        torch.manual_seed(99)
        b = fit_quietly(kind(**settings), X, y)
    finally:
        torch.set_rng_state(state)
    assert_same_weights(a, b)
    other = fit_quietly(kind(**settings).set_params(random_state=1), X, y)
    assert weights_differ(a, other)
    instance = settings | {"random_state": np.random.RandomState(0)}
    assert_same_weights(a, fit_quietly(kind(**instance), X, y))


@for_both
def test_shuffle(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"batch_size": 20}
    fixed = fit_quietly(kind(**settings, shuffle=False), X, y)
    assert_same_weights(fixed, fit_quietly(kind(**settings, shuffle=False), X, y))
    assert weights_differ(fixed, fit_quietly(kind(**settings, shuffle=True), X, y))
    # Neither setting matters where one batch holds all rows.
    whole = [
        fit_quietly(kind(**SMALL, batch_size=90, shuffle=s), X, y)
        for s in (False, True)
    ]
    assert_same_weights(*whole)


# --- Solvers and schedules ------------------------------------------------------------


@for_both
@for_both_spaces
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_every_solver_learns(kind: type, parameterization: str, solver: str) -> None:
    X, y = problem(kind)
    settings = SMALL | {"parameterization": parameterization, "solver": solver}
    settings |= {"learning_rate_init": "auto", "batch_size": 15, "max_iter": 60}
    estimator = fit_quietly(kind(**settings), X, y)
    assert estimator.score(X, y) > (0.9 if parameterization == "targets" else 0.4)
    assert_learns(estimator, X, y, parameterization)
    assert estimator.loss_ < 0.7 * estimator.loss_curve_[0]


@for_both
def test_options_of_the_solvers_reach_them(kind: type) -> None:
    X, y = problem(kind)
    for solver, options in {
        "sgd": {"momentum": 0.1, "nesterovs_momentum": False},
        "adam": {"beta_1": 0.1, "beta_2": 0.5, "epsilon": 0.1},
    }.items():
        settings = SMALL | {"solver": solver, "max_iter": 5}
        plain = fit_quietly(kind(**settings), X, y)
        for name, value in options.items():
            changed = fit_quietly(kind(**settings).set_params(**{name: value}), X, y)
            assert weights_differ(plain, changed), name


@pytest.mark.parametrize(
    "options",
    [
        {"beta_1": 0, "beta_2": np.float32(0.99)},
        {"solver": "sgd", "momentum": np.float32(0.5)},
        {"solver": "sgd", "momentum": 1},
    ],
    ids=str,
)
@for_both
def test_options_may_be_numbers_of_any_type(
    kind: type, options: dict[str, Any]
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"max_iter": 2} | options
    plain = {k: v if isinstance(v, str) else float(v) for k, v in options.items()}
    given = fit_quietly(kind(**settings), X, y)
    assert_same_weights(given, fit_quietly(kind(**settings | plain), X, y))


@for_both
def test_invscaling(kind: type) -> None:
    X, y = problem(kind)
    seen = SeesRates()
    settings = SMALL | {"solver": "sgd", "learning_rate": "invscaling", "max_iter": 4}
    estimator = kind(**settings, power_t=0.3, callbacks=[seen])
    fit_quietly(estimator, X, y)
    rates = [0.03 / (90 * t + 1) ** 0.3 for t in range(4)]
    np.testing.assert_allclose(seen.rates, rates, rtol=1e-12)


@for_both
def test_adaptive_lowers_the_rate_until_it_stops(kind: type) -> None:
    X, y = problem(kind)
    seen = SeesRates()
    settings = SMALL | {"solver": "sgd", "learning_rate": "adaptive", "max_iter": 200}
    settings |= {"tol": 1e9, "n_iter_no_change": 2, "learning_rate_init": 1.0}
    estimator = kind(**settings, callbacks=[seen]).fit(X, y)
    assert estimator.n_iter_ < 200
    drops = np.unique(seen.rates)[::-1]
    np.testing.assert_allclose(drops, 5.0 ** -np.arange(len(drops)), rtol=1e-12)
    assert drops[-1] <= 1e-6 < drops[-2]


@for_both
def test_schedules_are_for_sgd_only(kind: type) -> None:
    X, y = problem(kind)
    plain = fit_quietly(kind(**SMALL), X, y)
    same = fit_quietly(kind(**SMALL, learning_rate="invscaling"), X, y)
    assert_same_weights(plain, same)


# --- Stopping -------------------------------------------------------------------------


@for_both
def test_max_iter_warns_and_tol_stops(kind: type) -> None:
    X, y = problem(kind)
    with pytest.warns(UserWarning, match=r"Maximum iterations \(15\) reached") as seen:
        estimator = kind(**SMALL).fit(X, y)
    assert [w.category.__name__ for w in seen] == ["ConvergenceWarning"]
    assert estimator.n_iter_ == 15
    early = kind(**(SMALL | {"tol": 1e9, "n_iter_no_change": 3})).fit(X, y)
    assert early.n_iter_ < 15


@for_both
@for_both_spaces
def test_early_stopping_restores_the_best(kind: type, parameterization: str) -> None:
    X, y = problem(kind)
    if kind is TargetSpaceClassifier:
        y = np.where(np.arange(len(y)) % 4 == 0, 1 - y, y)  # no perfect score
    seen = SeesData()
    settings = SMALL | {"parameterization": parameterization, "max_iter": 40}
    # Steps too large, so that the score comes and goes.
    settings |= {"learning_rate_init": 2.0 if kind is TargetSpaceClassifier else 4.0}
    estimator = kind(
        **settings, early_stopping=True, validation_fraction=0.3, callbacks=[seen]
    )
    fit_quietly(estimator, X, y)
    scores = estimator.validation_scores_
    assert len(seen.valid) == 27
    assert len(seen.train) == 63
    assert scores[-1] < max(scores) == estimator.best_validation_score_
    held_out = seen.valid.x.numpy(), seen.valid.y.numpy().reshape(-1)
    assert estimator.score(*held_out) == pytest.approx(max(scores), abs=1e-12)


@for_both
def test_early_stopping_stops(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"max_iter": 500, "tol": 1e-4, "n_iter_no_change": 5}
    estimator = kind(**settings, early_stopping=True, validation_fraction=0.3)
    estimator.fit(X, y)
    assert estimator.n_iter_ < 500


def test_more_rows_may_be_held_out_than_are_evaluated_at_a_time() -> None:
    X, y = class_data(2, 2600)
    estimator = TargetSpaceClassifier((3,), max_iter=3, validation_fraction=0.55)
    fit_quietly(estimator, X, y)
    assert len(estimator.validation_scores_) <= estimator.n_iter_
    assert max(estimator.validation_scores_) == estimator.best_validation_score_


def test_validation_rows_keep_the_classes_in_proportion() -> None:
    X, y = class_data(3)
    seen = SeesData()
    estimator = TargetSpaceClassifier(
        **SMALL, early_stopping=True, validation_fraction=1 / 3, callbacks=[seen]
    )
    fit_quietly(estimator, X, y)
    np.testing.assert_allclose(
        np.bincount(seen.valid.y.numpy()), np.bincount(y) / 3, atol=1
    )


# --- What is printed ------------------------------------------------------------------


@for_both
def test_prints_like_the_mlp(kind: type, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**(SMALL | {"max_iter": 3}), verbose=True), X, y)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"Iteration {i + 1}, loss = {loss:.8f}"
        for i, loss in enumerate(estimator.loss_curve_)
    ]
    settings = SMALL | {"tol": 1e9, "n_iter_no_change": 2, "max_iter": 50}
    estimator = kind(**settings, early_stopping=True, verbose=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"Validation score: {estimator.validation_scores_[0]:f}"
    assert lines[-1] == (
        "Validation score did not improve more than tol=1000000000.000000 for 2 "
        "consecutive epochs. Stopping."
    )
    # By default it is the error of the rows held out that decides.
    X, y = np.repeat(X, 3, 0), np.repeat(y, 3, 0)
    kind((6,), tol=1e9, n_iter_no_change=2, random_state=0, verbose=True).fit(X, y)
    assert "Validation error did not improve" in capsys.readouterr().out
    fit_quietly(kind(**SMALL), X, y)
    assert capsys.readouterr().out == ""


NETWORKS: dict[str, tuple[type, dict[str, Any], Any]] = {
    "all at once": (TargetSpaceClassifier, {}, class_data()),
    "defaults": (TargetSpaceRegressor, {"warm_start": True}, curve_data()),
    "mini-batches": (TargetSpaceClassifier, {"batch_size": 20}, class_data()),
    "dropout": (TargetSpaceClassifier, {"dropout": 0.2}, class_data()),
    "weights": (
        TargetSpaceClassifier,
        {"parameterization": "weights", "batch_norm": True},
        class_data(),
    ),
    "weights, numbers": (
        TargetSpaceRegressor,
        {"parameterization": "weights"},
        curve_data(),
    ),
    "maps": (
        TargetSpaceClassifier,
        {"conv_layers": [(3, 4, 1), (3, 6, 2)], "dropout": 0.1},
        digits(),
    ),
    "maps, weights": (
        TargetSpaceClassifier,
        {"conv_layers": [(3, 4, 1)], "parameterization": "weights", "batch_norm": True},
        digits(),
    ),
    **{
        cell: (TargetSpaceSequenceClassifier, {"cell": cell}, series())
        for cell in ("rnn", "gru", "lstm")
    },
    "tokens": (TargetSpaceSequenceClassifier, {"vocabulary_size": 8}, tokens()),
    "differences": (DifferenceTargetPropagationClassifier, {}, class_data()),
    "stochastic": (
        DifferenceTargetPropagationClassifier,
        {"transmission": "bernoulli"},
        class_data(),
    ),
    "inversion": (RegularizedInversionClassifier, {}, class_data()),
    "inversion of steps": (RegularizedInversionSequenceClassifier, {}, series()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_where_torch_puts_tensors_by_default_does_not_matter(name: str) -> None:
    kind, settings, (X, y) = NETWORKS[name]
    settings = {"max_iter": 3, "random_state": 0, "device": "cpu"} | settings
    here, elsewhere = kind(**settings), kind(**settings)
    for _ in range(1 + settings.get("warm_start", False)):
        fit_quietly(here, X, y)
        with torch.device("meta"):
            fit_quietly(elsewhere, X, y)
            found = elsewhere.predict(X)
    np.testing.assert_array_equal(found, here.predict(X))
    assert_same_weights(elsewhere, here)
