"""The choice of X̄ and of λ by the parameters of an estimator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import nn

from sktarget.architectures import DenseNetwork
from sktarget.estimators import _rules
from sktarget.estimators._arrays import Units, as_tensor
from sktarget.estimators._fixed_batch import (
    FixedRows,
    choose_fixed_batch,
    warn_of_few_rows,
    warn_of_loss,
)
from sktarget.estimators._judged_course import JudgedCourse
from sktarget.estimators._kept_targets import describe_choice
from sktarget.estimators._network import WEIGHTED
from sktarget.estimators._rows import TrainingRows
from sktarget.nn import TargetSpace

__all__ = ["ChosenBatch"]

Array = NDArray[Any]


class ChosenBatch(JudgedCourse):
    """An estimator that chooses a fixed batch, and λ to go with it."""

    # Parameters by which X̄ is chosen.
    _choosing: ClassVar[tuple[str, ...]] = ("fixed_batch", "fixed_batch_size")
    # Origin and unit of every column of X for the solves, if they need any.
    _input_units: Units | None = None

    def _choice(self) -> dict[str, str]:
        """Describe by what parameters X̄ is chosen."""
        return describe_choice({name: getattr(self, name) for name in self._choosing})

    def _read_fixed_batch(
        self, module: nn.Module, rows: TrainingRows, seed: int
    ) -> tuple[torch.Tensor, Array | None]:
        """Choose X̄ as a module takes it, and let the module read it in its units.

        Notes whether X̄ is all rows, which the choice of λ depends on.
        """
        self._set_input_units(module)
        chosen = self._choose_fixed_batch(module, rows, seed)
        self._fixed_batch_is_all = chosen.is_all
        fixed = as_tensor(chosen.values)
        if fixed.is_floating_point():  # X may have another dtype than in the first fit.
            of_weights = (p.dtype for p in module.parameters() if p.is_floating_point())
            fixed = fixed.to(next(of_weights, fixed.dtype))
        return fixed, chosen.place

    def _choose_fixed_batch(
        self, module: nn.Module, rows: TrainingRows, seed: int
    ) -> FixedRows:
        """Choose X̄ by the parameters and the rules."""
        self._check_columns_of_fixed_batch()
        widest, n_pixels = 1 + max(_n_inputs(module), default=0), rows.X[0, :1].size
        if self._incremental and self._fixed_batch_kind == "sample":
            self._warn_of_small_share(len(rows) * n_pixels, widest)
        size = self._n_fixed(rows, widest, n_pixels)
        return choose_fixed_batch(
            rows,
            self.fixed_batch,
            size,
            seed,
            of_all_columns=self.fixed_batch_size == "auto" and rows.X.ndim == 2,
        )

    def _n_fixed(self, rows: TrainingRows, widest: int, n_pixels: int) -> int | None:
        """Return n̄_b, or None for all rows."""
        size = self.fixed_batch_size
        if self._takes_all(rows):
            return None
        if size != "auto":
            return None if size is None else int(size)
        if self._follows_table_rules:
            n = rows.n_with_held_out
            return _rules.auto_table_fixed_batch_size(len(rows), n, widest)
        return _rules.auto_fixed_batch_size(len(rows), widest, n_pixels)

    def _warn_of_small_share(self, n_rows: int, widest: int) -> None:
        """Warn of an X̄ that has to be chosen from the few rows of one call."""
        if not self._has_network:
            warn_of_few_rows(n_rows, widest)
        elif n_rows < widest:
            warn_of_loss(n_rows, widest, kept=hasattr(self, "targets_"))

    def _check_columns_of_fixed_batch(self) -> None:
        given = getattr(self.fixed_batch, "columns", None)
        known = getattr(self, "feature_names_in_", None)
        if given is not None and known is not None and list(given) != list(known):
            raise ValueError(
                f"fixed_batch has the columns {list(given)}, but X has {list(known)}: "
                "give the same ones, in the same order"
            )

    def _set_input_units(self, module: nn.Module) -> None:
        """Set the units of the inputs for the solves, if the inputs need any."""
        if self._input_units is not None and isinstance(module, DenseNetwork):
            module.measure_inputs(*map(as_tensor, self._input_units))

    def _auto_lam(
        self, network: TargetSpace, rows: TrainingRows
    ) -> float | Sequence[float]:
        if self._images is not None:
            return network.choose_lam(_rules.MOST_IMAGE_LAM).lam
        n_fixed, n_layers = len(network.fixed_batch), len(network.target_layers())
        return self._auto_lam_of_table(n_fixed, n_layers, rows)

    def _auto_lam_of_table(
        self, n_fixed: int, n_layers: int, rows: TrainingRows
    ) -> float:
        n_given = rows.n_given if self._fixed_batch_is_all else n_fixed
        lam = _rules.auto_lam(n_fixed, n_layers, n_given, rows.n_varying)
        rules = self._run_rules
        if rules.smooths and self._smooths_borders(rows):
            by_lbfgs = rules.by_lbfgs and not self._incremental
            lam *= _rules.auto_lam_of_classes(n_given, by_lbfgs)
        return rules.lam_share * lam


def _n_inputs(module: nn.Module) -> list[int]:
    """Return the number of inputs per output of each weighted layer."""
    layers = (m for m in module.modules() if isinstance(m, WEIGHTED))
    return [math.prod(layer.weight.shape[1:]) for layer in layers]
