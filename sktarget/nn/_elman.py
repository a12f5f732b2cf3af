"""Simple recurrent layers (Elman's), step by step on the CPU.

Torch has no fused kernel for them there.  It runs them as one operation after the
other, and on the way back forms and adds up a gradient of the weights at every step.
Here a step is one product and one activation, both in place, and all steps share one
product for the gradient of the weights: half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from sktarget._linear import affine
from sktarget.linalg import add_product, product
from sktarget.nn._cells import SimpleCell
from sktarget.nn._operators import head

__all__ = ["run_steps"]


def run_steps(
    cells: Sequence[SimpleCell],
    matrices: Sequence[Tensor],
    inputs: Tensor | PackedSequence,
    dropout: float,
    bidirectional: bool,
) -> tuple[Tensor | PackedSequence, tuple[Tensor]]:
    """Run a stack of simple recurrent layers from zero states.

    As :func:`~sktarget.nn._kernels.run_kernel` does, with the same arguments.
    """
    if isinstance(inputs, PackedSequence):
        rows, sizes = inputs.data, inputs.batch_sizes.tolist()
    else:
        n, n_steps = inputs.shape[:2]
        rows, sizes = inputs.transpose(0, 1).flatten(0, 1), [n] * n_steps
    pairs, last = list(zip(cells, matrices, strict=True)), []
    width = 1 + bidirectional
    for start in range(0, len(pairs), width):
        if start > 0:
            rows = F.dropout(rows, dropout)
        outputs = []
        for k, (cell, matrix) in enumerate(pairs[start : start + width]):
            outputs.append(_run(cell, matrix, rows, sizes, reverse=k == 1))
            last.append(_last(outputs[-1], sizes, reverse=k == 1))
        rows = torch.cat(outputs, dim=1) if bidirectional else outputs[0]
    ends = torch.stack(last)
    if not isinstance(inputs, PackedSequence):
        # A copy, as torch's own: what goes out may be changed in place.
        in_time = rows.view(n_steps, n, -1).transpose(0, 1)
        return in_time.clone(memory_format=torch.contiguous_format), (ends,)
    if inputs.unsorted_indices is not None:
        ends = ends.index_select(1, inputs.unsorted_indices)
    return inputs._replace(data=rows), (ends,)


def _run(
    cell: SimpleCell, matrix: Tensor, rows: Tensor, sizes: list[int], *, reverse: bool
) -> Tensor:
    """Run one direction of one layer; `sizes` tells the rows of every step."""
    start = int(cell.bias)
    inward, context = matrix[start:].tensor_split((cell.n_inputs,))
    sums = affine(rows, inward.T, matrix[0] if cell.bias else None)
    outputs: Tensor = _Steps.apply(sums, context, cell, sizes, reverse)  # type: ignore[no-untyped-call]
    return outputs


def _last(outputs: Tensor, sizes: list[int], *, reverse: bool) -> Tensor:
    """Take the last state of every sequence, the longest sequence first."""
    if reverse:
        return outputs[: sizes[0]]
    if sizes[0] == sizes[-1]:
        return outputs[-sizes[0] :]
    parts, following = torch.split(outputs, sizes), [*sizes[1:], 0]
    ended = [part[n:] for part, n in zip(parts, following, strict=True)]
    return torch.cat(ended[::-1])


class _Steps(torch.autograd.Function):
    """``h(t) = g(s(t) + h(t − 1) W)`` for all steps, in the place of their sums s.

    With δ(t) = ∂L/∂(sum of step t): ``δ(t) = g′ (∂h(t) + δ(t + 1) Wᵀ)``, and
    ``∂W = Σ h(t − 1)ᵀ δ(t)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sums: Tensor,
        weight: Tensor,
        cell: SimpleCell,
        sizes: list[int],
        reverse: bool,
    ) -> Tensor:
        steps = _in_order(sums, sizes, reverse)
        cell.activate_(steps[0])
        for (before, now), n in zip(
            pairwise(steps), _shared(sizes, reverse), strict=True
        ):
            add_product(head(now, n), head(before, n), weight)
            cell.activate_(now)
        ctx.mark_dirty(sums)
        ctx.save_for_backward(sums, weight)
        ctx.cell, ctx.sizes, ctx.reverse = cell, sizes, reverse
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        h, weight = ctx.saved_tensors
        sizes, reverse, back = ctx.sizes, ctx.reverse, weight.T
        delta = d_outputs.clone(memory_format=torch.contiguous_format)
        steps = _in_order(delta, sizes, not reverse)
        slopes = _in_order(ctx.cell.slope(h), sizes, not reverse)
        steps[0].mul_(slopes[0])
        for (after, now), slope, n in zip(
            pairwise(steps), slopes[1:], _shared(sizes, not reverse), strict=True
        ):
            add_product(head(now, n), head(after, n), back)
            now.mul_(slope)
        earlier, later = (delta, h) if reverse else (h, delta)
        d_weight = product(_followed(earlier, sizes).T, later[sizes[0] :])
        return delta, d_weight.T if reverse else d_weight, None, None, None


def _in_order(rows: Tensor, sizes: list[int], reverse: bool) -> tuple[Tensor, ...]:
    """Split rows into steps, in the order of running."""
    steps = torch.split(rows, sizes)
    return steps[::-1] if reverse else steps


def _shared(sizes: list[int], reverse: bool) -> list[int]:
    """Count the sequences that a step and the one before it have, in this order."""
    return sizes[:0:-1] if reverse else sizes[1:]


def _followed(rows: Tensor, sizes: list[int]) -> Tensor:
    """Leave out the rows with which sequences end: one for each row from step 1 on."""
    if sizes[0] == sizes[-1]:
        return rows[: len(rows) - sizes[0]]
    steps = torch.split(rows, sizes)
    return torch.cat([step[:n] for step, n in zip(steps, sizes[1:], strict=False)])
