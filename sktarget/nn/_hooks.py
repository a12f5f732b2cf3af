"""Whether hooks observe a module."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module

__all__ = ["has_hooks"]


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks see what goes into a module or comes out of it.

    A ``forward`` set on the instance, in place of its class's, counts as one.

    Parameters
    ----------
    module : nn.Module
        The module.

    Returns
    -------
    bool
        Whether it has any, or there are global hooks on all modules.

    Examples
    --------
    >>> has_hooks(nn.Tanh())
    False
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or torch_module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )
