"""What only the regressor has: outputs, their shapes, squared error."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from torch import nn

from sktarget import TargetSpaceRegressor
from tests.estimators.support import (
    ALL_EPOCHS,
    assert_same_weights,
    curve_data,
    fit_quietly,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (10,),
    "lam": 1e-2,
    "learning_rate_init": 0.1,
    "max_iter": 100,
    "random_state": 0,
    **ALL_EPOCHS,
}


def small(**parameters: Any) -> TargetSpaceRegressor:
    return TargetSpaceRegressor(**(SMALL | parameters))


@pytest.mark.parametrize("n_outputs", [None, 2, 3])
def test_learns_outputs_in_the_shape_of_y(n_outputs: int | None) -> None:
    X, y = curve_data(n_outputs)
    estimator = fit_quietly(small(), X, y)
    assert estimator.predict(X).shape == y.shape
    assert estimator.n_outputs_ == (n_outputs or 1)
    assert estimator.score(X, y) > 0.95


def test_column_of_outputs_warns() -> None:
    X, y = curve_data()
    with pytest.warns(DataConversionWarning):
        estimator = fit_quietly(small(max_iter=3), X, y[:, None])
    assert estimator.predict(X).shape == y.shape


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("n_outputs", [None, 2])
def test_attributes_of_the_mlp(n_outputs: int | None, early_stopping: bool) -> None:
    X, y = curve_data(n_outputs)
    common: dict[str, Any] = {
        "hidden_layer_sizes": (6, 5),
        "max_iter": 4,
        "early_stopping": early_stopping,
        "random_state": 0,
    }
    ours = fit_quietly(TargetSpaceRegressor(**common), X, y)
    theirs = fit_quietly(MLPRegressor(**common), X, y)
    for name in ("coefs_", "intercepts_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert [m.shape for m in a] == [m.shape for m in b]
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_iter_", "t_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("loss_curve_", "validation_scores_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None)
        assert a is None or len(a) == len(b) == 4
    for name in ("best_loss_", "best_validation_score_"):
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)


@pytest.mark.parametrize("n_outputs", [None, 2])
def test_loss_is_half_the_mean_squared_error(n_outputs: int | None) -> None:
    X, y = curve_data(n_outputs)
    y *= [1, 10][: n_outputs or 1]
    settings: dict[str, Any] = {"alpha": 0.0, "batch_size": 90, "warm_start": True}
    estimator = fit_quietly(small(max_iter=5, **settings), X, y)
    # Of several outputs, each counts by its share of its own variance.
    share = y.std(axis=0) / np.sqrt(np.mean(y.var(axis=0)))
    loss = 0.5 * np.mean(((estimator.predict(X) - y) / share) ** 2)
    # The first loss of the next call is that of the weights of this one.
    fit_quietly(estimator.set_params(max_iter=1), X, y)
    np.testing.assert_allclose(estimator.loss_curve_[5], loss, rtol=1e-10)


def test_linear_network_is_linear_regression() -> None:
    X, y = curve_data()
    settings: dict[str, Any] = {"solver": "lbfgs", "alpha": 0.0, "lam": 1e-6}
    estimator = fit_quietly(small(hidden_layer_sizes=(), **settings), X, y)
    truth = LinearRegression().fit(X, y)
    assert estimator.n_layers_ == 2
    np.testing.assert_allclose(estimator.coefs_[0][:, 0], truth.coef_, atol=1e-4)
    np.testing.assert_allclose(estimator.intercepts_[0], truth.intercept_, atol=1e-4)


def test_integers_are_numbers() -> None:
    X, y = curve_data()
    rounded = np.round(5 * y).astype(int)
    a = fit_quietly(small(max_iter=3), X, rounded)
    b = fit_quietly(small(max_iter=3), X, rounded.astype(float))
    assert_same_weights(a, b)
    assert a.predict(X).dtype == np.float64


def test_sample_weight_moves_the_fit() -> None:
    X, y = curve_data()
    y = np.where(X[:, 0] > 0, 1.0, -1.0)
    heavy = np.where(X[:, 0] > 0, 100.0, 1.0)
    # A network without inputs that matter can only choose between the two.
    constant = np.zeros_like(X)
    estimator = small(alpha=0.0, max_iter=200)
    fit_quietly(estimator, constant, y, sample_weight=heavy)
    wanted = np.average(y, weights=heavy)
    np.testing.assert_allclose(estimator.predict(constant), wanted, atol=1e-3)


@pytest.mark.parametrize(("factor", "shift"), [(100, 0), (1, 20), (0.01, 0)])
def test_module_is_told_of_outputs_out_of_its_reach(
    factor: float, shift: float
) -> None:
    X, y = curve_data()
    estimator = TargetSpaceRegressor(module=nn.Linear, max_iter=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit_quietly(estimator, X, y)
        fit_quietly(small(max_iter=2), X, factor * y + shift)
    with pytest.warns(UserWarning, match="TransformedTargetRegressor"):
        fit_quietly(estimator, X, factor * y + shift)


@pytest.mark.parametrize(
    ("factor", "told"), [(0.0, ""), (1e-3, "0.001"), (1.0, ""), (1e4, "1e+04")]
)
@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_later_calls_are_told_of_outputs_out_of_proportion(
    method: str, factor: float, told: str
) -> None:
    X, y = curve_data()
    y = (y - y.mean()) / y.std()
    estimator = TargetSpaceRegressor((5,), max_iter=2, warm_start=True, random_state=0)
    fit_quietly(estimator, X, y, method)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(estimator, method)(X, factor * y)
        getattr(estimator, method)(X[:3], factor * y[:3])  # too few to say anything
    messages = [str(w.message) for w in caught if "units" in str(w.message)]
    assert len(messages) == (told != "")
    assert all(m.startswith(f"y is {told} units from") for m in messages)


@pytest.mark.parametrize("size", [1e160, 1e300])
def test_numbers_whose_squares_overflow_are_refused(size: float) -> None:
    X, y = curve_data()
    with pytest.raises(ValueError, match="y is too large for float64"):
        TargetSpaceRegressor(random_state=0).fit(X, size * y)
    assert fit_quietly(TargetSpaceRegressor(random_state=0), X, 1e140 * y).score(
        X, 1e140 * y
    ) == pytest.approx(TargetSpaceRegressor(random_state=0).fit(X, y).score(X, y))


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_outputs_without_units_are_in_no_proportion(method: str) -> None:
    X, y = curve_data()
    settings: dict[str, Any] = {"max_iter": 2, "warm_start": True, "random_state": 0}
    estimator = TargetSpaceRegressor((5,), target_init="weights", **settings)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            fit_quietly(estimator, X, 1000 * y, method)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ([None] * 100, "y contains NaN, None or infinity"),
        ([np.inf] * 100, "[Ii]nput.*contains infinity|NaN, None or infinity"),
        (np.arange(100).astype("M8[D]"), r"dtype datetime64\[D\], but a regression"),
        (np.arange(100).astype(str), "dtype <U.*, but a regression learns numbers"),
    ],
)
def test_what_is_no_number_is_refused(bad: Any, told: str) -> None:
    X = np.random.default_rng(0).normal(size=(100, 2))
    y = np.array(bad, dtype=object if isinstance(bad, list) else None)
    with pytest.raises(ValueError, match=told):
        TargetSpaceRegressor().fit(X, y)
