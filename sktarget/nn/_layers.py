"""What every target layer shares: targets, cached weights, and the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn._activations import Activation
from sktarget.nn._link import Link
from sktarget.nn._operators import DesignOperator
from sktarget.nn._pass import NotOneBatch, Pass, Phase, Stage
from sktarget.nn._right_inverse import right_inverse
from sktarget.nn._solution import Solution, factorise_design
from sktarget.nn._solve import solve_and_apply
from sktarget.nn._stacking import starts_as

__all__ = [
    "StandIn",
    "TargetLayer",
    "TargetMap",
    "is_registered",
    "register",
    "target_layer_for",
]


class TargetMap(nn.Module):
    """One linear map that is solved for on X̄: its targets and its weights.

    Parameters
    ----------
    name : str
        Path of the map in the wrapped module, for messages.
    has_bias : bool
        Whether row 0 of its matrix W holds biases.

    Attributes
    ----------
    lam : float
        λ of the solve.
    anchor : Tensor or None
        The matrix W₀ that the ridge pulls to; None stands for zero.
    """

    targets: nn.Parameter
    anchor: Tensor | None
    kept_weight: Tensor
    kept_bias: Tensor | None

    def __init__(self, name: str, has_bias: bool) -> None:
        super().__init__()
        self.name = name
        self.has_bias = has_bias
        self.lam = 0.0
        self.register_parameter("targets", None)
        self.register_buffer("anchor", None)
        self.register_buffer("kept_weight", None, persistent=False)
        self.register_buffer("kept_bias", None, persistent=False)
        self.stage = Stage()
        self._last_dtype: torch.dtype | None = None

    def without_bias(self, matrix: Tensor) -> Tensor:
        """Leave the row of biases out of the matrix W."""
        return matrix[..., int(self.has_bias) :, :]

    def keep(self, matrix: Tensor) -> None:
        """Cache the weights to apply outside of passes."""
        raise NotImplementedError

    def anchor_to_weights(self) -> None:
        """Let the ridge pull to the present weights, if it can; else to zero."""

    @property
    def chooses_lam(self) -> bool:
        """Whether λ is still to be chosen in the current pass."""
        current = self.stage.current
        return (
            current is not None
            and current.chooses_lam
            and self.name not in current.chosen
        )

    def factorise(self, operator: DesignOperator, rows: Tensor) -> Solution:
        """Factorise for inputs that change; first try the arithmetic of last time."""
        chooses = self.chooses_lam
        lam = None if chooses else self.lam
        solution = factorise_design(operator, rows, lam, self._last_dtype)
        if chooses:
            self.lam = solution.lam
            assert self.stage.current is not None
            self.stage.current.chosen.add(self.name)
        if self._last_dtype != solution.plan.gram_dtype:
            self._last_dtype = solution.plan.gram_dtype
        return solution

    def take_targets(self, sums: Tensor, phase: Phase) -> None:
        """Take the sums met on X̄ as targets, T ← S."""
        if phase is Phase.RECORD:
            self.targets = nn.Parameter(sums.detach().clone())
        else:
            with torch.no_grad():
                self.targets.copy_(sums)

    def compare(self, sums: Tensor) -> None:
        """Raise `NotOneBatch` unless the first sums equal those taken as targets."""
        if not starts_as(sums, self.targets):
            raise NotOneBatch

    def check(self, matrix: Tensor) -> None:
        """Raise if weights are not finite: on a GPU a solve fails without an error."""
        if not matrix.is_cpu and not matrix.isfinite().all():
            raise self.explained(FactorisationError("its weights are not finite"))

    @property
    def description(self) -> str:
        """What to call the map in messages."""
        return f"layer {self.name!r}" if self.name else "the layer"

    def explained(self, error: FactorisationError) -> FactorisationError:
        """Return the error of a factorisation with the name of the map, and advice."""
        return FactorisationError(
            f"{self.description} could not be solved for its weights "
            f"(lam={self.lam:g}, fixed batch of {len(self.targets)} rows): {error}."
            " Its inputs on the fixed batch, or the targets of earlier layers, are no "
            "longer finite or span too many orders of magnitude: standardise X, "
            "raise lam, or lower the learning rate."
        )

    def extra_repr(self) -> str:
        """Show the shape of the targets, and λ."""
        return f"targets={tuple(self.targets.shape)}, lam={self.lam:g}"


class StandIn(nn.Module):
    """A module in place of a layer of a registered kind, with one map or several.

    Attributes
    ----------
    stacks : bool
        Whether X̄ and X may run as one batch, X̄ on top, as patterns lie along
        the first axis of the inputs.
    is_random : bool
        Whether the layer draws random numbers in its present mode.
    given : dict
        Attributes that a user has given to the ordinary layer.
    shown : frozenset of str
        Names of those that are attributes here, too, as the names are free.
    """

    stacks: bool = True
    is_random: bool = False
    given: Mapping[str, Any] = MappingProxyType({})
    shown: frozenset[str] = frozenset()

    def target_maps(self) -> dict[str, TargetMap]:
        """Return the maps by their names in the wrapped module, in running order."""
        raise NotImplementedError

    def realise(self) -> nn.Module:
        """Make the ordinary layer with the cached weights as its parameters."""
        raise NotImplementedError

    def refuse_to_learn_nothing(self) -> None:
        """Refuse to run outside of a pass in training mode.

        No gradient would reach the targets, and even without gradients the weights
        would be old ones.
        """
        if self.training:
            raise RuntimeError(
                "a layer in target space ran in training mode, but not within a pass "
                "of its TargetSpace, so that nothing would be learnt, and its weights "
                "may be old: call the TargetSpace, not its module. Checkpointing of a "
                "part of the module runs that part again in the backward pass: "
                "checkpoint the whole or nothing"
            )

    def use_plain_layout(self) -> bool:
        """Lay out outputs as torch's layers do; return whether that is a change."""
        return False


