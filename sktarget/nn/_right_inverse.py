"""The right inverse of a solve: targets whose ridge solution is a given W."""

from __future__ import annotations

import torch
from torch import Tensor

from sktarget.linalg import factorise, read_trace
from sktarget.nn._operators import DesignOperator

__all__ = ["right_inverse"]

# Eigenvalues of the Gramian below this share of its trace are zero but for rounding.
_NEGLIGIBLE = 1e-12


def right_inverse(
    operator: DesignOperator, inputs: Tensor, sums: Tensor, lam: float
) -> Tensor:
    """Find the targets whose ridge solution gives the sums S = AW.

    Solving for ``T = S`` shrinks the sums along each singular vector of A by
    ``s² / (s² + λ)``.  So the targets are ``T = S + λ (AAᵀ)⁺ S``, of least norm among
    all with this solution: ``Aᵀ T = (AᵀA + λI) W`` for a W in the range of Aᵀ.

    Parameters
    ----------
    operator : DesignOperator
        The products with A.
    inputs : Tensor of shape (n̄_b, ...)
        Inputs of the layer on X̄.
    sums : Tensor of shape (n̄_b, ...)
        The sums S of the layer on X̄.
    lam : float
        λ ≥ 0 of the solve.

    Returns
    -------
    Tensor of the shape of `sums`
        The targets T.

    Raises
    ------
    FactorisationError
        If the inputs are not finite.

    Notes
    -----
    The solution is W itself where A has full column rank; otherwise its part in the
    range of Aᵀ, which leaves S as it is.  Computed in double precision; what A
    contributes along singular vectors a millionth as strong as the others is left out.
    """
    if lam == 0:
        return sums
    rows, s = operator.rows(inputs.double()), operator.sums(sums.double())
    gram = operator.gramian(rows, torch.float64, ridge=0.0)
    # Of every group of a convolution its own.
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    read_trace(trace.sum())  # It must be finite.
    tiny = torch.finfo(torch.float64).tiny
    factor = factorise(gram, (_NEGLIGIBLE * trace).clamp(min=tiny))
    factor.check()
    if operator.is_dual(rows):
        z = operator.solve_dual(factor, s)
    else:
        weights = factor.solve(operator.apply_transposed(rows, s))
        z = operator.apply(rows, factor.solve(weights))
    return (s + lam * z).reshape(sums.shape).to(sums.dtype)
