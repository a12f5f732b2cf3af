"""The autocorrelation of maps, summed over images, from their spectra.

With ``F`` the Fourier transform over a box that leaves room for the largest lag,
``R = F⁻¹(F(x)* F(x))``; the spectra are summed over images before they are transformed
back.  The axes are short, so the transforms are products with small dense matrices, in
real arithmetic, and every step is a product of matrices.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sktarget._slices import slice_size
from sktarget.linalg import product

__all__ = ["autocorrelation"]

# Longer axes are cut into overlapping pieces of about this length, so that dense
# transforms and the number of frequencies stay small.
_PIECE = 32
# Spectra are formed for slices of images of about this many bytes, to stay in the cache
# of a core, but of at least this share of the sums, all of which each slice updates.
_SLICE, _SHARE = 1 << 20, 1 / 8


def autocorrelation(maps: Tensor, reach: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Sum ``x[q] x[q + Δ]`` over pixels and images, for every pair of channels.

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
    """Do the same for maps of shape (n, pieces, *extents, channels)."""
    for axis, p in enumerate(reach, 2):
        step = max(_PIECE, 2 * p)
        if maps.shape[axis] > step + 2 * p:
            pieces, overlaps = _cut(maps, axis, step, 2 * p)
            whole = _autocorrelation(pieces, reach, dtype)
            return whole.sub_(_autocorrelation(overlaps, reach, dtype))
    extents, c = maps.shape[2:-1], maps.shape[-1]
    box = tuple(h + 2 * p for h, p in zip(extents, reach, strict=True))
    spectra = _power_spectra(maps, box, dtype).flatten(1)
    # The frequencies of the last axis come first.
    cosines, sines = _inverse(box[::-1], reach[::-1], dtype, maps.device)
    even = product(cosines, spectra).view(-1, c, c)
    odd = product(sines, spectra).view(-1, c, c)
    lags = (even + even.mT).sub_(odd - odd.mT)
    lags = lags.view(*(4 * p + 1 for p in reversed(reach)), c, c)
    return lags.permute(*reversed(range(len(reach))), -2, -1)


def _cut(maps: Tensor, axis: int, step: int, lag: int) -> tuple[Tensor, Tensor]:
    """Cut an axis into pieces that overlap by `lag`; return these and the overlaps.

    Two pixels at most `lag` apart share one piece, or two pieces and one overlap, so
    the sum over pieces less that over overlaps counts them once.
    """
    n_pieces = -(-(maps.shape[axis] - lag) // step)
    missing = n_pieces * step + lag - maps.shape[axis]
    maps = F.pad(maps, [0, 0] * (maps.ndim - 1 - axis) + [0, missing])
    inner = maps.narrow(axis, step, (n_pieces - 2) * step + lag)
    pieces, overlaps = (
        maps.unfold(axis, step + lag, step),
        inner.unfold(axis, lag, step),
    )
    # The piece's number joins those of earlier cuts, its extent replaces the axis.
    places = (axis, -1), (1, axis + 1)
    return pieces.movedim(*places).flatten(1, 2), overlaps.movedim(*places).flatten(
        1, 2
    )


def _power_spectra(maps: Tensor, box: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Sum ``Re* Re + Im* Im + Re* Im - Im* Re`` over images, for every frequency.

    The first two terms are symmetric and the others antisymmetric, so that one product,
    of (Re, Im) and (Re + Im, Im - Re), gives both.  The result has the shape
    (frequencies, channels, channels).
    """
    c = maps.shape[-1]
    frequencies = (box[0] // 2 + 1) * math.prod(box[1:])
    sums = torch.zeros(frequencies, c, c, dtype=dtype, device=maps.device)
    image = 2 * frequencies * c * maps.shape[1] * sums.itemsize
    size = max(slice_size(_SLICE, maps.device), int(_SHARE * sums.nbytes))
    for part in torch.split(maps, max(1, size // image)):
        real, imaginary = _transform(part.flatten(0, 1).to(dtype), box)
        sums.baddbmm_(real.mT, real + imaginary)
        sums.baddbmm_(imaginary.mT, imaginary - real)
    return sums


def _transform(maps: Tensor, box: tuple[int, ...]) -> Tensor:
    """Transform maps (n, *extents, channels) to (2, frequencies, n, channels).

    One axis after another comes to the front, where its transform is one large product.
    """
    n, *extents, c = maps.shape
    kind = maps.dtype, maps.device
    front = maps.transpose(0, 1).reshape(extents[0], -1)
    out = product(_real_fourier(extents[0], box[0], *kind), front)
    frequencies = box[0] // 2 + 1
    for h, size in zip(extents[1:], box[1:], strict=True):
        front = out.view(2, frequencies, n, h, -1).movedim(3, 1).reshape(2 * h, -1)
        out = product(_complex_fourier(h, size, *kind), front)
        frequencies *= size
    return out.view(2, frequencies, n, c)


# The matrices below are constants that depend only on the shape of a layer.
@lru_cache(maxsize=128)
def _real_fourier(
    extent: int, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Transform a real axis, padded with zeros to `size`; the real parts come first."""
    angles = _angles(_numbers(size // 2 + 1), _numbers(extent), size)
    return torch.cat([angles.cos(), -angles.sin()]).to(device, dtype)


@lru_cache(maxsize=128)
def _complex_fourier(
    extent: int, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Transform a complex axis, padded likewise; the real parts come first."""
    angles = _angles(_numbers(size), _numbers(extent), size)
    cos, sin = angles.cos(), angles.sin()
    real, imaginary = torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)
    return torch.cat([real, imaginary]).to(device, dtype)


@lru_cache(maxsize=128)
def _inverse(
    box: tuple[int, ...],
    reach: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return the weights of all frequencies in each lag: of cosines and of sines.

    They are halved: the transpose of a weighted sum is then added, or subtracted.
    """
    angles = _numbers(1).double()[:, None]
    weights = torch.full_like(angles[0], 0.5 / math.prod(box))
    for axis, (size, p) in enumerate(zip(box, reach, strict=True)):
        last = axis == len(box) - 1
        frequencies = _numbers(size // 2 + 1 if last else size)
        own = _angles(_numbers(4 * p + 1) - 2 * p, frequencies, size)
        angles = angles[:, None, :, None] + own[:, None]
        angles = angles.flatten(0, 1).flatten(1)
        # Half of the last axis follows by symmetry: frequencies with twins count twice.
        twins = (2 * frequencies) % size != 0
        weights = (weights[:, None] * (1 + int(last) * twins.double())).flatten()
    cosines, sines = weights * angles.cos(), weights * angles.sin()
    return cosines.to(device, dtype), sines.to(device, dtype)


def _numbers(n: int) -> Tensor:
    return torch.arange(n, device="cpu")


def _angles(left: Tensor, right: Tensor, size: int) -> Tensor:
    products = left[:, None] * right
    return products.remainder(size).double() * (2 * math.pi / size)
