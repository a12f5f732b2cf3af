"""The runs of training that a fit consists of: the first, other tries, the last epochs.

Where a network has learnt nothing, or noise, other rules are tried; where rows were
held out to stop by, they are learnt in the end.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sktarget.estimators import _noise_rules
from sktarget.estimators._comparison import Errors, measure_errors, share_of_errors
from sktarget.estimators._guards import remember, undone_if_it_fails
from sktarget.estimators._retries import Retry
from sktarget.estimators._task import Task
from sktarget.linalg import FactorisationError
from sktarget.training import (
    Checkpoint,
    Continuation,
    DivergenceError,
    Ending,
    EpochContext,
    Objective,
    Reason,
    TrainingLog,
    TrainingSettings,
    train,
)

if TYPE_CHECKING:
    from sktarget.estimators._estimator import NetworkEstimator

__all__ = ["Run", "learn_all", "run", "settings_of_run", "try_again"]


class Run(NamedTuple):
    """A network, its record, and how it was trained and ended."""

    network: nn.Module
    log: TrainingLog
    ending: Ending
    settings: TrainingSettings


def settings_of_run(estimator: NetworkEstimator, task: Task) -> TrainingSettings:
    """Return how to train on the rows of a fit, by the rules that apply now.

    Parameters
    ----------
    estimator : NetworkEstimator
        Defines how to train; its network has been made, and λ chosen.
    task : Task
        What the fit is about.

    Returns
    -------
    TrainingSettings
        The settings, with epochs kept free for the rows held out, if they are to be
        learnt in the end.
    """
    settings = estimator._settings(task.rows)
    if not task.learns_all:
        return settings
    reserved = estimator._epochs_to_reserve(settings.max_iter)
    return replace(settings, reserved=reserved)


def run(
    estimator: NetworkEstimator,
    task: Task,
    network: nn.Module,
    log: TrainingLog,
    settings: TrainingSettings,
    objective: Objective,
    *,
    generator: torch.Generator | None = None,
    before: Continuation | None = None,
    bridge: EpochContext | None = None,
    checkpoint: Checkpoint | None = None,
    resumable: bool = False,
) -> Run:
    """Train a network.

    Parameters
    ----------
    estimator : NetworkEstimator
        Defines how to train.
    task : Task
        What the fit is about.
    network : nn.Module
        The network, changed in place.
    log : TrainingLog
        Record of the epochs, continued in place.
    settings : TrainingSettings
        How to train.
    objective : Objective
        What to learn, and how to judge it.
    generator : torch.Generator, optional
        Shuffles the mini-batches; by default that of the fit.
    before, bridge, checkpoint, resumable
        As for :func:`~sktarget.training.train`.

    Returns
    -------
    Run
        The network, trained.

    Raises
    ------
    DivergenceError
        If the loss is not finite in the very first epoch.
    """
    task.prepare(network)
    data, held_out = estimator._to_tensors(task.rows, network, task), None
    if estimator._fixed_batch_is_all:
        # The same tensor as X̄, so that one pass can serve both.
        data.x = network.fixed_batch  # type: ignore[assignment]
    if task.held_out is not None:
        held_out = estimator._to_tensors(task.held_out, network, task)
    ending = train(
        network,
        data,
        held_out,
        settings,
        objective,
        log=log,
        net_class=estimator._training_net,
        generator=task.generator if generator is None else generator,
        before=before,
        bridge=bridge,
        checkpoint=checkpoint,
        resumable=resumable,
    )
    return Run(network, log, ending, settings)


def try_again(
    estimator: NetworkEstimator,
    task: Task,
    objective: Objective,
    before: Run,
    retry: Retry,
) -> Run:
    """Train another network by other rules; return it if it does better.

    The user's callbacks see nothing of it, nor does a checkpoint.

    Parameters
    ----------
    estimator : NetworkEstimator
        Defines how to start and how to train; its rules are the other ones afterwards
        if that run does better.
    task : Task
        What the fit is about; there are rows held out, or a validation set.
    objective : Objective
        What to learn, and how to judge it.
    before : Run
        The best run so far.
    retry : Retry
        The other rules.

    Returns
    -------
    Run
        The other run, or the one before.
    """
    if _error_of(before) <= retry.above:
        return before
    if not before.ending.is_natural:  # An interrupt ends the fit.
        return before
    verbose = before.settings.verbose
    if verbose:
        print(f"Rows to stop by are predicted badly: trying {retry.what}.")
    best = _better_of(estimator, task, objective, before, retry)
    if verbose and best.ending.is_natural:
        is_other = best.network is not before.network
        verb = "taking this one" if is_other else "keeping the network before"
        print(f"By these rows, {verb}.")
    return best


def _better_of(
    estimator: NetworkEstimator,
    task: Task,
    objective: Objective,
    before: Run,
    retry: Retry,
) -> Run:
    """Return the run by other rules if it does better, else the one before."""
    undo, ending = remember(estimator), before.ending
    estimator._other_rules = {**estimator._other_rules, **retry.changes}
    try:
        other = _run_anew(estimator, task, objective)
        # After one that diverged, rows held out would not be learnt.
        is_usable = (
            other.ending.reason is not Reason.DIVERGED and other.ending.has_learnt
        )
        if is_usable and _does_better(estimator, task, other, before, retry):
            return other
        if other.ending.reason is Reason.INTERRUPTED:
            warning = other.ending.warning
            ending = replace(ending, reason=Reason.INTERRUPTED, warning=warning)
    except (DivergenceError, FactorisationError):
        pass
    except KeyboardInterrupt:  # before its first epoch, or after its last
        warning = UserWarning(
            "Training was interrupted while another network was tried; the one before "
            "is kept."
        )
        ending = replace(ending, reason=Reason.INTERRUPTED, warning=warning)
    undo()
    return before._replace(ending=ending)


def _run_anew(estimator: NetworkEstimator, task: Task, objective: Objective) -> Run:
    """Train a new network by the estimator's rules."""
    network = estimator._new_network(task)
    settings = replace(settings_of_run(estimator, task), callbacks=())
    return run(estimator, task, network, TrainingLog(), settings, objective)


