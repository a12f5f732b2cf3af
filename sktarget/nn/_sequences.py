"""Batches of sequences and their lengths."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

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
            self._packed = inputs
            self.lengths = pad_packed_sequence(inputs)[1].to(inputs.data.device)

    def stacks_on(self, targets: Tensor) -> bool:
        """Tell whether other sequences were packed together with those of X̄."""
        return self.lengths is not None and len(self.lengths) != len(targets)

    def pad(self, inputs: Tensor | PackedSequence) -> Tensor:
        """Turn such a batch into one of shape (n, time, features)."""
        if isinstance(inputs, PackedSequence):
            return pad_packed_sequence(inputs, batch_first=True)[0]
        return inputs

    def pack(self, padded: Tensor) -> Tensor | PackedSequence:
        """Turn (n, time, features) into such a batch."""
        if self.lengths is None:
            return padded
        _, sizes, order, back = self._packed
        lengths = self.lengths
        if order is not None:
            padded, lengths = padded[order], lengths[order]
        data = pack_padded_sequence(padded, lengths.cpu(), batch_first=True).data
        return PackedSequence(data, sizes, order, back)


def shift(states: Tensor) -> Tensor:
    """Delay states (n, time, features) by one step, zeros first."""
    return F.pad(states[:, :-1], (0, 0, 1, 0))


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
