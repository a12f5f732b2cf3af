"""Mean, deviation and range of columns, leaving far values out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators._statistics import (
    ROUNDING,
    column_moments,
    weighted_mean,
    weighted_quantiles,
)
from sktarget.estimators._weights import weights_or_ones

__all__ = [
    "Bulk",
    "bulk_of_columns",
    "far_rows",
    "is_far_off",
    "n_far_columns",
]

Array = NDArray[Any]

# At either end of a column, this share of the rows may be far from all others.
_TAIL = 0.025
_LEVELS = (_TAIL, 0.25, 0.75, 1 - _TAIL)
# In up to this share of the rows, the smallest or the largest values of columns may
# stand for what is missing.
_MOST_MISSING = 0.15
# They are left out if that makes the deviation at least this many times smaller.
_HEAVY = 5.0
# For that, 5 % of the rows have to reach beyond this many deviations, and the mean
# fourth power of all is at least this, in deviations.
_FAR = 4.0
_LEAST_KURTOSIS = 15.0
# Where more of the rows have the same value, both quartiles are that value, which is
# looked for in so many of them.
_NEARLY_ALL, _A_FEW = 0.76, 99
# So many rows of a table fit a cache.
_ROWS_AT_ONCE = 1 << 10
# Deviations beyond which what is no part of the bulk of a column is very far from it.
_BEYOND = 100.0
# Share of the rows from which on new rows may have such values in other columns, or
# others still farther off.
_SEVERAL = 0.001
# Deviations beyond which a row is far from all others.
_VERY_FAR = 10.0
# Least deviation, as a share of the distance to the farthest value.
_LEAST = 1e-4
# Deviations by which a column may be off zero in single precision.
_FAR_OFF = 1e4
# Where the deviation is below this share of the least one, no value is left out: next
# to nothing would remain of the column.
_LOST = 0.03


class Bulk(NamedTuple):
    """Where most of each column lies.

    Attributes
    ----------
    mean, deviation : ndarray of shape (n_features,)
        Moments, in float64, finite or not.
    low, high : ndarray of shape (n_features,)
        The smallest and the largest value.
    """

    mean: Array
    deviation: Array
    low: Array
    high: Array

    @property
    def span(self) -> Array:
        """Differences between the largest and the smallest values."""
        return self.high - self.low


def is_far_off(bulk: Bulk) -> bool:
    """Return whether single precision would lose what a column says beside its mean.

    Parameters
    ----------
    bulk : Bulk
        Where most of each column lies.

    Returns
    -------
    bool
        Whether the mean of a column that varies by more than rounding in this precision
        is 10,000 times its deviation or more.

    Examples
    --------
    >>> import numpy as np
    >>> times = 1.7e9 + np.arange(0.0, 86400.0, 60.0)[:, None]
    >>> is_far_off(bulk_of_columns(times, None))
    True
    """
    floor = ROUNDING * float(np.finfo(np.float32).eps)
    with np.errstate(all="ignore"):
        off = np.abs(bulk.mean) >= _FAR_OFF * bulk.deviation
        varies = bulk.span > floor * np.maximum(-bulk.low, bulk.high)
    return bool((off & varies).any())


def bulk_of_columns(X: Array, weight: Array | None) -> Bulk:
    """Find where most of each column lies.

    That is where all of it does, unless some values are so far off that they make up
    most of the deviation.  A smallest or largest value that many rows share may stand
    for what is missing, and is left out, unless more than 15 % of the rows lack
    something.  Other columns are clipped to the range of all but 2.5 % of the rows at
    either end.  Where half of the rows or more have the same value, as in counts of
    something rare, those that differ are what the column has to say, and stay.

    Measured in the deviation that is left, what is far off would outweigh all other
    columns.  So that is at least 1/10,000 of the distance to the farthest value; where
    it would be much less, all values count.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
        Rows.
    weight : ndarray of shape (n,) or None
        Non-negative weights.

    Returns
    -------
    Bulk
        Weighted moments, and ranges.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(100.0)[:, None]
    >>> X[-1] = 1e4
    >>> [round(a.item(), 1) for a in bulk_of_columns(X, None)]
    [49.5, 28.8, 2.0, 97.0]
    >>> X[90:] = -999.0
    >>> [round(a.item(), 1) for a in bulk_of_columns(X, None)]
    [44.5, 26.0, 0.0, 89.0]
    """
    if weight is not None and not weight.all():
        X, weight = X[weight > 0], weight[weight > 0]
    with np.errstate(all="ignore"):
        mean, deviation = column_moments(X, weight)
        low, high = X.min(0).astype(np.float64), X.max(0).astype(np.float64)
        whole = Bulk(mean, deviation, low, high)
        found = _without_missing(X, weight, whole)
        for j in _heavy_columns(X, weight, whole):
            column = X[:, j].astype(np.float64)
            clipped = np.clip(column, *_tails(column, weight))
            if j not in found and _is_bulk(whole, j, clipped, weight):
                found[j] = clipped, weight
        bulk = Bulk(*(of_columns.copy() for of_columns in whole))
        for j, (values, weights) in found.items():
            bulk.mean[j], spread = column_moments(values, weights)
            least = _LEAST * _farthest(whole, j, bulk.mean[j])
            bulk.deviation[j] = max(spread, least)
            bulk.low[j], bulk.high[j] = values.min(), values.max()
    return bulk


def _heavy_columns(X: Array, weight: Array | None, whole: Bulk) -> list[int]:
    """Return the columns of which 5 % of the rows may make up most of the variance."""
    mean, deviation, low, high = whole
    farthest = np.maximum(high - mean, mean - low)
    index = np.flatnonzero(farthest > _FAR * deviation)
    if len(index) == 0:
        return []
    relative = weights_or_ones(weight, len(X))
    fourth = np.zeros(len(index))
    for start in range(0, len(X), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        away = (X[rows, index] - mean[index]) / deviation[index]
        np.square(away, out=away)
        fourth += relative[rows] @ np.square(away, out=away)
    heavy = ~(fourth / len(X) < _LEAST_KURTOSIS)
    found: list[int] = index[heavy].tolist()
    return found


def _is_bulk(whole: Bulk, j: int, values: Array, weight: Array | None) -> bool:
    """Return whether most of a column's deviation is due to what these values lack."""
    center, spread = column_moments(values, weight)
    least = _LOST * _LEAST * _farthest(whole, j, center)
    varies = values.min() < values.max()
    return bool(varies and least < spread < whole.deviation[j] / _HEAVY)


