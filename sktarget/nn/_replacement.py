"""Putting target layers in place of ordinary ones."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from sktarget._tensors import same_values
from sktarget.nn._layers import (
    StandIn,
    TargetMap,
    is_registered,
    target_layer_for,
)

__all__ = [
    "as_ordinary",
    "copy_with",
    "ordinary_weights",
    "replace_layer",
    "replace_layers",
]

# Layers that keep their weights by design, and learn them by the ordinary gradient.
_KEEPS_ITS_WEIGHTS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.PReLU,
)


# Containers in which a module keeps its parts and hooks.
_TABLES = (dict, OrderedDict, set)

# Attributes in which torch keeps hooks of the forward and backward passes.
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)

# The tables of torch, which hold no traces of passes.
_TORCH_TABLES = frozenset(vars(nn.Module()))


def replace_layers(module: nn.Module) -> tuple[nn.Module, dict[str, StandIn]]:
    """Copy a module, with target layers in place of registered ones.

    Returns the copy and its target layers, by name.
    """
    layers: dict[str, StandIn] = {}
    substitutes: dict[nn.Module, nn.Module] = {}
    kept: list[str] = []
    owners = Counter(
        parameter
        for child in module.modules()
        for parameter in child.parameters(recurse=False)
    )
    for name, child in list(module.named_modules()):
        _refuse_without_weights(name, child)
        own = list(child.parameters(recurse=False))
        if not own or not any(p.requires_grad for p in own):
            continue
        layer, reason = None, "which no target layer can stand in for"
        if any(owners[p] > 1 for p in own):
            reason = "which shares weights"
        elif not all(p.requires_grad for p in own):
            reason = "frozen in part"
        elif is_registered(child) and "forward" in vars(child):
            reason = "whose forward has been replaced"
        elif is_registered(child) and _has_parts_of_its_own(child):
            reason = "which has been given parts that its kind does not have"
        else:
            layer = target_layer_for(child, name)
        if layer is not None:
            # If the whole is in evaluation, a layer must not refuse to run.
            layer.train(child.training and module.training)
            layers[name] = substitutes[child] = layer
        elif max(p.ndim for p in own) > 1 and not isinstance(child, _KEEPS_ITS_WEIGHTS):
            kept.append(
                f"{name or 'the module itself'} ({type(child).__name__}, {reason})"
            )
    if kept:
        warnings.warn(
            "these modules cannot be learnt by targets, so they keep their weights "
            f"and learn in weight space: {', '.join(kept)}",
            stacklevel=4,
        )
    return copy_with(module, substitutes), layers


def _describe(name: str) -> str:
    return f"layer {name!r}" if name else "the module itself"


def _refuse_without_weights(name: str, layer: nn.Module) -> None:
    """Refuse a layer that has no weights yet, or whose weights a hook computes."""
    if any(is_lazy(p) for p in layer.parameters(recurse=False)):
        raise ValueError(
            f"{_describe(name)} ({type(layer).__name__}) has no weights "
            "yet: run the module once, for example on the fixed batch"
        )
    if is_registered(layer) and _computes_weights(layer):
        raise ValueError(
            f"a hook of {_describe(name)} ({type(layer).__name__}) "
            "computes its weights, by pruning or normalising: make them "
            "permanent first (torch.nn.utils.prune.remove, remove_weight_norm, "
            "remove_spectral_norm), or use torch.nn.utils.parametrizations"
        )


def _computes_weights(layer: nn.Module) -> bool:
    """Return whether a hook, such as that of pruning, computes a weight."""
    return any(name.endswith(("_orig", "_g")) for name in layer._parameters)


def as_ordinary(layer: StandIn) -> nn.Module:
    """Make the ordinary layer that a target layer amounts to, hooks and all.

    Parameters
    ----------
    layer : StandIn
        The layer, with weights.

    Returns
    -------
    nn.Module
        A layer of the kind that `layer` stands in for.
    """
    ordinary = layer.realise()
    _inherit(ordinary, layer, {})
    return ordinary


def _inherit(new: nn.Module, old: nn.Module, copies: dict[int, Any]) -> None:
    """Let `new`, which takes the place of `old`, inherit its hooks and attributes.

    Hooks that are methods of a module which is copied become those of the copy;
    `copies` has the copy of each module by the identity of the module.
    """
    for name in _HOOKS:
        for key, hook in getattr(old, name).items():
            getattr(new, name)[key] = _rebound(hook, copies)
    new._is_full_backward_hook = old._is_full_backward_hook
    for name in getattr(old, "__constants__", ()):
        if not hasattr(new, name) and hasattr(old, name):
            setattr(new, name, getattr(old, name))
    given = copy.deepcopy(_given(old), copies)
    if isinstance(new, StandIn):
        new.given = given
        given = {k: v for k, v in given.items() if not hasattr(new, k)}
        new.shown = frozenset(given)
    for name, value in given.items():
        setattr(new, name, value)


def _rebound(hook: Any, copies: dict[int, Any]) -> Any:
    owner = hook.__self__ if inspect.ismethod(hook) else None
    if isinstance(owner, nn.Module) and id(owner) in copies:
        return MethodType(hook.__func__, copies[id(owner)])
    return hook


def _given(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes that a user has given to a layer."""
    if isinstance(layer, StandIn):
        return dict(layer.given) | {name: getattr(layer, name) for name in layer.shown}
    usual = _usual_names(type(layer))  # type: ignore[arg-type]
    return {name: value for name, value in vars(layer).items() if name not in usual}


