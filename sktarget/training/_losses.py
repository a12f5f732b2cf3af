"""Means over weighted rows and steps, and the penalty on the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Loss", "common_unit", "mean_over_rows", "over_steps", "squared_norm"]

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Result = TypeVar("Result")


def mean_over_rows(per_row: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighted mean of the losses of rows.

    The weights have mean 1 over the training set, so a mini-batch of rows estimates the
    mean without bias, and none of zero weight divides by zero.

    Parameters
    ----------
    per_row : Tensor of shape (m,)
        Losses.
    weight : Tensor of shape (m,), optional
        Weights of the rows.

    Returns
    -------
    Tensor of shape ()
        The mean.
    """
    return (per_row if weight is None else per_row * weight).mean()


def common_unit(units: Tensor) -> float:
    """Return the root mean square of some units; a single one is returned exactly."""
    most = float(units.max())
    return most * math.sqrt((units.double() / most).square().mean().item())


def over_steps(
    measure: Callable[[Tensor, Tensor, Tensor | None], Result],
) -> Callable[[Tensor, Tensor, Tensor | None], Result]:
    """Turn a loss or a score over rows into one over the steps of sequences.

    Parameters
    ----------
    measure : callable
        A function of sums (m, n_outputs), y and weights, or None, of m rows.

    Returns
    -------
    callable
        The same of sums (n, time, n_outputs), y and weights (n, time) or None.  Where y
        is -1 of class indices (n, time), or NaN of numbers (n, time, n_outputs), a step
        does not count.  A mean is over the steps of a batch that count: where sequences
        differ in length, those of a batch of short ones weigh more.

    Examples
    --------
    >>> import torch
    >>> sums, y = torch.zeros(1, 2, 3), torch.tensor([[2, -1]])
    >>> over_steps(lambda sums, y, weight: len(y))(sums, y, None)
    1
    """

    def of_steps(sums: Tensor, y: Tensor, weight: Tensor | None) -> Result:
        counts = ~y[..., 0].isnan() if y.is_floating_point() else y >= 0
        per_step = None if weight is None else weight[counts]
        return measure(sums[counts], y[counts], per_step)

    return of_steps


class _SquaredNorm(torch.autograd.Function):
    """One node for all layers: cheaper than two nodes per layer."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        norms = [torch.linalg.vector_norm(w) for w in weights]
        return torch.stack(norms).square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(w * (2 * grad) for w in ctx.saved_tensors)


def squared_norm(weights: Sequence[Tensor]) -> Tensor:
    """Sum the squares of all elements of all tensors.

    Parameters
    ----------
    weights : sequence of Tensor
        At least one tensor; all of one dtype and device.

    Returns
    -------
    Tensor of shape ()
        The sum, differentiable once.

    Examples
    --------
    >>> import torch
    >>> squared_norm([torch.ones(3), torch.full((2,), 2.0)])
    tensor(11.)
    """
    total: Tensor = _SquaredNorm.apply(*weights)  # type: ignore[no-untyped-call]
    return total
