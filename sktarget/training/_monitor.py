"""Keeps the record of a training run and decides when it ends."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import Tensor

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from sktarget.training._settings import TrainingSettings

__all__ = ["DivergenceError", "Monitor", "StopTraining", "Stopper", "TrainingLog"]


class StopTraining(KeyboardInterrupt):
    """Ends a run by the exception with which skorch is told to stop."""


class DivergenceError(ArithmeticError):
    """The loss became infinite or NaN before a single epoch was completed."""


@dataclass
class TrainingLog:
    """What a run leaves behind besides the network.

    Attributes
    ----------
    loss_curve : list of float
        Training loss of every epoch, penalties included.
    validation_losses, validation_scores : list of float
        Those of every epoch; empty without a validation set.
    no_improvement : int
        Epochs in a row without progress.
    n_samples_seen : int
        Rows shown to the network so far, the t of the ``invscaling`` schedule.
    epochs_before : int
        Epochs in the log that this one continues.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    no_improvement: int = 0
    n_samples_seen: int = 0
    epochs_before: int = 0

    @property
    def best_epoch(self) -> int:
        """Number of the last epoch with progress, from 1."""
        return max(1, len(self.loss_curve) - self.no_improvement)

    @property
    def best_loss(self) -> float:
        """The smallest finite training loss."""
        return min((x for x in self.loss_curve if math.isfinite(x)), default=math.inf)


@dataclass
class _Snapshot:
    """A copy of a network's parameters and buffers, which is overwritten repeatedly."""

    live: list[Tensor]
    tensors: list[Tensor]

    @classmethod
    def of(cls, module: torch.nn.Module) -> _Snapshot:
        live = _state(module)
        return cls(live, [t.detach().clone() for t in live])

    @torch.no_grad()
    def take(self) -> None:
        for kept, now in zip(self.tensors, self.live, strict=True):
            kept.copy_(now)

    @torch.no_grad()
    def restore(self) -> None:
        for kept, now in zip(self.tensors, self.live, strict=True):
            now.copy_(kept)


def _state(module: torch.nn.Module) -> list[Tensor]:
    # Running statistics belong to the state.  Cached weights, which are not persistent,
    # follow from the rest, and X̄ never changes.
    buffers = [
        buffer
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name not in part._non_persistent_buffers_set
        and not isinstance(part, TargetSpace)
    ]
    return [*module.parameters(), *buffers]


