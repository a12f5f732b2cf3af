"""NumPy's arrays as torch's tensors, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Units", "as_array", "as_tensor", "is_clean", "torch_dtype"]

Array = NDArray[Any]
Units = tuple[Array, Array]
"""Origin and unit of every column, channel or output: 0 and 1 leave one as it is."""

# For more numbers, running the network takes far longer than validating them.
_FEW = 1 << 14


def as_array(X: Any) -> Any:
    """Return a tensor as an array, since validation ignores the dtype of tensors.

    Dates and durations, which validation would take for numbers, are refused.
    """
    if isinstance(X, torch.Tensor):
        return X.numpy(force=True)
    of_columns = getattr(X, "dtypes", None) if hasattr(X, "columns") else None
    of_columns = [getattr(X, "dtype", None)] if of_columns is None else of_columns
    for dtype in of_columns:
        if _is_of_dates(dtype):
            raise ValueError(
                f"X has dtype {dtype}: give numbers, such as days since the first date"
            )
    return X


def _is_of_dates(dtype: Any) -> bool:
    """Return whether a dtype of NumPy, pandas or Polars is of dates or durations."""
    if getattr(dtype, "kind", "") in ("m", "M"):
        return True
    is_temporal = getattr(dtype, "is_temporal", None)
    return callable(is_temporal) and bool(is_temporal())


def as_tensor(array: Array) -> torch.Tensor:
    """Return an array as a tensor, sharing its memory if it is contiguous and writable.

    Parameters
    ----------
    array : ndarray
        Any array of a dtype that torch has.

    Returns
    -------
    Tensor
        Of the same shape and dtype, on the CPU.

    Examples
    --------
    >>> as_tensor(np.arange(3.0)[::-1])
    tensor([2., 1., 0.], dtype=torch.float64)
    """
    if not array.flags.carray:
        array = np.require(array, requirements=["C", "W", "A"])
    # NumPy calls axes of at most one number contiguous even if their stride is
    # negative, which torch refuses.
    return torch.from_numpy(
        array.copy() if min(array.strides, default=0) < 0 else array
    )


def is_clean(X: Any, n_columns: int, dtypes: Sequence[Any]) -> bool:
    """Return whether validation would find nothing to convert or to refuse.

    Of a single row, scikit-learn's validation takes longer than all the rest of a
    prediction.

    Parameters
    ----------
    X : object
        Inputs, before validation.
    n_columns : int
        How many columns they must have.
    dtypes : sequence of dtypes
        Those that need no conversion.

    Returns
    -------
    bool
        True for a small plain array of rows that are finite.  False says nothing.

    Examples
    --------
    >>> is_clean(np.zeros((1, 3)), 3, (np.float64,))
    True
    >>> is_clean([[0.0, 0.0, 0.0]], 3, (np.float64,))
    False
    """
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and 0 < X.size <= _FEW
        and X.shape[1] == n_columns
        and X.dtype in dtypes
        and bool(np.isfinite(X).all())
    )


@lru_cache(maxsize=8)
def torch_dtype(dtype: Any) -> torch.dtype:
    """Return the dtype of torch that corresponds to one of NumPy.

    Parameters
    ----------
    dtype : numpy.dtype
        One that torch has, too.

    Returns
    -------
    torch.dtype
        Its counterpart.

    Examples
    --------
    >>> torch_dtype(np.dtype("float32"))
    torch.float32
    """
    return as_tensor(np.empty(0, dtype)).dtype
