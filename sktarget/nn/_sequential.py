"""Sequences of modules that tell target layers who reads their sums.

Run by themselves, a target layer and the modules around it have to provide for sums
being read, and changed, by anybody.  Within an ``nn.Sequential`` that runs as a whole
only the next module sees them: activations may overwrite them, pooling may go first,
and nothing is kept twice for the way back.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.modules import pooling
from torch.nn.modules.dropout import _DropoutNd

from sktarget.nn._activations import AS_IT_IS, activation_of
from sktarget.nn._layers import StandIn, TargetLayer

__all__ = ["restore_sequences", "take_over_sequences"]

_MAX_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
# What only reads its input, and what hands on a view of it or the input itself.
_ONLY_READS = (StandIn, pooling._MaxPoolNd, pooling._AvgPoolNd)
_HANDS_ON = (nn.Flatten, nn.Identity, _DropoutNd)


class _Sequential(nn.Sequential):
    """An ``nn.Sequential`` that runs target layers along with what follows them."""

    def forward(self, input: Any) -> Any:
        """Run one module after the other."""
        return self._run(input, [])

    def _run(self, x: Any, after: list[nn.Module]) -> Any:
        """Run, with the modules that what comes out goes through next, if known."""
        parts = list(self._modules.values())
        done = 0
        while done < len(parts):
            part, following = parts[done], parts[done + 1 :]
            if isinstance(part, TargetLayer) and part.is_solving:
                x, n = _run_layer(part, following, after, x)
                done += n
                continue
            if type(part) is _Sequential and not _is_watched(part):
                x = part._run(x, following + after)
            else:
                x = part(x)
            done += 1
        return x

    def _get_name(self) -> str:
        return "Sequential"


def _run_layer(
    layer: TargetLayer, following: list[nn.Module], after: list[nn.Module], x: Any
) -> tuple[Any, int]:
    """Run a layer that is solving, along with pooling and activation behind it.

    Returns what comes out, and how many modules have been run.
    """
    pool, module = _pooling_and_activation([] if _is_watched(layer) else following)
    n = 1 + (pool is not None) + (module is not None)
    activation = None if module is None else activation_of(module)
    overwrites = activation is not None and (
        # What this one returns may be overwritten in torch, but not what is kept here.
        type(module) is not nn.LeakyReLU or _only_read([*following[n - 1 :], *after])
    )
    if pool is None:
        return (layer(x, activation), n) if overwrites else (layer(x), 1)
    # An activation rises, so that the maximum may be taken of the sums.
    pooled = pool(layer(x, AS_IT_IS))
    if module is None or activation is None:
        return pooled, n
    if overwrites and activation.is_recorded:
        return activation.apply_(pooled), n
    return module(pooled), n


def _pooling_and_activation(
    following: list[nn.Module],
) -> tuple[nn.Module | None, nn.Module | None]:
    """Find what comes next, in either order."""
    pool = activation = None
    for module in following[:2]:
        if _is_watched(module):
            break
        if pool is None and type(module) in _MAX_POOLING and not module.return_indices:
            pool = module
        elif activation is None and activation_of(module) is not None:
            activation = module
        else:
            break
    return pool, activation


def _only_read(readers: list[nn.Module]) -> bool:
    """Tell whether what goes through some modules comes to one that only reads it."""
    for i, module in enumerate(readers):
        if type(module) is _Sequential and not _is_watched(module):
            return _only_read([*module, *readers[i + 1 :]])
        if isinstance(module, _HANDS_ON) and not getattr(module, "inplace", False):
            continue
        return isinstance(module, _ONLY_READS)
    return False


def _is_watched(module: nn.Module) -> bool:
    """Tell whether hooks see what goes into a module or comes out of it."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def take_over_sequences(module: nn.Module) -> None:
    """Have every plain ``nn.Sequential`` within a module run like this."""
    _turn(module, nn.Sequential, _Sequential)


def restore_sequences(module: nn.Module) -> None:
    """Make plain ones again of what :func:`take_over_sequences` has changed."""
    _turn(module, _Sequential, nn.Sequential)


def _turn(module: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    for part in module.modules():
        if type(part) is old:
            part.__class__ = new