class TargetLayer(TargetMap, StandIn):
    """A layer that is one map: it solves for its weights on X̄ and applies them.

    Between passes it applies the weights cached by the last realisation.  A subclass
    defines how weights are read from the ordinary layer and written to it
    (`operator`, `from_matrix`, `apply_weights`, `realise`).

    Parameters
    ----------
    name : str
        Path of the layer in the wrapped module, for messages.
    has_bias : bool
        Whether it has biases.
    """

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

    # -- what all kinds share --------------------------------------------------------

    @property
    def weight(self) -> Tensor:
        """The weight, as in the ordinary layer; within a pass, part of the graph."""
        return self._present()[0]

    @property
    def bias(self) -> Tensor | None:
        """The bias, likewise."""
        return self._present()[1]

    def _present(self) -> tuple[Tensor, Tensor | None]:
        """Return the current weight and bias.

        Within a pass, before they are solved for, they are NaN of the right shape and
        dtype.
        """
        current = self.stage.current
        if current is None or current.applies_own_weights:
            return self.kept_weight, self.kept_bias
        if self.name in current.weights:
            return self.from_matrix(current.weights[self.name])
        kept = self.kept_weight, self.kept_bias
        weight, bias = (None if t is None else torch.full_like(t, nan) for t in kept)
        assert weight is not None
        return weight, bias

    def _keep_weights_of(self, layer: Any) -> None:
        """Copy the weights of an ordinary layer."""
        self.kept_weight = layer.weight.detach().clone()
        self.kept_bias = None if layer.bias is None else layer.bias.detach().clone()

    def _give_weights_to(self, layer: Any) -> None:
        """Copy the weights to an ordinary layer."""
        # A clone, unlike `contiguous`, gives axes of length 1 strides like any others.
        weight = self.kept_weight.detach().clone(memory_format=torch.contiguous_format)
        layer.weight = nn.Parameter(weight)
        if self.kept_bias is not None:
            layer.bias = nn.Parameter(self.kept_bias.detach().clone())

    def target_maps(self) -> dict[str, TargetMap]:
        """Return the layer itself."""
        return {self.name: self}

    @property
    def is_plain(self) -> bool:
        """Whether nothing is done before or after the solve, so it may be chained."""
        return type(self).forward is TargetLayer.forward

    @property
    def is_solving(self) -> bool:
        """Whether the current pass solves, and so may include activations at once."""
        current = self.stage.current
        return current is not None and current.phase is Phase.SOLVE

    def forward(self, input: Tensor, activation: Activation | None = None) -> Tensor:
        """Return the layer's sums, with weights solved for in the pass or cached ones.

        If it is solving and an `activation` is given, return that of the sums instead.
        """
        inputs, current = input, self.stage.current
        if not isinstance(inputs, Tensor):
            raise TypeError(
                f"{self.description} takes a tensor, got {type(inputs).__name__}"
            )
        if torch.is_autocast_enabled(inputs.device.type):
            with torch.autocast(inputs.device.type, enabled=False):
                # Not the subclass's method, which has already done its part.
                inputs = inputs.to(self.kept_weight.dtype)
                return TargetLayer.forward(self, inputs, activation)
        if current is None:
            self.refuse_to_learn_nothing()
            return self.apply_weights(inputs, self.kept_weight, self.kept_bias)
        if current.phase in (Phase.SOLVE, Phase.PROJECT):
            outputs = self.run_together([(self, activation)], inputs)
            if current.phase is Phase.PROJECT:
                self.take_targets(outputs, current.phase)
            return outputs
        current.enter(self.name)
        if current.phase is Phase.RECORD:
            return self._record(inputs, current)
        if current.phase is Phase.COMPARE:
            sums = self.apply_weights(inputs, self.kept_weight, self.kept_bias)
            self.compare(sums)
            return sums
        matrix = current.weights_of(self.name)
        return self.apply_weights(inputs, *self.from_matrix(matrix))

    def _record(self, inputs: Tensor, current: Pass) -> Tensor:
        """Apply own weights; take the sums, or what leads to them, as targets."""
        sums = self.apply_weights(inputs, self.kept_weight, self.kept_bias)
        self.take_targets(sums, current.phase)
        if current.exact:
            try:
                targets = right_inverse(self.operator, inputs, sums, self.lam)
            except FactorisationError as error:
                raise self.explained(error) from None
            self.take_targets(targets, current.phase)
        return self.targets.detach().clone() if current.optimistic else sums

    @staticmethod
    def run_together(
        layers: Sequence[tuple[TargetLayer, Activation | None]],
        inputs: Tensor,
        *,
        shortcuts: bool = False,
    ) -> Tensor:
        """Solve for and run layers with their activations, each fed by the one before.

        With `shortcuts`, each is fed the inputs and all earlier outputs, side by side.
        """
        current, links = layers[0][0].stage.current, []
        assert current is not None
        layers[0][0].refuse_other_rows(inputs, current)
        for layer, activation in layers:
            current.enter(layer.name)
            links.append(
                Link(layer.targets, layer.operator, layer._solution, activation)
            )
        outputs, matrices = solve_and_apply(
            inputs, links, optimistic=current.optimistic, shortcuts=shortcuts
        )
        for (layer, _), matrix in zip(layers, matrices, strict=True):
            current.weights[layer.name] = matrix
        return outputs

    def refuse_other_rows(self, inputs: Tensor, current: Pass) -> None:
        """Refuse inputs on X̄ alone that are not one for each target."""
        if current.is_alone and inputs.shape[0] != self.targets.shape[0]:
            raise RuntimeError(
                f"{self.description} is fed {inputs.shape[0]} rows on the fixed batch, "
                f"but has targets for {self.targets.shape[0]}: a module must lead the "
                "same rows through a layer in every pass. Freeze the layer "
                "(requires_grad=False) if what it is fed depends on what is learnt"
            )

    def _solution(
        self, inputs: Tensor, operator: DesignOperator, rows: Tensor
    ) -> Solution:
        """Factorise, or return the cached factor where the inputs are X̄ itself."""
        current = self.stage.current
        constant = current is not None and current.is_unchanged(inputs)
        try:
            if not constant or self.chooses_lam:
                return self.factorise(operator, rows)
            return self.stage.factors.of(
                self.name,
                (self.lam, rows.shape, rows.dtype, rows.device),
                lambda: factorise_design(operator, rows, self.lam),
            )
        except FactorisationError as error:
            raise self.explained(error) from None

    def keep(self, matrix: Tensor) -> None:
        """Cache the weights to apply outside of passes."""
        weight, bias = self.from_matrix(matrix)
        self.kept_weight = weight.contiguous()
        self.kept_bias = None if bias is None else bias.contiguous()


