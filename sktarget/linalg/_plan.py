"""The arithmetic of a ridge problem: how wide it has to be.

Forming a Gramian squares the condition number, so with a small λ the arithmetic
of ``A`` may not be wide enough.  :func:`plan_solve` chooses the narrowest
arithmetic that keeps the solution accurate, from λ and the trace of the Gramian.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sktarget.linalg._factor import FactorisationError

__all__ = ["SolvePlan", "at_least_float32", "plan_solve", "read_trace"]

# In the dual form λ has to be as many times ετ for narrow arithmetic to be enough.
_OF_DUAL = 1024
# The relative floor below which λ drowns in the rounding of the Gramian.
_FLOOR = 16 * torch.finfo(torch.float64).eps


class SolvePlan(NamedTuple):
    """How one ridge problem is to be solved.

    Attributes
    ----------
    ridge : float or Tensor of shape ()
        The λ to add to the diagonal, raised to the floor of the arithmetic.
    gram_dtype : torch.dtype
        Arithmetic of the Gramian and of its factor.
    work_dtype : torch.dtype
        Arithmetic of all other products.
    below_trace : bool
        Whether λ is known to be at most τ: ``1 − λ / (τ + λ)`` then keeps its digits.

    Examples
    --------
    >>> plan_solve(torch.tensor(100.0), 0.0, torch.float32).work_dtype
    torch.float64
    """

    ridge: float | Tensor
    gram_dtype: torch.dtype
    work_dtype: torch.dtype
    below_trace: bool = False


def plan_solve(
    trace: Tensor, lam: float, dtype: torch.dtype, *, dual: bool = False
) -> SolvePlan:
    """Choose the arithmetic and the effective λ of a ridge problem.

    With ``τ`` the trace of the Gramian, an upper bound of its largest eigenvalue,
    and ``ε`` the machine epsilon of `dtype`, or of float32 if `dtype` is narrower:

    - Gramian and factor are formed in float64 unless ``λ ≥ 16ετ``, that is, unless
      the rounding of the Gramian stays below λ;
    - all products are formed in float64 when ``√λ < 64ε√τ``: errors of ``AᵀT``
      reach ``AW`` multiplied by up to ``1 / 2√λ``;
    - λ is raised to ``16 ε₆₄ τ``, which allows λ = 0 on inputs of any rank.

    In the dual form Gramian, factor and products are in float64 unless ``λ ≥ 1024ετ``:
    the solution of the system is up to T / λ, and its rounding reaches ``AW``
    multiplied by AAᵀ.  As there is nothing wider than float64, an error of about
    ``ε₆₄ τ / λ`` remains.

    On a GPU the trace is not read back, because that would stall the device.
    Gramian and factor are then always formed in float64, and so are the other products
    of the dual form.  Those of the primal form are never in more than the arithmetic of
    the inputs, and λ is raised to ``(64ε)² τ``, from which on these are accurate, or to
    ``16 ε₆₄ τ``, whichever is larger.

    Parameters
    ----------
    trace : Tensor of shape ()
        Trace of the Gramian, or an upper bound of it.
    lam : float
        λ ≥ 0.
    dtype : torch.dtype
        Arithmetic of the inputs.
    dual : bool, default=False
        Whether the problem is solved in its dual form.

    Returns
    -------
    SolvePlan
        Effective λ and the two arithmetics.

    Raises
    ------
    FactorisationError
        If the trace is not finite (checked on the CPU only).

    Examples
    --------
    >>> import torch
    >>> plan_solve(torch.tensor(100.0), 1.0, torch.float32).gram_dtype
    torch.float32
    >>> plan_solve(torch.tensor(100.0), 1e-5, torch.float32).gram_dtype
    torch.float64
    >>> plan_solve(torch.tensor(100.0), 1e-3, torch.float32, dual=True).gram_dtype
    torch.float64
    """
    if not trace.is_cpu:
        return _plan_unread(trace, lam, dtype, dual)
    narrow = at_least_float32(dtype)
    largest, eps, least = _arithmetic(narrow)
    tau = read_trace(trace, largest)
    for_gram, for_work = 16 * eps * tau, (64 * eps) ** 2 * tau
    if dual:
        for_gram = for_work = _OF_DUAL * eps * tau
    return SolvePlan(
        ridge=max(lam, _FLOOR * tau, least),
        gram_dtype=narrow if lam >= for_gram else torch.float64,
        work_dtype=narrow if lam >= for_work else torch.float64,
        below_trace=lam <= tau,
    )


def read_trace(trace: Tensor, largest: float = math.inf) -> float:
    """Return the trace of a Gramian as a number; on a GPU, this waits for it.

    Parameters
    ----------
    trace : Tensor of shape ()
        The trace.
    largest : float, default=inf
        What it has to be below.

    Returns
    -------
    float
        Its value.

    Raises
    ------
    FactorisationError
        If it is not below `largest`, or not a number.

    Examples
    --------
    >>> read_trace(torch.tensor(2.0))
    2.0
    """
    value = trace.item()
    if not value < largest:
        raise FactorisationError(f"the trace of the Gramian is {value}")
    return value


def _plan_unread(
    trace: Tensor, lam: float, dtype: torch.dtype, dual: bool = False
) -> SolvePlan:
    """Plan without reading the trace, which would wait for the device."""
    work_dtype = torch.float64 if dual else at_least_float32(dtype)
    floor = max(_FLOOR, (64 * torch.finfo(work_dtype).eps) ** 2)
    least = _arithmetic(at_least_float32(dtype))[2]
    ridge = (trace.double() * floor).clamp(min=max(lam, least))
    return SolvePlan(ridge, torch.float64, work_dtype)


@cache
def _arithmetic(dtype: torch.dtype) -> tuple[float, float, float]:
    """Return the largest number, ε, and the least λ.

    That is for inputs that are all zero: targets divided by it must not overflow.
    """
    info = torch.finfo(dtype)
    return info.max, info.eps, info.tiny / info.eps


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which to factorise inputs of a dtype: LAPACK has no half.

    Parameters
    ----------
    dtype : torch.dtype
        A floating dtype.

    Returns
    -------
    torch.dtype
        The same, or float32 for a narrower one.

    Examples
    --------
    >>> at_least_float32(torch.bfloat16)
    torch.float32
    """
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
