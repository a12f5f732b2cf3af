"""The course of training: when it ends, at which rate, and with which state."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochTimer
from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from sktarget.training import (
    CRITERIA,
    Continuation,
    DivergenceError,
    Objective,
    Reason,
    TensorData,
    TrainingLog,
    TrainingSettings,
    _train,
    state_to_numpy,
    state_to_torch,
    train,
)
from sktarget.training._monitor import Monitor
from sktarget.training._snapshot import Snapshot
from tests.helpers import assert_all_close, normal, perceptron, seeded

ROWS = 20
NEVER = -math.inf  # As tol: every epoch is an improvement.


def settings(**changes: Any) -> TrainingSettings:
    defaults: dict[str, Any] = {
        "solver": "sgd",
        "learning_rate_init": 0.5,
        "learning_rate": "constant",
        "power_t": 0.5,
        "momentum": 0.0,
        "nesterovs_momentum": True,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "alpha": 0.0,
        "batch_size": ROWS,
        "shuffle": True,
        "max_iter": 100,
        "max_fun": 100,
        "tol": 0.0,
        "n_iter_no_change": 2,
        "verbose": False,
        "describe": "lam=0.5, learning_rate_init=7",
    }
    return TrainingSettings(**{**defaults, **changes})


class Counter(nn.Module):
    """Its one number falls by the learning rate with every step."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.number.expand(len(x), 1)


