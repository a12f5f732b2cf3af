"""Rows set aside for validation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from sktarget.estimators._rows import TrainingRows

__all__ = ["HoldingOut", "can_hold_out", "hold_out"]

Array = NDArray[Any]


class HoldingOut(NamedTuple):
    """How many distinct rows to hold out, and which.

    Attributes
    ----------
    n : int
        How many.
    learns_all : bool
        Whether they are learnt in the end.
    series : ndarray of int of shape (n_rows,) or None
        Which series every row is a window of: the last ones of each are then held out;
        None to draw them.
    stays : ndarray of bool of shape (n_rows,) or None
        Rows to keep for training wherever others can be held out instead.
    """

    n: int
    learns_all: bool = False
    series: Array | None = None
    stays: Array | None = None


def _most(rows: TrainingRows) -> int:
    """Return how many rows may be set aside if one of every class has to stay."""
    n_classes = 1 if rows.classes is None else len(np.unique(rows.classes))
    return rows.n_distinct - n_classes


def can_hold_out(rows: TrainingRows, n_validation: int) -> bool:
    """Return whether validation rows can be set aside.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    n_validation : int
        How many, where repeated ones count once.

    Returns
    -------
    bool
        Whether these are at least two, and a row of every class is left.
    """
    return 2 <= n_validation <= _most(rows)


def hold_out(
    rows: TrainingRows,
    plan: HoldingOut,
    fraction: float,
    random_state: np.random.RandomState,
) -> tuple[TrainingRows, TrainingRows]:
    """Set validation rows aside.

    Equal rows go to the same part, unless they are measurements of their own: copies of
    rows that a network has memorised would flatter it.  Classes, if any, are kept in
    proportion if both parts have room for all of them.  What is the only row of its
    class stays in the training part, and so do rows that are to, if others can take
    their place.  Of windows the last ones are taken, unless one of the parts would then
    lack a class.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    plan : HoldingOut
        How many, where repeated ones count once, and which.
    fraction : float
        The parameter `validation_fraction`, for messages.
    random_state : RandomState
        Decides which rows.

    Returns
    -------
    training, validation : TrainingRows
        The two parts; the former has a row of every class.

    Raises
    ------
    ValueError
        If there are too few rows for the split.
    """
    n_validation = plan.n
    if not can_hold_out(rows, n_validation):
        of_classes = "" if rows.classes is None else " of every class"
        raise ValueError(
            f"validation_fraction={fraction!r} of {rows.n_distinct} rows would set "
            f"{n_validation} aside, but it has to be at least 2, and at most "
            f"{_most(rows)} for a row{of_classes} to be left: give more rows, another "
            "validation_fraction, or early_stopping=False"
        )
    classes, first = rows.classes, np.unique(rows.repeats, return_index=True)[1]
    if classes is not None:
        classes = classes[first]
    kept, others, stratify = _choices(
        rows.n_distinct, classes, n_validation, random_state
    )
    order = others
    if plan.series is not None:
        order = np.sort(others)
        order = order[_last_of_each(plan.series[first][order])]
    training, validation = np.split(order, [len(order) - n_validation])
    draws = plan.series is None or not (
        _has_every_class(validation, classes)
        and _has_every_class(np.concatenate([training, kept]), classes)
    )
    if draws and n_validation < len(others):
        training, validation = train_test_split(
            others, test_size=n_validation, stratify=stratify, random_state=random_state
        )
    if plan.stays is not None:
        stays = np.zeros(rows.n_distinct, dtype=bool)
        stays[rows.repeats[plan.stays]] = True
        training, validation = _exchange(training, validation, stays, classes)
    left = rows[_all_of(rows, np.concatenate([training, kept]))]
    held_out = rows[_all_of(rows, validation)]
    left.n_held_out = len(held_out)
    return left, held_out


def _last_of_each(series: Array) -> Array:
    """Order rows so that the last ones come from the ends of all series alike."""
    _, start, number, size = np.unique(
        series, return_index=True, return_inverse=True, return_counts=True
    )
    share: Array = (np.arange(len(series)) - start[number] + 0.5) / size[number]
    return np.argsort(share, kind="stable")


def _exchange(
    training: Array, validation: Array, stays: Array, classes: Array | None
) -> tuple[Array, Array]:
    """Exchange rows for validation that are to stay for others, of the same classes."""
    training, validation = training.copy(), validation.copy()
    kinds = np.zeros(len(stays), dtype=int) if classes is None else classes
    comes, goes = np.flatnonzero(stays[validation]), np.flatnonzero(~stays[training])
    for kind in np.unique(kinds[validation[comes]]):
        come = comes[kinds[validation[comes]] == kind]
        go = goes[kinds[training[goes]] == kind][: len(come)]
        come = come[: len(go)]
        training[go], validation[come] = validation[come], training[go]
    return training, validation


def _has_every_class(index: Array, classes: Array | None) -> bool:
    """Return whether some of the rows are of all classes, if there are any."""
    return classes is None or set(classes[index]) == set(classes)


def _all_of(rows: TrainingRows, distinct: Array) -> Array:
    """Return the rows that are among some distinct ones, in the order of these."""
    if rows.n_distinct == len(rows):
        return distinct
    order = np.argsort(rows.repeats, kind="stable")
    starts = np.searchsorted(rows.repeats[order], np.arange(rows.n_distinct + 1))
    return np.concatenate([order[starts[i] : starts[i + 1]] for i in distinct])


def _choices(
    n: int,
    classes: Array | None,
    n_validation: int,
    random_state: np.random.RandomState,
) -> tuple[Array, Array, Array | None]:
    """Return rows to train on in any case, all others, and classes to be in proportion.

    The classes are those of the other rows; None if one part has no room for all.
    """
    index = np.arange(n)
    if classes is None:
        return index[:0], index, None
    repeated = np.bincount(classes)[classes] > 1
    of_others = classes[repeated]
    _, counts = np.unique(of_others, return_counts=True)
    n_left = len(of_others) - n_validation
    # The rarest class has to keep a row, too.
    keeps_all = n_left * counts.min(initial=n) >= len(of_others)
    if min(n_validation, n_left) >= len(counts) and keeps_all:
        return index[~repeated], index[repeated], of_others
    order = random_state.permutation(n)
    _, first = np.unique(classes[order], return_index=True)
    return order[first], np.delete(order, first), None
