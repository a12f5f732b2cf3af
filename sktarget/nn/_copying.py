"""Copies of modules: with other parts in them, and without some of their tensors."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from sktarget._tensors import same_values
from sktarget.nn._inheritance import inherit

__all__ = ["copy_with", "kept_tensors"]

# Containers in which a module keeps its parts and hooks.
_TABLES = (dict, OrderedDict, set)

# The tables of torch, which hold no traces of passes.
_TORCH_TABLES = frozenset(vars(nn.Module()))


def copy_with(
    module: nn.Module,
    substitutes: Mapping[nn.Module, nn.Module],
    left_out: Tensor | None = None,
    but: Iterable[Tensor] = (),
) -> nn.Module:
    """Copy a module, with substitutes for submodules, which are then not copied.

    Parameters
    ----------
    module : nn.Module
        The module.
    substitutes : mapping of nn.Module to nn.Module
        What takes the place of which submodule.
    left_out : Tensor, optional
        Rows not to copy: None takes their place where a pass has left them, alone or
        with others below, as an attribute of a module.
    but : iterable of Tensor
        Attributes of modules to copy all the same, as they do not come from passes.

    Returns
    -------
    nn.Module
        The copy.  What passes have left in it is without its graph.
    """
    copies: dict[int, Any] = {id(old): new for old, new in substitutes.items()}
    nothing, to_copy = torch.empty(0, device="cpu"), set(map(id, but))
    for part in module.modules():
        # A module has a dozen empty tables of hooks.  Copied one call each, they would
        # take more time than everything that is in use.
        copies.update(
            (id(value), type(value)())
            for value in vars(part).values()
            if type(value) in _TABLES and not value
        )
        for kept in _kept_by(part):
            may_go = id(kept) not in to_copy
            if left_out is not None and may_go and _holds(kept, left_out):
                copies[id(kept)] = nothing
            elif not kept.is_leaf:  # Torch copies no others.
                copies[id(kept)] = kept.detach().clone()
    copied: nn.Module = copy.deepcopy(module, copies)
    for old, new in substitutes.items():
        inherit(new, old, copies)
    if any(copy_ is nothing for copy_ in copies.values()):
        _put_none_for(nothing, copied)
    return copied


def _attributes(part: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that are not torch's own tables."""
    return {
        name: value for name, value in vars(part).items() if name not in _TORCH_TABLES
    }


def kept_tensors(module: nn.Module) -> list[Tensor]:
    """List the tensors that a module and its parts have as attributes.

    Parameters
    ----------
    module : nn.Module
        The module.

    Returns
    -------
    list of Tensor
        Also those within lists and the like, but no parameters and no buffers.
    """
    return [kept for part in module.modules() for kept in _kept_by(part)]


def _kept_by(part: nn.Module) -> list[Tensor]:
    return [
        leaf
        for value in _attributes(part).values()
        if isinstance(value, (Tensor, list, tuple, dict))
        for leaf in tree_leaves(value)
        if isinstance(leaf, Tensor)
    ]


def _holds(kept: Tensor, rows: Tensor) -> bool:
    """Return whether a tensor shares memory with rows, or with a batch below these."""
    kept = kept if kept._base is None else kept._base
    if kept.layout is not torch.strided or kept.device != rows.device:
        return False
    if kept.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr():
        return kept.numel() > 0
    return (
        kept.ndim == rows.ndim
        and kept.dtype == rows.dtype
        and same_values(kept[: len(rows)], rows)
    )


def _put_none_for(nothing: Tensor, module: nn.Module) -> None:
    """Put None in the place of a tensor wherever modules keep it."""
    for part in module.modules():
        for name, value in _attributes(part).items():
            if any(leaf is nothing for leaf in tree_leaves(value)):
                kept = tree_map(lambda leaf: None if leaf is nothing else leaf, value)
                vars(part)[name] = kept
