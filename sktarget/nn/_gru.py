"""GRU layers, step by step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sktarget._linear import affine
from sktarget._tanh import tanh_
from sktarget.linalg import add_product, product
from sktarget.nn._backward import backward_once
from sktarget.nn._cells import GRUCell
from sktarget.nn._running_order import earlier, in_order, resized, shared
from sktarget.nn._skipping import head

__all__ = ["run_gru"]


def run_gru(
    cell: GRUCell, matrix: Tensor, rows: Tensor, sizes: list[int], *, reverse: bool
) -> Tensor:
    """Run one direction of one layer.

    Works like :func:`~sktarget.nn._elman.run_elman`, with the same arguments.
    """
    gates, u, v = map(cell.rows_of, cell.blocks_of(matrix))
    sums, candidate = (affine(rows, part.inward.T, part.bias) for part in (gates, u))
    context = torch.cat([gates.context, v.context], 1)
    bias = matrix.new_zeros(cell.n_hidden) if v.bias is None else v.bias
    states: Tensor = _Steps.apply(  # type: ignore[no-untyped-call]
        sums, candidate, context, bias, sizes, reverse
    )[0]
    return states


class _Steps(torch.autograd.Function):
    """``h(t) = n + z (h(t − 1) − n)`` with ``n = tanh(u + r v)`` for all steps.

    The sums of r and z are ``s(t) + h(t − 1) W``, and v is ``h(t − 1) W + b``.  The
    gradients of these sums, of v and of u are ∂L/∂h(t), later steps included, times
    factors that are formed for all steps at once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sums: Tensor,
        candidate: Tensor,
        weight: Tensor,
        bias: Tensor,
        sizes: list[int],
        reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_hidden = len(bias)
        v, h = bias.repeat(len(sums), 1), torch.empty_like(candidate)
        r, z = sums.view(-1, 2, n_hidden).unbind(1)
        # Contiguous, so that they are not copied at every step.
        to_gates = weight[:, : 2 * n_hidden].contiguous()
        to_v = weight[:, 2 * n_hidden :].contiguous()
        last = h[:0]
        parts = (in_order(x, sizes, reverse) for x in (sums, r, z, candidate, v, h))
        for gates, r_now, z_now, n_now, v_now, h_now in zip(*parts, strict=True):
            last = resized(last, h_now.shape[0])
            add_product(gates, last, to_gates)
            add_product(v_now, last, to_v)
            gates.sigmoid_()
            tanh_(n_now.addcmul_(r_now, v_now))
            last = torch.lerp(n_now, last, z_now, out=h_now)
        ctx.mark_dirty(sums, candidate)
        ctx.save_for_backward(sums, candidate, v, h, weight)
        ctx.sizes, ctx.reverse = sizes, reverse
        ctx.set_materialize_grads(False)
        return h, sums, candidate

    @staticmethod
    @backward_once
    def backward(ctx: Any, d_h: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if d_h is None:
            return (None,) * 6
        sums, n, v, h, weight = ctx.saved_tensors
        sizes, reverse, back = ctx.sizes, ctx.reverse, weight.T
        k = h.shape[1]
        r, z = sums.view(-1, 2, k).unbind(1)
        before = earlier(h, sizes, reverse)
        d_u = (1 - n * n).mul_(1 - z)
        d = h.new_empty(len(h), 3, k)
        torch.mul(d_u, r, out=d[:, 2])
        torch.mul(d[:, 2], v, out=d[:, 0]).mul_(1 - r)
        torch.mul(before - n, z, out=d[:, 1]).mul_(1 - z)
        delta = d_h.clone(memory_format=torch.contiguous_format)
        factors, flat, kept, steps = (
            in_order(x, sizes, not reverse) for x in (d, d.view(-1, 3 * k), z, delta)
        )
        factors[0].mul_(steps[0][:, None])
        for t, ((after, now), m) in enumerate(
            zip(pairwise(steps), shared(sizes, not reverse), strict=True)
        ):
            head(now, m).addcmul_(head(after, m), head(kept[t], m))
            add_product(head(now, m), head(flat[t], m), back)
            factors[t + 1].mul_(now[:, None])
        d_weight = product(before.T, d.view(-1, 3 * k))
        d_sums = d[:, :2].reshape(-1, 2 * k)
        return d_sums, d_u.mul_(delta), d_weight, d[:, 2].sum(0), None, None
