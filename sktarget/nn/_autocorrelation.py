"""The Gramian of a "same" convolution from the autocorrelation of its maps.

The Gramian of the patches of a map has an entry for every pair of offsets d, e within
the kernel and every pair of channels,

    G[d, e] = Σ_o x[o + d] x[o + e],      o over the map, x zero outside it.

If o ran over all of space, this would be the autocorrelation ``R[e − d]``, with
``R[Δ] = Σ_q x[q] x[q + Δ]``.  The contribution of the o beyond the ends of an axis
comes from the few lines of the map next to these ends, and is a problem of the same
kind with one axis fewer.  So the patches of a batch are never gathered.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sktarget._slices import slice_size
from sktarget.linalg import FEW_COLUMNS, column_products, dtype_of_sums
from sktarget.nn._patches import Window, patch_gramian
from sktarget.nn._spectrum import autocorrelation

__all__ = ["dilated_gramian", "same_gramian"]

# Maps are summed in slices of about this many numbers.
_SLICE = 1 << 18
# In single precision the Gramian of maps about their mean, of trace τ, has an error of
# at most about ετ, usually a tenth of that; a ridge of this many ετ outweighs it.
_OUTWEIGHS = 4


def same_gramian(
    maps: Tensor,
    kernel: tuple[int, ...],
    dtype: torch.dtype,
    *,
    ones: bool = False,
    ridge: float = 0.0,
) -> Tensor:
    """Form the Gramian of all patches centred on the pixels of maps.

    Parameters
    ----------
    maps : Tensor of shape (n, *extents, channels)
        The maps x.  No axis may be shorter than half of its kernel, rounded down.
    kernel : tuple of int
        Odd extents of the kernel.
    dtype : torch.dtype
        Arithmetic of the products.
    ones : bool, default=False
        Put a column of ones before the patches.
    ridge : float, default=0.0
        The ridge that will be added.  Where it outweighs the rounding of single
        precision, maps in single precision are multiplied in it, whatever `dtype` is.

    Returns
    -------
    Tensor of shape (k, k)
        The lower triangle of AᵀA, in `dtype`; columns run over kernel positions and
        channels, channels fastest.

    Notes
    -----
    Takes about 1.5 multiplications of two vectors of channels per pixel of the map
    padded for the lags, whereas patches take ``∏ kernel²`` per pixel of the map.
    Rounding errors are relative to the autocorrelation at lag 0, not to single entries
    of G.

    Examples
    --------
    >>> import torch
    >>> same_gramian(torch.tensor([[[1.0], [2.0]]]), (3,), torch.float64)
    tensor([[1.0, 2.0, 0.0],
            [2.0, 5.0, 2.0],
            [0.0, 2.0, 4.0]], dtype=torch.float64)
    """
    reach = tuple(k // 2 for k in kernel)
    if ridge > 0 and maps.is_cpu and maps.dtype == torch.float32 != dtype:
        gram = _about_mean(maps, kernel, dtype, ones, ridge)
        if gram is not None:
            return gram
    # An axis along which the kernel has extent 1 merely adds more images.
    flat = [i for i, p in enumerate(reach, 1) if p == 0]
    images = maps.movedim(flat, list(range(1, len(flat) + 1))).flatten(0, len(flat))
    long = tuple(p for p in reach if p)
    k = math.prod(kernel) * maps.shape[-1]
    out = torch.empty(k + ones, k + ones, dtype=dtype, device=maps.device)
    shape = (*(2 * p + 1 for p in long), maps.shape[-1])
    gram = torch.unflatten(torch.unflatten(out[ones:, ones:], 1, shape), 0, shape)
    _fill(gram[None], images[None], long, len(long))
    if ones:
        out[0, 0] = maps.numel() // maps.shape[-1]
        out[1:, 0] = _column_sums(maps, reach, dtype)
    return out


def dilated_gramian(
    maps: Tensor,
    kernel: tuple[int, ...],
    dilation: tuple[int, ...],
    dtype: torch.dtype,
    *,
    ones: bool,
    ridge: float,
) -> Tensor:
    """Form the Gramian of patches centred on the pixels of maps, of a dilated kernel.

    A kernel dilated by d takes its pixels from every d-th line, and so runs over maps
    that consist of these lines alone as an ordinary one.

    Parameters
    ----------
    maps : Tensor of shape (n, *extents, channels)
        The maps x.  No axis may be shorter than half of its dilated kernel.
    kernel, dilation : tuple of int
        Odd extents of the kernel, and the distances of its pixels.
    dtype, ones, ridge
        As for :func:`same_gramian`.

    Returns
    -------
    Tensor of shape (k, k)
        The lower triangle of AᵀA, as that function returns it.

    Examples
    --------
    >>> import torch
    >>> maps = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> dilated_gramian(maps, (3,), (2,), torch.float64, ones=False, ridge=0.0)
    tensor([[ 1.,  3.,  0.],
            [ 3., 14.,  3.],
            [ 0.,  3.,  9.]], dtype=torch.float64)
    """
    parts: dict[torch.Size, list[Tensor]] = {}
    strides = [d if k > 1 else 1 for k, d in zip(kernel, dilation, strict=True)]
    for starts in itertools.product(*map(range, strides)):
        steps = (slice(i, None, d) for i, d in zip(starts, strides, strict=True))
        part = maps[(slice(None), *steps)]
        parts.setdefault(part.shape, []).append(part)
    grams = [
        same_gramian(
            torch.cat(alike) if len(alike) > 1 else alike[0],
            kernel,
            dtype,
            ones=ones,
            ridge=ridge / len(parts),
        )
        for alike in parts.values()
    ]
    return grams[0] if len(grams) == 1 else torch.stack(grams).sum(0)


def _about_mean(
    maps: Tensor, kernel: tuple[int, ...], dtype: torch.dtype, ones: bool, ridge: float
) -> Tensor | None:
    """Form the Gramian from the maps about their mean map, if `ridge` is large enough.

    With the mean m over n images, ``G(x) = G(x − m) + n G(m)``.  Most of G is in the
    second part, and so are most of its rounding errors, which have one sign where maps
    are alike; that part is one image, for which arithmetic in `dtype` is cheap.
    """
    if maps.shape[-1] < FEW_COLUMNS:
        return None
    mean = _sum_images(maps, dtype).div_(len(maps))
    about = maps - mean.to(maps.dtype)
    trace = math.prod(kernel) * float(torch.linalg.vector_norm(about)) ** 2
    if not ridge >= _OUTWEIGHS * torch.finfo(maps.dtype).eps * trace:
        return None
    once = (1,) * len(kernel)
    window = Window(kernel, once, tuple(k // 2 for k in kernel), once)
    gram = patch_gramian(mean[None], window, dtype, ones=ones)[0].mul_(len(maps))
    gram[ones:, ones:].add_(same_gramian(about, kernel, maps.dtype))
    return gram


def _fill(gram: Tensor, maps: Tensor, reach: tuple[int, ...], n_inner: int) -> None:
    """Sum over o, confined to the map along the first `n_inner` axes only.

    Both tensors have a leading axis of independent problems; the result, of shape
    (problems, *kernel, channels, *kernel, channels), is written to `gram`.
    """
    n = len(reach)
    lags = _autocorrelations(maps, reach, gram.dtype)
    # A window that starts at lag −d holds R[e − d] for all e.
    for axis, p in enumerate(reach, 1):
        lags = lags.unfold(axis, 2 * p + 1, 1)
    lags = lags.flip(tuple(range(1, n + 1)))
    gram.copy_(lags.movedim(n + 2, -1) if n else lags)
    for axis in range(n_inner):
        for n_lines in range(1, reach[axis] + 1):
            _subtract_border(gram, maps, reach, axis, n_lines)


def _subtract_border(
    gram: Tensor, maps: Tensor, reach: tuple[int, ...], axis: int, n_lines: int
) -> None:
    """Subtract the sums over o at one distance beyond the two ends of an axis.

    Kernels centred on these o reach `n_lines` lines of the map, which become channels
    of maps that lack the axis.  Only o within the map along earlier axes count: the
    others have already been subtracted.
    """
    p, extent, c = reach[axis], maps.shape[2 + axis], maps.shape[-1]
    starts, offsets = (0, extent - n_lines), (2 * p + 1 - n_lines, 0)
    lines = torch.cat([maps.narrow(2 + axis, i, n_lines) for i in starts])
    others = reach[:axis] + reach[axis + 1 :]
    n, shape = len(others), (*(2 * q + 1 for q in others), n_lines * c)
    outer = gram.new_empty(len(lines), *shape, *shape)
    _fill(outer, lines.movedim(2 + axis, -2).flatten(-2), others, axis)
    outer = outer.view(-1, *shape[:-1], n_lines, c, *shape[:-1], n_lines, c)
    outer = outer.movedim((n + 1, 2 * n + 3), (1 + axis, n + 3 + axis))
    for part, offset in zip(outer.chunk(2), offsets, strict=True):
        block = gram.narrow(1 + axis, offset, n_lines)
        block.narrow(n + 3 + axis, offset, n_lines).sub_(part)


@lru_cache(maxsize=128)
def _inside(extent: int, p: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return, for every offset, which pixels it reaches from centres in the map."""
    offsets = torch.arange(-p, p + 1, device="cpu")
    centres = torch.arange(extent, device="cpu") - offsets[:, None]
    return ((centres >= 0) & (centres < extent)).to(device, dtype)


