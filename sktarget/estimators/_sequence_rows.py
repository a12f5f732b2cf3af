"""Training rows that are sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._sequence_data import Sequences, lengths_of
from sktarget.estimators._weights import relative_weights
from sktarget.training import TensorData

__all__ = ["SequenceRows", "real_steps", "rows_of_steps"]

Array = NDArray[Any]


@dataclass
class SequenceRows(TrainingRows):
    """Validated sequences, those of weight zero left out.

    Steps that are padding in all the others take time, and should decide nothing: they
    are left out, too.

    Attributes
    ----------
    X : ndarray of shape (n, time, channels) or (n, time)
        See :class:`~sktarget.estimators._sequence_data.Sequences`.
    y : ndarray of shape (n, ...) or (n, time, ...)
        Outputs as the loss takes them, of sequences or of steps.
    step_weight : ndarray of shape (n, time) or None
        Weights of the steps; `weight` then holds their mean over each sequence.
    of_steps : bool
        Whether outputs belong to steps.
    """

    step_weight: Array | None = None
    of_steps: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        longest = lengths_of(self.X).max()
        self.X = self.X[:, :longest]
        if self.of_steps:
            self.y = self.y[:, :longest]
        if self.step_weight is not None:
            self.step_weight = self.step_weight[:, :longest]

    def _take(self, index: Array) -> None:
        super()._take(index)
        if self.step_weight is not None:
            self.step_weight = self.step_weight[index]

    def outputs(self) -> tuple[Array, Array | None]:
        """Return numbers at all steps that count, or the outputs of all sequences."""
        if self.y.ndim < 3:
            return super().outputs()
        counts = ~np.isnan(self.y[..., 0])
        weight = None if self.step_weight is None else self.step_weight[counts]
        return self.y[counts], weight

    def to_tensors(self, device: torch.device, dtype: torch.dtype) -> TensorData:
        """Convert the sequences to tensors; weights get the mean 1."""
        data = super().to_tensors(device, dtype)
        if self.step_weight is not None:
            _, mean = relative_weights(self.step_weight[self.step_weight > 0])
            weight = self.step_weight / mean
            data.weight = as_tensor(weight.astype(self.dtype)).to(device)
        return data


def real_steps(rows: TrainingRows) -> tuple[Array, Array | None]:
    """Return the steps of series that are not padding, and their weights.

    Parameters
    ----------
    rows : TrainingRows
        Series (n, time, channels), padded with NaN.

    Returns
    -------
    steps : ndarray of shape (m, channels)
        The steps of all series.
    weight : ndarray of shape (m,) or None
        The weight of the series that each belongs to, if there are any.
    """
    real = ~np.isnan(rows.X[..., 0])
    if rows.weight is None:
        return rows.X[real], None
    return rows.X[real], np.repeat(rows.weight, real.sum(axis=1))


def rows_of_steps(
    sequences: Sequences, outputs: Array, counts: Array, step_weight: Array | None
) -> TrainingRows:
    """Make rows of sequences with outputs at their steps.

    Parameters
    ----------
    sequences : Sequences
        The sequences.
    outputs : ndarray of shape (n, time, ...)
        Outputs as the loss takes them.
    counts : ndarray of bool of shape (n, time)
        Which steps count.
    step_weight : ndarray of shape (n, time) or None
        Weights of the steps; 0 for those that do not count.

    Returns
    -------
    TrainingRows
        Those sequences of which a step counts.
    """
    values = sequences.values
    if step_weight is None:
        index = np.flatnonzero(counts.any(axis=1))
        return SequenceRows(values[index], outputs[index], of_steps=True)
    n_counted = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    weight = (step_weight / n_counted).sum(axis=1)
    return SequenceRows(values, outputs, weight, step_weight=step_weight, of_steps=True)
