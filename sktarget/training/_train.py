"""One run of training, from settings and data to a trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.helper import predefined_split
from torch import nn

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from sktarget.training._bridge import EpochContext
from sktarget.training._checkpoint import Checkpoint, is_of_user, users_callbacks
from sktarget.training._continuation import (
    Continuation,
    continuation_of,
    freeze_again,
    take_up,
)
from sktarget.training._data import TensorData
from sktarget.training._ending import Ending, Reason
from sktarget.training._log import TrainingLog
from sktarget.training._monitor import Monitor, Stopper, StopTraining
from sktarget.training._net import TrainingNet
from sktarget.training._objective import Objective
from sktarget.training._schedule import Schedule
from sktarget.training._settings import TrainingSettings

__all__ = ["train"]

# In fewer, no step may be lost.
_ENOUGH_EPOCHS = 5


def train(
    module: nn.Module,
    data: TensorData,
    validation: TensorData | None,
    settings: TrainingSettings,
    objective: Objective,
    *,
    log: TrainingLog,
    generator: torch.Generator | None,
    before: Continuation | None = None,
    bridge: EpochContext | None = None,
    net_class: Callable[..., TrainingNet] = TrainingNet,
    checkpoint: Checkpoint | None = None,
    resumable: bool = False,
) -> Ending:
    """Train a network in place.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `data`.
    data, validation : TensorData
        Training set, and rows that early stopping scores.
    settings : TrainingSettings
        How to train.
    objective : Objective
        What to learn, and how to judge outputs.
    log : TrainingLog
        Continued in place.
    generator : torch.Generator or None
        Shuffles the mini-batches.
    before : Continuation, optional
        What an earlier run has left, to go on from.
    bridge : EpochContext, optional
        Reports every epoch to scikit-learn's callbacks.
    net_class : callable
        Makes the net, which decides how to learn from a mini-batch:
        :class:`TrainingNet` follows the gradient of the loss; derived classes may do
        otherwise.
    checkpoint : Checkpoint, optional
        Saves every epoch to a file, and resumes from it.
    resumable : bool, default=False
        Whether later calls must continue exactly from where this one ends.  Otherwise
        training whose steps take all rows, so that each loss is that of one state, ends
        with the state of the smallest loss, unless the weight decay follows the loss.

    Returns
    -------
    Ending
        Why the run ended, and what it leaves; ``ending.warn()`` tells the user.

    Raises
    ------
    DivergenceError
        If the loss is not finite in the very first epoch.
    """
    log.begin_run()
    schedule = Schedule(log, settings)
    module.train()
    has_validation = validation is not None
    all_at_once = settings.batch_size >= len(data)
    monitor = Monitor(
        log,
        settings,
        schedule,
        has_validation=has_validation,
        stops_by_error=objective.error is not None,
        constant_error=objective.constant_error,
        # Losses that hold more and more weight decay cannot be compared.
        keeps_best=all_at_once and not resumable and not settings.alpha_follows_loss,
        validates_first=has_validation
        and all_at_once
        and _may_validate_first(module, settings, objective),
    )
    if bridge is not None:
        bridge.monitor = monitor
    callbacks = _in_order(monitor, schedule, bridge, settings.callbacks, checkpoint)
    net = _make_net(
        net_class, module, validation, settings, objective, generator, callbacks
    )
    schedule.start_from(net)
    net.stored_as = data.x.dtype
    if validation is not None and monitor.validates_first:
        net.rows_to_evaluate = validation.inputs(validation.x)
    if checkpoint is not None:
        kept = checkpoint.attach(module, monitor, generator)
        before = before if kept is None else Continuation(kept)
    if before is not None:
        net.optimizer_.load_state_dict(before.optimiser)
    n_before = _begin(net, data, before)
    to_go = settings.epochs - log.epochs_of_run
    reason = _run_epochs(net, monitor, data, to_go)
    net.notify("on_train_end", X=data, y=None)
    return _ending_of(net, monitor, reason, n_before)


def _begin(net: TrainingNet, data: TensorData, before: Continuation | None) -> int:
    """Begin, for callbacks where an earlier run ended; return its recorded epochs."""
    of_user = users_callbacks(net)
    goes_on = before if before is not None and before.history and of_user else None
    if goes_on is not None:
        freeze_again(net.module_, of_user, goes_on)
    net.notify("on_train_begin", X=data, y=None)
    if goes_on is None:
        return 0
    take_up(net, of_user, goes_on)
    return len(goes_on.history)


def _may_validate_first(
    module: nn.Module, settings: TrainingSettings, objective: Objective
) -> bool:
    """Return whether a pass before a step may serve validation rows as well.

    The user's callbacks score the state after a step.  They should see the validation
    score of that same state, unless the error is what decides.  And the state after the
    last step is not judged then, which of a few steps is too much to lose.
    """
    return (
        settings.may_validate_first
        and settings.epochs >= _ENOUGH_EPOCHS
        and settings.solver != "lbfgs"
        and objective.error is not None
        and isinstance(module, TargetSpace)
        and not module.is_random
    )


def _make_net(
    net_class: Callable[..., TrainingNet],
    module: nn.Module,
    validation: TensorData | None,
    settings: TrainingSettings,
    objective: Objective,
    generator: torch.Generator | None,
    callbacks: list[Any],
) -> TrainingNet:
    if settings.solver == "lbfgs":
        _make_contiguous(module)
    net: TrainingNet = net_class(
        module,
        objective=objective,
        generator=generator if settings.shuffle else None,
        train_split=None if validation is None else predefined_split(validation),
        callbacks=callbacks,
        **settings.of_net(),
    ).initialize()
    # skorch puts what prints after all else, but it too should see every epoch, and
    # its state belongs to the checkpoint.
    net.callbacks_.sort(key=lambda named: isinstance(named[1], Checkpoint | Stopper))
    return net


def _run_epochs(
    net: TrainingNet, monitor: Monitor, data: TensorData, to_go: int
) -> Reason:
    """Train until something ends it, and return what that was."""
    try:
        net.fit_loop(data, epochs=to_go if monitor.reason is None else 0)
    except StopTraining:
        pass
    except (FactorisationError, ValueError):
        # A callback has asked for predictions, which the last step has made impossible.
        net.module_.train()
        monitor.judge_last_step(net)
        if monitor.reason is not Reason.DIVERGED:  # It is the callback that failed.
            raise
    except KeyboardInterrupt:
        # A skorch callback that wants to stop raises the same as Ctrl-C.
        by = net.interrupted_in
        if by is None or not is_of_user(by):
            return Reason.INTERRUPTED
        # A run that has ended by itself in this epoch was not ended by a callback.
        return monitor.reason or Reason.ASKED_TO
    return monitor.reason or Reason.MAX_ITER


def _make_contiguous(module: nn.Module) -> None:
    # L-BFGS views gradients, which have the layout of their parameters, as vectors.
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()


def _in_order(
    monitor: Monitor,
    schedule: Schedule,
    bridge: EpochContext | None,
    callbacks: Sequence[Any],
    checkpoint: Checkpoint | None,
) -> list[Any]:
    # The monitor comes first, so that the others see its record of the epoch; the
    # stopper comes last, so that all have seen the epoch before the run ends.
    # Their names must not be those of the user's.
    first: list[Any] = [("sktarget.monitor", monitor), ("sktarget.schedule", schedule)]
    if bridge is not None:
        # scikit-learn's contexts are closed before a user's callback may interrupt.
        first.append(("sktarget.bridge", bridge))
    last: list[Any] = [("sktarget.stopper", Stopper(monitor))]
    if checkpoint is not None:
        last.insert(0, ("sktarget.checkpoint", checkpoint))
    return [*first, *callbacks, *last]


def _ending_of(
    net: TrainingNet, monitor: Monitor, reason: Reason, n_before: int
) -> Ending:
    # It may be the very last step that did.
    diverged = monitor.reason is Reason.DIVERGED
    if diverged and reason is not Reason.INTERRUPTED:
        reason = Reason.DIVERGED
    log, settings = monitor.log, monitor.settings
    epochs = log.epochs_before + log.epochs_of_run
    return Ending(
        None if diverged else continuation_of(net, users_callbacks(net), n_before),
        reason,
        monitor.held_out_error,
        max(0, log.best_epoch - log.epochs_of_earlier_runs) / settings.epochs,
        monitor.warning or _warning_of_the_end(reason, settings, epochs),
    )


def _warning_of_the_end(
    reason: Reason, settings: TrainingSettings, epochs: int
) -> Warning | None:
    if reason is Reason.INTERRUPTED:
        return UserWarning(
            f"Training was interrupted after {epochs} epochs; the state so far is kept."
        )
    if reason is Reason.MAX_ITER and settings.warns_at_end:
        found: Warning = ConvergenceWarning(
            f"Maximum iterations ({settings.max_iter}) reached and the optimization "
            "hasn't converged yet."
        )
        return found
    return None