@functools.cache
def _usual_names(kind: Callable[..., nn.Module]) -> frozenset[str]:
    """Return the names of the attributes that all layers of a registered kind have."""
    layer = kind(1, 1, 1, device="meta")
    return frozenset(vars(layer)) | {*getattr(layer, "__constants__", ())}


def _has_parts_of_its_own(layer: nn.Module) -> bool:
    """Return whether a layer has submodules, buffers, or parameters of other names."""
    return bool(
        layer._modules
        or layer._buffers
        or any(not name.startswith(("weight", "bias")) for name in layer._parameters)
    )


def copy_with(
    module: nn.Module,
    substitutes: Mapping[nn.Module, nn.Module],
    left_out: Tensor | None = None,
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

    Returns
    -------
    nn.Module
        The copy.  What passes have left in it is without its graph.
    """
    copies: dict[int, Any] = {id(old): new for old, new in substitutes.items()}
    nothing = torch.empty(0, device="cpu")
    for part in module.modules():
        # A module has a dozen empty tables of hooks.  Copied one call each, they would
        # take more time than everything that is in use.
        copies.update(
            (id(value), type(value)())
            for value in vars(part).values()
            if type(value) in _TABLES and not value
        )
        for kept in _kept_tensors(part):
            if left_out is not None and _begins_with(kept, left_out):
                copies[id(kept)] = nothing
            elif not kept.is_leaf:  # Torch copies no others.
                copies[id(kept)] = kept.detach().clone()
    copied: nn.Module = copy.deepcopy(module, copies)
    for old, new in substitutes.items():
        _inherit(new, old, copies)
    if any(copy_ is nothing for copy_ in copies.values()):
        _put_none_for(nothing, copied)
    return copied


def _attributes(part: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that are not torch's own tables."""
    return {
        name: value for name, value in vars(part).items() if name not in _TORCH_TABLES
    }


def _kept_tensors(part: nn.Module) -> list[Tensor]:
    """List the tensors that a module has as attributes, or within lists and the like.

    Parameters and buffers are none of them.
    """
    return [
        leaf
        for value in _attributes(part).values()
        if isinstance(value, (Tensor, list, tuple, dict))
        for leaf in tree_leaves(value)
        if isinstance(leaf, Tensor)
    ]


def _begins_with(kept: Tensor, rows: Tensor) -> bool:
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


def replace_layer(root: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put a layer in the place of a submodule, wherever that stands.

    Parameters
    ----------
    root : nn.Module
        The module to change.
    name : str
        Path of the submodule; empty for `root` itself.
    layer : nn.Module
        What takes its place.

    Returns
    -------
    nn.Module
        The root, or `layer` if that takes its place.

    Examples
    --------
    >>> replace_layer(nn.Sequential(nn.Tanh()), "0", nn.ReLU())
    Sequential(
      (0): ReLU()
    )
    """
    if not name:
        return layer
    old = root.get_submodule(name)
    for parent in list(root.modules()):
        for attribute, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, attribute, layer)
    return root


def ordinary_weights(module: nn.Module) -> list[nn.Parameter]:
    """List the weights learnt in weight space that weight decay applies to.

    Parameters
    ----------
    module : nn.Module
        An ordinary network, or one in target space, where weights that are solved for
        are not parameters.

    Returns
    -------
    list of nn.Parameter
        Parameters with two axes or more, except those of embeddings and norms, which
        are not linear maps.
    """
    found = (
        parameter
        for layer in module.modules()
        if not isinstance(layer, (TargetMap, *_KEEPS_ITS_WEIGHTS))
        for parameter in layer.parameters(recurse=False)
        if parameter.ndim > 1
    )
    return list(dict.fromkeys(found))  # Layers may share one.