class Script:
    """A loss of given values, whatever the network does."""

    def __init__(self, values: Iterable[float]) -> None:
        self.values: Iterator[float] = iter(values)

    def __call__(self, sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        mean = sums.mean()
        return mean - mean.detach() + next(self.values)


class Rates(Callback):  # type: ignore[misc]
    """Notes the learning rate of every epoch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        self.seen.append(net.optimizer_.param_groups[0]["lr"])


class Course:
    """A scripted run, and what it leaves behind."""

    def __init__(
        self,
        losses: Iterable[float],
        scores: Iterable[float] | None = None,
        resumable: bool = False,
        **changes: Any,
    ) -> None:
        self.log, self.module = TrainingLog(), Counter()
        data = TensorData(torch.zeros(ROWS, 1), torch.zeros(ROWS, 1))
        given = None if scores is None else iter(scores)
        self.ending = train(
            self.module,
            data,
            None if given is None else data,
            settings(**changes),
            Objective(loss=Script(losses), score=lambda *_: next(given)),
            log=self.log,
            generator=None,
            resumable=resumable,
        )
        self.ending.warn()

    @property
    def number(self) -> float:
        return self.module.number.item()


# --- The end --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "tol", "epochs"),
    [
        ([5, 3, 4, 4, 4, 9], 0.0, 5),
        ([5, 4, 4, 4, 4, 5, 5, 5, 9], 0.0, 8),  # An equal loss is no worse.
        ([5, 4, 3.95, 3.9, 3.85, 9], 0.5, 5),
        ([5, 4, 3.8, 3.6, 3.0, 2.9, 2.8, 2.7, 9], 0.5, 8),
    ],
)
def test_training_ends_without_progress(
    losses: list[float], tol: float, epochs: int
) -> None:
    course = Course(losses, tol=tol)
    assert course.log.loss_curve == losses[:epochs]
    assert course.log.best_loss == min(losses[:epochs])
    assert course.log.n_samples_seen == ROWS * epochs


def test_reaching_max_iter_warns() -> None:
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\) reached"):
        assert len(Course([3, 2, 1], max_iter=3).log.loss_curve) == 3
    incremental = Course([3], max_iter=1, warns_at_end=False)  # Warnings are errors.
    assert incremental.log.loss_curve == [3]


def test_progress_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Course([1, 2, 2, 2], verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Iteration 1, loss = 1.00000000"
    assert lines[-1].endswith("for 2 consecutive epochs. Stopping.")


# --- Learning rates -------------------------------------------------------------------


def mlp(**parameters: Any) -> MLPClassifier:
    rows = np.random.default_rng(0).normal(size=(ROWS, 2))
    model = MLPClassifier((2,), solver="sgd", batch_size=ROWS, **parameters)
    return model.fit(rows, rows[:, 0] > 0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_invscaling_is_that_of_the_mlp() -> None:
    shared = {"learning_rate": "invscaling", "power_t": 0.3, "max_iter": 4}
    rates = Rates()
    Course(range(9, 0, -1), callbacks=[rates], **shared)
    assert rates.seen[0] == 0.5
    for epochs in (1, 2, 3):
        model = mlp(learning_rate_init=0.5, **{**shared, "max_iter": epochs})
        expected = model._optimizer.learning_rate
        assert rates.seen[epochs] == pytest.approx(expected, rel=1e-12)


def test_adaptive_rate_is_that_of_the_mlp() -> None:
    shared = {"learning_rate": "adaptive", "tol": 100.0, "n_iter_no_change": 2}
    model = mlp(learning_rate_init=1e-4, max_iter=100, **shared)
    rates = Rates()
    course = Course([1] * 100, callbacks=[rates], learning_rate_init=1e-4, **shared)
    assert len(course.log.loss_curve) == model.n_iter_
    assert rates.seen[-1] == pytest.approx(model._optimizer.learning_rate)
    assert sorted(set(rates.seen)) == pytest.approx([8e-7, 4e-6, 2e-5, 1e-4])


@pytest.mark.parametrize("schedule", ["invscaling", "adaptive"])
def test_schedules_are_for_sgd(schedule: str) -> None:
    rates = Rates()
    Course([1, 2, 2, 2], callbacks=[rates], solver="adam", learning_rate=schedule)
    assert rates.seen == [0.5] * 4


# --- The best state -------------------------------------------------------------------


def test_best_score_is_restored() -> None:
    # Of an epoch, the loss of training comes first, then that of validation.
    losses = [5, 6, 4, 7, 3, 8, 2, 9, 1, 9, 1, 9, 1, 9]
    scores = [0.1, 0.3, 0.9, 0.9, 0.2, 0.5, 0.8]
    course = Course(losses, scores)
    assert course.log.validation_scores == scores
    assert course.log.loss_curve == losses[::2]
    assert course.log.validation_losses == losses[1::2]
    assert course.number == pytest.approx(-3 * 0.5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("losses", "changes", "steps"),
    [
        ([4, 2, 1, 3], {}, 2),
        ([4, 2, 1, 1], {}, 4),  # No worse than the best: one step further than that.
        ([4, 3, 2, 1], {}, 4),
        ([4, 2, 1, 3], {"resumable": True}, 4),
        ([4, 4, 2, 2, 1, 1, 3, 3], {"batch_size": ROWS // 2}, 8),
    ],
)
def test_steps_of_all_rows_end_with_the_smallest_loss(
    losses: list[float], changes: dict[str, Any], steps: int
) -> None:
    course = Course(losses, max_iter=4, **changes)
    assert len(course.log.loss_curve) == 4
    assert course.number == pytest.approx(-0.5 * steps)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("losses", "is_natural"),
    [([3, 2, 1], True), ([1, 2, 2, 2], True), ([1, 2, math.nan], False)],
)
def test_runs_know_whether_they_were_left_to_themselves(
    losses: list[float], is_natural: bool
) -> None:
    course = Course(losses, max_iter=len(losses))
    assert course.ending.is_natural == is_natural


class Pair(NamedTuple):
    first: int
    second: Tensor


def test_states_may_be_named_tuples_and_narrow() -> None:
    there = state_to_numpy(Pair(1, torch.ones(2, dtype=torch.bfloat16)))
    assert there.second.dtype == np.float32
    back = state_to_torch(there)
    assert isinstance(back, Pair)
    assert torch.equal(back.second, torch.ones(2))


@pytest.mark.parametrize(
    ("losses", "learnt"),
    [([2.0, 1.0, 1.0], 0.9), ([40.0, 20.0, 20.0], 0.5)],
    ids=["of the same data", "of harder data"],
)
def test_what_a_later_fit_has_learnt(losses: list[float], learnt: float) -> None:
    log = TrainingLog([10.0, 2.0])
    assert log.learnt_by(2) == pytest.approx(0.4)
    log.begin_fit()
    assert log.learnt_by(2) == pytest.approx(0.4)
    log.loss_curve += losses
    assert log.learnt_by(5) == pytest.approx(learnt)


def test_the_best_state_has_persistent_buffers_of_any_shape() -> None:
    module = nn.BatchNorm1d(2)
    module.register_buffer("seen", torch.zeros(1, 1))
    module.register_buffer("cache", torch.zeros(3), persistent=False)
    kept = Snapshot.of(module)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor += 1
    kept.restore()
    assert module.running_mean.sum() == module.seen == module.bias.sum() == 0
    assert module.cache.sum() == 3


def test_the_best_state_leaves_the_fixed_batch_out() -> None:
    net = TargetSpace(nn.Linear(2, 1), torch.zeros(4, 2))
    shapes = [t.shape for t in Snapshot.of(net).tensors]
    assert shapes == [p.shape for p in net.parameters()]


class Ends(Callback):  # type: ignore[misc]
    def on_epoch_end(self, net: Any, **_: Any) -> None:
        raise KeyboardInterrupt


def test_runs_that_a_callback_ends_were_not() -> None:
    assert not Course([3, 2, 1], callbacks=[Ends()]).ending.is_natural


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_restores_the_best_state(value: float) -> None:
    message = r"not finite in epoch 4 \(lam=0.5, learning_rate_init=7\)"
    with pytest.warns(ConvergenceWarning, match=message) as record:
        course = Course([2, 1, 1.5, value], tol=NEVER)
    assert len(record) == 1
    assert course.log.loss_curve == [2, 1, 1.5]
    # The loss of the second epoch is that of the state after one step.
    assert course.number == pytest.approx(-0.5)


def test_divergence_with_validation_restores_the_best_score() -> None:
    with pytest.warns(ConvergenceWarning, match="not finite in epoch 3"):
        course = Course([2, 2, 1, 1, math.nan, 1], [0.5, 0.4, 0.3], tol=NEVER)
    assert course.number == pytest.approx(-0.5)
    assert course.log.validation_scores == [0.5, 0.4]


def test_divergence_in_the_first_epoch() -> None:
    message = r"not finite in epoch 1 \(lam=0.5, .*\). Lower learning_rate_init"
    with pytest.raises(DivergenceError, match=message):
        Course([math.nan])


def test_divergence_that_a_solve_meets_first() -> None:
    net = TargetSpace(perceptron(act=nn.ReLU(), dtype=torch.float32), DATA.x)
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        run(net, solver="sgd", learning_rate_init=1e4, tol=NEVER)
    assert all(p.isfinite().all() for p in net.parameters())


class Asks(Callback):  # type: ignore[misc]
    """Wants to know more after every epoch."""

    def __init__(self, ask: Any = None) -> None:
        self.ask = ask or (lambda net: net.predict(DATA))

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.ask(net)


def test_divergence_that_a_callback_meets_first() -> None:
    net = TargetSpace(perceptron(act=nn.ReLU(), dtype=torch.float32), DATA.x)
    with pytest.warns(ConvergenceWarning, match="not finite after epoch 1 .* failed"):
        run(net, solver="sgd", learning_rate_init=1e30, tol=NEVER, callbacks=[Asks()])
    assert all(p.isfinite().all() for p in net.parameters())
    assert net.eval()(DATA.x).isfinite().all()


def test_divergence_that_a_score_of_a_callback_meets_first() -> None:
    def score(net: Any) -> None:
        if not np.isfinite(net.predict(DATA)).all():
            raise ValueError("Input contains NaN.")

    net = perceptron(act=nn.ReLU(), dtype=torch.float32)
    with pytest.warns(ConvergenceWarning, match="not finite after epoch 1 "):
        run(
            net,
            solver="sgd",
            learning_rate_init=1e39,
            tol=NEVER,
            callbacks=[Asks(score)],
        )
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", [FactorisationError, ValueError])
def test_failures_of_a_callback_are_no_divergence(kind: Any) -> None:
    def fails(_: Any) -> None:
        raise kind("of its own")

    net = TargetSpace(perceptron(dtype=torch.float32), DATA.x)
    with pytest.raises(kind, match="of its own"):
        run(net, callbacks=[Asks(fails)])


class Cliff(nn.Module):
    """Its loss is that of one number, up to where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1, 1))
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(self.number.item())
        lost = self.number > 0.5
        return torch.where(lost, math.nan, 10 * self.number).expand(len(x), 1)


