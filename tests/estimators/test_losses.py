"""What regressors minimise: squares, absolute values, deviances of counts."""

import warnings
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import (
    d2_absolute_error_score,
    d2_tweedie_score,
    mean_absolute_error,
    mean_pinball_loss,
    mean_poisson_deviance,
    mean_squared_error,
    r2_score,
)
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from torch import nn

from sktarget import TargetSpaceRegressor, TargetSpaceSequenceRegressor
from sktarget.estimators._output_units import measure_outputs
from sktarget.estimators._rows import TrainingRows
from sktarget.export import to_onnx
from sktarget.training import NUMBER_CRITERIA, quantile_criterion
from tests.estimators.support import ALL_EPOCHS, assert_same_weights, fit_quietly

Array = NDArray[Any]
LOSSES = sorted([*NUMBER_CRITERIA, "quantile"])
ALL = NUMBER_CRITERIA | {"quantile": quantile_criterion(0.3)}
# Of the loss that is minimised, as a user would measure it.
MEASURES: dict[str, Any] = {
    "squared_error": lambda y, p: mean_squared_error(y, p) / 2,
    "absolute_error": mean_absolute_error,
    "quantile": mean_pinball_loss,
    "poisson": lambda y, p: mean_poisson_deviance(y, p) / 2,
}


