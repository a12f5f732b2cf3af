"""Solving a layer for its weights, and the backward pass through it (Alg. 3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sktarget.linalg import (
    RidgeFactor,
    SolvePlan,
    at_least_float32,
    factorise,
    plan_solve,
    read_trace,
)
from sktarget.nn._operators import DesignOperator

__all__ = [
    "MeanEigenvalue",
    "Solution",
    "factorise_design",
    "find_weights",
    "pull_back",
    "pull_back_sums",
]

# What is left of a trace by less is rounding.
_LEAST_SHARE = 1e-4


class Solution(NamedTuple):
    """The result of one factorisation: enough to solve any number of times.

    Attributes
    ----------
    factor : RidgeFactor
        Factor of AᵀA + λI, or of AAᵀ + λI.
    dual : bool
        Which of the two.
    plan : SolvePlan
        Arithmetic of the Gramian and of the products with A.
    lam : float
        The λ asked for.
    """

    factor: RidgeFactor
    dual: bool
    plan: SolvePlan
    lam: float

    @property
    def gives_residual(self) -> bool:
        """Whether T − AW follows from the factor: λ(AAᵀ + λI)⁻¹T, in the dual form.

        That saves a product.  As the factor after λ is what is kept, nothing is ever
        divided by λ.
        """
        return self.dual and self.plan.below_trace


class MeanEigenvalue(NamedTuple):
    """A λ that is still to be chosen: the mean eigenvalue of the Gramian.

    Attributes
    ----------
    has_bias : bool
        Whether A begins with a column of ones.
    most : float
        Bound on it, in mean eigenvalues of the Gramian of the inputs less their means.
    """

    has_bias: bool
    most: float = math.inf

    def of(self, gram: Tensor, trace: float, is_dual: bool) -> float:
        """Return λ for a Gramian, or for several, of which `trace` is the sum."""
        if gram.numel() == 0:  # There is nothing to regularise.
            return 0.0
        mean = trace * gram.shape[-1] / gram.numel()
        if math.isinf(self.most) or not (is_dual or self.has_bias):
            return mean
        diagonal, n = gram.diagonal(0, -2, -1), gram.shape[-1]
        if is_dual:  # 1ᵀAAᵀ1 / n, of which the lower triangle is known
            of_means = (2 * gram.tril().sum((-2, -1)) - diagonal.sum(-1)) / n
        else:  # The column of ones has their sums: ‖Aᵀ1‖² / n.
            of_means = gram[..., 0].square().sum(-1) / gram[..., 0, 0]
        share = 1 - of_means.sum().item() / trace if trace > 0 else 0.0
        return mean * min(1.0, self.most * max(_LEAST_SHARE, share))


def factorise_design(
    operator: DesignOperator,
    rows: Tensor,
    lam: float | MeanEigenvalue,
    last_dtype: torch.dtype | None = None,
) -> Solution:
    """Factorise the regularised Gramian of the rows of X̄.

    Parameters
    ----------
    operator : DesignOperator
        The products with A.
    rows : Tensor
        What stands for A on X̄.
    lam : float or MeanEigenvalue
        λ ≥ 0, or how to choose it.
    last_dtype : torch.dtype, optional
        Arithmetic of the same layer's last Gramian: most likely it needs the same.

    Returns
    -------
    Solution
        The factor and the arithmetic to use with it.
    """
    narrow = rows.is_cpu and rows.dtype != torch.float64
    guess = last_dtype or at_least_float32(rows.dtype)
    known = lam if isinstance(lam, float) else 0.0
    is_dual = operator.is_dual(rows)
    gram = operator.gramian(rows, guess if narrow else torch.float64, known)
    plan, own_lam = _plan(gram, lam, rows.dtype, is_dual)
    if plan.gram_dtype != gram.dtype:
        # Even if narrower, and with a ridge from its own trace: results must not depend
        # on what came before.
        gram = operator.gramian(rows, plan.gram_dtype, own_lam)
        anew, own_lam = _plan(gram, lam, rows.dtype, is_dual)
        work_dtype = plan.work_dtype if is_dual else anew.work_dtype
        plan = anew._replace(gram_dtype=plan.gram_dtype, work_dtype=work_dtype)
    factor = factorise(gram, plan.ridge)
    return Solution(factor, is_dual, plan, own_lam)


def _plan(
    gram: Tensor, lam: float | MeanEigenvalue, dtype: torch.dtype, is_dual: bool
) -> tuple[SolvePlan, float]:
    """Choose the arithmetic for a Gramian, and λ if there is none."""
    traces = gram.trace() if gram.ndim == 2 else gram.diagonal(0, -2, -1).sum(-1)
    if isinstance(lam, MeanEigenvalue):
        lam = lam.of(gram, read_trace(traces.sum()), is_dual)
    if gram.ndim == 2:
        return plan_solve(traces, lam, dtype, dual=is_dual), lam
    # Each group is solved alone, but all in the same arithmetic.
    plan = plan_solve(traces.max(), lam, dtype, dual=is_dual)
    below_all = plan.below_trace and lam <= read_trace(traces.min())
    return plan._replace(below_trace=below_all), lam


def find_weights(
    operator: DesignOperator,
    solution: Solution,
    rows: Tensor,
    t: Tensor,
    anchor: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return W, and the L that gives it: W = AᵀL, or (AᵀA + λI)⁻¹AᵀL.

    L is (AAᵀ + λI)⁻¹T in the dual form, and T itself in the primal one.  With an anchor
    W₀ these are W = W₀ + AᵀL with L = (AAᵀ + λI)⁻¹(T − AW₀), and
    W = (AᵀA + λI)⁻¹(AᵀL + λW₀): the minimum of ‖AW − T‖² + λ‖W − W₀‖².  The gradients
    are the same functions of W and L as without.
    """
    if solution.dual:
        missing = t if anchor is None else t - operator.apply(rows, anchor)
        left = operator.solve_dual(solution.factor, missing)
        weights = operator.apply_transposed(rows, left)
        return weights if anchor is None else weights + anchor, left
    right = operator.apply_transposed(rows, t)
    if anchor is not None:
        right = right + anchor * solution.plan.ridge
    return solution.factor.solve(right), t


def pull_back(
    operator: DesignOperator,
    solution: Solution,
    rows: Tensor,
    d: Tensor,
    needs_right: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Return ∂L/∂T and, if it is needed, the right factor of the last term of ∂L/∂A.

    With D = ∂L/∂W: in the primal form ∂L/∂T = AY for Y = (AᵀA + λI)⁻¹D, and Y is
    the factor; in the dual form ∂L/∂T = (AAᵀ + λI)⁻¹AD, and D − Aᵀ∂L/∂T = λY is.
    """
    if not solution.dual:
        y = solution.factor.solve(d)
        return operator.apply(rows, y), y if needs_right else None
    d_targets = operator.solve_dual(solution.factor, operator.apply(rows, d))
    if not needs_right:
        return d_targets, None
    return d_targets, d - operator.apply_transposed(rows, d_targets)


def pull_back_sums(
    operator: DesignOperator,
    solution: Solution,
    rows: Tensor,
    d_sums: Tensor,
    d: Tensor | None,
) -> Tensor:
    """Return ∂L/∂T in the dual form, from dS on X̄ and the part of ∂L/∂W besides AᵀdS.

    As (AAᵀ + λI)⁻¹AAᵀdS = dS − λ(AAᵀ + λI)⁻¹dS, two products with A are saved.
    """
    right = d_sums * -solution.plan.ridge
    if d is not None:
        right += operator.apply(rows, d)
    return operator.solve_dual(solution.factor, right).add_(d_sums)
