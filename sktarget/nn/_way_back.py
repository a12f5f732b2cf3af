"""What the way back of every node has in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["way_back"]

Backward = TypeVar("Backward", bound=Callable[..., Any])


def way_back(backward: Backward) -> Backward:
    """Run ``backward(ctx, ...)`` as itself, once, and outside of autocast.

    Layers switch autocast off on their way there; whoever calls ``loss.backward()``
    within it would have some of the products of the way back in half precision, and
    others not.

    Gradients are no functions of anything here.  Where torch is to make a graph of
    them, they get a node that refuses to be gone back through, for without it a penalty
    on gradients would be lost and nobody told.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Any) -> Any:
        kind = next((g.device.type for g in gradients if g is not None), "cpu")
        with torch.no_grad():
            if torch.is_autocast_enabled(kind):
                with torch.autocast(kind, enabled=False):
                    found = backward(ctx, *gradients)
            else:
                found = backward(ctx, *gradients)
        if not torch.is_grad_enabled():
            return found
        return tuple(None if d is None else _refusing(d) for d in found)

    return cast(Backward, run)


def _refusing(gradient: Tensor) -> Tensor:
    refusing: Tensor = _OnceOnly.apply(  # type: ignore[no-untyped-call]
        gradient.detach().requires_grad_()
    )
    return refusing


class _OnceOnly(torch.autograd.Function):
    """Hands on a gradient, of which there are none."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Tensor:
        raise RuntimeError(
            "a network in target space has no second derivatives, which penalties on "
            "gradients and differential equations take: net.realise() gives an "
            "ordinary network that has them, for its weights"
        )
