"""Which rows are held out, and how networks are judged by them."""

from typing import Any

import numpy as np
import pytest
import torch

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.estimators import _noise_rules, _rules
from sktarget.estimators._comparison import measure_errors
from sktarget.estimators._holding_out import (
    HoldingOut,
    _exchange,
    can_hold_out,
    hold_out,
)
from sktarget.estimators._judged_course import _without_far_rows
from sktarget.estimators._outliers import bulk_of_columns, far_rows
from sktarget.estimators._rows import TrainingRows
from sktarget.training import CRITERIA, TensorData
from tests.estimators.support import SeesData, fit_quietly


def pairs(rows: TrainingRows) -> set[tuple[float, ...]]:
    columns = [rows.X, rows.y.reshape(len(rows), -1)]
    return set(map(tuple, np.column_stack(columns).tolist()))


def test_held_out_repeats_are_merged_like_others() -> None:
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20.0)
    rows = TrainingRows(np.repeat(X, 5, axis=0), np.repeat(y, 5))
    left, _ = hold_out(rows, HoldingOut(6), 0.3, np.random.RandomState(0))
    assert (len(left), left.n_held_out) == (70, 30)
    merged = left.distinct(0)
    assert (len(merged), merged.n_held_out) == (14, 6)


@pytest.mark.parametrize("of_classes", [False, True])
def test_equal_rows_go_the_same_way(of_classes: bool) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), rng.integers(3, size=20)
    given = rng.permutation(np.r_[np.arange(20), rng.integers(20, size=60)])
    rows = TrainingRows(X[given], y[given])
    rows.classes = rows.y if of_classes else None
    assert rows.n_distinct == 20
    left, held_out = hold_out(rows, HoldingOut(6), 0.3, np.random.RandomState(0))
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
    parts = hold_out(rows, HoldingOut(9), 0.3, np.random.RandomState(0))
    again = hold_out(rows, HoldingOut(9), 0.3, np.random.RandomState(0))
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


