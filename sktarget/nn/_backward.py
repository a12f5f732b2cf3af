"""What the backward passes of all nodes have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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
    would silently contribute nothing.  Autograd passes over nodes that do not lead to
    what it differentiates by, so this one has to lead to all that the decorated one
    depends on, which must save one of its outputs, and to all that its gradients do.
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
        of_both = *gradients, *ctx.saved_tensors
        ties = [t for t in of_both if t is not None and t.requires_grad]
        return tuple(None if d is None else _once_only(d, ties) for d in found)

    return cast(Backward, run)


def _once_only(gradient: Tensor, ties: Sequence[Tensor]) -> Tensor:
    passed_on: Tensor = _OnceOnly.apply(  # type: ignore[no-untyped-call]
        gradient.detach().requires_grad_(), *ties
    )
    return passed_on


class _OnceOnly(torch.autograd.Function):
    """Pass a gradient on; raise when it is differentiated by what `ties` come from."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *ties: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Tensor:
        raise RuntimeError(
            "a network in target space has no second derivatives, which penalties on "
            "gradients and differential equations need: net.realise() returns an "
            "ordinary network that has them, with respect to its weights"
        )