_S = TypeVar("_S", bound=StandIn)
_Make = Callable[[Any, str], StandIn]
_registry: dict[type[nn.Module], tuple[_Make, Callable[[Any], bool]]] = {}


def register(
    kind: type[nn.Module], accepts: Callable[[Any], bool] = lambda layer: True
) -> Callable[[type[_S]], type[_S]]:
    """Register a class of layers that stand in for a kind of torch layers.

    Parameters
    ----------
    kind : type
        Class of the ordinary layer.  Subclasses of it are not replaced: what they
        do with their weights is not known.
    accepts : callable, optional
        Returns whether an ordinary layer can be replaced; by default all can.

    Returns
    -------
    callable
        Class decorator; the class is called with (layer, name).
    """

    def decorate(cls: type[_S]) -> type[_S]:
        _registry[kind] = cls, accepts
        return cls

    return decorate


def is_registered(layer: nn.Module) -> bool:
    """Return whether there are target layers for the kind of a layer."""
    return type(layer) in _registry


def target_layer_for(layer: nn.Module, name: str) -> StandIn | None:
    """Make the target layer for an ordinary one, or None if its kind has none.

    Parameters
    ----------
    layer : nn.Module
        The ordinary layer.
    name : str
        Its path in the wrapped module.

    Returns
    -------
    StandIn or None
        A layer without targets yet, holding the weights of `layer`.
    """
    entry = _registry.get(type(layer))
    if entry is None:
        return None
    make, accepts = entry
    return make(layer, name) if accepts(layer) else None