def _column_sums(maps: Tensor, reach: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Sum the patches: for every offset, the pixels that it reaches from the map."""
    sums = _sum_images(maps, dtype)
    for axis, p in enumerate(reach):
        inside = _inside(sums.shape[axis], p, dtype, sums.device)
        sums = torch.tensordot(inside, sums, ([1], [axis])).movedim(0, axis)
    return sums.flatten()


def _sum_images(maps: Tensor, dtype: torch.dtype) -> Tensor:
    numbers = slice_size(_SLICE, maps.device)
    parts = torch.split(maps, max(1, numbers * len(maps) // max(1, maps.numel())))
    # To sum them at once in another dtype, torch would copy all the maps.
    return torch.stack([part.sum(0, dtype=dtype) for part in parts]).sum(0)


def _autocorrelations(
    maps: Tensor, reach: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Compute the autocorrelations of several problems, in the cheapest way."""
    if len(reach) > 1:
        return torch.stack([autocorrelation(m, reach, dtype) for m in maps])
    # In one dimension there are few lags: one product each.  Zeros separate the images,
    # so that a product can run through all of them.
    lag = 2 * reach[0] if reach else 0
    rows = F.pad(maps, (0, 0, 0, lag)).flatten(1, -2)
    n, channels = rows.shape[1:]
    rows = rows.to(dtype_of_sums(n, channels, dtype))
    half = [column_products(rows[:, : n - s], rows[:, s:]) for s in range(lag + 1)]
    if not reach:
        return half[0].to(dtype)
    return torch.stack([*(r.mT for r in reversed(half[1:])), *half], 1).to(dtype)
