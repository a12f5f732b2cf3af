"""Trials of a given module: what target layers and rows below others do to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sktarget.nn._evaluation import as_in_evaluation
from sktarget.nn._hooks import has_hooks
from sktarget.nn._stacking import has_rows, is_finite, starts_as, without_first

__all__ = ["is_another_network", "mixes_rows", "never_inspects_parts"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def never_inspects_parts(module: nn.Module) -> bool:
    """Return whether a module is known to call its parts whatever these are.

    It is if all parts are torch's own, in plain containers, or of this package.  Other
    modules may ask whether a part is an ``nn.Linear``, or read its weight, and so do
    some of torch's that have parts.

    Parameters
    ----------
    module : nn.Module
        The module.

    Returns
    -------
    bool
        False where nothing is known.

    Examples
    --------
    >>> never_inspects_parts(nn.Sequential(nn.Linear(2, 3), nn.Tanh()))
    True
    >>> never_inspects_parts(nn.TransformerEncoderLayer(4, 2))
    False
    """
    return all(_is_known(part) and not has_hooks(part) for part in module.modules())


def _is_known(part: nn.Module) -> bool:
    kind = type(part)
    home = kind.__module__.partition(".")[0]
    is_torchs = home == "torch" and (kind in _CONTAINERS or not part._modules)
    return is_torchs or home == __name__.partition(".")[0]


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


def mixes_rows(module: nn.Module, fixed: Tensor, others: Tensor) -> bool:
    """Return whether a module, once it has learnt, mixes the rows of a batch.

    It may do so by a factor that starts from zero, or next to it, as gates of residual
    branches and last layers do, so that nothing shows with the weights as given.

    Parameters
    ----------
    module : nn.Module
        The module, whose weights are changed: a copy of what is to stay.
    fixed, others : Tensor
        X̄, and rows to put below.

    Returns
    -------
    bool
        Whether the results for these rows depend on each other.  No if the module
        fails, which says nothing.
    """
    if torch.is_autocast_enabled(fixed.device.type):
        return False  # Rounding would look like mixing.
    try:
        _disturb(module)
        with torch.no_grad(), as_in_evaluation(module, ()):
            above, below = module(fixed.clone()), module(others.clone())
            both = module(torch.cat([fixed, others]))
    except Exception:  # The module may fail in any way with other weights.
        return False
    if not (is_finite(above) and is_finite(below)):
        return False
    return not (
        has_rows(both, len(fixed) + len(others))
        and starts_as(both, above)
        and starts_as(without_first(both, len(fixed)), below)
    )


@torch.no_grad()
def _disturb(module: nn.Module) -> None:
    """Change all parameters by half of their size, or of what is usual for a layer."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if not parameter.is_floating_point() or parameter.numel() == 0:
            continue
        n_inputs = parameter[0].numel() if parameter.ndim > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator, device="cpu")
        size = float(parameter.double().square().mean().sqrt())
        parameter.add_((0.5 * max(size, n_inputs**-0.5) * noise).to(parameter))


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
