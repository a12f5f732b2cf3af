"""Layers with one map: they solve for their weights on X̄ and apply them to all rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn._activations import Activation
from sktarget.nn._link import Link
from sktarget.nn._operators import DesignOperator
from sktarget.nn._pass import Pass, Phase
from sktarget.nn._right_inverse import right_inverse
from sktarget.nn._solution import Solution
from sktarget.nn._solve import solve_and_apply
from sktarget.nn._stand_in import StandIn
from sktarget.nn._target_map import TargetMap

__all__ = ["TargetLayer"]


class TargetLayer(TargetMap, StandIn):
    """A layer that is one map: it solves for its weights on X̄ and applies them.

    Between passes it applies the weights cached by the last realisation.  A subclass
    defines how weights are read from the ordinary layer and written to it
    (`operator`, `from_matrix`, `apply_weights`, `realise`).

    Parameters
    ----------
    name : str
        Path of the layer in the wrapped module, for messages.
    has_bias : bool
        Whether it has biases.
    """

    # -- what a kind of layer defines ------------------------------------------------

    @property
    def operator(self) -> DesignOperator:
        """The products with the design matrix of this layer."""
        raise NotImplementedError

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read the matrix W, the bias in its row 0, as the layer's weight and bias."""
        raise NotImplementedError

    def apply_weights(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Run the ordinary layer with the given weights."""
        raise NotImplementedError

    # -- what all kinds share --------------------------------------------------------

    @property
    def weight(self) -> Tensor:
        """The weight, as in the ordinary layer; within a pass, part of the graph."""
        return self._present()[0]

    @property
    def bias(self) -> Tensor | None:
        """The bias, likewise."""
        return self._present()[1]

    def _present(self) -> tuple[Tensor, Tensor | None]:
        """Return the current weight and bias.

        Within a pass, before they are solved for, they are NaN of the right shape and
        dtype.
        """
        current = self.stage.current
        if current is None or current.applies_own_weights:
            return self.kept_weight, self.kept_bias
        if self.name in current.weights:
            weight, bias = self.from_matrix(current.weights[self.name])
            return weight.contiguous(), bias  # as they are outside of a pass
        bias = None if self.kept_bias is None else torch.full_like(self.kept_bias, nan)
        return torch.full_like(self.kept_weight, nan), bias

    def _keep_weights_of(self, layer: Any) -> None:
        """Copy the weights of an ordinary layer."""
        self.kept_weight = layer.weight.detach().clone()
        self.kept_bias = None if layer.bias is None else layer.bias.detach().clone()

    def _give_weights_to(self, layer: Any) -> None:
        """Copy the weights to an ordinary layer."""
        # A clone, unlike `contiguous`, gives axes of length 1 strides like any others.
        weight = self.kept_weight.detach().clone(memory_format=torch.contiguous_format)
        layer.weight = nn.Parameter(weight)
        if self.kept_bias is not None:
            layer.bias = nn.Parameter(self.kept_bias.detach().clone())

    def target_maps(self) -> dict[str, TargetMap]:
        """Return the layer itself."""
        return {self.name: self}

    @property
    def is_plain(self) -> bool:
        """Whether nothing is done before or after the solve, so it may be chained."""
        return type(self).forward is TargetLayer.forward

    @property
    def is_solving(self) -> bool:
        """Whether the current pass solves, and so may include activations at once."""
        current = self.stage.current
        return current is not None and current.phase is Phase.SOLVE

    def forward(self, input: Tensor, activation: Activation | None = None) -> Tensor:
        """Return the layer's sums, with weights solved for in the pass or cached ones.

        If it is solving and an `activation` is given, return that of the sums instead.
        """
        inputs, current = input, self.stage.current
        if not isinstance(inputs, Tensor):
            raise TypeError(
                f"{self.description} takes a tensor, got {type(inputs).__name__}"
            )
        if torch.is_autocast_enabled(inputs.device.type):
            with torch.autocast(inputs.device.type, enabled=False):
                # Not the subclass's method, which has already done its part.
                inputs = inputs.to(self.kept_weight.dtype)
                return TargetLayer.forward(self, inputs, activation)
        if current is None:
            self.refuse_to_learn_nothing()
            return self.apply_weights(inputs, self.kept_weight, self.kept_bias)
        if current.solves:
            outputs = self.run_together([(self, activation)], inputs)
            if current.phase is Phase.PROJECT:
                self.take_targets(outputs, current.phase)
            return outputs
        current.enter(self.name)
        if current.phase is Phase.RECORD:
            return self._record(inputs, current)
        if current.phase is Phase.COMPARE:
            sums = self.apply_weights(inputs, self.kept_weight, self.kept_bias)
            self.compare(sums)
            return sums
        matrix = current.weights_of(self.name)
        return self.apply_weights(inputs, *self.from_matrix(matrix))

    def _record(self, inputs: Tensor, current: Pass) -> Tensor:
        """Apply own weights; take the sums, or what leads to them, as targets."""
        sums = self.apply_weights(inputs, self.kept_weight, self.kept_bias)
        self.take_targets(sums, current.phase)
        if current.exact:
            try:
                targets = right_inverse(self.operator, inputs, sums, self.lam)
            except FactorisationError as error:
                raise self.explained(error) from None
            self.take_targets(targets, current.phase)
        return self.targets.detach().clone() if current.optimistic else sums

    @staticmethod
    def run_together(
        layers: Sequence[tuple[TargetLayer, Activation | None]],
        inputs: Tensor,
        *,
        shortcuts: bool = False,
    ) -> Tensor:
        """Solve for and run layers with their activations, each fed by the one before.

        With `shortcuts`, each is fed the inputs and all earlier outputs, side by side.
        """
        current, links, targets = layers[0][0].stage.current, [], []
        assert current is not None
        layers[0][0].refuse_other_rows(inputs.shape[0], current)
        for layer, activation in layers:
            current.enter(layer.name)
            links.append(Link(layer.operator, layer._solution, activation))
            targets.append(layer.targets)
        outputs, matrices = solve_and_apply(
            inputs, links, targets, optimistic=current.optimistic, shortcuts=shortcuts
        )
        for (layer, _), matrix in zip(layers, matrices, strict=True):
            current.weights[layer.name] = matrix
        return outputs

    def _solution(
        self, inputs: Tensor, operator: DesignOperator, rows: Tensor
    ) -> Solution:
        """Factorise, or return what is known where the inputs are X̄ itself."""
        current = self.stage.current
        constant = current is not None and current.is_unchanged(inputs)
        try:
            if not constant or self._rule_for_lam() is not None:
                return self.factorise(operator, rows)
            return self.factorise_once(operator, rows)
        except FactorisationError as error:
            raise self.explained(error) from None

    def keep(self, matrix: Tensor) -> None:
        """Cache the weights to apply outside of passes."""
        weight, bias = self.from_matrix(matrix)
        self.kept_weight = weight.contiguous()
        self.kept_bias = None if bias is None else bias.contiguous()
