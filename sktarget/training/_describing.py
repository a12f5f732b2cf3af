"""Parameters and data in words, to tell whether they are the same as before."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["describe_value", "digest"]


def describe_value(value: Any) -> str:
    """Describe the value of a parameter so that equal ones are described equally.

    Parameters
    ----------
    value : object
        Plain values and arrays by what they are, anything else by its name or class.

    Returns
    -------
    str
        The description.

    Examples
    --------
    >>> describe_value((1, "auto", len))
    "(1, 'auto', len)"
    """
    if isinstance(value, np.generic):
        value = value.item()
    if hasattr(value, "__array__") and not isinstance(value, type):
        return f"an array ({digest(_without_addresses(np.asarray(value)))})"
    if isinstance(value, list | tuple | range):
        return f"({', '.join(map(describe_value, value))})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(describe_value, value)))}}}"
    if isinstance(value, dict):
        pairs = ((describe_value(k), describe_value(v)) for k, v in value.items())
        return str(dict(sorted(pairs)))
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, partial):
        parts = [value.func, *value.args, value.keywords]
        return f"partial({', '.join(map(describe_value, parts))})"
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _without_addresses(array: NDArray[Any]) -> NDArray[Any]:
    # The memory of object arrays holds addresses, which say nothing of the values.
    return array.astype(str) if array.dtype.kind == "O" else array


def digest(*arrays: NDArray[Any]) -> str:
    """Return a short text that differs for other arrays.

    Parameters
    ----------
    *arrays : ndarray
        Of any shape and dtype.

    Returns
    -------
    str
        The first quarter of a SHA-256, in hexadecimal.
    """
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:16]
