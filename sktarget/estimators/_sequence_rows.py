"""Training rows that are sequences: labels of steps, and X̄."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets

from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._drawing import noise_batch
from sktarget.estimators._fixed_batch import choose_fixed_batch
from sktarget.estimators._rows import TrainingRows, relative_weights
from sktarget.estimators._sequence_data import Sequences, as_steps
from sktarget.training import TensorData

__all__ = ["SequenceRows", "choose_fixed_sequences", "read_step_labels"]

Array = NDArray[Any]

# X̄ in the space of an embedding is uniform on ± this (Sec. 5.4).
_NOISE_RANGE = 1.0


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


def read_step_labels(
    y: Any, sequences: Sequences, n_ignored: int
) -> tuple[Array, Array]:
    """Read a label for each step.

    Parameters
    ----------
    y : array-like of shape (n, time), or list of array-like of shape (t_i,)
        Labels; -1 or NaN marks steps that do not count.
    sequences : Sequences
        The sequences; labels of padding do not count.
    n_ignored : int
        How many steps do not count at the beginning of each sequence.

    Returns
    -------
    labels : ndarray of shape (m,)
        The labels that count, sequence by sequence.
    counts : ndarray of bool of shape (n, time)
        Which steps they belong to.

    Raises
    ------
    ValueError
        If y differs from X in length, holds real numbers, or no label counts.
    """
    if y is None:
        raise ValueError("y must be given, it is None")
    counts = sequences.real
    n = len(counts)
    if not isinstance(y, list | tuple):
        y = np.asarray(y)
    if len(y) != n:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"{[n, len(y)]} (X and y)"
        )
    if isinstance(y, np.ndarray) and y.shape == counts.shape:
        labels = y[counts]
    else:
        labels = _join(y, sequences)
    valid = ~_is_ignored(labels)
    counts[counts] = valid
    kept = counts.copy()
    kept[:, :n_ignored] = False
    labels = _plain(labels[valid][kept[counts]])
    if len(labels) == 0:
        raise ValueError(
            "no label of y counts: each is -1 or NaN, belongs to padding, or to the "
            f"first n_ignored_steps={n_ignored} steps"
        )
    check_classification_targets(labels)
    return labels, kept


def _join(y: Any, sequences: Sequences) -> Array:
    """Concatenate the labels of all real steps."""
    width = sequences.values.shape[1]
    sizes = sequences.lengths if sequences.sizes is None else sequences.sizes
    parts = []
    for i, (item, size) in enumerate(zip(y, sizes, strict=True)):
        row = np.asarray(item)
        if row.ndim != 1:
            raise ValueError(
                "with return_sequences=True, y must hold a label for every step: an "
                "array of shape (n, time) or a list of arrays of shape (t_i,); item "
                f"{i} has shape {row.shape}"
            )
        # The sequences of a list are not padded.
        padded = size if sequences.sizes is not None else width
        if len(row) not in (size, padded):
            raise ValueError(
                f"y has {len(row)} labels for sequence {i}, but X has {size} steps "
                f"there{'' if size == padded else f' ({padded} with padding)'}"
            )
        parts.append(row[: sequences.lengths[i]])
    return np.concatenate(parts)


def _is_ignored(labels: Array) -> Array:
    """Find -1 and NaN among labels of any type."""
    if labels.dtype.kind in "if":
        return np.asarray((labels == -1) | np.isnan(labels))
    if labels.dtype.kind == "O":
        marks = [_is_missing(x) or (_is_number(x) and x == -1) for x in labels]
        return np.array(marks, dtype=bool)
    return np.zeros(len(labels), dtype=bool)


def _is_missing(x: Any) -> bool:
    same = x == x  # False for NaN; pandas' NA gives NA.
    return x is None or not isinstance(same, bool | np.bool_) or not same


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | np.number) and not isinstance(x, bool)


def _plain(labels: Array) -> Array:
    """Return labels in the type that they would have had without -1 and NaN."""
    if labels.dtype.kind == "O":
        labels = np.array(labels.tolist())
    if labels.dtype.kind == "f" and (labels == np.trunc(labels)).all():
        return labels.astype(np.int64)
    return labels


def choose_fixed_sequences(
    rows: TrainingRows,
    fixed_batch: Any,
    size: int | None,
    length: int,
    embedding_dim: int | None,
    seed: int,
) -> Array:
    """Choose X̄ of sequences.

    Parameters
    ----------
    rows : TrainingRows
        Training sequences.
    fixed_batch : {"sample", "noise"} or array-like
        Kind of X̄; or X̄ itself, (n̄_b, n̄_t) or (n̄_b, channels, n̄_t).
    size : int or None
        n̄_b, or None for all.
    length : int
        n̄_t: sampled sequences are cut to their first steps.
    embedding_dim : int or None
        Width of the embedding, for token ids.
    seed : int
        Decides the draw.

    Returns
    -------
    ndarray of shape (n̄_b, n̄_t, channels)
        X̄; ``rows.X`` itself where that is taken whole.

    Raises
    ------
    ValueError
        If a given X̄ cannot be used, or `size` or `length` exceeds the data.
    """
    X = rows.X
    n_channels = embedding_dim if X.ndim == 2 else X.shape[2]
    if not isinstance(fixed_batch, str):
        return _given(fixed_batch, rows.dtype, n_channels)
    n = len(rows) if size is None else size
    if embedding_dim is not None:
        noise = np.random.RandomState(seed).uniform(
            -_NOISE_RANGE, _NOISE_RANGE, (n, length, embedding_dim)
        )
        return noise.astype(rows.dtype)
    if fixed_batch == "noise":
        real = ~np.isnan(X[..., 0])
        weight = None
        if rows.weight is not None:
            weight = np.repeat(rows.weight, real.sum(axis=1))
        return noise_batch(X[real], n * length, seed, weight).reshape(n, length, -1)
    if length > X.shape[1]:
        raise ValueError(
            f"fixed_sequence_length={length} is more than the longest sequence has: "
            f"{X.shape[1]} steps. Use fixed_batch='noise', or None for all steps"
        )
    chosen, _ = choose_fixed_batch(rows, fixed_batch, size, seed)
    return chosen if length == X.shape[1] else chosen[:, :length]


def _given(fixed_batch: Any, dtype: Any, n_channels: int | None) -> Array:
    try:
        array = check_array(
            fixed_batch, dtype=dtype, allow_nd=True, ensure_all_finite="allow-nan"
        )
        values, _ = as_steps(array, "fixed_batch")
    except (TypeError, ValueError) as error:
        raise ValueError(f"fixed_batch cannot be used: {error}") from None
    if array.ndim > 3 or values.shape[2] != n_channels:
        raise ValueError(
            f"fixed_batch has shape {array.shape}, but (n̄_b, {n_channels}, n̄_t) is "
            f"needed: sequences of {n_channels} channel(s)"
        )
    return np.array(values)
