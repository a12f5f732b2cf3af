"""Sequences as users give them, in the one form in which networks take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names, validate_data

from sktarget.estimators._arrays import as_array

__all__ = ["Sequences", "as_steps", "mean_length", "read_series", "read_tokens"]

Array = NDArray[Any]


@dataclass
class Sequences:
    """Sequences side by side, padded after their ends.

    Attributes
    ----------
    values : ndarray of shape (n, time, channels) or (n, time)
        Real numbers, with NaN as padding; or token ids, with 0 as padding.
    lengths : ndarray of shape (n,)
        Numbers of steps before padding, at least 1.
    sizes : ndarray of shape (n,) or None
        Numbers of steps of the items of a list; None if an array was given.
    """

    values: Array
    lengths: Array
    sizes: Array | None

    @property
    def longest(self) -> int:
        """Number of steps of the longest sequence; all others are padding."""
        return int(self.lengths.max())

    @property
    def real(self) -> Array:
        """Mark the steps that are not padding, (n, time)."""
        real: Array = np.arange(self.values.shape[1]) < self.lengths[:, None]
        return real

    def cut(self, i: int, given: Array) -> Array:
        """Cut what was given along the steps of a sequence to those before padding.

        Parameters
        ----------
        i : int
            Which sequence.
        given : ndarray of shape (..., t)
            Labels or numbers, with or without those for padding.

        Returns
        -------
        ndarray of shape (..., `lengths[i]`)
            Those that belong to steps.

        Raises
        ------
        ValueError
            If there are more, or fewer, than the sequence has.
        """
        size = (self.lengths if self.sizes is None else self.sizes)[i]
        # The sequences of a list are not padded.
        padded = self.values.shape[1] if self.sizes is None else size
        if given.shape[-1] not in (size, padded):
            raise ValueError(
                f"y has {given.shape[-1]} steps for sequence {i}, but X has {size} "
                f"there{'' if size == padded else f' ({padded} with padding)'}"
            )
        return given[..., : self.lengths[i]]

    def give_back(self, answers: Array, filler: Any) -> Array | list[Array]:
        """Bring answers (n, time, ...) into the form in which the user gave sequences.

        Parameters
        ----------
        answers : ndarray of shape (n, time, ...)
            An answer for each step.
        filler : object
            The answer for padding.

        Returns
        -------
        ndarray of shape (n, time, ...), or list of ndarray of shape (t_i, ...)
            The answers.
        """
        padding = ~self.real
        if padding.any():
            answers = answers.copy()
            answers[padding] = filler
        if self.sizes is None:
            return answers
        return [row[:size] for row, size in zip(answers, self.sizes, strict=True)]


def read_series(
    estimator: BaseEstimator, X: Any, *, reset: bool, univariate: bool | None
) -> tuple[Sequences, bool]:
    """Validate series of real numbers.

    Parameters
    ----------
    estimator : estimator
        Records the number of channels, or has recorded it.
    X : array-like of shape (n, time) or (n, channels, time), or list
        Series, padded with NaN; or a list of arrays of shape (channels, t_i).
    reset : bool
        Whether this is the first fit.
    univariate : bool or None
        Whether X had two axes in ``fit``.

    Returns
    -------
    sequences : Sequences
        The series.
    univariate : bool
        Whether X has two axes.

    Raises
    ------
    ValueError
        If there is no step at all, a missing value within a sequence, or a number of
        channels other than in ``fit``.
    """
    sizes = None
    if _is_list_of_series(X):
        X, sizes = _pad_series(X)
    X = validate_data(
        estimator,
        as_array(X),
        reset=reset,
        dtype=(np.float64, np.float32),
        allow_nd=True,
        ensure_all_finite="allow-nan",
    )
    if X.ndim > 3:
        raise ValueError(
            f"Found array with dim {X.ndim}, but X must be of shape (n, time) or "
            "(n, channels, time)"
        )
    if not reset and univariate is not None and univariate != (X.ndim == 2):
        form = "(n, time)" if univariate else "(n, channels, time), or a list"
        raise ValueError(
            f"X has {X.ndim} axes, but the estimator was fitted with X of shape {form}"
        )
    values, lengths = as_steps(X)
    return Sequences(values, lengths, sizes), X.ndim == 2


def as_steps(X: Array, name: str = "X") -> tuple[Array, Array]:
    """Turn series into steps (n, time, channels), and find their lengths.

    Parameters
    ----------
    X : ndarray of shape (n, time) or (n, channels, time)
        Series, NaN after their ends.
    name : str
        Its name in messages.

    Returns
    -------
    values : ndarray of shape (n, time, channels)
        The steps.
    lengths : ndarray of shape (n,)
        Number of steps before padding.

    Raises
    ------
    ValueError
        If a sequence has no steps, or NaN before its end.
    """
    if X.ndim == 3 and 0 in X.shape[1:]:
        raise ValueError(
            f"{name} of shape {X.shape} has empty sequences: at least one channel and "
            "one step are needed"
        )
    values = X[:, :, None] if X.ndim == 2 else X.transpose(0, 2, 1)
    values = np.ascontiguousarray(values)
    missing: Array = np.isnan(values)
    n, time = missing.shape[:2]
    if not missing.any():
        return values, np.full(n, time)
    lengths = _lengths(np.logical_not(missing.all(axis=2)))
    _refuse_empty(lengths, name, "NaN")
    holes = missing.any(axis=2) & (np.arange(time) < lengths[:, None])
    if holes.any():
        row, step = np.argwhere(holes)[0]
        raise ValueError(
            f"Input {name} contains NaN before the end of a sequence, first in row "
            f"{row} at step {step}: NaN may only pad a sequence after its end, in all "
            "channels alike. Impute missing values first."
        )
    return values, lengths


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
    if _is_list(X):
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
    lengths = _lengths(np.not_equal(ids, 0))
    _refuse_empty(lengths, "X", "token id 0")
    if reset:
        _check_feature_names(estimator, ids, reset=True)
        estimator.n_features_in_ = 1
    return Sequences(ids.astype(np.int64), lengths, sizes)


def mean_length(values: Array) -> float:
    """Count the steps of sequences before padding, and return the mean.

    Parameters
    ----------
    values : ndarray of shape (n, time, channels) or (n, time)
        See :class:`Sequences`.

    Returns
    -------
    float
        Mean number of steps.
    """
    real = np.not_equal(values, 0) if values.ndim == 2 else ~np.isnan(values[..., 0])
    return float(_lengths(real).mean())


def _lengths(real: Array) -> Array:
    """Count the steps up to the last real one; 0 if there is none."""
    n_padded = real[:, ::-1].argmax(axis=1)
    return np.where(real.any(axis=1), real.shape[1] - n_padded, 0)


def _refuse_empty(lengths: Array, name: str, padding: str) -> None:
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise ValueError(
            f"{len(empty)} row(s) of {name} hold nothing but padding ({padding}), "
            f"the first is row {empty[0]}: leave them out"
        )


def _is_list(X: Any) -> bool:
    if isinstance(X, list | tuple):
        return len(X) > 0
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    return kind == "O" and np.ndim(X) == 1


def _is_list_of_series(X: Any) -> bool:
    """Return whether X is a list of (channels, t_i) arrays, not another array-like."""
    if not _is_list(X) or len(X) == 0:
        return False
    items = [_array(item) for item in X]
    if any(item is not None and item.ndim == 2 for item in items):
        return True
    lengths = {len(item) for item in items if item is not None and item.ndim == 1}
    if len(lengths) > 1:
        raise ValueError(
            "X is a list of sequences of unequal lengths with one axis: give each the "
            "shape (channels, t_i), a univariate one by reshape(1, -1), or pad them "
            "with NaN to an array of shape (n, time)"
        )
    return False


def _array(item: Any) -> Array | None:
    try:
        return np.asarray(item)
    except ValueError:  # ragged
        return None


def _pad_series(X: Sequence[ArrayLike]) -> tuple[Array, Array]:
    """Stack (channels, t_i) arrays as (n, channels, time), NaN after their ends."""
    items = []
    for i, item in enumerate(X):
        array = np.asarray(item)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"item {i} of the list X has shape {array.shape}: every sequence must "
                "be of shape (channels, t_i), with at least one channel and one step"
            )
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(
                f"Input X contains NaN, in item {i}: the sequences of a list need no "
                "padding; impute missing values first"
            )
        items.append(array)
    counts = sorted({len(array) for array in items})
    if len(counts) > 1:
        raise ValueError(
            f"the sequences of X have different numbers of channels: {counts}"
        )
    sizes = np.array([array.shape[1] for array in items])
    dtype = np.result_type(*items)
    if dtype.kind not in "fc":
        dtype = np.dtype(object if dtype.kind not in "iub" else np.float64)
    padded = np.full((len(items), counts[0], sizes.max()), np.nan, dtype=dtype)
    for row, array in zip(padded, items, strict=True):
        row[:, : array.shape[1]] = array
    return padded, sizes


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
