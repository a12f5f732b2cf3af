"""Products of matrices, by the faster of the two libraries that PyTorch ships.

``torch.mm`` calls BLAS.  For convolutions PyTorch also ships oneDNN, which can multiply
matrices as well; on processors whose widest units MKL leaves idle, it takes half the
time.  Its product has no gradient, so products that are recorded for gradients stay
with BLAS; within autograd nodes none are.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch
from torch import Tensor

from sktarget._processor import MKL_IDLES
from sktarget._tensors import is_recorded

__all__ = [
    "FEW_COLUMNS",
    "add_product",
    "column_products",
    "dtype_of_sums",
    "gramian",
    "is_for_onednn",
    "product",
]

# For fewer multiplications BLAS takes less time than the mere call of oneDNN.
_ONEDNN_LEAST = 1 << 20
# oneDNN needs a left factor whose rows are contiguous.  Copying it into that order pays
# off from this many multiplications on.
_COPY_LEAST = 1 << 21
# It also takes this many multiplications for each number copied.
_COPY_USES = 48
# oneDNN sums the products one by one.  To limit rounding errors, a longer common axis
# is cut into slices.
_ONEDNN_SLICE = 1 << 10
# For Gramians the slices are shorter: their rounding must stay below the ridge.
_ONEDNN_GRAM_SLICE = 1 << 8
# Gramians of at least this many columns go to oneDNN, in stripes of this width.
_ONEDNN_GRAM_COLUMNS = 256
# BLAS takes longer for a product of fewer columns than for its transpose.
_NARROW_COLUMNS = 16
# This holds only if the left factor has more numbers than this.
_NARROW_NUMBERS = 1 << 13
# Stripe by stripe, only the lower triangle of a Gramian is formed, which saves up to
# half of the multiplications.  BLAS is fastest on multiples of 48 columns, and below
# two stripes one product is as fast.
_STRIPE = 48
# On fewer numbers than this one product is as fast, too.
_STRIPE_NUMBERS = 1 << 15
# Every stripe reads all the rows, so large Gramians get wider stripes: _STRIPE times
# the number of columns divided by this, but at most four times.
_STRIPE_WIDER = 256
# Narrow products, of fewer than FEW_COLUMNS rows or columns, may also be summed one by
# one.  Where their common axis is longer than _SEQUENTIAL, it is cut into slices.
_SEQUENTIAL, _SLICE = 1 << 12, 1 << 11
FEW_COLUMNS = 12
"""With fewer columns BLAS may sum the products of a Gramian one by one."""
# With fewer than FEW_COLUMNS columns, the error on more rows of similar numbers is
# thousands of times the rounding of the sum, so these are summed in double precision.
_FEW_COLUMNS_ROWS = 256
# With any number of columns the error is large on more rows: these go in slices.
_GRAM_ROWS = 1 << 13


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Form ``left @ right + bias``.

    Parameters
    ----------
    left : Tensor of shape (n, k)
        The left factor.
    right : Tensor of shape (k, m)
        The right factor.
    bias : Tensor of shape (m,), optional
        Added to every row.

    Returns
    -------
    Tensor of shape (n, m)
        The product.

    Examples
    --------
    >>> import torch
    >>> product(torch.eye(2), torch.eye(2), torch.tensor([1.0, 2.0]))
    tensor([[2., 2.],
            [1., 3.]])
    """
    (n, k), m = left.shape, right.shape[1]
    narrow = min(n, m) < FEW_COLUMNS and left.is_cpu
    if narrow and k > _SEQUENTIAL and left.dtype == torch.float32:
        lefts, rights = torch.split(left, _SLICE, 1), torch.split(right, _SLICE)
        out = product(lefts[0], rights[0], bias)
        for part, other in zip(lefts[1:], rights[1:], strict=True):
            out = out + product(part, other)
        return out
    if is_for_onednn(left, m) and not is_recorded(left, right, bias):
        if left.is_contiguous() and k <= _ONEDNN_SLICE:
            return _by_onednn(left, right, bias)
        # Form whichever of the product and its transpose has less to copy.
        turned = k * m + n * m < n * k
        if n * k * m >= max(_COPY_LEAST, _COPY_USES * min(n, m) * k):
            out = _by_slices(right.T, left.T).T if turned else _by_slices(left, right)
            out = out.contiguous()
            return out if bias is None else out.add_(bias)
    if 1 < m < _NARROW_COLUMNS < n and n * k > _NARROW_NUMBERS and left.is_cpu:
        if bias is None:
            return torch.mm(right.T, left.T).T.contiguous()
        return torch.addmm(bias[:, None], right.T, left.T).T.contiguous()
    return left @ right if bias is None else torch.addmm(bias, left, right)


