"""From a description to a network, and from a network to its weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parameter import is_lazy

from sktarget.architectures import (
    ConvLayer,
    ConvolutionalNetwork,
    DenseNetwork,
    RecurrentNetwork,
)
from sktarget.estimators._arrays import as_tensor
from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from sktarget.nn.base import copy_with
from sktarget.training import as_inputs

__all__ = [
    "WEIGHTED",
    "average_weights",
    "build_module",
    "check_outputs",
    "ordinary_module",
    "refuse_frozen",
    "weight_names",
]

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights are ``coefs_``."""


def build_module(
    architecture: dict[str, Any],
    dtype: torch.dtype,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Build the ordinary network that a description stands for.

    Parameters
    ----------
    architecture : dict
        Arguments of :class:`~sktarget.architectures.DenseNetwork`; with
        ``conv_layers`` among them, of
        :class:`~sktarget.architectures.ConvolutionalNetwork`; with ``cell``, of
        :class:`~sktarget.architectures.RecurrentNetwork`; or ``module``, the user's
        callable, with ``n_inputs`` and ``n_outputs``, of whose network a copy is taken.
    dtype : torch.dtype
        Of the weights.
    generator : torch.Generator, optional
        Draws the initial weights.

    Returns
    -------
    nn.Module
        The network on the CPU.
    """
    make: Callable[[int, int], Any] | None = architecture.get("module")
    if make is None and "cell" in architecture:
        return RecurrentNetwork(**architecture, generator=generator, dtype=dtype)
    if make is None:
        kind: type[nn.Module] = DenseNetwork
        if "conv_layers" in architecture:
            kind = ConvolutionalNetwork
            layers = [ConvLayer(*layer) for layer in architecture["conv_layers"]]
            architecture = {**architecture, "conv_layers": layers}
        return kind(**architecture, generator=generator, dtype=dtype)
    if isinstance(make, nn.Module):
        raise TypeError(
            f"module must make a network, got one ({type(make).__name__}): pass a "
            "function of (n_features, n_outputs) that makes one"
        )
    module = make(architecture["n_inputs"], architecture["n_outputs"])
    if not isinstance(module, nn.Module):
        raise TypeError(
            "module must return a torch.nn.Module when called with (n_features, "
            f"n_outputs), got {type(module).__name__}"
        )
    return _own_copy(module).to("cpu", dtype)


def _own_copy(module: nn.Module) -> nn.Module:
    """Copy a module, which may have parts that others use, such as a backbone."""
    try:
        return copy_with(module, {})
    except Exception as error:
        if any(map(is_lazy, module.buffers())):
            return module  # Torch does not copy buffers that have no values yet.
        raise TypeError(
            f"module returns a network that cannot be copied: {error}"
        ) from error


def refuse_frozen(module: nn.Module) -> None:
    """Refuse a module that has nothing to learn.

    Parameters
    ----------
    module : nn.Module
        The module.

    Raises
    ------
    ValueError
        If none of its parameters requires gradients.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(
            "the module has nothing to learn: none of its parameters requires "
            "gradients; let some do, by requires_grad_(True)"
        )


def check_outputs(
    module: nn.Module, X: NDArray[Any], dtype: torch.dtype, needed: tuple[int, ...]
) -> None:
    """Try a module on some rows, which also initialises lazy layers.

    Parameters
    ----------
    module : nn.Module
        The module.
    X : ndarray of shape (n, ...)
        The rows.
    dtype : torch.dtype
        That of the arithmetic.
    needed : tuple of int
        Shape that the outputs must have.

    Raises
    ------
    ValueError
        If the module fails, or gives anything else.
    """
    mode = module.training
    try:
        module.eval()  # Its own `train` need not return it.
        with torch.no_grad():
            # A copy, since the module may work in place.
            outputs = module(as_inputs(as_tensor(X.copy()), dtype))
    except Exception as error:
        raise ValueError(
            f"module cannot take rows of X, of shape {X.shape}: {error}"
        ) from error
    module.train(mode)
    found = f"a {type(outputs).__name__}"
    if isinstance(outputs, torch.Tensor):
        found = f"outputs of shape {tuple(outputs.shape)}"
    if getattr(outputs, "shape", None) != needed:
        raise ValueError(
            f"module gives {found} for {len(X)} rows; a tensor of shape {needed} is "
            "needed"
        )


def ordinary_module(network: nn.Module) -> nn.Module:
    """Return the network with the present weights as an ordinary module.

    Parameters
    ----------
    network : nn.Module
        A :class:`~sktarget.nn.TargetSpace`, another module with the method
        ``realise``, or a module trained in weight space.

    Returns
    -------
    nn.Module
        The ordinary module, which shares nothing with targets.
    """
    realise = getattr(network, "realise", None)
    return network if realise is None else realise()


def average_weights(network: nn.Module) -> None:
    """Replace the weights by their mean over draws of dropout, if there is any.

    Parameters
    ----------
    network : nn.Module
        As for :func:`ordinary_module`, at the end of its training.
    """
    if isinstance(network, TargetSpace):
        # A draw that cannot be solved for is no reason to lose the fit.
        with suppress(FactorisationError):
            network.average_weights()


def weight_names(network: nn.Module) -> list[str]:
    """Name the layers whose weights are ``coefs_``, in the order of the cascade."""
    if isinstance(network, TargetSpace):
        return list(network.target_layers())
    module = ordinary_module(network)
    return [n for n, m in module.named_modules() if isinstance(m, WEIGHTED)]
