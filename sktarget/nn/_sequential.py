"""``nn.Sequential``, run so that target layers know which module reads their sums.

A target layer that runs by itself must allow for any module reading, or changing, its
sums.  Within an ``nn.Sequential`` that runs as a whole only the next module sees them:
activations may overwrite them, pooling may go first, and nothing is kept twice for the
backward pass.  Consecutive dense layers, with their activations, are one node of the
graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import pooling
from torch.nn.modules.dropout import _DropoutNd

from sktarget._layered import Layered
from sktarget.nn._activations import AS_IT_IS, Activation, activation_of
from sktarget.nn._hooks import has_hooks
from sktarget.nn._layers import TargetLayer
from sktarget.nn._stand_in import StandIn

__all__ = ["restore_sequentials", "take_over_sequentials"]

_MAX_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
# Modules that only read their input; and modules that pass on it, or a view of it.
_ONLY_READS = (StandIn, pooling._MaxPoolNd, pooling._AvgPoolNd)
_HANDS_ON = (nn.Flatten, nn.Identity, _DropoutNd)


class _Sequential(nn.Sequential):
    """An ``nn.Sequential`` that runs target layers together with what follows them."""

    def forward(self, input: Any) -> Any:
        """Run one module after another."""
        return run_sequential(list(self._modules.values()), input)

    def _get_name(self) -> str:
        return "Sequential"


def run_sequential(
    parts: list[nn.Module], x: Any, after: Sequence[nn.Module] = ()
) -> Any:
    """Run modules one after another, and target layers with what follows them.

    Parameters
    ----------
    parts : list of nn.Module
        The modules.
    x : Tensor or other
        Input of the first one.
    after : sequence of nn.Module
        What the output goes through next, as far as is known.

    Returns
    -------
    Tensor or other
        Output of the last one.
    """
    done = 0
    while done < len(parts):
        part = parts[done]
        if isinstance(part, TargetLayer) and part.is_solving:
            layers, n = _find_chain(parts, done, after)
            if layers and _may_chain(x):
                x = TargetLayer.run_together(layers, x)
            else:
                x, n = _run_layer(part, parts[done + 1 :], after, x)
        elif type(part) is _Sequential and not has_hooks(part):
            x, n = run_sequential([*part], x, [*parts[done + 1 :], *after]), 1
        else:
            x, n = part(x), 1
        done += n
    return x


def run_layers(
    hidden: list[list[nn.Module]], last: nn.Module, x: Tensor, shortcuts: bool
) -> Tensor:
    """Run hidden layers, and the last one, as ``Layered.run_layers`` does."""
    if not shortcuts:
        out: Tensor = run_sequential([*chain.from_iterable(hidden), last], x)
        return out
    layers = _find_shortcuts(hidden, last)
    if layers and _may_chain(x) and x.ndim == 2:
        return TargetLayer.run_together(layers, x, shortcuts=True)
    for modules in hidden:
        x = torch.cat([x, run_sequential(modules, x)], dim=1)
    out = last(x)
    return out


def _may_chain(x: Any) -> bool:
    """Return whether layers may be chained on this input.

    Run one by one, they refuse what is not a tensor, and switch off autocast.
    """
    return isinstance(x, Tensor) and not torch.is_autocast_enabled(x.device.type)


def _find_shortcuts(
    hidden: list[list[nn.Module]], last: nn.Module
) -> list[tuple[TargetLayer, Activation | None]]:
    """Find layers and activations that may run at once; return none unless all may."""
    if not isinstance(last, TargetLayer) or not last.is_solving:
        return []
    layers = []
    groups: list[list[nn.Module]] = [*hidden, [last]]
    for modules in groups:
        found, n = _find_chain(modules, 0, [last])  # Target layers only read.
        if n < len(modules) or len(found) > 1:
            return []
        layers += found
    return layers


def _find_chain(
    parts: list[nn.Module], start: int, after: Sequence[nn.Module]
) -> tuple[list[tuple[TargetLayer, Activation | None]], int]:
    """Find layers and activations that may run at once, and how many modules."""
    found: list[tuple[TargetLayer, Activation | None]] = []
    at, end = start, len(parts)
    while at < end:
        layer = parts[at]
        if not isinstance(layer, TargetLayer) or not layer.is_plain or has_hooks(layer):
            break
        at += 1
        activation = None
        if at < end and not isinstance(parts[at], StandIn):
            activation = _overwriting(parts[at], parts, at + 1, after)
            at += activation is not None
        found.append((layer, activation))
    return found, at - start


def _run_layer(
    layer: TargetLayer, following: list[nn.Module], after: Sequence[nn.Module], x: Any
) -> tuple[Any, int]:
    """Run a layer that is solving, along with pooling and activation after it.

    Returns the output, and how many modules have been run.
    """
    pool, module = _pooling_and_activation([] if has_hooks(layer) else following)
    n = 1 + (pool is not None) + (module is not None)
    overwriting = None
    if module is not None:
        overwriting = _overwriting(module, following, n - 1, after)
    if pool is None:
        return (layer(x, overwriting), n) if overwriting else (layer(x), 1)
    # Activations never decrease, so the maximum may be taken of the sums instead.
    pooled = pool(layer(x, AS_IT_IS))
    if module is None:
        return pooled, n
    if overwriting is not None and overwriting.has_gradient:
        return overwriting.apply_(pooled), n
    return module(pooled), n


def _overwriting(
    module: nn.Module, parts: list[nn.Module], next_: int, after: Sequence[nn.Module]
) -> Activation | None:
    """Return what an activation does, if it may overwrite the sums given to it."""
    activation = activation_of(module)
    if activation is None or has_hooks(module):
        return None
    # Torch allows the output of LeakyReLU to be overwritten, but here it is kept.
    if type(module) is nn.LeakyReLU and not _only_read([*parts[next_:], *after]):
        return None
    return activation


def _pooling_and_activation(
    following: list[nn.Module],
) -> tuple[nn.Module | None, nn.Module | None]:
    """Find the pooling and the activation that come next, in either order."""
    pool = activation = None
    for module in following[:2]:
        if has_hooks(module):
            break
        if pool is None and type(module) in _MAX_POOLING and not module.return_indices:
            pool = module
        elif activation is None and activation_of(module) is not None:
            activation = module
        else:
            break
    return pool, activation


def _only_read(readers: list[nn.Module]) -> bool:
    """Return whether the first module that does not pass its input on only reads it."""
    for i, module in enumerate(readers):
        if type(module) is _Sequential and not has_hooks(module):
            return _only_read([*module, *readers[i + 1 :]])
        if isinstance(module, _HANDS_ON) and not getattr(module, "inplace", False):
            continue
        return isinstance(module, _ONLY_READS)
    return False


def take_over_sequentials(module: nn.Module) -> None:
    """Make every plain ``nn.Sequential`` and ``Layered`` in a module run this way."""
    for part in module.modules():
        if type(part) is nn.Sequential:
            part.__class__ = _Sequential
        elif getattr(type(part), "run_layers", None) is Layered.run_layers:
            vars(part)["run_layers"] = run_layers


def restore_sequentials(module: nn.Module) -> None:
    """Undo what :func:`take_over_sequentials` has changed."""
    for part in module.modules():
        if type(part) is _Sequential:
            part.__class__ = nn.Sequential  # type: ignore[assignment]
        elif vars(part).get("run_layers") is run_layers:
            del part.run_layers