class Fails(Cliff):
    def forward(self, x: Tensor) -> Tensor:
        if self.number > 0.5:
            self.seen.append(self.number.item())
            raise FactorisationError("no factor")
        return super().forward(x)


@pytest.mark.parametrize("kind", [Cliff, Fails])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_line_searches_turn_back_where_there_is_no_loss(kind: Any) -> None:
    cliff = kind()
    data = TensorData(torch.zeros(ROWS, 1), torch.full((ROWS, 1), 1.4))
    run(cliff, data=data, solver="lbfgs", max_iter=5)
    assert max(cliff.seen) > 0.5
    assert len(cliff.seen) < 50
    assert cliff.number.item() == pytest.approx(0.14, abs=1e-3)


def test_interrupt_keeps_the_state() -> None:
    def losses() -> Iterator[float]:
        yield from [3, 2, 1]
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 3 epochs; the state so"):
        course = Course(losses())
    assert course.log.loss_curve == [3, 2, 1]
    assert course.number == pytest.approx(-1.5)


def test_interrupts_count_the_epochs_before() -> None:
    class Leaves(Callback):  # type: ignore[misc]
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            if len(log.loss_curve) == 2:
                raise KeyboardInterrupt

    log = TrainingLog(epochs_before=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_train, "is_of_user", lambda _: False)
        with pytest.warns(UserWarning, match="interrupted after 82 epochs"):
            run(nn.Linear(3, 2), log=log, callbacks=(Leaves(),))