class Monitor(Callback):
    """Stopping, schedules, best state and divergence.

    The rules are those of scikit-learn's multi-layer perceptron.

    Parameters
    ----------
    log : TrainingLog
        Record to continue.
    settings : TrainingSettings
        How to train.
    has_validation : bool
        Whether the validation score decides.
    stops_by_error : bool, default=False
        Whether the error on the validation set decides, instead of the score.
    keeps_best : bool, default=False
        Whether to end with the state of the smallest training loss if the last loss is
        larger.
    validates_first : bool, default=False
        Whether the validation set is evaluated before the step of an epoch, not after
        it.

    Attributes
    ----------
    reason : str or None
        Why the run should end; others may set it to end the run.
    """

    def __init__(
        self,
        log: TrainingLog,
        settings: TrainingSettings,
        *,
        has_validation: bool,
        stops_by_error: bool = False,
        keeps_best: bool = False,
        validates_first: bool = False,
    ) -> None:
        self.log, self.settings = log, settings
        self.has_validation = has_validation
        self.stops_by_error = stops_by_error
        self.keeps_best = keeps_best
        self.validates_first = validates_first
        self.schedule = settings.schedule
        # Losses are in squares of the unit of y; scores have no unit.
        scores_decide = has_validation and not stops_by_error
        self.tol = settings.tol * (
            1.0 if scores_decide else settings.unit * settings.unit
        )
        # How many epochs of the log belong to earlier fits.
        self.already = len(log.loss_curve)
        self.rates: list[float] = []
        # Steps of the current epoch: done so far, and in total.
        self.step, self.n_steps = 0, 1
        self.reason: str | None = None

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Allocate the two snapshots."""
        self.best = _Snapshot.of(net.module_)
        self.begin = _Snapshot.of(net.module_)
        self.best_loss = self.log.best_loss
        scores = [] if self.stops_by_error else self.log.validation_scores
        self.best_merit = max(scores, default=-math.inf)
        # When training continues, the state it begins with is the best so far.
        self.has_best = bool(self.log.loss_curve)
        # By their names in the history of the net.
        self.records = {
            "train_loss": self.log.best_loss,
            "valid_loss": min(self.log.validation_losses, default=math.inf),
            "valid_score": max(self.log.validation_scores, default=-math.inf),
        }

    def on_epoch_begin(self, net: Any, dataset_train: Any, **kwargs: Any) -> None:
        """Keep the state to which the loss of this epoch will belong."""
        if not self.has_validation or self.validates_first:
            self.begin.take()
        self.step, self.n_steps = 0, -(-len(dataset_train) // net.batch_size)
        net.alpha = self.settings.alpha_at(self._done(), self._learnt())

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Follow the cosine of the annealed schedule, step by step."""
        if training and self.schedule == "annealed":
            self._set_rates(net, 0.5 * (1 + math.cos(math.pi * self._done())))
            self.step += 1

    def _done(self) -> float:
        """Return the share of all steps that are done."""
        epochs = len(self.log.loss_curve) - self.already + self.step / self.n_steps
        return min(1.0, epochs / self.settings.epochs)

    def _learnt(self) -> float:
        """Return the share by which the loss has fallen since the first epoch.

        It is the mean loss of two epochs that counts: a weight decay that drives the
        loss up and then waits for it would swing from epoch to epoch.
        """
        losses = self.log.loss_curve
        if not losses or losses[0] <= 0:
            return 0.0
        last = losses[-2:]
        return max(0.0, 1 - sum(last) / len(last) / losses[0])

    def on_epoch_end(self, net: Any, dataset_train: Any, **kwargs: Any) -> None:
        """Judge the epoch."""
        record = net.history[-1]
        self._mark_records(net, record)
        loss = record["train_loss"]
        # A score may be finite where outputs are not.
        lost = self.has_validation and not math.isfinite(record["valid_loss"])
        if lost or not math.isfinite(loss) or net.failure is not None:
            which = "validation" if lost and math.isfinite(loss) else "training"
            self._diverged(net, f"in epoch {len(self.log.loss_curve) + 1}", which)
            return
        self.log.loss_curve.append(loss)
        self.log.n_samples_seen += len(dataset_train)
        if self.settings.verbose:
            number = self.log.epochs_before + len(self.log.loss_curve)
            print(f"Iteration {number}, loss = {loss:.8f}")
        if self.has_validation:
            improved = self._judge_score(net, record)
        else:
            improved = self._judge_loss(loss)
        self.log.no_improvement = 0 if improved else self.log.no_improvement + 1
        if self.schedule == "invscaling":
            # A negative power underflows to zero where its inverse would overflow.
            share = (self.log.n_samples_seen + 1) ** -self.settings.power_t
            self._set_rates(net, share)
        if self.log.no_improvement > self.settings.n_iter_no_change:
            self._no_progress(net)

    def _mark_records(self, net: Any, record: Any) -> None:
        """Note in the history what is the best so far, as skorch's scorings do.

        Its ``Checkpoint`` looks there whether to write.
        """
        for name, best in self.records.items():
            if name not in record:
                continue
            value = record[name]
            is_best = value > best if name == "valid_score" else value < best
            if is_best:
                self.records[name] = value
            net.history.record(f"{name}_best", bool(is_best))

    def _set_rates(self, net: Any, share: float) -> None:
        """Set the step sizes to a share of those that training began with."""
        for group, rate in zip(net.optimizer_.param_groups, self.rates, strict=True):
            group["lr"] = rate * share

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Restore the best state, if there is a validation set or the last is worse."""
        losses = self.log.loss_curve
        is_worse = self.keeps_best and losses[-1:] > [self.best_loss]
        if self.has_best and (self.has_validation or is_worse):
            self.best.restore()
        elif self.reason != "diverged" and not _is_usable(net):
            self._diverged(net, f"after epoch {len(self.log.loss_curve)}")

    def state(self) -> dict[str, Any]:
        """Return what another monitor needs to continue as this one would have."""
        return {
            "best": self.best.tensors if self.has_best else None,
            "best_loss": self.best_loss,
            "best_merit": self.best_merit,
            "reason": self.reason,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned, after ``on_train_begin``."""
        self.has_best = state["best"] is not None
        for now, kept in zip(self.best.tensors, state["best"] or (), strict=False):
            now.copy_(kept)
        self.best_loss, self.best_merit = state["best_loss"], state["best_merit"]
        self.reason = state["reason"]

    def _judge_score(self, net: Any, record: Any) -> bool:
        score: float = record["valid_score"]
        self.log.validation_scores.append(score)
        self.log.validation_losses.append(record["valid_loss"])
        if self.settings.verbose:
            print(f"Validation score: {score:.6f}")
        # Larger is better.
        merit = -record["valid_error"] if self.stops_by_error else score
        improved = merit >= self.best_merit + self.tol
        if merit > self.best_merit or not self.has_best:
            self.best_merit = max(merit, self.best_merit)
            if self.validates_first:
                self.best, self.begin = self.begin, self.best
            else:
                self.best.take()
            self.has_best = True
        return bool(improved)

    def _judge_loss(self, loss: float) -> bool:
        improved = loss <= self.best_loss - self.tol
        if loss < self.best_loss or not self.has_best:
            self.best_loss = min(loss, self.best_loss)
            self.best, self.begin = self.begin, self.best
            self.has_best = True
        return improved

    def _no_progress(self, net: Any) -> None:
        decides = "Validation error" if self.stops_by_error else "Validation score"
        what = decides if self.has_validation else "Training loss"
        message = (
            f"{what} did not improve more than tol={self.tol:f} for "
            f"{self.settings.n_iter_no_change:g} consecutive epochs."
        )
        groups = net.optimizer_.param_groups
        rate = groups[-1]["lr"]
        if self.schedule != "adaptive" or rate <= 1e-6:
            self.reason = "no progress"
            if self.settings.verbose:
                print(message + " Stopping.")
            return
        for group in groups:
            group["lr"] /= 5
        self.log.no_improvement = 0
        if self.settings.verbose:
            print(message + f" Setting learning rate to {rate / 5:f}")

    def _diverged(self, net: Any, when: str, which: str = "training") -> None:
        settings = self.settings
        message = (
            f"the {which} loss is not finite {when} ({settings.describe}). "
            f"{settings.remedy}"
        )
        if net.failure is not None:
            message = f"{message}. What failed first: {net.failure.rstrip('.')}"
        if not self.has_best:
            raise DivergenceError(f"Training diverged: {message}.")
        self.best.restore()
        warnings.warn(
            f"Training diverged and was stopped: {message}. The state of the best "
            "epoch is kept.",
            ConvergenceWarning,
            stacklevel=2,
        )
        self.reason = "diverged"


class Stopper(Callback):
    """The last callback: ends the run once all others have seen the epoch.

    Parameters
    ----------
    monitor : Monitor
        Knows whether the run should end.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Stop if there is a reason to."""
        if self.monitor.reason is not None:
            raise StopTraining


def _is_usable(net: Any) -> bool:
    """Return whether the network can be evaluated after the very last step."""
    try:
        net.module_.eval()
    except FactorisationError as error:
        net.failure = str(error)
        return False
    return all(bool(t.isfinite().all()) for t in net.module_.parameters())
