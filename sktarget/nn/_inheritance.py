"""What a layer inherits from the one whose place it takes: hooks and attributes."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

from sktarget.nn._stand_in import StandIn

__all__ = ["as_ordinary", "inherit"]

# Attributes in which torch keeps hooks of the forward and backward passes.
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)


def as_ordinary(layer: StandIn) -> nn.Module:
    """Make the ordinary layer that a target layer amounts to, hooks and all.

    Parameters
    ----------
    layer : StandIn
        The layer, with weights.

    Returns
    -------
    nn.Module
        A layer of the kind that `layer` stands in for.
    """
    ordinary = layer.realise()
    inherit(ordinary, layer, {})
    return ordinary.train(layer.training)


def inherit(new: nn.Module, old: nn.Module, copies: dict[int, Any]) -> None:
    """Let `new`, which takes the place of `old`, inherit its hooks and attributes.

    Hooks that are methods of a module which is copied, or are partial functions of
    such, become those of the copy; `copies` has the copy of each module by the identity
    of the module.
    """
    for name in _HOOKS:
        for key, hook in getattr(old, name).items():
            getattr(new, name)[key] = _rebound(hook, copies)
    new._is_full_backward_hook = old._is_full_backward_hook
    for name in getattr(old, "__constants__", ()):
        if not hasattr(new, name) and hasattr(old, name):
            setattr(new, name, getattr(old, name))
    given = copy.deepcopy(_given(old), copies)
    if isinstance(new, StandIn):
        new.given = given
        given = {k: v for k, v in given.items() if not hasattr(new, k)}
        new.shown = frozenset(given)
    for name, value in given.items():
        setattr(new, name, value)


def _rebound(hook: Any, copies: dict[int, Any]) -> Any:
    if isinstance(hook, functools.partial):
        given = [copies.get(id(value), value) for value in hook.args]
        named = {k: copies.get(id(v), v) for k, v in hook.keywords.items()}
        return functools.partial(_rebound(hook.func, copies), *given, **named)
    owner = hook.__self__ if inspect.ismethod(hook) else None
    if isinstance(owner, nn.Module) and id(owner) in copies:
        return MethodType(hook.__func__, copies[id(owner)])
    return hook


def _given(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes that a user has given to a layer."""
    if isinstance(layer, StandIn):
        return dict(layer.given) | {name: getattr(layer, name) for name in layer.shown}
    usual = _usual_names(type(layer))  # type: ignore[arg-type]
    # Not what `compile` has made: it runs the given layer.
    state = layer.__getstate__()  # type: ignore[no-untyped-call]
    return {name: value for name, value in state.items() if name not in usual}


@functools.cache
def _usual_names(kind: Callable[..., nn.Module]) -> frozenset[str]:
    """Return the names of the attributes that all layers of a registered kind have."""
    layer = kind(1, 1, 1, device="meta")
    declared = *getattr(kind, "__constants__", ()), *kind.__annotations__
    return frozenset(vars(layer)) | {*declared}
