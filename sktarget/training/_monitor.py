"""Judges every epoch of a training run, and decides when it ends."""

from __future__ import annotations

import math
from typing import Any

from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from sktarget.linalg import FactorisationError
from sktarget.training._ending import Reason, may_have_learnt
from sktarget.training._log import TrainingLog
from sktarget.training._schedule import Schedule
from sktarget.training._settings import TrainingSettings
from sktarget.training._snapshot import Snapshot

__all__ = ["DivergenceError", "Monitor", "StopTraining", "Stopper"]

# Losses of so many times that of constants, or of the first epoch, come of divergence.
_EXPLODED = 1e3


class StopTraining(KeyboardInterrupt):
    """Ends a run by the exception with which skorch is told to stop."""


class DivergenceError(ArithmeticError):
    """The loss became infinite or NaN before a single epoch was completed."""


class Monitor(Callback):
    """Stopping, best state and divergence.

    A run ends after some epochs without progress, as that of scikit-learn's multi-layer
    perceptron does; but where the error of constant outputs is known, not before the
    network does clearly better, or fits noise.

    Parameters
    ----------
    log : TrainingLog
        Record to continue.
    settings : TrainingSettings
        How to train.
    schedule : Schedule
        Lowers adaptive step sizes where there is no progress.
    has_validation : bool
        Whether there is a validation set, which then decides.
    stops_by_error : bool
        Whether the error on the validation set decides, instead of the score.
    constant_error : float
        That error for constant outputs; progress may be slow until a network does
        clearly better.
    keeps_best : bool
        Whether to end with the state of the smallest training loss if the last loss is
        larger.
    validates_first : bool
        Whether the validation set is evaluated before the step of an epoch, not after
        it.

    Attributes
    ----------
    reason : Reason or None
        Why the run should end; others may set it to end the run.
    warning : Warning or None
        What the user should be told, if the run has diverged.
    """

    def __init__(
        self,
        log: TrainingLog,
        settings: TrainingSettings,
        schedule: Schedule,
        *,
        has_validation: bool,
        stops_by_error: bool,
        constant_error: float,
        keeps_best: bool,
        validates_first: bool,
    ) -> None:
        self.log, self.settings, self.schedule = log, settings, schedule
        self.has_validation = has_validation
        self.stops_by_error = stops_by_error
        self.constant_error = constant_error * settings.loss_unit
        self.keeps_best = keeps_best
        self.validates_first = validates_first
        # Losses have a unit, scores have none.
        scores_decide = has_validation and not stops_by_error
        self.tol = settings.tol * (1.0 if scores_decide else settings.loss_unit)
        self.reason: Reason | None = None
        self.warning: Warning | None = None

    @property
    def held_out_error(self) -> float | None:
        """The least error as a share of that of constant outputs, if that is known."""
        if not self.constant_error > 0:
            return None
        return -self.best_merit / self.constant_error

    @property
    def _may_end(self) -> bool:
        """Whether a lack of progress is a reason to end."""
        return self._overfits or may_have_learnt(self.held_out_error)

    @property
    def _overfits(self) -> bool:
        held_out, share = self.log.validation_losses, self.settings.overfit_share
        return bool(held_out) and self.log.loss_curve[-1] < share * held_out[-1]

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Allocate the two snapshots."""
        self.best = Snapshot.of(net.module_)
        self.begin = Snapshot.of(net.module_)
        self.best_loss = self.log.best_loss
        self.best_merit = -math.inf if self.stops_by_error else self.log.best_score
        # When training continues, there is a state to go back to.
        self.has_best = bool(self.log.loss_curve)
        # By their names in the history of the net.
        self.records = {
            "train_loss": self.log.best_loss,
            "valid_loss": self.log.best_validation_loss,
            "valid_score": self.log.best_score,
        }

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Keep the state to which the loss of this epoch will belong."""
        if not self.has_validation or self.validates_first:
            self.begin.take()

    def on_epoch_end(self, net: Any, dataset_train: Any, **kwargs: Any) -> None:
        """Judge the epoch."""
        record = net.history[-1]
        self._mark_records(net, record)
        loss = record["train_loss"]
        # A score may be finite where outputs are not.
        lost = self.has_validation and not math.isfinite(record["valid_loss"])
        if lost or not math.isfinite(loss) or net.failure is not None:
            which = "validation" if lost and math.isfinite(loss) else "training"
            epoch = len(self.log.loss_curve) + 1
            self._diverged(net, f"is not finite in epoch {epoch}", which)
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
        waited = self.log.no_improvement > self.settings.n_iter_no_change
        if waited and self._may_end:
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

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Restore the best state, if there is a validation set or the last is worse."""
        losses = self.log.loss_curve
        if self._has_exploded:
            epoch = len(losses)
            self._diverged(net, f"has grown to {losses[-1]:.3g} in epoch {epoch}")
            return
        is_worse = self.keeps_best and bool(losses) and losses[-1] > self.best_loss
        if self.has_best and (self.has_validation or is_worse):
            self.best.restore()
        else:
            self.judge_last_step(net)

    def judge_last_step(self, net: Any) -> None:
        """End the run if the last step has led to a network without predictions.

        Parameters
        ----------
        net : TrainingNet
            Its module is put into evaluation mode.
        """
        if self.reason is not Reason.DIVERGED and not _can_evaluate(net):
            epoch = len(self.log.loss_curve)
            self._diverged(net, f"is not finite after epoch {epoch}")

    @property
    def _has_exploded(self) -> bool:
        """Whether the last of several losses is far beyond that of sensible outputs."""
        # Those of earlier runs may come of other data.
        losses = self.log.loss_curve[self.log.epochs_of_earlier_runs :]
        if self.reason is Reason.DIVERGED or not losses:
            return False
        return losses[-1] > _EXPLODED * max(self.settings.loss_unit, losses[0])

    def state(self) -> dict[str, Any]:
        """Return what another monitor needs to continue as this one would have."""
        return {
            "best": self.best.tensors if self.has_best else None,
            "best_loss": self.best_loss,
            "best_merit": self.best_merit,
            "reason": None if self.reason is None else self.reason.value,
            "warning": None if self.warning is None else str(self.warning),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned, after ``on_train_begin``."""
        self.has_best = state["best"] is not None
        for now, kept in zip(self.best.tensors, state["best"] or (), strict=False):
            now.copy_(kept)
        self.best_loss, self.best_merit = state["best_loss"], state["best_merit"]
        reason = state["reason"]
        self.reason = None if reason is None else Reason(reason)
        if state["warning"] is not None:
            self.warning = ConvergenceWarning(state["warning"])

    def _judge_score(self, net: Any, record: Any) -> bool:
        score: float = record["valid_score"]
        self.log.add_validation(record["valid_loss"], score)
        if self.settings.verbose:
            of = f", error: {record['valid_error']:g}" if self.stops_by_error else ""
            print(f"Validation score: {score:.6f}{of}")
        # Larger is better.
        merit = -record["valid_error"] if self.stops_by_error else score
        improved = merit >= self.best_merit + self.tol
        if merit > self.best_merit or not self.has_best:
            self.best_merit = max(merit, self.best_merit)
            if not self.validates_first:
                # Not into the best state: an interrupt would leave a mixture of two.
                self.begin.take()
            self.best, self.begin = self.begin, self.best
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
        rate = self.schedule.lower(net)
        if rate is None:
            self.reason = Reason.NO_PROGRESS
            message += " Stopping."
        else:
            self.log.no_improvement = 0
            message += f" Setting learning rate to {rate:f}"
        if self.settings.verbose:
            print(message)

    def _diverged(self, net: Any, what: str, which: str = "training") -> None:
        settings = self.settings
        named = f" ({settings.describe})" if settings.describe else ""
        message = f"the {which} loss {what}{named}. {settings.remedy}"
        if net.failure is not None:
            message = f"{message}. What failed first: {net.failure.rstrip('.')}"
        if not self.has_best:
            raise DivergenceError(f"Training diverged: {message}.")
        self.best.restore()
        self.warning = ConvergenceWarning(
            f"Training diverged and was stopped: {message}. The state of the best "
            "epoch is kept."
        )
        self.reason = Reason.DIVERGED


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


def _can_evaluate(net: Any) -> bool:
    """Try to evaluate the network after the very last step; note why if it fails."""
    try:
        net.module_.eval()
    except FactorisationError as error:
        net.failure = str(error)
        return False
    return all(bool(t.isfinite().all()) for t in net.module_.parameters())
