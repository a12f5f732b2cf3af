"""One direction of one recurrent layer: its targets, its matrix, its solve."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn._cells import Cell, States
from sktarget.nn._operators import DenseOperator
from sktarget.nn._sequences import real_rows, reverse, shift
from sktarget.nn._solve import solve_only
from sktarget.nn._target_map import TargetMap

__all__ = ["TargetDirection", "is_recurrent"]


class TargetDirection(TargetMap):
    """One direction of one recurrent layer: its targets and its matrix W.

    Parameters
    ----------
    cell : Cell
        The cell, which knows what is linear in it and what is not.
    flat : sequence of Tensor
        Torch's weights to start from.
    reverse : bool
        Whether it runs backwards in time.
    name : str
        Path in the wrapped module, for messages.
    """

    def __init__(
        self, cell: Cell, flat: Sequence[Tensor], reverse: bool, name: str
    ) -> None:
        super().__init__(name, has_bias=cell.bias)
        self.cell = cell
        self.reverse = reverse
        self.keep(cell.to_matrix([part.detach() for part in flat]))

    def keep(self, matrix: Tensor) -> None:
        """Cache W, the bias in its row 0."""
        self.kept_weight = matrix

    def anchor_to_weights(self) -> None:
        """Let the ridge pull to the present weights."""
        self.anchor = self.kept_weight.clone()

    def solve(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, States]:
        """Solve for W on X̄, with the context estimated from the targets (Eq. 21).

        Returns W and the states that the targets lead to, the latter in the order in
        which this direction runs through the steps.
        """
        targets = self.in_order(self.targets, lengths)
        states = self.cell.states(targets)
        try:
            matrix = self.cell.solve(
                real_rows(self.in_order(x, lengths), lengths),
                real_rows(shift(states[0]), lengths),
                real_rows(targets, lengths),
                self.anchor,
                self._solve_rows,
            )
        except FactorisationError as error:
            raise self.explained(error) from None
        return matrix, states

    def sums(
        self, x: Tensor, h: Tensor, matrix: Tensor, lengths: Tensor | None
    ) -> Tensor:
        """Return the sums that W leads to, from the outputs h of the actual run."""
        x, h = self.in_order(x, lengths), self.in_order(h, lengths)
        return self.in_order(self.cell.sums(x, shift(h), matrix), lengths)

    def in_order(self, padded: Tensor, lengths: Tensor | None) -> Tensor:
        """Convert between order in time and order of running, either way."""
        return reverse(padded, lengths) if self.reverse else padded

    def _solve_rows(
        self, rows: Tensor, targets: Tensor, anchor: Tensor | None
    ) -> Tensor:
        operator = DenseOperator(bias=False)  # The cell has added the ones.
        return solve_only(rows, targets, operator, self.factorise, anchor)


def is_recurrent(layer: nn.Module) -> bool:
    """Return whether a layer that has targets maps states, not only inputs.

    Parameters
    ----------
    layer : nn.Module
        One of :meth:`~sktarget.nn.TargetSpace.target_layers`.

    Returns
    -------
    bool
        Whether it is a direction of a recurrent layer.
    """
    return isinstance(layer, TargetDirection)
