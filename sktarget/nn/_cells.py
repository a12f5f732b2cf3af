r"""The recurrent cells: what is linear in them, and what follows elementwise.

With ``a(t) = [1, x(t), h(t − 1)]`` the sums ``s(t) = a(t) W`` of a cell are blocks
of the width of the hidden state, side by side:

====  ==========================  ===============================================
RNN   s                           h = g(s)
LSTM  i, f, g, o                  c = σ(f) c(t−1) + σ(i) tanh(g),  h = σ(o) tanh(c)
GRU   r, z, and the candidate's   n = tanh(u + σ(r) v),
      u from [1, x], v from       h = (1 − σ(z)) n + σ(z) h(t−1)
      [1, h]
====  ==========================  ===============================================

All sums get targets.  In a GRU the reset gate stands between the candidate's two
linear maps, so each of them is solved for separately, from its own targets, and the
gate is applied to the sums v of the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sktarget._linear import affine
from sktarget._tanh import tanh, tanh_
from sktarget.nn._scan import linear_scan

__all__ = ["Cell", "ElmanCell", "GRUCell", "States", "cell_of"]

# How many sums of an LSTM to form at a time on the CPU: its kernel keeps several
# numbers for each, and tens of megabytes would be requested from the system anew at
# every call.
_WORKSPACE = 1 << 20
Solve = Callable[[Tensor, Tensor, Tensor | None], Tensor]
States = tuple[Tensor, ...]


class MatrixRows(NamedTuple):
    """The rows of a matrix W, or of some of its columns, by what they are applied to.

    Attributes
    ----------
    bias : Tensor of shape (columns,) or None
        The row of biases, if there are any.
    inward : Tensor of shape (inputs, columns)
        The rows for x.
    context : Tensor of shape (hidden, columns)
        The rows for h(t − 1).
    """

    bias: Tensor | None
    inward: Tensor
    context: Tensor


@dataclass(frozen=True)
class Cell(ABC):
    """A kind of recurrent cell.

    The matrix W of a cell has a row of biases if `bias`, then one row per input, then
    one row per hidden unit; its columns are the blocks of sums.

    Attributes
    ----------
    n_inputs, n_hidden : int
        Widths of x and h.
    bias : bool
        Whether there are biases.
    """

    n_inputs: int
    n_hidden: int
    bias: bool
    kernel: ClassVar[Callable[..., States]]

    @abstractmethod
    def states(self, sums: Tensor) -> States:
        """Run the elementwise recursion: sums (n, time, ·) to h(t), and c(t) if any.

        With targets in place of sums this is the optimistic estimate (Eq. 21).
        """

    def start(self, zeros: Tensor) -> Tensor | list[Tensor]:
        """Shape the initial states as the kernel expects them."""
        return zeros

    def rows_at_a_time(self, inputs: Tensor) -> int:
        """Return how many sequences to give to the kernel at once."""
        return len(inputs)

    def solve(
        self,
        x: Tensor,
        context: Tensor,
        targets: Tensor,
        anchor: Tensor | None,
        solve_rows: Solve,
    ) -> Tensor:
        """Solve for W, given rows of inputs, of h(t − 1) and of targets, and W₀."""
        return solve_rows(self._design(x, context), targets, anchor)

    def _design(self, *inputs: Tensor) -> Tensor:
        """Put rows of inputs side by side, after a column of ones for the biases."""
        ones = [inputs[0].new_ones(len(inputs[0]), 1)] if self.bias else []
        return torch.cat([*ones, *inputs], dim=-1)

    def sums(self, x: Tensor, context: Tensor, matrix: Tensor) -> Tensor:
        """Form the sums [1, x, h(t − 1)] W."""
        rows = torch.cat([x, context], dim=-1)
        return affine(rows, matrix[int(self.bias) :].T, self.rows_of(matrix).bias)

    def rows_of(self, matrix: Tensor) -> MatrixRows:
        """Return views of the rows of W, or of some of its columns."""
        start = int(self.bias)
        split = start + self.n_inputs
        bias = matrix[0] if self.bias else None
        return MatrixRows(bias, matrix[start:split], matrix[split:])

    def to_matrix(self, flat: Sequence[Tensor]) -> Tensor:
        """Build W from torch's weights: w_ih, w_hh and, with biases, b_ih, b_hh."""
        rows = [flat[0].T, flat[1].T]
        if self.bias:
            rows.insert(0, (flat[2] + flat[3])[None])
        return torch.cat(rows)

    def from_matrix(self, matrix: Tensor) -> list[Tensor]:
        """Turn W into torch's weights; the second of torch's two biases is zero."""
        bias, inward, context = self.rows_of(matrix)
        flat = [inward.T, context.T]
        if bias is not None:
            flat += [bias, torch.zeros_like(bias)]
        return [part.contiguous() for part in flat]


@dataclass(frozen=True)
class ElmanCell(Cell):
    """A cell of ``nn.RNN``: an activation applied to its one block of sums."""

    @abstractmethod
    def activate_(self, sums: Tensor) -> Tensor:
        """Apply the activation in place."""

    @abstractmethod
    def slope(self, h: Tensor) -> Tensor:
        """Return the derivative of the activation where its value is h."""


