"""Any data and any parameters: a finite model or a clear error, and nothing else."""

import traceback
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sklearn.base import is_regressor
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
    TargetSpaceSequenceRegressor,
)
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
    RegularizedInversionSequenceClassifier,
    RegularizedInversionSequenceRegressor,
)
from tests.estimators.hostile import CASES, Case
from tests.estimators.support import fit_quietly

KINDS = {"classifier": TargetSpaceClassifier, "regressor": TargetSpaceRegressor}
MORE_KINDS: dict[str, Any] = {
    **KINDS,
    "images": partial(TargetSpaceClassifier, conv_layers=[(1, 3, 1)]),
    "series": partial(
        TargetSpaceSequenceClassifier, cell="gru", recurrent_layer_sizes=(3,)
    ),
    "series regressor": partial(
        TargetSpaceSequenceRegressor, recurrent_layer_sizes=(3,)
    ),
    "difference": DifferenceTargetPropagationClassifier,
    "difference regressor": DifferenceTargetPropagationRegressor,
    "inverted layers": RegularizedInversionClassifier,
    "inverted layers regressor": RegularizedInversionRegressor,
    "inverted steps": RegularizedInversionSequenceClassifier,
    "inverted steps regressor": RegularizedInversionSequenceRegressor,
}


def assert_survives(case: Case) -> bool:
    """Fit, and accept a finite model, or else an error that is meant for users."""
    estimator = MORE_KINDS[case.kind](
        **({"max_iter": 2, "random_state": 0} | dict(case.parameters))
    )
    X, y, weight = case.X(), case.y(), case.sample_weight()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in (ConvergenceWarning, DataConversionWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", "The number of unique classes")
        warnings.filterwarnings("ignore", ".*no target is passed down")
        warnings.filterwarnings("ignore", "images have values .* are taken as they are")
        warnings.filterwarnings("ignore", "the network was fitted on bytes")
        # NumPy's, when scikit-learn looks for what is not finite.
        warnings.filterwarnings("ignore", "invalid value encountered in (cast|reduce)")
        try:
            estimator.fit(X, y, sample_weight=weight)
        except (ValueError, TypeError) as error:
            assert_is_clear(error)
            assert not hasattr(estimator, "n_iter_")
            return False
        for w in (*estimator.coefs_, *estimator.intercepts_):
            assert np.isfinite(w).all()
        assert_predicts_own_rows(case, estimator, X)
        assert_survives_other_rows(estimator, np.shape(X)[1:])
        if dict(case.parameters).get("warm_start"):
            try:
                estimator.fit(X, y, sample_weight=weight)
            except ValueError as error:
                assert_is_clear(error)
            assert_predicts_own_rows(case, estimator, X)
    return True


def assert_predicts_own_rows(case: Case, estimator: Any, X: Any) -> None:
    """Predict for training rows; a last step of huge size may have been one too far."""
    try:
        assert_predicts(estimator, X)
    except ValueError as error:
        assert_is_clear(error)
        assert any(isinstance(v, float) and v > 1e3 for _, v in case.parameters), case


def assert_is_clear(error: Exception) -> None:
    """Refuse errors that come out of torch, or say nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    assert "/torch/" not in frames[-1].filename.replace("\\", "/"), error
    assert "torch." not in str(error)
    assert len(str(error)) > 10


def assert_predicts(estimator: Any, X: Any) -> None:
    if is_regressor(estimator):
        assert np.isfinite(estimator.predict(X)).all()
        return
    probabilities = estimator.predict_proba(X)
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    if not getattr(estimator, "_multilabel", False):
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
        assert set(np.unique(estimator.predict(X))) <= set(estimator.classes_)
    assert not np.isnan(estimator.predict_log_proba(X)).any()


def assert_survives_other_rows(estimator: Any, shape: tuple[int, ...]) -> None:
    """Predict for rows of any magnitude."""
    for magnitude in (1e-300, 1e10, 1e30, 1e300):
        rows = np.full((2, *shape), magnitude)
        rows[1] *= -1
        try:
            assert_predicts(estimator, rows)
        except ValueError as error:
            assert_is_clear(error)


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]


def test_any_case() -> None:
    fitted: list[bool] = []
    tried: set[str] = set()

    @settings(max_examples=1000, suppress_health_check=CHECKS, phases=[Phase.generate])
    @given(case=CASES)
    def run(case: Case) -> None:
        fitted.append(assert_survives(case))
        tried.add(case.kind)

    run()
    assert tried == MORE_KINDS.keys()
    assert sum(fitted) > len(fitted) / 3


@pytest.mark.slow
@settings(
    max_examples=5000, suppress_health_check=CHECKS, derandomize=False, deadline=None
)
@given(case=CASES)
def test_any_of_thousands_of_cases(case: Case) -> None:
    assert_survives(case)


# --- what was found -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "is_fit"),
    [(1, "auto", False), (21, 20, False), (5, 1, False), (201, "auto", True)],
)
@pytest.mark.parametrize("kind", KINDS.values())
def test_batch_norm_of_a_single_row(
    kind: Any, n_rows: int, batch_size: Any, is_fit: bool
) -> None:
    X = np.random.default_rng(0).normal(size=(n_rows, 2))
    weight = np.ones(n_rows)
    if n_rows == 1:  # classes want a second row, which does not count
        X, weight = np.vstack([X, X]), np.array([1.0, 0.0])
    y = np.arange(len(X)) % 2
    estimator = kind(
        (5,),
        parameterization="weights",
        batch_norm=True,
        batch_size=batch_size,
        max_iter=2,
    )
    if is_fit:
        with pytest.warns(ConvergenceWarning):
            estimator.fit(X, y)
        return
    match = "batch_norm=True needs.*another batch_size|at least two classes"
    with pytest.raises(ValueError, match=match):
        estimator.fit(X, y, sample_weight=weight)


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("exponent", [-1000, 1020])
def test_weights_of_any_size(kind: Any, exponent: int) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    y = np.arange(20) % 2
    weight = np.linspace(1, 2, 20)
    found = []
    for given_weight in (weight, np.ldexp(weight, exponent)):
        # An automatic λ takes weights for numbers of rows.
        estimator = kind((5,), lam=5.0, alpha=0.0, max_iter=2, random_state=0)
        with pytest.warns(ConvergenceWarning):
            estimator.fit(X, y, sample_weight=given_weight)
        found.append(estimator.predict(X))
        automatic = kind((5,), max_iter=2, random_state=0)
        with pytest.warns(ConvergenceWarning):
            automatic.fit(X, y, sample_weight=given_weight)
        assert np.isfinite(automatic.predict(X)).all()
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", KINDS.values())
def test_rows_that_overflow(kind: Any) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2)).astype("f4")
    estimator = kind((5,), activation="relu", max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, np.arange(20) % 2)
    with pytest.raises(ValueError, match="X is too large for this network"):
        estimator.predict([[1e300, -1e300]])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("kind", KINDS.values())
def test_columns_too_small_to_be_divided_by(kind: Any, dtype: str) -> None:
    X = np.random.default_rng(0).normal(size=(100, 2)).astype(dtype)
    found = []
    for tiny in (np.finfo(dtype).tiny / 1000, 0.0):
        scaled = X * np.array([1e6, tiny], dtype)
        estimator = kind((5,), max_iter=50, random_state=0, early_stopping=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(scaled, X[:, 0] > 0)
        found.append(estimator.score(scaled, X[:, 0] > 0))
    assert found[0] == pytest.approx(found[1])
    assert found[0] > 0.6


@pytest.mark.parametrize("kind", KINDS.values())
def test_rate_that_falls_to_nothing(kind: Any) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    estimator = kind(
        (5,), solver="sgd", learning_rate="invscaling", power_t=1000.0, max_iter=3
    )
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, np.arange(20) % 2)
    assert estimator.loss_curve_[1] == estimator.loss_curve_[2]


@pytest.mark.parametrize("kind", ["series", "inverted layers", "inverted steps"])
@pytest.mark.parametrize("per_step", [False, True])
def test_weights_whose_sums_overflow(kind: str, per_step: bool) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2, 5))
    y = np.arange(20) % 2
    settings: dict[str, Any] = {"max_iter": 2, "random_state": 0}
    if kind == "inverted layers":
        X = X[:, 0]
    elif per_step:
        y, settings["return_sequences"] = np.repeat(y[:, None], 5, axis=1), True
    estimator = MORE_KINDS[kind](**settings)
    fit_quietly(estimator, X, y, sample_weight=np.linspace(0.5, 1, 20) * 1e308)
    assert_predicts(estimator, X)


@pytest.mark.parametrize("kind", ["classifier", "series"])
def test_weights_that_overflow_beside_those_of_classes(kind: str) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2, 5))
    X = X if kind == "series" else X[:, 0]
    estimator = MORE_KINDS[kind](class_weight={0: 10.0, 1: 1.0})
    with pytest.raises(ValueError, match="sample_weight is too large for class_weight"):
        estimator.fit(X, np.arange(20) % 2, sample_weight=np.full(20, 1e308))


@pytest.mark.parametrize(
    "kind", [*KINDS, "difference", "difference regressor", "inverted layers"]
)
@pytest.mark.parametrize("max_iter", [1, 5])
def test_outputs_that_are_lost_are_not_the_best(kind: str, max_iter: int) -> None:
    X = np.random.default_rng(0).normal(size=(30, 3)).astype("f4")
    settings: dict[str, Any] = {"solver": "sgd", "early_stopping": True}
    if kind in KINDS:
        settings["parameterization"] = "weights"
    estimator = MORE_KINDS[kind](
        (5, 5), learning_rate_init=1e39, max_iter=max_iter, **settings
    )
    with pytest.raises(ValueError, match="validation loss is not finite in epoch 1"):
        estimator.fit(X, X[:, 0] > 0)
