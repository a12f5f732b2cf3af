"""The way back of a node in the arithmetic of its own tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

__all__ = ["outside_autocast"]

Backward = TypeVar("Backward", bound=Callable[..., Any])


def outside_autocast(backward: Backward) -> Backward:
    """Switch autocast off while ``backward(ctx, ...)`` runs.

    Layers switch it off on their way there; whoever calls ``loss.backward()`` within it
    would have some of the products of the way back in half precision, and others not.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Any) -> Any:
        kind = next((g.device.type for g in gradients if g is not None), "cpu")
        if not torch.is_autocast_enabled(kind):
            return backward(ctx, *gradients)
        with torch.autocast(kind, enabled=False):
            return backward(ctx, *gradients)

    return cast(Backward, run)
