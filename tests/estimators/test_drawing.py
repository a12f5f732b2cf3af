"""The fixed batch depends on which rows there are, and how often, alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sktarget import TargetSpaceRegressor
from sktarget.estimators import _hashing
from sktarget.estimators._drawing import draw_rows, noise_batch
from tests.estimators.support import fit_quietly

DTYPES = [np.float32, np.float64]
both_precisions = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def sample_batch(X: Any, *args: Any) -> Any:
    return X[draw_rows(X, *args)[0]]


def table(n: int = 50, *shape: int, seed: int = 0, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(seed).normal(size=(n, *(shape or (3,)))).astype(dtype)


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=20).filter(any),
    size=st.integers(1, 25),
    seed=st.integers(0, 2**31 - 1),
    dtype=st.sampled_from(DTYPES),
)
def test_order_and_repetition(
    counts: list[int], size: int, seed: int, dtype: Any
) -> None:
    X = table(len(counts), dtype=dtype)
    repeated = np.repeat(X, counts, axis=0)
    weight = np.array(counts, dtype=float)
    drawn = sample_batch(X, size, seed, weight)
    assert len(drawn) == min(size, np.count_nonzero(weight))
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    order = np.random.default_rng(seed).permutation(len(repeated))
    assert_array_equal(sample_batch(repeated, size, seed), drawn)
    assert_array_equal(sample_batch(repeated[order], size, seed), drawn)
    kept = {tuple(row) for row in X[weight > 0]}
    assert {tuple(row) for row in drawn} <= kept


@both_precisions
def test_unit_weights_are_none(dtype: Any) -> None:
    X = table(dtype=dtype)
    drawn = sample_batch(X, 10, 0)
    assert drawn.dtype == dtype
    assert_array_equal(sample_batch(X, 10, 0, np.ones(50)), drawn)


def test_larger_batch_begins_with_the_smaller() -> None:
    X = table()
    assert_array_equal(sample_batch(X, 20, 0)[:5], sample_batch(X, 5, 0))


def test_seed_decides() -> None:
    X = table()
    assert_array_equal(sample_batch(X, 10, 3), sample_batch(X.copy(), 10, 3))
    assert (sample_batch(X, 10, 3) != sample_batch(X, 10, 4)).any()


@both_precisions
def test_zeros_of_either_sign_are_equal(dtype: Any) -> None:
    X = table(20, dtype=dtype)
    X[:, 1] = 0.0
    negative = X.copy()
    negative[:, 1] = -0.0
    assert len(sample_batch(np.concatenate([X, negative]), 40, 0)) == 20
    assert_array_equal(sample_batch(negative, 7, 0), sample_batch(X, 7, 0))


def test_rows_that_differ_in_place_only_are_distinct() -> None:
    rows = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 0, 0]])
    assert len(sample_batch(rows, 9, 0)) == 4


@pytest.mark.parametrize("draw", [sample_batch, noise_batch])
def test_rows_of_more_axes(draw: Callable[..., Any]) -> None:
    X = table(30, 2, 4, 4)
    drawn = draw(X, 7, 0)
    assert drawn.shape == (7, 2, 4, 4)
    flat = draw(X.reshape(30, -1), 7, 0)
    assert_allclose(drawn.reshape(7, -1), flat, rtol=1e-13)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_slices_of_the_hash(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X = table()
    expected = sample_batch(X, 10, 0)
    monkeypatch.setattr(_hashing, "_SLICE", 3 * step)
    assert_array_equal(sample_batch(X, 10, 0), expected)


def test_layout_in_memory_is_of_no_account() -> None:
    X = table(50, 6)
    expected = sample_batch(X[:, ::2].copy(), 10, 0)
    assert_array_equal(sample_batch(X[:, ::2], 10, 0), expected)
    assert_array_equal(sample_batch(np.asfortranarray(X[:, ::2]), 10, 0), expected)


def test_rows_come_in_proportion_to_their_weights() -> None:
    weight = np.array([1.0, 2.0, 3.0, 4.0])
    X = np.arange(4.0)[:, None]
    n = 2000
    first = [int(sample_batch(X, 1, seed, weight)[0, 0]) for seed in range(n)]
    expected = n * weight / weight.sum()
    chi_square = ((np.bincount(first, minlength=4) - expected) ** 2 / expected).sum()
    assert chi_square < 16.3  # the 99.9 % quantile of three degrees of freedom


def test_equal_rows_come_equally_often() -> None:
    # In a row of three out of six, each should be in half of the draws.
    X, n = np.arange(6.0)[:, None], 1000
    drawn = np.concatenate([sample_batch(X, 3, seed).ravel() for seed in range(n)])
    assert_allclose(np.bincount(drawn.astype(int)), n / 2, atol=4 * np.sqrt(n / 4))


@both_precisions
def test_moments_of_noise(dtype: Any) -> None:
    X = (table(40, 4) * [1.0, 10.0, 0.1, 0.0] + [0.0, 5.0, -1.0, 2.0]).astype(dtype)
    weight = np.random.default_rng(1).uniform(0, 2, size=40)
    weight[:10] = 0
    n = 20000
    noise = noise_batch(X, n, 0, weight)
    assert noise.shape == (n, 4)
    assert noise.dtype == dtype
    mean = np.average(X, axis=0, weights=weight)
    deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    assert_allclose(noise.mean(0), mean, atol=1e-6 + 4 * deviation.max() / np.sqrt(n))
    assert_allclose(noise.std(0), deviation, rtol=0.03, atol=1e-6)
    scaled = (noise - mean)[:, :3] / deviation[:3]
    assert_allclose(scaled.T @ scaled / n, np.eye(3), atol=0.05)
    assert_allclose((scaled**4).mean(0), 3.0, atol=0.25)


def test_noise_follows_weights_and_seed() -> None:
    X = table(5)
    counts = np.array([1, 0, 3, 2, 1])
    expected = noise_batch(X, 6, 0, counts)
    assert_allclose(noise_batch(np.repeat(X, counts, axis=0), 6, 0), expected)
    assert_array_equal(noise_batch(X, 6, 0, counts), expected)
    assert (noise_batch(X, 6, 1, counts) != expected).all()


@pytest.mark.usefixtures("global_state_untouched")
@pytest.mark.parametrize("draw", [sample_batch, noise_batch])
def test_global_state(draw: Callable[..., Any]) -> None:
    X = table()
    before = X.copy()
    draw(X, 5, 0, np.ones(50))
    assert_array_equal(X, before)


@pytest.mark.parametrize("draw", [sample_batch, noise_batch])
def test_weights_of_any_size(draw: Callable[..., Any]) -> None:
    X, weight = 1e4 * table(), np.random.default_rng(0).uniform(0.1, 1, size=50)
    expected = draw(X, 6, 0, weight)
    for exponent in (-1000, 1000):
        assert_array_equal(draw(X, 6, 0, np.ldexp(weight, exponent)), expected)
    uneven = np.where(np.arange(50) < 6, 1e300, 5e-324)
    assert np.isfinite(draw(X, 6, 0, uneven)).all()


@pytest.mark.parametrize("seed", range(3))
def test_more_rows_are_drawn_for_columns_that_would_be_constant(seed: int) -> None:
    rng = np.random.default_rng(seed)
    categories = rng.integers(200, size=2000)
    X = np.column_stack([np.eye(200)[categories], rng.normal(size=2000), np.ones(2000)])
    drawn, _ = draw_rows(X, 100, seed)
    more, place_of_more = draw_rows(X, 100, seed, of_all_columns=True)
    assert (np.ptp(X[drawn], axis=0) > 0).sum() < 100
    assert (np.ptp(X[more], axis=0) > 0).sum() == 201
    np.testing.assert_array_equal(more[:100], drawn)
    assert 150 < len(more) == len(np.unique(more)) <= 300
    np.testing.assert_array_equal(place_of_more[more], np.arange(len(more)))
    assert (place_of_more >= 0).sum() == len(more)
    # It depends on the order of the rows as little.
    order = rng.permutation(2000)
    again, _ = draw_rows(X[order], 100, seed, of_all_columns=True)
    np.testing.assert_array_equal(order[again], more)


def test_rare_categories_of_large_tables_are_learnt() -> None:
    rng = np.random.default_rng(0)
    categories = rng.integers(1000, size=12_000)
    X = np.eye(1000, dtype=np.float32)[categories]
    X = np.column_stack([X, rng.normal(size=12_000).astype(np.float32)])
    settings: dict[str, Any] = {"max_iter": 1, "random_state": 0}
    model = TargetSpaceRegressor((3,), **settings, fixed_batch_size="auto")
    fit_quietly(model, X, rng.normal(size=1000)[categories])
    assert (np.abs(model.coefs_[0]).max(axis=1) > 0).all()
    few = fit_quietly(
        TargetSpaceRegressor((3,), **settings, fixed_batch_size=500), X, X[:, 0]
    )
    assert (np.abs(few.coefs_[0]).max(axis=1) > 0).sum() < 450


def test_every_column_that_varies_is_drawn_from_many_rows() -> None:
    X = np.zeros((5000, 40))
    X[:, 0] = np.arange(5000)
    rare = np.random.default_rng(0).integers(5000, size=39)
    X[rare, np.arange(1, 40)] = 1
    drawn, _ = draw_rows(X, 20, 0, of_all_columns=True)
    assert (np.ptp(X[drawn], axis=0) > 0).all()
    assert len(drawn) <= 20 + 39
    plain, _ = draw_rows(X, 20, 0)
    assert_array_equal(drawn[:20], plain)
