"""A validation set that the user gives, in place of rows held out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np

from sktarget.estimators._outliers import far_rows
from sktarget.estimators._rows import TrainingRows

__all__ = [
    "ValidationSet",
    "check_validation_rows",
    "naming_the_validation_set",
    "warn_of_other_mean",
]

# Above this share of far rows, chance is no explanation.
_MOST = 0.5
# Deviations of y from which on the mean of others is far.
_FAR = 10.0


class ValidationSet(NamedTuple):
    """What ``fit`` was given to stop by, as it was given."""

    X: Any
    y: Any
    sample_weight: Any

    @classmethod
    def of(cls, X_val: Any, y_val: Any, sample_weight_val: Any) -> Self | None:
        """Return the three together, or None if nothing was given.

        Raises
        ------
        ValueError
            If inputs or outputs are missing.
        """
        if X_val is None and y_val is None and sample_weight_val is None:
            return None
        for name, value in (("X_val", X_val), ("y_val", y_val)):
            if value is None:
                raise ValueError(
                    f"{name} is missing: a validation set takes both X_val and y_val"
                )
        return cls(X_val, y_val, sample_weight_val)


@contextmanager
def naming_the_validation_set() -> Iterator[None]:
    """Let errors of a check say that they are about the validation set."""
    try:
        yield
    except (TypeError, ValueError) as error:
        # Not of its own class, which may be made in another way.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"The validation set, X_val and y_val: {error}") from error


def check_validation_rows(held_out: TrainingRows, rows: TrainingRows) -> None:
    """Bring a validation set into the arithmetic of the training set, and compare them.

    Parameters
    ----------
    held_out : TrainingRows
        The validation set, changed in place.
    rows : TrainingRows
        The training set.

    Raises
    ------
    ValueError
        If there are fewer than two rows.

    Warns
    -----
    UserWarning
        If most rows of a table are far from those of the training set.
    """
    if len(held_out) < 2:
        raise ValueError(
            f"it has {len(held_out)} row of positive weight, but needs at least two: "
            "give more rows, or leave it out"
        )
    of_numbers = held_out.X.dtype.kind == rows.X.dtype.kind == "f"
    if of_numbers:
        held_out.X = held_out.X.astype(rows.X.dtype, copy=False)
    if held_out.y.dtype.kind == "f":
        held_out.y = held_out.y.astype(rows.y.dtype, copy=False)
    if of_numbers and rows.X.ndim == 2:
        share = float(np.mean(far_rows(held_out.X, None, rows.bulk)))
        if share > _MOST:
            warnings.warn(
                f"{share:.0%} of the rows of X_val are far from all those of X: "
                "transform X_val as you do X, for example by scaling it. A pipeline "
                "does so with Pipeline(..., transform_input=['X_val'])",
                stacklevel=2,
            )


def warn_of_other_mean(held_out: TrainingRows, rows: TrainingRows) -> None:
    """Warn if the numbers of a validation set are far from those to be learnt."""
    (y, _), (other, _) = rows.outputs(), held_out.outputs()
    unit = y.std(axis=0, dtype=np.float64)
    mean, other_mean = (a.mean(axis=0, dtype=np.float64) for a in (y, other))
    away = np.abs(other_mean - mean)
    if (away > _FAR * unit)[unit > 0].any():
        warnings.warn(
            "the mean of y_val is far from that of y: transform y_val as you do y, "
            "which TransformedTargetRegressor does not do for you",
            stacklevel=2,
        )
