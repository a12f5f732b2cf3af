"""Padded batches of sequences and their lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["last_steps", "real_rows", "reverse", "shift"]


def shift(states: Tensor) -> Tensor:
    """Delay states (n, time, features) by one step, with zeros first."""
    delayed: Tensor = _Shift.apply(states)  # type: ignore[no-untyped-call]
    return delayed


class _Shift(torch.autograd.Function):
    """A single copy; padding a slice would first fill the result with zeros."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        delayed = torch.empty_like(states)
        delayed[:, 0] = 0
        delayed[:, 1:] = states[:, :-1]
        return delayed

    @staticmethod
    def backward(ctx: Any, d_delayed: Tensor) -> Tensor:
        d_states = torch.empty_like(d_delayed)
        d_states[:, -1] = 0
        d_states[:, :-1] = d_delayed[:, 1:]
        return d_states


def reverse(padded: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse every sequence of (n, time, features) in time, with padding kept last.

    Examples
    --------
    >>> import torch
    >>> reverse(torch.tensor([[[1], [2], [0]]]), torch.tensor([2])).flatten()
    tensor([2, 1, 0])
    """
    if lengths is None:
        return padded.flip(1)
    step = torch.arange(padded.shape[1], device=padded.device)
    index = torch.where(step < lengths[:, None], lengths[:, None] - 1 - step, step)
    return padded.gather(1, index[..., None].expand_as(padded))


def real_rows(padded: Tensor, lengths: Tensor | None) -> Tensor:
    """Stack the steps of all sequences as rows, without padding."""
    if lengths is None:
        return padded.flatten(0, 1)
    step = torch.arange(padded.shape[1], device=padded.device)
    return padded[step < lengths[:, None]]


def last_steps(padded: Tensor, lengths: Tensor | None) -> Tensor:
    """Take the last step before padding of every sequence."""
    if lengths is None:
        return padded[:, -1]
    return padded[torch.arange(len(padded), device=padded.device), lengths - 1]
