"""Recurrent layers that torch has no fused kernel for on the CPU, run step by step.

Torch runs Elman layers and GRU layers there one operation after another, and in the
backward pass forms and adds up a gradient of the weights at every step.  Here a step is
the product with its context and a few operations in place, and all steps share one
product for the gradient of the weights.  This takes half the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from sktarget.nn._cells import Cell, ElmanCell, GRUCell
from sktarget.nn._elman import run_elman
from sktarget.nn._gru import run_gru

__all__ = ["may_run_steps", "run_steps"]


def may_run_steps(cell: Cell, device: torch.device) -> bool:
    """Return whether layers of this kind of cell run step by step."""
    return device.type == "cpu" and isinstance(cell, ElmanCell | GRUCell)


def run_steps(
    cells: Sequence[Cell],
    matrices: Sequence[Tensor],
    inputs: Tensor | PackedSequence,
    dropout: float,
    bidirectional: bool,
) -> tuple[Tensor | PackedSequence, tuple[Tensor]]:
    """Run a stack of Elman layers, or of GRU layers, from zero states.

    Works like :func:`~sktarget.nn._kernels.run_kernel`, with the same arguments.
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
        # A copy, like torch's own, because callers may change it in place.
        in_time = rows.view(n_steps, n, -1).transpose(0, 1)
        return in_time.clone(memory_format=torch.contiguous_format), (ends,)
    if inputs.unsorted_indices is not None:
        ends = ends.index_select(1, inputs.unsorted_indices)
    return inputs._replace(data=rows), (ends,)


def _run(
    cell: Cell, matrix: Tensor, rows: Tensor, sizes: list[int], *, reverse: bool
) -> Tensor:
    """Run one direction of one layer; `sizes` counts the rows of every step."""
    if isinstance(cell, GRUCell):
        return run_gru(cell, matrix, rows, sizes, reverse=reverse)
    assert isinstance(cell, ElmanCell)
    return run_elman(cell, matrix, rows, sizes, reverse=reverse)


def _last(outputs: Tensor, sizes: list[int], *, reverse: bool) -> Tensor:
    """Take the last state of every sequence, the longest sequence first."""
    if reverse:
        return outputs[: sizes[0]]
    if sizes[0] == sizes[-1]:
        return outputs[-sizes[0] :]
    parts, following = torch.split(outputs, sizes), [*sizes[1:], 0]
    ended = [part[n:] for part, n in zip(parts, following, strict=True)]
    return torch.cat(ended[::-1])
