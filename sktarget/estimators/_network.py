"""From hyper-parameters and data to a network, and from a network to NumPy state."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sktarget.architectures import (
    ConvLayer,
    ConvolutionalNetwork,
    DenseNetwork,
    RecurrentNetwork,
    SeededDropout,
)
from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace

__all__ = [
    "WEIGHTED",
    "as_array",
    "as_tensor",
    "average_weights",
    "build_module",
    "ordinary_module",
    "resolve_device",
    "seed_dropout",
    "seeded_globally",
    "torch_dtype",
    "weight_names",
]

Array = NDArray[Any]

_global_generator = threading.RLock()


def _free_global_generator() -> None:
    global _global_generator
    _global_generator = threading.RLock()


# Whichever thread of the parent holds the lock is not there in a forked process.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_global_generator)

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights are ``coefs_``."""


def resolve_device(name: str) -> torch.device:
    """Find the device that the parameter `device` names, and try it.

    Parameters
    ----------
    name : str
        ``"auto"`` or a torch device.

    Returns
    -------
    torch.device
        A device that works.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).add_(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={name!r} cannot be used here: {reason}. Use device='auto' or "
            "device='cpu'."
        ) from None
    return device


def as_array(X: Any) -> Any:
    """Return a tensor as an array, since validation ignores the dtype of tensors."""
    return X.numpy(force=True) if isinstance(X, torch.Tensor) else X


def as_tensor(array: Array) -> torch.Tensor:
    """Return an array as a tensor, sharing its memory if it is contiguous and writable.

    Parameters
    ----------
    array : ndarray
        Any array of a dtype that torch has.

    Returns
    -------
    Tensor
        Of the same shape and dtype, on the CPU.

    Examples
    --------
    >>> as_tensor(np.arange(3.0)[::-1])
    tensor([2., 1., 0.], dtype=torch.float64)
    """
    if not array.flags.carray:
        array = np.require(array, requirements=["C", "W", "A"])
    # NumPy calls axes of at most one number contiguous even if their stride is
    # negative, which torch refuses.
    return torch.from_numpy(
        array.copy() if min(array.strides, default=0) < 0 else array
    )


@lru_cache(maxsize=8)
def torch_dtype(dtype: Any) -> torch.dtype:
    """Return the dtype of torch that corresponds to one of NumPy.

    Parameters
    ----------
    dtype : numpy.dtype
        One that torch has, too.

    Returns
    -------
    torch.dtype
        Its counterpart.

    Examples
    --------
    >>> torch_dtype(np.dtype("float32"))
    torch.float32
    """
    return as_tensor(np.empty(0, dtype)).dtype


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
        callable, with ``n_inputs`` and ``n_outputs``.
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
            "function of (n_features, n_outputs) that returns it"
        )
    module = make(architecture["n_inputs"], architecture["n_outputs"])
    if not isinstance(module, nn.Module):
        raise TypeError(
            "module must return a torch.nn.Module when called with (n_features, "
            f"n_outputs), got {type(module).__name__}"
        )
    return module.to(dtype)


@contextmanager
def seeded_globally(needed: bool, seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator for a while, and restore it.

    A module of the user's own draws its weights and its dropout from it; networks built
    by this package have generators of their own.  Only one thread at a time may do so,
    or one would restore the generator while another draws from it.
    """
    if not needed:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with _global_generator, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def seed_dropout(module: nn.Module, seed: int, device: torch.device) -> None:
    """Give all dropout layers one generator, on the device where they run."""
    layers = [m for m in module.modules() if isinstance(m, SeededDropout)]
    if layers:
        generator = torch.Generator(device=device).manual_seed(seed)
        for layer in layers:
            layer.generator = generator


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
