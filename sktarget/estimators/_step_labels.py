"""Labels of the steps of sequences."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from sktarget.estimators._sequence_data import Sequences, refuse_masks

__all__ = ["as_many", "none_counts", "read_step_labels"]

Array = NDArray[Any]

# Predictions hold -1 at padding, so labels must be signed integers.
_MOST = 2.0**63
# From here on floats leave integers out.
_EXACT = 2.0**53
# Share of all steps that are seldom left out between others.
_MANY = 0.1


def as_many(y: Any, sequences: Sequences, filled: str) -> Any:
    """Check that there is something for each sequence.

    Parameters
    ----------
    y : array-like or list of array-like
        What was given for the steps.
    sequences : Sequences
        The sequences.
    filled : str
        What to give in the place of a masked array, for messages.

    Returns
    -------
    ndarray or list
        `y`, as an array unless it or X is a list.

    Raises
    ------
    ValueError
        If there are more or fewer items than sequences.
    """
    if y is None:
        raise ValueError(
            "y is None: give an array of shape (n, time) or a list of arrays (t_i,)"
        )
    refuse_masks(y, "y", filled)
    if not isinstance(y, list | tuple):
        y = np.asarray(y)
        if y.ndim == 0:
            kind = type(y.item()).__name__
            raise ValueError(
                f"y is one object of type {kind}: give an array of shape (n, time) or "
                "a list of arrays (t_i,)"
            )
    n = len(sequences.values)
    if len(y) != n:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"{[n, len(y)]} (X and y)"
        )
    sizes, longest = sequences.sizes, sequences.values.shape[1]
    if sizes is not None and getattr(y, "ndim", 0) > 1 and y.shape[-1] == longest:
        # An array, padded, for a list of sequences, which are not.
        return [row[..., :size] for row, size in zip(y, sizes, strict=True)]
    return y


def none_counts(mark: str, n_ignored: int) -> ValueError:
    """Make the error for a `y` none of whose steps counts.

    Parameters
    ----------
    mark : str
        What marks steps that do not count.
    n_ignored : int
        How many steps at the beginning of each sequence do not count.

    Returns
    -------
    ValueError
        The error.
    """
    return ValueError(
        f"no step of y counts: each is {mark}, belongs to padding, or to the first "
        f"n_ignored_steps={n_ignored} steps"
    )


def read_step_labels(
    y: Any, sequences: Sequences, n_ignored: int, *, warns: bool = False
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
    warns : bool, default=False
        Whether to warn if -1 seems to be a class.

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
    y, counts = as_many(y, sequences, "y.astype(object).filled(np.nan)"), sequences.real
    if isinstance(y, np.ndarray) and y.shape == counts.shape:
        labels = y[counts]
    else:
        labels = _join(y, sequences)
    valid = ~_is_ignored(labels)
    counts[counts] = valid
    if warns and _marks_a_class(labels, counts, sequences.real):
        warnings.warn(
            "y has -1 between steps of the classes 0 and 1, and -1 marks steps that do "
            "not count. If it is a class, add 1 to all labels; if not, mark the steps "
            "by NaN",
            stacklevel=2,
        )
    kept = counts.copy()
    kept[:, :n_ignored] = False
    labels = _plain(labels[valid][kept[counts]])
    if len(labels) == 0:
        raise none_counts("-1 or NaN", n_ignored)
    check_classification_targets(labels)
    return labels, kept


def _marks_a_class(labels: Array, counts: Array, real: Array) -> bool:
    """Return whether -1 often stands between steps of the classes 0 and 1."""
    if labels.dtype.kind not in "if" or set(np.unique(labels)) != {-1, 0, 1}:
        return False
    before = np.logical_or.accumulate(counts, axis=1)
    after = np.logical_or.accumulate(counts[:, ::-1], axis=1)[:, ::-1]
    between = real & ~counts & before & after
    return bool(between.sum() > _MANY * real.sum())


def _join(y: Any, sequences: Sequences) -> Array:
    """Concatenate the labels of all real steps."""
    parts = []
    for i, item in enumerate(y):
        row = np.asarray(item)
        # Beside texts NumPy would make texts of -1 and NaN, too, and beside NaN floats
        # of integers, which may lose digits.
        if row.dtype.kind in "US" or (row is not item and _may_lose_digits(row)):
            row = np.asarray(item, dtype=object)
        if row.ndim != 1:
            raise ValueError(
                "with return_sequences=True, y must hold a label for every step: an "
                "array of shape (n, time) or a list of arrays of shape (t_i,); item "
                f"{i} has shape {row.shape}"
            )
        parts.append(sequences.cut(i, row))
    joined = np.concatenate(parts)
    if _may_lose_digits(joined) and any(part.dtype.kind in "iu" for part in parts):
        return np.concatenate([part.astype(object) for part in parts])
    return joined


def _may_lose_digits(labels: Array) -> bool:
    """Return whether floats are so large that integers are not exact among them."""
    return labels.dtype.kind == "f" and bool((np.abs(labels) >= _EXACT).any())


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
        if len({isinstance(label, str) for label in labels}) > 1:
            raise ValueError(
                "y mixes texts with other labels, such as "
                f"{next(x for x in labels if not isinstance(x, str))!r}: make all of "
                "them texts, or mark the steps that do not count by NaN"
            )
        labels = np.array(labels.tolist())
    if labels.dtype.kind in "mM":
        raise ValueError(
            f"y has dtype {labels.dtype}, but labels of steps are numbers, -1 where a "
            "step does not count, or texts: give y.astype(str)"
        )
    if labels.dtype.kind not in "iuf" or not len(labels):
        return labels
    if np.isinf(labels).any():
        raise ValueError("y contains infinity: mark steps that do not count by NaN")
    if labels.dtype.kind != "i" and np.abs(labels).max() >= _MOST:
        raise ValueError(
            f"y holds the label {labels[np.abs(labels).argmax()]}, but numbers must "
            "lie between -2**63 and 2**63: give them as texts"
        )
    if labels.dtype.kind == "f" and (labels == np.trunc(labels)).all():
        return labels.astype(np.int64)
    return labels
