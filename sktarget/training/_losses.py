"""Losses over weighted rows, and the penalty on the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = [
    "LOSSES",
    "QUADRATIC_ERRORS",
    "Loss",
    "best_constant",
    "common_unit",
    "errors_of_outputs",
    "over_steps",
    "squared_error_in",
    "squared_norm",
]

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Result = TypeVar("Result")


def _mean(per_row: Tensor, weight: Tensor | None) -> Tensor:
    # The weights have mean 1 over the training set, so this estimates the weighted
    # mean without bias, and no batch of zero weight divides by zero.
    return (per_row if weight is None else per_row * weight).mean()


def cross_entropy(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """Softmax and cross-entropy; `y` holds class indices of shape (n,)."""
    if weight is None:
        return F.cross_entropy(sums, y)
    return _mean(F.cross_entropy(sums, y, reduction="none"), weight)


def logistic(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """Binary cross-entropy, summed over outputs; `y` is 0 or 1, of shape (n, k)."""
    losses = F.binary_cross_entropy_with_logits(sums, y, reduction="none")
    return _mean(losses.sum(1), weight)


def squared_error(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """Half the squared error, averaged over outputs; `y` has shape (n, k)."""
    return 0.5 * _mean((sums - y).square().mean(1), weight)


def common_unit(units: Tensor) -> float:
    """Return the root mean square of some units; a single one is returned exactly."""
    most = float(units.max())
    return most * math.sqrt((units.double() / most).square().mean().item())


def squared_error_in(units: Tensor) -> Loss:
    """Make a squared error that measures every output in a unit of its own.

    Parameters
    ----------
    units : Tensor of shape (k,)
        The units, on the device of the outputs.

    Returns
    -------
    callable
        A loss of outputs, y and the weights of the rows.

    Examples
    --------
    >>> import torch
    >>> loss = squared_error_in(torch.tensor([7.0, 1.0]))
    >>> loss(torch.zeros(1, 2), torch.tensor([[7.0, 1.0]]), None)
    tensor(0.5000)
    """

    def in_units(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        return 0.5 * _mean(((sums - y) / units).square().mean(1), weight)

    return in_units


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "logistic": logistic,
    "squared_error": squared_error,
}
"""Losses by name, each of (sums, y, weight of the rows or None)."""


def _quadratic_of_classes(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    truth = F.one_hot(y, sums.shape[-1])
    return _mean((sums.softmax(-1) - truth).square().sum(1), weight)


def _quadratic_of_labels(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    return _mean((sums.sigmoid() - y).square().sum(1), weight)


QUADRATIC_ERRORS: dict[str, Loss] = {
    "cross_entropy": _quadratic_of_classes,
    "logistic": _quadratic_of_labels,
    "squared_error": squared_error,
}
"""Squared errors of the predictions by the names of the losses; for classes, Brier's.

Longer training always adds a few confident mistakes.  Cross-entropy penalises them
without bound, this error each by a bounded amount.
"""


def errors_of_outputs(
    loss: str, sums: Tensor, y: Tensor, weight: Tensor | None
) -> Tensor:
    """Return the squared error of every output, or of classes together, over all rows.

    Parameters
    ----------
    loss : {"cross_entropy", "logistic", "squared_error"}
        What was minimised.
    sums : Tensor of shape (n, k)
        Outputs of the network.
    y : Tensor of shape (n,) or (n, k)
        Outputs as the loss takes them.
    weight : Tensor of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    Tensor of shape (k,), or (1,) for classes
        Mean squares of what the predictions miss; for classes, of all probabilities.

    Examples
    --------
    >>> import torch
    >>> y = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> errors_of_outputs("squared_error", torch.zeros(2, 2), y, None)
    tensor([1., 2.])
    """
    if loss == "cross_entropy":
        return _quadratic_of_classes(sums, y, weight).reshape(1)
    squares = ((sums.sigmoid() if loss == "logistic" else sums) - y).square()
    return (squares if weight is None else squares * weight[:, None]).mean(0)


def best_constant(loss: str, y: Tensor, weight: Tensor | None, n: int) -> Tensor:
    """Return the outputs that fit y best of all that do not depend on the inputs.

    Parameters
    ----------
    loss : {"cross_entropy", "logistic", "squared_error"}
        What is minimised.
    y : Tensor of shape (m,) or (m, n)
        Outputs as the loss takes them.
    weight : Tensor of shape (m,), optional
        Weights of the rows.
    n : int
        Number of outputs of the network.

    Returns
    -------
    Tensor of shape (m, n)
        The same sums for every row.

    Examples
    --------
    >>> import torch
    >>> best_constant("squared_error", torch.tensor([[1.0], [3.0]]), None, 1)
    tensor([[2.],
            [2.]], dtype=torch.float64)
    """
    values = F.one_hot(y, n) if y.ndim == 1 else y
    shares = torch.ones_like(values[:, 0]) if weight is None else weight
    shares = shares.double() / shares.double().sum()
    mean = (values * shares[:, None]).sum(0)
    if loss == "cross_entropy":
        mean = mean.log()
    elif loss == "logistic":
        mean = mean.clamp(0, 1).logit()
    return mean.expand(len(y), n)


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
        does not count.

    Examples
    --------
    >>> import torch
    >>> sums, y = torch.zeros(1, 2, 3), torch.tensor([[2, -1]])
    >>> over_steps(cross_entropy)(sums, y, None)
    tensor(1.0986)
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
