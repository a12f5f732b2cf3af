"""Generators of synthetic data."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sktarget.datasets import make_two_spirals

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
