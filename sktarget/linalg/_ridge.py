"""Ridge least squares by Cholesky: factorise once, solve many times.

Everything here is plain tensor arithmetic that knows nothing about networks.  For
inputs ``A`` (one row per pattern) and targets ``T`` the ridge solution is

    W = (AᵀA + λI)⁻¹ Aᵀ T          primal form, Eq. 7
      = Aᵀ (AAᵀ + λI)⁻¹ T          dual form (Woodbury), Eq. 23

of Fairbank, Samothrakis and Citi, "Deep Learning in Target Space", JMLR 23
(2022).  The primal matrix has one row per column of ``A``, the dual one has one
row per row of ``A``; the smaller of the two is factorised.

Forming a Gramian squares the condition number, so with a small λ the arithmetic
of ``A`` may not be wide enough.  :func:`plan_solve` chooses the narrowest
arithmetic that keeps the solution accurate, from λ and the trace of the Gramian.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sktarget.linalg._products import gramian, product

__all__ = [
    "FactorisationError",
    "RidgeFactor",
    "SolvePlan",
    "at_least_float32",
    "factorise",
    "plan_solve",
    "prefers_dual",
    "ridge_solve",
]

# Up to this order a factor in double precision is inverted for right-hand sides in
# single, if there are at least half as many of these.
_INVERTED = 192
# Up to this order products with an inverse cost less than the calls for a solve.
_SMALL = 32
# From this many right-hand sides on, solving ZᵀG = Rᵀ in BLAS beats GZ = R in LAPACK.
_SEVERAL = 16
# The relative floor below which λ drowns in the rounding of the Gramian.
_FLOOR = 16 * torch.finfo(torch.float64).eps


class FactorisationError(RuntimeError):
    """A regularised Gramian has no Cholesky factor: its inputs are not finite.

    Examples
    --------
    >>> ridge_solve(torch.tensor([[torch.inf]]), torch.ones(1, 1), lam=1.0)
    Traceback (most recent call last):
    ...
    sktarget.linalg._ridge.FactorisationError: the trace of the Gramian is inf
    """


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


def plan_solve(trace: Tensor, lam: float, dtype: torch.dtype) -> SolvePlan:
    """Choose the arithmetic and the effective λ of a ridge problem.

    With ``τ`` the trace of the Gramian, an upper bound of its largest eigenvalue,
    and ``ε`` the machine epsilon of `dtype`, or of float32 if `dtype` is narrower:

    - Gramian and factor are formed in float64 unless ``λ ≥ 16ετ``, that is, unless
      the rounding of the Gramian stays below λ;
    - all products are formed in float64 when ``√λ < 64ε√τ``: errors of ``AᵀT``
      reach ``AW`` multiplied by up to ``1 / 2√λ``;
    - λ is raised to ``16 ε₆₄ τ``, which allows λ = 0 on inputs of any rank.

    On a GPU the trace is not read back, because that would stall the device.
    Gramian and factor are then always formed in float64, other products never in more
    than the arithmetic of the inputs, and λ is raised to ``(64ε)² τ``, from which on
    these are accurate, or to ``16 ε₆₄ τ``, whichever is larger.

    Parameters
    ----------
    trace : Tensor of shape ()
        Trace of the Gramian, or an upper bound of it.
    lam : float
        λ ≥ 0.
    dtype : torch.dtype
        Arithmetic of the inputs.

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
    """
    if not trace.is_cpu:
        return _plan_unread(trace, lam, dtype)
    tau = trace.item()
    narrow = at_least_float32(dtype)
    largest, eps, least = _arithmetic(narrow)
    if not tau < largest:
        raise FactorisationError(f"the trace of the Gramian is {tau}")
    return SolvePlan(
        ridge=max(lam, _FLOOR * tau, least),
        gram_dtype=narrow if lam >= 16 * eps * tau else torch.float64,
        work_dtype=torch.float64 if lam < (64 * eps) ** 2 * tau else narrow,
        below_trace=lam <= tau,
    )


def _plan_unread(trace: Tensor, lam: float, dtype: torch.dtype) -> SolvePlan:
    """Plan without reading the trace, which would wait for the device."""
    work_dtype = at_least_float32(dtype)
    floor = max(_FLOOR, (64 * torch.finfo(work_dtype).eps) ** 2)
    least = _arithmetic(work_dtype)[2]
    ridge = (trace.double() * floor).clamp(min=max(lam, least))
    return SolvePlan(ridge, torch.float64, work_dtype)


@cache
def _arithmetic(dtype: torch.dtype) -> tuple[float, float, float]:
    """Return the largest number, ε, and the least λ.

    That is for inputs that are all zero: targets divided by it must not overflow.
    """
    info = torch.finfo(dtype)
    return info.max, info.eps, info.tiny / info.eps


@lru_cache(maxsize=8)
def _one(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a one to add multiples of; adding a number takes twice as long."""
    with torch.inference_mode(False):
        return torch.ones(1, dtype=dtype, device=device)


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


