"""What protects a fitted estimator, and its user, from a fit that fails."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar, cast

from sktarget.linalg import FactorisationError
from sktarget.training import DivergenceError

__all__ = [
    "as_value_errors",
    "keeps_fitted_state",
    "remember",
    "undone_if_it_fails",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def keeps_fitted_state(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Leave the estimator as it was if the method fails."""

    @functools.wraps(method)
    def guarded(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        with undone_if_it_fails(self):
            return method(self, *args, **kwargs)

    return cast(Callable[Concatenate[S, P], R], guarded)


@contextmanager
def undone_if_it_fails(estimator: object) -> Iterator[None]:
    """Give an estimator its attributes back if what follows fails."""
    undo = remember(estimator)
    try:
        yield
    except BaseException:
        undo()
        raise


def remember(estimator: object) -> Callable[[], None]:
    """Return what gives an estimator back the attributes that it has now."""
    before = dict(estimator.__dict__)

    def undo() -> None:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)

    return undo


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Raise failures of training as ValueError, which users of estimators expect."""
    try:
        yield
    except (DivergenceError, FactorisationError) as error:
        raise ValueError(str(error)) from None
