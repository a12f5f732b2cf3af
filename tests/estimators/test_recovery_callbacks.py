"""Fits with skorch callbacks that go on from a checkpoint."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    Freezer,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    TrainEndCheckpoint,
)

from sktarget import TargetSpaceClassifier
from tests.estimators.support import (
    ALL_EPOCHS,
    Dies,
    assert_same_weights,
    class_data,
    fit_quietly,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6,),
    "batch_size": 30,
    "max_iter": 9,
    "random_state": 0,
    **ALL_EPOCHS,
}


class Watches(Callback):
    """Records what a run looks like to its callbacks, epoch by epoch."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        group = net.optimizer_.param_groups[0]
        row = net.history[-1]
        self.seen.append(
            (row["epoch"], group["lr"], group.get("betas"), row["train_loss"])
        )


class Perturbs(Callback):
    """Adds what it has counted to the first targets; holds a tensor and an array."""

    def __init__(self, scale: float = 1e-3) -> None:
        self.scale = scale
        self.counted = {"epochs": 0}
        self.mean, self.sum = torch.zeros(2), np.zeros(2)

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.counted["epochs"] += 1
        self.sum += net.history[-1]["train_loss"]
        self.mean = torch.from_numpy(self.sum) / self.counted["epochs"]
        with torch.no_grad():
            next(net.module_.parameters()).add_(self.scale * float(self.mean[0]))


class KeepsItself(Perturbs):
    """The same, behind a state that only it knows to read."""

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.counted["epochs"], "sum": self.sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counted, self.sum = {"epochs": state["n"]}, state["sum"]


class Hides(Perturbs):
    """The same, counting in an object whose state nobody can read."""

    def __init__(self, scale: float = 1e-3) -> None:
        super().__init__(scale)
        self.hidden = iter(range(100))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.counted["epochs"] = next(self.hidden)
        super().on_epoch_end(net, **kwargs)


class Defaults(Perturbs):
    """The same, counting in a dict that makes up what it lacks."""

    def __init__(self, scale: float = 1e-3) -> None:
        super().__init__(scale)
        self.met: defaultdict[int, int] = defaultdict(int)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.met[len(net.history)] += 1
        super().on_epoch_end(net, **kwargs)


class Collects(Callback):
    """Keeps the numbers of the epochs in whatever is plain enough."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.met: frozenset[frozenset[int]] = frozenset()
        self.backwards: OrderedDict[int, Counter[int]] = OrderedDict()

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        epoch = len(net.history)
        self.seen.add(epoch)
        self.met |= {frozenset({epoch})}
        self.backwards[epoch] = Counter({epoch: 1})
        self.backwards.move_to_end(epoch, last=False)


class MakesLate(Callback):
    """Makes its schedule when it is first needed."""

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        if not hasattr(self, "schedule"):
            self.schedule = torch.optim.lr_scheduler.StepLR(net.optimizer_, 1, 0.9)

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.schedule.step()


class DropsSoon(Callback):
    """Has a schedule for two epochs."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.schedule: Any = torch.optim.lr_scheduler.LambdaLR(
            net.optimizer_, lambda epoch: 0.5**epoch
        )

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        if self.schedule is not None:
            self.schedule.step()
        if len(net.history) == 2:
            self.schedule = None


def fit(path: Path | None, *callbacks: Callback, **more: Any) -> Any:
    settings = SMALL | {"callbacks": list(callbacks), "checkpoint": path} | more
    return fit_quietly(TargetSpaceClassifier(**settings), *class_data())


def die(path: Path, epoch: int, *callbacks: Callback, **more: Any) -> None:
    with pytest.raises(MemoryError):
        fit(path, *callbacks, Dies(epoch), **more)


