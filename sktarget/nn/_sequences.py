"""Batches of sequences and their lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

__all__ = ["Packing", "last_steps", "real_rows", "reverse", "shift"]


class Packing:
    """How a batch of sequences was packed, if it was.

    Parameters
    ----------
    inputs : Tensor of shape (n, time, features) or PackedSequence
        The batch, as a recurrent layer was given it.

    Attributes
    ----------
    lengths : Tensor of shape (n,) or None
        Number of steps of every sequence, if packed; otherwise None.
    """

    def __init__(self, inputs: Tensor | PackedSequence) -> None:
        self.lengths: Tensor | None = None
        if isinstance(inputs, PackedSequence):
            device, n_rows = inputs.data.device, len(inputs.data)
            # Torch's own functions write step by step, which on the way back takes a
            # time quadratic in the steps.  So they only tell which row goes where.
            numbers = torch.arange(1, n_rows + 1, device=device)[:, None]
            where, lengths = pad_packed_sequence(
                inputs._replace(data=numbers), batch_first=True
            )
            self.lengths = lengths.to(device)
            self._packed, self._shape = inputs, where.shape[:2]
            self._places = where.flatten().argsort()[-n_rows:]

    def stacks_on(self, targets: Tensor) -> bool:
        """Tell whether other sequences were packed together with those of X̄."""
        return self.lengths is not None and len(self.lengths) != len(targets)

    def pad(self, inputs: Tensor | PackedSequence) -> Tensor:
        """Turn such a batch into one of shape (n, time, features)."""
        if not isinstance(inputs, PackedSequence):
            return inputs
        rows = inputs.data
        padded = rows.new_zeros(self._shape.numel(), rows.shape[1])
        return padded.index_copy(0, self._places, rows).view(*self._shape, -1)

    def pack(self, padded: Tensor) -> Tensor | PackedSequence:
        """Turn (n, time, features) into such a batch."""
        if self.lengths is None:
            return padded
        return self._packed._replace(data=padded.flatten(0, 1)[self._places])


def shift(states: Tensor) -> Tensor:
    """Delay states (n, time, features) by one step, zeros first."""
    delayed: Tensor = _Shift.apply(states)  # type: ignore[no-untyped-call]
    return delayed


class _Shift(torch.autograd.Function):
    """Padding of a slice would write all zeros first, there and back."""

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
    """Reverse every sequence of (n, time, features) in time, padding left behind.

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
    """Stack the steps of all sequences as rows, those of padding left out."""
    if lengths is None:
        return padded.flatten(0, 1)
    step = torch.arange(padded.shape[1], device=padded.device)
    return padded[step < lengths[:, None]]


def last_steps(padded: Tensor, lengths: Tensor | None) -> Tensor:
    """Take the last step of every sequence that is not padding."""
    if lengths is None:
        return padded[:, -1]
    return padded[torch.arange(len(padded), device=padded.device), lengths - 1]
