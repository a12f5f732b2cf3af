"""The autograd node that solves a layer for its weights and applies them (Alg. 3).

One node serves every kind of target layer: a :class:`DesignOperator` describes what
the layer does with its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sktarget.linalg import (
    RidgeFactor,
    SolvePlan,
    at_least_float32,
    factorise,
    plan_solve,
    product,
)
from sktarget.nn._operators import DesignOperator, head

__all__ = ["Solution", "factorise_design", "solve_and_apply", "solve_only"]


# Small networks live by the number of calls, each of a microsecond or two whether or
# not it does anything.  So what would change nothing is not called.
def _in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype=dtype)


def _in_shape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x if x.shape == shape else x.reshape(shape)


@dataclass(frozen=True)
class Solution:
    """What one factorisation leaves behind: enough to solve again and again.

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


def factorise_design(
    operator: DesignOperator,
    rows: Tensor,
    lam: float | None,
    last: SolvePlan | None = None,
) -> Solution:
    """Factorise the regularised Gramian of the rows of X̄.

    Parameters
    ----------
    operator : DesignOperator
        The products with A.
    rows : Tensor
        What stands for A on X̄.
    lam : float or None
        λ ≥ 0; None stands for the mean eigenvalue of the Gramian.
    last : SolvePlan, optional
        The plan of the same layer before: most likely it needs the same arithmetic.

    Returns
    -------
    Solution
        The factor and the arithmetic to use with it.
    """
    narrow = rows.is_cpu and rows.dtype != torch.float64
    guess = at_least_float32(rows.dtype) if last is None else last.gram_dtype
    gram = operator.gramian(rows, guess if narrow else torch.float64, lam or 0.0)
    trace = gram.trace() if gram.ndim == 2 else gram.diagonal(0, -2, -1).sum()
    if lam is None:
        lam = trace.item() * gram.shape[-1] / gram.numel()
    plan = plan_solve(trace, lam, rows.dtype)
    if plan.gram_dtype != gram.dtype:
        # Narrower too: what comes out must not depend on what came before.
        gram = operator.gramian(rows, plan.gram_dtype, lam)
    factor = factorise(gram, plan.ridge)
    return Solution(factor, operator.is_dual(rows), plan, lam)


