"""Choice of the fixed batch X̄ (Sec. 3.1), independent of the order of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "by_appearance",
    "column_moments",
    "draw_rows",
    "noise_batch",
    "number_pairs",
]

Array = NDArray[Any]
Floats = NDArray[np.floating]
# Rows are hashed in slices of about this many words, to bound the memory.
_SLICE = 1 << 22


def draw_rows(
    X: Array,
    size: int,
    seed: int,
    weight: Floats | None = None,
    *,
    of_all_columns: bool = False,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw distinct rows, weighted by the total weight of their copies.

    A seeded hash of its bytes gives every distinct row a uniform number u; the rows
    with the largest u^(1/w) are taken, where w is the weight summed over repeats.  So
    the draw, in one pass over X, depends neither on the order of the rows nor on
    whether a row is repeated or weighted.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Rows to draw from.
    size : int
        Number of rows to draw; fewer come back if there are fewer distinct ones.
    seed : int
        Decides the draw.
    weight : ndarray of shape (n,), optional
        Non-negative weights; rows of weight 0 are never drawn.
    of_all_columns : bool, default=False
        Draw more rows than `size` where columns of a table would otherwise be constant,
        one for each of them at most.

    Returns
    -------
    drawn : ndarray of shape (m,)
        Where each row drawn occurs first in X; those of the largest u^(1/w) lead.
    place : ndarray of shape (n,)
        Which of the drawn rows each row of X repeats, -1 for none of them.

    References
    ----------
    P. S. Efraimidis, P. G. Spirakis, "Weighted random sampling with a reservoir",
    Information Processing Letters 97 (2006).

    Examples
    --------
    >>> import numpy as np
    >>> drawn, place = draw_rows(np.array([[1.0], [2.0], [1.0]]), 5, seed=0)
    >>> np.sort(drawn), bool(place[0] == place[2])
    (array([0, 1]), True)
    """
    n_rows = len(X)
    kept = np.arange(n_rows)
    if weight is not None:
        kept = np.flatnonzero(weight > 0)
        X, weight = X[kept], _in_range(weight[kept])
    keys, first, inverse = np.unique(
        _hash_rows(X, seed), return_index=True, return_inverse=True
    )
    total = np.bincount(inverse, weights=weight, minlength=len(keys))
    uniform = (keys.astype(np.float64) + 0.5) / 2.0**64
    with np.errstate(divide="ignore", over="ignore"):  # tiny weights come last
        order = np.argsort(-np.log(uniform) / total, kind="stable")
    if of_all_columns:
        order, size = _bring_forward(X, first, order, size)
    order = order[:size]
    rank = np.full(len(keys), -1)
    rank[order] = np.arange(len(order))
    place = np.full(n_rows, -1)
    place[kept] = rank[inverse]
    return kept[first[order]], place


def _bring_forward(
    X: Array, first: NDArray[np.intp], order: NDArray[np.intp], size: int
) -> tuple[NDArray[np.intp], int]:
    """Bring forward a row for each column that is constant in those to be drawn.

    Such a column would have weights of 0, whatever other rows say.  Returns the new
    order of the distinct rows, the first of which are to be drawn, and their number.
    """
    drawn = X[first[order[:size]]]
    least, most = drawn.min(axis=0), drawn.max(axis=0)
    varies = X.min(axis=0) != X.max(axis=0)
    others = first[order[size:]]
    wanted = [
        size + int((X[others, j] != least[j]).argmax())
        for j in np.flatnonzero((least == most) & varies)
    ]
    more = np.unique(np.array(wanted, dtype=np.intp))
    rest = np.delete(np.arange(size, len(order)), more - size)
    forward = np.concatenate([np.arange(min(size, len(order))), more, rest])
    return order[forward], size + len(more)


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
    keys = _hash_rows(X, seed=0)
    of_pairs = _mix(keys) + _hash_rows(y.reshape(len(y), -1), seed=1)
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


def noise_batch(X: Array, size: int, seed: int, weight: Floats | None = None) -> Array:
    """Draw normal rows with the weighted mean and deviation of each column.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Rows whose columns the noise imitates; none of them is stored.
    size : int
        Number of rows to draw.
    seed : int
        Decides the draw.
    weight : ndarray of shape (n,), optional
        Non-negative weights.

    Returns
    -------
    ndarray of shape (size, ...)
        The noise, in the dtype of `X`, or float32 if that holds integers.

    Examples
    --------
    >>> import numpy as np
    >>> noise_batch(np.array([[1.0, 5.0], [3.0, 5.0]]), 3, seed=0)[:, 1]
    array([5., 5., 5.])
    """
    mean, deviation = column_moments(X, weight)
    noise = np.random.RandomState(seed).standard_normal((size, *X.shape[1:]))
    dtype = X.dtype if X.dtype.kind == "f" else np.dtype(np.float32)
    return (mean + noise * deviation).astype(dtype)


def column_moments(X: Array, weight: Floats | None) -> tuple[Floats, Floats]:
    """Return weighted mean and deviation of each column, a slice of rows at a time.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Rows.
    weight : ndarray of shape (n,) or None
        Non-negative weights.

    Returns
    -------
    mean, deviation : ndarray of shape (...)
        Moments, in float64.

    Examples
    --------
    >>> import numpy as np
    >>> column_moments(np.array([[1.0], [3.0]]), None)
    (array([2.]), array([1.]))
    """
    step = max(1, _SLICE // max(1, X[:1].size))
    starts = range(0, len(X), step)
    rows = np.ones(len(X)) if weight is None else _in_range(weight)
    total = rows.sum()

    def mean_over(f: Callable[[Floats], Floats]) -> Floats:
        parts = (
            # Always in C order, so that sums are rounded alike.
            np.tensordot(
                rows[i : i + step], f(X[i : i + step].astype(np.float64, order="C")), 1
            )
            for i in starts
        )
        return np.asarray(sum(parts) / total)

    mean = mean_over(lambda x: x)
    return mean, np.sqrt(mean_over(lambda x: (x - mean) ** 2))


def _in_range(weight: Floats) -> Floats:
    """Scale weights to at most 1, by a power of two, which is exact."""
    return np.asarray(np.ldexp(weight, -np.frexp(weight.max())[1]))


def _hash_rows(X: Array, seed: int) -> NDArray[np.uint64]:
    """Hash every row to 64 bits; equal rows (0.0 and -0.0 too) hash equally."""
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
