"""Convolutional layers in target space (Sec. 4.2).

A convolution is the product of its patches, one per row, with the flattened kernel; so
its targets have the shape of its output map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sktarget._blank import make_blank
from sktarget.nn._activations import Activation
from sktarget.nn._conv_operator import ConvOperator
from sktarget.nn._layers import TargetLayer
from sktarget.nn._patches import Window
from sktarget.nn._registry import register

__all__ = ["TargetConv"]


@register(nn.Conv1d)
@register(nn.Conv2d)
@register(nn.Conv3d)
class TargetConv(TargetLayer):
    """A convolution whose kernel meets its targets on X̄ (Sec. 4.2).

    Parameters
    ----------
    layer : nn.Conv1d, nn.Conv2d or nn.Conv3d
        The layer to stand in for; the targets start from its weights.
    name : str
        Path of the layer in the wrapped module.
    """

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, name: str) -> None:
        super().__init__(name, has_bias=layer.bias is not None)
        self._kind = type(layer)
        self._arguments: dict[str, Any] = {
            key: getattr(layer, key)
            for key in (
                "in_channels",
                "out_channels",
                "kernel_size",
                "stride",
                "padding",
                "dilation",
                "groups",
                "padding_mode",
            )
        }
        self._keep_weights_of(layer)
        padding, self._ends = _split_padding(layer)
        self._mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        window = Window(
            tuple(layer.kernel_size),
            tuple(layer.stride),
            padding,
            tuple(layer.dilation),
        )
        self._operator = ConvOperator(window, layer.groups, self.has_bias)

    @property
    def operator(self) -> ConvOperator:
        return self._operator

    def forward(self, input: Tensor, activation: Activation | None = None) -> Tensor:
        """Return the layer's sums, after any padding that the convolution cannot do."""
        inputs = input
        n_axes = len(self._operator.window.kernel) + 2
        if inputs.ndim != n_axes:
            raise ValueError(
                f"{self.description} takes a batch of maps, with {n_axes} axes; got "
                f"inputs of shape {tuple(inputs.shape)}"
            )
        if inputs.shape[1] != self._arguments["in_channels"]:
            raise ValueError(
                f"{self.description} takes maps of {self._arguments['in_channels']} "
                f"channels; got {inputs.shape[1]}, in inputs of shape "
                f"{tuple(inputs.shape)}"
            )
        if any(self._ends):
            inputs = F.pad(inputs, self._ends, mode=self._mode)
        window = self._operator.window
        if min(window.outputs(tuple(inputs.shape[2:]))) < 1:
            raise ValueError(
                f"{self.description} has a kernel of {window.kernel} with dilation "
                f"{window.dilation}, larger than its map of {tuple(inputs.shape[2:])} "
                f"with padding {window.padding}: pad more, or pool less before it"
            )
        return super().forward(inputs, activation)

    def use_plain_layout(self) -> bool:
        changed = self._operator.channels_last
        self._operator = replace(self._operator, channels_last=False)
        return changed

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._operator.to_kernel(matrix)

    def apply_weights(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return self._operator.convolve(self._operator.rows(inputs), weight, bias)

    def realise(self) -> nn.Module:
        layer = make_blank(
            self._kind,
            **self._arguments,
            bias=self.kept_bias is not None,
            device="meta",
        )
        self._give_weights_to(layer)
        return layer


def _split_padding(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d,
) -> tuple[tuple[int, ...], list[int]]:
    """Split padding into what the convolution does and what must be done before it.

    Returns the symmetric padding with zeros, and the argument of ``F.pad`` for any
    other kind: another mode, or "same" with a kernel of even extent.
    """
    ends = list(layer._reversed_padding_repeated_twice)
    left, right = ends[-2::-2], ends[-1::-2]
    if layer.padding_mode == "zeros" and left == right:
        return tuple(left), []
    return (0,) * len(left), ends
