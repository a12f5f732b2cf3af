"""Calls that are not made where they would change nothing.

In small networks it is the number of calls that counts: each takes a microsecond or
two, whether or not it does anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["head", "in_dtype", "in_shape"]


def head(rows: Tensor, n: int) -> Tensor:
    """Take the first n rows, without a call if that is all of them."""
    return rows if n == rows.shape[0] else rows[:n]


def in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a dtype."""
    return x if x.dtype == dtype else x.to(dtype=dtype)


def in_shape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor in a shape."""
    return x if x.shape == shape else x.reshape(shape)
