"""Columns that nobody standardised."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.preprocessing import MinMaxScaler

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.architectures import DenseNetwork
from sktarget.estimators._input_units import standardise_inputs_, units_of_inputs
from sktarget.estimators._outliers import bulk_of_columns, is_far_off, n_far_columns
from sktarget.persistence import load, save
from tests.estimators.support import ALL_EPOCHS, Array, fit_quietly, for_both, problem

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6, 5),
    "max_iter": 10,
    "random_state": 0,
    **ALL_EPOCHS,
}
SCALES = np.array([1e-3, 50.0, 1e5, 1e-4])
SHIFTS = np.array([2.0, 1e3, 0.0, -5.0])


def own_units(X: Array, factor: float = 1.0) -> Array:
    """Return columns of scales far apart, the farther the smaller `factor` is."""
    scales = SCALES[: X.shape[1]]
    return X * scales * np.where(scales < 1, factor, 1 / factor)


def units(X: Array, weight: Array | None = None) -> tuple[Array, Array] | None:
    if weight is not None:  # Rows of weight zero are left out beforehand.
        X, weight = X[weight > 0], weight[weight > 0]
    return units_of_inputs(bulk_of_columns(X, weight), X.dtype)


def outputs(estimator: Any, X: Array) -> Array:
    """Return the finest of what an estimator predicts."""
    if isinstance(estimator, TargetSpaceClassifier):
        return np.asarray(estimator.predict_proba(X))
    return np.asarray(estimator.predict(X))


def test_columns_that_need_no_units() -> None:
    random = np.random.default_rng(0)
    standardised = random.normal(size=(500, 2))
    indicators = (random.uniform(size=(500, 2)) < [0.5, 0.004]).astype(float)
    brightness = MinMaxScaler().fit_transform(random.exponential(size=(500, 2)))
    constant = np.ones((500, 1))
    X = np.hstack([standardised, indicators, brightness, constant])
    assert units(X) is None
    found = units(np.hstack([X, 0.01 * X[:, :1], 1e3 + X[:, :1]]))
    assert found is not None
    origin, unit = found
    np.testing.assert_array_equal(origin[:7], 0)
    np.testing.assert_array_equal(unit[:7], 1)
    span = np.ptp(X[:, 0])
    np.testing.assert_allclose(unit[7:], [0.005 * span, 1])
    np.testing.assert_allclose(origin[8], 1e3 + X[:, 0].mean())


def test_shares_of_words_need_no_units() -> None:
    words = np.random.default_rng(0).poisson(0.05, (300, 400))
    shares = words / np.linalg.norm(words, axis=1, keepdims=True).clip(1)
    assert shares.std(0).max() < 0.1
    assert units(shares) is None
    assert units(0.1 * shares) is not None


@for_both
@pytest.mark.parametrize("column", ["constant", "time", "single"])
def test_large_columns_do_not_drown_the_others(kind: type, column: str) -> None:
    X, y = problem(kind)
    week = np.linspace(0, 6e5, len(X))[:, None]
    more = {
        "constant": np.full((len(X), 1), 1.7e9),
        "time": 1.7e9 + 1e-5 * week,
        "single": (1.7e9 + week).astype(np.float32),
    }[column]
    X = np.hstack([X, more]).astype(more.dtype)
    estimator = fit_quietly(kind(random_state=0), X, y)
    assert estimator.score(X, y) > 0.8


def test_units_of_weighted_rows_are_those_of_repeated_ones() -> None:
    X = np.random.default_rng(0).normal(size=(40, 4)) * SCALES + SHIFTS
    weight = np.arange(40) % 3
    weighted = units(X, weight.astype(float))
    repeated = units(np.repeat(X, weight, axis=0))
    assert weighted is not None
    assert repeated is not None
    np.testing.assert_allclose(weighted, repeated, rtol=1e-12)


def test_what_cannot_be_standardised_leaves_the_weights_alone() -> None:
    network = DenseNetwork(2, (3,), 1, "tanh", dtype=torch.float64)
    before = network.layers[0].weight.detach().clone()
    X = np.random.default_rng(0).normal(size=(40, 2)) * [1e-3, 1e307] + [0.0, 1.5e308]
    standardise_inputs_(network, bulk_of_columns(X, None))
    assert torch.equal(network.layers[0].weight, before)


@for_both
@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("early_stopping", ["auto", False])
def test_units_do_not_matter(kind: type, shortcuts: bool, early_stopping: Any) -> None:
    X, y = problem(kind)
    X, y = np.tile(X, (3, 1)) + 0.1 * np.repeat(X, 3, axis=0), np.tile(y, 3)
    settings = SMALL | {"shortcuts": shortcuts, "early_stopping": early_stopping}
    found = []
    for factor in (1.0, 0.1):
        given = own_units(X, factor)
        given = given + 10 * SHIFTS[: X.shape[1]] * given.std(0)
        estimator = fit_quietly(kind(**settings), given, y)
        found.append(outputs(estimator, given))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-7)


@for_both
def test_nothing_is_lost_on_small_columns(kind: type) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 3)) * [0.01, 1.0, 1.0]
    y: Any = 100 * X[:, 0] * X[:, 1]
    y = y > 0 if kind is TargetSpaceClassifier else y
    estimator = kind(random_state=0).fit(X[:400], y[:400])
    assert estimator.score(X[400:], y[400:]) > 0.9


@for_both
@pytest.mark.parametrize("way", ["pickle", "file"])
def test_units_are_kept(kind: type, way: str, tmp_path: Path) -> None:
    X, y = problem(kind)
    X = own_units(X) + SHIFTS[: X.shape[1]]
    settings = SMALL | {"warm_start": True, "max_iter": 4}
    estimator = fit_quietly(kind(**settings), X, y)
    if way == "pickle":
        again = pickle.loads(pickle.dumps(estimator))
    else:
        save(estimator, tmp_path / "model")
        again = load(tmp_path / "model")
    np.testing.assert_array_equal(outputs(again, X), outputs(estimator, X))
    whole = fit_quietly(kind(**(settings | {"max_iter": 4})), X, y)
    for model in (again, whole):
        fit_quietly(model, X, y)
    np.testing.assert_array_equal(outputs(again, X), outputs(whole, X))
    np.testing.assert_array_equal(np.unique(again.fixed_batch_), np.unique(X))


@for_both
def test_later_calls_measure_as_the_first(kind: type) -> None:
    X, y = problem(kind)
    found = []
    for factor in (1.0, 0.1):
        given = own_units(X, factor)
        estimator = kind((6,), random_state=0)
        for _ in range(3):
            extra = {"classes": np.unique(y)} if kind is TargetSpaceClassifier else {}
            estimator.partial_fit(given[:40], y[:40], **extra)
            estimator.partial_fit(2 * given[40:], y[40:])
        found.append(outputs(estimator, given))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-7)


def test_other_starts_have_no_units() -> None:
    X, y = problem(TargetSpaceRegressor)
    for settings in ({"target_init": "weights"}, {"parameterization": "weights"}):
        estimator = TargetSpaceRegressor(**SMALL, **settings)
        assert fit_quietly(estimator, own_units(X), y)._input_units is None


def test_a_few_far_values_do_not_decide_where_a_column_lies() -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 6))
    X[:, 1] = random.uniform(size=400) < 0.02  # an indicator of something rare
    X[:, 2] = random.exponential(size=400)
    X[:, 3] = (random.uniform(size=400) < 0.3) * random.normal(size=400)
    X[:, 4] = random.standard_t(3, size=400)
    plain = bulk_of_columns(X, None)
    np.testing.assert_allclose(plain.deviation, X.std(0), rtol=1e-12)
    np.testing.assert_allclose(plain.span, np.ptp(X, axis=0), rtol=1e-12)
    far = X.copy()
    far[:8, 0], far[5, 2], far[7, 5] = -999.0, 1e4, np.nan_to_num(np.inf)
    found = bulk_of_columns(far, None)
    for name in ("mean", "deviation"):
        for j in (0, 1, 2, 3, 4):
            ours, truth = getattr(found, name)[j], getattr(plain, name)[j]
            assert ours == pytest.approx(truth, rel=0.25, abs=0.1), (name, j)
    assert found.span[0] < plain.span[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_bulk_of_weighted_rows_is_that_of_repeated_ones(seed: int) -> None:
    random = np.random.default_rng(seed)
    X = random.normal(size=(80, 3))
    X[3, 1] = 1e4
    X[:5, 2] = -999.0
    weight = random.integers(1, 4, size=80)
    weighted = bulk_of_columns(X, weight.astype(float))
    repeated = bulk_of_columns(np.repeat(X, weight, axis=0), None)
    for a, b in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    assert (weighted.deviation < 2).all()
    # What counts for nothing is not there.
    more = np.vstack([X, np.full((2, 3), 1e7)])
    without = bulk_of_columns(more, np.append(weight, [0, 0]))
    for a, b in zip(without, weighted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2])
@pytest.mark.parametrize("value", [-999.0, 1e9])
def test_what_stands_for_missing_values_does_not_decide_either(
    share: float, value: float
) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 2))
    X[: int(400 * share), 1] = value
    found = bulk_of_columns(X, None)
    assert found.deviation[0] == pytest.approx(X[:, 0].std())
    # Nothing is left of a column that is next to nothing beside what it lacks, and if
    # many rows lacked something, most would be far from the others.
    counts = value == 1e9 or share == 0.2
    expected = X[:, 1].std() if counts else X[int(400 * share) :, 1].std()
    assert found.deviation[1] == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e308])
def test_far_columns_are_counted_by_weight(size: float) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 3))
    X[:8, 0], X[8:16, 1] = -999.0, -999.0
    weight = np.full(400, size)

    def count(weight: Array | None) -> int:
        return n_far_columns(X, weight, bulk_of_columns(X, weight))

    assert count(weight) == count(None) == 2
    weight[8:16] = 0.0
    assert count(weight) == 1


@pytest.mark.parametrize("standardised", [False, True])
def test_columns_with_heavy_tails_are_learnt(standardised: bool) -> None:
    random = np.random.default_rng(0)
    X = random.standard_cauchy((3000, 6))
    y = np.arctan(X[:, 0]) + np.arctan(X[:, 1]) + 0.2 * random.normal(size=3000)
    X = (X - X[:1000].mean(0)) / X[:1000].std(0) if standardised else X
    model = TargetSpaceRegressor(random_state=0)
    fit_quietly(model, X[:1000], y[:1000])
    assert model.score(X[1000:], y[1000:]) > 0.8


def test_columns_of_two_values_lack_none() -> None:
    random = np.random.default_rng(0)
    X = (random.uniform(size=(400, 3)) < [0.1, 0.5, 0.9]) * [1.0, 99.0, -1e6]
    np.testing.assert_allclose(bulk_of_columns(X, None).deviation, X.std(0))


@for_both
@pytest.mark.parametrize("hidden", [(20,), (12,) * 4])
@pytest.mark.parametrize("value", [-999.0, -999999999.0, 1e20])
@pytest.mark.parametrize("standardised", [False, True])
def test_what_is_missing_in_one_column_costs_no_other(
    kind: type, hidden: tuple[int, ...], value: float, standardised: bool
) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(800, 4))
    y = X[:, 0] + X[:, 1] * X[:, 2]
    y = y > 0 if kind is TargetSpaceClassifier else y
    X[random.uniform(size=800) < 0.03, 3] = value
    if standardised:
        X = (X - X.mean(0)) / X.std(0)
    model = fit_quietly(kind(hidden, random_state=0), X[:500], y[:500])
    assert model.score(X[500:], y[500:]) > 0.9


@pytest.mark.parametrize("standardised", [False, True])
def test_combinations_of_missing_values_are_bounded(standardised: bool) -> None:
    for seed in range(3):
        random = np.random.default_rng(seed)
        X = random.uniform(size=(1000, 5))
        y = 2 * X[:, 0] + np.sin(4 * X[:, 1]) + X[:, 2] * X[:, 3]
        X[random.uniform(size=X.shape) < 0.02] = -999.0
        if standardised:
            X = (X - X.mean(0)) / X.std(0)
        model = TargetSpaceRegressor(random_state=seed)
        fit_quietly(model, X[:500], y[:500])
        assert model.score(X[500:], y[500:]) > 0.3
        # The columns of a later call have no say in what the network is.
        fit_quietly(model.set_params(warm_start=True), X[:500], y[:500])
        whole = (X[500:] > X[500:].mean(0) - 9 * X[500:].std(0)).all(1)
        fit_quietly(model, X[500:][whole], y[500:][whole])


@for_both
def test_columns_that_others_dwarf_are_measured_too(kind: type) -> None:
    random = np.random.default_rng(0)
    X = np.hstack([random.uniform(size=(900, 4)), 1e3 * random.normal(size=(900, 9))])
    y = np.sin(5 * X[:, 0]) + 4 * X[:, 1] * X[:, 2]
    y = y > np.median(y) if kind is TargetSpaceClassifier else y
    model = fit_quietly(kind((50,), random_state=0), X[:600], y[:600])
    assert model.score(X[600:], y[600:]) > 0.85
    found = units(X)
    assert found is not None
    np.testing.assert_allclose(found[1], X.std(0) / 2)


def test_indicators_and_rare_counts_are_dwarfed_as_they_are() -> None:
    random = np.random.default_rng(0)
    small = random.uniform(size=(900, 2)) < [0.5, 0.1]
    counts = random.poisson(0.3, size=(900, 1))
    large = 1e3 * random.normal(size=(900, 1))
    found = units(np.hstack([small, counts, large]).astype(float))
    assert found is not None
    np.testing.assert_array_equal(found[1][:3], 1)
    np.testing.assert_array_equal(found[0][:3], 0)


@for_both
@pytest.mark.parametrize("hidden", [(20,), (12,) * 6])
@pytest.mark.parametrize("standardised", [False, True])
def test_a_single_far_value_does_not_drown_its_column(
    kind: type, hidden: tuple[int, ...], standardised: bool
) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(800, 3))
    y = X[:, 0] * X[:, 1]
    y = y > 0 if kind is TargetSpaceClassifier else y
    train = X[:500].copy()
    train[0, 0] = 5000.0
    mean, deviation = (train.mean(0), train.std(0)) if standardised else (0.0, 1.0)
    model = fit_quietly(
        kind(hidden, random_state=0), (train - mean) / deviation, y[:500]
    )
    assert model.score((X[500:] - mean) / deviation, y[500:]) > 0.85


def times(n: int = 900) -> tuple[Array, Array]:
    """Make times of a day in seconds since 1970, and what depends on them."""
    random = np.random.default_rng(0)
    t = 1.7e9 + random.uniform(0, 86400, n)
    X = np.column_stack([t, random.normal(size=(n, 3))]).astype(np.float32)
    return X, np.sin(2 * np.pi * (X[:, 0].astype(float) % 86400) / 86400) + X[:, 1]


@for_both
def test_times_in_single_precision_are_learnt(kind: type) -> None:
    X, y = times()
    y = y > 0 if kind is TargetSpaceClassifier else y
    narrow, wide = (
        fit_quietly(kind((20,), random_state=0), given, y, X_val=given, y_val=y)
        for given in (X, X.astype(np.float64))
    )
    assert narrow.score(X, y) > 0.97
    np.testing.assert_allclose(narrow.predict(X), wide.predict(X), atol=1e-4)
    # Nothing else is computed in double precision that is given in single.
    X = X[:, 1:]
    assert fit_quietly(kind((20,), random_state=0), X, y).coefs_[0].dtype == X.dtype


def test_numbers_are_learnt_as_given_beside_times() -> None:
    X, y = times()
    y = 1e6 + y  # more digits than single precision has
    model = fit_quietly(TargetSpaceRegressor((20,), random_state=0), X, y)
    assert model.score(X, y) > 0.97


def test_numbers_to_stop_by_keep_their_digits_beside_times() -> None:
    X, y = times()
    y = 1e8 + y  # less than the spacing of numbers in single precision
    model = TargetSpaceRegressor((20,), max_iter=20, random_state=0)
    curves = []
    # The network of an earlier fit has no say in it.
    for given in (X.astype(np.float64), X, X):
        fit_quietly(model, given, y, X_val=given, y_val=y)
        curves.append(model.validation_loss_curve_)
        if len(curves) == 1:
            model = clone(model)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-6)
    assert curves[2] == curves[1]


@for_both
def test_later_fits_in_single_precision_go_on_in_double(kind: type) -> None:
    X, y = times()
    y = y > 0 if kind is TargetSpaceClassifier else y
    twice = np.tile(X, (2, 1)), np.tile(y, 2)
    found = []
    for dtype in (np.float32, np.float64):
        given = twice[0].astype(dtype), twice[1]
        model = kind((20,), random_state=0, max_iter=20, warm_start=True)
        fit_quietly(fit_quietly(model, *given), *given)
        assert model._fixed_batch_is_all
        assert len(model.fixed_batch_) == len(X)
        found.append(model.partial_fit(*given).predict(X))
    np.testing.assert_allclose(*found, atol=1e-4)


def test_several_labels_of_times_are_learnt() -> None:
    X, y = times()
    labels = np.column_stack([y > 0, y > 1]).astype(int)
    model = fit_quietly(TargetSpaceClassifier((20,), random_state=0), X, labels)
    assert model.coefs_[0].dtype == np.float64
    assert model.score(X, labels) > 0.9


def test_columns_that_hold_rounding_alone_change_nothing() -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 3)).astype(np.float32)
    shares = random.dirichlet(np.ones(5), size=300).astype(np.float32)
    total = shares.sum(axis=1, keepdims=True)
    assert np.ptp(total) > 0
    assert not is_far_off(bulk_of_columns(np.hstack([X, total]), None))


def test_what_is_far_off() -> None:
    steps = np.arange(100.0)[:, None] - 49.5  # a deviation of 29
    found = [
        is_far_off(bulk_of_columns(np.hstack([steps, steps + mean]), None))
        for mean in (2.8e5, -2.8e5, 2.9e5, -2.9e5)
    ]
    assert found == [False, False, True, True]
    assert not is_far_off(bulk_of_columns(np.full((9, 1), 7.0), None))
    one_ulp = np.float32([[1.0], [1.0 + 2**-23]])
    assert not is_far_off(bulk_of_columns(one_ulp, None))
