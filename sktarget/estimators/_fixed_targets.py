"""X̄, λ and targets of an estimator, from the first fit to the next."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sktarget.architectures import DenseNetwork
from sktarget.estimators._arrays import as_tensor, torch_dtype
from sktarget.estimators._chosen_batch import ChosenBatch
from sktarget.estimators._initial_targets import (
    aim_at_labels,
    mean_labels,
    targets_of_origin,
)
from sktarget.estimators._input_units import standardise_inputs_, units_of_inputs
from sktarget.estimators._kept_targets import (
    put_targets_into,
    refuse_other_anchor,
    targets_and_anchors,
)
from sktarget.estimators._network import (
    check_outputs,
    ordinary_module,
    refuse_frozen,
    weight_names,
)
from sktarget.estimators._outliers import is_far_off, n_far_columns
from sktarget.estimators._rows import Role, TrainingRows
from sktarget.estimators._task import Task
from sktarget.nn import TargetSpace
from sktarget.training import state_to_numpy

__all__ = ["FixedTargets"]

Array = NDArray[Any]


class FixedTargets(ChosenBatch):
    """An estimator whose network learns targets on a fixed batch."""

    untangling: str
    target_init: str
    target_scale: float
    project_targets: bool

    _resumable: ClassVar = (
        *ChosenBatch._resumable,
        "targets_",
        "fixed_batch_",
        "_last_targets",
        "_last_untangling",
        "_anchors",
        "_chosen_by",
    )
    # By what X̄ was chosen; None if that is not known.
    _chosen_by: dict[str, str] | None = None
    # Seed of the order of rows in the fit that chose X̄.
    _arranged_by: int | None = None
    # Whether columns have values so far off that the network has to be bounded.
    _is_bounded = False

    @abstractmethod
    def _output_shape(self, X: Array) -> tuple[int, ...]:
        """Return the shape that the outputs for some rows must have."""

    def _with_enough_digits(self, rows: TrainingRows, role: Role) -> TrainingRows:
        if rows.X.dtype != np.float32 or not self._reads_table:
            return rows
        if role.first:
            # Weights for the columns as given subtract the mean only after the product.
            reads = self.parameterization == "targets" and self._starts_from_labels
            needs = reads and is_far_off(rows.bulk)
        else:
            others = role.training
            dtype = self._dtype if others is None else others.dtype
            needs = dtype == np.float64
        return rows.in_double() if needs else rows

    def _note_inputs(self, task: Task) -> None:
        rows = task.all_rows
        # One column with such values can be learnt.  Combinations of several cannot,
        # and an unbounded activation would give huge outputs for them.
        far = n_far_columns(rows.X, rows.weight, rows.bulk) if self._reads_table else 0
        self._is_bounded = far > 1

    # -- where training starts -------------------------------------------------------

    def _try_own_module(self, module: nn.Module, X: Array, dtype: Any) -> None:
        """Try a module of the user's, which also initialises lazy layers."""
        if self.module is not None:
            check_outputs(module, X[:2], torch_dtype(dtype), self._output_shape(X[:2]))

    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        """Choose X̄, and targets for it."""
        rows = task.rows
        self._space = self.parameterization
        self._try_own_module(module, rows.X, rows.dtype)
        self._n_own_layers = len(weight_names(module))
        self._fixed_batch_is_all = False
        self._input_units = None
        self._arranged_by = task.seed
        if self.parameterization == "weights":
            self.__dict__.pop("lam_", None)  # that of an earlier fit
            refuse_frozen(module)
            return module
        if self._starts_from_labels and self._reads_table:
            assert isinstance(module, DenseNetwork)
            standardise_inputs_(module, rows.bulk)
            self._input_units = units_of_inputs(rows.bulk, rows.dtype)
        network = self._to_targets(module, rows, task.seed)
        if self.target_init == "normal":
            network.reset_targets(
                self.target_scale,
                project=self.project_targets,
                generator=task.generator,
            )
        return network

    @property
    def _starts_from_labels(self) -> bool:
        """Whether the last layer is known to give the outputs, and may start freely."""
        return self.target_init == "auto" and self.module is None

    def _continued_on(
        self, network: nn.Module, rows: TrainingRows, seed: int
    ) -> nn.Module:
        self._average_weights(network)
        assert isinstance(network, TargetSpace)
        module, n_layers = ordinary_module(network).cpu(), len(network.target_layers())
        fixed, _ = self._read_fixed_batch(module, rows, seed)
        lam = self.lam
        if self._lam_is_auto:
            lam = self._auto_lam_of_table(len(fixed), n_layers, rows)
        return self._with_weights_of(module, fixed, lam).train()

    def _restored(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        """Go on from the targets of the last fit, or else from its weights."""
        self._fixed_batch_is_all = False
        self._refuse_other_space()
        self._try_own_module(module, rows.X, self._dtype)
        if self.parameterization == "weights":
            return module
        if self._chooses_anew():
            return self._to_targets(module, rows, seed, keep_weights=True)
        return self._with_kept_targets(module, rows)

    def _chooses_anew(self) -> bool:
        """Whether to choose another X̄ than that of the last fit."""
        kept = hasattr(self, "targets_")
        return not kept or self._chosen_by not in (None, self._choice())

    def _refuse_other_space(self) -> None:
        if self.parameterization != self._space:
            raise ValueError(
                f"warm_start and partial_fit cannot go on from "
                f"parameterization={self._space!r} to {self.parameterization!r}: set "
                "warm_start=False or clone the estimator"
            )

    def _with_kept_targets(self, module: nn.Module, rows: TrainingRows) -> TargetSpace:
        """Make a network with the targets that the last fit ended with."""
        self._set_input_units(module)
        fixed = self._kept_fixed_batch()
        lam = self.lam_ if self._lam_is_auto else self.lam
        network = self._target_space(module, as_tensor(fixed), lam)
        self._fixed_batch_is_all = np.array_equal(rows.X, fixed, equal_nan=True)
        refuse_other_anchor(network, self._anchors)
        # Targets mean other weights where they are solved for in another way.
        solved_for = network.lam, network.untangling
        if solved_for != (self.lam_, self._last_untangling):
            return self._with_weights_of(module, as_tensor(fixed), lam)
        put_targets_into(
            network, [*self.targets_[:-1], self._last_targets], self._anchors
        )
        return network

    def _arrange_again(self, task: Task) -> None:
        if not self._takes_all(task.rows):
            return
        if self._chooses_anew():
            self._arranged_by = task.seed
            task.rows = task.rows.distinct(task.seed)
        elif self._arranged_by is not None:
            arranged = task.rows.distinct(self._arranged_by)
            if np.array_equal(arranged.X, self.fixed_batch_):
                task.rows = arranged

    def _keep_network(self, network: nn.Module) -> None:
        if isinstance(network, TargetSpace):
            self.targets_, self._anchors = targets_and_anchors(network)
            self._last_targets = self.targets_[-1]
            self._last_untangling = network.untangling
            self._chosen_by = self._choice()
            if self._output_units is not None:
                origin, unit = self._output_units
                more = targets_of_origin(network, origin)
                self.targets_[-1] = self._last_targets * unit + more
            self.fixed_batch_ = state_to_numpy(network.fixed_batch)

    # -- X̄, λ and targets ------------------------------------------------------------

    def _to_targets(
        self,
        module: nn.Module,
        rows: TrainingRows,
        seed: int,
        *,
        keep_weights: bool = False,
    ) -> TargetSpace:
        """Choose X̄ and λ; take targets from the given weights, and from the labels."""
        fixed, place = self._read_fixed_batch(module, rows, seed)
        network = self._target_space(module, fixed)
        network.lam = self._auto_lam(network, rows) if self._lam_is_auto else self.lam
        self.lam_ = network.lam
        if keep_weights:  # The targets for that depend on λ, so take them anew.
            return self._with_weights_of(module, fixed, self.lam_)
        if place is not None and self._starts_from_labels and self._reads_table:
            self._aim_at_labels(network, rows, place)
        return network

    def _target_space(
        self,
        module: nn.Module,
        fixed: torch.Tensor,
        lam: float | Sequence[float] = 1e-3,
        *,
        keep_weights: bool = False,
    ) -> TargetSpace:
        """Make a network of a module, by the parameters of the estimator."""
        is_recurrent = any(isinstance(m, nn.RNNBase) for m in module.modules())
        return TargetSpace(
            module,
            fixed,
            lam,
            self.untangling,
            keep_weights=keep_weights,
            anchor=self._anchor() if is_recurrent else "zero",
        )

    def _with_weights_of(
        self, module: nn.Module, fixed: torch.Tensor, lam: float | Sequence[float]
    ) -> TargetSpace:
        """Make a network whose targets lead to the weights of a module."""
        # Moments that were kept are those of other targets.
        self.__dict__.pop("_optimiser_state", None)
        network = self._target_space(module, fixed, lam, keep_weights=True)
        self.lam_ = network.lam
        return network

    def _anchor(self) -> str:
        """Return what λ pulls the weights of recurrent layers to."""
        return "zero"

    def _aim_at_labels(
        self, network: TargetSpace, rows: TrainingRows, place: Array
    ) -> None:
        """Take the targets of the outputs from the labels of the rows of X̄."""
        n_fixed = len(network.fixed_batch)
        means = mean_labels(rows, place, n_fixed, self.n_outputs_)
        # What is absent here later calls may have, and would take long to undo.
        seen = torch.ones(self.n_outputs_, dtype=torch.bool, device="cpu")
        if self._incremental and not self._learns_numbers:
            seen = as_tensor(np.asarray(means.any(axis=0)))
        if self._loss == "cross_entropy" and not seen.all():
            return
        aims = as_tensor(aim_at_labels(self._loss, means, self._output_units))
        outputs = list(network.target_layers().values())[-1]
        with torch.no_grad():
            outputs.targets[:, seen] = aims[:, seen].to(outputs.targets)

    def _kept_fixed_batch(self) -> Array:
        """Return X̄ of the last fit as the network takes it."""
        fixed: Array = self.fixed_batch_
        return fixed
