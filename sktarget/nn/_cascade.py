"""The wrapped module with its target layers, and how it runs on X̄ and X."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from sktarget._tensors import is_recorded
from sktarget.nn._batch_norm import batch_norms, by_own_statistics
from sktarget.nn._checks import check_given, read_lam
from sktarget.nn._copying import copy_with, kept_tensors
from sktarget.nn._evaluation import as_in_evaluation, is_another_network
from sktarget.nn._inheritance import as_ordinary
from sktarget.nn._memory import keep_freed_memory
from sktarget.nn._pass import NotOneBatch, NotThisBatch, Pass, Phase, Stage
from sktarget.nn._replacement import replace_layer, replace_layers
from sktarget.nn._sequential import take_over_sequentials
from sktarget.nn._stacking import (
    has_rows,
    is_finite,
    same_memory,
    starts_as,
    without_first,
)
from sktarget.nn._target_map import TargetMap

__all__ = ["Cascade"]

# What X̄ is multiplied by to see what a module does with other numbers.
_AWAY = -8.0
# Modules that may drop something out in training.
_DROPOUTS = (_DropoutNd, nn.MultiheadAttention, nn.RNNBase)


class Cascade(nn.Module):
    """A copy of a module whose layers solve for their weights as it runs on X̄.

    This is what lies behind the interface of :class:`~sktarget.nn.TargetSpace`, which
    describes the parameters.
    """

    fixed_batch: Tensor
    # Whether passes have shown what the module does with its inputs in training.
    _has_trained = False
    # Batch normalisations that went by batches when the network was last in training.
    _norms_by_batch: tuple[nn.Module, ...] = ()

    def __init__(
        self,
        module: nn.Module,
        fixed_batch: Tensor,
        lam: float | Sequence[float],
        untangling: str,
        anchor: str,
        in_weight_space: Collection[str],
    ) -> None:
        super().__init__()
        check_given(module, fixed_batch)
        if any(isinstance(part, Cascade) for part in module.modules()):
            raise ValueError(
                "module holds a TargetSpace: give the module that it was made from, or "
                "what its realise() returns"
            )
        read_lam(lam, fixed_batch.dtype)
        if anchor not in ("zero", "weights"):
            raise ValueError(f"anchor must be 'zero' or 'weights', got {anchor!r}")
        self._fixed_shape = fixed_batch.shape
        self.untangling = untangling
        keep_freed_memory()
        self.register_buffer("fixed_batch", fixed_batch.detach())
        self.module, self._layers = replace_layers(module, in_weight_space)
        take_over_sequentials(self.module)
        # What parts hold before any pass belongs to them.
        self._given_tensors = kept_tensors(self.module)
        self._target_maps: dict[str, TargetMap] = {}
        for layer in self._layers.values():
            self._target_maps.update(layer.target_maps())
        modules = list(self.module.modules())
        self._norms = batch_norms(self.module)
        self._dropouts = [m for m in modules if isinstance(m, _DROPOUTS)]
        # Dropout that comes first and works in place would overwrite X̄ itself.  Other
        # modules that work in place are detected in first passes, which run on copies.
        self._works_in_place = any(getattr(m, "inplace", False) for m in self._dropouts)
        self._stage = Stage()
        for target_map in self._target_maps.values():
            target_map.stage = self._stage
        self._adopt_weights(module)
        if anchor == "weights":
            for target_map in self._target_maps.values():
                target_map.anchor_to_weights()
            if self.anchor == "zero":
                warnings.warn(
                    "anchor='weights' is for recurrent layers, of which the module has "
                    "none that are learnt by targets: λ pulls all weights to zero",
                    stacklevel=3,
                )
        self.lam = lam

    @property
    def lam(self) -> float | tuple[float, ...]:
        """The λ of the solves, one per layer where they differ; it may be changed."""
        lams = tuple(target_map.lam for target_map in self._target_maps.values())
        return lams[0] if len(set(lams)) == 1 else lams

    @lam.setter
    def lam(self, lam: float | Sequence[float]) -> None:
        lams = read_lam(lam, self.fixed_batch.dtype)
        if lams.ndim and len(lams) != len(self._target_maps):
            raise ValueError(
                f"lam gives {len(lams)} values, but the network has "
                f"{len(self._target_maps)} target layers: give one for each, or one "
                f"for all of them; these are {', '.join(map(repr, self._target_maps))}"
            )
        own = lams.expand(len(self._target_maps)).tolist()
        for target_map, value in zip(self._target_maps.values(), own, strict=True):
            target_map.lam = value

    @property
    def untangling(self) -> str:
        """``"scu"`` or ``"ocu"``; it may be changed."""
        return self._untangling

    @untangling.setter
    def untangling(self, untangling: str) -> None:
        if untangling not in ("scu", "ocu"):
            raise ValueError(f"untangling must be 'scu' or 'ocu', got {untangling!r}")
        self._untangling = untangling

    @property
    def anchor(self) -> str:
        """``"weights"`` if λ pulls any layer to its given weights, else ``"zero"``."""
        anchored = any(m.anchor is not None for m in self._target_maps.values())
        return "weights" if anchored else "zero"

    # -- targets from weights --------------------------------------------------------

    def _adopt_weights(self, given: nn.Module) -> None:
        """Take the sums of the given weights as targets: T ← S (Sec. 3.5)."""
        run, outputs = self._first_record()
        self._refuse_another_network(outputs, given)
        idle = [
            name
            for name, layer in self._layers.items()
            if not layer.target_maps().keys() & set(run.order)
        ]
        for name in idle:
            ordinary = as_ordinary(self._layers.pop(name))
            self.module = replace_layer(self.module, name, ordinary)
        if idle:
            warnings.warn(
                f"layers {', '.join(map(repr, idle))} do not run on the fixed batch "
                "and keep their weights",
                stacklevel=4,
            )
        self._target_maps = {name: self._target_maps[name] for name in run.order}
        if not self._target_maps:
            raise ValueError(
                "the module has no layer that can be learnt by targets: none of a "
                "registered kind (nn.Linear, nn.Conv2d, nn.LSTM, ...) whose weights "
                "require gradients runs on the fixed batch"
            )
        self._stacks = self._may_stack(outputs)

    def _first_record(self) -> tuple[Pass, Any]:
        """Run the given weights on X̄, if need be with maps in their plain layout."""
        fixed = self.fixed_batch
        try:
            try:
                return self._record()
            except RuntimeError:
                # The module may take views of maps, which depend on their layout.
                changed = [layer.use_plain_layout() for layer in self._layers.values()]
                if not any(changed):
                    raise
                return self._record()
        except Exception as error:
            error.add_note(
                "This came up as the module ran on fixed_batch, of shape "
                f"{tuple(fixed.shape)} and {fixed.dtype}"
            )
            raise

    def _refuse_another_network(self, outputs: Any, given: nn.Module) -> None:
        """Refuse a module that does something else with target layers in it."""
        given = copy_with(given, {})  # It may keep traces of having run.
        layers = [given.get_submodule(name) for name in self._layers]
        if is_another_network(outputs, given, layers, self.fixed_batch):
            raise RuntimeError(
                "with target layers in the place of its own, the module gives other "
                "outputs on the fixed batch than without. It may ask for the class of "
                "its layers, as by isinstance(layer, nn.Linear), which target layers "
                "do not have: make what follows a layer a module of its own, or ask "
                "for an attribute such as out_features. Or freeze the layers in "
                "question (requires_grad=False): they then stay as they are"
            )

    def _may_stack(self, outputs: Any) -> bool:
        """Return whether X̄ gives the same results with other rows below it.

        It does not if the module mixes rows, or puts them along another axis.  A module
        whose own class declares that it treats rows alone is not tried out; if only a
        base class does, ``forward`` may differ.  Batch normalisation mixes rows only in
        training, so no trial would show it.
        """
        fixed, n = self.fixed_batch, len(self.fixed_batch)
        if not all(layer.stacks for layer in self._layers.values()):
            return False
        if self._norms or not all(
            getattr(m, "treats_rows_alone", True) for m in self.module.modules()
        ):
            return False
        if vars(type(self.module)).get("treats_rows_alone", False):
            return True
        # Without rows of the largest or smallest number: results of modules that scale
        # by these then differ.
        numbers = fixed.flatten(1)
        extreme = (numbers == numbers.max()) | (numbers == numbers.min())
        others = fixed[~extreme.any(1)] if n > 2 else fixed
        others = (others if len(others) else fixed)[: (n + 1) // 2]
        if not (has_rows(outputs, n) and self._go_together(others, outputs)):
            return False
        # Far from X̄ and on the other side of 0, modules may clip, or branch otherwise;
        # or fail, which says nothing, but on a GPU would not be forgotten.
        away = _AWAY * others
        return not fixed.is_cpu or self._go_together(away, outputs, may_fail=True)

    def _go_together(
        self, others: Tensor, outputs: Any, *, may_fail: bool = False
    ) -> bool:
        """Return whether these rows and X̄, one below the other, run as if alone."""
        stacked = torch.cat([self.fixed_batch, others])
        try:
            with torch.no_grad(), self._as_in_evaluation():
                alone = self.module(others.clone())
                if may_fail and not is_finite(alone):
                    return True
                both = self._run(Phase.COMPARE, stacked)[1]
        except NotOneBatch:
            return False
        except Exception:  # The module may fail in any way on other rows.
            return may_fail
        return (
            has_rows(alone, len(others))
            and has_rows(both, len(stacked))
            and starts_as(both, outputs)
            and starts_as(without_first(both, len(self.fixed_batch)), alone)
        )

    def _record(self, *, exact: bool = False) -> tuple[Pass, Any]:
        """Run the layers' own weights on X̄, and take the sums as targets.

        If `exact`, take targets that lead back to these weights instead.
        """
        with torch.no_grad(), self._as_in_evaluation():
            return self._run(Phase.RECORD, self.fixed_batch.clone(), exact=exact)

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

    # -- passes ----------------------------------------------------------------------

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
        two independently, and if X needs gradients, since X̄ is constant.
        """
        return self.untangling == "ocu" or is_recorded(x) or self.is_random

    @property
    def is_random(self) -> bool:
        """Whether anything is dropped out in the present mode."""
        return any(layer.is_random for layer in self._layers.values()) or any(
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
            outputs = self.module(inputs)
        finally:
            self._stage.current = None
        self._note_changes(run)
        return run, outputs

    @contextmanager
    def _as_in_evaluation(self) -> Iterator[None]:
        """Switch dropout and batch statistics off for a pass."""
        with as_in_evaluation(self.module, self._layers.values()):
            yield

    def _solve_on_fixed_batch(
        self, *, most_lam: float | None = None
    ) -> dict[str, Tensor]:
        fixed = self._unchanging(self.fixed_batch)
        by_batch = [m for m in self._norms if m.training or m in self._norms_by_batch]
        with by_own_statistics(by_batch):
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


def _rate_of_dropout(module: nn.Module) -> float:
    """Return the probability with which a module drops something out in training."""
    if isinstance(module, _DropoutNd):
        return module.p
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return 0.0  # It drops something out between its layers only.
    rate: float = module.dropout  # type: ignore[assignment]
    return rate
