"""A linear map that is solved for on X̄."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn._operators import DesignOperator
from sktarget.nn._pass import NotOneBatch, Pass, Phase, Stage
from sktarget.nn._solution import MeanEigenvalue, Solution, factorise_design
from sktarget.nn._stacking import starts_as

__all__ = ["TargetMap"]


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

    def _rule_for_lam(self) -> MeanEigenvalue | None:
        """Return how to choose λ, if that is still to be done in the current pass."""
        current = self.stage.current
        if current is None or current.most_lam is None or self.name in current.chosen:
            return None
        return MeanEigenvalue(self.has_bias, current.most_lam)

    def factorise(self, operator: DesignOperator, rows: Tensor) -> Solution:
        """Factorise for inputs that change; first try the arithmetic of last time."""
        rule = self._rule_for_lam()
        lam = self.lam if rule is None else rule
        solution = factorise_design(operator, rows, lam, self._last_dtype)
        if rule is not None:
            self.lam = solution.lam
            assert self.stage.current is not None
            self.stage.current.chosen.add(self.name)
        if self._last_dtype != solution.plan.gram_dtype:
            self._last_dtype = solution.plan.gram_dtype
        return solution

    def factorise_once(self, operator: DesignOperator, rows: Tensor) -> Solution:
        """Return the factorisation for inputs that are X̄ itself."""
        return self.stage.factors.of(
            self.name,
            (self.lam, rows.shape, rows.dtype, rows.device),
            lambda: factorise_design(operator, rows, self.lam),
        )

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

    def note_sums(self, sums: Tensor, phase: Phase) -> None:
        """Compare the sums met with the targets, or take them as targets."""
        if phase is Phase.COMPARE:
            self.compare(sums)
        else:
            self.take_targets(sums, phase)

    def check(self, matrix: Tensor) -> None:
        """Raise if weights are not finite: on a GPU a solve fails without an error."""
        if not matrix.is_cpu and not matrix.isfinite().all():
            raise self.explained(FactorisationError("its weights are not finite"))

    def refuse_other_rows(self, n_rows: int, current: Pass) -> None:
        """Refuse inputs on X̄ alone that are not one for each target."""
        if current.is_alone and n_rows != self.targets.shape[0]:
            raise RuntimeError(
                f"{self.description} is fed {n_rows} rows on the fixed batch, "
                f"but has targets for {self.targets.shape[0]}: a module must lead the "
                "same rows through a layer in every pass. Freeze the layer "
                "(requires_grad=False) if what it is fed depends on what is learnt"
            )

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
