"""The values of pixels: bytes, and numbers that are not scaled."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sktarget.estimators._arrays import as_array

__all__ = ["as_bytes", "warn_of_large_pixels", "warn_of_other_pixels"]

Array = NDArray[Any]

# Deviation above which pixels are probably not scaled.
_LARGE = 3.0
_LARGEST_BYTE, _FAR_BEYOND_ONE = 255, 8.0


def as_bytes(X: Any) -> Any:
    """Read integers as bytes, for a network that was fitted on bytes.

    Parameters
    ----------
    X : Any
        Images or rows, as a user gives them.

    Returns
    -------
    Any
        The same as bytes, if X holds integers from 0 to 255: pandas' tables stay what
        they are, lists and tensors become arrays.  Otherwise X.
    """
    X = as_array(X)
    try:
        array = X.tocsr().data if sparse.issparse(X) else np.asarray(X)
    except (TypeError, ValueError):  # ragged, which validation complains about
        return X
    if array.dtype == np.uint8 or array.dtype.kind not in "iu" or not array.size:
        return X
    if array.min() < 0 or array.max() > _LARGEST_BYTE:
        return X
    return X.astype(np.uint8) if hasattr(X, "astype") else array.astype(np.uint8)


def warn_of_other_pixels(X: Array, fitted_bytes: bool, most: float) -> None:
    """Warn of pixels that are not scaled as those of the training set were.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Images.
    fitted_bytes : bool
        Whether the training set was of bytes.
    most : float
        The largest value in it.

    Warns
    -----
    UserWarning
        If only one of the two is of bytes and the other reaches far beyond 1.
    """
    are_bytes = X.dtype == np.uint8
    if are_bytes and not fitted_bytes and most > _FAR_BEYOND_ONE:
        warnings.warn(
            f"the network was fitted on images with values up to {most:g}, taken as "
            "they were, but X is of bytes, which are divided by 255. Pass numbers like "
            "those that were fitted, X.astype(float)",
            stacklevel=2,
        )
    if fitted_bytes and not are_bytes and X.max() > _FAR_BEYOND_ONE:
        warnings.warn(
            "the network was fitted on bytes, which are divided by 255, but X has "
            f"values up to {X.max():g}, which are taken as they are. Pass bytes, "
            "X.astype(np.uint8), or X / 255",
            stacklevel=2,
        )


def warn_of_large_pixels(X: Array) -> None:
    """Warn of pixels that are neither bytes nor scaled.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Training images.

    Warns
    -----
    UserWarning
        If pixels are floats that vary far more than standardised ones.
    """
    if X.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        is_large = X.std() > _LARGE
    if is_large:
        warnings.warn(
            f"images have values from {X.min():g} to {X.max():g}, which are taken as "
            "they are and hard to learn from. Pass bytes, X.astype(np.uint8), which "
            "are divided by 255, or standardise X",
            stacklevel=2,
        )
