"""Optimisers that torch lacks, or has only in slower form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CentredRMSprop", "FusedAdam", "FusedSGD"]


class _LaidOut(torch.optim.Optimizer):
    """An optimiser whose state and gradients have the layout of its parameters.

    Torch's fused passes misread those that have another.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a copy of a state of parameters of the same shapes."""
        self._refuse_other_shapes(state_dict)
        super().load_state_dict(state_dict)
        # Fused optimisers walk through parameters and state in order of memory.
        for parameter, entries in self.state.items():
            for name, value in entries.items():
                laid_out = name != "step" and isinstance(value, Tensor)
                if laid_out and value.shape == parameter.shape:
                    entries[name] = torch.empty_like(parameter).copy_(value)

    def _refuse_other_shapes(self, state_dict: dict[str, Any]) -> None:
        """Refuse what fused passes would read and write beyond its end."""
        groups = zip(self.param_groups, state_dict["param_groups"], strict=False)
        for own, given in groups:
            for parameter, key in zip(own["params"], given["params"], strict=False):
                for name, value in state_dict["state"].get(key, {}).items():
                    shape = tuple(getattr(value, "shape", ()))
                    if shape not in ((), tuple(parameter.shape)):
                        raise ValueError(
                            f"{name} of the state to load has the shape {shape}, but "
                            f"its parameter has {tuple(parameter.shape)}"
                        )

    def _init_group(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        gradients: list[Tensor],
        *others: list[Any],
    ) -> Any:
        found = super()._init_group(  # type: ignore[misc]
            group, parameters, gradients, *others
        )
        for i, (p, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient.stride() != p.stride():
                gradients[i] = torch.empty_like(p).copy_(gradient)
        return found


class FusedSGD(_LaidOut, torch.optim.SGD):
    """Stochastic gradient descent in one pass over the memory.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of parameters.
    **options
        Those of ``torch.optim.SGD``, except `fused`.

    Examples
    --------
    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimiser = FusedSGD([p], lr=0.1)
    >>> p.grad = torch.ones(1)
    >>> optimiser.step()
    >>> round(p.item(), 4)
    -0.1
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, fused=True, **options)


class FusedAdam(_LaidOut, torch.optim.Adam):
    """Adam in one pass over the memory, whatever the layout of the parameters.

    Torch's own pass copies tensors that have their channels last, which takes longer
    than all the rest.  As it treats all numbers alike, it is shown contiguous views.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of parameters.
    lr : float, default=0.001
        Step size.
    **options
        Those of ``torch.optim.Adam``, except `fused`.

    Examples
    --------
    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimiser = FusedAdam([p], lr=0.1)
    >>> p.grad = torch.ones(1)
    >>> optimiser.step()
    >>> round(p.item(), 4)
    -0.1
    """

    def __init__(self, params: Any, lr: float = 1e-3, **options: Any) -> None:
        super().__init__(params, lr, fused=True, **options)

    def _init_group(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        gradients: list[Tensor],
        *others: list[Any],
    ) -> Any:
        found = super()._init_group(group, parameters, gradients, *others)
        for i, parameter in enumerate(parameters):
            if parameter.is_contiguous():
                continue
            shape, strides = parameter.shape, parameter.stride()
            order = sorted(range(len(shape)), key=strides.__getitem__, reverse=True)
            # The moments are permuted too, but not the number of steps.
            for kind in (parameters, gradients, *filter(None, others)):
                if kind[i].shape == shape:
                    kind[i] = kind[i].permute(order)
        return found


class CentredRMSprop(_LaidOut):
    """RMSprop with centred second moments and momentum.

    For a gradient g and the step size α::

        m ← ρ m + (1 − ρ) g
        v ← ρ v + (1 − ρ) g²
        u ← μ u − α g / √(v − m² + ε)
        p ← p + u

    Everything starts at zero, without bias correction.  The stabiliser stands under
    the root, whereas ``torch.optim.RMSprop`` adds it to the root: for gradients
    well below √ε this is stochastic gradient descent with momentum and the step α/√ε.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of parameters.
    lr : float
        α.
    rho : float, default=0.95
        ρ.
    momentum : float, default=0.9
        μ.
    eps : float, default=1e-3
        ε.

    Examples
    --------
    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimiser = CentredRMSprop([p], lr=0.1)
    >>> p.grad = torch.ones(1)
    >>> optimiser.step()
    >>> round(p.item(), 4)
    -0.4541
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        rho: float = 0.95,
        momentum: float = 0.9,
        eps: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "rho": rho, "momentum": momentum, "eps": eps}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; parameters without a gradient do not change."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if not self.state[p]:
                for name in ("mean", "square", "update"):
                    self.state[p][name] = torch.zeros_like(p)
        mean, square, update = (
            [self.state[p][name] for p in params]
            for name in ("mean", "square", "update")
        )
        torch._foreach_lerp_(mean, grads, 1 - group["rho"])
        torch._foreach_mul_(square, group["rho"])
        torch._foreach_addcmul_(square, grads, grads, value=1 - group["rho"])
        scale = torch._foreach_add(square, group["eps"])
        torch._foreach_addcmul_(scale, mean, mean, value=-1)
        # Rounding may make a small variance vanish or turn negative.
        torch._foreach_clamp_min_(scale, group["eps"])
        torch._foreach_sqrt_(scale)
        torch._foreach_mul_(update, group["momentum"])
        torch._foreach_addcdiv_(update, grads, scale, value=-group["lr"])
        torch._foreach_add_(params, update)
