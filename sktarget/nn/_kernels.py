"""Torch's fused recurrent kernels, run from zero states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sktarget.nn._cells import Cell, States

__all__ = ["run_kernel"]

# How many steps of packed sequences to run at a time.
_BLOCK = 16


def run_kernel(
    cells: Sequence[Cell],
    matrices: Sequence[Tensor],
    inputs: Tensor | PackedSequence,
    dropout: float,
    bidirectional: bool,
) -> tuple[Tensor | PackedSequence, States]:
    """Run a stack of recurrent layers of one kind from zero states.

    Parameters
    ----------
    cells : sequence of Cell
        One for each layer and direction, in torch's order.
    matrices : sequence of Tensor
        The matrix W of each.
    inputs : Tensor of shape (n, time, features) or PackedSequence
        The batch.
    dropout : float
        Probability of dropout between layers; 0 outside training.
    bidirectional : bool
        Whether every other cell runs backwards in time.

    Returns
    -------
    outputs : Tensor of shape (n, time, directions * hidden) or PackedSequence
        In the same form as the inputs.
    last : tuple of Tensor of shape (layers * directions, n, hidden)
        The last h and, for an LSTM, the last c.
    """
    cell, n_states = cells[0], len(cells)
    pairs = zip(cells, matrices, strict=True)
    flat = [w for own, matrix in pairs for w in own.from_matrix(matrix)]
    n_layers = n_states // (1 + bidirectional)
    # Without dropout it makes no difference, but cuDNN's backward pass requires it.
    training = dropout > 0 or torch.is_grad_enabled()
    options = cell.bias, n_layers, dropout, training, bidirectional
    if not isinstance(inputs, PackedSequence):
        parts = []
        for rows in torch.split(inputs, cell.rows_at_a_time(inputs)):
            start = rows.new_zeros(n_states, len(rows), cell.n_hidden)
            parts.append(cell.kernel(rows, cell.start(start), flat, *options, True))
        if len(parts) == 1:
            return parts[0][0], parts[0][1:]
        whole, *ends = zip(*parts, strict=True)
        return torch.cat(whole), tuple(torch.cat(states, 1) for states in ends)
    data, sizes, _, back = inputs
    start = data.new_zeros(n_states, int(sizes[0]), cell.n_hidden)
    if n_states == 1 and not data.is_cuda:
        outputs, last = _run_in_blocks(cell, data, sizes, start, flat, options)
    else:
        outputs, *last = cell.kernel(data, sizes, cell.start(start), flat, *options)
    if back is not None:
        last = [state.index_select(1, back) for state in last]
    return inputs._replace(data=outputs), tuple(last)


def _run_in_blocks(
    cell: Cell,
    data: Tensor,
    sizes: Tensor,
    start: Tensor,
    flat: list[Tensor],
    options: tuple[Any, ...],
) -> tuple[Tensor, list[Tensor]]:
    """Run packed sequences a few steps at a time, passing the states on.

    In the backward pass torch's packed kernel fills a gradient of the size of all its
    data at every step, which takes time quadratic in the number of steps.
    """
    begin = cell.start(start)
    states = begin if isinstance(begin, list) else [begin]
    blocks = torch.split(sizes, _BLOCK)
    outputs, ended = [], []
    rows = torch.split(data, [int(block.sum()) for block in blocks])
    for block, part in zip(blocks, rows, strict=True):
        n_active = int(block[0])
        ended.append([state[:, n_active:] for state in states])
        active = [state[:, :n_active] for state in states]
        begin = active if len(active) > 1 else active[0]
        out, *states = cell.kernel(part, block, begin, flat, *options)
        outputs.append(out)
    parts = [states, *reversed(ended)]
    return torch.cat(outputs), [torch.cat(kind, 1) for kind in zip(*parts, strict=True)]