def _find_weights(
    operator: DesignOperator, solution: Solution, rows: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """Return W, and what correlates with A to it or its right side.

    That is (AAᵀ + λI)⁻¹T in the dual form, and T itself in the primal one.
    """
    if solution.dual:
        left = operator.solve_dual(solution.factor, t)
        return operator.correlate(rows, left), left
    return solution.factor.solve(operator.correlate(rows, t)), t


def _pull_back(
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
    return d_targets, d - operator.correlate(rows, d_targets)


def _gradient_of_inputs(
    operator: DesignOperator,
    saved: tuple[Tensor, Tensor, Tensor],
    d_sums: Tensor | None,
    d_targets: Tensor,
    right: Tensor,
    optimistic: bool,
) -> Tensor:
    """Return ∂L/∂A: dS Wᵀ, and on X̄ (dS − ∂L/∂T)Wᵀ + (T − S)Yᵀ."""
    rows, weights, left = saved
    n = left.shape[0]
    fixed = head(rows, n)
    through = None if optimistic else d_sums
    less = -d_targets if through is None else head(through, n) - d_targets
    d_fixed = operator.adjoint(less, weights, fixed)
    del less  # It is as large as the layer's outputs.
    operator.add_adjoint(d_fixed, left, right, fixed)
    if n == rows.shape[0]:
        return d_fixed
    if d_sums is None:
        d_rest = d_fixed.new_zeros(rows.shape[0] - n, *d_fixed.shape[1:])
    else:
        d_rest = operator.adjoint(d_sums[n:], weights, rows[n:])
    return torch.cat([d_fixed, d_rest])


class _SolveAndApply(torch.autograd.Function):
    """Forward: W from (A, T) on the rows of X̄; S = AW on all rows.

    Backward (Alg. 3), with D = ∂L/∂W + AᵀdS over all rows:
    ∂L/∂T = AY;  ∂L/∂A = dS Wᵀ, and on X̄ (dS − ∂L/∂T)Wᵀ + (T − S)Yᵀ.
    Optimistic untangling hands on T in place of S on the rows of X̄.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        targets: Tensor,
        operator: DesignOperator,
        solution_of: Callable[[Tensor], Solution],
        optimistic: bool,
    ) -> tuple[Tensor, Tensor]:
        needs_inputs = ctx.needs_input_grad[0]
        rows = operator.rows(inputs)
        n = targets.shape[0] * (rows.shape[0] // inputs.shape[0])
        fixed = head(rows, n)
        solution = solution_of(fixed)
        work_dtype = solution.plan.work_dtype
        if rows.dtype != work_dtype:
            rows = rows.to(work_dtype)
            fixed = head(rows, n)
        t = operator.sums(_in_dtype(targets, work_dtype))
        weights, left = _find_weights(operator, solution, fixed, t)
        # In the dual form T − AW = λ(AAᵀ + λI)⁻¹T, which spares a product; keeping the
        # part behind λ, nothing is ever divided by λ.
        if solution.dual:
            sums = t - left * solution.plan.ridge
            if rows.shape[0] > n:
                sums = torch.cat([sums, operator.apply(rows[n:], weights)])
        else:
            sums = operator.apply(rows, weights)
            if needs_inputs:
                left = t - head(sums, n)
        if optimistic:
            sums[:n] = t
        ctx.operator, ctx.solution, ctx.optimistic = operator, solution, optimistic
        ctx.shapes, ctx.n = (inputs.shape, targets.shape, inputs.dtype), n
        ctx.save_for_backward(rows, weights, left if needs_inputs else None)
        ctx.set_materialize_grads(False)
        return _in_dtype(sums, inputs.dtype), _in_dtype(weights, inputs.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_sums: Tensor | None, d_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        rows, weights, _ = saved = ctx.saved_tensors
        operator, optimistic = ctx.operator, ctx.optimistic
        in_shape, target_shape, dtype = ctx.shapes
        n, n_rows = ctx.n, rows.shape[0]
        fixed = head(rows, n)
        if d_sums is not None:
            d_sums = _in_dtype(operator.sums(d_sums), rows.dtype)

        d = None
        if d_sums is not None and not optimistic:
            d = operator.correlate(rows, d_sums)
        elif d_sums is not None and n_rows > n:
            # The optimistic rows of X̄ bypass AW.
            d = operator.correlate(rows[n:], d_sums[n:])
        if d_weights is not None:
            d_weights = _in_dtype(d_weights, rows.dtype)
            d = d_weights if d is None else d + d_weights
        if d is None:
            d = torch.zeros_like(weights)
        d_targets, right = _pull_back(
            operator, ctx.solution, fixed, d, ctx.needs_input_grad[0]
        )

        d_inputs = None
        if right is not None:
            d_inputs = _gradient_of_inputs(
                operator, saved, d_sums, d_targets, right, optimistic
            )
            d_inputs = _in_dtype(_in_shape(d_inputs, in_shape), dtype)
        if optimistic and d_sums is not None:
            d_targets = d_targets + head(d_sums, n)
        d_targets = _in_dtype(_in_shape(d_targets, target_shape), dtype)
        return d_inputs, d_targets, None, None, None


class _Solve(torch.autograd.Function):
    """W alone, from (A, T): the layer is run in another way.

    In the primal form ∂L/∂A = TYᵀ − A(WYᵀ + YWᵀ), so that T − AW is never formed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        targets: Tensor,
        operator: DesignOperator,
        solution_of: Callable[[Tensor], Solution],
    ) -> Tensor:
        solution = solution_of(rows)
        ctx.operator, ctx.solution, ctx.dtype = operator, solution, rows.dtype
        rows, t = (_in_dtype(x, solution.plan.work_dtype) for x in (rows, targets))
        weights, left = _find_weights(operator, solution, rows, t)
        ctx.save_for_backward(rows, weights, left)
        return _in_dtype(weights, ctx.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_weights: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, left = ctx.saved_tensors
        d = _in_dtype(d_weights, rows.dtype)
        d_targets, right = _pull_back(ctx.operator, ctx.solution, rows, d)
        assert right is not None
        if ctx.solution.dual:
            through = product(d_targets, weights.T)
        else:
            both = product(weights, right.T)
            through = product(rows, both + both.T)
        d_rows = product(left, right.T).sub_(through)
        return _in_dtype(d_rows, ctx.dtype), _in_dtype(d_targets, ctx.dtype), None, None


def solve_and_apply(
    inputs: Tensor,
    targets: Tensor,
    operator: DesignOperator,
    solution_of: Callable[[Tensor], Solution],
    *,
    optimistic: bool = False,
) -> tuple[Tensor, Tensor]:
    """Solve for the weights that meet the targets on X̄; apply them to all rows.

    Parameters
    ----------
    inputs : Tensor of shape (n̄_b + n_b, ...)
        Inputs of the layer; the first n̄_b patterns are those of X̄.
    targets : Tensor of shape (n̄_b, ...)
        Targets T of the layer's sums.
    operator : DesignOperator
        The products with the design matrix.
    solution_of : callable
        Gives the factor for the rows of X̄; a layer whose inputs never change
        may answer from a cache.
    optimistic : bool, default=False
        Hand on T instead of the sums on the rows of X̄ (OCU, Eq. 8).

    Returns
    -------
    sums : Tensor of shape (n̄_b + n_b, ...)
        The sums S.
    weights : Tensor of shape (columns, outputs)
        The weights W, the bias in row 0 where there is one; differentiable.

    Notes
    -----
    Algs. 2 and 3.  Second derivatives are not offered.
    """
    sums, weights = _SolveAndApply.apply(  # type: ignore[no-untyped-call]
        inputs, targets, operator, solution_of, optimistic
    )
    # A view made within the node could not be changed in place, as
    # nn.ReLU(inplace=True) does.
    return _in_shape(sums, (inputs.shape[0], *targets.shape[1:])), weights


def solve_only(
    rows: Tensor,
    targets: Tensor,
    operator: DesignOperator,
    solution_of: Callable[[Tensor], Solution],
) -> Tensor:
    """Solve for the weights that meet the targets; leave it to others to apply them.

    Parameters
    ----------
    rows : Tensor of shape (rows, columns)
        The design matrix A on X̄, written out.
    targets : Tensor of shape (rows, outputs)
        Targets T of the sums.
    operator, solution_of
        As for :func:`solve_and_apply`.

    Returns
    -------
    Tensor of shape (columns, outputs)
        The weights W; differentiable.
    """
    weights: Tensor = _Solve.apply(  # type: ignore[no-untyped-call]
        rows, targets, operator, solution_of
    )
    return weights
