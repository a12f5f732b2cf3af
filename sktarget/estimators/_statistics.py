"""Statistics of weighted rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators._weights import scaled_down, weights_or_ones

__all__ = [
    "ROUNDING",
    "column_moments",
    "effective_number",
    "weighted_mean",
    "weighted_quantiles",
]

Array = NDArray[Any]

ROUNDING = 256
"""What differs by fewer units in the last place may be the same number, rounded."""

# Rows are converted in slices of about this many numbers, to bound the memory.
_SLICE = 1 << 22


def weighted_mean(values: Array, weight: Array | None) -> Array:
    """Return the mean over rows, whatever the size of their weights.

    Parameters
    ----------
    values : ndarray of shape (n, ...)
        Numbers, or truth values, of which it is the share.
    weight : ndarray of shape (n,) or None
        Non-negative weights.

    Returns
    -------
    ndarray of shape (...)
        The mean.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_mean(np.array([1.0, 4.0]), np.array([1e308, 5e307])).item()
    2.0
    """
    if weight is not None:
        weight = weights_or_ones(weight, len(weight))
    mean: Array = np.average(values, axis=0, weights=weight)
    return mean


def column_moments(X: Array, weight: Array | None) -> tuple[Array, Array]:
    """Return weighted mean and deviation of each column, a slice of rows at a time.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Rows.
    weight : ndarray of shape (n,) or None
        Non-negative weights.

    Returns
    -------
    mean, deviation : ndarray of shape (...)
        Moments, in float64.

    Examples
    --------
    >>> import numpy as np
    >>> column_moments(np.array([[1.0], [3.0]]), None)
    (array([2.]), array([1.]))
    """
    step = max(1, _SLICE // max(1, X[:1].size))
    starts = range(0, len(X), step)
    rows = np.ones(len(X)) if weight is None else scaled_down(weight)[0]
    total = rows.sum()

    def mean_over(f: Callable[[Array], Array]) -> Array:
        parts = (
            # Always in C order, so that sums are rounded alike.
            np.tensordot(
                rows[i : i + step], f(X[i : i + step].astype(np.float64, order="C")), 1
            )
            for i in starts
        )
        return np.asarray(sum(parts) / total)

    mean = mean_over(lambda x: x)
    return mean, np.sqrt(mean_over(lambda x: (x - mean) ** 2))


def weighted_quantiles(
    column: Array, weight: Array | None, levels: Sequence[float]
) -> Array:
    """Return the values below or at which shares of the rows are.

    Parameters
    ----------
    column : ndarray of shape (n,)
        Values.
    weight : ndarray of shape (n,) or None
        Non-negative weights; 2 counts as two rows.
    levels : sequence of float
        The shares.

    Returns
    -------
    ndarray of shape (n_levels,)
        One of the values for each level.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.array([3, 1, 1]), (0.1, 0.5))
    array([1., 3.])
    """
    order = np.argsort(column, kind="stable")
    weights = weights_or_ones(weight, len(column))[order]
    # Repeats and weights must lead to the same, however sums are rounded.
    reached = np.cumsum(weights) / weights.sum() * (1 + 1e-9)
    found: Array = column[order][np.searchsorted(reached, levels)]
    return found


def effective_number(weight: Array) -> Array:
    """Return of how many equal weights the mean would vary as much.

    Parameters
    ----------
    weight : ndarray of shape (n, ...)
        Non-negative weights.

    Returns
    -------
    ndarray of shape (...)
        (Σw)² / Σw²; NaN where all weights are 0.

    Examples
    --------
    >>> import numpy as np
    >>> effective_number(np.array([1.0, 1.0, 0.0])).item()
    2.0
    """
    with np.errstate(invalid="ignore"):
        number: Array = weight.sum(axis=0) ** 2 / (weight**2).sum(axis=0)
    return number
