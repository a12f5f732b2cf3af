"""How a module with target layers runs on X̄ and X."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from sktarget._tensors import is_recorded
from sktarget.nn._batch_norm import batch_norms, by_own_statistics
from sktarget.nn._evaluation import as_in_evaluation, calling_layers, is_encoder
from sktarget.nn._pass import NotOneBatch, NotThisBatch, Pass, Phase, Stage
from sktarget.nn._stacking import has_rows, same_memory, without_first
from sktarget.nn._stand_in import StandIn
from sktarget.nn._target_map import TargetMap

__all__ = ["PassRunner"]

# Modules that may drop something out in training.
_DROPOUTS = (_DropoutNd, nn.MultiheadAttention, nn.RNNBase)


class PassRunner(nn.Module):
    """A module with target layers, and how it runs on X̄ and X: apart, or as one batch.

    Parameters
    ----------
    module : nn.Module
        The module.
    layers : dict of str to StandIn
        What stands in for its own layers, by name.
    fixed_batch : Tensor of shape (n̄_b, ...)
        X̄.
    untangling : {"scu", "ocu"}
        What a layer hands on of X̄: the sums met, or the targets.
    """

    fixed_batch: Tensor
    # Whether passes have shown what the module does with its inputs in training.
    _has_trained = False
    # What went by batches, and what dropped out, when the network was last in training.
    _norms_by_batch: tuple[nn.Module, ...] = ()
    _random_parts: tuple[nn.Module, ...]
    # Whether X̄ and X may run as one batch.
    _stacks = False

    def __init__(
        self,
        module: nn.Module,
        layers: dict[str, StandIn],
        fixed_batch: Tensor,
        untangling: str,
    ) -> None:
        super().__init__()
        self._fixed_shape = fixed_batch.shape
        self.untangling = untangling
        if fixed_batch.is_inference():  # It could not be saved for a backward pass.
            with torch.inference_mode(False):
                fixed_batch = fixed_batch.clone()
        self.register_buffer("fixed_batch", fixed_batch.detach())
        self.module, self._stand_ins = module, layers
        self._target_maps: dict[str, TargetMap] = {}
        for layer in layers.values():
            self._target_maps.update(layer.target_maps())
        modules = list(module.modules())
        self._norms = batch_norms(module)
        self._encoders = [m for m in modules if is_encoder(m)]
        self._dropouts = [m for m in modules if isinstance(m, _DROPOUTS)]
        # Dropout that comes first and works in place would overwrite X̄ itself.  Other
        # modules that work in place are detected in first passes, which run on copies.
        self._works_in_place = any(getattr(m, "inplace", False) for m in self._dropouts)
        self._random_parts = (*self._dropouts, *layers.values())
        self._stage = Stage()
        for target_map in self._target_maps.values():
            target_map.stage = self._stage

    @property
    def untangling(self) -> str:
        """``"scu"`` or ``"ocu"``; it may be changed."""
        return self._untangling

    @untangling.setter
    def untangling(self, untangling: str) -> None:
        if untangling not in ("scu", "ocu"):
            raise ValueError(f"untangling must be 'scu' or 'ocu', got {untangling!r}")
        self._untangling = untangling

    def _solve_and_run(self, x: Any) -> tuple[Any, dict[str, Tensor]]:
        """Solve on X̄, run on X; return the outputs for X and the matrices by name."""
        fixed = self.fixed_batch
        if not isinstance(x, Tensor):
            return self._solve_then_run(x)
        if same_memory(x, fixed) and not self._rows_differ(x):
            run, outputs = self._run(Phase.SOLVE, self._unchanging(x), is_alone=True)
            return outputs, run.weights
        if self._stacks and x.shape[1:] == fixed.shape[1:] and x.dtype == fixed.dtype:
            try:
                return self._run_stacked(x)
            except NotThisBatch:
                pass
            except NotOneBatch:  # The trial at construction was misleading.
                self._stacks = False
        return self._solve_then_run(x)

    def _run_stacked(self, x: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Run X̄ and X as one batch, X̄ on top."""
        run, outputs = self._run(Phase.SOLVE, torch.cat([self.fixed_batch, x]))
        if not has_rows(outputs, len(run.inputs)):
            raise NotOneBatch
        return without_first(outputs, len(self.fixed_batch)), run.weights

    def _solve_then_run(self, x: Any) -> tuple[Any, dict[str, Tensor]]:
        """Run X̄ and then, with the weights found, `x`, which may have another shape."""
        weights = self._solve_on_fixed_batch()
        _, outputs = self._run(Phase.APPLY, self._unchanging(x), weights=weights)
        return outputs, weights

    def _rows_differ(self, x: Tensor) -> bool:
        """Return whether the network may treat equal rows of X̄ and X differently.

        It does with optimistic untangling, with dropout, which is drawn for each of the
        two independently, and if X needs gradients, since X̄ is constant; in evaluation
        also where X̄ alone is normalised by its own statistics.
        """
        return (
            self.untangling == "ocu"
            or is_recorded(x)
            or self.is_random
            or bool(self._norms_by_batch and not self.module.training)
        )

    @property
    def is_random(self) -> bool:
        """Whether anything is dropped out in the present mode."""
        return any(layer.is_random for layer in self._stand_ins.values()) or any(
            m.training and _rate_of_dropout(m) > 0 for m in self._dropouts
        )

    def _run(
        self,
        phase: Phase,
        inputs: Any,
        *,
        weights: dict[str, Tensor] | None = None,
        is_alone: bool = False,
        exact: bool = False,
        most_lam: float | None = None,
    ) -> tuple[Pass, Any]:
        """Run the module once, with a pass on the stage; return it and the outputs."""
        self._renew_factors()
        optimistic = self.untangling == "ocu" and (exact or phase is Phase.SOLVE)
        run = Pass(
            phase,
            inputs,
            optimistic=optimistic,
            is_alone=is_alone,
            exact=exact,
            most_lam=most_lam,
            weights={} if weights is None else weights,
        )
        self._stage.current = run
        try:
            with self._calling_layers():
                outputs = self.module(inputs)
        finally:
            self._stage.current = None
        self._note_changes(run)
        return run, outputs

    def _as_in_evaluation(self) -> AbstractContextManager[None]:
        """Switch dropout and batch statistics off for a pass."""
        return as_in_evaluation(self.module, ())

    def _calling_layers(self) -> AbstractContextManager[None]:
        """Let torch call all layers, which have no weights to read within a pass."""
        if all(encoder.training for encoder in self._encoders):
            return nullcontext()
        return calling_layers(self.module, self._stand_ins.values())

    @contextmanager
    def _as_in_solves(self) -> Iterator[None]:
        """Switch dropout off, and let X̄ be normalised as in training."""
        self._note_modes()
        with self._as_in_evaluation(), self._by_own_statistics():
            yield

    def _by_own_statistics(self) -> AbstractContextManager[None]:
        """Normalise X̄ by its own statistics where batches have theirs in training."""
        norms = batch_norms(self.module) if self._norms else []  # Some may be new.
        # In training they show it themselves; some may have been frozen since.
        noted = () if self.module.training else self._norms_by_batch
        return by_own_statistics([m for m in norms if m.training or m in noted])

    def _note_modes(self) -> None:
        """Note what is in training mode in training, for solves outside of it.

        There X̄ is normalised by its own statistics where batches were.  Those of the
        batches that were learnt would lead to other weights than training has found.
        And dropout of which the mean is taken is what training has met.
        """
        if not self.training:
            return
        if self._norms:
            norms = batch_norms(self.module)
            self._norms_by_batch = tuple(m for m in norms if m.training)
        parts = (*self._dropouts, *self._stand_ins.values())
        self._random_parts = tuple(m for m in parts if m.training)

    def _solve_on_fixed_batch(
        self, *, most_lam: float | None = None
    ) -> dict[str, Tensor]:
        """Run X̄ alone; return the matrices that its layers have solved for."""
        fixed = self._unchanging(self.fixed_batch)
        with self._by_own_statistics():
            run, _ = self._run(Phase.SOLVE, fixed, is_alone=True, most_lam=most_lam)
        return run.weights

    def _renew_factors(self) -> None:
        """Drop the factors of another X̄, which must have the shape of the first."""
        fixed, factors = self.fixed_batch, self._stage.factors
        if factors.belong_to(fixed):
            return
        if fixed.shape != self._fixed_shape:
            raise ValueError(
                f"fixed_batch has been given the shape {tuple(fixed.shape)}, but the "
                f"targets belong to one of shape {tuple(self._fixed_shape)}: make a "
                "new TargetSpace from net.realise().train() and the other fixed batch"
            )
        factors.renew(fixed)

    def _unchanging(self, rows: Any) -> Any:
        """Return rows for a pass to run on: a copy if the pass could change them."""
        untried = self.module.training and not self._has_trained
        may_change = self._works_in_place or untried
        return rows.clone() if may_change and isinstance(rows, Tensor) else rows

    def _note_changes(self, run: Pass) -> None:
        """Note whether a pass has changed its inputs in place."""
        if run.has_changed_inputs():
            self._works_in_place = True
            if same_memory(run.inputs, self.fixed_batch):
                raise RuntimeError(
                    "the module has written over the fixed batch, although it left "
                    "its inputs alone in earlier passes: let it copy what it changes "
                    "(x = x + noise, not x += noise), and make a new TargetSpace"
                )
        if self.module.training:
            self._has_trained = True


def _rate_of_dropout(module: nn.Module) -> float:
    """Return the probability with which a module drops something out in training."""
    if isinstance(module, _DropoutNd):
        return module.p
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return 0.0  # It drops something out between its layers only.
    rate: float = module.dropout  # type: ignore[assignment]
    return rate
