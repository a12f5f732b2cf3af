"""The loss at the top, and the slope that the first target follows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["BatchLoss", "loss_and_slope"]

BatchLoss = Callable[[Tensor, Tensor | None], Tensor]
"""Maps (outputs, weights of the rows or None) to the loss, averaged over rows."""


def loss_and_slope(
    loss: BatchLoss,
    outputs: Tensor,
    at: Tensor,
    weight: Tensor | None,
    within: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss, and the gradient of each row's own loss.

    Parameters
    ----------
    loss : callable
        See ``BatchLoss``.
    outputs : Tensor of shape (n_b, ...)
        Outputs of the network, a function of `at`.
    at : Tensor of shape (n_b, ...)
        Where the gradient is taken.
    weight : Tensor of shape (n_b,) or (n_b, time), or None
        Weights of the rows, or of their steps.
    within : Tensor of shape (n_b, time), optional
        Weights of steps relative to others of the same row.

    Returns
    -------
    loss : Tensor of shape ()
        The weighted loss, with its graph.
    slope : Tensor of the shape of `at`
        Gradient of each row's own loss, in which the row has no weight.

    Examples
    --------
    >>> import torch
    >>> at = torch.ones(4, 1, requires_grad=True)
    >>> loss_and_slope(lambda out, _: out.square().mean(), 3 * at, at, None)[1].T
    tensor([[18., 18., 18., 18.]])
    """
    mean = loss(outputs, within)
    (gradient,) = torch.autograd.grad(mean, at, retain_graph=True)
    weighted = mean if weight is None else loss(outputs, weight)
    return weighted, gradient * len(outputs)
