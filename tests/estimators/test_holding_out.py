"""Which rows are held out, and how networks are judged by them."""

from typing import Any

import numpy as np
import pytest
import torch

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.estimators._holding_out import can_hold_out, hold_out
from sktarget.estimators._rows import TrainingRows
from sktarget.training import QUADRATIC_ERRORS, errors_of_outputs
from tests.estimators.support import fit_quietly


def pairs(rows: TrainingRows) -> set[tuple[float, ...]]:
    columns = [rows.X, rows.y.reshape(len(rows), -1)]
    return set(map(tuple, np.column_stack(columns).tolist()))


@pytest.mark.parametrize("of_classes", [False, True])
def test_equal_rows_go_the_same_way(of_classes: bool) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), rng.integers(3, size=20)
    given = rng.permutation(np.r_[np.arange(20), rng.integers(20, size=60)])
    rows = TrainingRows(X[given], y[given])
    rows.classes = rows.y if of_classes else None
    assert rows.n_distinct == 20
    left, held_out = hold_out(rows, 6, 0.3, np.random.RandomState(0))
    assert not pairs(left) & pairs(held_out)
    assert (left.n_distinct, held_out.n_distinct) == (14, 6)
    assert len(left) + len(held_out) == 80
    assert left.n_held_out == len(held_out)
    if of_classes:
        assert set(left.y) == set(y)


def test_rows_that_occur_once_are_split_as_they_come() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2))
    rows = TrainingRows(X, X[:, 0] > 0)
    rows.classes = rows.y = rows.y.astype(int)
    parts = hold_out(rows, 9, 0.3, np.random.RandomState(0))
    again = hold_out(rows, 9, 0.3, np.random.RandomState(0))
    assert [len(part) for part in parts] == [21, 9]
    for part, same in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part.X, same.X)


def test_copies_of_two_rows_cannot_be_told_apart_by_others() -> None:
    rows = TrainingRows(np.repeat(np.eye(2), 20, axis=0), np.repeat([0, 1], 20))
    rows.classes = rows.y
    assert not can_hold_out(rows, 4)
    X, y = np.repeat(np.eye(2), 20, axis=0), np.repeat(["a", "b"], 20)
    estimator = fit_quietly(TargetSpaceClassifier((4,), random_state=0), X, y)
    assert estimator.validation_scores_ is None
    assert estimator.score(X, y) == 1
    with pytest.raises(ValueError, match="of 2 rows would set 1 aside"):
        estimator.set_params(early_stopping=True).fit(X, y)


def test_a_table_given_twice_is_not_learnt_by_heart() -> None:
    rng = np.random.default_rng(0)
    X, noise = rng.normal(size=(700, 10)), rng.normal(size=700)
    y = X[:, 0] + noise
    estimator = TargetSpaceRegressor((30,), random_state=0)
    once, twice = (
        fit_quietly(estimator, np.tile(X[:200], (n, 1)), np.tile(y[:200], n)).score(
            X[200:], y[200:]
        )
        for n in (1, 2)
    )
    assert once > 0.35
    assert twice > once - 0.1


def test_outputs_of_noise_do_not_cost_the_others() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2500, 8))
    f = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * rng.normal(size=2500)
    Y = np.column_stack([f, rng.normal(size=(2500, 4))])
    estimator = fit_quietly(TargetSpaceRegressor(random_state=0), X[:1500], Y[:1500])
    missed = estimator.predict(X[1500:])[:, 0] - f[1500:]
    assert np.mean(missed**2) < 0.15 * f.var()


@pytest.mark.parametrize("loss", ["cross_entropy", "logistic", "squared_error"])
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_outputs_add_up(loss: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    sums = torch.randn(9, 3, generator=generator)
    y: Any = torch.randn(9, 3, generator=generator)
    if loss == "logistic":
        y = (y > 0).float()
    elif loss == "cross_entropy":
        y = y.argmax(1)
    weight = torch.rand(9, generator=generator) if weighted else None
    found = errors_of_outputs(loss, sums, y, weight)
    assert found.shape == ((1,) if loss == "cross_entropy" else (3,))
    total = found.mean() / 2 if loss == "squared_error" else found.sum()
    torch.testing.assert_close(total, QUADRATIC_ERRORS[loss](sums, y, weight))
