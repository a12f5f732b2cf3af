"""Another try with other rules, where a network has learnt nothing, or noise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from sktarget.estimators._task import Task
from sktarget.linalg import FactorisationError
from sktarget.training import (
    DivergenceError,
    Ending,
    Objective,
    Reason,
    TrainingLog,
    TrainingSettings,
    train,
)

if TYPE_CHECKING:
    from sktarget.estimators._estimator import NetworkEstimator

__all__ = ["Run", "try_again"]


class Run(NamedTuple):
    """A network, its record, and how it was trained and ended."""

    network: nn.Module
    log: TrainingLog
    ending: Ending
    settings: TrainingSettings


def try_again(
    estimator: NetworkEstimator,
    task: Task,
    objective: Objective,
    before: Run,
    changes: dict[str, Any],
) -> Run:
    """Train another network by other rules; return it if it does better.

    The user's callbacks see nothing of it, nor does a checkpoint.

    Parameters
    ----------
    estimator : NetworkEstimator
        Defines how to start and how to train, by attributes that are kept if it does
        better.
    task : Task
        What the fit is about; rows have been held out.
    objective : Objective
        What to learn, and how to judge it.
    before : Run
        The best run so far.
    changes : dict of str to object
        Attributes of the estimator to change for the other run.

    Returns
    -------
    Run
        The other run, or the one before.
    """
    if not before.ending.is_natural:  # An interrupt ends the fit.
        return before
    kept = dict(estimator.__dict__)
    estimator.__dict__.update(changes)
    try:
        run = _run_anew(estimator, task, objective, before.settings.reserved)
    except (DivergenceError, FactorisationError):
        run = before
    if run.ending.has_learnt and _error(run) < _error(before):
        return run
    estimator.__dict__.clear()
    estimator.__dict__.update(kept)
    if run.ending.reason is not Reason.INTERRUPTED:
        return before
    reason, warning = run.ending.reason, run.ending.warning
    ending = replace(before.ending, reason=reason, warning=warning)
    return before._replace(ending=ending)


def _run_anew(
    estimator: NetworkEstimator, task: Task, objective: Objective, reserved: int
) -> Run:
    """Train a new network by the estimator's rules."""
    network = estimator._begin(task)
    task.take_up(network)
    data, held_out = estimator._to_tensors(network, task)
    settings = estimator._settings(task.rows)
    settings = replace(settings, reserved=reserved, callbacks=())
    log = TrainingLog()
    ending = train(
        network,
        data,
        held_out,
        settings,
        objective,
        log=log,
        generator=task.generator,
        net_class=estimator._training_net,
    )
    return Run(network, log, ending, settings)


def _error(run: Run) -> float:
    error = run.ending.held_out_error
    assert error is not None
    return error
