"""A second try with less λ, where a network has learnt nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from sktarget.estimators import _rules
from sktarget.estimators._arrays import torch_dtype
from sktarget.estimators._random import seed_dropout
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
    """A network, its record, and how its training ended."""

    network: nn.Module
    log: TrainingLog
    ending: Ending


def try_again(
    estimator: NetworkEstimator,
    task: Task,
    settings: TrainingSettings,
    objective: Objective,
    first: Run,
) -> Run:
    """Train another network with less λ; return it if it has learnt something.

    The user's callbacks see nothing of it, nor does a checkpoint.

    Parameters
    ----------
    estimator : NetworkEstimator
        Defines how to start, with less λ if its `_lam_share` is less than 1.
    task : Task
        What the fit is about; rows have been held out.
    settings : TrainingSettings
        Those of the first run.
    objective : Objective
        What to learn, and how to judge it.
    first : Run
        The run that did hardly better than constant outputs.

    Returns
    -------
    Run
        The second run, or the first.
    """
    if settings.verbose:
        print("No better than a constant: starting anew with less lam.")
    before = dict(estimator.__dict__)
    estimator._lam_share = _rules.LAM_OF_SECOND_TRY
    dtype = torch_dtype(task.rows.dtype)
    module = estimator._build(estimator._architecture, dtype, task.generator)
    log, ending = TrainingLog(), first.ending
    try:
        network = estimator._start(module, task).to(task.device)
        seed_dropout(network, task.dropout_seed, task.device)
        data, held_out = estimator._to_tensors(network, task)
        own = estimator._settings(task.rows)
        ending = train(
            network,
            data,
            held_out,
            replace(own, reserved=settings.reserved, callbacks=()),
            objective,
            log=log,
            generator=task.generator,
            net_class=estimator._training_net,
        )
    except (DivergenceError, FactorisationError):
        pass
    if ending.has_learnt:
        return Run(network, log, ending)
    estimator.__dict__.clear()
    estimator.__dict__.update(before)
    if ending.reason is not Reason.INTERRUPTED:
        return first
    # An interrupt ends the fit as well.
    reason, warning = ending.reason, ending.warning
    return first._replace(ending=replace(first.ending, reason=reason, warning=warning))
