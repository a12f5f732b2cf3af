"""What the defaults stand for, and where training starts."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from skorch.callbacks import Callback, LRScheduler

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.estimators import _noise_rules, _rules
from tests.estimators.support import (
    ALL_EPOCHS,
    Leaves,
    SeesData,
    assert_same_weights,
    class_data,
    curve_data,
    fit_quietly,
    for_both,
    label_data,
    noisy,
    problem,
    weights,
)

# Keeps the targets, and does not move them.
AT_THE_START: dict[str, Any] = {
    "hidden_layer_sizes": (6,),
    "learning_rate_init": 1e-300,
    "max_iter": 1,
    "warm_start": True,
    "random_state": 0,
}


# A handful of rows, all of which are learnt, take few epochs; in many more, rounding
# would grow.
GOING_ON = re.compile(
    r"Going on from epoch \d+ with all 400 rows, those held out among them\."
)
SOON: dict[str, Any] = {"random_state": 0, "early_stopping": False}
FEW_EPOCHS: dict[str, Any] = SOON | {"max_iter": 20}


class Course(Callback):
    """Records step sizes, sizes of mini-batches and errors of validation rows."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.rates: list[float] = []
        self.sizes: list[int] = []
        self.errors: list[float] = []

    def on_batch_begin(self, net: Any, batch: Any, training: bool, **_: Any) -> None:
        if training:
            self.rates.append(net.optimizer_.param_groups[-1]["lr"])
            self.sizes.append(len(batch[0]))

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.errors.append(net.history[-1].get("valid_error"))


def rows_of(X: Any, rows: Any) -> list[int]:
    """Find rows of X by their values."""
    return [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in rows]


# --- Where training starts ------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("size", ["auto", 40, None])
def test_classes_start_from_their_labels(n_classes: int, size: Any) -> None:
    X, y = class_data(n_classes)
    estimator = TargetSpaceClassifier(**AT_THE_START, fixed_batch_size=size)
    fit_quietly(estimator, X, y)
    truth = np.eye(n_classes)[y[rows_of(X, estimator.fixed_batch_)]]
    np.testing.assert_allclose(
        estimator.targets_[-1], 4 * (truth - 1 / n_classes), rtol=1e-12
    )


@pytest.mark.parametrize("n_outputs", [None, 2])
def test_numbers_start_from_themselves(n_outputs: int | None) -> None:
    X, y = curve_data(n_outputs)
    estimator = TargetSpaceRegressor(**AT_THE_START, fixed_batch_size=40)
    fit_quietly(estimator, X, 50 * y - 7)
    truth = (50 * y - 7)[rows_of(X, estimator.fixed_batch_)].reshape(40, -1)
    np.testing.assert_allclose(
        estimator._last_targets,
        (truth - (50 * y - 7).mean(axis=0)) / (50 * y).std(axis=0),
        rtol=1e-12,
    )


@for_both
def test_normal_targets_are_drawn_at_their_scale(kind: type) -> None:
    X, y = problem(kind)
    settings = AT_THE_START | {"target_init": "normal", "project_targets": False}
    small, large = (
        fit_quietly(kind(**settings, target_scale=scale), X, y) for scale in (0.5, 1.0)
    )
    drawn = ([*e.targets_[:-1], e._last_targets] for e in (small, large))
    for a, b in zip(*drawn, strict=True):
        np.testing.assert_allclose(b, 2 * a)
        assert np.abs(b).max() <= 2
        # Cut off at 2σ, the deviation is 0.88 σ.
        assert b.std() == pytest.approx(0.88, rel=0.1)