def _does_better(
    estimator: NetworkEstimator, task: Task, other: Run, before: Run, retry: Retry
) -> bool:
    """Return whether another run predicts the rows held out better than one before."""
    needed = _noise_rules.needed_share(_error_of(before), retry.needs)
    assert task.held_out is not None
    decays_strongly = estimator._run_rules.decays_strongly
    if decays_strongly and estimator._tells_little(task.held_out):
        needed *= _noise_rules.BENEFIT_OF_DOUBT
    errors = [_held_out_errors(estimator, task, of) for of in (other, before)]
    return share_of_errors(*errors) < needed


def _error_of(before: Run) -> float:
    """Return the error of the rows held out, which further runs are judged by."""
    assert before.ending.held_out_error is not None
    return before.ending.held_out_error


def _held_out_errors(estimator: NetworkEstimator, task: Task, of: Run) -> Errors:
    assert task.held_out is not None
    held_out = estimator._to_tensors(task.held_out, of.network, task)
    units = of.settings.output_units
    return measure_errors(of.network, held_out, estimator._criterion, units)


def learn_all(estimator: NetworkEstimator, task: Task, before: Run) -> nn.Module:
    """Train on all rows, from the best state without those held out.

    Parameters
    ----------
    estimator : NetworkEstimator
        Defines how to train.
    task : Task
        What the fit is about; rows have been held out.
    before : Run
        The run that used them to stop; the new epochs are added to its record.

    Returns
    -------
    nn.Module
        Another network, trained further.
    """
    network, log, _, settings = before
    epochs, alpha = _last_course(estimator, before)
    if epochs == 0:
        return network
    if settings.verbose:
        n = len(task.all_rows)
        print(
            f"Going on from epoch {log.best_epoch} with all {n} rows, those held out "
            "among them."
        )
    rows = estimator._arrange(task.all_rows, task.seed)
    try:
        with undone_if_it_fails(estimator):
            # First, as settings describe the λ that it chooses.
            continued = estimator._continued_on(network, rows, task.seed)
            last = run(
                estimator,
                replace(task, rows=rows, held_out=None),
                continued,
                TrainingLog(epochs_before=len(log.loss_curve)),
                estimator._settings(rows).for_last(epochs, alpha),
                estimator._objective(),
                # Of its own: a fit that is killed now repeats these from the start.
                generator=torch.Generator().manual_seed(task.seed),
            )
    except (DivergenceError, FactorisationError) as error:
        warnings.warn(
            "The rows held out could not be learnt in the end, and the network that "
            f"was trained without them is kept: {error}",
            ConvergenceWarning,
            stacklevel=2,
        )
        return network
    except KeyboardInterrupt:  # An interrupt within the epochs ends them instead.
        warnings.warn(
            "Training was interrupted before the rows held out were learnt; the "
            "network that was trained without them is kept.",
            stacklevel=2,
        )
        return network
    last.ending.warn()
    log.loss_curve += last.log.loss_curve
    log.n_samples_seen += last.log.n_samples_seen
    return last.network


def _last_course(estimator: NetworkEstimator, before: Run) -> tuple[int, float]:
    """Return the epochs to spend on all rows, and the weight decay in them."""
    log, settings = before.log, before.settings
    # A run that goes on from a checkpoint may have gone beyond a smaller `max_iter`.
    left = max(0, settings.max_iter - len(log.loss_curve))
    falls = settings.first_alpha > settings.alpha
    when = _noise_rules.auto_last_alpha_at(log.best_epoch / settings.epochs)
    alpha = settings.alpha_at(when, log.learnt_by(log.best_epoch))
    return estimator._last_epochs(log.best_epoch, left, falls), alpha
