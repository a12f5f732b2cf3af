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
    """How many rows to hold out, and whether they are learnt in the end."""

    n: int
    learns_all: bool = False


def _most(rows: TrainingRows) -> int:
    """Return how many rows may be set aside if one of every class has to stay."""
    if rows.classes is None:
        return len(rows) - 1
    return len(rows) - len(np.unique(rows.classes))


def can_hold_out(rows: TrainingRows, n_validation: int) -> bool:
    """Return whether validation rows can be set aside.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    n_validation : int
        How many.

    Returns
    -------
    bool
        Whether these are at least two, and a row of every class is left.
    """
    return 2 <= n_validation <= _most(rows)


def hold_out(
    rows: TrainingRows,
    n_validation: int,
    fraction: float,
    random_state: np.random.RandomState,
) -> tuple[TrainingRows, TrainingRows]:
    """Set validation rows aside.

    Classes, if any, are kept in proportion if both parts have room for all of them.
    What is the only row of its class stays in the training part.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    n_validation : int
        How many.
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
    if not can_hold_out(rows, n_validation):
        of_classes = "" if rows.classes is None else " of every class"
        raise ValueError(
            f"validation_fraction={fraction!r} of {len(rows)} rows would set "
            f"{n_validation} aside, but it has to be at least 2, and at most "
            f"{_most(rows)} for a row{of_classes} to be left: give more rows, another "
            "validation_fraction, or early_stopping=False"
        )
    kept, index, classes = _choices(rows, n_validation, random_state)
    training, validation = train_test_split(
        index, test_size=n_validation, stratify=classes, random_state=random_state
    )
    left = rows[np.concatenate([training, kept])]
    left.n_held_out = n_validation
    return left, rows[validation]


def _choices(
    rows: TrainingRows, n_validation: int, random_state: np.random.RandomState
) -> tuple[Array, Array, Array | None]:
    """Return rows to train on in any case, all others, and classes to be in proportion.

    These are those of the others, or None if one part has no room for all of them.
    """
    index = np.arange(len(rows))
    if rows.classes is None:
        return index[:0], index, None
    repeated = np.bincount(rows.classes)[rows.classes] > 1
    classes = rows.classes[repeated]
    if min(n_validation, len(classes) - n_validation) >= len(np.unique(classes)):
        return index[~repeated], index[repeated], classes
    order = random_state.permutation(len(rows))
    _, first = np.unique(rows.classes[order], return_index=True)
    return order[first], np.delete(order, first), None
