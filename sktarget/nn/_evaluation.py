"""Running a module as in evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["as_in_evaluation", "calling_layers", "is_encoder"]


def is_encoder(part: nn.Module) -> bool:
    """Return whether torch may run a module in evaluation without calling its parts."""
    return isinstance(part, nn.TransformerEncoder | nn.TransformerEncoderLayer)


@contextmanager
def calling_layers(module: nn.Module, layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let Transformer encoders call their layers, in evaluation too.

    Parameters
    ----------
    module : nn.Module
        The module that is to run.
    layers : iterable of nn.Module
        Submodules that are to be called even where torch would read their weights.
    """
    parts = [part for part in module.modules() if is_encoder(part)]
    encoders = [part for part in parts if isinstance(part, nn.TransformerEncoder)]
    nested = [encoder.use_nested_tensor for encoder in encoders]
    hooks = []
    try:
        for encoder in encoders:
            encoder.use_nested_tensor = False  # Targets are tensors of one shape.
        if parts:  # What has hooks is called.
            hooks = [layer.register_forward_hook(_pass_on) for layer in layers]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for encoder, value in zip(encoders, nested, strict=True):
            encoder.use_nested_tensor = value


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
    try:
        module.eval()
        with calling_layers(module, layers):
            yield
    finally:
        if module.training != modes[0][1]:
            module.train()  # Modules may do more than set a flag.
        for part, mode in modes:
            part.training = mode


def _pass_on(layer: nn.Module, inputs: Any, outputs: Any) -> None:
    """Do nothing: a hook that is there to be seen."""