@for_both
def test_projected_targets_are_the_sums_they_lead_to(kind: type) -> None:
    X, y = problem(kind)
    settings = AT_THE_START | {"hidden_layer_sizes": (6, 5), "activation": "tanh"}
    settings |= {"target_init": "normal", "lam": 1e-9}
    missed = {}
    for project in (True, False):
        estimator = fit_quietly(kind(**settings, project_targets=project), X, y)
        h, missed[project] = estimator.fixed_batch_, []
        for stacked, targets in zip(
            weights(estimator), estimator.targets_, strict=True
        ):
            sums = h @ stacked[1:] + stacked[0]
            missed[project].append(
                np.linalg.norm(sums - targets) / np.linalg.norm(targets)
            )
            h = np.tanh(sums)
    assert max(missed[True]) < 1e-4
    assert min(missed[False]) > 0.5


OFFSETS: list[dict[str, Any]] = [
    {},
    {"parameterization": "weights"},
    {"solver": "lbfgs"},
    {"hidden_layer_sizes": (10,) * 5},
    {"learning_rate_init": 0.01, "batch_size": 20},
    {"early_stopping": True, "alpha": 0.1},
]


@pytest.mark.parametrize("settings", OFFSETS, ids=str)
@pytest.mark.parametrize("n_outputs", [None, 2])
def test_where_numbers_lie_does_not_matter(
    settings: dict[str, Any], n_outputs: int | None
) -> None:
    X, y = curve_data(n_outputs)
    near, far = (
        fit_quietly(TargetSpaceRegressor(**(FEW_EPOCHS | settings)), X, y + offset)
        for offset in (0, 2**20)
    )
    np.testing.assert_allclose(far.predict(X) - 2**20, near.predict(X), atol=1e-5)
    np.testing.assert_allclose(far.intercepts_[-1] - 2**20, near.intercepts_[-1], 1e-4)
    with torch.no_grad():
        sums = far.module_(torch.from_numpy(X)).numpy()
    np.testing.assert_array_equal(sums.reshape(y.shape), far.predict(X))


def test_training_goes_on_far_from_zero() -> None:
    X, y = curve_data(None)
    settings: dict[str, Any] = {"learning_rate_init": 0.01, "random_state": 0}
    whole = TargetSpaceRegressor(**settings, max_iter=20, tol=0)
    parts = TargetSpaceRegressor(**settings, max_iter=10, tol=0, warm_start=True)
    fit_quietly(whole, X, y + 1e6)
    fit_quietly(fit_quietly(parts, X, y + 1e6), X, y + 1e6)
    np.testing.assert_array_equal(parts.predict(X), whole.predict(X))


