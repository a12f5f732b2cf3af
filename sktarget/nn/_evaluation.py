"""Running a module as in evaluation, and comparing what it gives there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sktarget.nn._stacking import starts_as

__all__ = ["as_in_evaluation", "is_another_network"]


@contextmanager
def as_in_evaluation(module: nn.Module, layers: Iterable[nn.Module]) -> Iterator[None]:
    """Switch dropout and batch statistics off for a pass.

    Parameters
    ----------
    module : nn.Module
        The module that is to run.
    layers : iterable of nn.Module
        Submodules that are to be called even where torch would read their weights.
    """
    modes = [(m, m.training) for m in module.modules()]
    hooks = []
    encoders = [m for m, _ in modes if isinstance(m, nn.TransformerEncoder)]
    nested = [encoder.use_nested_tensor for encoder in encoders]
    try:
        for encoder in encoders:
            encoder.use_nested_tensor = False  # Targets are tensors of one shape.
        if any(isinstance(m, nn.TransformerEncoderLayer) for m, _ in modes):
            # In evaluation torch reads the weights of its linear layers and never
            # calls them, unless these have hooks.
            hooks = [layer.register_forward_hook(_pass_on) for layer in layers]
        module.eval()
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for encoder, value in zip(encoders, nested, strict=True):
            encoder.use_nested_tensor = value
        if module.training != modes[0][1]:
            module.train()  # Modules may do more than set a flag.
        for part, mode in modes:
            part.training = mode


def _pass_on(layer: nn.Module, inputs: Any, outputs: Any) -> None:
    """Do nothing: a hook that is there to be seen."""


def is_another_network(
    outputs: Any, given: nn.Module, layers: Iterable[nn.Module], fixed: Tensor
) -> bool:
    """Return whether what came out on X̄ is something else than a module gives.

    Where the module draws at random, is so sensitive that rounding shows, or does not
    run, nothing can be said, and the answer is no.

    Parameters
    ----------
    outputs : Tensor, or what the module returns
        What came out.
    given : nn.Module
        The module, which its run may change: a copy of what is to stay.
    layers : iterable of nn.Module
        Its submodules that target layers stand in for.
    fixed : Tensor
        X̄.

    Returns
    -------
    bool
        Whether tensors that came out differ by more than rounding.
    """
    if torch.is_autocast_enabled(fixed.device.type):
        return False  # The layers would round more than target layers do.
    try:
        with torch.no_grad(), as_in_evaluation(given, layers):
            expected = given(fixed.clone())
            if _agree(outputs, expected):
                return False
            # One unit in the last place of X̄ is what rounding may do.
            eps = torch.finfo(fixed.dtype).eps
            return _agree(given(fixed + eps * fixed.abs()), expected)
    except Exception:  # A second run may fail in any way.
        return False


def _agree(outputs: Any, expected: Any) -> bool:
    """Return whether the floating tensors of two results are equal up to rounding."""
    first, second = tree_leaves(outputs), tree_leaves(expected)
    return len(first) == len(second) and all(
        one.shape == other.shape and starts_as(one, other)
        for one, other in zip(first, second, strict=True)
        if isinstance(one, Tensor)
        and isinstance(other, Tensor)
        and one.is_floating_point()
        and one.ndim > 0
    )
