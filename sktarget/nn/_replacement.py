"""Putting target layers in place of ordinary ones."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection

from torch import nn
from torch.nn.parameter import is_lazy

from sktarget.nn._copying import copy_with
from sktarget.nn._ordinary import KEEPS_ITS_WEIGHTS
from sktarget.nn._registry import is_registered, stand_in_for
from sktarget.nn._stand_in import StandIn

__all__ = ["replace_layer", "replace_layers"]


def replace_layers(
    module: nn.Module, in_weight_space: Collection[str]
) -> tuple[nn.Module, dict[str, StandIn]]:
    """Copy a module, with target layers in place of registered ones.

    Those in the submodules named stay as they are.  Returns the copy and its target
    layers, by name.
    """
    stays = _parts_of(module, in_weight_space)
    layers: dict[str, StandIn] = {}
    substitutes: dict[nn.Module, nn.Module] = {}
    kept: list[str] = []
    owners = Counter(
        parameter
        for child in module.modules()
        for _, parameter in child.named_parameters(
            recurse=False, remove_duplicate=False
        )
    )
    for name, child in list(module.named_modules()):
        if child not in stays:
            _refuse_without_weights(name, child)
        own = list(child.parameters(recurse=False))
        if child in stays or not any(p.requires_grad for p in own):
            continue
        reason = _reason_to_keep(child, own, owners)
        layer = None if reason else stand_in_for(child, name)
        if layer is not None:
            # If the whole is in evaluation, a layer must not refuse to run.
            layer.train(child.training and module.training)
            layers[name] = substitutes[child] = layer
        elif max(p.ndim for p in own) > 1 and not isinstance(child, KEEPS_ITS_WEIGHTS):
            kept.append(
                f"{name or 'the module itself'} ({type(child).__name__}, "
                f"{reason or 'which no target layer can stand in for'})"
            )
    if kept:
        warnings.warn(
            "these modules cannot be learnt by targets, so they keep their weights "
            f"and learn in weight space: {', '.join(kept)}",
            stacklevel=4,
        )
    return copy_with(module, substitutes), layers


def _parts_of(module: nn.Module, names: Collection[str]) -> set[nn.Module]:
    """Return the submodules of these names, with all their parts."""
    if isinstance(names, str):
        raise ValueError(
            f"in_weight_space must be a list of names, got {names!r}: give [{names!r}]"
        )
    names = list(names)
    known = dict(module.named_modules(remove_duplicate=False))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"in_weight_space names {unknown[0]!r}, which is no part of the module; "
            f"these are {', '.join(map(repr, filter(None, known)))}"
        )
    return {part for name in names for part in known[name].modules()}


def _reason_to_keep(
    layer: nn.Module, own: list[nn.Parameter], owners: Counter[nn.Parameter]
) -> str | None:
    """Return why no target layer may stand in for a layer, if there is a reason."""
    if any(owners[p] > 1 for p in own):
        return "which shares weights"
    if not all(p.requires_grad for p in own):
        return "frozen in part"
    if any(p.is_complex() for p in own):
        return "whose weights are complex"
    if is_registered(layer) and "forward" in vars(layer):
        return "whose forward has been replaced"
    if is_registered(layer) and _has_parts_of_its_own(layer):
        return "which has been given parts that its kind does not have"
    return None


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


def _has_parts_of_its_own(layer: nn.Module) -> bool:
    """Return whether a layer has submodules, buffers, or parameters of other names."""
    return bool(
        layer._modules
        or layer._buffers
        or any(not name.startswith(("weight", "bias")) for name in layer._parameters)
    )


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
