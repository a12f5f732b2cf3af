"""What a user's list of callbacks holds, and what it must not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from skorch.callbacks import LRScheduler

__all__ = ["bare", "brings_schedule", "refuse_to_watch_nothing"]

# Columns of the history that there are only with a validation set.
_VALIDATED = {"valid_loss", "valid_score"}


def brings_schedule(callbacks: Iterable[Any]) -> bool:
    """Return whether a user's list of callbacks holds a schedule of the step size.

    Parameters
    ----------
    callbacks : iterable of Callback or (str, Callback)
        The list.

    Returns
    -------
    bool
        Whether one of them is an ``LRScheduler`` of skorch.
    """
    return any(isinstance(bare(callback), LRScheduler) for callback in callbacks)


def refuse_to_watch_nothing(callbacks: Iterable[Any]) -> None:
    """Refuse callbacks that go by a validation set, where there is none.

    Parameters
    ----------
    callbacks : iterable of Callback or (str, Callback)
        A user's list.

    Raises
    ------
    ValueError
        If one of them monitors the loss or the score of a validation set.
    """
    for callback in map(bare, callbacks):
        watched = getattr(callback, "monitor", None)
        if isinstance(watched, str) and watched.removesuffix("_best") in _VALIDATED:
            raise ValueError(
                f"callbacks: {type(callback).__name__} goes by {watched!r}, but no "
                "rows are held out: let it go by monitor='train_loss' or, in fit, set "
                "early_stopping=True or give X_val and y_val"
            )


def bare(callback: Any) -> Any:
    """Return a callback without the name that it may be given with.

    Parameters
    ----------
    callback : Callback or (str, Callback)
        An item of a user's list.

    Returns
    -------
    Callback
        The callback alone.
    """
    is_pair = isinstance(callback, tuple) and len(callback) == 2
    return callback[1] if is_pair else callback
