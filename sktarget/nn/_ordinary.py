"""Weights that stay ordinary in a network in target space."""

from __future__ import annotations

from torch import nn

from sktarget.nn._target_map import TargetMap

__all__ = ["KEEPS_ITS_WEIGHTS", "ordinary_weights"]

# Layers that keep their weights by design, and learn them by the ordinary gradient.
KEEPS_ITS_WEIGHTS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.PReLU,
)


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
        if not isinstance(layer, (TargetMap, *KEEPS_ITS_WEIGHTS))
        for parameter in layer.parameters(recurse=False)
        if parameter.ndim > 1
    )
    return list(dict.fromkeys(found))  # Layers may share one.
