"""What is refused as the outputs of a regression, and what is warned of."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators._output_units import usual_distance
from sktarget.estimators._statistics import effective_number, weighted_mean
from sktarget.estimators._weights import weights_or_ones

__all__ = [
    "check_counts",
    "warn_of_logarithms",
    "warn_of_lost_digits",
    "warn_of_other_counts",
    "warn_of_other_units",
    "warn_of_scale",
]

Array = NDArray[Any]

# Deviations of fewer spacings of numbers lose digits that matter.
_FEW_DIGITS = 32
# Fewer numbers, or as few with nearly all the weight, say little about their scale.
_ENOUGH_TO_COMPARE = 10
# What varies by less, of its unit, is as good as constant.
_CONSTANT = 1e-6
# A module of the user's does not get as far as this within an annealed run.
_LARGE = 3.0
# A module of the user's is slow to reach larger logarithms than this, or deviations
# smaller than its inverse; any network is slow to reach this many units.
_OTHER_SCALE = 10.0


def check_counts(y: Array, weight: Array | None, loss: str, *, first: bool) -> None:
    """Refuse numbers whose mean has no logarithm."""
    if weight is not None:
        y = y[weight > 0]
    if not (y >= 0).all():
        raise ValueError(
            f"loss={loss!r} needs y without negative numbers, got {y.min():g}: choose "
            "another loss"
        )
    if first and not (y > 0).any(axis=0).all():
        raise ValueError(
            f"loss={loss!r} needs a y that is not 0 in every row, in each of its "
            "outputs: leave out the outputs that are, begin partial_fit with rows that "
            "have events, or choose another loss"
        )


def warn_of_lost_digits(
    origin: Array, units: Array, dtype: np.dtype[Any], *, is_log: bool
) -> None:
    """Warn of outputs that vary by little more than the spacing of numbers their size.

    The network's outputs have to be such numbers, or their logarithms.
    """
    lost = np.flatnonzero(units < _FEW_DIGITS * np.finfo(dtype).eps * np.abs(origin))
    if not len(lost):
        return
    about, by = origin[lost[0]], units[lost[0]]
    if is_log:
        about, by = np.exp(about), np.exp(about) * by
    remedy = "choose another loss" if is_log else "subtract a constant from y"
    warnings.warn(
        f"y varies by {by:.2g} about {about:.8g}, which {dtype}, the arithmetic of X, "
        f"hardly resolves: {remedy}"
        + (", or give X as float64" if dtype == np.float32 else ""),
        stacklevel=2,
    )


def warn_of_other_units(
    loss: str, origin: Array, units: Array, y: Array, weight: Array | None
) -> None:
    """Warn if y is out of all proportion to the units of the first call."""
    weight = weights_or_ones(weight, len(y))
    if effective_number(weight) < _ENOUGH_TO_COMPARE:
        return
    away = ((y - origin) / units).astype(np.float64)
    if loss in ("absolute_error", "quantile"):
        spread = np.array([usual_distance(column, weight) for column in away.T])
    else:
        spread = np.sqrt(np.average(away**2, axis=0, weights=weight))
    small = (spread > _CONSTANT) & (spread < 1 / _OTHER_SCALE)
    far = np.flatnonzero((spread > _OTHER_SCALE) | small)
    if len(far):
        k = far[0]
        warnings.warn(
            f"y is {spread[k]:.2g} units from {origin[k]:.3g}, and these units, of "
            f"{units[k]:.3g}, were measured in the first call of fit or partial_fit: "
            "later calls will learn little from it. Begin with rows of the usual "
            "scale, or clone the estimator and begin anew",
            stacklevel=2,
        )


def warn_of_other_counts(origin: Array, y: Array, weight: Array | None) -> None:
    """Warn if the mean of y is another by far than that of the first call."""
    mean, first = weighted_mean(y, weight), np.exp(origin)
    with np.errstate(divide="ignore"):
        factor = np.maximum(mean / first, np.where(mean > 0, first / mean, 0))
    far = np.flatnonzero(factor > _OTHER_SCALE)
    if len(far):
        k = far[0]
        warnings.warn(
            f"y has a mean of {mean[k]:.3g}, and had {first[k]:.3g} in the first call "
            "of fit or partial_fit: later calls will take long to learn it. Begin with "
            "rows of the usual size, or clone the estimator and begin anew",
            stacklevel=2,
        )


def warn_of_logarithms(origin: Array) -> None:
    """Warn if the logarithm of y is far from what a module gives at first."""
    if np.abs(origin).max() > _OTHER_SCALE:
        warnings.warn(
            f"y has logarithms of up to {np.abs(origin).max():.3g}, which a module of "
            "your own takes long to reach: divide y by its mean",
            stacklevel=2,
        )


def warn_of_scale(mean: Array, deviation: Array) -> None:
    """Warn if y is far from what a network gives at first."""
    # Whether the outputs of a module may be multiplied and shifted is not known: they
    # may be positive by design.
    largest = max(np.abs(mean).max(), deviation.max())
    if largest > _LARGE or deviation.min() < 1 / _OTHER_SCALE:
        warnings.warn(
            f"y has means of up to {np.abs(mean).max():.3g} and deviations from "
            f"{deviation.min():.3g} to {deviation.max():.3g}, and a module of your own "
            "learns it as it is: standardise y, for instance with sklearn.compose."
            "TransformedTargetRegressor(regressor, transformer=StandardScaler())",
            stacklevel=2,
        )
