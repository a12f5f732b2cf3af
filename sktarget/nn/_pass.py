"""One run of the wrapped module, as its target layers see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from sktarget.nn._factors import Factors

__all__ = ["NotOneBatch", "NotThisBatch", "Pass", "Phase", "Stage"]


class NotOneBatch(Exception):  # noqa: N818 - a signal, caught by `PassRunner` and `Cascade`
    """X̄ and X cannot run as one batch, though X̄ alone looked as if they could."""


class NotThisBatch(NotOneBatch):
    """X cannot run below X̄, though another could."""


class Phase(Enum):
    """What the layers do while the wrapped module runs."""

    RECORD = "apply the layers' own weights and take the sums as targets"
    PROJECT = "solve, and take the sums met as the new targets"
    SOLVE = "solve on the first rows, apply to all"
    APPLY = "apply the weights that this pass has already solved for"
    COMPARE = "apply the layers' own weights, compare the sums on X̄ with the targets"


@dataclass
class Pass:
    """One run of the wrapped module, shared by its target layers.

    Attributes
    ----------
    phase : Phase
        What the layers do.
    inputs : Tensor or other
        What the module was called with: X̄, X, or X̄ on top of X.
    optimistic : bool
        Whether OCU is in force.
    is_alone : bool
        Whether X̄ runs alone, with no rows below it, on targets that are there already.
    exact : bool
        Whether the targets recorded are to lead back to the very weights applied.
    most_lam : float or None
        Bound on the λ that layers choose as they solve, see `MeanEigenvalue`; None if
        they keep what they have.
    chosen : set of str
        Names of those that have done so.
    weights : dict
        The weights that layers have solved for in this pass, by name.
    order : list of str
        Names of the layers in the order in which they ran.
    """

    phase: Phase
    inputs: Any
    optimistic: bool = False
    is_alone: bool = False
    exact: bool = False
    most_lam: float | None = None
    chosen: set[str] = field(default_factory=set)
    weights: dict[str, Tensor] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Tensors made in inference mode do not count changes in place, and those that
        # stand for others while these are compiled count their own.
        counts = (
            isinstance(self.inputs, Tensor)
            and not self.inputs.is_inference()
            and not torch.compiler.is_compiling()
        )
        self._version = self.inputs._version if counts else None

    @property
    def solves(self) -> bool:
        """Whether layers solve for their weights."""
        return self.phase in (Phase.SOLVE, Phase.PROJECT)

    @property
    def applies_own_weights(self) -> bool:
        """Whether layers apply the weights that they have, and solve for none."""
        return self.phase in (Phase.RECORD, Phase.COMPARE)

    def weights_of(self, name: str) -> Tensor:
        """Return the weights that a layer has solved for; raise if it has not."""
        if name not in self.weights:
            raise RuntimeError(
                f"layer {name!r} runs on the batch, but has not run on the fixed batch "
                "in this pass, and so has no weights: in training a module must use "
                "the same layers for both. Freeze the layer (requires_grad=False) if "
                "it is to be skipped at times"
            )
        return self.weights[name]

    def enter(self, name: str) -> None:
        """Note that a layer runs; a second time in one pass is an error."""
        if name in self.order:
            raise RuntimeError(
                f"layer {name!r} runs twice in one pass: one set of targets cannot "
                "serve two places of the cascade. Give each place a layer of its own, "
                "or leave it in weight space, by TargetSpace(..., in_weight_space="
                f"[{name!r}]), or all layers of an estimator by "
                "parameterization='weights'"
            )
        self.order.append(name)

    def has_changed_inputs(self) -> bool:
        """Return whether the module has changed its inputs in place."""
        if self._version is None or torch.compiler.is_compiling():
            return False
        return bool(self.inputs._version != self._version)

    def is_unchanged(self, inputs: Tensor) -> bool:
        """Return whether a layer's inputs are the module's, at most reshaped."""
        own = self.inputs
        return (
            self._version is not None
            and inputs.data_ptr() == own.data_ptr()
            and inputs.numel() == own.numel()
            and inputs.dtype == own.dtype
            and inputs.is_neg() == own.is_neg()
            and not self.has_changed_inputs()
            and _laid_out_alike(inputs, own)
        )


def _laid_out_alike(a: Tensor, b: Tensor) -> bool:
    both_plain = a.is_contiguous() and b.is_contiguous()
    return both_plain or (a.shape, a.stride()) == (b.shape, b.stride())


class Stage:
    """Where the target layers of one network find the current pass.

    Attributes
    ----------
    current : Pass or None
        The pass; None between passes, and in copies.
    factors : Factors
        Factorisations that do not change from pass to pass.
    lock : threading.RLock
        Held while the weights for evaluation are solved for.
    """

    def __init__(self) -> None:
        self.current: Pass | None = None
        self.factors = Factors()
        self.lock = RLock()

    def __reduce__(self) -> tuple[type[Stage], tuple[()]]:
        return Stage, ()