def prefers_dual(n_rows: int, n_columns: int) -> bool:
    """Return whether the dual form has the smaller system.

    Parameters
    ----------
    n_rows, n_columns : int
        Shape of the inputs.

    Returns
    -------
    bool
        True if there are fewer rows than columns.

    Examples
    --------
    >>> prefers_dual(10, 100)
    True
    """
    return n_rows < n_columns


@dataclass(frozen=True, eq=False)
class RidgeFactor:
    """Cholesky factor of a regularised Gramian, primal or dual.

    Attributes
    ----------
    lower : Tensor of shape (k, k), or (g, k, k) for several problems at once
        Lower triangular factor.
    info : Tensor of shape () or (g,)
        Zero where the factorisation succeeded, as LAPACK reports it.

    Examples
    --------
    >>> factor = factorise(torch.full((1, 1), 3.0), 1.0)
    >>> factor.lower
    tensor([[2.]])
    >>> factor.solve(torch.tensor([[8.0]]))
    tensor([[2.]])
    """

    lower: Tensor
    info: Tensor

    @cached_property
    def inverse(self) -> Tensor:
        """(G + λI)⁻¹, formed once."""
        return torch.cholesky_inverse(self.lower)

    @cached_property
    def inverse_lower(self) -> Tensor:
        """L⁻¹, formed once."""
        eye = torch.eye(
            self.lower.shape[-1], dtype=self.lower.dtype, device=self.lower.device
        )
        inverse: Tensor = torch.linalg.solve_triangular(
            self.lower, eye, upper=False, left=False
        )
        return inverse

    def solve(self, right: Tensor) -> Tensor:
        """Solve ``(G + λI) Z = R``.

        Parameters
        ----------
        right : Tensor of shape (k, m) or (g, k, m)
            The right-hand sides R, of any floating dtype.

        Returns
        -------
        Tensor of the shape of `right`
            The solutions Z in the dtype of `right`.

        Notes
        -----
        The errors are those of triangular solves, up to ``ε √(τ / λ)`` relative to AZ;
        an explicit ``(G + λI)⁻¹`` would square that.  For right-hand sides in single
        precision a factor in double can afford it: it is one product in place of two
        solves, and its error ``ε₆₄ τ / λ`` vanishes beside that of the right-hand
        sides, which amounts to ``ε √(τ / λ) / 2`` in AZ.
        """
        dtype, wanted = self.lower.dtype, right.dtype
        wide = right if wanted == dtype else right.to(dtype=dtype)
        k, m = right.shape[-2], right.shape[-1]
        if wanted != dtype and k <= _INVERTED and (2 * m >= k or k <= _SMALL):
            z = self.inverse @ wide
        elif k <= _SMALL:
            z = self.inverse_lower.mT @ (self.inverse_lower @ wide)
        elif m < _SEVERAL:
            z = torch.cholesky_solve(wide, self.lower)
        else:
            z = _solve_from_the_right(self.lower, wide.mT).mT
        return z if wanted == dtype else z.to(dtype=wanted)

    def check(self) -> None:
        """Raise if the factorisation failed; on a GPU this waits for the device.

        Raises
        ------
        FactorisationError
            If the matrix was not positive definite.
        """
        failed = self.info if self.info.ndim == 0 else self.info.any()
        if failed.item():
            raise FactorisationError("the regularised Gramian has no Cholesky factor")


def _solve_from_the_right(lower: Tensor, right: Tensor) -> Tensor:
    """Solve ``Z L Lᵀ = R``."""
    half = torch.linalg.solve_triangular(lower.mT, right, upper=True, left=False)
    z: Tensor = torch.linalg.solve_triangular(lower, half, upper=False, left=False)
    return z


