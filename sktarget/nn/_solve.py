"""The autograd node that solves a layer for its weights and applies them (Alg. 3).

One node serves every kind of target layer, and several of them in a chain: a
:class:`DesignOperator` describes what a layer does with its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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

__all__ = ["Link", "solve_and_apply", "solve_only"]


# Slices of maps on the way back have about this many bytes.
_SLICE = 1 << 19


# Small networks live by the number of calls, each of a microsecond or two whether or
# not it does anything.  So what would change nothing is not called.
def _in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype=dtype)


def _in_shape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x if x.shape == shape else x.reshape(shape)


class Link(NamedTuple):
    """A layer of a chain that one node of the graph solves for.

    Attributes
    ----------
    targets : Tensor of shape (n̄_b, ...)
        Targets T of the layer's sums.
    operator : DesignOperator
        The products with the design matrix.
    solution_of : callable
        Gives the factor, from the layer's inputs, the operator to multiply by what
        stands for A on X̄, and that; where inputs never change it may answer from a
        cache.
    activation : Activation or None
        What to apply to the sums, overwriting them.
    """

    targets: Tensor
    operator: DesignOperator
    solution_of: Callable[[Tensor, DesignOperator, Tensor], Solution]
    activation: Activation | None = None


class _Kept(NamedTuple):
    """What a layer keeps for the way back, beside tensors."""

    operator: DesignOperator
    design: DesignOperator
    solution: Solution
    optimistic: bool
    activation: Activation | None
    # Makes T − S of T and f(S).
    residual: Callable[[Tensor, Tensor], Tensor] | None
    in_shape: torch.Size
    target_shape: torch.Size
    dtype: torch.dtype


class _Tensors(NamedTuple):
    """The tensors that a layer keeps: A on all rows and on X̄, W, what (T − S) is of."""

    rows: Tensor
    fixed: Tensor
    weights: Tensor
    left: Tensor | None
    outputs: Tensor | None


# --- On the way there -----------------------------------------------------------------


def _run_link(
    x: Tensor,
    shape: Sequence[int],
    targets: Tensor,
    link: Link,
    optimistic: bool,
    needs_inputs: bool,
) -> tuple[Tensor, Tensor, _Kept, _Tensors]:
    """Give outputs, weights, and what the way back needs; inputs are x, of a shape."""
    inputs, operator, activation = _in_shape(x, shape), link.operator, link.activation
    rows = operator.rows(inputs)
    n = targets.shape[0] * (rows.shape[0] // inputs.shape[0])
    design, fixed = operator.design(rows, n)
    solution = link.solution_of(inputs, design, fixed)
    work_dtype = solution.plan.work_dtype
    if rows.dtype != work_dtype:
        rows = rows.to(work_dtype)
        design, fixed = operator.design(rows, n)
    if n == rows.shape[0]:  # Then one matrix serves both.
        operator, rows = design, fixed
    t = operator.sums(_in_dtype(targets, work_dtype))
    weights, left = find_weights(design, solution, fixed, t)
    residual = None
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
            residual = activation.residual
        if needs_inputs and residual is None:
            left = t - head(sums, n)
    if optimistic:
        sums[:n] = t
    outputs = _in_dtype(sums, inputs.dtype)
    if activation is not None:
        outputs = activation.apply_(outputs)
    kept = _Kept(
        operator,
        design,
        solution,
        optimistic,
        activation,
        residual,
        x.shape,
        targets.shape,
        inputs.dtype,
    )
    tensors = _Tensors(
        rows,
        fixed,
        weights,
        left if needs_inputs else None,
        outputs if activation is not None else None,
    )
    return outputs, _in_dtype(weights, inputs.dtype), kept, tensors


# --- On the way back ------------------------------------------------------------------


def _run_back(
    kept: _Kept,
    tensors: _Tensors,
    d_outputs: Tensor | None,
    d_weights: Tensor | None,
    needs_inputs: bool,
    overwrite: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Give ∂L/∂inputs, if it is needed, and ∂L/∂T; `d_outputs` may be overwritten."""
    if d_outputs is None and d_weights is None:
        return None, None
    operator, optimistic, rows = kept.operator, kept.optimistic, tensors.rows
    n = tensors.fixed.shape[0]
    d_sums = d_outputs
    if d_sums is not None:
        if kept.activation is not None:
            assert tensors.outputs is not None
            into = d_sums if overwrite else None
            d_sums = kept.activation.gradient(d_sums, tensors.outputs, into)
            overwrite = True
        d_sums = _in_dtype(operator.sums(d_sums), rows.dtype)

    from_sums = (
        kept.solution.dual
        and kept.solution.plan.below_trace
        and not (needs_inputs or optimistic)
    )
    # The optimistic rows of X̄ bypass AW.
    of_all_rows = not (optimistic or from_sums)
    d = _gradient_of_weights(operator, rows, n, d_sums, d_weights, of_all_rows)
    right = None
    if d_sums is not None and from_sums:
        own = head(d_sums, n)
        d_targets = pull_back_sums(kept.design, kept.solution, tensors.fixed, own, d)
    else:
        d = torch.zeros_like(tensors.weights) if d is None else d
        d_targets, right = pull_back(
            kept.design, kept.solution, tensors.fixed, d, needs_inputs
        )

    d_given = d_targets
    if optimistic and d_sums is not None:
        d_given = d_targets + head(d_sums, n)
    d_inputs = None
    if right is not None:
        through = _through(d_sums, d_targets, optimistic, overwrite)
        del d_sums  # Maps are large.
        d_inputs = _gradient_of_inputs(kept, tensors, through, right)
        d_inputs = _in_dtype(_in_shape(d_inputs, kept.in_shape), kept.dtype)
    d_given = _in_dtype(_in_shape(d_given, kept.target_shape), kept.dtype)
    return d_inputs, d_given


