"""Identity and state of tensors, which tell whether something cached is still valid."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from torch import Tensor

__all__ = ["Fingerprint"]


class Fingerprint:
    """The identity and the state of some tensors at one moment.

    Changes behind torch's back, through ``tensor.data``, through memory shared with
    NumPy or by fused optimisers, go unnoticed.

    Parameters
    ----------
    tensors : iterable of Tensor
        The tensors; they are not kept alive.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(3)
    >>> then = Fingerprint([x])
    >>> then.matches([x])
    True
    >>> then.matches([x.add_(1)]), then.matches([torch.zeros(3)])
    (False, False)
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._parts = [(weakref.ref(t), *_state(t)) for t in tensors]

    def __len__(self) -> int:
        return len(self._parts)

    def matches(self, tensors: Iterable[Tensor]) -> bool:
        """Return whether these are the same tensors, unchanged."""
        known, now = self._parts, list(tensors)
        return len(now) == len(known) and all(map(_is_same, known, now))

    def changed(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Return those of as many tensors that are others, or not as they were."""
        pairs = zip(self._parts, tensors, strict=True)
        return [t for known, t in pairs if not _is_same(known, t)]


def _is_same(known: tuple[weakref.ref[Tensor], int, int], t: Tensor) -> bool:
    return known[0]() is t and known[1:] == _state(t)


def _state(t: Tensor) -> tuple[int, int]:
    # Tensors made in inference mode do not count changes in place.
    return t.data_ptr(), 0 if t.is_inference() else t._version