@pytest.mark.parametrize("loss", CRITERIA)
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_outputs_add_up(loss: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    sums = torch.randn(9, 3, generator=generator)
    y: Any = torch.randn(9, 3, generator=generator)
    if loss == "poisson":
        y = y.abs()
    elif loss == "logistic":
        y = (y > 0).float()
    elif loss == "cross_entropy":
        y = y.argmax(1)
    weight = torch.rand(9, generator=generator) if weighted else None
    criterion = CRITERIA[loss]
    found = criterion.errors_of_outputs(sums, y, weight)
    assert found.shape == ((1,) if loss == "cross_entropy" else (3,))
    total = found.sum() if loss in ("cross_entropy", "logistic") else found.mean()
    torch.testing.assert_close(total, criterion.error(sums, y, weight))


@pytest.mark.parametrize("n_validation", [50, 90, 98])
def test_a_row_of_every_class_is_left(n_validation: int) -> None:
    X = np.random.default_rng(0).normal(size=(100, 2))
    rows = TrainingRows(X, np.repeat([0, 1], [98, 2]))
    rows.classes = rows.y
    for seed in range(5):
        random = np.random.RandomState(seed)
        plan = HoldingOut(n_validation)
        left, held_out = hold_out(rows, plan, n_validation / 100, random)
        assert set(left.y) == {0, 1}
        assert len(held_out) == n_validation


def test_answers_to_the_same_question_are_held_out_one_by_one() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(2, size=(400, 3)).astype(float)
    y = (rng.random(400) < 0.2 + 0.6 * X[:, 0]).astype(int)
    rows = TrainingRows(X, y)
    rows.classes = y
    assert rows.n_distinct == 400
    left, held_out = hold_out(rows, HoldingOut(100), 0.25, np.random.RandomState(0))
    assert (len(left), len(held_out)) == (300, 100)
    # Every kind of answer is among those left.
    assert pairs(left) == pairs(rows)
    # But what is merely there twice are copies.
    copies = TrainingRows(
        np.tile(rng.normal(size=(200, 3)), (2, 1)), np.tile(y[:200], 2)
    )
    assert copies.n_distinct == 200


@pytest.mark.parametrize("depth", [1, 4])
def test_answers_are_predicted_as_often_as_they_come(depth: int) -> None:
    # 64 kinds of rows, each with four answers in proportions of its own.
    rng = np.random.default_rng(0)
    cells = rng.integers(4, size=(4000, 3))
    odds = rng.normal(size=(4, 4, 4, 4))[tuple(cells.T)]
    y = (odds + rng.gumbel(size=odds.shape)).argmax(1)
    X = np.eye(4)[cells].reshape(len(cells), -1)
    estimator = TargetSpaceClassifier((50,) * depth, random_state=0)
    fit_quietly(estimator, X[:3000], y[:3000])
    known = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    truth = -np.log(known[3000:, :][np.arange(1000), y[3000:]]).mean()
    found = estimator.predict_proba(X[3000:])[np.arange(1000), y[3000:]]
    assert -np.log(found).mean() < truth + 0.08


def test_last_windows_of_every_series_are_held_out() -> None:
    rows = TrainingRows(np.arange(20.0)[:, None], np.arange(20.0))
    series = np.repeat([0, 1, 2], [10, 5, 5])
    plan = HoldingOut(8, series=series)
    left, held_out = hold_out(rows, plan, 0.4, np.random.RandomState(0))
    assert sorted(held_out.y) == [6, 7, 8, 9, 13, 14, 18, 19]
    assert len(left) == 12
    # Classes in the order of the series are in both parts.
    rows.classes = (series > 0).astype(int)
    _, held_out = hold_out(rows, plan, 0.4, np.random.RandomState(0))
    assert sorted(held_out.y) == [6, 7, 8, 9, 13, 14, 18, 19]
    # If one would be unknown to either, they are drawn.
    for last in (14, 15):
        rows.classes = (rows.y == last).astype(int)
        rows.classes[:2] = 1 - last % 2
        left, held_out = hold_out(rows, plan, 0.4, np.random.RandomState(0))
        assert set(left.classes) == {0, 1}
    rows.classes = np.arange(20) % 10
    _, held_out = hold_out(rows, plan, 0.4, np.random.RandomState(0))
    assert len(held_out) == 8


def test_parts_of_surveys_remain_surveys() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(5, size=(400, 3)).astype(float)
    rows = TrainingRows(X, rng.integers(5, size=400))
    assert rows.n_distinct == 400
    left, held_out = hold_out(rows, HoldingOut(40), 0.1, np.random.RandomState(0))
    assert (left.n_distinct, held_out.n_distinct) == (360, 40)
    # And copies remain copies.
    copies = TrainingRows(np.repeat(np.eye(9), 3, axis=0), np.repeat(np.arange(9), 3))
    assert copies.n_distinct == copies[np.arange(26, -1, -1)].n_distinct == 9
    assert copies[np.arange(0, 27, 3)].n_distinct == 9


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("of_numbers", [False, True])
def test_answers_that_are_counted_are_not_taken_from_all(of_numbers: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(3, size=(2000, 3)).astype(float)
    y = rng.binomial(4, (1 + X[:, 0]) / 5)
    pairs, counts = np.unique(np.column_stack([X, y]), axis=0, return_counts=True)
    kind = TargetSpaceRegressor if of_numbers else TargetSpaceClassifier
    once = fit_quietly(kind((8,), max_iter=9, random_state=0), X, y)
    counted = kind((8,), max_iter=9, random_state=0)
    counted.fit(pairs[:, :3], pairs[:, 3].astype(int), sample_weight=counts)
    assert once.validation_scores_ is not None
    assert counted.validation_scores_ is None
    # Weights of rows that differ, and a few counts, are no reason.
    rows = TrainingRows(rng.normal(size=(200, 3)), y[:200], np.full(200, 9.0))
    assert not rows.are_tallied
    assert not TrainingRows(pairs[:, :3], pairs[:, 3], np.ones(len(pairs))).are_tallied


def test_far_rows_of_much_weight_may_be_held_out() -> None:
    X = np.random.default_rng(0).uniform(size=(100, 2))
    X[:4, 0] = 1e4
    weight = np.where(np.arange(100) < 4, 1.0, 1.2)
    plan = HoldingOut(20, learns_all=True)
    light = _without_far_rows(plan, TrainingRows(X, X[:, 0], weight))
    assert light.stays is not None
    assert light.stays.sum() == 4
    heavy = TrainingRows(X, X[:, 0], np.where(np.arange(100) < 4, 5.0, 1.0))
    assert _without_far_rows(plan, heavy).stays is None
    huge = TrainingRows(X, X[:, 0], np.full(100, 1e308))
    assert _without_far_rows(plan, huge).stays is not None


@pytest.mark.parametrize("far", [30.0, -1e4])
def test_rows_far_from_all_others_do_not_judge(far: float) -> None:
    random = np.random.default_rng(0)
    X = random.uniform(size=(900, 4))
    y = np.sin(3 * X[:, 0]) + 4 * X[:, 1] * X[:, 2]
    X[5, 1] = X[6, 2] = far
    indicator = (np.arange(900) == 40)[:, None]
    X = np.hstack([X, indicator])
    far = far_rows(X, None, bulk_of_columns(X, None))
    assert np.flatnonzero(far).tolist() == [5, 6]
    for seed in range(4):
        held_out = SeesData()
        model = TargetSpaceRegressor((50,), random_state=seed, callbacks=[held_out])
        fit_quietly(model, X[:600], y[:600])
        assert held_out.valid.x.abs().max() <= 1
        # With one of them held out it may end at 0.8 or less.
        assert model.score(X[600:], y[600:]) > 0.85


def test_rows_that_stay_may_leave_too_few_others() -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    rows, stays = TrainingRows(X, X[:, :1]), np.arange(20) < 3
    plan = HoldingOut(6, stays=stays)
    for seed in range(9):
        left, held_out = hold_out(rows, plan, 0.3, np.random.RandomState(seed))
        assert (len(left), len(held_out)) == (14, 6)
        assert set(X[:3, 0]) <= set(left.X[:, 0])
        # All others are drawn as they are without it.
        drawn = hold_out(rows, HoldingOut(6), 0.3, np.random.RandomState(seed))[1]
        others = set(drawn.X[:, 0]) - set(X[:3, 0])
        assert others <= set(held_out.X[:, 0])
    plan = HoldingOut(6, stays=np.arange(20) < 18)
    left, held_out = hold_out(rows, plan, 0.3, np.random.RandomState(0))
    assert (len(left), len(held_out)) == (14, 6)


def test_rows_that_stay_leave_classes_in_proportion() -> None:
    X = np.random.default_rng(0).normal(size=(120, 2))
    y = np.repeat([0, 1, 2], [80, 36, 4])
    rows = TrainingRows(X, y)
    rows.classes = y
    stays = np.isin(np.arange(120), [0, 85, 116, 117])
    for seed in range(9):
        plan = HoldingOut(30, stays=stays)
        left, held_out = hold_out(rows, plan, 0.25, np.random.RandomState(seed))
        assert np.bincount(held_out.y).tolist() == [20, 9, 1]
        assert np.bincount(left.y).tolist() == [60, 27, 3]
        assert set(X[stays, 0]) <= set(left.X[:, 0])


@pytest.mark.parametrize("of_own", [{}, {"fixed_batch_size": 50}, {"batch_size": 100}])
def test_rows_held_out_are_learnt_whatever_the_batches(
    of_own: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    n = 300 if of_own else _rules.MOST_AT_ONCE + 1
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 50))
    y = (X[:, 0] + 2 * rng.normal(size=n) > 0).astype(int)
    model = TargetSpaceClassifier((4,), max_iter=10, verbose=True, random_state=0)
    seen = SeesData()
    fit_quietly(model.set_params(callbacks=[seen], **of_own), X, y)
    printed = capsys.readouterr().out
    assert "trying more alpha" in printed
    assert f"with all {n} rows" in printed
    assert len(seen.train) + len(seen.valid) == n
    assert len(model.loss_curve_) > len(model.validation_scores_)


def test_noise_in_mini_batches_is_told_from_a_slow_start() -> None:
    assert _noise_rules.auto_overfit_share(1) == 0.0
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(1200, 20)), rng.normal(size=1200)
    model = TargetSpaceRegressor((20,), batch_size=200, lam=10.0, random_state=0)
    assert len(fit_quietly(model, X, y).validation_scores_) < 40
    X = rng.uniform(-3.0, 3.0, size=(2000, 2))
    y = np.sin(4 * X[:, 0]) * np.sin(4 * X[:, 1])
    waves = TargetSpaceRegressor((28,) * 3, batch_size=500, random_state=0)
    scores = fit_quietly(waves, X, y).validation_scores_
    assert max(scores[:15]) < 0.1
    assert max(scores) > 0.7