@pytest.mark.parametrize("given", [EpochTimer(), ("named", EpochTimer())])
def test_interrupts_are_told_from_callbacks_that_stop(given: Any) -> None:
    def losses() -> Iterator[float]:
        yield from [3, 2, 1]
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 3 epochs; the state so"):
        course = Course(losses(), callbacks=[given])
    assert course.ending.reason is Reason.INTERRUPTED
    assert course.log.loss_curve == [3, 2, 1]


class EndsBatch(Callback):  # type: ignore[misc]
    def on_batch_end(self, net: Any, **_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "stops",
    [
        Ends(),
        ("named", Ends()),
        EndsBatch(),
        EarlyStopping("train_loss", patience=1, threshold=9.0, sink=lambda _: None),
    ],
)
def test_callbacks_stop_without_a_warning(stops: Any) -> None:
    course = Course([3, 2, 1], callbacks=[EpochTimer(), stops])
    assert course.ending.reason is Reason.ASKED_TO


def test_callbacks_cannot_end_what_has_ended() -> None:
    class EndsLate(Callback):  # type: ignore[misc]
        def on_epoch_end(self, net: Any, **_: Any) -> None:
            if len(net.history) == 4:
                raise KeyboardInterrupt

    course = Course([3, 2, 4, 4, 1], n_iter_no_change=1, callbacks=[EndsLate()])
    assert course.log.loss_curve == [3, 2, 4, 4]
    assert course.ending.reason is Reason.NO_PROGRESS


def test_interrupts_amid_callbacks_of_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rings(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Monitor, "on_epoch_begin", rings)
    with pytest.warns(UserWarning, match="interrupted after 0 epochs; the state so"):
        assert Course([1], callbacks=[EpochTimer()]).ending.reason is Reason.INTERRUPTED


# --- Real networks --------------------------------------------------------------------

DATA = TensorData(
    normal(ROWS, 3, dtype=torch.float32), normal(ROWS, 2, seed=1, dtype=torch.float32)
)


