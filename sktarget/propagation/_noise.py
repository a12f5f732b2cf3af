"""Random numbers for the rows of a mini-batch."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

__all__ = ["RowNoise"]


class RowNoise:
    """Random numbers that belong to rows: equal rows get equal numbers.

    The numbers thus depend neither on the order of the rows within the mini-batch nor
    on whether a row is repeated or carries a weight.

    Parameters
    ----------
    x : Tensor of shape (n_b, ...)
        The rows, float32 or float64.
    generator : torch.Generator
        Source of randomness, on the device of `x`.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    >>> noise = RowNoise(x, torch.Generator().manual_seed(0))
    >>> a, b, c = noise.normal(5)
    >>> torch.equal(a, c), torch.equal(a, b)
    (True, False)
    """

    def __init__(self, x: Tensor, generator: torch.Generator) -> None:
        self.x, self.generator = x, generator

    def normal(self, width: int) -> Tensor:
        """Draw standard normal numbers of shape (n_b, width)."""
        n_distinct, group = self.groups
        drawn = self.x.new_empty(n_distinct, width)
        return drawn.normal_(generator=self.generator)[group]

    def uniform(self, width: int) -> Tensor:
        """Draw uniform numbers from [0, 1), of shape (n_b, width)."""
        n_distinct, group = self.groups
        drawn = self.x.new_empty(n_distinct, width)
        return drawn.uniform_(generator=self.generator)[group]

    @cached_property
    def groups(self) -> tuple[int, Tensor]:
        """Number of distinct rows, and the index of each row among them."""
        keys, group = torch.unique(_hash_rows(self.x), return_inverse=True)
        return len(keys), group


def _hash_rows(x: Tensor) -> Tensor:
    """Hash the bits of each row, in arithmetic modulo 2⁶⁴: exact in any order.

    Every word, offset according to its place, goes through the finaliser of SplitMix64.
    """
    integer = torch.int64 if x.dtype == torch.float64 else torch.int32
    # Adding 0.0 turns -0.0 into 0.0: equal numbers must have equal hashes.
    bits = (x + 0.0).contiguous().flatten(1).view(integer).long()
    z = bits + torch.arange(bits.shape[1], device=x.device) * -0x61C8864680B583EB
    z = (z ^ _shifted(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ _shifted(z, 27)) * -0x6B2FB644ECCEEE15
    return (z ^ _shifted(z, 31)).sum(1)


def _shifted(z: Tensor, n: int) -> Tensor:
    """Shift bits to the right, filling with zeros, not with copies of the sign."""
    return (z >> n) & ((1 << (64 - n)) - 1)