schedule = partial(partial, LRScheduler)
MAKERS: dict[str, Callable[[], Callback]] = {
    "one cycle": schedule(
        policy=torch.optim.lr_scheduler.OneCycleLR,
        step_every="batch",
        max_lr=0.05,
        total_steps=30,
    ),
    "milestones": schedule(
        policy=torch.optim.lr_scheduler.MultiStepLR, milestones=[2, 5, 7], gamma=0.3
    ),
    "by a function": schedule(
        policy=torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.8**epoch
    ),
    "plateau": schedule(
        policy="ReduceLROnPlateau", monitor="train_loss", patience=1, threshold=0.2
    ),
    "warm restarts": schedule(policy="WarmRestartLR", base_period=3),
    "freezer": partial(Freezer, "*0.targets", at=2),
    "counter": Perturbs,
    "own state": KeepsItself,
    "for two epochs": DropsSoon,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_callbacks_go_on(name: str, solver: str, tmp_path: Path) -> None:
    make, path = MAKERS[name], tmp_path / "run"
    watches = Watches()
    undisturbed = fit(None, make(), watches, solver=solver)
    # It does something, and something else when it begins anew.
    assert undisturbed.loss_curve_ != fit(None, solver=solver).loss_curve_
    for epoch in (4, 1, 3):
        die(path, epoch, make(), Watches(), solver=solver)
    gone_on = Watches()
    estimator = fit(path, make(), gone_on, solver=solver)
    assert gone_on.seen == watches.seen
    assert len(gone_on.seen) == 9
    assert estimator.loss_curve_ == undisturbed.loss_curve_
    assert_same_weights(estimator, undisturbed)


@pytest.mark.parametrize("load_best", [False, True])
def test_early_stopping_goes_on(load_best: bool, tmp_path: Path) -> None:
    def stops() -> list[Callback]:
        scoring = EpochScoring("accuracy", lower_is_better=False, name="score")
        early = EarlyStopping(
            "score", lower_is_better=False, patience=3, load_best=load_best, sink=print
        )
        return [scoring, PassthroughScoring("train_loss"), early]

    more = {"early_stopping": True, "max_iter": 100, "validation_fraction": 0.4}
    undisturbed = fit(None, *stops(), **more)
    epochs = undisturbed.n_iter_
    assert epochs < 50
    die(tmp_path / "run", epochs - 1, *stops(), **more)
    gone_on = fit(tmp_path / "run", *stops(), **more)
    assert gone_on.n_iter_ == epochs
    assert_same_weights(gone_on, undisturbed)
    # A fit that a callback has ended ends again.
    again = fit(tmp_path / "run", *stops(), **more)
    assert again.n_iter_ == epochs
    assert_same_weights(again, undisturbed)


@pytest.mark.parametrize("kind", [Hides, Defaults])
def test_what_cannot_be_kept_is_told(kind: type[Callback], tmp_path: Path) -> None:
    die(tmp_path / "run", 4, kind())
    message = rf"'{kind.__name__}' begins anew: .* state_dict and"
    with pytest.warns(UserWarning, match=message):
        fit(tmp_path / "run", kind())


def test_collections_come_back_as_what_they_were(tmp_path: Path) -> None:
    undisturbed, gone_on = Collects(), Collects()
    fit(None, undisturbed)
    die(tmp_path / "run", 4, Collects())
    fit(tmp_path / "run", gone_on)
    # By their representations, which tell frozen sets from others.
    assert list(map(repr, vars(gone_on).values())) == [
        repr(value) for value in vars(undisturbed).values()
    ]


def test_what_is_made_too_late_is_told(tmp_path: Path) -> None:
    die(tmp_path / "run", 4, MakesLate())
    with pytest.warns(UserWarning, match="'MakesLate' begins anew: schedule, of which"):
        fit(tmp_path / "run", MakesLate())


def test_other_parameters_are_told(tmp_path: Path) -> None:
    def cycle(total_steps: int) -> Callback:
        return LRScheduler(
            torch.optim.lr_scheduler.OneCycleLR,
            step_every="batch",
            max_lr=0.05,
            total_steps=total_steps,
        )

    die(tmp_path / "run", 4, cycle(30))
    watches = Watches()
    with pytest.warns(UserWarning, match="'LRScheduler' begins anew: it has other"):
        fit(tmp_path / "run", cycle(40), watches)
    anew = Watches()
    fit(None, cycle(40), anew, max_iter=6)
    rates = [[rate for _, rate, *_ in seen] for seen in (watches.seen, anew.seen)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("with_schedule", [False, True])
def test_callbacks_may_come_and_go(with_schedule: bool, tmp_path: Path) -> None:
    schedule = MAKERS["milestones"]
    before = [Hides(), schedule()] if with_schedule else [Hides()]
    die(tmp_path / "run", 4, *before)
    watches = Watches()
    fit(tmp_path / "run", *[schedule()] * with_schedule, watches)
    assert [epoch for epoch, *_ in watches.seen] == list(range(4, 10))


def test_what_only_reports_is_not_kept(tmp_path: Path) -> None:
    lines: list[str] = []

    def report() -> list[Callback]:
        printer = PrintLog(sink=lines.append)
        return [printer, TrainEndCheckpoint(dirname=tmp_path / "end")]

    die(tmp_path / "run", 4, *report())
    lines.clear()
    fit(tmp_path / "run", *report())
    # Two lines of heading, then epochs 4 to 9.
    assert [line.split()[0] for line in lines[2:]] == list("456789")
