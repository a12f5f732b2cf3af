"""Weights of rows, of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "MOST_WEIGHT",
    "multiply_weights",
    "read_weights",
    "relative_weights",
    "scaled_down",
    "weights_or_ones",
]

Array = NDArray[Any]

MOST_WEIGHT = 1e15
"""So many rows at most are counted, whatever their weights; integers are exact."""


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
    try:
        weights: Array = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
    except (TypeError, ValueError) as error:
        if "sample_weight" in str(error):
            raise
        raise ValueError(
            f"sample_weight must hold a number for each row, or be one: {error}"
        ) from None
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
    scaled, exponent = scaled_down(weight)
    mean = scaled.mean()
    return scaled / mean, float(np.ldexp(mean, exponent))


def scaled_down(weight: Array) -> tuple[Array, int]:
    """Scale weights to at most 1, so that sums of huge ones do not overflow.

    Parameters
    ----------
    weight : ndarray of shape (n, ...)
        Weights of any size.

    Returns
    -------
    scaled : ndarray of shape (n, ...)
        The weights, divided by a power of two, which is exact.
    exponent : int
        The power.
    """
    exponent = np.frexp(weight.max())[1]
    scaled: Array = np.ldexp(weight, -exponent)
    return scaled, exponent


def weights_or_ones(weight: Array | None, n: int) -> Array:
    """Return weights of mean 1, which are ones if none are given.

    Parameters
    ----------
    weight : ndarray of shape (n, ...) or None
        Weights of any size.
    n : int
        Number of rows.

    Returns
    -------
    ndarray of shape (n, ...)
        Relative weights.
    """
    return np.ones(n) if weight is None else relative_weights(weight)[0]


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
