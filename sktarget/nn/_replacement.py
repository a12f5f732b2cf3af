"""Putting target layers in the place of ordinary ones."""

from __future__ import annotations

import warnings

from torch import nn

from sktarget.nn._layers import StandIn, TargetMap, target_layer_for

__all__ = ["ordinary_weights", "replace_layer", "replace_layers"]

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
    """Put target layers in the place of registered ones, in place.

    Returns the module (another one only if it is itself a registered layer) and the
    layers that stand in, by name.
    """
    layers: dict[str, StandIn] = {}
    kept: list[str] = []
    for name, child in list(module.named_modules()):
        own = list(child.parameters(recurse=False))
        if not own or not any(p.requires_grad for p in own):
            continue
        layer = target_layer_for(child, name, lam)
        if layer is not None:
            layers[name] = layer
        elif max(p.ndim for p in own) > 1 and not isinstance(child, _KEEPS_ITS_WEIGHTS):
            kept.append(f"{name or 'the module itself'} ({type(child).__name__})")
    for name, layer in layers.items():
        module = replace_layer(module, name, layer)
    if kept:
        warnings.warn(
            "no target layer is registered for the kind of these modules, so they "
            f"keep their weights and learn in weight space: {', '.join(kept)}",
            stacklevel=3,
        )
    return module, layers


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
