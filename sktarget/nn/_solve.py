"""The autograd nodes that solve layers for their weights, and apply them (Alg. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sktarget.linalg import product
from sktarget.nn._backward import backward_once
from sktarget.nn._link import Link, SavedTensors, run_back, run_link
from sktarget.nn._operators import DesignOperator
from sktarget.nn._skipping import in_dtype, in_shape
from sktarget.nn._solution import Solution, find_weights, pull_back

__all__ = ["solve_and_apply", "solve_only"]


class _SolveAndApply(torch.autograd.Function):
    """Forward: W from (A, T) on the rows of X̄; S = AW on all rows, or f(S).

    Backward (Alg. 3), with D = ∂L/∂W + AᵀdS over all rows:
    ∂L/∂T = AY;  ∂L/∂A = dS Wᵀ, and on X̄ (dS − ∂L/∂T)Wᵀ + (T − S)Yᵀ.
    Optimistic untangling passes on T in place of S on the rows of X̄.
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
        needs = recorded and ctx.needs_input_grad[0]
        of_targets = ctx.needs_input_grad[-len(targets) :]
        x = previous = inputs
        shape = inputs.shape
        needs_inputs, kept, matrices = [], [], []
        tensors: list[Tensor | None] = []
        for k, (t, link) in enumerate(zip(targets, links, strict=True)):
            if k > 0 and shortcuts:
                x = torch.cat([previous, x], -1)
                shape = x.shape
            elif k > 0:
                shape = torch.Size((shape[0], *targets[k - 1].shape[1:]))
            previous = x
            x, matrix, own, own_tensors = run_link(x, shape, t, link, optimistic, needs)
            matrices.append(matrix)
            kept.append(own)
            tensors.extend(own_tensors)
            needs_inputs.append(needs)
            needs = needs or (recorded and of_targets[k])
        ctx.kept, ctx.needs_inputs, ctx.shortcuts = kept, needs_inputs, shortcuts
        ctx.save_for_backward(*tensors, matrices[-1])
        ctx.set_materialize_grads(False)
        return x, *matrices

    @staticmethod
    @backward_once
    def backward(
        ctx: Any, d_outputs: Tensor | None, *d_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        d, saved, d_targets = d_outputs, ctx.saved_tensors, []
        size, last = len(SavedTensors._fields), len(ctx.kept) - 1
        for k in range(last, -1, -1):
            kept, needs_inputs = ctx.kept[k], ctx.needs_inputs[k]
            tensors, d_past = SavedTensors(*saved[size * k : size * (k + 1)]), None
            if ctx.shortcuts and k < last and d is not None:
                n_in = kept.in_shape[-1]
                d_past, d = d[:, :n_in], d[:, n_in:]
            # A gradient passed on within the chain has no other reader: overwrite it.
            d, d_own = run_back(kept, tensors, d, d_weights[k], needs_inputs, k < last)
            if d_past is not None and needs_inputs:
                d = d_past if d is None else d_past.add_(d)
            d_targets.append(d_own)
        return d, None, None, None, None, *reversed(d_targets)


class _Solve(torch.autograd.Function):
    """W alone, from (A, T), for layers that are run in another way.

    In the primal form ∂L/∂A = TYᵀ − A(WYᵀ + YWᵀ), so that T − AW is never formed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        targets: Tensor,
        operator: DesignOperator,
        factorise: Callable[[DesignOperator, Tensor], Solution],
        anchor: Tensor | None,
    ) -> Tensor:
        solution = factorise(operator, rows)
        ctx.operator, ctx.solution, ctx.dtype = operator, solution, rows.dtype
        work_dtype = solution.plan.work_dtype
        rows, t = in_dtype(rows, work_dtype), in_dtype(targets, work_dtype)
        if anchor is not None:
            anchor = in_dtype(anchor, work_dtype)
        weights, left = find_weights(operator, solution, rows, t, anchor)
        matrix = in_dtype(weights, ctx.dtype)
        ctx.save_for_backward(rows, weights, left, matrix)
        return matrix

    @staticmethod
    @backward_once
    def backward(ctx: Any, d_weights: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, left, _ = ctx.saved_tensors
        d = in_dtype(d_weights, rows.dtype)
        d_targets, right = pull_back(ctx.operator, ctx.solution, rows, d)
        assert right is not None
        if not ctx.needs_input_grad[0]:
            return None, in_dtype(d_targets, ctx.dtype), None, None, None
        if ctx.solution.dual:
            through = product(d_targets, weights.T)
        else:
            both = product(weights, right.T)
            through = product(rows, both + both.T)
        d_rows = product(left, right.T).sub_(through)
        d_given = in_dtype(d_rows, ctx.dtype), in_dtype(d_targets, ctx.dtype)
        return *d_given, None, None, None


def solve_and_apply(
    inputs: Tensor,
    links: Sequence[Link],
    targets: Sequence[Tensor],
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
        The layers, each fed with the output of the one before.
    targets : sequence of Tensor of shape (n̄_b, ...)
        Targets T of the sums of each.
    optimistic : bool, default=False
        Pass on T instead of the sums on the rows of X̄ (OCU, Eq. 8).
    shortcuts : bool, default=False
        Feed each with the input of the one before, too, to the left of its output;
        inputs and targets must then have two axes.

    Returns
    -------
    outputs : Tensor of shape (n̄_b + n_b, ...)
        The sums S of the last layer, or their activations.
    weights : tuple of Tensor of shape (columns, outputs)
        The weights W of each, the bias in row 0 where there is one; differentiable.

    Notes
    -----
    Algs. 2 and 3.  Second derivatives are not supported.  One node serves a whole
    chain: this saves calls, which count in small networks, and gradients that only the
    chain sees are overwritten.
    """
    outputs, *weights = _SolveAndApply.apply(  # type: ignore[no-untyped-call]
        inputs,
        links,
        optimistic,
        shortcuts,
        torch.is_grad_enabled(),
        *targets,
    )
    # A view made within the node could not be changed in place, as
    # nn.ReLU(inplace=True) does.
    shape = (inputs.shape[0], *targets[-1].shape[1:])
    return in_shape(outputs, shape), tuple(weights)


def solve_only(
    rows: Tensor,
    targets: Tensor,
    operator: DesignOperator,
    factorise: Callable[[DesignOperator, Tensor], Solution],
    anchor: Tensor | None = None,
) -> Tensor:
    """Solve for the weights that meet the targets, without applying them.

    Parameters
    ----------
    rows : Tensor of shape (rows, columns)
        The design matrix A on X̄, written out.
    targets : Tensor of shape (rows, outputs)
        Targets T of the sums.
    operator : DesignOperator
        The products with A.
    factorise : callable
        Returns the factor, given the operator and the rows.
    anchor : Tensor of shape (columns, outputs), optional
        The weights W₀ that the ridge pulls to, a constant; by default zero.

    Returns
    -------
    Tensor of shape (columns, outputs)
        The weights W; differentiable.
    """
    weights: Tensor = _Solve.apply(  # type: ignore[no-untyped-call]
        rows, targets, operator, factorise, anchor
    )
    return weights
