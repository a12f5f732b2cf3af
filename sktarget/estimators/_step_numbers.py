"""Numbers at the steps of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators._sequence_data import Sequences
from sktarget.estimators._step_labels import as_many, none_counts

__all__ = ["read_step_numbers"]

Array = NDArray[Any]


def read_step_numbers(
    y: Any, sequences: Sequences, n_ignored: int
) -> tuple[Array, bool]:
    """Read the outputs at each step.

    Parameters
    ----------
    y : array-like of shape (n, time) or (n, n_outputs, time), or list
        Numbers, or a list of arrays of shape (t_i,) or (n_outputs, t_i).  A step with
        NaN does not count.
    sequences : Sequences
        The sequences; numbers at padding do not count.
    n_ignored : int
        How many steps do not count at the beginning of each sequence.

    Returns
    -------
    numbers : ndarray of shape (n, time, n_outputs)
        The numbers; NaN in all outputs of steps that do not count.
    is_single : bool
        Whether y has one number, not an axis of outputs, at each step.

    Raises
    ------
    ValueError
        If y differs from X in length, holds anything but numbers, or no step counts.
    """
    given = as_many(y, sequences, "y.astype(float).filled(np.nan)")
    items = [_numbers_of(i, item) for i, item in enumerate(given)]
    forms = sorted({item.shape[:-1] for item in items})
    if len(forms) > 1:
        raise ValueError(
            "every sequence needs as many outputs, but the first axes of the items of "
            f"y are {forms}"
        )
    n_outputs = forms[0][0] if forms[0] else 1
    numbers = np.full((*sequences.real.shape, n_outputs), np.nan)
    for i, item in enumerate(items):
        cut = sequences.cut(i, item)
        numbers[i, : cut.shape[-1]] = cut.T.reshape(-1, n_outputs)
    if np.isinf(numbers).any():
        raise ValueError("y contains infinity: mark steps that do not count with NaN")
    numbers[:, :n_ignored] = np.nan
    numbers[np.isnan(numbers).any(axis=2)] = np.nan
    if np.isnan(numbers).all():
        raise none_counts("NaN", n_ignored)
    return numbers, not forms[0]


def _numbers_of(i: int, item: Any) -> Array:
    try:
        given = np.asarray(item)
        if given.dtype.kind not in "biufO":
            raise TypeError(f"it has dtype {given.dtype}")
        numbers = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"item {i} of y does not hold numbers: {error}") from None
    if numbers.ndim not in (1, 2) or numbers.shape[0] == 0:
        raise ValueError(
            "with return_sequences=True, y must hold numbers for every step: an array "
            "of shape (n, time) or (n, n_outputs, time), or a list of arrays of shape "
            f"(t_i,) or (n_outputs, t_i); item {i} has shape {numbers.shape}"
        )
    return numbers
