"""Rows set aside for validation."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import train_test_split

from sktarget.estimators._rows import TrainingRows

__all__ = ["can_hold_out", "hold_out"]


def _count_classes(rows: TrainingRows) -> tuple[int, int]:
    """Return the number of classes, and of rows of the rarest class."""
    if rows.classes is None:
        return 1, len(rows)
    counts = np.bincount(rows.classes)
    return len(counts), int(counts[counts > 0].min())


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
        Whether both parts have enough rows, for every class.
    """
    n_validation = int(np.ceil(fraction * len(rows)))
    n_classes, rarest = _count_classes(rows)
    smaller = min(n_validation, len(rows) - n_validation)
    return n_validation >= 2 and smaller >= n_classes and rarest >= 2


def hold_out(
    rows: TrainingRows, fraction: float, random_state: np.random.RandomState
) -> tuple[TrainingRows, TrainingRows]:
    """Set validation rows aside, with the classes, if any, in proportion.

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
    n_validation = int(np.ceil(fraction * len(rows)))
    if not can_hold_out(rows, fraction):
        n_classes, rarest = _count_classes(rows)
        raise ValueError(
            f"validation_fraction={fraction!r} of {len(rows)} rows is too small a "
            f"validation split for {n_classes} class(es), the rarest with {rarest} "
            "row(s): give more rows, another validation_fraction, or "
            "early_stopping=False."
        )
    training, validation = train_test_split(
        np.arange(len(rows)),
        test_size=n_validation,
        stratify=rows.classes,
        random_state=random_state,
    )
    return rows[training], rows[validation]