def factorise(gram: Tensor, ridge: float | Tensor) -> RidgeFactor:
    """Factorise ``G + λI``, overwriting `gram`.

    Costs k³/3 operations.  The condition number is at most
    ``1 + λ_max(G) / λ``, the square of that of ``A`` when λ vanishes.

    Parameters
    ----------
    gram : Tensor of shape (k, k) or (g, k, k)
        The Gramian, or several; only its lower triangle is read.
    ridge : float or Tensor of shape ()
        λ > 0, as :func:`plan_solve` returns it.

    Returns
    -------
    RidgeFactor
        The factor: already checked on the CPU, unchecked on a GPU.

    Raises
    ------
    FactorisationError
        If the matrix is not positive definite (on the CPU).

    Examples
    --------
    >>> import torch
    >>> factor = factorise(torch.eye(2), 1.0)
    >>> factor.solve(torch.tensor([[2.0], [4.0]]))
    tensor([[1.],
            [2.]])
    """
    diagonal = gram.diagonal(0, -2, -1)
    if isinstance(ridge, Tensor):
        diagonal.add_(ridge)
    else:
        diagonal.add_(_one(gram.dtype, gram.device), alpha=ridge)
    lower, info = torch.linalg.cholesky_ex(gram)
    factor = RidgeFactor(lower, info)
    if gram.is_cpu:
        factor.check()
    return factor


def ridge_solve(rows: Tensor, targets: Tensor, lam: float) -> Tensor:
    """Solve one ridge problem, ``argmin ‖AW − T‖² + λ‖W‖²``.

    Parameters
    ----------
    rows : Tensor of shape (n, k)
        Inputs A, of a floating dtype.
    targets : Tensor of shape (n, m)
        Targets T.
    lam : float
        λ ≥ 0; with λ = 0 and dependent columns the solution is that of the floor
        described in :func:`plan_solve`, close to the one of least norm.

    Returns
    -------
    Tensor of shape (k, m)
        The weights W.

    Raises
    ------
    ValueError
        If `lam` is negative or not finite in the dtype of the inputs, if one of the
        others does not have two axes, or if `rows` is not floating point.
    FactorisationError
        If the inputs are not finite.

    Notes
    -----
    Eq. 7 where ``n >= k``, else Eq. 23.

    Examples
    --------
    >>> import torch
    >>> ridge_solve(torch.eye(2), torch.tensor([[2.0], [4.0]]), lam=1.0)
    tensor([[1.],
            [2.]])
    """
    _check_problem(rows, targets, lam)
    trace = rows.to(at_least_float32(rows.dtype)).square().sum()
    plan = plan_solve(trace, lam, rows.dtype)
    a, t = rows.to(plan.work_dtype), targets.to(plan.work_dtype)
    if prefers_dual(*rows.shape):
        factor = factorise(gramian(a.T, plan.gram_dtype), plan.ridge)
        weights = product(a.T, factor.solve(t))
    else:
        factor = factorise(gramian(a, plan.gram_dtype), plan.ridge)
        weights = factor.solve(product(a.T, t))
    if not rows.is_cpu:
        factor.check()
    return weights.to(rows.dtype)


def _check_problem(rows: Tensor, targets: Tensor, lam: float) -> None:
    """Refuse what is no ridge problem."""
    for name, value in (("rows", rows), ("targets", targets)):
        if value.ndim != 2:
            raise ValueError(
                f"{name} must have two axes, got shape {tuple(value.shape)}: "
                f"{name}[:, None] makes a column of a vector"
            )
    if len(rows) != len(targets):
        raise ValueError(
            f"rows and targets must be as many, got {len(rows)} and {len(targets)}: "
            "give a row of targets for each row"
        )
    if not rows.is_floating_point():
        raise ValueError(
            f"rows must be floating point, got {rows.dtype}: rows.float() makes it so"
        )
    largest = torch.finfo(at_least_float32(rows.dtype)).max
    if not 0 <= lam <= largest:
        raise ValueError(
            f"lam must be finite and at least 0, got {lam!r}: give a number of at most "
            f"{largest:.2g}, the largest of the dtype of the rows"
        )
