"""Choice of the fixed batch X̄ of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from sktarget.estimators._drawing import noise_batch
from sktarget.estimators._fixed_batch import choose_fixed_batch
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._sequence_rows import real_steps
from sktarget.estimators._series import as_steps

__all__ = ["choose_fixed_sequences"]

Array = NDArray[Any]

# X̄ in the space of an embedding is uniform on ± this (Sec. 5.4).
_NOISE_RANGE = 1.0


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
        steps, weight = real_steps(rows)
        return noise_batch(steps, n * length, seed, weight).reshape(n, length, -1)
    if length > X.shape[1]:
        raise ValueError(
            f"fixed_sequence_length={length} is more than the longest sequence has: "
            f"{X.shape[1]} steps. Use fixed_batch='noise', or None for all steps"
        )
    chosen = choose_fixed_batch(rows, fixed_batch, size, seed).values
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
