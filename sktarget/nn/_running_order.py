"""The rows of all steps of a recurrent layer, in the order in which it runs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["earlier", "in_order", "resized", "shared"]


def in_order(rows: Tensor, sizes: list[int], reverse: bool) -> tuple[Tensor, ...]:
    """Split rows into steps, in running order."""
    steps = torch.split(rows, sizes)
    return steps[::-1] if reverse else steps


def shared(sizes: list[int], reverse: bool) -> list[int]:
    """Count the sequences that a step shares with the one before, in running order."""
    return sizes[:0:-1] if reverse else sizes[1:]


def resized(rows: Tensor, n: int) -> Tensor:
    """Take the first n rows, followed by zeros if there are fewer."""
    missing = n - rows.shape[0]
    if missing <= 0:
        return rows[:n] if missing else rows
    return torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])


def earlier(states: Tensor, sizes: list[int], reverse: bool) -> Tensor:
    """Return, for every row, its state at the step before in running order, or zeros.

    Examples
    --------
    >>> import torch
    >>> earlier(torch.tensor([[1.0], [2.0], [3.0]]), [2, 1], False).flatten()
    tensor([0., 0., 1.])
    >>> earlier(torch.tensor([[1.0], [2.0], [3.0]]), [2, 1], True).flatten()
    tensor([3., 0., 0.])
    """
    steps, last = in_order(states, sizes, reverse), states[:0]
    found = []
    for now in steps:
        found.append(resized(last, now.shape[0]))
        last = now
    return torch.cat(found[::-1] if reverse else found)
