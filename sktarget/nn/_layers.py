"""What every target layer shares: its targets, the pass it takes part in, registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from sktarget.linalg import FactorisationError, SolvePlan
from sktarget.nn._solve import (
    DesignOperator,
    Solution,
    factorise_design,
    solve_and_apply,
)

__all__ = ["Pass", "Phase", "TargetLayer", "register", "target_layer_for"]


class Phase(Enum):
    """What the layers do while the wrapped module runs."""

    RECORD = "apply the own weights and take the sums as targets"
    PROJECT = "solve, and take the sums met as the new targets"
    SOLVE = "solve on the first rows, apply to all"
    APPLY = "apply the weights that this very pass solved before"


@dataclass
class Pass:
    """One run of the wrapped module, shared by its target layers.

    Attributes
    ----------
    phase : Phase
        What the layers do.
    inputs : Tensor
        What the module was called with: X̄, X, or X̄ on top of X.
    optimistic : bool
        Whether OCU is in force.
    weights : dict
        The weights that each layer, by name, has solved for in this pass.
    order : list of str
        Names of the layers in the order in which they ran.
    """

    phase: Phase
    inputs: Tensor
    optimistic: bool = False
    weights: dict[str, Tensor] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._version = self.inputs._version

    def enter(self, name: str) -> None:
        """Note that a layer runs; a second time in one pass is an error."""
        if name in self.order:
            raise RuntimeError(
                f"layer {name!r} runs twice in one pass: one set of targets cannot "
                "serve two places of the cascade. Give each place a layer of its own."
            )
        self.order.append(name)

    def is_unchanged(self, inputs: Tensor) -> bool:
        """Tell whether a layer's inputs are the module's own, maybe reshaped."""
        own = self.inputs
        return (
            inputs.data_ptr() == own.data_ptr()
            and inputs.numel() == own.numel()
            and inputs.dtype == own.dtype
            and own._version == self._version
            and inputs.is_contiguous()
            and own.is_contiguous()
        )


class TargetLayer(nn.Module):
    """A layer that owns targets and solves for its weights on X̄.

    Between passes it applies the weights cached by the last realisation.  A subclass
    says how to read weights from and write them to the ordinary layer
    (`operator`, `from_matrix`, `apply_weights`, `realise`).

    Parameters
    ----------
    name : str
        Path of the layer in the wrapped module, for messages.
    lam : float
        λ of the solve.
    """

    targets: nn.Parameter

    def __init__(self, name: str, lam: float) -> None:
        super().__init__()
        self.name = name
        self.lam = lam
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("bias", None, persistent=False)
        self._pass: Pass | None = None
        self._first: tuple[Any, Solution] | None = None
        self._plan: SolvePlan | None = None

    weight: Tensor
    bias: Tensor | None

    # -- what a kind of layer defines ------------------------------------------------

    @property
    def operator(self) -> DesignOperator:
        """The products with the design matrix of this layer."""
        raise NotImplementedError

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read the matrix W, the bias in its row 0, as the layer's weight and bias."""
        raise NotImplementedError

    def apply_weights(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Run the ordinary layer with the given weights."""
        raise NotImplementedError

    def without_bias(self, matrix: Tensor) -> Tensor:
        """Leave the row of biases out of the matrix W."""
        raise NotImplementedError

    def realise(self) -> nn.Module:
        """Make the ordinary layer with the cached weights as its parameters."""
        raise NotImplementedError

    def use_plain_layout(self) -> bool:
        """Return outputs laid out as torch's own are; tell if that is a change."""
        return False

    # -- what all kinds share --------------------------------------------------------

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's sums: by a solve within a pass, else by cached weights."""
        current = self._pass
        if current is None:
            return self.apply_weights(inputs, self.weight, self.bias)
        current.enter(self.name)
        if current.phase is Phase.RECORD:
            sums = self.apply_weights(inputs, self.weight, self.bias)
            self.targets = nn.Parameter(sums.detach().clone())
            return sums
        if current.phase is Phase.APPLY:
            return self.apply_weights(
                inputs, *self.from_matrix(current.weights[self.name])
            )
        try:
            sums, matrix = solve_and_apply(
                inputs,
                self.targets,
                self.operator,
                lambda rows: self._solution(rows, current.is_unchanged(inputs)),
                optimistic=current.optimistic,
            )
        except FactorisationError as error:
            raise self._explain(error) from None
        current.weights[self.name] = matrix
        if current.phase is Phase.PROJECT:
            with torch.no_grad():
                self.targets.copy_(sums)
        return sums

    def _solution(self, rows: Tensor, constant: bool) -> Solution:
        """Factorise, or answer from the cache where the inputs are X̄ itself."""
        if not constant:
            solution = factorise_design(self.operator, rows, self.lam, self._plan)
            self._plan = solution.plan
            return solution
        key = (self.lam, rows.shape, rows.dtype, rows.device)
        if self._first is None or self._first[0] != key:
            solution = factorise_design(self.operator, rows, self.lam)
            self._first = (key, solution)
        return self._first[1]

    def keep(self, matrix: Tensor) -> None:
        """Cache the weights to apply outside of passes."""
        weight, bias = self.from_matrix(matrix)
        self.weight = weight.contiguous()
        self.bias = None if bias is None else bias.contiguous()

    def forget(self) -> None:
        """Drop the cached factor: X̄ or λ has changed."""
        self._first = None

    def _explain(self, error: FactorisationError) -> FactorisationError:
        return FactorisationError(
            f"layer {self.name or 'itself'!r} could not be solved for its weights "
            f"(lam={self.lam:g}, fixed batch of {len(self.targets)} rows): {error}. "
            "Its inputs on the fixed batch, or the targets before it, are no longer "
            "finite or span too many orders of magnitude: standardise X, raise lam, "
            "or lower the learning rate."
        )

    def extra_repr(self) -> str:
        """Show shape of the targets and λ."""
        return f"targets={tuple(self.targets.shape)}, lam={self.lam:g}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a pass left behind: it is made anew when needed."""
        return {**self.__dict__, "_pass": None, "_first": None}


_registry: dict[type[nn.Module], Callable[[Any, str, float], TargetLayer]] = {}


def register(
    kind: type[nn.Module],
) -> Callable[[type[TargetLayer]], type[TargetLayer]]:
    """Register a target layer as the one that stands in for a torch layer.

    Parameters
    ----------
    kind : type
        Class of the ordinary layer.  Subclasses of it are not replaced: what they
        do with their weights is not known.

    Returns
    -------
    callable
        Class decorator; the class is called with (layer, name, lam).
    """

    def decorate(cls: type[TargetLayer]) -> type[TargetLayer]:
        _registry[kind] = cls
        return cls

    return decorate


def target_layer_for(layer: nn.Module, name: str, lam: float) -> TargetLayer | None:
    """Make the target layer for an ordinary one, or None if its kind has none.

    Parameters
    ----------
    layer : nn.Module
        The ordinary layer.
    name : str
        Its path in the wrapped module.
    lam : float
        λ of the solve.

    Returns
    -------
    TargetLayer or None
        A layer without targets yet, holding the weights of `layer`.
    """
    make = _registry.get(type(layer))
    return None if make is None else make(layer, name, lam)
