"""Generators of synthetic data."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sktarget.datasets import (
    make_adding,
    make_delayed_addition,
    make_delayed_recall,
    make_temporal_order,
    make_two_spirals,
)

# Rows of the paper's two files: index, x, y, label, printed with six decimals.
PAPER_TRAIN = [
    (0, 0.65, 0.0, 0),
    (1, -0.65, 0.0, 1),
    (2, 0.697277, 0.138697, 0),
    (97, 3.575, 0.0, 1),
    (100, -3.415467, -1.414733, 0),
    (193, -6.5, 0.0, 1),
]
PAPER_TEST = [
    (0, 0.677192, 0.066698, 0),
    (1, -0.677192, -0.066698, 1),
    (2, 0.709482, 0.215219, 0),
    (97, 3.588107, 0.353398, 1),
    (100, -3.287224, -1.757058, 0),
    (193, -6.499023, -0.640098, 1),
]


@pytest.mark.parametrize(
    ("midpoints", "rows"), [(False, PAPER_TRAIN), (True, PAPER_TEST)]
)
def test_the_points_of_the_paper(
    midpoints: bool, rows: list[tuple[int, float, float, int]]
) -> None:
    X, y = make_two_spirals(midpoints=midpoints)
    index = [row[0] for row in rows]
    assert X.shape == (194, 2)
    assert_allclose(X[index], [row[1:3] for row in rows], atol=5.1e-7)
    assert_array_equal(y[index], [row[3] for row in rows])


@pytest.mark.parametrize("n_samples", [2, 3, 4, 7, 194])
@pytest.mark.parametrize("midpoints", [False, True])
def test_shapes_and_labels(n_samples: int, midpoints: bool) -> None:
    X, y = make_two_spirals(n_samples, midpoints=midpoints)
    assert X.shape == (n_samples, 2)
    assert X.dtype == np.float64
    assert y.dtype == np.int64
    assert np.isfinite(X).all()
    assert_array_equal(y, np.arange(n_samples) % 2)


def test_second_arm_is_the_first_reflected() -> None:
    X, y = make_two_spirals(50)
    assert_array_equal(X[y == 1], -X[y == 0])


@pytest.mark.parametrize("n_turns", [0.25, 1.0, 4.5])
def test_turns(n_turns: float) -> None:
    X, y = make_two_spirals(1000, n_turns=n_turns)
    arm = X[y == 0] @ (1, 1j)
    angle = np.unwrap(np.angle(arm))
    assert_allclose(angle, np.linspace(0.0, 2 * np.pi * n_turns, 500), atol=1e-9)
    assert_allclose(np.abs(arm), np.linspace(0.65, 6.5, 500), rtol=1e-12)


def test_midpoints_lie_half_way() -> None:
    train, test = (make_two_spirals(40, midpoints=m)[0][::2] for m in (False, True))
    # A midpoint of the coarse spiral is a point of the one with every step halved.
    fine = make_two_spirals(78)[0][::2]
    assert_allclose(train, fine[::2], atol=1e-12)
    assert_allclose(test[:-1], fine[1::2], atol=1e-12)


def test_noise() -> None:
    exact, y = make_two_spirals(2000)
    noisy, y_noisy = make_two_spirals(2000, noise=0.5, random_state=0)
    again, _ = make_two_spirals(2000, noise=0.5, random_state=0)
    other, _ = make_two_spirals(2000, noise=0.5, random_state=1)
    assert_array_equal(noisy, again)
    assert not np.array_equal(noisy, other)
    assert_array_equal(y, y_noisy)
    assert_allclose((noisy - exact).std(), 0.5, rtol=0.05)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_samples", 1),
        ("n_samples", 10.0),
        ("n_turns", 0.0),
        ("n_turns", np.nan),
        ("midpoints", "yes"),
        ("noise", -0.1),
        ("random_state", "seed"),
    ],
)
def test_bad_parameters_are_named(parameter: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of make_two_spir"):
        make_two_spirals(**{parameter: value})


STREAMS = [make_delayed_recall, make_delayed_addition]


@pytest.mark.parametrize("make", STREAMS)
@pytest.mark.parametrize(("delay", "n_timesteps"), [(0, 5), (1, 9), (7, 8), (4, None)])
def test_streams(make: Any, delay: int, n_timesteps: int | None) -> None:
    X, y = make(6, delay, n_timesteps=n_timesteps, random_state=0)
    length = n_timesteps or delay + 50
    assert X.shape == (6, 1, length)
    assert y.shape == (6, length)
    assert X.dtype == np.float64
    assert y.dtype == np.int64
    assert set(X.ravel()) == {0.0, 1.0}
    assert (y[:, :delay] == -1).all()
    assert set(y[:, delay:].ravel()) == {0, 1}
    assert_array_equal(X, make(6, delay, n_timesteps=n_timesteps, random_state=0)[0])


@pytest.mark.parametrize("delay", [1, 3, 20])
def test_recall_brute_force(delay: int) -> None:
    X, y = make_delayed_recall(5, delay, random_state=1)
    for stream, wanted in zip(X[:, 0], y, strict=True):
        for t in range(delay, len(stream)):
            assert wanted[t] == stream[t - delay]


@pytest.mark.parametrize("delay", [0, 1, 3, 20])
def test_addition_brute_force(delay: int) -> None:
    X, y = make_delayed_addition(5, delay, random_state=1)
    for stream, wanted in zip(X[:, 0].astype(int).tolist(), y, strict=True):
        # Python's integers are as long as they need to be.
        number = sum(bit << t for t, bit in enumerate(stream))
        # Below `delay` there is nothing to add to, and so nothing to carry.
        total = number + (number << delay)
        for t in range(delay, len(stream)):
            assert wanted[t] == total >> t & 1


@pytest.mark.parametrize("make", STREAMS)
def test_streams_must_be_longer_than_the_delay(make: Any) -> None:
    with pytest.raises(ValueError, match="more than delay=5, got 5"):
        make(2, 5, n_timesteps=5)
    with pytest.raises(ValueError, match="'delay' parameter"):
        make(2, -1)


@pytest.mark.parametrize("n_timesteps", [10, 25, 60])
def test_temporal_order(n_timesteps: int) -> None:
    X, y = make_temporal_order(2000, n_timesteps, random_state=0)
    assert X.shape == (2000, 6, n_timesteps)
    assert_array_equal(X.sum(axis=1), 1)
    assert_array_equal(np.unique(X), [0, 1])
    symbols = X.argmax(axis=1)
    decisive = symbols < 2
    assert_array_equal(decisive.sum(axis=1), 2)
    rows, steps = np.nonzero(decisive)
    first, second = steps[::2], steps[1::2]
    tenth, middle = n_timesteps // 10, n_timesteps // 2
    assert_array_equal(np.unique(first), np.arange(tenth, 2 * tenth))
    assert_array_equal(np.unique(second), np.arange(middle, middle + tenth))
    found = symbols[rows, steps].reshape(-1, 2)
    assert_array_equal(y, found[:, 0] + 2 * found[:, 1])
    assert_allclose(np.bincount(y) / 2000, 0.25, atol=0.04)
    assert_array_equal(np.unique(symbols), np.arange(6))


@pytest.mark.parametrize("n_timesteps", [10, 25, 60])
def test_adding(n_timesteps: int) -> None:
    X, y = make_adding(2000, n_timesteps, random_state=0)
    assert X.shape == (2000, 2, n_timesteps)
    assert_array_equal(X[:, 0].sum(axis=1), 2)
    _, steps = np.nonzero(X[:, 0])
    first, second = n_timesteps // 10, 4 * n_timesteps // 10
    assert_array_equal(np.unique(steps[::2]), np.arange(first))
    assert_array_equal(np.unique(steps[1::2]), np.arange(first, first + second))
    marked = X[:, 1][X[:, 0] == 1].reshape(-1, 2)
    assert_allclose(y, marked.mean(axis=1))
    assert_allclose(np.mean((y - 0.5) ** 2), 1 / 24, rtol=0.1)


@pytest.mark.parametrize("make", [make_temporal_order, make_adding])
def test_random_state_decides_long_memory(make: Any) -> None:
    a, b = make(20, 12, random_state=3), make(20, 12, random_state=3)
    assert_array_equal(a[0], b[0])
    assert not np.array_equal(a[0], make(20, 12, random_state=4)[0])
    with pytest.raises(ValueError, match="n_timesteps"):
        make(20, 9)
