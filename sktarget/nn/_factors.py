"""Factorisations that do not change from pass to pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sktarget.nn._fingerprint import Fingerprint
from sktarget.nn._solution import Solution

__all__ = ["Factors"]


class Factors:
    """The factorisations of layers whose inputs are X̄ itself.

    They hold until X̄ changes.  Copies, of other networks, begin with none.
    """

    def __init__(self) -> None:
        self._made_for: Fingerprint | None = None
        self._known: dict[str, tuple[Any, Solution]] = {}

    def belong_to(self, fixed_batch: Tensor) -> bool:
        """Return whether this is the X̄ that they were made for, unchanged.

        Parameters
        ----------
        fixed_batch : Tensor
            X̄ at present.

        Returns
        -------
        bool
            False as well if none have been made.
        """
        return self._made_for is not None and self._made_for.matches([fixed_batch])

    def renew(self, fixed_batch: Tensor) -> None:
        """Forget all, to begin with another X̄.

        Parameters
        ----------
        fixed_batch : Tensor
            X̄ from now on.
        """
        self._made_for = Fingerprint([fixed_batch])
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Forget all, and that this X̄ has been seen."""
        self._made_for = None
        self._known.clear()

    def of(self, name: str, key: Any, make: Callable[[], Solution]) -> Solution:
        """Return the factorisation of a layer.

        Parameters
        ----------
        name : str
            The layer.
        key : object
            What the factorisation depends on besides X̄.
        make : callable
            Makes it, where it is not known.

        Returns
        -------
        Solution
            The factorisation.
        """
        known = self._known.get(name)
        if known is None or known[0] != key:
            known = self._known[name] = (key, make())
        return known[1]