def _farthest(whole: Bulk, j: int, center: Any) -> float:
    return float(max(whole.high[j] - center, center - whole.low[j]))


def _tails(column: Array, weight: Array | None) -> tuple[float, float]:
    """Return where the tails of a column begin and end, if it has a bulk."""
    # To sort it takes long, and says nothing of counts that are nearly all zero.
    usual = np.median(column[:: 1 + len(column) // _A_FEW])
    if weighted_mean(column == usual, weight) > _NEARLY_ALL:
        return -np.inf, np.inf
    low, first, third, high = weighted_quantiles(column, weight, _LEVELS).tolist()
    return (low, high) if first < third else (-np.inf, np.inf)


def _without_missing(
    X: Array, weight: Array | None, whole: Bulk
) -> dict[int, tuple[Array, Array | None]]:
    """Return columns without the extreme values that may stand for what is missing.

    There are none where that concerns many rows: each would be far from all others.
    """
    found: dict[int, tuple[Array, Array | None]] = {}
    lack = np.zeros(len(X), dtype=bool)
    for extreme in (whole.low, whole.high):
        for j in np.flatnonzero(_may_be_missing(X, weight, whole, extreme)).tolist():
            others = X[:, j] != extreme[j]
            values = X[others, j].astype(np.float64)
            weights = None if weight is None else weight[others]
            if _is_bulk(whole, j, values, weights):
                found[j] = values, weights
                lack |= ~others
    return found if weighted_mean(lack, weight) <= _MOST_MISSING else {}


def _may_be_missing(
    X: Array, weight: Array | None, whole: Bulk, extreme: Array
) -> Array:
    """Return which columns vary much less without an extreme value, by their moments.

    These are too inexact to tell how much that is.
    """
    mean, variance = whole.mean, whole.deviation**2
    share = weighted_mean(extreme == X, weight)
    others = (mean - share * extreme) / (1 - share)
    of_others = variance / (1 - share) - share * (extreme - others) ** 2
    found: Array = (
        (share > _TAIL)
        & (share <= _MOST_MISSING)
        & (of_others * _HEAVY**2 < variance * (1 + 1e-6))
    )
    return found


def n_far_columns(X: Array, weight: Array | None, bulk: Bulk) -> int:
    """Count the columns with values very far outside their bulk.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
        Rows.
    weight : ndarray of shape (n,) or None
        Non-negative weights.
    bulk : Bulk
        Where most of each column lies.

    Returns
    -------
    int
        How many have values that are no part of their bulk and more than a hundred
        deviations away from its mean, in one row of a thousand and in more than one.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> X[:9, 0] = X[9:11, 1] = -999.0
    >>> n_far_columns(X, None, bulk_of_columns(X, None))
    2
    """
    with np.errstate(all="ignore"):
        mean, deviation, low, high = bulk
        least, most = X.min(0).astype(np.float64), X.max(0).astype(np.float64)
        far = np.maximum(most - mean, mean - least) > _BEYOND * deviation
        found, least_share = 0, max(_SEVERAL, 1.5 / len(X))
        for j in np.flatnonzero(far & ((least < low) | (most > high))).tolist():
            beyond = np.abs(X[:, j] - mean[j]) > _BEYOND * deviation[j]
            found += bool(weighted_mean(beyond, weight) >= least_share)
        return found


def far_rows(X: Array, weight: Array | None, bulk: Bulk) -> Array:
    """Return the rows that are far from all others in some column.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
        Rows.
    weight : ndarray of shape (n,) or None
        Non-negative weights.
    bulk : Bulk
        Where most of each column lies.

    Returns
    -------
    ndarray of bool of shape (n,)
        Whether a row is more than ten deviations from the mean of a column, unless most
        rows have the same value there, as in indicators of something rare.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(800.0)[:, None]
    >>> X[3] = 1e6
    >>> np.flatnonzero(far_rows(X, None, bulk_of_columns(X, None)))
    array([3])
    """
    far = np.zeros(len(X), dtype=bool)
    with np.errstate(all="ignore"):
        mean, deviation, *_ = bulk
        farthest = np.maximum(X.max(0) - mean, mean - X.min(0))
        for j in np.flatnonzero(farthest > _VERY_FAR * deviation).tolist():
            column = X[:, j].astype(np.float64)
            if np.isfinite(_tails(column, weight)).all():
                far |= np.abs(column - mean[j]) > _VERY_FAR * deviation[j]
    return far
