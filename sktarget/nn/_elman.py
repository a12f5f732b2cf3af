"""Elman layers, those of ``nn.RNN``, step by step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sktarget._linear import affine
from sktarget.linalg import add_product, product
from sktarget.nn._backward import backward_once
from sktarget.nn._cells import ElmanCell
from sktarget.nn._running_order import in_order, shared
from sktarget.nn._skipping import head

__all__ = ["run_elman"]


def run_elman(
    cell: ElmanCell, matrix: Tensor, rows: Tensor, sizes: list[int], *, reverse: bool
) -> Tensor:
    """Run one direction of one layer.

    Parameters
    ----------
    cell : ElmanCell
        The cell.
    matrix : Tensor
        Its matrix W.
    rows : Tensor of shape (rows, features)
        The inputs of all steps, one step after another.
    sizes : list of int
        Number of rows of each step, which never grows from one step to the next.
    reverse : bool
        Whether to run backwards in time.

    Returns
    -------
    Tensor of shape (rows, hidden)
        The states h.
    """
    bias, inward, context = cell.rows_of(matrix)
    sums = affine(rows, inward.T, bias)
    outputs: Tensor = _Steps.apply(sums, context, cell, sizes, reverse)  # type: ignore[no-untyped-call]
    return outputs


class _Steps(torch.autograd.Function):
    """``h(t) = g(s(t) + h(t − 1) W)`` for all steps, overwriting their sums s.

    With δ(t) = ∂L/∂(sum of step t): ``δ(t) = g′ (∂h(t) + δ(t + 1) Wᵀ)``, and
    ``∂W = Σ h(t − 1)ᵀ δ(t)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sums: Tensor,
        weight: Tensor,
        cell: ElmanCell,
        sizes: list[int],
        reverse: bool,
    ) -> Tensor:
        steps = in_order(sums, sizes, reverse)
        cell.activate_(steps[0])
        for (before, now), n in zip(
            pairwise(steps), shared(sizes, reverse), strict=True
        ):
            add_product(head(now, n), head(before, n), weight)
            cell.activate_(now)
        ctx.mark_dirty(sums)
        ctx.save_for_backward(sums, weight)
        ctx.cell, ctx.sizes, ctx.reverse = cell, sizes, reverse
        return sums

    @staticmethod
    @backward_once
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        h, weight = ctx.saved_tensors
        sizes, reverse, back = ctx.sizes, ctx.reverse, weight.T
        delta = d_outputs.clone(memory_format=torch.contiguous_format)
        steps = in_order(delta, sizes, not reverse)
        slopes = in_order(ctx.cell.slope(h), sizes, not reverse)
        steps[0].mul_(slopes[0])
        for (after, now), slope, n in zip(
            pairwise(steps), slopes[1:], shared(sizes, not reverse), strict=True
        ):
            add_product(head(now, n), head(after, n), back)
            now.mul_(slope)
        earlier, later = (delta, h) if reverse else (h, delta)
        d_weight = product(_without_ends(earlier, sizes).T, later[sizes[0] :])
        return delta, d_weight.T if reverse else d_weight, None, None, None


def _without_ends(rows: Tensor, sizes: list[int]) -> Tensor:
    """Leave out the last row of every sequence, so that each row left has a next."""
    if sizes[0] == sizes[-1]:
        return rows[: len(rows) - sizes[0]]
    steps = torch.split(rows, sizes)
    return torch.cat([step[:n] for step, n in zip(steps, sizes[1:], strict=False)])
