"""Which layers can be learnt by targets, and what stands in for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from sktarget.nn._stand_in import StandIn

__all__ = ["is_registered", "register", "stand_in_for"]

_S = TypeVar("_S", bound=StandIn)
_Make = Callable[[Any, str], StandIn]
_registry: dict[type[nn.Module], tuple[_Make, Callable[[Any], bool]]] = {}


def register(
    kind: type[nn.Module], accepts: Callable[[Any], bool] = lambda layer: True
) -> Callable[[type[_S]], type[_S]]:
    """Register a class of layers that stand in for a kind of torch layers.

    Parameters
    ----------
    kind : type
        Class of the ordinary layer.  Subclasses of it are not replaced: what they
        do with their weights is not known.
    accepts : callable, optional
        Returns whether an ordinary layer can be replaced; by default all can.

    Returns
    -------
    callable
        Class decorator; the class is called with (layer, name).
    """

    def decorate(cls: type[_S]) -> type[_S]:
        _registry[kind] = cls, accepts
        return cls

    return decorate


def is_registered(layer: nn.Module) -> bool:
    """Return whether there are target layers for the kind of a layer."""
    return type(layer) in _registry


def stand_in_for(layer: nn.Module, name: str) -> StandIn | None:
    """Make the target layer for an ordinary one, or None if its kind has none.

    Parameters
    ----------
    layer : nn.Module
        The ordinary layer.
    name : str
        Its path in the wrapped module.

    Returns
    -------
    StandIn or None
        A layer without targets yet, holding the weights of `layer`.
    """
    entry = _registry.get(type(layer))
    if entry is None:
        return None
    make, accepts = entry
    return make(layer, name) if accepts(layer) else None
