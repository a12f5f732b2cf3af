"""The origin and the unit in which each output of a regression is learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from sktarget.estimators._arrays import Units
from sktarget.estimators._statistics import weighted_mean, weighted_quantiles
from sktarget.estimators._weights import relative_weights

__all__ = [
    "deviances_of_counts",
    "measure_outputs",
    "moments_of_outputs",
    "usual_distance",
]

Array = NDArray[Any]

# Deviations of less, as a share of the mean, come of rounding: y is a constant.
_ROUNDING = 8 * np.finfo(np.float64).eps
# The deviation of a normal distribution over the median of what it deviates by.
_OF_NORMAL = 1.4826


def measure_outputs(loss: str, y: Array, weight: Array | None) -> Units:
    """Return the origin and the unit of each output.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "quantile", "poisson"}
        What is minimised.
    y : ndarray of shape (n, n_outputs)
        Outputs of a regression.
    weight : ndarray of shape (n,) or None
        Weights of the rows.

    Returns
    -------
    origin, unit : ndarray of shape (n_outputs,)
        In the dtype of y.  Mean and deviation, see :func:`moments_of_outputs`; for the
        absolute error and quantiles the median, and the usual distance from it, unless
        the deviation is less; for counts the logarithm of the mean, and the root of
        their deviance from it divided by it, at most 1: if they vary by little, the
        deviation of their logarithms.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([[0.0], [1.0], [2.0], [3.0], [1e9]])
    >>> for loss in ("squared_error", "absolute_error", "poisson"):
    ...     print(loss, *(round(a.item(), 1) for a in measure_outputs(loss, y, None)))
    squared_error 200000001.2 399999999.4
    absolute_error 2.0 1.5
    poisson 19.1 1.0
    """
    return _MEASURES[loss](y, weight)


def _logarithms(y: Array, weight: Array | None) -> Units:
    mean, deviance = deviances_of_counts(y, weight)
    # Of rare counts most of the deviance is noise, which logarithms do not vary by.
    units = np.minimum(np.sqrt(deviance / mean), 1.0)
    return np.log(mean).astype(y.dtype), units.astype(y.dtype)


def deviances_of_counts(y: Array, weight: Array | None) -> tuple[Array, Array]:
    """Return the mean of each output of y, and the deviance of y from it.

    Parameters
    ----------
    y : ndarray of shape (n, n_outputs)
        Counts, or other numbers that are not negative.
    weight : ndarray of shape (n,) or None
        Weights of the rows.

    Returns
    -------
    mean, deviance : ndarray of shape (n_outputs,)
        In float64.  All that is not 0 may have been held out: then half of one in all
        rows stands for it.  Where counts do not vary, the deviance is as if they varied
        by their mean.
    """
    counts = y.astype(np.float64)
    mean = weighted_mean(counts, weight)
    mean = np.where(mean > 0, mean, 0.5 / len(y))
    deviances = 2 * (xlogy(counts, counts / mean) - counts + mean)
    deviance = weighted_mean(deviances, weight)
    varies = deviance > _ROUNDING * mean
    return mean, np.where(varies, deviance, mean)


def _medians(y: Array, weight: Array | None) -> Units:
    mean, units = moments_of_outputs(y, weight)
    middle, spread = mean.copy(), units.copy()
    for k, column in enumerate(y.T.astype(np.float64)):
        (middle[k],) = weighted_quantiles(column, weight, (0.5,))
        usual = usual_distance(column - middle[k], weight)
        if np.finfo(y.dtype).tiny < usual < units[k]:
            spread[k] = usual
    return middle, spread


def usual_distance(away: Array, weight: Array | None) -> float:
    """Return how far numbers usually are from 0, whatever a few of them are.

    Parameters
    ----------
    away : ndarray of shape (n,)
        Numbers.
    weight : ndarray of shape (n,) or None
        Their weights.

    Returns
    -------
    float
        The median of their absolute values, times 1.48, for which it is the deviation
        if they are normal; if that is 0, the mean.
    """
    (median,) = weighted_quantiles(np.abs(away), weight, (0.5,))
    if median > 0:
        return float(_OF_NORMAL * median)
    return float(weighted_mean(np.abs(away), weight))


def moments_of_outputs(y: Array, weight: Array | None) -> Units:
    """Return the weighted mean of each output of y, and its unit.

    Parameters
    ----------
    y : ndarray of shape (n, n_outputs)
        Outputs of a regression.
    weight : ndarray of shape (n,) or None
        Weights of the rows.

    Returns
    -------
    mean : ndarray of shape (n_outputs,)
        The means, in the dtype of y; 0 where they are not finite.
    units : ndarray of shape (n_outputs,)
        The deviations, in that dtype too.  For an output that does not vary it is the
        absolute value or, if that is 0, the root mean square of the others' deviations,
        or 1 if none varies.  All are 1 if any would be out of the range of the dtype.
    """
    dtype = y.dtype
    if weight is not None:
        weight, _ = relative_weights(weight)
    with np.errstate(all="ignore"):
        y = y.astype(np.float64)
        # From the first row on, so that the mean of equal numbers is not rounded.
        mean = y[0] + np.average(y - y[0], axis=0, weights=weight)
        mean = np.where(np.isfinite(mean), mean, 0.0).astype(dtype)
        deviation = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        limits = np.finfo(dtype)
        # What differs in rows of next to no weight hardly counts.
        varies = deviation > _ROUNDING * np.abs(mean)
        common = np.sqrt(np.mean(deviation[varies] ** 2)) if varies.any() else 1.0
        size = np.where(mean == 0, common, np.abs(mean))
        units = np.where(varies, deviation, size)
    if not ((limits.tiny < units) & (units < limits.max)).all():
        units = np.ones_like(units)
    return mean, units.astype(dtype)


_MEASURES: dict[str, Callable[[Array, Array | None], Units]] = {
    "squared_error": moments_of_outputs,
    "absolute_error": _medians,
    "quantile": _medians,
    "poisson": _logarithms,
}
