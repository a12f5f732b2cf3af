"""Mean, deviation and span of columns, leaving a few far values out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators._drawing import column_moments
from sktarget.estimators._rows import relative_weights

__all__ = ["Bulk", "bulk_of_columns"]

Array = NDArray[Any]

# At either end of a column, this share of the rows may be far from all others.
_TAIL = 0.025
_LEVELS = (_TAIL, 0.25, 0.75, 1 - _TAIL)
# Ratio of the deviations with and without these, from which on they are left out.
_HEAVY = 5.0
# To weigh that much, 5 % of the rows have to reach beyond this many deviations.
_FAR = 4.0


class Bulk(NamedTuple):
    """Where most of each column lies.

    Attributes
    ----------
    mean, deviation : ndarray of shape (n_features,)
        Moments, in float64, finite or not.
    span : ndarray of shape (n_features,)
        Difference between the largest and the smallest value.
    """

    mean: Array
    deviation: Array
    span: Array


def bulk_of_columns(X: Array, weight: Array | None) -> Bulk:
    """Find where most of each column lies.

    That is where all of it does, unless a few values are so far off that they make up
    most of the deviation.  Such a column is clipped to the range of all but 2.5 % of
    the rows at either end.  Where half of the rows or more have the same value, as in
    counts of something rare, those that differ are what the column has to say, and
    stay.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
        Rows.
    weight : ndarray of shape (n,) or None
        Non-negative weights.

    Returns
    -------
    Bulk
        Weighted moments, and spans.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(100.0)[:, None]
    >>> X[-1] = 1e6
    >>> [round(a.item(), 1) for a in bulk_of_columns(X, None)]
    [49.5, 28.8, 95.0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = column_moments(X, weight)
        least, most = X.min(0).astype(np.float64), X.max(0).astype(np.float64)
        span = most - least
        farthest = np.maximum(most - mean, mean - least)
        for j in np.flatnonzero(farthest > _FAR * deviation):
            column = X[:, j].astype(np.float64)
            low, first, third, high = _quantiles(column, weight)
            clipped = np.clip(column, low, high)
            center, spread = column_moments(clipped, weight)
            if first < third and spread * _HEAVY < deviation[j]:
                mean[j], deviation[j], span[j] = center, spread, high - low
    return Bulk(mean, deviation, span)


def _quantiles(column: Array, weight: Array | None) -> Array:
    """Return where the tails begin and end, and the quartiles in between."""
    order = np.argsort(column, kind="stable")
    weights = np.ones(len(column))
    if weight is not None:
        weights = relative_weights(weight)[0][order]
    # Repeats and weights must lead to the same, however sums are rounded.
    reached = np.cumsum(weights) / weights.sum() * (1 + 1e-9)
    found: Array = column[order][np.searchsorted(reached, _LEVELS)]
    return found
