"""The autograd node that solves a layer for its weights and applies them (Alg. 3).

One node serves every kind of target layer: a :class:`DesignOperator` describes what
the layer does with its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sktarget.linalg import product
from sktarget.nn._activations import Activation
from sktarget.nn._autocast import outside_autocast
from sktarget.nn._operators import DesignOperator, head
from sktarget.nn._solution import (
    Solution,
    find_weights,
    pull_back,
    pull_back_sums,
)

__all__ = ["solve_and_apply", "solve_only"]


# Slices of maps on the way back have about this many bytes.
_SLICE = 1 << 19


# Small networks live by the number of calls, each of a microsecond or two whether or
# not it does anything.  So what would change nothing is not called.
def _in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype=dtype)


def _in_shape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x if x.shape == shape else x.reshape(shape)


def _gradient_of_weights(
    ctx: Any,
    rows: Tensor,
    d_sums: Tensor | None,
    d_weights: Tensor | None,
    of_all_rows: bool,
) -> Tensor | None:
    """Return ∂L/∂W + AᵀdS over all rows, or over those that are not of X̄."""
    operator, n, d = ctx.operator, ctx.n, None
    if d_sums is not None and of_all_rows:
        d = operator.correlate(rows, d_sums)
    elif d_sums is not None and rows.shape[0] > n:
        d = operator.correlate(rows[n:], d_sums[n:])
    if d_weights is None:
        return d
    d_weights = _in_dtype(d_weights, rows.dtype)
    return d_weights if d is None else d + d_weights


def _gradient_of_inputs(
    ctx: Any, d_sums: Tensor | None, d_targets: Tensor, right: Tensor
) -> Tensor:
    """Return ∂L/∂A: dS Wᵀ, and on X̄ (dS − ∂L/∂T)Wᵀ + (T − S)Yᵀ."""
    operator: DesignOperator = ctx.operator
    rows, weights, left, outputs = ctx.saved_tensors
    through = _through(d_sums, d_targets, ctx.optimistic, outputs is not None)
    del d_sums  # Maps are large.
    w_t, right_t = operator.transpose(weights), operator.transpose(right)
    through = operator.adjoint(through, w_t, head(rows, through.shape[0]))
    n = left.shape[0]
    if ctx.residual is None:
        operator.add_adjoint(head(through, n), left, right_t, head(rows, n))
    else:
        for part in _slices(left):
            factor = ctx.residual(left[part], outputs[part])
            operator.add_adjoint(through[part], factor, right_t, rows[part])
    n_missing = rows.shape[0] - through.shape[0]
    if not n_missing:
        return through
    return torch.cat([through, through.new_zeros(n_missing, *through.shape[1:])])


def _through(
    d_sums: Tensor | None, d_targets: Tensor, optimistic: bool, overwrite: bool
) -> Tensor:
    """Return what of ∂L/∂A goes through Wᵀ: dS, on X̄ less ∂L/∂T.

    Optimistically untangled rows of X̄ have no dS there.
    """
    n = d_targets.shape[0]
    if d_sums is None:
        return -d_targets
    if optimistic:
        return torch.cat([-d_targets, d_sums[n:]])
    if n == d_sums.shape[0] and not overwrite:
        return d_sums - d_targets
    through = d_sums if overwrite else d_sums.clone()
    head(through, n).sub_(d_targets)
    return through


def _slices(rows: Tensor) -> list[slice]:
    """Cut rows into slices small enough for what is made of them to stay in cache."""
    n = rows.shape[0]
    size = max(1, n * _SLICE // max(1, rows.nbytes))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class _SolveAndApply(torch.autograd.Function):
    """Forward: W from (A, T) on the rows of X̄; S = AW on all rows, or f(S).

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
        activation: Activation | None,
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
        weights, left = find_weights(operator, solution, fixed, t)
        ctx.residual = None
        # In the dual form T − AW = λ(AAᵀ + λI)⁻¹T, which spares a product; keeping the
        # part behind λ, nothing is ever divided by λ.
        if solution.dual and solution.plan.below_trace:
            sums = t - left * solution.plan.ridge
            if rows.shape[0] > n:
                sums = torch.cat([sums, operator.apply(rows[n:], weights)])
        else:
            sums = operator.apply(rows, weights)
        if not solution.dual:
            if activation is not None and not optimistic and sums.dtype == inputs.dtype:
                # T − S can be had from T and f(S), which are kept in any case.
                ctx.residual = activation.residual
            if needs_inputs and ctx.residual is None:
                left = t - head(sums, n)
        if optimistic:
            sums[:n] = t
        outputs = _in_dtype(sums, inputs.dtype)
        if activation is not None:
            outputs = activation.apply_(outputs)
        ctx.operator, ctx.solution, ctx.optimistic = operator, solution, optimistic
        ctx.shapes, ctx.n = (inputs.shape, targets.shape, inputs.dtype), n
        ctx.activation = activation
        ctx.save_for_backward(
            rows,
            weights,
            left if needs_inputs else None,
            outputs if activation is not None else None,
        )
        ctx.set_materialize_grads(False)
        return outputs, _in_dtype(weights, inputs.dtype)

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_outputs: Tensor | None, d_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        rows, weights, _, outputs = ctx.saved_tensors
        operator, optimistic = ctx.operator, ctx.optimistic
        in_shape, target_shape, dtype = ctx.shapes
        n = ctx.n
        fixed = head(rows, n)
        d_sums = d_outputs
        if d_sums is not None:
            if outputs is not None:
                d_sums = ctx.activation.gradient(d_sums, outputs)
            d_sums = _in_dtype(operator.sums(d_sums), rows.dtype)

        needs_inputs = ctx.needs_input_grad[0]
        from_sums = (
            ctx.solution.dual
            and ctx.solution.plan.below_trace
            and not (needs_inputs or optimistic)
        )
        # The optimistic rows of X̄ bypass AW.
        of_all_rows = not (optimistic or from_sums)
        d = _gradient_of_weights(ctx, rows, d_sums, d_weights, of_all_rows)
        right = None
        if d_sums is not None and from_sums:
            own = head(d_sums, n)
            d_targets = pull_back_sums(operator, ctx.solution, fixed, own, d)
        else:
            d = torch.zeros_like(weights) if d is None else d
            d_targets, right = pull_back(operator, ctx.solution, fixed, d, needs_inputs)

        d_given = d_targets
        if optimistic and d_sums is not None:
            d_given = d_targets + head(d_sums, n)
        d_inputs = None
        if right is not None:
            d_inputs = _gradient_of_inputs(ctx, d_sums, d_targets, right)
            d_inputs = _in_dtype(_in_shape(d_inputs, in_shape), dtype)
        d_given = _in_dtype(_in_shape(d_given, target_shape), dtype)
        return d_inputs, d_given, None, None, None, None


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
        weights, left = find_weights(operator, solution, rows, t)
        ctx.save_for_backward(rows, weights, left)
        return _in_dtype(weights, ctx.dtype)

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(ctx: Any, d_weights: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, left = ctx.saved_tensors
        d = _in_dtype(d_weights, rows.dtype)
        d_targets, right = pull_back(ctx.operator, ctx.solution, rows, d)
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
    activation: Activation | None = None,
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
    activation : Activation, optional
        What to apply to the sums, overwriting them.

    Returns
    -------
    outputs : Tensor of shape (n̄_b + n_b, ...)
        The sums S, or their activations.
    weights : Tensor of shape (columns, outputs)
        The weights W, the bias in row 0 where there is one; differentiable.

    Notes
    -----
    Algs. 2 and 3.  Second derivatives are not offered.
    """
    outputs, weights = _SolveAndApply.apply(  # type: ignore[no-untyped-call]
        inputs, targets, operator, solution_of, optimistic, activation
    )
    # A view made within the node could not be changed in place, as
    # nn.ReLU(inplace=True) does.
    return _in_shape(outputs, (inputs.shape[0], *targets.shape[1:])), weights


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
