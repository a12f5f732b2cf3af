"""Sequences of unequal lengths, packed and padded."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

__all__ = ["Packing"]


class _Layout(NamedTuple):
    """Which row of packed sequences goes where.

    `packed` are sequences of these `lengths`, packed; `shape` is (n, time), and
    `places` says where in as many padded rows each row belongs.
    """

    packed: PackedSequence
    lengths: Tensor
    shape: torch.Size
    places: Tensor


class Packing:
    """How a batch of sequences was packed, if it was.

    Torch's own functions move data step by step, which in the backward pass takes
    time quadratic in the number of steps.  So they only find out which row goes where.

    Parameters
    ----------
    layout : _Layout or None
        Where rows go, if the batch was packed.  :meth:`of` and :meth:`before_padding`
        find it out.

    Attributes
    ----------
    lengths : Tensor of shape (n,) or None
        Number of steps of every sequence, if packed; otherwise None.

    Examples
    --------
    >>> import torch
    >>> padded = torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]]])
    >>> packing = Packing.before_padding(padded, torch.tensor([2, 1]))
    >>> packed = packing.pack(padded)
    >>> packed.data.flatten()
    tensor([1., 3., 2.])
    >>> packing.pad(packed).flatten()
    tensor([1., 2., 3., 0.])
    """

    def __init__(self, layout: _Layout | None) -> None:
        self._layout = layout
        self.lengths = None if layout is None else layout.lengths

    @classmethod
    def of(cls, inputs: Tensor | PackedSequence) -> Packing:
        """Return how a batch was packed: (n, time, features) if it was not."""
        if not isinstance(inputs, PackedSequence):
            return cls(None)
        device, n_rows = inputs.data.device, len(inputs.data)
        numbers = torch.arange(1, n_rows + 1, device=device)[:, None]
        where, lengths = pad_packed_sequence(
            inputs._replace(data=numbers), batch_first=True
        )
        places = where.flatten().argsort()[-n_rows:]
        return cls(_Layout(inputs, lengths.to(device), where.shape[:2], places))

    @classmethod
    def before_padding(cls, padded: Tensor, lengths: Tensor) -> Packing:
        """Return how to pack sequences (n, time, features) of these lengths."""
        shape = padded.shape[:2]
        numbers = torch.arange(shape.numel(), device=padded.device)
        packed = pack_padded_sequence(
            numbers.view(shape), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return cls(_Layout(packed, lengths, shape, packed.data))

    def pad(self, inputs: Tensor | PackedSequence) -> Tensor:
        """Turn a batch packed in this way into one of shape (n, time, features)."""
        if not isinstance(inputs, PackedSequence):
            return inputs
        assert self._layout is not None  # Only packed batches lead to packed ones.
        rows, shape = inputs.data, self._layout.shape
        padded = rows.new_zeros(shape.numel(), rows.shape[1])
        return padded.index_copy(0, self._layout.places, rows).view(*shape, -1)

    def pack(self, padded: Tensor) -> Tensor | PackedSequence:
        """Turn (n, time, features) into a batch packed in this way."""
        if self._layout is None:
            return padded
        rows = padded.flatten(0, 1)[self._layout.places]
        return self._layout.packed._replace(data=rows)