@pytest.mark.parametrize(("dtype", "deviation"), [("f4", 0.01), ("f8", 1e-10)])
def test_numbers_that_hardly_vary(dtype: str, deviation: float) -> None:
    X = np.random.default_rng(0).normal(size=(400, 3)).astype(dtype)
    y = 20000 + deviation * X[:, 0].astype(float)
    match = f"y varies by .* about (20000|19999).*float{8 * int(dtype[1])}.*subtract"
    with pytest.warns(UserWarning, match=match):
        model = TargetSpaceRegressor(random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    fit_quietly(model, X, 20000 + 2000 * deviation * X[:, 0])
    with pytest.warns(UserWarning, match="subtract"):
        TargetSpaceRegressor(random_state=0).fit(X, y.astype(dtype))


def test_rows_of_next_to_no_weight_lose_no_digits() -> None:
    X = np.random.default_rng(0).normal(size=(5, 1)).astype("f4")
    y, weight = np.array([1.0, 1, 1, 1, 0]), np.array([1.0, 1, 1, 1, 1e-12])
    # Warnings, such as one that y hardly varies, are errors.
    model = fit_quietly(TargetSpaceRegressor(), X, y, sample_weight=weight)
    np.testing.assert_allclose(model.predict(X[:4]), 1, atol=1e-3)


def test_constants_vary_by_no_rounding() -> None:
    X = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    y = np.column_stack([X[:, 0], np.full(2000, 0.1)]).astype(float)
    weight = np.random.default_rng(1).uniform(size=2000)
    model = TargetSpaceRegressor((5,), max_iter=3, random_state=0)
    for given in (None, weight):  # Warnings would be errors.
        found = fit_quietly(model, X, y, sample_weight=given).predict(X)
        np.testing.assert_allclose(found[:, 1], 0.1, rtol=1e-3)


def test_constant_numbers_are_met() -> None:
    X, _ = curve_data(None)
    constant = fit_quietly(
        TargetSpaceRegressor(random_state=0), X, np.full(len(X), 5e9)
    )
    np.testing.assert_allclose(constant.predict(X), 5e9, rtol=1e-12)


def test_labels_of_several_kinds_start_from_indicators() -> None:
    X, y = label_data()
    estimator = fit_quietly(TargetSpaceClassifier(**AT_THE_START), X, y)
    truth = y[rows_of(X, estimator.fixed_batch_)]
    np.testing.assert_allclose(estimator.targets_[-1], 4 * truth - 2, rtol=1e-12)


def test_repeated_rows_start_from_the_mean_of_their_labels() -> None:
    X, y = class_data()
    X, y = np.repeat(X[:30], 2, axis=0), np.tile([0, 1], 30)
    estimator = TargetSpaceClassifier(**AT_THE_START, fixed_batch_size=20)
    weight = np.tile([3.0, 1.0], 30)
    fit_quietly(estimator, X, y, sample_weight=weight)
    np.testing.assert_allclose(estimator.targets_[-1], [[1.0, -1.0]] * 20, rtol=1e-12)


def test_rows_that_hardly_count_start_from_what_the_others_say() -> None:
    X, y = class_data()
    weight = np.where(y == 1, 1e-6, 1.0)
    estimator = TargetSpaceClassifier(**AT_THE_START)
    fit_quietly(estimator, X, y, sample_weight=weight)
    others = y[rows_of(X, estimator.fixed_batch_)] == 1
    found = estimator.targets_[-1][others]
    np.testing.assert_allclose(found, [[2, -2]] * others.sum(), atol=0.01)
    plain = fit_quietly(TargetSpaceClassifier(**AT_THE_START), X, y)
    same = fit_quietly(TargetSpaceClassifier(**AT_THE_START), X, y, sample_weight=1 + y)
    np.testing.assert_allclose(
        np.sort(plain.targets_[-1], 0), np.sort(same.targets_[-1], 0), rtol=1e-12
    )


@for_both
@pytest.mark.parametrize("settings", [{"fixed_batch": "noise"}, {"module": True}])
def test_without_labels_outputs_start_from_weights(kind: type, settings: Any) -> None:
    X, y = problem(kind)
    if "module" in settings:
        from torch import nn

        settings = {"module": nn.Linear}
    estimator = fit_quietly(kind(**AT_THE_START, **settings), X, y)
    sums = np.hstack(
        [np.ones((len(estimator.fixed_batch_), 1)), estimator.fixed_batch_]
    )
    for W, b in zip(estimator.coefs_[:-1], estimator.intercepts_[:-1], strict=True):
        z = sums[:, 1:] @ W + b
        sums = np.hstack([sums[:, :1], np.where(z > 0, z, 0.2 * z)])
    # What weights can give: the sums lie in the span of what the layer reads.
    found, *_ = np.linalg.lstsq(sums, estimator.targets_[-1], rcond=None)
    np.testing.assert_allclose(sums @ found, estimator.targets_[-1], atol=0.2)


@for_both
def test_first_layer_starts_as_if_standardised(kind: type) -> None:
    X, y = problem(kind)
    scale, shift = 10.0 ** np.arange(-1, X.shape[1] - 1), np.arange(X.shape[1])
    plain = fit_quietly(kind(**AT_THE_START, fixed_batch_size=None), X, y)
    other = fit_quietly(
        kind(**AT_THE_START, fixed_batch_size=None), X * scale + shift, y
    )
    np.testing.assert_allclose(other.targets_[0], plain.targets_[0], rtol=1e-8)


@for_both
def test_constant_and_nearly_constant_columns(kind: type) -> None:
    X, y = problem(kind)
    X = np.hstack([X, np.full((len(X), 1), 1e3), 1e3 + 1e-6 * X[:, :1]])
    estimator = fit_quietly(kind(random_state=0), X, y)
    assert estimator.score(X, y) > 0.8


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "sgd"},
        {"parameterization": "weights"},
        {"hidden_layer_sizes": (10,) * 5},
        {"alpha": 1.0},
        {"early_stopping": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_outputs", [None, 2])
def test_units_of_y_do_not_matter(
    settings: dict[str, Any], n_outputs: int | None
) -> None:
    X, y = curve_data(n_outputs)
    settings = SOON | settings
    plain = fit_quietly(TargetSpaceRegressor(**settings), X, y)
    for unit in (1e6, 1e-6, 7.3, 1e4 ** np.linspace(1, -1, n_outputs or 1)):
        other = fit_quietly(TargetSpaceRegressor(**settings), X, unit * (y + 3))
        assert other.n_iter_ == plain.n_iter_
        np.testing.assert_allclose(
            other.predict(X) / unit - 3, plain.predict(X), atol=1e-9
        )


@pytest.mark.parametrize("unit", [1e-30, 1e-20, 1e15, 1e30])
def test_squares_of_y_may_leave_single_precision(unit: float) -> None:
    X, y = (a.astype(np.float32) for a in curve_data())
    plain = fit_quietly(TargetSpaceRegressor(**SOON), X, y)
    other = fit_quietly(TargetSpaceRegressor(**SOON), X, y * np.float32(unit))
    np.testing.assert_allclose(other.predict(X) / unit, plain.predict(X), atol=0.01)
    assert other.loss_ == pytest.approx(plain.loss_ * unit * unit, rel=0.1)


@pytest.mark.parametrize("space", ["targets", "weights"])
def test_outputs_of_all_units_are_learnt(space: str) -> None:
    X, y = curve_data(3)
    Y = y * [1e3, 1.0, 1e-5] + [0.0, 1e2, 0.0]
    Y = np.hstack([Y, np.full((len(Y), 1), 3.3)])
    estimator = TargetSpaceRegressor(
        parameterization=space, learning_rate_init=0.01, tol=0, random_state=0
    )
    found = fit_quietly(estimator, X, Y).predict(X)
    assert r2_score(Y[:, :3], found[:, :3], multioutput="raw_values").min() > 0.9
    exactly = 1e-6 if space == "targets" else 0.1
    np.testing.assert_allclose(found[:, 3], 3.3, rtol=exactly)


# --- The course of training -----------------------------------------------------------


@for_both
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_annealed_steps(kind: type, solver: str) -> None:
    X, y = problem(kind)
    course = Course()
    estimator = kind(
        (6,),
        solver=solver,
        learning_rate="annealed",
        learning_rate_init=0.02,
        batch_size=45,
        max_iter=8,
        callbacks=[course],
        random_state=0,
        warm_start=True,
        **ALL_EPOCHS,
    )
    # Two steps an epoch.
    expected = 0.01 * (1 + np.cos(np.pi * np.arange(16) / 16))
    for _ in range(2):  # Each fit anneals anew.
        fit_quietly(estimator, X, y)
        np.testing.assert_allclose(course.rates, expected, rtol=1e-12)
    fit_quietly(estimator.set_params(learning_rate="constant"), X, y)
    np.testing.assert_allclose(course.rates, 0.02)


@for_both
def test_defaults_take_all_rows_at_once_and_anneal(kind: type) -> None:
    X, y = problem(kind)
    course = Course()
    estimator = kind((6,), random_state=0, callbacks=[course], early_stopping=False)
    fit_quietly(estimator, X, y)
    assert set(course.sizes) == {90}
    numbers = kind is TargetSpaceRegressor
    horizon = 40 + 90 // 4 if numbers else 10 + 90 // 8
    assert estimator.n_iter_ <= horizon
    epochs = np.arange(estimator.n_iter_)
    expected = 0.05 * (1 + np.cos(np.pi * epochs / horizon))
    np.testing.assert_allclose(course.rates, expected, rtol=1e-12)
    assert estimator.lam_ == pytest.approx(32.0)


@for_both
def test_a_step_of_ones_own_keeps_training_plain(kind: type) -> None:
    X, y = (np.repeat(a, 3, axis=0) for a in problem(kind))
    course = Course()
    estimator = kind(
        (6,), learning_rate_init=0.01, max_iter=3, callbacks=[course], random_state=0
    )
    fit_quietly(estimator, X, y)
    assert set(course.rates) == {0.01}
    assert course.sizes == [200, 70] * 3
    assert estimator.validation_scores_ is None


@pytest.mark.parametrize(
    ("n_rows", "settings", "held_out"),
    [
        (29, {}, False),
        (30, {}, True),
        # Not learnt in the end, they would be lost.
        (60, {"max_iter": 4}, False),
        (199, {"learning_rate": "constant"}, False),
        (199, {"callbacks": [LRScheduler("StepLR", step_size=2)]}, False),
        (200, {"learning_rate": "constant"}, True),
        (200, {"early_stopping": False}, False),
        (199, {"early_stopping": True}, True),
        (200, {"warm_start": True}, False),
        (200, {"tol": 0.0}, False),
        (200, {"solver": "sgd"}, False),
        (200, {"parameterization": "weights"}, False),
        (199, {"fixed_batch_size": 50}, True),
        (199, {"batch_size": 50}, True),
        (200, {"fixed_batch_size": 180}, True),
        (200, {"fixed_batch_size": 181}, True),
        (200, {"fixed_batch_size": 200}, True),
        (200, {"fixed_batch_size": None}, True),
        (200, {"fixed_batch_size": 500, "fixed_batch": "noise"}, True),
    ],
)
def test_when_rows_are_held_out(n_rows: int, settings: Any, held_out: bool) -> None:
    X, y = (a[:n_rows] for a in class_data(2, 240))
    estimator = TargetSpaceClassifier((6,), **({"max_iter": 5} | settings))
    fit_quietly(estimator, X, y)
    assert (estimator.validation_scores_ is not None) == held_out


def test_a_fixed_batch_has_at_most_the_rows_that_are_left() -> None:
    X, y = class_data(2, 200)
    settings: Any = {"max_iter": 5, "early_stopping": True, "warm_start": True}
    estimator = TargetSpaceClassifier((6,), fixed_batch_size=190, **settings)
    assert len(fit_quietly(estimator, X, y).fixed_batch_) == 180
    with pytest.raises(ValueError, match=r"fixed_batch_size=201 .* rows, 200:"):
        TargetSpaceClassifier((6,), fixed_batch_size=201, **settings).fit(X, y)


@pytest.mark.parametrize("early_stopping", ["auto", True])
def test_the_only_row_of_a_class_is_learnt(early_stopping: Any) -> None:
    X, y = (np.repeat(a, 3, axis=0) for a in class_data())
    X += 0.01 * np.random.default_rng(0).normal(size=X.shape)
    X, y = np.vstack([X, X[:1] + 9]), np.append(y, 7)
    seen = SeesData()
    estimator = TargetSpaceClassifier(
        (6,), max_iter=3, random_state=0, early_stopping=early_stopping
    )
    fit_quietly(estimator.set_params(callbacks=[seen]), X, y)
    assert estimator.validation_scores_ is not None
    found = seen.train.y.numpy(), seen.valid.y.numpy()
    rare = len(estimator.classes_) - 1
    assert [(part == rare).sum() for part in found] == [1, 0]
    # The other classes are in proportion.
    shares = [np.bincount(part, minlength=4)[:rare] / len(part) for part in found]
    np.testing.assert_allclose(*shares, atol=0.02)


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
def test_more_classes_than_rows_to_hold_out() -> None:
    X = np.random.default_rng(0).normal(size=(240, 3))
    estimator = TargetSpaceClassifier((6,), max_iter=5, random_state=0)
    seen = SeesData()
    for n_classes in (60, 120, 200):
        y = np.arange(240) % n_classes
        fit_quietly(estimator.set_params(callbacks=[seen]), X, y)
        assert estimator.validation_scores_ is not None
        assert len(seen.valid.y) == 40
        assert len(np.unique(seen.train.y.numpy())) == n_classes
    # Of classes with a single row each, none can be held out.
    fit_quietly(estimator, X, np.arange(240))
    assert estimator.validation_scores_ is None


@for_both
@pytest.mark.parametrize("stage", ["without more", "before more"])
def test_squared_error_decides_which_state_is_kept(
    kind: type, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stage == "without more":
        monkeypatch.setattr(_noise_rules, "epochs_to_reserve", lambda *_: 0)
    else:
        monkeypatch.setattr(_noise_rules, "auto_last_epochs", lambda *_, **__: 0)
    X, y = noisy(kind)
    course, seen = Course(), SeesData()
    estimator = kind(random_state=0, callbacks=[course, seen])
    fit_quietly(estimator, X, y)
    best = int(np.argmin(course.errors))
    assert 0 < best < len(course.errors) - 1
    held_out = seen.valid.x.numpy()
    if kind is TargetSpaceClassifier:
        truth = np.eye(2)[seen.valid.y.numpy()]
        error = ((estimator.predict_proba(held_out) - truth) ** 2).sum(1).mean()
    else:
        error = 0.5 * ((estimator.predict(held_out) - seen.valid.y[:, 0].numpy()) ** 2)
        error = error.mean()
    # Targets for all rows lead back to the same weights, but for rounding.
    accuracy = 1e-9 if stage == "without more" else 1e-5
    assert error == pytest.approx(course.errors[best], rel=accuracy)


@for_both
def test_rows_held_out_are_learnt_in_the_end(kind: type) -> None:
    X, y = noisy(kind)
    course, seen = Course(), SeesData()
    # Any progress counts.
    estimator = kind(random_state=0, tol=1e-9, callbacks=[course, seen])
    fit_quietly(estimator, X, y)
    best = int(np.argmin(course.errors))
    searched = len(estimator.validation_scores_)
    assert searched == len(course.errors) < 160
    # Epochs are counted from 1.
    n_last = 10 + best + 1
    assert estimator.n_iter_ == len(estimator.loss_curve_) == searched + n_last
    assert estimator.t_ == searched * len(seen.train) + n_last * len(X)
    # Who asks for rows that the network has not seen keeps them.
    unseen = fit_quietly(kind(random_state=0, early_stopping=True), X, y)
    assert len(unseen.validation_scores_) == unseen.n_iter_
    held_out = rows_of(X, seen.valid.x.numpy())
    errors = [
        np.abs(model.predict(X[held_out]) - y[held_out]).mean()
        for model in (estimator, unseen)
    ]
    assert errors[0] < errors[1]


@for_both
def test_iterations_are_counted_through(
    kind: type, capsys: pytest.CaptureFixture[str]
) -> None:
    # With a weight decay of one's own there is one run, not two.
    estimator = kind(random_state=0, max_iter=20, verbose=True, alpha=0.01)
    fit_quietly(estimator, *noisy(kind))
    lines = capsys.readouterr().out.splitlines()
    numbers = [int(li.split()[1][:-1]) for li in lines if li.startswith("Iteration")]
    assert numbers == list(range(1, 21))
    assert GOING_ON.fullmatch(lines[-5])
    # Where another run is taken, its iterations and those on all rows are counted.
    estimator = fit_quietly(estimator.set_params(alpha="auto"), *noisy(kind))
    lines = capsys.readouterr().out.splitlines()
    tries = [k for k, li in enumerate(lines) if ": trying " in li]
    assert tries or kind is TargetSpaceRegressor
    runs = [lines[i:k] for i, k in zip([0, *tries], [*tries, len(lines)], strict=True)]
    for run in runs:
        found = [int(li.split()[1][:-1]) for li in run if li.startswith("Iteration")]
        in_order = [n for n in found if n <= 16]
        assert in_order == list(range(1, len(in_order) + 1))
    assert GOING_ON.fullmatch(lines[-5])
    last = [int(li.split()[1][:-1]) for li in lines[-4:]]
    assert last == list(range(estimator.n_iter_ - 3, estimator.n_iter_ + 1))


@for_both
def test_who_stops_training_stops_it_for_good(kind: type) -> None:
    estimator = kind(random_state=0, callbacks=[Leaves(7)])
    estimator.fit(*noisy(kind))
    assert estimator.n_iter_ == 7


@for_both
def test_no_more_than_max_iter(kind: type) -> None:
    course = Course()
    estimator = kind(random_state=0, max_iter=20, callbacks=[course])
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(20\)"):
        estimator.fit(*noisy(kind))
    assert len(course.rates) == 16
    assert course.rates[-1] < 0.05 * course.rates[0]  # annealed over these
    assert estimator.n_iter_ == 20


@for_both
def test_weights_are_repetitions_by_default(kind: type) -> None:
    X, y = problem(kind)
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    settings: dict[str, Any] = {
        "max_iter": 15,
        "random_state": 0,
        "alpha": 0.0,
        "early_stopping": False,
    }
    weighted = fit_quietly(kind((6,), **settings), X, y, sample_weight=weight)
    many_X, many_y = np.repeat(X, weight, axis=0), np.repeat(y, weight)
    order = np.random.default_rng(1).permutation(len(many_y))
    assert len(order) < 200
    repeated = fit_quietly(kind((6,), **settings), many_X[order], many_y[order])
    assert_same_weights(weighted, repeated, atol=1e-8)


@for_both
@pytest.mark.parametrize("sizes", [(6,), (6, 6, 6)])
def test_weights_of_a_handful_of_rows_are_repetitions(
    kind: type, sizes: tuple[int, ...]
) -> None:
    X, y = (a[:20] for a in problem(kind))
    weighted, repeated = (kind(sizes, random_state=0) for _ in range(2))
    fit_quietly(weighted, X, y, sample_weight=np.full(20, 2.0))
    fit_quietly(repeated, np.repeat(X, 2, axis=0), np.repeat(y, 2, axis=0))
    assert weighted.n_iter_ == repeated.n_iter_
    assert weighted.lam_ == repeated.lam_
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-4)


@for_both
def test_few_distinct_rows_are_learnt_as_many(kind: type) -> None:
    digits = np.random.default_rng(0).integers(0, 4, (2000, 2)).astype(float)
    y = digits @ [3, 5] % 4
    seen = []
    for X in (digits, digits + 0.01 * np.random.default_rng(1).normal(size=(2000, 2))):
        estimator = fit_quietly(kind(random_state=0), X, y)
        assert estimator.score(X, y) > 0.99
        seen.append(estimator.n_iter_)
    assert len(np.unique(digits, axis=0)) == 16
    assert seen[0] > 40  # not 20 + 16 / 8


# --- The rules ------------------------------------------------------------------------


def test_lam_grows_with_rows_and_shrinks_with_depth() -> None:
    assert _rules.auto_lam(1000, 2) == pytest.approx(100)
    assert _rules.auto_lam(10, 2) == _rules.auto_lam(320, 2) == pytest.approx(32)
    assert _rules.auto_lam(1000, 1) == _rules.auto_lam(1000, 2)
    assert _rules.auto_lam(1000, 20) == pytest.approx(10)
    # A handful of rows may be trusted if each stands for many.
    assert _rules.auto_lam(10, 2, 20) == _rules.auto_lam(10, 2)
    assert _rules.auto_lam(10, 2, 640) == pytest.approx(2)
    assert _rules.auto_lam(10, 2, 1280) == _rules.auto_lam(10, 2, 9000) == 1
    # Few columns bear less, those of most tables all of it.
    lams = [_rules.auto_lam(1000, 2, n_columns=d) for d in (1, 2, 3, 4, 50)]
    assert lams == pytest.approx([100 / 64, 12.5, 100, 100, 100])


def test_lam_of_classes_is_larger() -> None:
    rule = _rules.auto_lam_of_classes
    assert [rule(n, by_lbfgs=False) for n in (100, 300, 400, 9000)] == [1, 1.5, 2, 2]
    assert rule(100, by_lbfgs=True) == rule(9000, by_lbfgs=True) == 15


def two_layers(n: int, k: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(n, 6), torch.nn.Linear(6, k))


@pytest.mark.parametrize(
    ("kind", "columns", "settings", "times"),
    [
        (TargetSpaceClassifier, 3, {}, 2),
        (TargetSpaceClassifier, 3, {"solver": "lbfgs"}, 2),
        (TargetSpaceClassifier, 2, {}, 1),
        (TargetSpaceClassifier, 3, {"hidden_layer_sizes": (6, 6)}, 1),
        (TargetSpaceClassifier, 3, {"hidden_layer_sizes": ()}, 1),
        (TargetSpaceClassifier, 3, {"module": two_layers}, 1),
        (TargetSpaceRegressor, 3, {}, 1),
    ],
)
def test_whose_lam_is_larger(
    kind: type, columns: int, settings: dict[str, Any], times: float
) -> None:
    X = np.random.default_rng(0).normal(size=(500, columns))
    model = kind(**{"hidden_layer_sizes": (6,)} | settings, max_iter=1, random_state=0)
    fit_quietly(model.set_params(early_stopping=False), X, (X[:, 0] > 0) * 1.0)
    layers = 3 if settings.get("hidden_layer_sizes") else 2
    plain = _rules.auto_lam(500, layers, n_columns=columns)
    assert model.lam_ == pytest.approx(times * plain)


def test_large_tables_are_learnt_in_parts() -> None:
    most = _rules.MOST_AT_ONCE
    assert _rules.auto_table_batch_size(most, most) == most
    assert _rules.auto_table_fixed_batch_size(most, most, 100) == most
    assert _rules.auto_table_batch_size(most + 1, most + 1) == 1667  # of 6, not 1 left
    assert _rules.auto_table_batch_size(most, most + 1) == 2000
    assert _rules.auto_table_fixed_batch_size(most + 1, most + 1, 100) == 4000
    assert _rules.auto_table_fixed_batch_size(most, most + 1, 100) == 4000
    assert _rules.auto_table_fixed_batch_size(most + 1, most + 1, 3000) == 6000


def test_few_steps_on_images_are_larger() -> None:
    rates = [_rules.auto_annealed_image_rate(n) for n in (1, 100, 250, 1000, 10_000)]
    assert rates == pytest.approx([0.3, 0.3, 0.2, 0.1, 0.1])


@for_both
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16, 24])
def test_no_depth_collapses(kind: type, depth: int) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind((24,) * depth, random_state=0), X, y)
    assert estimator.score(X, y) > 0.9
    assert np.isfinite(estimator.predict(X)).all()


@for_both
def test_activation_goes_by_depth(kind: type) -> None:
    X, y = problem(kind)
    most = 2 if kind is TargetSpaceClassifier else 1
    for depth, expected in [(1, "LeakyReLU"), (most, "LeakyReLU"), (most + 1, "Tanh")]:
        module = fit_quietly(kind((3,) * depth, max_iter=1), X, y).module_
        assert type(module.activation).__name__ == expected
    images = kind((3,) * 3, conv_layers=[(1, 2, 1)], image_shape=(1, 2, 2), max_iter=1)
    module = fit_quietly(images, np.resize(X, (len(X), 4)), y).module_
    assert "LeakyReLU" in {type(part).__name__ for part in module.modules()}


@for_both
def test_a_course_that_ends_as_planned_does_so_without_a_warning(kind: type) -> None:
    X, y = problem(kind)
    assert kind((6,), random_state=0).fit(X, y).n_iter_ > 100
    soon = kind((6,), random_state=0, early_stopping=False).fit(X, y)
    assert soon.n_iter_ < 100
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(5\)"):
        kind((6,), max_iter=5).fit(X, y)
