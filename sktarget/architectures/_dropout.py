"""Dropout that leaves the global generator alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SeededDropout"]


class SeededDropout(nn.Dropout):
    """Dropout that draws from its own generator, not from the global one.

    Parameters
    ----------
    p : float
        Probability that an input is dropped.
    generator : torch.Generator, optional
        Source of randomness; None stands for the global generator.  Copies,
        such as that of :class:`~sktarget.nn.TargetSpace`, do not get it: give these
        one of their own.

    Examples
    --------
    >>> import torch
    >>> layer = SeededDropout(0.5, torch.Generator().manual_seed(0))
    >>> sorted(set(layer(torch.ones(100)).tolist()))
    [0.0, 2.0]
    """

    def __init__(self, p: float, generator: torch.Generator | None = None) -> None:
        super().__init__(p)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Drop inputs at random in training mode."""
        if not self.training or self.generator is None:
            return super().forward(x)
        if self.p == 1:
            return x * 0.0
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep.div_(1 - self.p)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the generator out: a copy is for prediction, or gets a new one."""
        return {**self.__dict__, "generator": None}
