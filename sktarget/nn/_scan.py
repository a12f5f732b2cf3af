"""Elementwise linear recurrences over time, without a loop over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["linear_scan"]


def linear_scan(decay: Tensor, gain: Tensor) -> Tensor:
    """Compute ``c(t) = decay(t) c(t − 1) + gain(t)`` from ``c(0) = 0``, elementwise.

    Parameters
    ----------
    decay, gain : Tensor of shape (n, time, features)
        Coefficients, time along the second axis.

    Returns
    -------
    Tensor of shape (n, time, features)
        The states c.

    Notes
    -----
    By recursive doubling: about log₂(time) passes over whole tensors, each joining
    neighbouring stretches of time.  Nothing is divided, so decays of 0 are legal.
    The gradient is the same recurrence, run backwards.

    Examples
    --------
    >>> import torch
    >>> linear_scan(torch.full((1, 4, 1), 0.5), torch.ones(1, 4, 1)).flatten()
    tensor([1.0000, 1.5000, 1.7500, 1.8750])
    """
    states: Tensor = _LinearScan.apply(decay, gain)  # type: ignore[no-untyped-call]
    return states


class _LinearScan(torch.autograd.Function):
    """With δ(t) = ∂L/∂c(t), all later times included: ∂gain = δ, ∂decay = δ c(t − 1).

    δ(t) = ∂c(t) + decay(t + 1) δ(t + 1).
    """

    @staticmethod
    def forward(ctx: Any, decay: Tensor, gain: Tensor) -> Tensor:
        states = _double(decay, gain, forwards=True)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        following = torch.zeros_like(decay)
        following[:, :-1] = decay[:, 1:]
        d_gain = _double(following, d_states, forwards=False)
        d_decay = torch.zeros_like(decay)
        torch.mul(d_gain[:, 1:], states[:, :-1], out=d_decay[:, 1:])
        return d_decay, d_gain


def _double(decay: Tensor, gain: Tensor, *, forwards: bool) -> Tensor:
    """Join stretches of time of doubling length, until one stretch is left."""
    n_steps, step = gain.shape[1], 1
    while step < n_steps:
        near, far = slice(None, -step), slice(step, None)
        if not forwards:
            near, far = far, near
        joined = gain.clone()
        joined[:, far].addcmul_(decay[:, far], gain[:, near])
        gain, step = joined, 2 * step
        if step < n_steps:
            product = decay.clone()
            product[:, far] *= decay[:, near]
            decay = product
    return gain
