"""Patches: the rows that a convolution multiplies by its kernel.

Maps are stored here with their channels last, ``(n, *extents, channels)``, and the
columns of a patch run over the positions of the kernel, channels fastest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sktarget._slices import slice_size
from sktarget.linalg import column_products, dtype_of_sums, gramian

__all__ = ["Window", "patch_gramian", "patches"]

# Patches are gathered a few images at a time, in slices of about this many numbers.
_SLICE = 1 << 21


@dataclass(frozen=True)
class Window:
    """How a kernel slides over a map, axis by axis.

    Attributes
    ----------
    kernel, stride, padding, dilation : tuple of int
        As in ``nn.Conv2d``; padding is with zeros and the same at both ends.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def outputs(self, extents: tuple[int, ...]) -> tuple[int, ...]:
        """Return the extents of the output map."""
        return tuple(
            (h + 2 * p - d * (k - 1) - 1) // s + 1
            for h, k, s, p, d in zip(
                extents,
                self.kernel,
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )

    def is_same(self) -> bool:
        """Return whether every pixel is the centre of exactly one patch."""
        return all(
            s == 1 and k % 2 == 1 and d * (k - 1) == 2 * p
            for k, s, p, d in zip(
                self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def only_skips(self) -> bool:
        """Return whether the kernel is one pixel, unpadded, whose stride skips some."""
        pointwise = all(
            k == 1 and p == 0 for k, p in zip(self.kernel, self.padding, strict=True)
        )
        return pointwise and any(s > 1 for s in self.stride)


def patches(maps: Tensor, window: Window, groups: int = 1) -> Tensor:
    """Gather the patch matrix.

    Parameters
    ----------
    maps : Tensor of shape (n, *extents, channels)
        The maps.
    window : Window
        How the kernel slides over them.
    groups : int, default=1
        Number of groups that the channels fall into.

    Returns
    -------
    Tensor of shape (groups, n * outputs, kernel * channels / groups)
        One patch per row.

    Examples
    --------
    >>> import torch
    >>> window = Window((3,), (1,), (1,), (1,))
    >>> patches(torch.tensor([[[1.0], [2.0]]]), window)
    tensor([[[0., 1., 2.],
             [1., 2., 0.]]])
    """
    n, *extents, channels = maps.shape
    out = window.outputs(tuple(extents))
    ends = [p for padding in reversed(window.padding) for p in (padding, padding)]
    padded = F.pad(maps, [0, 0, *ends]).contiguous()
    axes = padded.stride()[1:-1]
    view = padded.as_strided(
        (n, *out, *window.kernel, groups, channels // groups),
        (
            padded.stride(0),
            *(a * s for a, s in zip(axes, window.stride, strict=True)),
            *(a * d for a, d in zip(axes, window.dilation, strict=True)),
            channels // groups,
            1,
        ),
    )
    columns = math.prod(window.kernel) * channels // groups
    return view.movedim(-2, 0).reshape(groups, n * math.prod(out), columns)


def _slices(maps: Tensor, numbers: int) -> Iterator[Tensor]:
    """Cut maps into slices of bounded size, counting `numbers` per image."""
    most = slice_size(_SLICE, maps.device)
    return iter(torch.split(maps, max(1, most // max(1, numbers))))


def patch_gramian(
    maps: Tensor, window: Window, dtype: torch.dtype, *, ones: bool, groups: int = 1
) -> Tensor:
    """Form the Gramian of the patches, slice by slice.

    Parameters
    ----------
    maps : Tensor of shape (n, *extents, channels)
        The maps.
    window : Window
        How the kernel slides over them.
    dtype : torch.dtype
        Arithmetic of the products.
    ones : bool
        Put a column of ones before the patches.
    groups : int, default=1
        Number of groups that the channels fall into.

    Returns
    -------
    Tensor of shape (groups, k, k)
        The lower triangle of AᵀA of every group.

    Notes
    -----
    Takes up to k² multiplications for each output pixel; the memory beyond the result
    is bounded, unless a single image exceeds the bound.
    """
    out = math.prod(window.outputs(tuple(maps.shape[1:-1])))
    columns = math.prod(window.kernel) * maps.shape[-1]
    k = columns // groups + ones
    gram = torch.zeros(groups, k, k, dtype=dtype, device=maps.device)
    for part in _slices(maps, out * columns):
        rows = patches(part.to(dtype), window, groups)
        if groups == 1:
            gram[0] += gramian(rows[0], ones=ones)
            continue
        wide = rows.to(dtype_of_sums(rows.shape[1], rows.shape[2], dtype))
        gram[:, ones:, ones:] += column_products(wide, wide)
        if ones:
            gram[:, 1:, 0] += rows.sum(1)
            gram[:, 0, 0] += rows.shape[1]
    return gram
