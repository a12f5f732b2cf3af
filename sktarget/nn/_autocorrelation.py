"""The Gramian of a "same" convolution from the autocorrelation of its maps.

The Gramian of the patches of a map has an entry for every two offsets d, e within
the kernel and every two channels,

    G[d, e] = Σ_o x[o + d] x[o + e],      o over the map, x zero outside of it.

Were o to run over all of space, this would be the autocorrelation ``R[e − d]``, with
``R[Δ] = Σ_q x[q] x[q + Δ]``.  What the o beyond the ends of an axis contribute comes
from the few lines of the map next to these ends, and is a problem of the
same kind with one axis less.  So no patch is ever gathered.

The autocorrelation is taken by way of the spectrum: with ``F`` the Fourier transform
over a box that leaves room for the largest lag, ``R = F⁻¹(F(x)* F(x))``, summed over
images before it is transformed back.  The axes are short, so that the transforms are
products with small dense matrices, in real arithmetic.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["autocorrelation", "same_gramian"]

# Axes longer than this are cut into overlapping pieces: dense transforms and the
# number of frequencies stay small.
_PIECE = 32
# Spectra are formed for slices of images of about this many numbers, to stay in the
# cache of a core.
_SLICE = 1 << 18


def same_gramian(
    maps: Tensor, kernel: tuple[int, ...], dtype: torch.dtype, *, ones: bool = False
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

    Returns
    -------
    Tensor of shape (k, k)
        The lower triangle of AᵀA; columns run over kernel positions and channels,
        channels fastest.

    Notes
    -----
    About 1.5 multiplications of two vectors of channels for each pixel of the box,
    where patches take ``∏ kernel²`` for each pixel of the map.  Rounding errors are
    relative to the autocorrelation at lag 0, not to single entries of G.

    Examples
    --------
    >>> import torch
    >>> same_gramian(torch.tensor([[[1.0], [2.0]]]), (3,), torch.float64)
    tensor([[1.0, 2.0, 0.0],
            [2.0, 5.0, 2.0],
            [0.0, 2.0, 4.0]], dtype=torch.float64)
    """
    reach = tuple(k // 2 for k in kernel)
    # Axes along which the kernel has one position are only more images.
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


def _fill(gram: Tensor, maps: Tensor, reach: tuple[int, ...], n_inner: int) -> None:
    """Sum over o within the map along the first `n_inner` axes, anywhere beyond.

    Both have a leading axis of independent problems; the result, of shape
    (problems, *kernel, channels, *kernel, channels), goes to `gram`.
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

    The o at this distance see `n_lines` lines of the map, which become channels of
    maps that lack the axis.  Only o within the map along earlier axes are meant: the
    others have been subtracted.
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
    """Tell for every offset which pixels it brings into the map."""
    centres = torch.arange(extent) - torch.arange(-p, p + 1)[:, None]
    return ((centres >= 0) & (centres < extent)).to(device, dtype)


def _column_sums(maps: Tensor, reach: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Sum the patches: for every offset, the pixels that it brings into the map."""
    parts = torch.split(maps, max(1, _SLICE * len(maps) // max(1, maps.numel())))
    # Whole, the maps would be copied to be summed in another arithmetic.
    sums = torch.stack([part.sum(0, dtype=dtype) for part in parts]).sum(0)
    for axis, p in enumerate(reach):
        inside = _inside(sums.shape[axis], p, dtype, sums.device)
        sums = torch.tensordot(inside, sums, ([1], [axis])).movedim(0, axis)
    return sums.flatten()


def _autocorrelations(
    maps: Tensor, reach: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Take the autocorrelations of several problems, by the cheapest way."""
    if len(reach) > 1:
        return torch.stack([autocorrelation(m, reach, dtype) for m in maps])
    # On a line there are few lags: one product each.  The zeros that separate the
    # images let it run through all of them.
    lag = 2 * reach[0] if reach else 0
    rows = F.pad(maps, (0, 0, 0, lag)).to(dtype).flatten(1, -2)
    n = rows.shape[1]
    half = [torch.bmm(rows[:, : n - s].mT, rows[:, s:]) for s in range(lag + 1)]
    if not reach:
        return half[0]
    return torch.stack([*(r.mT for r in reversed(half[1:])), *half], 1)


def autocorrelation(maps: Tensor, reach: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Sum ``x[q] x[q + Δ]`` over pixels and images, for every two channels.

    Parameters
    ----------
    maps : Tensor of shape (n, *extents, channels)
        The maps x, zero outside.
    reach : tuple of int
        Half of the largest lag along every axis.
    dtype : torch.dtype
        Arithmetic of the products.

    Returns
    -------
    Tensor of shape (*(4 * reach + 1), channels, channels)
        R[Δ] for Δ from ``-2 * reach`` to ``2 * reach`` along every axis.

    Examples
    --------
    >>> import torch
    >>> autocorrelation(torch.tensor([[[1.0], [2.0]]]), (1,), torch.float64).flatten()
    tensor([0.0, 2.0, 5.0, 2.0, 0.0], dtype=torch.float64)
    """
    return _autocorrelation(maps.unsqueeze(1), reach, dtype)


def _autocorrelation(
    maps: Tensor, reach: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Take maps of shape (n, pieces, *extents, channels), see autocorrelation."""
    for axis, p in enumerate(reach, 2):
        step = max(_PIECE, 2 * p)
        if maps.shape[axis] > step + 2 * p:
            pieces, overlaps = _cut(maps, axis, step, 2 * p)
            whole = _autocorrelation(pieces, reach, dtype)
            return whole.sub_(_autocorrelation(overlaps, reach, dtype))
    extents, c = maps.shape[2:-1], maps.shape[-1]
    if not extents:
        rows = maps.reshape(-1, c).to(dtype)
        return rows.T @ rows
    box = tuple(h + 2 * p for h, p in zip(extents, reach, strict=True))
    even, odd = _power_spectra(maps, box, dtype)
    cosines, sines = _inverse(box, reach, dtype, maps.device)
    lags = cosines @ even.flatten(1)
    twisted = (sines @ odd.flatten(1)).view(-1, c, c)
    lags = lags.view(-1, c, c).add_(twisted.mT).sub_(twisted)
    return lags.view(*(4 * p + 1 for p in reach), c, c)


def _cut(maps: Tensor, axis: int, step: int, lag: int) -> tuple[Tensor, Tensor]:
    """Cut an axis into pieces that overlap by `lag`; return these and the overlaps.

    Two pixels at most `lag` apart share one piece, or two pieces and one overlap, so
    the difference of what pieces and overlaps sum up to counts them once.
    """
    n_pieces = -(-(maps.shape[axis] - lag) // step)
    missing = n_pieces * step + lag - maps.shape[axis]
    maps = F.pad(maps, [0, 0] * (maps.ndim - 1 - axis) + [0, missing])
    inner = maps.narrow(axis, step, (n_pieces - 2) * step + lag)
    pieces, overlaps = (
        maps.unfold(axis, step + lag, step),
        inner.unfold(axis, lag, step),
    )
    # The number of the piece joins those of earlier cuts, the extent takes its place.
    places = (axis, -1), (1, axis + 1)
    return pieces.movedim(*places).flatten(1, 2), overlaps.movedim(*places).flatten(
        1, 2
    )


def _power_spectra(
    maps: Tensor, box: tuple[int, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sum ``Re* Re + Im* Im`` and ``Re* Im`` over images, frequency by frequency.

    Both are of shape (frequencies, channels, channels).
    """
    c = maps.shape[-1]
    frequencies = math.prod(box[:-1]) * (box[-1] // 2 + 1)
    even = torch.zeros(frequencies, c, c, dtype=dtype, device=maps.device)
    odd = torch.zeros_like(even)
    numbers = 2 * frequencies * c * maps.shape[1]
    for part in torch.split(maps, max(1, _SLICE // numbers)):
        spectra = _transform(part.flatten(0, 1).to(dtype), box)
        both = spectra.view(-1, frequencies, c).transpose(0, 1)
        even.baddbmm_(both.mT, both)
        real, imaginary = spectra.view(-1, 2, frequencies, c).unbind(1)
        odd.baddbmm_(real.permute(1, 2, 0), imaginary.transpose(0, 1))
    return even, odd


def _transform(maps: Tensor, box: tuple[int, ...]) -> Tensor:
    """Transform maps (n, *extents, channels) to (n, 2, frequencies, channels)."""
    n, *extents, c = maps.shape
    out = _real_fourier(extents[-1], box[-1], maps.dtype, maps.device) @ maps.reshape(
        -1, extents[-1], c
    )
    for axis in reversed(range(len(extents) - 1)):
        h = extents[axis]
        matrix = _complex_fourier(h, box[axis], maps.dtype, maps.device)
        out = matrix @ out.view(n * math.prod(extents[:axis]), 2 * h, -1)
    return out


# The matrices below are constants that depend on the shape of a layer alone.
@lru_cache(maxsize=128)
def _real_fourier(
    extent: int, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Transform a real axis, padded with zeros to `size`; the real parts come first."""
    angles = _angles(torch.arange(size // 2 + 1), torch.arange(extent), size)
    return torch.cat([angles.cos(), -angles.sin()]).to(device, dtype)


@lru_cache(maxsize=128)
def _complex_fourier(
    extent: int, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Transform a complex axis; its real and imaginary parts alternate."""
    angles = _angles(torch.arange(size), torch.arange(extent), size)
    cos, sin = angles.cos(), angles.sin()
    real = torch.stack([cos, sin], 2).flatten(1)
    imaginary = torch.stack([-sin, cos], 2).flatten(1)
    return torch.cat([real, imaginary]).to(device, dtype)


@lru_cache(maxsize=128)
def _inverse(
    box: tuple[int, ...],
    reach: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Give the weights of all frequencies in each lag: of cosines and of sines."""
    angles = torch.zeros(1, 1, dtype=torch.float64)
    weights = torch.full((1,), 1 / math.prod(box), dtype=torch.float64)
    for axis, (size, p) in enumerate(zip(box, reach, strict=True)):
        last = axis == len(box) - 1
        frequencies = torch.arange(size // 2 + 1 if last else size)
        own = _angles(torch.arange(-2 * p, 2 * p + 1), frequencies, size)
        angles = angles[:, None, :, None] + own[:, None]
        angles = angles.flatten(0, 1).flatten(1)
        # Of the last axis half is known by symmetry: what has a twin counts twice.
        twins = ((2 * frequencies) % size != 0) if last else torch.zeros(size)
        weights = (weights[:, None] * (1 + twins.double())).flatten()
    cosines, sines = weights * angles.cos(), weights * angles.sin()
    return cosines.to(device, dtype), sines.to(device, dtype)


def _angles(left: Tensor, right: Tensor, size: int) -> Tensor:
    products = left[:, None] * right
    return products.remainder(size).double() * (2 * math.pi / size)