@pytest.mark.parametrize("of_classes", [False, True])
def test_rows_that_stay_are_exchanged_for_the_first_that_may_go(
    of_classes: bool,
) -> None:
    rng = np.random.default_rng(0)
    for n in (3, 30, 200):
        order, stays = rng.permutation(n), rng.random(n) < 0.3
        classes = rng.integers(3, size=n) if of_classes else None
        training, validation = order[n // 3 :], order[: n // 3]
        found = _exchange(training, validation, stays, classes)
        left, held_out = training.copy(), validation.copy()
        for i in np.flatnonzero(stays[validation]):  # one by one, as it is meant
            may_go = ~stays[left]
            if classes is not None:
                may_go &= classes[left] == classes[held_out[i]]
            if may_go.any():
                j = may_go.argmax()
                left[j], held_out[i] = held_out[i], left[j]
        np.testing.assert_array_equal(found[0], left)
        np.testing.assert_array_equal(found[1], held_out)


def test_rows_held_out_are_judged_some_at_a_time() -> None:
    sizes = []

    def watch(_module: Any, given: tuple[torch.Tensor]) -> None:
        sizes.append(len(given[0]))

    network = torch.nn.Linear(2, 1)
    network.register_forward_pre_hook(watch)
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    held_out = TensorData(x, x[:, :1])
    errors = measure_errors(network, held_out, CRITERIA["squared_error"], None)
    assert max(sizes) < 3000
    assert sum(sizes) == 3000
    with torch.no_grad():
        truth = (network(x) - x[:, :1]).double().square().mean()
    torch.testing.assert_close(
        errors.of_network / errors.of_constant,
        truth[None] / x[:, 0].double().var() * 3000 / 2999,
    )