def run(
    module: nn.Module,
    *,
    log: TrainingLog | None = None,
    generator: torch.Generator | None = None,
    before: Continuation | None = None,
    data: TensorData = DATA,
    **changes: Any,
) -> Continuation | None:
    ending = train(
        module,
        data,
        None,
        settings(**{"solver": "adam", "learning_rate_init": 0.01, **changes}),
        Objective(loss=CRITERIA["squared_error"].loss, score=lambda *_: 0.0),
        log=TrainingLog() if log is None else log,
        generator=generator or torch.Generator().manual_seed(0),
        before=before,
        resumable=True,
    )
    ending.warn()
    return ending.continuation


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("space", ["targets", "weights"])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "adam", "batch_size": 6},
        {"solver": "adam"},
        {"solver": "sgd", "momentum": 0.9, "batch_size": 6},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"solver": "lbfgs"},
    ],
    ids=["adam", "full batch", "momentum", "invscaling", "lbfgs"],
)
def test_twice_five_epochs_are_ten(options: dict[str, Any], space: str) -> None:
    results = []
    for parts in ([10], [5, 5]):
        module: nn.Module = perceptron(dtype=torch.float32)
        if space == "targets":
            module = TargetSpace(module, DATA.x, 0.1)
        log, state = TrainingLog(), None
        generator = torch.Generator().manual_seed(0)
        for epochs in parts:
            state = run(
                module,
                log=log,
                generator=generator,
                before=copy.deepcopy(state),
                max_iter=epochs,
                tol=NEVER,
                **options,
            )
        results.append((log, list(module.parameters())))
    (log, parameters), (log_again, parameters_again) = results
    assert (log.epochs_of_earlier_runs, log.epochs_of_run) == (0, 10)
    assert (log_again.epochs_of_earlier_runs, log_again.epochs_of_run) == (5, 5)
    assert replace(log_again, epochs_of_earlier_runs=0) == log
    assert log.loss_curve[-1] < log.loss_curve[0]
    assert_all_close(parameters_again, parameters, 0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("space", ["targets", "weights"])
def test_penalty_counts_what_no_solve_gives(space: str) -> None:
    class Mixed(nn.Module):
        """Layers of all kinds: linear by itself or not, and not linear at all."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.both = nn.Bilinear(4, 4, 2)
            self.norm = nn.LayerNorm((1, 4))
            self.words = nn.Embedding(5, 4)

        def forward(self, x: Tensor) -> Any:
            h = self.norm(self.first(x)[:, None])[:, 0] + self.words.weight[0]
            return self.both(h, h)

    plain = seeded(Mixed())
    net = plain
    if space == "targets":
        with pytest.warns(UserWarning, match=r"keep their weights.*both \(Bilinear, "):
            net = TargetSpace(plain, DATA.x, 1e-6)
    weights = plain.first.weight, plain.both.weight
    penalty = sum(w.square().sum().item() for w in weights)
    losses = []
    for alpha in (0.0, 3.0):
        log = TrainingLog()
        run(copy.deepcopy(net), log=log, max_iter=1, alpha=alpha)
        losses += log.loss_curve
    expected = pytest.approx(0.5 * 3.0 * penalty / ROWS, rel=1e-4)
    assert losses[1] - losses[0] == expected


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("space", ["targets", "weights"])
@pytest.mark.parametrize("mean_weight", [1.0, 2.5])
def test_penalty_counts_weights_and_no_biases(space: str, mean_weight: float) -> None:
    plain = perceptron(dtype=torch.float32)
    with torch.no_grad():
        plain[0].bias += 5
    net = TargetSpace(plain, DATA.x, 0.1) if space == "targets" else plain
    realised = net.realise() if isinstance(net, TargetSpace) else copy.deepcopy(net)
    penalty = sum(realised[k].weight.square().sum().item() for k in (0, 2))
    data = TensorData(DATA.x, DATA.y, mean_weight=mean_weight)
    log = TrainingLog()
    run(net, log=log, data=data, max_iter=1, alpha=3.0)
    expected = CRITERIA["squared_error"].loss(realised(DATA.x), DATA.y, None).item()
    expected += 0.5 * 3.0 * penalty / (ROWS * mean_weight)
    assert log.loss_curve == pytest.approx([expected], rel=1e-5)
