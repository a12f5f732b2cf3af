"""Hashes of rows, which tell equal ones, whatever their order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_appearance", "hash_rows", "number_pairs"]

Array = NDArray[Any]
# Rows are hashed in slices of about this many words, to bound the memory.
_SLICE = 1 << 22


def number_pairs(X: Array, y: Array) -> tuple[NDArray[np.intp], int]:
    """Return numbers of the distinct pairs (x, y), and how many x there are.

    Parameters
    ----------
    X, y : ndarray of shape (n, ...)
        Rows, and what belongs to them.

    Returns
    -------
    pairs : ndarray of shape (n,)
        The number of each pair, by order of appearance.
    n_distinct : int
        How many x differ.

    Examples
    --------
    >>> import numpy as np
    >>> number_pairs(np.array([[2.0], [1.0], [2.0], [2.0]]), np.array([0, 0, 0, 1]))
    (array([0, 1, 0, 2]), 2)
    """
    keys = hash_rows(X, seed=0)
    of_pairs = _mix(keys) + hash_rows(y.reshape(len(y), -1), seed=1)
    return by_appearance(of_pairs), len(np.unique(keys))


def by_appearance(keys: Array) -> NDArray[np.intp]:
    """Return numbers of what differs, by order of appearance.

    Parameters
    ----------
    keys : ndarray of shape (n,)
        Anything that can be sorted.

    Returns
    -------
    ndarray of shape (n,)
        The same number for equal keys.

    Examples
    --------
    >>> import numpy as np
    >>> by_appearance(np.array([7, 3, 7]))
    array([0, 1, 0])
    """
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    number: NDArray[np.intp] = np.argsort(np.argsort(first))
    return number[inverse]


def hash_rows(X: Array, seed: int) -> NDArray[np.uint64]:
    """Hash every row to 64 bits; equal rows (0.0 and -0.0 too) hash equally.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Rows.
    seed : int
        Decides the hash.

    Returns
    -------
    ndarray of shape (n,)
        The hashes, in uint64.
    """
    n = len(X)
    flat = X.reshape(n, -1)
    factors = np.random.RandomState(seed).randint(
        0, 2**63 - 1, size=(2, flat.shape[1]), dtype=np.int64
    )
    odd, offset = factors.astype(np.uint64) * np.uint64(2) + np.uint64(1)
    words = np.dtype(f"u{flat.dtype.itemsize}")
    keys = np.empty(n, dtype=np.uint64)
    step = max(1, _SLICE // max(1, flat.shape[1]))
    for start in range(0, n, step):
        part = np.ascontiguousarray(flat[start : start + step])
        if part.dtype.kind == "f":
            part = part + part.dtype.type(0)
        mixed = _mix((part.view(words).astype(np.uint64) + offset) * odd)
        keys[start : start + step] = _mix(mixed.sum(axis=1, dtype=np.uint64))
    return keys


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finish a hash so that all bits depend on all bits (splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
