"""The products with the patches of convolutions, none of which needs them as a matrix.

``AᵀS`` is the gradient of a convolution with respect to its kernel, ``AW`` a
convolution and ``SWᵀ`` the gradient with respect to its input.  The Gramian of a
"same" convolution comes from the autocorrelation of the map, of each group of channels
by itself if these are not very few; any other comes from patches gathered a few images
at a time.  Only the dual form, where there are fewer patches than weights of a kernel,
gathers all of them for its Gramian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sktarget.linalg import RidgeFactor, gramian, prefers_dual
from sktarget.nn._autocorrelation import dilated_gramian
from sktarget.nn._patches import Window, patch_gramian, patches
from sktarget.nn._skipping import head

__all__ = ["ConvOperator"]

# Groups of fewer channels are not worth a Gramian each.
_FEW_CHANNELS = 4

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
            kernel, dilation = self.window.kernel, self.window.dilation
            grams = [
                dilated_gramian(
                    group, kernel, dilation, dtype, ones=self.bias, ridge=ridge
                )
                for group in maps.chunk(self.groups, dim=-1)
            ]
            gram = grams[0][None] if self.groups == 1 else torch.stack(grams)
        else:
            gram = patch_gramian(
                maps, self.window, dtype, ones=self.bias, groups=self.groups
            )
        return gram.squeeze(0) if self.groups == 1 else gram

    def _has_same_gramian(self, maps: Tensor) -> bool:
        window = self.window
        # Every d-th line of the map has to reach as far as the kernel does.
        roomy = all(
            h // d >= p // d
            for h, p, d in zip(
                maps.shape[1:-1], window.padding, window.dilation, strict=True
            )
        )
        few = self.groups > 1 and maps.shape[-1] // self.groups < _FEW_CHANNELS
        return window.is_same() and roomy and not few

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

    def apply_transposed(self, rows: Tensor, sums: Tensor) -> Tensor:
        if self.window.only_skips():
            # oneDNN's code for skipping pixels writes beyond its buffer where channels
            # are few and there is no AVX-512 (uxlfoundation/oneDNN#6035).
            window = replace(self.window, stride=(1,) * len(self.window.stride))
            return replace(self, window=window).apply_transposed(self._skip(rows), sums)
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

    def transposed_weights(self, weights: Tensor) -> Tensor:
        return self._kernel(weights.mT.flatten(0, -2))

    def input_gradient(self, sums: Tensor, transposed: Tensor, rows: Tensor) -> Tensor:
        return self._backward(sums, rows, transposed, [True, False, False])[0]

    def add_input_gradient(
        self, to: Tensor, sums: Tensor, transposed: Tensor, rows: Tensor
    ) -> None:
        to.add_(self.input_gradient(sums, transposed, rows))

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
