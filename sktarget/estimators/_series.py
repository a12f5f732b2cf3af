"""Series of real numbers as users give them, padded with NaN or in lists."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from sktarget.estimators._arrays import as_array
from sktarget.estimators._sequence_data import (
    Sequences,
    count_steps,
    is_list,
    refuse_empty,
    refuse_masks,
)

__all__ = ["as_steps", "read_series"]

Array = NDArray[Any]


def read_series(
    estimator: BaseEstimator, X: Any, *, reset: bool, univariate: bool | None
) -> tuple[Sequences, bool]:
    """Validate series of real numbers.

    Parameters
    ----------
    estimator : estimator
        Records the number of channels, or has recorded it.
    X : array-like of shape (n, time) or (n, channels, time), or list
        Series, padded with NaN; or a list of arrays of shape (channels, t_i) or (t_i,).
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
    if isinstance(X, list | tuple) and not X:
        raise ValueError("X is empty: give at least one sequence")
    refuse_masks(X, "X", "X.astype(float).filled(np.nan)")
    sizes = None
    known = None if reset else univariate
    _refuse_cells_of_series(X)
    if reset:
        _warn_of_several_levels(X)
    if _is_list_of_series(X, known):
        X, sizes = _pad_series(X)
    # Before the columns are counted, which are something else in another form.
    _refuse_other_form(known, getattr(X, "ndim", None))
    turned = "X.transpose(0, 2, 1)" if sizes is None else "[x.T for x in X]"
    X = _validated(estimator, X, reset, known, turned)
    if X.ndim > 3:
        raise ValueError(
            f"Found array with dim {X.ndim}, but X must be of shape (n, time) or "
            "(n, channels, time)"
        )
    _refuse_other_form(known, X.ndim)
    values, lengths = as_steps(X)
    return Sequences(values, lengths, sizes), X.ndim == 2


def _validated(
    estimator: BaseEstimator, X: Any, reset: bool, univariate: bool | None, turned: str
) -> Array:
    """Validate X as scikit-learn does, which counts what it calls features.

    `turned` is how to turn X if its channels come last, for the message.
    """
    try:
        checked: Array = validate_data(
            estimator,
            as_array(X),
            reset=reset,
            dtype=(np.float64, np.float32),
            allow_nd=True,
            ensure_all_finite="allow-nan",
        )
    except ValueError as error:
        if "is expecting" not in str(error):
            raise
        said = str(error).rstrip(".")
        if univariate:
            raise ValueError(
                f"{said}. These are time steps, whose number is fixed by X of shape "
                "(n, time): for series of any length fit with X[:, None], of shape "
                "(n, 1, time)"
            ) from None
        raise ValueError(
            f"{said}. These are channels, and the last axis is time: if channels come "
            f"last, give {turned}"
        ) from None
    return checked


def _refuse_other_form(univariate: bool | None, n_axes: int | None) -> None:
    """Refuse two axes where there were three in ``fit``, and the other way round."""
    if univariate is not None and n_axes in (2, 3) and univariate != (n_axes == 2):
        form = "(n, time)" if univariate else "(n, channels, time), or a list"
        way = "X[:, 0], if there is one channel" if univariate else "X[:, None]"
        raise ValueError(
            f"X has {n_axes} axes, but the estimator was fitted with X of shape "
            f"{form}: give {way}, or fit again"
        )


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
    lengths = count_steps(np.logical_not(missing.all(axis=2)))
    refuse_empty(lengths, name, "NaN")
    holes = missing.any(axis=2) & (np.arange(time) < lengths[:, None])
    if holes.any():
        row, step = np.argwhere(holes)[0]
        raise ValueError(
            f"Input {name} contains NaN before the end of a sequence, first in row "
            f"{row} at step {step}: NaN may only pad a sequence after its end, in all "
            "channels alike. Impute missing values first."
        )
    return values, lengths


