"""Sequences as users give them, in the one form in which networks take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Sequences",
    "count_steps",
    "find_series",
    "is_list",
    "lengths_of",
    "mean_length",
    "refuse_empty",
    "refuse_masks",
]

Array = NDArray[Any]

# Windows of several series do not all follow the one before them.
_MOST_FOLLOW = 0.9
# Pairs of neighbours to look at first.
_SOME_PAIRS = 50


@dataclass
class Sequences:
    """Sequences side by side, padded after their ends.

    Attributes
    ----------
    values : ndarray of shape (n, time, channels) or (n, time)
        Real numbers, with NaN as padding; or token ids, with 0 as padding.
    lengths : ndarray of shape (n,)
        Numbers of steps before padding, at least 1.
    sizes : ndarray of shape (n,) or None
        Numbers of steps of the items of a list; None if an array was given.
    """

    values: Array
    lengths: Array
    sizes: Array | None

    @property
    def real(self) -> Array:
        """Mark the steps that are not padding, (n, time)."""
        real: Array = np.arange(self.values.shape[1]) < self.lengths[:, None]
        return real

    def cut(self, i: int, given: Array) -> Array:
        """Cut what was given along the steps of a sequence to those before padding.

        Parameters
        ----------
        i : int
            Which sequence.
        given : ndarray of shape (..., t)
            Labels or numbers, with or without those for padding.

        Returns
        -------
        ndarray of shape (..., `lengths[i]`)
            Those that belong to steps.

        Raises
        ------
        ValueError
            If there are more, or fewer, than the sequence has.
        """
        size = (self.lengths if self.sizes is None else self.sizes)[i]
        # The sequences of a list are not padded.
        padded = self.values.shape[1] if self.sizes is None else size
        if given.shape[-1] not in (size, padded):
            turned = self.values.ndim == 3 and given.shape[-1] == self.values.shape[2]
            raise ValueError(
                f"y has {given.shape[-1]} steps for sequence {i}, but X has {size} "
                f"there{'' if size == padded else f' ({padded} with padding)'}"
                + (", and as many channels: transpose X, or y" if turned else "")
            )
        return given[..., : self.lengths[i]]

    def give_back(self, answers: Array, filler: Any) -> Array | list[Array]:
        """Bring answers (n, time, ...) into the form in which the user gave sequences.

        Parameters
        ----------
        answers : ndarray of shape (n, time, ...)
            An answer for each step.
        filler : object
            The answer for padding.

        Returns
        -------
        ndarray of shape (n, time, ...), or list of ndarray of shape (t_i, ...)
            The answers.
        """
        padding = ~self.real
        if padding.any():
            answers = answers.copy()
            answers[padding] = filler
        if self.sizes is None:
            return answers
        return [row[:size] for row, size in zip(answers, self.sizes, strict=True)]


def mean_length(values: Array) -> float:
    """Count the steps of sequences before padding, and return the mean.

    Parameters
    ----------
    values : ndarray of shape (n, time, channels) or (n, time)
        See :class:`Sequences`.

    Returns
    -------
    float
        Mean number of steps.
    """
    return float(lengths_of(values).mean())


def lengths_of(values: Array) -> Array:
    """Count the steps of each sequence before padding.

    Parameters
    ----------
    values : ndarray of shape (n, time, channels) or (n, time)
        See :class:`Sequences`.

    Returns
    -------
    ndarray of int of shape (n,)
        The numbers of steps.
    """
    real = np.not_equal(values, 0) if values.ndim == 2 else ~np.isnan(values[..., 0])
    return count_steps(real)


def find_series(values: Array) -> Array | None:
    """Find the series that sequences are windows of, if they are.

    Parameters
    ----------
    values : ndarray of shape (n, time, channels) or (n, time)
        See :class:`Sequences`.

    Returns
    -------
    ndarray of int of shape (n,), or None
        The number of the series that each sequence belongs to, in ascending order; None
        unless nine in ten begin within the first half of the one before them.

    Examples
    --------
    >>> import numpy as np
    >>> windows = np.lib.stride_tricks.sliding_window_view(np.arange(20.0), 6)
    >>> find_series(windows[::2])
    array([0, 0, 0, 0, 0, 0, 0, 0])
    >>> find_series(windows[::6]) is None
    True
    """
    n, time = values.shape[:2]
    if n < 2:
        return None
    values = values.reshape(n, time, -1)
    # What never changes shows nothing.
    varies = (values[:, 1:] != values[:, :-1]).any(axis=(1, 2))
    telling = np.flatnonzero(varies[1:] | varies[:-1])
    if not len(telling):
        return None
    # Some pairs show which steps are possible.
    some = telling[np.linspace(0, len(telling) - 1, _SOME_PAIRS).astype(int)]
    some = np.unique(some)
    begins = values[some, 1 : time // 2 + 1] == values[some + 1, :1]
    for step in 1 + np.flatnonzero(begins.all(axis=2).mean(axis=0) > _MOST_FOLLOW):
        agree = values[some + 1, :-step] == values[some, step:]
        if not agree.all(axis=(1, 2)).mean() > _MOST_FOLLOW:
            continue
        follows = (values[1:, :-step] == values[:-1, step:]).all(axis=(1, 2))
        if follows[telling].mean() > _MOST_FOLLOW:
            return np.concatenate([[0], np.cumsum(~follows)])
    return None


def count_steps(real: Array) -> Array:
    """Count the steps up to the last real one.

    Parameters
    ----------
    real : ndarray of bool of shape (n, time)
        Which steps are not padding.

    Returns
    -------
    ndarray of int of shape (n,)
        The counts; 0 if there is none.
    """
    n_padded = real[:, ::-1].argmax(axis=1)
    return np.where(real.any(axis=1), real.shape[1] - n_padded, 0)


def refuse_empty(lengths: Array, name: str, padding: str) -> None:
    """Refuse sequences that are nothing but padding.

    Parameters
    ----------
    lengths : ndarray of int of shape (n,)
        Numbers of steps before padding.
    name : str
        What holds the sequences, for the message.
    padding : str
        What pads them, likewise.

    Raises
    ------
    ValueError
        If any has no steps.
    """
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise ValueError(
            f"{len(empty)} row(s) of {name} hold nothing but padding ({padding}), "
            f"the first is row {empty[0]}: leave them out"
        )


def is_list(X: Any) -> bool:
    """Return whether X is a list of sequences, and not one array.

    Parameters
    ----------
    X : object
        Sequences as the user gave them.

    Returns
    -------
    bool
        True for lists, tuples and arrays of objects with one axis, unless empty.
    """
    if isinstance(X, list | tuple):
        return len(X) > 0
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    return kind == "O" and np.ndim(X) == 1 and len(X) > 0


def refuse_masks(values: Any, name: str, way: str) -> None:
    """Refuse masked arrays, whose masks validation would drop.

    Parameters
    ----------
    values : object
        What the user gives.
    name, way : str
        Its name, and what to give in its place.

    Raises
    ------
    ValueError
        If it is a masked array, or holds one, and anything is masked.
    """
    items = values if isinstance(values, list | tuple) else [values]
    # Arrays of pandas have masks as well, which they keep.
    if any(isinstance(i, np.ma.MaskedArray) and np.ma.is_masked(i) for i in items):
        raise ValueError(f"{name} has masked values: give {way}")
