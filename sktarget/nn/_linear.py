"""Dense layers in target space."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sktarget._blank import make_blank
from sktarget._linear import Linear, affine
from sktarget._processor import ON_INTEL
from sktarget.linalg import prefers_dual
from sktarget.nn._layers import TargetLayer
from sktarget.nn._operators import AugmentedOperator, DenseOperator, MeasuredOperator
from sktarget.nn._pass import Pass, Phase
from sktarget.nn._registry import register

__all__ = ["TargetLinear"]

# The ones are written out for layers of at most _NARROW inputs, or _PER_OUTPUT inputs
# per output, whose inputs on X̄ hold at most _MANY numbers; elsewhere the copy costs
# more time or memory than it saves.
_NARROW, _PER_OUTPUT, _MANY = (128, 2, 1 << 21) if ON_INTEL else (95, 0, 1 << 16)


@register(nn.Linear)
@register(Linear)
class TargetLinear(TargetLayer):
    """A dense layer whose weights meet its targets on X̄ (Eq. 7).

    If the layer has ``input_units``, W applies to inputs measured in these.

    Parameters
    ----------
    layer : nn.Linear
        The layer to stand in for; the targets start from its weights.
    name : str
        Path of the layer in the wrapped module.
    """

    _origin: Tensor | None
    _unit: Tensor | None

    def __init__(self, layer: nn.Linear, name: str) -> None:
        super().__init__(name, has_bias=layer.bias is not None)
        self._kind = type(layer)
        self.in_features = layer.in_features
        self.out_features = layer.out_features
        self._keep_weights_of(layer)
        self._operator = DenseOperator(self.has_bias)
        units = layer.input_units if isinstance(layer, Linear) else None
        origin, unit = units or (None, None)
        if origin is not None and not self.has_bias:
            origin = torch.zeros_like(origin)  # No bias could make up for it.
        self.register_buffer("_origin", origin, persistent=False)
        self.register_buffer("_unit", unit, persistent=False)

    @property
    def operator(self) -> DenseOperator:
        if self._origin is None or self._unit is None:
            return self._operator
        return MeasuredOperator(self.has_bias, self._origin, self._unit)

    def take_targets(self, sums: Tensor, phase: Phase) -> None:
        super().take_targets(sums, phase)
        self._choose_operator(sums)

    def _choose_operator(self, sums: Tensor) -> None:
        """Choose how to multiply, now that the number of rows is known."""
        n, k = math.prod(sums.shape[:-1]), self.in_features
        narrow = k <= max(_NARROW, _PER_OUTPUT * self.out_features)
        small = narrow and n * k <= _MANY
        if self.has_bias and small and not prefers_dual(n, k + 1):
            self._operator = AugmentedOperator()

    def _record(self, inputs: Tensor, current: Pass) -> Tensor:
        if inputs.ndim < 2:
            raise ValueError(
                f"{self.description} runs on a vector of shape {tuple(inputs.shape)}, "
                "but targets need rows: give it a batch of one, x[None], or freeze the "
                "layer (requires_grad=False), which then stays as it is"
            )
        return super()._record(inputs, current)

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, bias = self.without_bias(matrix), matrix[0] if self.has_bias else None
        if self._origin is not None and self._unit is not None:
            weight = weight / self._unit[:, None]
            bias = None if bias is None else bias - self._origin @ weight
        return weight.T, bias

    def apply_weights(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return affine(inputs, weight, bias)

    def realise(self) -> nn.Linear:
        layer: Any = make_blank(
            self._kind,
            self.in_features,
            self.out_features,
            bias=self.kept_bias is not None,
            device="meta",
        )
        self._give_weights_to(layer)
        if self._origin is not None and self._unit is not None:
            layer.input_units = self._origin, self._unit
        made: nn.Linear = layer
        return made
