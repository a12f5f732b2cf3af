"""Cholesky factors of regularised Gramians: factorise once, solve many times."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

__all__ = ["FactorisationError", "RidgeFactor", "factorise"]

# Up to this order, a factor in double precision is inverted explicitly if right-hand
# sides are in single precision and at least half as many as the order.
_INVERTED = 192
# Up to this order products with an inverse cost less than the calls for a solve.
_SMALL = 32
# From this many right-hand sides on, solving ZᵀG = Rᵀ in BLAS beats GZ = R in LAPACK.
_SEVERAL = 16


class FactorisationError(RuntimeError):
    """A regularised Gramian has no Cholesky factor.

    Its inputs are not finite, or span too many orders of magnitude.

    Examples
    --------
    >>> from sktarget.linalg import ridge_solve
    >>> ridge_solve(torch.tensor([[torch.inf]]), torch.ones(1, 1), lam=1.0)
    Traceback (most recent call last):
    ...
    sktarget.linalg._factor.FactorisationError: the trace of the Gramian is inf
    """


@lru_cache(maxsize=8)
def _one(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a one to add multiples of; adding a number takes twice as long."""
    with torch.inference_mode(False):
        return torch.ones(1, dtype=dtype, device=device)


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
        The errors are those of triangular solves, in the primal form up to
        ``ε √(τ / λ)`` relative to AZ; an explicit ``(G + λI)⁻¹`` would square that.
        For right-hand sides in single precision a factor in double can afford it: it is
        one product in place of two solves, and its error ``ε₆₄ τ / λ`` vanishes beside
        that of the right-hand sides, which amounts to ``ε √(τ / λ) / 2`` in AZ.
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
    ridge : float or Tensor of shape (), (1,) or (g, 1)
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
