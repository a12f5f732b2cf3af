"""A layer's forward pass, which solves for its weights, and its backward pass (Alg. 3).

The same code serves every kind of target layer: a :class:`DesignOperator` describes
what a layer does with its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sktarget._slices import slice_size
from sktarget.nn._activations import Activation
from sktarget.nn._operators import DesignOperator
from sktarget.nn._skipping import head, in_dtype, in_shape
from sktarget.nn._solution import (
    Solution,
    find_weights,
    pull_back,
    pull_back_sums,
)

__all__ = [
    "Link",
    "SavedState",
    "SavedTensors",
    "run_back",
    "run_link",
]

# Slices of maps in the backward pass have about this many bytes.
_SLICE = 1 << 19


class Link(NamedTuple):
    """A layer of a chain that one node of the graph solves for.

    Attributes
    ----------
    operator : DesignOperator
        The products with the design matrix.
    solution_of : callable
        Returns the factor.  It is called with the layer's inputs, the products with A
        on X̄, and what stands for A there; where inputs never change it may return a
        cached one.
    activation : Activation or None
        What to apply to the sums, overwriting them.
    """

    operator: DesignOperator
    solution_of: Callable[[Tensor, DesignOperator, Tensor], Solution]
    activation: Activation | None = None


class SavedState(NamedTuple):
    """What a layer keeps for the backward pass, besides tensors."""

    operator: DesignOperator
    design: DesignOperator
    solution: Solution
    optimistic: bool
    activation: Activation | None
    # Computes T − S from T and f(S).
    residual: Callable[[Tensor, Tensor], Tensor] | None
    in_shape: torch.Size
    target_shape: torch.Size
    dtype: torch.dtype


class SavedTensors(NamedTuple):
    """The tensors that a layer keeps: A on all rows and on X̄, W, and what gives T − S.

    `left` is T − S itself, or T where T − S is formed from it and `outputs`; in the
    dual form it is (T − S) / λ.
    """

    rows: Tensor
    fixed: Tensor
    weights: Tensor
    left: Tensor | None
    outputs: Tensor | None


# --- Forward pass ---------------------------------------------------------------------


def run_link(
    x: Tensor,
    shape: Sequence[int],
    targets: Tensor,
    link: Link,
    optimistic: bool,
    needs_inputs: bool,
) -> tuple[Tensor, Tensor, SavedState, SavedTensors]:
    """Solve one layer and apply it; return outputs, weights, and what backward needs.

    `shape` is that of the layer's inputs; `x` may hold them in another.
    """
    inputs, activation = in_shape(x, shape), link.activation
    solved = _solve(inputs, targets, link)
    sums, t = _sums(solved), solved.t
    left = residual = None
    if needs_inputs:
        # Only where all of f(S) is kept, in full, does it tell what S was.
        is_kept = not optimistic and sums.dtype == inputs.dtype
        left, residual = _what_gives_residual(
            solved, sums, activation if is_kept else None
        )
    if optimistic:
        sums[: t.shape[0]] = t
    outputs = in_dtype(sums, inputs.dtype)
    if activation is not None:
        outputs = activation.apply_(outputs)
    kept = SavedState(
        operator=solved.operator,
        design=solved.design,
        solution=solved.solution,
        optimistic=optimistic,
        activation=activation,
        residual=residual,
        in_shape=x.shape,
        target_shape=targets.shape,
        dtype=inputs.dtype,
    )
    tensors = SavedTensors(
        rows=solved.rows,
        fixed=solved.fixed,
        weights=solved.weights,
        left=left,
        outputs=outputs if activation is not None else None,
    )
    return outputs, in_dtype(solved.weights, inputs.dtype), kept, tensors


class _Solved(NamedTuple):
    """What a layer was solved with, in its work dtype, and what came out.

    `operator` and `rows` stand for A on all rows, `design` and `fixed` on X̄; `t` is T;
    `left` is the L of :func:`find_weights`.
    """

    operator: DesignOperator
    design: DesignOperator
    solution: Solution
    rows: Tensor
    fixed: Tensor
    t: Tensor
    weights: Tensor
    left: Tensor


def _solve(inputs: Tensor, targets: Tensor, link: Link) -> _Solved:
    """Solve a layer for its weights on the first rows, those of X̄."""
    operator = link.operator
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
    t = operator.sums(in_dtype(targets, work_dtype))
    weights, left = find_weights(design, solution, fixed, t)
    return _Solved(operator, design, solution, rows, fixed, t, weights, left)


def _sums(solved: _Solved) -> Tensor:
    """Return S = AW on all rows; on X̄ it may follow from the factor."""
    operator, rows, n = solved.operator, solved.rows, solved.fixed.shape[0]
    if not solved.solution.gives_residual:
        return operator.apply(rows, solved.weights)
    sums = solved.t - solved.left * solved.solution.plan.ridge
    if rows.shape[0] == n:
        return sums
    return torch.cat([sums, operator.apply(rows[n:], solved.weights)])


def _what_gives_residual(
    solved: _Solved, sums: Tensor, activation: Activation | None
) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor] | None]:
    """Return the tensor to keep for T − S, and how to compute that if it is another.

    `activation` is the f of the f(S) that are kept in any case, if they are.
    """
    if solved.solution.dual:
        return solved.left, None
    if activation is not None and activation.residual is not None:
        return solved.t, activation.residual
    return solved.t - head(sums, solved.t.shape[0]), None


# --- Backward pass --------------------------------------------------------------------


def run_back(
    kept: SavedState,
    tensors: SavedTensors,
    d_outputs: Tensor | None,
    d_weights: Tensor | None,
    needs_inputs: bool,
    overwrite: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return ∂L/∂inputs, if needed, and ∂L/∂T; `d_outputs` may be overwritten."""
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
        d_sums = in_dtype(operator.sums(d_sums), rows.dtype)

    from_sums = kept.solution.gives_residual and not (needs_inputs or optimistic)
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
        d_inputs = _gradient_of_inputs(kept, tensors, through, right)
        d_inputs = in_dtype(in_shape(d_inputs, kept.in_shape), kept.dtype)
    d_given = in_dtype(in_shape(d_given, kept.target_shape), kept.dtype)
    return d_inputs, d_given