def add_product(to: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to a tensor in place.

    Parameters
    ----------
    to : Tensor of shape (n, m)
        What to add to.
    left, right : Tensor of shape (n, k) and (k, m)
        The factors.

    Examples
    --------
    >>> import torch
    >>> sums = torch.ones(2, 2)
    >>> add_product(sums, torch.eye(2), torch.eye(2))
    >>> sums
    tensor([[2., 1.],
            [1., 2.]])
    """
    if is_for_onednn(left, right.shape[1]):
        to.add_(product(left, right))
    else:
        to.addmm_(left, right)


def gramian(
    rows: Tensor, dtype: torch.dtype | None = None, *, ones: bool = False
) -> Tensor:
    """Form the lower triangle of ``AᵀA``.

    Parameters
    ----------
    rows : Tensor of shape (n, k)
        The matrix A, or A without its column of ones.
    dtype : torch.dtype, optional
        Arithmetic of the product; by default that of `rows`.
    ones : bool, default=False
        Put a column of ones before `rows`, without building that matrix.

    Returns
    -------
    Tensor of shape (k, k), or (k + 1, k + 1) with `ones`
        Correct on and below the diagonal; the part above is undefined.  Pass
        ``rows.T`` for the Gramian of the dual form.

    Examples
    --------
    >>> import torch
    >>> gramian(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tril()
    tensor([[10.,  0.],
            [14., 20.]])
    """
    rows = rows if dtype in (None, rows.dtype) else rows.to(dtype=dtype)
    n, k = rows.shape
    wide = dtype_of_sums(n, k, rows.dtype)
    if wide != rows.dtype:
        return gramian(rows, wide, ones=ones).to(rows.dtype)
    if n > _GRAM_ROWS and rows.dtype == torch.float32:
        parts = torch.split(rows, _GRAM_ROWS)
        gram = gramian(parts[0], ones=ones)
        for part in parts[1:]:
            gram.add_(gramian(part, ones=ones))
        return gram
    if is_recorded(rows):  # Writing to `out` has no gradient.
        rows = torch.cat([rows.new_ones(n, 1), rows], 1) if ones else rows
        return rows.T @ rows
    if not ones:
        if k < 2 * _STRIPE or rows.numel() < _STRIPE_NUMBERS:
            return rows.T @ rows
        return _fill(rows.new_empty(k, k), rows)
    out = rows.new_full((k + 1, k + 1), n)
    torch.sum(rows, 0, out=out[1:, 0])
    _fill(out[1:, 1:], rows)
    return out


def dtype_of_sums(n_rows: int, n_columns: int, dtype: torch.dtype) -> torch.dtype:
    """Return the arithmetic in which products of columns are to be summed.

    Parameters
    ----------
    n_rows, n_columns : int
        Length of the columns, and their number in the narrower factor.
    dtype : torch.dtype
        Arithmetic of the columns.

    Returns
    -------
    torch.dtype
        Double in place of single precision for a few long columns.

    Examples
    --------
    >>> import torch
    >>> dtype_of_sums(1000, 3, torch.float32), dtype_of_sums(1000, 30, torch.float32)
    (torch.float64, torch.float32)
    """
    is_risky = n_columns < FEW_COLUMNS and n_rows > _FEW_COLUMNS_ROWS
    return torch.float64 if is_risky and dtype == torch.float32 else dtype


def column_products(left: Tensor, right: Tensor) -> Tensor:
    """Form ``leftᵀ @ right`` of several problems, as exactly as Gramians.

    Parameters
    ----------
    left, right : Tensor of shape (problems, n, k) and (problems, n, m)
        The columns, in the arithmetic that :func:`dtype_of_sums` gives.

    Returns
    -------
    Tensor of shape (problems, k, m)
        The products.

    Examples
    --------
    >>> import torch
    >>> column_products(torch.ones(1, 3, 2), torch.ones(1, 3, 1))
    tensor([[[3.],
             [3.]]])
    """
    if left.shape[1] <= _GRAM_ROWS or left.dtype != torch.float32:
        return torch.bmm(left.mT, right)
    lefts, rights = (torch.split(part, _GRAM_ROWS, 1) for part in (left, right))
    out = torch.bmm(lefts[0].mT, rights[0])
    for part, other in zip(lefts[1:], rights[1:], strict=True):
        out.add_(torch.bmm(part.mT, other))  # baddbmm sums one by one.
    return out


def _fill(out: Tensor, rows: Tensor) -> Tensor:
    """Write a Gramian to a tensor."""
    n, k = rows.shape
    if k >= _ONEDNN_GRAM_COLUMNS and is_for_onednn(rows, k):
        return _fill_by_onednn(out, rows)
    if k < 2 * _STRIPE or n * k < _STRIPE_NUMBERS or not rows.is_cpu:
        return torch.mm(rows.T, rows, out=out)
    width = _STRIPE * max(1, min(k // _STRIPE_WIDER, 4))
    for start in range(0, k, width):
        stop = min(start + width, k)
        torch.mm(rows[:, start:].T, rows[:, start:stop], out=out[start:, start:stop])
    return out


def _fill_by_onednn(out: Tensor, rows: Tensor) -> Tensor:
    k = rows.shape[1]
    out.zero_()
    for part in torch.split(rows, _ONEDNN_GRAM_SLICE):
        columns = part.T.contiguous()
        for start in range(0, k, _ONEDNN_GRAM_COLUMNS):
            stop = min(start + _ONEDNN_GRAM_COLUMNS, k)
            block = _by_onednn(columns[start:stop], columns[:stop].T)
            out[start:stop, :stop].add_(block)
    return out


# --- oneDNN ---------------------------------------------------------------------------


def _find_onednn() -> Callable[..., Tensor] | None:
    """Find oneDNN's product of matrices where it would use vectors of 512 bits."""
    wide = (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )
    packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if wide else None
    return getattr(packet, "default", None)


_ONEDNN = _find_onednn() if MKL_IDLES else None


def is_for_onednn(left: Tensor, n_columns: int) -> bool:
    """Return whether a product is large enough for oneDNN, and suitable for it.

    Parameters
    ----------
    left : Tensor
        The left factor.
    n_columns : int
        Number of columns of the right one.

    Returns
    -------
    bool
        False wherever oneDNN is not available, or not known to be faster.

    Examples
    --------
    >>> import torch
    >>> is_for_onednn(torch.zeros(2, 2), 2)
    False
    """
    return bool(
        left.numel() * n_columns >= _ONEDNN_LEAST
        and _ONEDNN is not None
        and left.dtype == torch.float32
        and left.is_cpu
        and torch.backends.mkldnn.enabled
        and not torch.compiler.is_compiling()
    )


def _by_onednn(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    assert _ONEDNN is not None
    if not (right.is_contiguous() or right.T.is_contiguous()):
        # With gaps between rows oneDNN may take a thousand times as long, and copying
        # a matrix into the other layout takes ten times as long as keeping its own.
        is_transposed = right.stride(0) == 1
        right = right.T.contiguous().T if is_transposed else right.contiguous()
    # Of a bias oneDNN ignores the stride: of a column it would read what is beside it.
    bias = None if bias is None else bias.contiguous()
    return _ONEDNN(left, right.T, bias, "none", [], "")


def _by_slices(left: Tensor, right: Tensor) -> Tensor:
    """Sum products of slices of the common axis."""
    lefts = torch.split(left, _ONEDNN_SLICE, 1)
    rights = torch.split(right, _ONEDNN_SLICE)
    out = _by_onednn(lefts[0], rights[0])
    for left, right in zip(lefts[1:], rights[1:], strict=True):
        out.add_(_by_onednn(left, right))
    return out
