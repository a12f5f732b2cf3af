"""Sequences of unequal lengths, packed and padded."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

__all__ = ["Packing"]


class Packing:
    """How a batch of sequences was packed, if it was.

    Torch's own functions move data step by step, which in the backward pass takes
    time quadratic in the number of steps.  So they only find out which row goes where.

    Parameters
    ----------
    inputs : Tensor of shape (n, time, features) or PackedSequence
        The batch, as given to a recurrent layer.

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

    def __init__(self, inputs: Tensor | PackedSequence) -> None:
        self.lengths: Tensor | None = None
        if isinstance(inputs, PackedSequence):
            device, n_rows = inputs.data.device, len(inputs.data)
            numbers = torch.arange(1, n_rows + 1, device=device)[:, None]
            where, lengths = pad_packed_sequence(
                inputs._replace(data=numbers), batch_first=True
            )
            self.lengths = lengths.to(device)
            self._packed, self._shape = inputs, where.shape[:2]
            self._places = where.flatten().argsort()[-n_rows:]

    @classmethod
    def before_padding(cls, padded: Tensor, lengths: Tensor) -> Packing:
        """Return how to pack sequences (n, time, features) of these lengths."""
        packing = cls(padded)
        packing.lengths, packing._shape = lengths, padded.shape[:2]
        numbers = torch.arange(packing._shape.numel(), device=padded.device)
        packing._packed = pack_padded_sequence(
            numbers.view(packing._shape),
            lengths.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        packing._places = packing._packed.data
        return packing

    def stacks_on(self, targets: Tensor) -> bool:
        """Return whether other sequences were packed together with those of X̄."""
        return self.lengths is not None and len(self.lengths) != len(targets)

    def pad(self, inputs: Tensor | PackedSequence) -> Tensor:
        """Turn a batch packed in this way into one of shape (n, time, features)."""
        if not isinstance(inputs, PackedSequence):
            return inputs
        rows = inputs.data
        padded = rows.new_zeros(self._shape.numel(), rows.shape[1])
        return padded.index_copy(0, self._places, rows).view(*self._shape, -1)

    def pack(self, padded: Tensor) -> Tensor | PackedSequence:
        """Turn (n, time, features) into a batch packed in this way."""
        if self.lengths is None:
            return padded
        return self._packed._replace(data=padded.flatten(0, 1)[self._places])