def _gradient_of_weights(
    operator: DesignOperator,
    rows: Tensor,
    n: int,
    d_sums: Tensor | None,
    d_weights: Tensor | None,
    of_all_rows: bool,
) -> Tensor | None:
    """Return ∂L/∂W + AᵀdS over all rows, or over those that are not of X̄."""
    d = None
    if d_sums is not None and of_all_rows:
        d = operator.correlate(rows, d_sums)
    elif d_sums is not None and rows.shape[0] > n:
        d = operator.correlate(rows[n:], d_sums[n:])
    if d_weights is None:
        return d
    d_weights = _in_dtype(d_weights, rows.dtype)
    return d_weights if d is None else d + d_weights


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


def _gradient_of_inputs(
    kept: _Kept, tensors: _Tensors, through: Tensor, right: Tensor
) -> Tensor:
    """Return ∂L/∂A: dS Wᵀ, and on X̄ (dS − ∂L/∂T)Wᵀ + (T − S)Yᵀ."""
    operator, (rows, _, weights, left, outputs) = kept.operator, tensors
    assert left is not None
    w_t, right_t = operator.transpose(weights), operator.transpose(right)
    through = operator.adjoint(through, w_t, head(rows, through.shape[0]))
    n = left.shape[0]
    if kept.residual is None:
        operator.add_adjoint(head(through, n), left, right_t, head(rows, n))
    else:
        assert outputs is not None
        for part in _slices(left):
            factor = kept.residual(left[part], outputs[part])
            operator.add_adjoint(through[part], factor, right_t, rows[part])
    n_missing = rows.shape[0] - through.shape[0]
    if not n_missing:
        return through
    return torch.cat([through, through.new_zeros(n_missing, *through.shape[1:])])