def _is_list_of_series(X: Any, univariate: bool | None) -> bool:
    """Return whether X is a list of series, not another array-like.

    Univariate ones of equal lengths in a list may also be the rows of a table (n,
    time).  They are unless `univariate` says that there was none in ``fit``.
    """
    if not is_list(X):
        return False
    is_array = not isinstance(X, list | tuple)
    items = [_array(item) for item in X]
    for i, item in enumerate(X):
        if items[i] is None and isinstance(item, list | tuple):
            raise ValueError(
                f"item {i} of X is ragged: its channels have the lengths "
                f"{[np.size(channel) for channel in item]}, and must have one"
            )
    if any(item is not None and item.ndim == 2 for item in items):
        return True
    lengths = {len(item) for item in items if item is not None and item.ndim == 1}
    if univariate and (len(lengths) > 1 or (is_array and lengths)):
        form = (
            "an array of series" if is_array else "a list of series of unequal lengths"
        )
        raise ValueError(
            f"X is {form}, but the estimator was fitted with X of "
            "shape (n, time): pad them with NaN to that shape, or fit with such series"
        )
    never_rows = is_array or univariate is False
    return len(lengths) > 1 or (len(lengths) == 1 and never_rows)


def _refuse_cells_of_series(X: Any) -> None:
    """Refuse arrays and tables of two axes whose cells hold sequences."""
    cells = X.head(1).to_numpy() if hasattr(X, "head") else X
    kind = getattr(getattr(cells, "dtype", None), "kind", None)
    if kind != "O" or cells.ndim != 2:
        return
    if any(isinstance(c, list) or getattr(c, "ndim", 0) > 0 for c in cells[:1].flat):
        rows = "X.to_numpy()" if hasattr(X, "to_numpy") else "X"
        raise ValueError(
            "the cells of X hold sequences: give a list with an array of shape "
            f"(channels, t_i) for each row, such as [np.stack(row) for row in {rows}]"
        )


def _warn_of_several_levels(X: Any) -> None:
    """Warn of tables whose rows may be steps."""
    levels = getattr(getattr(X, "index", None), "nlevels", 1)
    if levels > 1 and hasattr(X, "columns"):
        warnings.warn(
            f"X has an index of {levels} levels, and each of its rows is taken for a "
            f"sequence of {len(X.columns)} steps. If rows are steps, give a list with "
            "an array of shape (channels, t_i) for each sequence, such as "
            "[x.to_numpy().T for _, x in X.groupby(level=0)]",
            stacklevel=2,
        )


def _warn_of_tables(X: Sequence[Any]) -> None:
    """Warn of tables whose rows look like steps, not like channels."""
    first = next(iter(X))
    if hasattr(first, "columns") and len(first) > len(first.columns):
        warnings.warn(
            f"the first sequence of X is a table of {len(first)} rows and "
            f"{len(first.columns)} columns, and is taken for {len(first)} channels: if "
            "its rows are steps, give x.to_numpy().T in its place, or .to_numpy() to "
            "keep this from being asked",
            stacklevel=2,
        )


def _array(item: Any) -> Array | None:
    item = as_array(item)
    try:
        return np.asarray(item)
    except ValueError:  # ragged
        return None


def _as_numbers(i: int, item: Array) -> Array:
    """Turn objects, among which None may stand for NaN, into numbers."""
    if item.dtype.kind != "O":
        return item
    try:
        return item.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"item {i} of X does not hold numbers: {error}") from None


def _pad_series(X: Sequence[ArrayLike]) -> tuple[Array, Array]:
    """Stack (channels, t_i) arrays as (n, channels, time), NaN after their ends."""
    items = []
    _warn_of_tables(X)
    arrays = [_as_numbers(i, np.asarray(as_array(item))) for i, item in enumerate(X)]
    n_axes = max(array.ndim for array in arrays)
    for i, array in enumerate(arrays):
        if array.ndim != n_axes or n_axes > 2 or 0 in array.shape:
            raise ValueError(
                f"item {i} of the list X has shape {array.shape}: every sequence must "
                "be of shape (channels, t_i), or every one of shape (t_i,), with at "
                "least one channel and one step"
            )
        array = array[None] if n_axes == 1 else array
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(
                f"Input X contains NaN, in item {i}: the sequences of a list need no "
                "padding; impute missing values first"
            )
        items.append(array)
    counts = sorted({len(array) for array in items})
    if len(counts) > 1:
        turned = len({array.shape[1] for array in items}) == 1
        raise ValueError(
            f"the sequences of X have different numbers of channels: {counts}"
            + (". Their axes are (channels, t_i): transpose them" if turned else "")
        )
    sizes = np.array([array.shape[1] for array in items])
    dtype = np.result_type(*items)
    if dtype.kind not in "fc":
        dtype = np.dtype(object if dtype.kind not in "iub" else np.float64)
    padded = np.full((len(items), counts[0], sizes.max()), np.nan, dtype=dtype)
    for row, array in zip(padded, items, strict=True):
        row[:, : array.shape[1]] = array
    return padded, sizes
