"""Putting target layers in the place of ordinary ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from sktarget.nn._layers import StandIn, TargetMap, target_layer_for

__all__ = ["copy_with", "ordinary_weights", "replace_layer", "replace_layers"]

# Layers that have weights of their own by design, learnt by the ordinary gradient.
_KEEPS_ITS_WEIGHTS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.PReLU,
)


def replace_layers(
    module: nn.Module, lam: float
) -> tuple[nn.Module, dict[str, StandIn]]:
    """Copy a module, with target layers in the place of registered ones.

    Returns the copy and the layers that stand in, by name.
    """
    layers: dict[str, StandIn] = {}
    substitutes: dict[nn.Module, nn.Module] = {}
    kept: list[str] = []
    for name, child in list(module.named_modules()):
        own = list(child.parameters(recurse=False))
        if not own or not any(p.requires_grad for p in own):
            continue
        layer = target_layer_for(child, name, lam)
        if layer is not None:
            layers[name] = substitutes[child] = layer
        elif max(p.ndim for p in own) > 1 and not isinstance(child, _KEEPS_ITS_WEIGHTS):
            kept.append(f"{name or 'the module itself'} ({type(child).__name__})")
    if kept:
        warnings.warn(
            "no target layer is registered for the kind of these modules, so they "
            f"keep their weights and learn in weight space: {', '.join(kept)}",
            stacklevel=3,
        )
    return copy_with(module, substitutes), layers


def copy_with(
    module: nn.Module, substitutes: Mapping[nn.Module, nn.Module]
) -> nn.Module:
    """Copy a module; what takes the place of a submodule spares copying that."""
    copies: dict[int, Any] = {id(old): new for old, new in substitutes.items()}
    return copy.deepcopy(module, copies)


def replace_layer(root: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put `layer` wherever the submodule called `name` stands; return the root."""
    if not name:
        return layer
    old = root.get_submodule(name)
    for parent in list(root.modules()):
        for attribute, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, attribute, layer)
    return root


def ordinary_weights(module: nn.Module) -> list[nn.Parameter]:
    """List the weights that layers learn themselves, those that weight decay is for.

    Parameters
    ----------
    module : nn.Module
        An ordinary network, or one in target space: what is learnt by targets is no
        parameter there.

    Returns
    -------
    list of nn.Parameter
        Parameters of two axes or more; those of embeddings and norms, which map
        nothing linearly, left out.
    """
    found = (
        parameter
        for layer in module.modules()
        if not isinstance(layer, (TargetMap, *_KEEPS_ITS_WEIGHTS))
        for parameter in layer.parameters(recurse=False)
        if parameter.ndim > 1
    )
    return list(dict.fromkeys(found))  # Two layers may share one.
