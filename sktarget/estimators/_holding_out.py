"""Rows set aside for validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from sktarget.estimators._rows import TrainingRows

__all__ = ["can_hold_out", "hold_out"]


def _are_repeated(rows: TrainingRows) -> NDArray[np.bool_]:
    """Mark the rows whose class has others: the only row of a class is for training."""
    if rows.classes is None:
        return np.ones(len(rows), dtype=bool)
    return np.asarray(np.bincount(rows.classes)[rows.classes] > 1)


def _n_validation(rows: TrainingRows, fraction: float) -> int:
    return int(np.ceil(fraction * len(rows)))


def can_hold_out(rows: TrainingRows, fraction: float) -> bool:
    """Return whether validation rows can be set aside.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    fraction : float
        The parameter `validation_fraction`.

    Returns
    -------
    bool
        Whether there are at least two of them, and others of their classes.
    """
    n_repeated = int(_are_repeated(rows).sum())
    return 2 <= _n_validation(rows, fraction) < n_repeated


def hold_out(
    rows: TrainingRows, fraction: float, random_state: np.random.RandomState
) -> tuple[TrainingRows, TrainingRows]:
    """Set validation rows aside.

    Classes, if any, are kept in proportion, if either part has room for all that have
    more than one row.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    fraction : float
        The parameter `validation_fraction`.
    random_state : RandomState
        Decides which rows.

    Returns
    -------
    training, validation : TrainingRows
        The two parts.

    Raises
    ------
    ValueError
        If there are too few rows for the split.
    """
    n_validation, repeated = _n_validation(rows, fraction), _are_repeated(rows)
    index, alone = np.flatnonzero(repeated), np.flatnonzero(~repeated)
    if not can_hold_out(rows, fraction):
        raise ValueError(
            f"validation_fraction={fraction!r} of {len(rows)} rows would set "
            f"{n_validation} aside, but at least 2 are needed, and fewer than the "
            f"{len(index)} that are not the only one of their class: give more rows, "
            "another validation_fraction, or early_stopping=False"
        )
    classes = None if rows.classes is None else rows.classes[index]
    if classes is not None:
        smaller = min(n_validation, len(index) - n_validation)
        if smaller < len(np.unique(classes)):
            classes = None
    training, validation = train_test_split(
        index, test_size=n_validation, stratify=classes, random_state=random_state
    )
    return rows[np.concatenate([training, alone])], rows[validation]
