"""What a run of training leaves to one that goes on where it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from skorch.callbacks import (
    BatchScoring,
    Callback,
    EpochScoring,
    LRScheduler,
    ParamMapper,
    PassthroughScoring,
)
from torch import nn

from sktarget import _archive
from sktarget.training._callback_state import callback_states, restore_callbacks

__all__ = [
    "Continuation",
    "continuation_of",
    "freeze",
    "freeze_again",
    "restore_with_rates",
    "take_up",
]

Named = Sequence[tuple[str, Callback]]

# Others begin anew in every call, as skorch has it: early stopping would go back to
# the best state of calls long ago.
_SCORES = EpochScoring, BatchScoring, PassthroughScoring


@dataclass(frozen=True)
class Continuation:
    """What a run of training leaves to one that goes on where it ended.

    Attributes
    ----------
    optimiser : dict
        State of the optimiser.
    history : list of dict
        Records of the epochs for callbacks, without those of mini-batches.  If there
        are any, the run that goes on takes up these and what follows.
    callbacks : dict
        States of schedules and scores of skorch's by name, in plain values.
    frozen : list of str
        Names of the parameters that need no gradient.
    freezers : list of str
        The callbacks of skorch's that freeze parameters, in words.
    """

    optimiser: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    callbacks: dict[str, Any] = field(default_factory=dict)
    frozen: list[str] = field(default_factory=list)
    freezers: list[str] = field(default_factory=list)


def continuation_of(net: Any, callbacks: Named, n_before: int) -> Continuation:
    """Return what a run leaves to one that goes on.

    Parameters
    ----------
    net : TrainingNet
        The net, at the end of its run.
    callbacks : sequence of (str, Callback)
        The user's callbacks, and the names that the net knows them by.  Without any
        nothing reads records, and none are kept.
    n_before : int
        How many epochs the history held before this run.

    Returns
    -------
    Continuation
        The state of its optimiser, and what callbacks need.
    """
    optimiser = net.optimizer_.state_dict()
    if not callbacks:
        return Continuation(optimiser)
    history = list(net.history)
    history[n_before:] = map(_plain_part, history[n_before:])
    parameters = net.module_.named_parameters()
    return Continuation(
        optimiser,
        history,
        callback_states(_going_on(callbacks)),
        [name for name, p in parameters if not p.requires_grad],
        _freezers(callbacks),
    )


def take_up(net: Any, callbacks: Named, before: Continuation) -> None:
    """Let a net go on where another has ended; its ``on_train_begin`` is over.

    Parameters
    ----------
    net : TrainingNet
        The net, with the state of the optimiser.
    callbacks : sequence of (str, Callback)
        The user's callbacks, and the names that the net knows them by.
    before : Continuation
        What the other one has left.

    Warns
    -----
    UserWarning
        If a schedule or a score begins anew.
    """
    net.history[:] = before.history
    groups = before.optimiser["param_groups"]
    going_on = _going_on(callbacks)
    restore_with_rates(net, going_on, before.callbacks, groups, "partial_fit")


def restore_with_rates(
    net: Any, callbacks: Named, kept: dict[str, Any], groups: Any, course: str
) -> None:
    """Put callbacks into the states that they had.

    Parameters
    ----------
    net : TrainingNet
        The net.
    callbacks : sequence of (str, Callback)
        What to restore.
    kept : dict
        The states by name.
    groups : list of dict
        The optimiser's groups of parameters as they were.
    course : str
        What goes on, for messages.

    Warns
    -----
    UserWarning
        If a callback begins anew.
    """
    if not restore_callbacks(callbacks, kept, course):
        return
    # The schedule began anew before its state was restored, which moved the rates.
    for group, before in zip(net.optimizer_.param_groups, groups, strict=True):
        group.update({k: v for k, v in before.items() if k != "params"})


def freeze(module: nn.Module, names: Sequence[str]) -> None:
    """Let exactly the parameters of these names learn nothing.

    Parameters
    ----------
    module : nn.Module
        The network.
    names : sequence of str
        Names of parameters.
    """
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in names)


def freeze_again(module: nn.Module, callbacks: Named, before: Continuation) -> None:
    """Freeze what was frozen, unless a callback that has done so is gone.

    To be called before ``on_train_begin``, in which callbacks may decide otherwise.

    Parameters
    ----------
    module : nn.Module
        The network.
    callbacks : sequence of (str, Callback)
        The user's callbacks, and the names that the net knows them by.
    before : Continuation
        What the other run has left.
    """
    gone = Counter(before.freezers) - Counter(_freezers(callbacks))
    if not gone:
        freeze(module, before.frozen)


def _freezers(callbacks: Named) -> list[str]:
    return [
        f"{type(one).__qualname__} of {one.patterns!r}"
        for _, one in callbacks
        if isinstance(one, ParamMapper)
    ]


def _going_on(callbacks: Named) -> Named:
    return [
        (name, one)
        for name, one in callbacks
        if isinstance(one, LRScheduler) or type(one) in _SCORES
    ]


def _plain_part(row: dict[str, Any]) -> dict[str, Any]:
    """Return the plain part of an epoch's record, without its mini-batches."""
    plain = {k: v for k, v in row.items() if k != "batches" and _archive.is_plain(v)}
    return {**plain, "batches": []}
