"""Weights of rows, of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight

__all__ = ["multiply_weights", "read_weights", "relative_weights", "weighted_mean"]

Array = NDArray[Any]


def read_weights(sample_weight: Any, X: Array) -> Array | None:
    """Validate the weights of rows.

    Parameters
    ----------
    sample_weight : object
        What was given: a number for all rows, one for each, or None.
    X : ndarray of shape (n, ...)
        The rows.

    Returns
    -------
    ndarray of shape (n,) or None
        The weights, float64 and not negative; None if none were given.

    Raises
    ------
    ValueError
        If they are no such weights.
    """
    if sample_weight is None:
        return None
    weights: Array = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    return weights


def relative_weights(weight: Array) -> tuple[Array, float]:
    """Divide weights by their mean, even where their sum overflows.

    Parameters
    ----------
    weight : ndarray of shape (n, ...)
        Weights of any size.

    Returns
    -------
    relative : ndarray of shape (n, ...)
        Weights of mean 1.
    mean : float
        What they were divided by.
    """
    # First by a power of two, which is exact: sums of huge weights would overflow.
    exponent = np.frexp(weight.max())[1]
    scaled = np.ldexp(weight, -exponent)
    mean = scaled.mean()
    return scaled / mean, float(np.ldexp(mean, exponent))


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
        weight, _ = relative_weights(weight)
    mean: Array = np.average(values, axis=0, weights=weight)
    return mean


def multiply_weights(sample_weight: Array, class_weight: Array) -> Array:
    """Multiply the weights of rows by those of their classes.

    Parameters
    ----------
    sample_weight, class_weight : ndarray
        Weights, of shapes that broadcast.

    Returns
    -------
    ndarray
        The products.

    Raises
    ------
    ValueError
        If a product overflows.
    """
    with np.errstate(over="ignore"):
        weight: Array = sample_weight * class_weight
    if not np.isfinite(weight).all():
        raise ValueError(
            "sample_weight is too large for class_weight: their product overflows. "
            "Scale sample_weight down"
        )
    return weight
