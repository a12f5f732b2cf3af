"""Choice of the fixed batch X̄ (Sec. 3.1), independent of the order of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators._hashing import hash_rows
from sktarget.estimators._statistics import column_moments
from sktarget.estimators._weights import scaled_down

__all__ = ["draw_rows", "noise_batch"]

Array = NDArray[Any]
Floats = NDArray[np.floating]

# So many rows are searched at a time.
_ROWS_AT_ONCE = 1 << 10


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
        X, weight = X[kept], scaled_down(weight[kept])[0]
    keys, first, inverse = np.unique(
        hash_rows(X, seed), return_index=True, return_inverse=True
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
    wanted, found = np.flatnonzero((least == most) & varies), [np.empty(0, np.intp)]
    for start in range(0, len(others), _ROWS_AT_ONCE):
        if not len(wanted):
            break
        block = X[others[start : start + _ROWS_AT_ONCE]][:, wanted]
        differs = block != least[wanted]
        has_any = differs.any(axis=0)
        found.append(size + start + differs[:, has_any].argmax(axis=0))
        wanted = wanted[~has_any]
    more = np.unique(np.concatenate(found))
    rest = np.delete(np.arange(size, len(order)), more - size)
    forward = np.concatenate([np.arange(min(size, len(order))), more, rest])
    return order[forward], size + len(more)


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
