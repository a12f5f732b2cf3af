"""Activations that may overwrite the sums they are applied to.

Their gradient can be computed from their outputs.  So a target layer that is run
together with its activation keeps one tensor where two nodes of a graph keep two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sktarget._tanh import Tanh, tanh_

__all__ = ["AS_IT_IS", "Activation", "activation_of"]

# A smaller slope might turn small sums into subnormal numbers, which lose digits.
_LEAST_SLOPE = 1e-3


@dataclass(frozen=True)
class Activation:
    """An activation, described by what it does to tensors.

    Attributes
    ----------
    apply_ : callable
        Overwrites sums with their activations, and returns them.
    gradient : callable
        Computes ∂L/∂S from ∂L/∂A, the activations A and an optional tensor to write
        to, which may be ∂L/∂A itself.
    residual : callable or None
        Computes a new tensor T − S from targets T and activations; None if S cannot be
        recovered from these, or only with digits lost.
    has_gradient : bool
        Whether torch records `apply_` for gradients of its own.
    """

    apply_: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    residual: Callable[[Tensor, Tensor], Tensor] | None = None
    has_gradient: bool = True


AS_IT_IS = Activation(lambda sums: sums, lambda d, out, into: d, torch.sub)
"""The identity, for sums that only the next module reads, without changing them.

Their gradient, which that module computes, may be overwritten.
"""


def activation_of(module: nn.Module) -> Activation | None:
    """Return what an activation does, if it is of a kind that may overwrite sums.

    Parameters
    ----------
    module : nn.Module
        Any module; what a subclass does is not known.

    Returns
    -------
    Activation or None
        None for any other kind of module.

    Examples
    --------
    >>> leaky = activation_of(nn.LeakyReLU(0.5))
    >>> leaky.apply_(torch.tensor([-2.0, 3.0]))
    tensor([-1., 3.])
    >>> activation_of(nn.Linear(1, 1)) is None
    True
    """
    if type(module) is nn.LeakyReLU:
        return _leaky_relu(float(module.negative_slope))
    return _BY_KIND.get(type(module))


def _gradient(backward: Any, *options: Any) -> Callable[..., Tensor]:
    """Make a gradient from an operator of torch that can write to a given tensor."""
    new, out = backward.default, backward.grad_input

    def gradient(d: Tensor, outputs: Tensor, into: Tensor | None) -> Tensor:
        if into is None:
            return cast(Tensor, new(d, outputs, *options))
        return cast(Tensor, out(d, outputs, *options, grad_input=into))

    return gradient


@lru_cache(maxsize=16)
def _leaky_relu(slope: float) -> Activation | None:
    if not slope > 0:  # the output does not show where the sum was negative
        return None

    def residual(targets: Tensor, out: Tensor) -> Tensor:
        sums = nn.functional.leaky_relu(out, 1 / slope)
        return torch.sub(targets, sums, out=sums)

    return Activation(
        partial(nn.functional.leaky_relu_, negative_slope=slope),
        _gradient(torch.ops.aten.leaky_relu_backward, slope, True),
        residual if slope >= _LEAST_SLOPE else None,
    )


_TANH = Activation(tanh_, _gradient(torch.ops.aten.tanh_backward), has_gradient=False)
_BY_KIND: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(torch.relu_, _gradient(torch.ops.aten.threshold_backward, 0)),
    nn.Tanh: _TANH,
    Tanh: _TANH,
    nn.Sigmoid: Activation(torch.sigmoid_, _gradient(torch.ops.aten.sigmoid_backward)),
}