@dataclass(frozen=True)
class TanhCell(ElmanCell):
    """The cell of ``nn.RNN`` with tanh."""

    kernel = staticmethod(torch.rnn_tanh)

    def states(self, sums: Tensor) -> States:
        return (tanh(sums),)

    def activate_(self, sums: Tensor) -> Tensor:
        return tanh_(sums)

    def slope(self, h: Tensor) -> Tensor:
        return torch.addcmul(h.new_ones(()), h, h, value=-1)


@dataclass(frozen=True)
class ReluCell(ElmanCell):
    """The cell of ``nn.RNN`` with the rectifier."""

    kernel = staticmethod(torch.rnn_relu)

    def states(self, sums: Tensor) -> States:
        return (sums.relu(),)

    def activate_(self, sums: Tensor) -> Tensor:
        return sums.relu_()

    def slope(self, h: Tensor) -> Tensor:
        return (h > 0).to(h.dtype)


@dataclass(frozen=True)
class LSTMCell(Cell):
    """The cell of ``nn.LSTM``."""

    kernel = staticmethod(torch.lstm)

    def start(self, zeros: Tensor) -> Tensor | list[Tensor]:
        return [zeros, zeros]

    def rows_at_a_time(self, inputs: Tensor) -> int:
        if inputs.is_cuda:
            return len(inputs)
        return max(1, _WORKSPACE // (4 * self.n_hidden * inputs.shape[1]))

    def states(self, sums: Tensor) -> States:
        i, f, g, o = _blocks(sums)
        c = linear_scan(f.sigmoid(), i.sigmoid() * tanh(g))
        return o.sigmoid() * tanh(c), c


@dataclass(frozen=True)
class GRUCell(Cell):
    """The cell of ``nn.GRU``; its sums are r, z, u and v."""

    kernel = staticmethod(torch.gru)

    def states(self, sums: Tensor) -> States:
        r, z, u, v = _blocks(sums)
        n, keep = tanh(u + r.sigmoid() * v), z.sigmoid()
        return (linear_scan(keep, (1 - keep) * n),)

    def solve(
        self,
        x: Tensor,
        context: Tensor,
        targets: Tensor,
        anchor: Tensor | None,
        solve_rows: Solve,
    ) -> Tensor:
        inputs = [self._design(x, context), self._design(x), self._design(context)]
        outputs = self.blocks_of(targets)
        anchors = (None,) * 3 if anchor is None else self._take_apart(anchor)
        return self._assemble(*map(solve_rows, inputs, outputs, anchors))

    def to_matrix(self, flat: Sequence[Tensor]) -> Tensor:
        h = self.n_hidden
        parts = [
            [flat[0].T[:, : 2 * h], flat[1].T[:, : 2 * h]],
            [flat[0].T[:, 2 * h :]],
            [flat[1].T[:, 2 * h :]],
        ]
        if self.bias:
            b_ih, b_hh = flat[2], flat[3]
            parts[0].insert(0, (b_ih + b_hh)[None, : 2 * h])
            parts[1].insert(0, b_ih[None, 2 * h :])
            parts[2].insert(0, b_hh[None, 2 * h :])
        return self._assemble(*(torch.cat(part) for part in parts))

    def _assemble(self, gates: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Put the three maps side by side, with zeros where they have no inputs."""
        b, d, h = int(self.bias), self.n_inputs, self.n_hidden
        u = torch.cat([u, u.new_zeros(h, h)])
        v = torch.cat([v[:b], v.new_zeros(d, h), v[b:]])
        return torch.cat([gates, u, v], dim=1)

    def _take_apart(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three maps, without the rows where they have no inputs."""
        b, h = int(self.bias), self.n_hidden
        gates, u, v = self.blocks_of(matrix)
        return gates, u[:-h], torch.cat([v[:b], v[-h:]])

    def blocks_of(self, columns: Tensor) -> tuple[Tensor, ...]:
        """Split columns, the last axis, into those of the gates, of u and of v."""
        return columns.tensor_split((2 * self.n_hidden, 3 * self.n_hidden), -1)

    def from_matrix(self, matrix: Tensor) -> list[Tensor]:
        bias, inward, context = self.rows_of(matrix)
        gates, _, v = self.blocks_of(context)
        flat = [inward[:, : 3 * self.n_hidden].T, torch.cat([gates, v], dim=1).T]
        if bias is not None:
            gates, u, v = self.blocks_of(bias)
            flat += [torch.cat([gates, u]), torch.cat([torch.zeros_like(gates), v])]
        return [part.contiguous() for part in flat]


def _blocks(sums: Tensor) -> list[Tensor]:
    """Split sums into their four blocks, each contiguous in memory.

    Gaps between rows would cost an activation twice as much as the copy does.
    """
    return [block.contiguous() for block in sums.chunk(4, dim=-1)]


def cell_of(layer: nn.RNNBase, n_inputs: int) -> Cell:
    """Return the cell of one of torch's recurrent layers.

    Parameters
    ----------
    layer : nn.RNN, nn.LSTM or nn.GRU
        The ordinary layer.
    n_inputs : int
        Number of inputs of the cell, which depends on its level in the module.

    Returns
    -------
    Cell
        The cell.
    """
    cells: dict[str, type[Cell]] = {
        "RNN_TANH": TanhCell,
        "RNN_RELU": ReluCell,
        "LSTM": LSTMCell,
        "GRU": GRUCell,
    }
    return cells[layer.mode](n_inputs, layer.hidden_size, layer.bias)
