"""Dense layers with the faster of PyTorch's products of matrices, and gradients."""

from __future__ import annotations

from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget._tensors import is_readable, is_recorded
from sktarget.linalg import is_for_onednn, product

__all__ = ["Linear", "affine"]

# Fewer multiplications do not pay for a node in the graph.
_MANY_IN_GRAPH = 1 << 21


class Linear(nn.Linear):
    """``nn.Linear`` with the faster product of matrices.

    Attributes
    ----------
    input_units : pair of Tensors of shape (k,), or None
        Origin and unit of every input.  The layer's outputs do not depend on them; in
        target space it is solved for as if its inputs were measured in these.

    Examples
    --------
    >>> layer = Linear(2, 3)
    >>> layer
    Linear(in_features=2, out_features=3, bias=True)
    >>> layer(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    input_units: tuple[Tensor, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        return affine(input, self.weight, self.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Form ``x @ weight.T + bias``, as ``torch.nn.functional.linear`` does.

    Parameters
    ----------
    x : Tensor of shape (..., k)
        Inputs; gradients flow through, to any order.
    weight : Tensor of shape (m, k)
        Weights, one row for each output.
    bias : Tensor of shape (m,), optional
        Added to every row.

    Returns
    -------
    Tensor of shape (..., m)
        The outputs.

    Examples
    --------
    >>> affine(torch.ones(1, 2), torch.eye(2), torch.tensor([1.0, 2.0]))
    tensor([[2., 3.]])
    """
    # Most products are small, and there every test counts: size is tested early.
    if (
        type(x) is Tensor
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and is_for_onednn(x, weight.shape[0])
        and _is_plain_call(x, weight, bias)
        and is_readable(x, weight)
    ):
        rows = x if x.ndim == 2 else x.flatten(0, -2)
        if is_recorded(x, weight, bias):
            out: Tensor = _Affine.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
        else:
            out = product(rows, weight.T, bias)
        return out if x.ndim == 2 else out.view(*x.shape[:-1], -1)
    return F.linear(x, weight, bias)


class _Affine(torch.autograd.Function):
    """With dy = ∂L/∂y for ``y = x Wᵀ + b``: dx = dy W, dW = dyᵀ x and db = Σ dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight.T, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            affine(dy, weight.T) if of_x else None,
            affine(dy.T, x.T) if of_weight else None,
            dy.sum(0) if of_bias else None,
        )


def _is_plain_call(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether this is a plain product: no subclass, autocast or forward mode.

    If it is recorded for gradients, it must be large enough for a node in the graph.
    """
    return (
        x.ndim > 1
        and x.shape[-1] == weight.shape[1]  # or torch has the better message
        and all(type(p) in (Tensor, nn.Parameter, NoneType) for p in (weight, bias))
        and weight.dtype == x.dtype
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
        and (
            not is_recorded(x, weight, bias)
            or x.numel() * weight.shape[0] >= _MANY_IN_GRAPH
        )
    )
