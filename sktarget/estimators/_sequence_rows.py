"""Training rows that are sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._rows import TrainingRows, relative_weights
from sktarget.training import TensorData

__all__ = ["SequenceRows"]

Array = NDArray[Any]


@dataclass
class SequenceRows(TrainingRows):
    """Validated sequences, those of weight zero left out.

    Attributes
    ----------
    X : ndarray of shape (n, time, channels) or (n, time)
        See :class:`~sktarget.estimators._sequence_data.Sequences`.
    y : ndarray of shape (n, ...) or (n, time, ...)
        Outputs as the loss takes them, of sequences or of steps.
    step_weight : ndarray of shape (n, time) or None
        Weights of the steps; `weight` then holds their mean over each sequence.
    """

    step_weight: Array | None = None

    def _take(self, index: Array) -> None:
        super()._take(index)
        if self.step_weight is not None:
            self.step_weight = self.step_weight[index]

    def to_tensors(self, device: torch.device, dtype: torch.dtype) -> TensorData:
        """Convert the sequences to tensors; weights get the mean 1."""
        data = super().to_tensors(device, dtype)
        if self.step_weight is not None:
            _, mean = relative_weights(self.step_weight[self.step_weight > 0])
            weight = self.step_weight / mean
            data.weight = as_tensor(weight.astype(self.dtype)).to(device)
        return data
