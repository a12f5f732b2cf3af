"""What the backward passes of all nodes have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["backward_once"]

Backward = TypeVar("Backward", bound=Callable[..., Any])


def backward_once(backward: Backward) -> Backward:
    """Decorate ``backward(ctx, ...)`` to run outside of autocast, and only once.

    This is ``torch.autograd.function.once_differentiable`` with autocast switched off
    and an error that says what to do instead.  Layers switch autocast off in the
    forward pass; a ``loss.backward()`` called within autocast would run some products
    of the backward pass in half precision, and others not.

    Second derivatives are not supported.  With ``create_graph=True`` gradients get a
    node that raises when differentiated; without that node, a penalty on gradients
    would silently contribute nothing.
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
        return tuple(None if d is None else _once_only(d) for d in found)

    return cast(Backward, run)


def _once_only(gradient: Tensor) -> Tensor:
    passed_on: Tensor = _OnceOnly.apply(  # type: ignore[no-untyped-call]
        gradient.detach().requires_grad_()
    )
    return passed_on


class _OnceOnly(torch.autograd.Function):
    """Pass a gradient on; raise when it is differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Tensor:
        raise RuntimeError(
            "a network in target space has no second derivatives, which penalties on "
            "gradients and differential equations need: net.realise() returns an "
            "ordinary network that has them, with respect to its weights"
        )
