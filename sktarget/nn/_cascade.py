"""The wrapped module with its target layers, and where its targets start."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sktarget.nn._checks import check_given, read_lam
from sktarget.nn._copying import copy_with, kept_tensors
from sktarget.nn._inheritance import as_ordinary
from sktarget.nn._memory import keep_freed_memory
from sktarget.nn._pass import NotOneBatch, Pass, Phase
from sktarget.nn._pass_runner import PassRunner
from sktarget.nn._replacement import replace_layer, replace_layers
from sktarget.nn._sequential import take_over_sequentials
from sktarget.nn._stacking import has_rows, is_finite, starts_as, without_first
from sktarget.nn._trials import (
    is_another_network,
    mixes_rows,
    never_inspects_parts,
)

__all__ = ["Cascade"]

# What X̄ is multiplied by to see what a module does with other numbers: far from X̄ and
# on the other side of 0 modules may clip, or branch otherwise.  Clipping may hide that
# they divide by the largest of all numbers; next to 0 they do not clip.
_OTHER_SCALES = (-8.0, 0.05)


class Cascade(PassRunner):
    """A copy of a module whose layers solve for their weights as it runs on X̄.

    This is what lies behind the interface of :class:`~sktarget.nn.TargetSpace`, which
    describes the parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        fixed_batch: Tensor,
        lam: float | Sequence[float],
        untangling: str,
        anchor: str,
        in_weight_space: Collection[str],
    ) -> None:
        check_given(module, fixed_batch)
        if any(isinstance(part, Cascade) for part in module.modules()):
            raise ValueError(
                "module holds a TargetSpace: give the module that it was made from, or "
                "what its realise() returns"
            )
        read_lam(lam, fixed_batch.dtype)
        if anchor not in ("zero", "weights"):
            raise ValueError(f"anchor must be 'zero' or 'weights', got {anchor!r}")
        keep_freed_memory()
        copied, stand_ins = replace_layers(module, in_weight_space)
        take_over_sequentials(copied)
        super().__init__(copied, stand_ins, fixed_batch, untangling)
        # What parts hold before any pass belongs to them.
        self._given_tensors = kept_tensors(self.module)
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
    def anchor(self) -> str:
        """``"weights"`` if λ pulls any layer to its given weights, else ``"zero"``."""
        anchored = any(m.anchor is not None for m in self._target_maps.values())
        return "weights" if anchored else "zero"

    # -- targets from weights --------------------------------------------------------

    def _adopt_weights(self, given: nn.Module) -> None:
        """Take the sums of the given weights as targets: T ← S (Sec. 3.5)."""
        run, outputs = self._first_record()
        if not never_inspects_parts(given):
            self._refuse_another_network(outputs, given)
        idle = [
            name
            for name, layer in self._stand_ins.items()
            if not layer.target_maps().keys() & set(run.order)
        ]
        for name in idle:
            ordinary = as_ordinary(self._stand_ins.pop(name))
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
                "require gradients runs on the fixed batch. Train it in weight space, "
                "as it is, or by parameterization='weights' of an estimator"
            )
        if any(norm.training for norm in self._norms):
            self._record()
        self._stacks = self._may_stack(outputs, given)

    def _first_record(self) -> tuple[Pass, Any]:
        """Run the given weights on X̄, if need be with maps in their plain layout."""
        fixed = self.fixed_batch
        try:
            try:
                return self._record(as_given=True)
            except RuntimeError:
                # The module may take views of maps, which depend on their layout.
                stand_ins = self._stand_ins.values()
                changed = [layer.use_plain_layout() for layer in stand_ins]
                if not any(changed):
                    raise
                return self._record(as_given=True)
        except Exception as error:
            error.add_note(
                "This came up as the module ran on fixed_batch, of shape "
                f"{tuple(fixed.shape)} and {fixed.dtype}"
            )
            raise

    def _refuse_another_network(self, outputs: Any, given: nn.Module) -> None:
        """Refuse a module that does something else with target layers in it."""
        given = copy_with(given, {})  # It may keep traces of having run.
        layers = [given.get_submodule(name) for name in self._stand_ins]
        if is_another_network(outputs, given, layers, self.fixed_batch):
            raise RuntimeError(
                "with target layers in the place of its own, the module gives other "
                "outputs on the fixed batch than without. It may ask for the class of "
                "its layers, as by isinstance(layer, nn.Linear), which target layers "
                "do not have: make what follows a layer a module of its own, or ask "
                "for an attribute such as out_features. Or freeze the layers in "
                "question (requires_grad=False): they then stay as they are"
            )

    def _may_stack(self, outputs: Any, given: nn.Module) -> bool:
        """Return whether X̄ gives the same results with other rows below it.

        It does not if the module mixes rows, or puts them along another axis.  A module
        whose own class declares that it treats rows alone is not tried out; if only a
        base class does, ``forward`` may differ.  Batch normalisation mixes rows only in
        training, so no trial would show it.
        """
        fixed, n = self.fixed_batch, len(self.fixed_batch)
        if not all(layer.stacks for layer in self._stand_ins.values()):
            return False
        if self._norms or not all(
            getattr(m, "treats_rows_alone", True) for m in self.module.modules()
        ):
            return False
        if vars(type(self.module)).get("treats_rows_alone", False):
            return True
        others = _without_extremes(fixed)[: (n + 1) // 2]
        if not (has_rows(outputs, n) and self._go_together(others, outputs)):
            return False
        # The others may fail, which says nothing, but on a GPU would not be forgotten.
        if not fixed.is_cpu:
            return True
        if mixes_rows(copy_with(given, {}), fixed, others):
            return False
        return all(
            self._go_together(scale * others, outputs, may_fail=True)
            for scale in _OTHER_SCALES
        )

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

    def _record(
        self, *, exact: bool = False, as_given: bool = False
    ) -> tuple[Pass, Any]:
        """Run the layers' own weights on X̄, and take the sums as targets.

        If `exact`, take targets that lead back to these weights instead.  If
        `as_given`, batches are normalised as the given module does it in evaluation.
        """
        context = self._as_in_evaluation() if as_given else self._as_in_solves()
        with torch.no_grad(), context:
            return self._run(Phase.RECORD, self.fixed_batch.clone(), exact=exact)


def _without_extremes(rows: Tensor) -> Tensor:
    """Leave out rows of the largest or smallest number, unless nothing would be left.

    Results of modules that scale by these then differ.
    """
    if len(rows) < 3 or rows.numel() == 0:
        return rows
    numbers = rows.flatten(1)
    extreme = (numbers == numbers.max()) | (numbers == numbers.min())
    others = rows[~extreme.any(1)]
    return others if len(others) else rows
