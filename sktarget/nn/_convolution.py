"""Convolutional layers in target space (Sec. 4.2).

A convolution is the product of its patches, one per row, with the flattened kernel; so
its targets have the shape of its output map.  No product here needs the matrix of
patches: ``AᵀS`` is the gradient of a convolution with respect to its kernel, ``AW`` a
convolution and ``SWᵀ`` the gradient with respect to its input.  The Gramian of a
"same" convolution comes from the autocorrelation of the map, any other from patches
gathered a few images at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget._blank import make_blank
from sktarget.linalg import RidgeFactor, gramian, prefers_dual
from sktarget.nn._activations import Activation
from sktarget.nn._autocorrelation import same_gramian
from sktarget.nn._layers import TargetLayer
from sktarget.nn._operators import head
from sktarget.nn._patches import Window, patch_gramian, patches
from sktarget.nn._registry import register

__all__ = ["ConvOperator", "TargetConv"]

# Keyed by the number of axes of a batch of maps.  Channels are read together: with
# them last, convolutions, pooling and Gramians need not rearrange the maps.
_CHANNELS_LAST: dict[int, torch.memory_format] = {
    4: torch.channels_last,
    5: torch.channels_last_3d,
}


@dataclass(frozen=True)
class ConvOperator:
    """The design matrix of a convolution: its patches, after a column of ones.

    The columns run over the positions of the kernel, channels fastest.  With several
    groups, each a ridge problem of its own, weights and Gramians have a leading axis.

    Attributes
    ----------
    window : Window
        How the kernel slides over the map.
    groups : int
        Number of groups of channels.
    bias : bool
        Whether there is a column of ones.
    channels_last : bool
        Memory format of the maps, both inputs and outputs.
    """

    window: Window
    groups: int
    bias: bool
    channels_last: bool = True

    def rows(self, inputs: Tensor) -> Tensor:
        layout = torch.contiguous_format
        if self.channels_last:
            layout = _CHANNELS_LAST.get(inputs.ndim, layout)
        if max(self.window.stride) > 1:
            return _with_own_strides(inputs, layout)
        return inputs.contiguous(memory_format=layout)

    # Sums are maps like the inputs.
    sums = rows

    def design(self, rows: Tensor, n: int) -> tuple[ConvOperator, Tensor]:
        return self, head(rows, n)

    def is_dual(self, rows: Tensor) -> bool:
        columns = math.prod(self.window.kernel) * rows.shape[1] // self.groups
        return prefers_dual(self._n_patches(rows), columns + self.bias)

    def _n_patches(self, rows: Tensor) -> int:
        return len(rows) * math.prod(self.window.outputs(tuple(rows.shape[2:])))

    def gramian(self, rows: Tensor, dtype: torch.dtype, ridge: float = 0.0) -> Tensor:
        maps = rows.movedim(1, -1)
        if self.is_dual(rows):
            gram = torch.stack(
                [gramian(p.T, dtype) for p in patches(maps, self.window, self.groups)]
            )
            gram = gram.add_(1) if self.bias else gram
        elif self._has_same_gramian(maps):
            kernel = self.window.kernel
            gram = same_gramian(maps, kernel, dtype, ones=self.bias, ridge=ridge)[None]
        else:
            gram = patch_gramian(
                maps, self.window, dtype, ones=self.bias, groups=self.groups
            )
        return gram.squeeze(0) if self.groups == 1 else gram

    def _has_same_gramian(self, maps: Tensor) -> bool:
        window = self.window
        roomy = all(
            h >= p for h, p in zip(maps.shape[1:-1], window.padding, strict=True)
        )
        return self.groups == 1 and window.is_same() and roomy

    def solve_dual(self, factor: RidgeFactor, sums: Tensor) -> Tensor:
        n, outputs, *extents = sums.shape
        right = sums.movedim(1, -1).reshape(-1, self.groups, outputs // self.groups)
        if self.groups == 1:
            solved = factor.solve(right[:, 0])
        else:
            solved = factor.solve(right.transpose(0, 1)).transpose(0, 1)
        return self.rows(solved.reshape(n, *extents, outputs).movedim(-1, 1))

    def apply(self, rows: Tensor, weights: Tensor) -> Tensor:
        kernel, bias = self.to_kernel(weights)
        return self.convolve(rows, kernel, bias)

    def convolve(self, rows: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        w = self.window
        out: Tensor = torch.convolution(
            rows,
            kernel,
            bias,
            w.stride,
            w.padding,
            w.dilation,
            False,
            [0] * len(w.kernel),
            self.groups,
        )
        # With few channels the layout is ambiguous, and torch may take either.
        return self.rows(out)

    def correlate(self, rows: Tensor, sums: Tensor) -> Tensor:
        if self.window.only_skips():
            # oneDNN's code for skipping pixels writes beyond its buffer where channels
            # are few and there is no AVX-512 (uxlfoundation/oneDNN#6035).
            window = replace(self.window, stride=(1,) * len(self.window.stride))
            return replace(self, window=window).correlate(self._skip(rows), sums)
        outputs, inputs = sums.shape[1], rows.shape[1] // self.groups
        # oneDNN would sum the biases along with the rest, in five times the time.  If
        # summed first, the maps are also in the cache when oneDNN jumps about in them.
        bias = sums.sum([0, *range(2, sums.ndim)]) if self.bias else None
        kernel = self.rows(
            rows.new_empty(1).expand(outputs, inputs, *self.window.kernel)
        )
        kernel = self._backward(sums, rows, kernel, [False, True, False])[1]
        matrix = kernel.movedim(1, -1).flatten(1)
        if bias is not None:
            matrix = torch.cat([bias[:, None], matrix], dim=1)
        if self.groups == 1:
            return matrix.T
        return matrix.view(self.groups, -1, matrix.shape[1]).mT

    def transpose(self, weights: Tensor) -> Tensor:
        return self._kernel(weights.mT.flatten(0, -2))

    def adjoint(self, sums: Tensor, transposed: Tensor, rows: Tensor) -> Tensor:
        return self._backward(sums, rows, transposed, [True, False, False])[0]

    def add_adjoint(
        self, to: Tensor, sums: Tensor, transposed: Tensor, rows: Tensor
    ) -> None:
        to.add_(self.adjoint(sums, transposed, rows))

    def _skip(self, rows: Tensor) -> Tensor:
        steps: Any = [slice(None, None, stride) for stride in self.window.stride]
        return self.rows(rows[:, :, *steps])

    def _backward(
        self, sums: Tensor, rows: Tensor, kernel: Tensor, wanted: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        w = self.window
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            sums,
            rows,
            kernel,
            [sums.shape[1]],
            w.stride,
            w.padding,
            w.dilation,
            False,
            [0] * len(w.kernel),
            self.groups,
            wanted,
        )
        return gradients

    def to_kernel(self, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read the matrix W as kernel and bias of the ordinary layer."""
        matrix = weights.mT.flatten(0, -2)
        bias = matrix[:, 0].contiguous() if self.bias else None
        return self._kernel(matrix), bias

    def _kernel(self, matrix: Tensor) -> Tensor:
        kernel = matrix[:, int(self.bias) :]
        kernel = kernel.reshape(len(kernel), *self.window.kernel, -1)
        return self.rows(kernel.movedim(-1, 1))


def _with_own_strides(maps: Tensor, layout: torch.memory_format) -> Tensor:
    """Return maps, or a kernel, with the strides that torch itself would give them.

    The strides of axes of length 1 are arbitrary to torch, but oneDNN goes by them, and
    in convolutions with a stride reads beyond the maps where they are odd.  Of a single
    channel, which is both last and first, it wants the latter.
    """
    if maps.shape[1] == 1:
        layout = torch.contiguous_format
    if 1 in maps.shape and maps.stride() != _strides(maps.shape, layout):
        return maps.clone(memory_format=layout)
    return maps.contiguous(memory_format=layout)


def _strides(shape: torch.Size, layout: torch.memory_format) -> tuple[int, ...]:
    """Return the strides of a new tensor."""
    axes = list(range(len(shape)))
    if layout is not torch.contiguous_format:
        axes = [0, *axes[2:], 1]
    strides, step = [0] * len(shape), 1
    for axis in reversed(axes):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


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