def _gradient_of_weights(
    operator: DesignOperator,
    rows: Tensor,
    n: int,
    d_sums: Tensor | None,
    d_weights: Tensor | None,
    of_all_rows: bool,
) -> Tensor | None:
    """Return ∂L/∂W + AᵀdS over all rows, or over those not in X̄."""
    d = None
    if d_sums is not None and of_all_rows:
        d = operator.apply_transposed(rows, d_sums)
    elif d_sums is not None and rows.shape[0] > n:
        d = operator.apply_transposed(rows[n:], d_sums[n:])
    if d_weights is None:
        return d
    d_weights = in_dtype(d_weights, rows.dtype)
    return d_weights if d is None else d + d_weights


def _through(
    d_sums: Tensor | None, d_targets: Tensor, optimistic: bool, overwrite: bool
) -> Tensor:
    """Return the factor of Wᵀ in ∂L/∂A: dS, and on X̄ dS − ∂L/∂T.

    With optimistic untangling it has no dS on the rows of X̄.
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
    kept: SavedState, tensors: SavedTensors, through: Tensor, right: Tensor
) -> Tensor:
    """Return ∂L/∂A: dS Wᵀ, and on X̄ (dS − ∂L/∂T)Wᵀ + (T − S)Yᵀ."""
    operator, (rows, _, weights, left, outputs) = kept.operator, tensors
    assert left is not None
    w_t, right_t = (
        operator.transposed_weights(weights),
        operator.transposed_weights(right),
    )
    d_rows = operator.input_gradient(through, w_t, head(rows, through.shape[0]))
    n = left.shape[0]
    if kept.residual is None:
        operator.add_input_gradient(head(d_rows, n), left, right_t, head(rows, n))
    else:
        assert outputs is not None
        for part in _slices(left):
            factor = kept.residual(left[part], outputs[part])
            operator.add_input_gradient(d_rows[part], factor, right_t, rows[part])
    n_missing = rows.shape[0] - d_rows.shape[0]
    if not n_missing:
        return d_rows
    return torch.cat([d_rows, d_rows.new_zeros(n_missing, *d_rows.shape[1:])])


def _slices(rows: Tensor) -> list[slice]:
    """Cut rows into slices so small that results computed from them stay in cache."""
    n, in_bytes = rows.shape[0], slice_size(_SLICE, rows.device)
    size = max(1, n * in_bytes // max(1, rows.nbytes))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
