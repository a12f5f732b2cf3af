"""Which run a checkpoint belongs to."""

from __future__ import annotations

import os
from dataclasses import fields

import numpy as np

from sktarget.estimators._holding_out import HoldingOut
from sktarget.estimators._hooks import FitHooks
from sktarget.estimators._rows import TrainingRows
from sktarget.training import Checkpoint, describe_value, digest

__all__ = ["open_checkpoint"]

# Parameters that may differ between a killed fit and the one that continues it.
_FREE = {"callbacks", "checkpoint", "device", "max_iter", "verbose"}


def open_checkpoint(
    estimator: FitHooks,
    rows: TrainingRows,
    given: TrainingRows | None,
    plan: HoldingOut | None,
    random_state: np.random.RandomState,
    *,
    resumes: bool,
) -> Checkpoint:
    """Open the checkpoint of a fit, resuming the same fit if it was killed.

    Parameters
    ----------
    estimator : FitHooks
        Its parameter `checkpoint` is the path.
    rows : TrainingRows
        The training data, those held out included.
    given : TrainingRows or None
        A validation set.
    plan : HoldingOut or None
        How many of them are held out.  This depends on `max_iter`, which may differ
        between the two fits, so it is compared apart from the other parameters.
    random_state : RandomState
        The random state with which the fit would begin.
    resumes : bool
        Whether the fit goes on from an earlier one, as with `warm_start`.

    Returns
    -------
    Checkpoint
        The checkpoint, for the training loop.

    Raises
    ------
    ValueError
        If the file is damaged, or belongs to a fit with other parameters or data.
    """
    assert estimator.checkpoint is not None
    if not os.fspath(estimator.checkpoint):
        raise ValueError("checkpoint='' names no file: give a path, or None for none")
    problem = {"estimator": type(estimator).__name__}
    for name, value in estimator.get_params(deep=False).items():
        if name not in _FREE:
            problem[name] = describe_value(value)
    problem["rows held out"] = "0" if plan is None else str(plan.n)
    if plan is not None and plan.series is not None:
        problem["rows held out"] += ", the last of series"
    problem["training set"] = _digest_of(rows)
    problem["validation set"] = "none" if given is None else _digest_of(given)
    problem["state before fit"] = "none"
    if resumes:
        state = [np.array(estimator.t_), *estimator._module_state.values()]
        # A module of the user's may keep a state of any other kind as well.
        words = [describe_value(a) for a in state if not isinstance(a, np.ndarray)]
        arrays = [a for a in state if isinstance(a, np.ndarray)]
        problem["state before fit"] = digest(*arrays, *map(np.array, words))
    return Checkpoint(
        estimator.checkpoint,
        problem,
        random_state,
        begins_anew=resumes,
        uses_global_generator=estimator.module is not None,
    )


def _digest_of(rows: TrainingRows) -> str:
    values = [getattr(rows, field.name) for field in fields(rows)]
    return digest(*(value for value in values if isinstance(value, np.ndarray)))
