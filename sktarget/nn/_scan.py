"""Elementwise linear recurrences over time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sktarget.nn._backward import backward_once

__all__ = ["linear_scan"]

# On the CPU, larger steps take less time one by one: each number is read once.
_MANY = 1 << 9


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
    Runs step by step, in place, on the CPU; on a GPU, and where steps are small, by
    recursive doubling: about log₂(time) passes over whole tensors, each joining
    neighbouring stretches of time.  There is no division, so decays may be 0.  The
    gradient is the same recurrence, run backwards.

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
        states = _scan(decay, gain, forwards=True)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @backward_once
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        d_gain = _scan(decay, d_states, forwards=False)
        d_decay = torch.zeros_like(decay)
        torch.mul(d_gain[:, 1:], states[:, :-1], out=d_decay[:, 1:])
        return d_decay, d_gain


def _scan(decay: Tensor, gain: Tensor, *, forwards: bool) -> Tensor:
    """Run the recurrence; backwards, each step takes the decay of the step after."""
    if not gain.is_cpu or gain[:, :1].numel() < _MANY:
        return _scan_by_doubling(decay, gain, forwards=forwards)
    states = gain.clone()
    steps, decays = states.unbind(1), decay.unbind(1)[1:]
    if not forwards:
        steps, decays = steps[::-1], decays[::-1]
    for (before, now), kept in zip(pairwise(steps), decays, strict=True):
        now.addcmul_(kept, before)
    return states


def _scan_by_doubling(decay: Tensor, gain: Tensor, *, forwards: bool) -> Tensor:
    """Join stretches of time of doubling length, until one stretch is left."""
    if not forwards:
        decay = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], dim=1)
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
