"""X̄ and X as one batch, X̄ on top: whether that is possible, and how to split it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["has_rows", "is_finite", "same_memory", "starts_as", "without_first"]


def same_memory(x: Tensor, fixed: Tensor) -> bool:
    """Return whether two tensors are one, or identical views of the same memory."""
    return x is fixed or (
        x.data_ptr() == fixed.data_ptr()
        and x.shape == fixed.shape
        and x.stride() == fixed.stride()
        and x.dtype == fixed.dtype
        and x.is_neg() == fixed.is_neg()
    )


def has_rows(outputs: Any, n: int) -> bool:
    """Return whether all outputs of a module are tensors with `n` rows."""
    if isinstance(outputs, Tensor):  # Walking a tree of one leaf is slow.
        return outputs.ndim > 0 and len(outputs) == n
    leaves = [leaf for leaf in tree_leaves(outputs) if leaf is not None]
    return len(leaves) > 0 and all(
        isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == n for leaf in leaves
    )


def is_finite(outputs: Any) -> bool:
    """Return whether all tensors in a module's outputs hold finite numbers."""
    tensors = (leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor))
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def without_first(outputs: Any, n: int) -> Any:
    """Leave out the first `n` rows of all tensors in a module's outputs."""
    if isinstance(outputs, Tensor):
        return outputs[n:]
    return tree_map(lambda out: out[n:] if isinstance(out, Tensor) else out, outputs)


def starts_as(outputs: Any, alone: Any) -> bool:
    """Return whether the first rows of one result equal another, up to rounding.

    Parameters
    ----------
    outputs : Tensor, or what a module returns
        Values for some rows, with others below them.
    alone : Tensor, or what a module returns
        Values for the former rows alone.

    Returns
    -------
    bool
        Whether they agree, up to the root of the machine epsilon.

    Examples
    --------
    >>> starts_as(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 2.0]))
    True
    >>> starts_as(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([1.0, 2.0]))
    False
    """
    longer, own = tree_leaves(outputs), tree_leaves(alone)
    return len(longer) == len(own) and all(map(_begins_with, longer, own))


def _begins_with(rows: Any, own: Any) -> bool:
    if rows is None or own is None:
        return rows is own
    first = rows[: len(own)]
    if first.shape != own.shape:
        return False
    if not own.is_floating_point() or own.numel() == 0:
        return bool(torch.equal(first, own))
    error = float(torch.finfo(own.dtype).eps) ** 0.5
    return bool(((first - own).abs() <= error * own.abs().max()).all())
