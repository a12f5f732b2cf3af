"""Sequences of token ids as users give them, padded with 0 or in lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names

from sktarget.estimators._sequence_data import (
    Sequences,
    count_steps,
    is_list,
    refuse_empty,
)

__all__ = ["read_tokens"]

Array = NDArray[Any]


def read_tokens(
    estimator: BaseEstimator, X: Any, vocabulary_size: int, *, reset: bool
) -> Sequences:
    """Validate sequences of token ids.

    Parameters
    ----------
    estimator : estimator
        Gets one feature, the token, on the first fit.
    X : array-like of int of shape (n, time), or list
        Token ids, 0 for padding; or a list of arrays of ids of shape (t_i,).
    vocabulary_size : int
        Number of ids.
    reset : bool
        Whether this is the first fit.

    Returns
    -------
    Sequences
        The ids.

    Raises
    ------
    ValueError
        If there is no token at all, or an id is out of range or not an integer.
    """
    sizes = None
    if sparse.issparse(X):
        raise TypeError("token ids must be a dense array or a list, X is sparse")
    if is_list(X):
        X, sizes = _pad_tokens(X)
    ids = np.asarray(X)
    if ids.ndim != 2:
        raise ValueError(
            f"Expected 2D array of token ids, (n, time), got shape {ids.shape}"
        )
    if 0 in ids.shape:
        raise ValueError(f"X of shape {ids.shape} holds no token: nothing to work on")
    if ids.dtype.kind not in "iu":
        raise ValueError(
            f"token ids must be integers, but X has dtype {ids.dtype}: use "
            "X.astype(int), or vocabulary_size=None for series of real numbers"
        )
    wrong = (ids < 0) | (ids >= vocabulary_size)
    if wrong.any():
        row, step = np.argwhere(wrong)[0]
        raise ValueError(
            f"X holds the token id {ids[row, step]} (row {row}, step {step}), but with "
            f"vocabulary_size={vocabulary_size} ids run from 0, which is padding, to "
            f"{vocabulary_size - 1}"
        )
    lengths = count_steps(np.not_equal(ids, 0))
    refuse_empty(lengths, "X", "token id 0")
    if reset:
        _check_feature_names(estimator, ids, reset=True)
        estimator.n_features_in_ = 1
    return Sequences(ids.astype(np.int64), lengths, sizes)


def _pad_tokens(X: Sequence[ArrayLike]) -> tuple[Array, Array]:
    """Stack (t_i,) arrays of ids as (n, time), 0 after their ends."""
    items = [np.asarray(item) for item in X]
    for i, array in enumerate(items):
        if array.ndim != 1 or array.size == 0:
            raise ValueError(
                f"Expected 2D array, or a list of token ids of shape (t_i,), t_i at "
                f"least 1, but item {i} of X has shape {array.shape}"
            )
    sizes = np.array([len(array) for array in items])
    padded = np.zeros((len(items), sizes.max()), dtype=np.result_type(*items))
    for row, array in zip(padded, items, strict=True):
        row[: len(array)] = array
    return padded, sizes