def _slices(rows: Tensor) -> list[slice]:
    """Cut rows into slices small enough for what is made of them to stay in cache."""
    n = rows.shape[0]
    size = max(1, n * _SLICE // max(1, rows.nbytes))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


# --- The nodes ------------------------------------------------------------------------


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
        links: Sequence[Link],
        optimistic: bool,
        shortcuts: bool,
        recorded: bool,
        *targets: Tensor,
    ) -> tuple[Tensor, ...]:
        needs, x, shape = recorded and ctx.needs_input_grad[0], inputs, inputs.shape
        needs_inputs, kept, matrices = [], [], []
        tensors: list[Tensor | None] = []
        for k, (t, link) in enumerate(zip(targets, links, strict=True)):
            if k > 0 and shortcuts:
                x = torch.cat([inputs, x], -1)
                shape = x.shape
            elif k > 0:
                shape = torch.Size((shape[0], *targets[k - 1].shape[1:]))
            inputs = x
            x, matrix, own, own_tensors = _run_link(
                x, shape, t, link, optimistic, needs
            )
            matrices.append(matrix)
            kept.append(own)
            tensors.extend(own_tensors)
            needs_inputs.append(needs)
            needs = needs or (recorded and ctx.needs_input_grad[5 + k])
        ctx.kept, ctx.needs_inputs, ctx.shortcuts = kept, needs_inputs, shortcuts
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return x, *matrices

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_outputs: Tensor | None, *d_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        d, saved, d_targets = d_outputs, ctx.saved_tensors, []
        size, last = len(_Tensors._fields), len(ctx.kept) - 1
        for k in range(last, -1, -1):
            kept, needs_inputs = ctx.kept[k], ctx.needs_inputs[k]
            tensors, d_past = _Tensors(*saved[size * k : size * (k + 1)]), None
            if ctx.shortcuts and k < last and d is not None:
                n_in = kept.in_shape[-1]
                d_past, d = d[:, :n_in], d[:, n_in:]
            # What one layer hands to the one before is not seen by anybody else.
            d, d_own = _run_back(kept, tensors, d, d_weights[k], needs_inputs, k < last)
            if d_past is not None and needs_inputs:
                d = d_past if d is None else d_past.add_(d)
            d_targets.append(d_own)
        return d, None, None, None, None, *reversed(d_targets)


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
        solution_of: Callable[[DesignOperator, Tensor], Solution],
    ) -> Tensor:
        solution = solution_of(operator, rows)
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
    links: Sequence[Link],
    *,
    optimistic: bool = False,
    shortcuts: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Solve for the weights that meet the targets on X̄; apply them to all rows.

    Parameters
    ----------
    inputs : Tensor of shape (n̄_b + n_b, ...)
        Inputs of the first layer; the first n̄_b patterns are those of X̄.
    links : sequence of Link
        The layers, each fed with what the one before puts out.
    optimistic : bool, default=False
        Hand on T instead of the sums on the rows of X̄ (OCU, Eq. 8).
    shortcuts : bool, default=False
        Feed each with what the one before takes, too, to the left of what it puts out;
        inputs and targets then have two axes.

    Returns
    -------
    outputs : Tensor of shape (n̄_b + n_b, ...)
        The sums S of the last layer, or their activations.
    weights : tuple of Tensor of shape (columns, outputs)
        The weights W of each, the bias in row 0 where there is one; differentiable.

    Notes
    -----
    Algs. 2 and 3.  Second derivatives are not offered.  One node serves a whole chain:
    calls count in small networks, and gradients that only the chain sees are
    overwritten.
    """
    outputs, *weights = _SolveAndApply.apply(  # type: ignore[no-untyped-call]
        inputs,
        links,
        optimistic,
        shortcuts,
        torch.is_grad_enabled(),
        *[link.targets for link in links],
    )
    # A view made within the node could not be changed in place, as
    # nn.ReLU(inplace=True) does.
    shape = (inputs.shape[0], *links[-1].targets.shape[1:])
    return _in_shape(outputs, shape), tuple(weights)


def solve_only(
    rows: Tensor,
    targets: Tensor,
    operator: DesignOperator,
    solution_of: Callable[[DesignOperator, Tensor], Solution],
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
