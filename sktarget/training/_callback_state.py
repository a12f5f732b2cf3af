"""The state of the user's callbacks, in plain values, so that a run can be resumed.

Checkpoints of skorch hold the network, the optimiser and the history, not the
callbacks.  By its convention, the arguments with which a callback is made are its
parameters, which are given again when the run is restarted; everything else that it
holds is its state.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from skorch.callbacks import Callback, TrainEndCheckpoint
from torch import Tensor

from sktarget import _archive
from sktarget.training._describing import describe_value
from sktarget.training._state import state_to_numpy

__all__ = ["callback_states", "pack", "restore_callbacks", "unpack"]

Named = Iterable[tuple[str, Callback]]


def callback_states(callbacks: Named) -> dict[str, dict[str, Any]]:
    """Return the states of callbacks in plain values.

    Parameters
    ----------
    callbacks : iterable of (str, Callback)
        Callbacks and the names that a net knows them by.

    Returns
    -------
    dict of str to dict
        By name: ``kind``, the class; ``parameters``, in words; ``state``, None where
        the callback holds something that plain values cannot represent; and ``parts``,
        which names in it stand for objects of which their ``state_dict`` was kept.
    """
    return {name: _describe(callback) for name, callback in callbacks if _has(callback)}


def restore_callbacks(
    callbacks: Named, kept: dict[str, dict[str, Any]], course: str
) -> bool:
    """Put callbacks into the states given by :func:`callback_states`.

    Parameters
    ----------
    callbacks : iterable of (str, Callback)
        Callbacks whose ``on_train_begin`` has been called.  New ones, of which nothing
        was kept, stay as they are.
    kept : dict of str to dict
        What was kept.
    course : str
        What goes on, for messages.

    Returns
    -------
    bool
        Whether a schedule was restored, so that the rates must be restored too.

    Warns
    -----
    UserWarning
        If a callback begins anew, because its state could not be kept, an object that
        part of the state belongs to is not there yet, or its parameters have changed.
    """
    schedules = False
    for name, callback in callbacks:
        before = kept.get(name)
        if before is None or before["kind"] != _kind(callback):
            continue
        parts = before["parts"]
        lacking = [n for n in parts if not _keeps_itself(getattr(callback, n, None))]
        reason = ""
        if before["parameters"] != _parameters(callback):
            reason = "it has other parameters than before"
        elif before["state"] is None:
            reason = (
                "it holds objects that cannot be kept, as they lack the methods "
                "state_dict and load_state_dict"
            )
        elif lacking:
            reason = (
                f"{' and '.join(lacking)}, of which only the state was kept, must be "
                "made in on_train_begin or before"
            )
        if reason:
            warnings.warn(
                f"{course} goes on, but the callback {name!r} begins anew: {reason}. "
                "Training will not end as it would have uninterrupted",
                stacklevel=2,
            )
        else:
            schedules |= _restore(callback, before["state"], parts)
    return schedules


# -- one callback ----------------------------------------------------------------------


def _has(callback: Callback) -> bool:
    """Return whether a callback has a state at all: some of skorch's only report."""
    reports = type(callback).__module__ == "skorch.callbacks.logging"
    return not reports and type(callback) is not TrainEndCheckpoint


def _describe(callback: Callback) -> dict[str, Any]:
    found, parts = _state(callback)
    state = pack(found)
    return {
        "kind": _kind(callback),
        "parameters": _parameters(callback),
        "state": state if _archive.is_plain(state) else None,
        "parts": parts,
    }


def _kind(callback: Callback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def _parameters(callback: Callback) -> dict[str, str]:
    if _keeps_itself(callback):
        return {}
    held = vars(callback)
    return {k: describe_value(held[k]) for k in _parameter_names(callback)}


def _parameter_names(callback: Callback) -> list[str]:
    taken = inspect.signature(type(callback)).parameters
    any_name = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    return [
        name
        for name in vars(callback)
        if name in taken or (any_name and not name.endswith("_"))
    ]


def _state(callback: Callback) -> tuple[dict[str, Any], list[str]]:
    """Return all but parameters, and which of these are objects with a ``state_dict``.

    In their place is what it returns.
    """
    if _keeps_itself(callback):
        return {"": callback.state_dict()}, []
    parameters = _parameter_names(callback)
    state, parts = {}, []
    for name, value in vars(callback).items():
        if name in parameters or isinstance(
            value, type | FunctionType | BuiltinFunctionType
        ):
            continue
        is_part = _keeps_itself(value)
        packed = value.state_dict() if is_part else value
        # Left out is what was made from a parameter, such as a scorer from `scoring`.
        if _archive.is_plain(pack(packed)) or name.rstrip("_") not in parameters:
            state[name] = packed
            if is_part:
                parts.append(name)
    return state, parts


def _restore(callback: Callback, state: dict[str, Any], parts: list[str]) -> bool:
    """Restore a state; return whether any object with a state of its own was there."""
    found = unpack(state)
    if _keeps_itself(callback):
        callback.load_state_dict(found[""])
        return True
    schedules = False
    for name, value in found.items():
        part: Any = getattr(callback, name, None)
        schedules |= _keeps_itself(part)
        if name in parts:
            part.load_state_dict(value)
        else:
            setattr(callback, name, value)
    return schedules


def _keeps_itself(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


# -- plain values ----------------------------------------------------------------------


def pack(value: Any) -> Any:
    """Turn tensors and other values that archives cannot hold into ones that they can.

    Parameters
    ----------
    value : object
        Nested dicts, ordered dicts, counters, lists, tuples, sets, frozen sets, tensors
        and plain values.

    Returns
    -------
    object
        Plain values, if everything nested could be turned into such.
    """
    if isinstance(value, Tensor):
        return {"tensor": state_to_numpy(value)}
    # Others only by their exact types: what comes back must behave as it did before,
    # which a dict in place of a defaultdict does not.
    kind = type(value)
    if kind is dict:
        return {"dict": {key: pack(inner) for key, inner in value.items()}}
    if kind is OrderedDict:
        return {"ordered": pack(dict(value))}
    if kind is Counter:
        return {"counter": pack(dict(value))}
    if kind is set:
        return {"set": [pack(inner) for inner in sorted(value, key=repr)]}
    if kind is frozenset:
        return {"frozen": pack(set(value))}
    if kind in (list, tuple):
        return kind(pack(inner) for inner in value)
    return value


def unpack(value: Any) -> Any:
    """Undo :func:`pack`.

    Parameters
    ----------
    value : object
        What :func:`pack` returned.

    Returns
    -------
    object
        What was packed.
    """
    match value:
        case {"tensor": array}:
            return torch.as_tensor(array)
        case {"counter": counts}:
            return Counter(unpack(counts))
        case {"ordered": items}:
            return OrderedDict(unpack(items))
        case {"dict": inner}:
            return {key: unpack(v) for key, v in inner.items()}
        case {"set": members}:
            return {unpack(member) for member in members}
        case {"frozen": members}:
            return frozenset(unpack(members))
        case list() | tuple():
            return type(value)(unpack(inner) for inner in value)
    return value
