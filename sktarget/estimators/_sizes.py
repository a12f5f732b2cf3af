"""Widths of layers, as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["parse_layer_sizes"]


def parse_layer_sizes(sizes: Any, name: str = "hidden_layer_sizes") -> tuple[int, ...]:
    """Turn the parameter into a tuple of widths.

    Parameters
    ----------
    sizes : int or array-like of int
        The parameter as given.
    name : str
        Its name.

    Returns
    -------
    tuple of int
        The widths, all positive.

    Raises
    ------
    ValueError
        If a width is not a positive integer.
    """
    try:
        widths = [sizes] if np.ndim(sizes) == 0 else list(sizes)
        result = tuple(int(width) for width in widths)
        valid = all(a == b and b >= 1 for a, b in zip(widths, result, strict=True))
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise ValueError(f"{name} must be positive integers, got {sizes!r}")
    return result
