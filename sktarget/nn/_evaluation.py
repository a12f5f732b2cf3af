"""Running a module as in evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["as_in_evaluation"]


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