def counts(n: int = 400, seed: int = 0, level: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, rng.poisson(level * np.exp(X[:, 0] + np.sin(2 * X[:, 1]))).astype(float)


def waves(n: int = 400, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, X[:, 0] + np.sin(2 * X[:, 1]) + 0.1 * rng.normal(size=n)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_no_constant_is_better(loss: str, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    criterion, y = ALL[loss], torch.tensor(rng.poisson(3.0, (41, 2)) + 0.5)
    nothing = criterion.best_constant(0 * y, None, 2)
    assert not criterion.errors_of_outputs(nothing, 0 * y, None).any()
    weight = torch.tensor(rng.integers(3, size=41) / 1.0) if weighted else None
    best = criterion.best_constant(y, weight, 2)
    errors = criterion.errors_of_outputs(best, y, weight)
    for step in (-0.3, -0.01, 0.01, 0.3):
        others = criterion.errors_of_outputs(best + step, y, weight)
        assert (others >= errors).all()
    if weight is not None:
        repeated = y.repeat_interleave(weight.int(), dim=0)
        torch.testing.assert_close(
            criterion.best_constant(repeated, None, 2)[0], best[0]
        )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("level", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_the_loss_is_reported_in_terms_of_y(
    loss: str, level: float, parameterization: str
) -> None:
    X, y = counts()
    y *= level
    estimator = TargetSpaceRegressor(
        (10,),
        loss=loss,
        alpha=0.0,
        early_stopping=False,
        batch_size=len(X),
        max_iter=30,
        parameterization=parameterization,
        random_state=0,
    )
    fit_quietly(estimator, X, y)
    expected = MEASURES[loss](y, estimator.predict(X))
    # It is that before the last step, which changes little.
    assert estimator.loss_ == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_scale_of_y_does_not_matter(loss: str) -> None:
    X, y = counts(200)
    small, large = (
        fit_quietly(TargetSpaceRegressor(loss=loss, random_state=0), X, scale * y)
        for scale in (2.0**-20, 2.0**20)
    )
    # Powers of 2 change no digits, but logarithms are rounded.
    rtol = 0.02 if loss == "poisson" else 1e-5
    np.testing.assert_allclose(
        large.predict(X) / 2.0**20, small.predict(X) * 2.0**20, rtol=rtol, atol=1e-5
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_stand_for_repeats(loss: str) -> None:
    X, y = counts(60)
    weight = np.random.default_rng(1).integers(1, 4, size=60)
    estimator = TargetSpaceRegressor((8,), loss=loss, max_iter=20, random_state=0)
    weighted = fit_quietly(estimator, X, y, sample_weight=weight)
    found = weighted.predict(X)
    repeated = fit_quietly(estimator, np.repeat(X, weight, 0), np.repeat(y, weight))
    np.testing.assert_allclose(found, repeated.predict(X), rtol=1e-6)


@pytest.mark.parametrize("hidden", [(100,), (20, 20, 20)])
def test_counts_are_learnt_by_their_logarithm(hidden: tuple[int, ...]) -> None:
    X, y = counts(1500)
    estimator = TargetSpaceRegressor(hidden, loss="poisson", random_state=0)
    fit_quietly(estimator, X[:500], y[:500])
    found = estimator.predict(X[500:])
    assert (found > 0).all()
    assert estimator.out_activation_ == "exp"
    sums = estimator.module_(torch.as_tensor(X[500:])).detach().numpy()[:, 0]
    np.testing.assert_allclose(np.exp(sums), found)
    truth = np.exp(X[500:, 0] + np.sin(2 * X[500:, 1]))
    assert np.mean((np.log(found) - np.log(truth)) ** 2) < 0.12 * np.log(truth).var()
    assert d2_tweedie_score(y[500:], found, power=1) > 0.55
    assert estimator.score(X, y) == r2_score(y, estimator.predict(X))


def test_outliers_do_not_count() -> None:
    X, y = waves(600)
    spoilt = y.copy()
    spoilt[:400:20] += 100.0
    spoilt[7] = 1e9
    scores = {
        loss: d2_absolute_error_score(
            y[400:],
            fit_quietly(
                TargetSpaceRegressor((50,), loss=loss, random_state=0),
                X[:400],
                spoilt[:400],
            ).predict(X[400:]),
        )
        for loss in ("squared_error", "absolute_error")
    }
    assert scores["absolute_error"] > 0.8
    assert scores["squared_error"] < 0.5


def test_the_absolute_error_leads_to_the_median() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(2, size=(2000, 1)).astype(float)
    y = np.exp(rng.normal(size=2000)) * (1 + X[:, 0])
    medians = [np.median(y[X[:, 0] == k]) for k in (0, 1)]
    estimator = TargetSpaceRegressor((5,), loss="absolute_error", random_state=0)
    found = fit_quietly(estimator, X, y).predict([[0.0], [1.0]])
    np.testing.assert_allclose(found, medians, rtol=0.1)
    assert (found < [y[X[:, 0] == k].mean() * 0.8 for k in (0, 1)]).all()


@pytest.mark.parametrize("quantile", [0.1, 0.8])
@pytest.mark.parametrize("depth", [1, 3])
def test_quantiles(quantile: float, depth: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, size=(4000, 2))
    y = np.sin(2 * X[:, 0]) + (0.2 + 0.5 * np.abs(X[:, 1])) * rng.normal(size=4000)
    estimator = TargetSpaceRegressor(
        (30,) * depth, loss="quantile", quantile=quantile, random_state=0
    )
    found = fit_quietly(estimator, X[:1000], y[:1000]).predict(X[1000:])
    below = y[1000:] <= found
    assert abs(below.mean() - quantile) < 0.04
    wide = np.abs(X[1000:, 1]) > 1  # The noise depends on the inputs.
    assert abs(below[wide].mean() - below[~wide].mean()) < 0.08
    of_constant = mean_pinball_loss(
        y[1000:], np.full(3000, np.quantile(y[:1000], quantile)), alpha=quantile
    )
    assert mean_pinball_loss(y[1000:], found, alpha=quantile) < 0.75 * of_constant


def test_quantiles_of_steps() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1, 20))
    y = X[:, 0] + rng.exponential(size=(300, 20))
    estimator = TargetSpaceSequenceRegressor(
        (10,), return_sequences=True, loss="quantile", quantile=0.9, random_state=0
    )
    found = fit_quietly(estimator, X, y).predict(X)
    assert abs((y <= found).mean() - 0.9) < 0.04
    assert np.corrcoef(found.ravel(), X.ravel())[0, 1] > 0.95


def test_a_quantile_needs_its_loss() -> None:
    X, y = waves(50)
    with pytest.raises(ValueError, match=r"quantile=0.9 .*set loss='quantile'"):
        TargetSpaceRegressor(quantile=0.9).fit(X, y)
    for value in (0.0, 1.0, 90):
        with pytest.raises(ValueError, match="'quantile' parameter"):
            TargetSpaceRegressor(loss="quantile", quantile=value).fit(X, y)


def test_going_on_with_another_quantile() -> None:
    X, y = waves(300)
    y += np.random.default_rng(1).normal(size=300)
    estimator = TargetSpaceRegressor(
        (20,), loss="quantile", warm_start=True, random_state=0
    )
    middle = fit_quietly(estimator, X, y).predict(X)
    upper = fit_quietly(estimator.set_params(quantile=0.9), X, y).predict(X)
    assert (upper > middle).mean() > 0.95


def test_several_outputs_count_by_their_own_size() -> None:
    X, y = counts(300)
    Y = np.column_stack([y, 1e5 * np.random.default_rng(1).poisson(np.exp(X[:, 2]))])
    estimator = TargetSpaceRegressor(
        (30,), loss="poisson", early_stopping=False, alpha=1e-4, random_state=0
    )
    found = fit_quietly(estimator, X, Y).predict(X)
    assert found.shape == Y.shape
    assert d2_tweedie_score(Y[:, 0], found[:, 0], power=1) > 0.7
    assert d2_tweedie_score(Y[:, 1], found[:, 1], power=1) > 0.5


def test_units_of_outputs() -> None:
    y = np.array([[0.0, 3.0], [0.0, 3.0], [0.0, 3.0], [4.0, 3.0]])
    weight = np.array([1.0, 1.0, 1.0, 2.0])
    middle, unit = measure_outputs("absolute_error", y, None)
    # What deviates in fewer than half of the rows counts by its mean deviation.
    assert middle.tolist() == [0.0, 3.0]
    assert unit.tolist() == [1.0, 3.0]
    repeated = y[[0, 1, 2, 3, 3]]
    for loss in LOSSES:
        for got, expected in zip(
            measure_outputs(loss, y + 1, weight),
            measure_outputs(loss, repeated + 1, None),
            strict=True,
        ):
            np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("bad", ["negative", "zero", "zero output", "no weight"])
def test_what_has_no_logarithm_is_refused(bad: str) -> None:
    X, y = counts(50)
    weight, what = None, "not 0 in every row"
    if bad == "negative":
        y[3], what = -1.0, "without negative numbers, got -1"
    elif bad == "zero":
        y[:] = 0.0
    elif bad == "zero output":
        y = np.column_stack([y, 0 * y])
    else:
        weight = (y == 0).astype(float)
    estimator = TargetSpaceRegressor(loss="poisson", max_iter=2)
    with pytest.raises(ValueError, match=what):
        estimator.fit(X, y, sample_weight=weight)


def test_rows_of_zeros_may_follow_in_partial_fit() -> None:
    X, y = counts(50)
    estimator = TargetSpaceRegressor((4,), loss="poisson", random_state=0)
    before = estimator.partial_fit(X, y).predict(X)
    for _ in range(20):
        estimator.partial_fit(X, 0 * y)
    assert np.isfinite(estimator.loss_curve_).all()
    assert estimator.predict(X).mean() < 0.9 * before.mean()


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_all_that_is_not_zero_may_be_held_out(n_outputs: int) -> None:
    X, y = counts(200)
    rare = np.zeros(200)
    rare[0] = 3.0
    y = rare if n_outputs == 1 else np.column_stack([y, rare])
    for seed in range(12):
        model = TargetSpaceRegressor((5,), loss="poisson", random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = model.set_params(max_iter=20).fit(X, y).predict(X)
        assert np.isfinite(found).all()
        assert (found.mean(0) < 5 * y.mean(0) + 1).all()


def test_later_calls_with_outliers_are_no_surprise() -> None:
    X, y = waves(200)
    y[3] = 1e6
    model = TargetSpaceRegressor((5,), loss="absolute_error", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(X, y).partial_fit(X, y)
    with pytest.warns(UserWarning, match="units from"):
        model.partial_fit(X, 1e3 * y)


def test_counts_of_another_size_are_told() -> None:
    X, y = counts(200)
    model = TargetSpaceRegressor((5,), loss="poisson", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(X, y).partial_fit(X, 3 * y).partial_fit(X, 0 * y)
    for other in (100 * y, 0.01 * y):
        with pytest.warns(UserWarning, match="had .* in the first call"):
            model.partial_fit(X, other)


def test_rare_counts_do_not_drown_others() -> None:
    alone, beside = [], []
    for seed in range(3):
        X, y = counts(1500, seed=seed)
        rare = np.random.default_rng(seed + 1).poisson(0.02, size=1500)
        both = np.column_stack([y, rare])
        model = TargetSpaceRegressor((30,), loss="poisson", random_state=seed)
        for outputs, scores in ((y[:, None], alone), (both, beside)):
            fit_quietly(model, X[:500], outputs[:500].squeeze())
            found = model.predict(X[500:]).reshape(1000, -1)[:, 0]
            scores.append(d2_tweedie_score(y[500:], found, power=1))
    assert np.mean(beside) > np.mean(alone) - 0.1
    assert np.mean(alone) > 0.6


def test_few_events_give_strong_decay_the_benefit_of_doubt() -> None:
    X, y = counts(400)
    model = TargetSpaceRegressor((5,), loss="poisson", max_iter=5, random_state=0)
    fit_quietly(model, X, y)
    few = np.zeros(100)
    few[:9] = 3.0
    weight = np.ones(100)
    rows = TrainingRows(X[:100], few[:, None], weight)
    assert model._tells_little(rows)
    rows.y[:15] = 3.0
    assert not model._tells_little(rows)
    # By weights, too; and not of other losses.
    rows.weight[9:15] = 1e-9
    assert model._tells_little(rows)
    assert model._tells_little(TrainingRows(X[:100], 0 * rows.y))
    fit_quietly(model.set_params(loss="squared_error"), X, y)
    assert not model._tells_little(rows)


def test_modules_of_the_users_own_give_logarithms() -> None:
    X, y = counts(200)

    def module(n_inputs: int, n_outputs: int) -> nn.Module:
        return nn.Linear(n_inputs, n_outputs)

    model = TargetSpaceRegressor(loss="poisson", module=module, random_state=0)
    fit_quietly(model, X, y)
    assert (model.predict(X) > 0).all()
    assert d2_tweedie_score(y, model.predict(X), power=1) > 0.3
    with pytest.warns(UserWarning, match=r"logarithms of up to 12.*divide y by its"):
        fit_quietly(model, X, 1e5 * y)


def test_predictions_far_off_are_finite() -> None:
    X, y = counts(200)
    X = X.astype("f4")
    model = TargetSpaceRegressor(
        (4,), loss="poisson", activation="identity", max_iter=50, random_state=0
    )
    fit_quietly(model, X, y)
    found = model.predict(1e4 * X)
    assert np.isfinite(found).all()
    assert found.max() == np.finfo("f4").max


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_the_loss_of_a_fitted_network_cannot_change(method: str) -> None:
    X, y = counts(50)
    estimator = TargetSpaceRegressor((4,), max_iter=2, warm_start=True, random_state=0)
    fit_quietly(estimator, X, y)
    before = estimator.predict(X)
    estimator.set_params(loss="poisson")
    with pytest.raises(ValueError, match="cannot go on with loss='poisson'"):
        getattr(estimator, method)(X, y)
    np.testing.assert_array_equal(estimator.predict(X), before)


@pytest.mark.parametrize("loss", LOSSES)
def test_training_goes_on_where_it_ended(loss: str) -> None:
    X, y = counts(80)
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (6,),
        "loss": loss,
        "learning_rate_init": 0.01,
        "random_state": 0,
        **ALL_EPOCHS,
    }
    whole = fit_quietly(TargetSpaceRegressor(max_iter=6, **settings), X, y)
    parts = TargetSpaceRegressor(max_iter=3, warm_start=True, **settings)
    fit_quietly(fit_quietly(parts, X, y), X, y)
    assert_same_weights(parts, whole)
    A, lam = np.hstack([np.ones((len(X), 1)), parts.fixed_batch_]), parts.lam_
    weights = np.linalg.solve(A.T @ A + lam * np.eye(5), A.T @ parts.targets_[0])
    np.testing.assert_allclose(weights[1:], parts.coefs_[0], atol=1e-8)


def test_the_mlp_of_counts_is_exchanged() -> None:
    X, y = counts(300)
    grid = {"loss": ["squared_error", "poisson"], "alpha": [0.01, 1.0]}
    for kind in (TargetSpaceRegressor, MLPRegressor):
        search = GridSearchCV(kind(random_state=0, max_iter=60), grid, cv=3)
        fit_quietly(search, X, y)
        assert len(search.cv_results_["params"]) == 4
        poisson = kind(loss="poisson", random_state=0, max_iter=60)
        assert fit_quietly(poisson, X, y).out_activation_ == "exp"


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_onnx_of_counts(n_outputs: int) -> None:
    X, y = counts(80)
    Y = y if n_outputs == 1 else np.column_stack([y, y[::-1]])
    estimator = TargetSpaceRegressor((6,), loss="poisson", max_iter=9, random_state=0)
    fit_quietly(estimator, X, Y)
    session = onnxruntime.InferenceSession(
        to_onnx(estimator, dtype="float64").SerializeToString()
    )
    (found,) = session.run(None, {"X": X})
    np.testing.assert_allclose(found, estimator.predict(X), rtol=1e-10)


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("loss", ["absolute_error", "poisson"])
def test_losses_of_sequences(loss: str, per_step: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 1, 9))
    mean = np.exp(0.5 * X[:, 0].cumsum(axis=1).clip(-3, 3))
    y = rng.poisson(mean).astype(float)
    if loss == "absolute_error":
        y = np.log(mean)
        y[::30] += 1e6
    truth = np.log(mean)
    if not per_step:
        y, truth = y[:, -1], truth[:, -1]
    estimator = TargetSpaceSequenceRegressor(
        cell="gru",
        recurrent_layer_sizes=(20,),
        loss=loss,
        return_sequences=per_step,
        max_iter=60,
        random_state=0,
    )
    found = fit_quietly(estimator, X[:200], y[:200]).predict(X[200:])
    assert np.isfinite(found).all()
    if loss == "poisson":
        score = estimator.score(X[200:], y[200:])
        assert score == pytest.approx(r2_score(y[200:].ravel(), found.ravel()))
        found = np.log(found)
    assert r2_score(truth[200:].ravel(), found.ravel()) > 0.6


@pytest.mark.parametrize("loss", LOSSES)
def test_where_torch_puts_tensors_by_default_does_not_matter(loss: str) -> None:
    X, y = counts(120)
    model = TargetSpaceRegressor((5,), loss=loss, max_iter=9, random_state=0)
    here = fit_quietly(model, X, y).predict(X)
    with torch.device("meta"):
        elsewhere = fit_quietly(model, X, y).predict(X)
    np.testing.assert_array_equal(elsewhere, here)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_counts_that_single_precision_hardly_resolves_are_told_as_counts() -> None:
    X = np.linspace(-1.0, 1.0, 60, dtype=np.float32)[:, None]
    y = 1e6 + np.sign(X[:, 0])
    estimator = TargetSpaceRegressor((4,), loss="poisson", max_iter=2, random_state=0)
    match = r"y varies by (0\.9|1)\S* about (1000000|999999).*choose another loss"
    with pytest.warns(UserWarning, match=match):
        estimator.fit(X, y)
    estimator.fit(X.astype(np.float64), y)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("odd", [None, 4, 7])
def test_numbers_that_hardly_vary_are_met(loss: str, odd: int | None) -> None:
    X = np.random.default_rng(0).normal(size=(200, 4))
    y = np.full(200, 230.0)
    if odd is not None:
        y[odd] = 231.0  # which may be held out
    settings = {"quantile": 0.9} if loss == "quantile" else {}
    estimator = TargetSpaceRegressor(loss=loss, random_state=0, **settings)
    found = fit_quietly(estimator, X, y).predict(X)
    assert np.abs(found - 230).max() < (4 if loss == "poisson" else 0.5)


def test_quantiles_decide_about_their_own_early_stopping() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 4))
    y = X[:, 0] + rng.normal(size=3000)
    estimator = TargetSpaceRegressor(
        (30,), loss="quantile", quantile=0.95, early_stopping=True, random_state=0
    )
    fit_quietly(estimator, X[:600], y[:600])
    assert abs((y[600:] <= estimator.predict(X[600:])).mean() - 0.95) < 0.06
    assert 0 < estimator.best_validation_score_ < 1
    held_out = estimator.validation_scores_
    assert held_out[-1] > held_out[0]
