"""How rows outside of training judge a fit: when to stop, whether to try again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sktarget.estimators import _noise_rules
from sktarget.estimators._arrays import torch_dtype
from sktarget.estimators._course import TrainingCourse
from sktarget.estimators._holding_out import HoldingOut, can_hold_out
from sktarget.estimators._linear_baseline import error_of_linear_model
from sktarget.estimators._outliers import far_rows
from sktarget.estimators._retries import (
    BY_LBFGS,
    LESS_LAM,
    MORE_ALPHA,
    MORE_EPOCHS,
    Retry,
)
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._task import Task
from sktarget.estimators._weights import weights_or_ones
from sktarget.training import Ending, Loss, NumberCriterion

__all__ = ["JudgedCourse"]

# Share of rows up to which those far from all others are not held out.
_MOST_FAR = 0.05


class JudgedCourse(TrainingCourse):
    """An estimator that holds rows out, and goes by what is made of them."""

    # -- which rows ------------------------------------------------------------------

    def _plan_holding_out(self, rows: TrainingRows) -> HoldingOut | None:
        if self.early_stopping != "auto":
            return super()._plan_holding_out(rows)
        return None if self.warm_start else self._auto_holding_out(rows)

    def _auto_holding_out(self, rows: TrainingRows) -> HoldingOut | None:
        """Return how many rows to hold out, if there are enough; None for none."""
        if not self._follows_table_rules or rows.are_tallied:
            return None
        # Users who ask for early stopping may want rows that the network never sees.
        learns_all = self._is_annealed and self._epochs_to_reserve(self.max_iter) > 0
        n = self._share_to_hold_out(rows)
        if learns_all:
            n = max(n, _noise_rules.auto_held_out(rows.n_distinct))
        wants_to = _noise_rules.auto_early_stopping(rows.n_distinct, learns_all)
        if not (wants_to and can_hold_out(rows, n)):
            return None
        plan = HoldingOut(n, learns_all)
        return _without_far_rows(plan, rows) if learns_all else plan

    # -- when to stop -----------------------------------------------------------------

    def _patience(self, rows: TrainingRows) -> float:
        if not self._follows_table_rules or self.n_iter_no_change != "auto":
            return super()._patience(rows)
        if self._run_rules.never_decays:
            return math.inf
        n_steps = self._steps_of_epoch(rows)
        return _noise_rules.auto_table_patience(len(rows), n_steps, self._is_annealed)

    def _stopping_error(self, device: torch.device) -> Loss | None:
        if self.early_stopping != "auto":
            return None
        if self._learns_numbers:
            return self._loss_function(device)
        return self._criterion.error

    def _constant_error(self, held_out: TrainingRows) -> float:
        data = held_out.to_tensors(torch.device("cpu"), torch_dtype(held_out.dtype))
        return self._error_of_best_constant(data.y, data.weight)

    def _error_of_best_constant(self, y: Tensor, weight: Tensor | None) -> float:
        error = self._stopping_error(y.device)
        if error is None or not bool((y != y[0]).any()):
            return 0.0
        constant = self._criterion.best_constant(y, weight, self.n_outputs_)
        return float(error(constant, y, weight))

    # -- whether to try again ---------------------------------------------------------

    @property
    def _may_run_again(self) -> bool:
        return self._follows_table_rules and self._is_annealed

    def _retries(self, ending: Ending, task: Task) -> list[Retry]:
        error, held_out = ending.held_out_error, task.held_out
        if error is None or held_out is None or not ending.is_natural:
            return []
        if held_out.n_distinct < _noise_rules.ENOUGH_TO_JUDGE:
            return []
        rows, retries, n_layers = task.rows, [], self._n_layers
        # As many columns as rows fit everything already: what is missed is not there.
        may_fit_more = rows.n_varying < len(rows)
        if self._lam_is_auto and not ending.has_learnt and may_fit_more:
            retries.append(LESS_LAM)
        smooths = self._smooths_borders(rows) and self._lam_is_auto
        soon = smooths and rows.n_with_held_out < _noise_rules.FEW_BY_LBFGS
        best_at = math.inf if soon else ending.best_at
        underfits = _noise_rules.may_underfit(error, best_at, self.max_iter, n_layers)
        if underfits and may_fit_more and self._may_go_by_lbfgs(rows):
            # Where nothing has been learnt, borders may bend often.
            changes = {**BY_LBFGS.changes, "smooths": ending.has_learnt}
            retries.append(replace(BY_LBFGS, changes=changes))
        if self.alpha == "auto" and _noise_rules.may_fit_noise(
            error, n_layers, rows.n_varying, rows.n_with_held_out
        ):
            above = _noise_rules.noisy_above(n_layers)
            retries.append(replace(MORE_ALPHA, above=above))
        if ending.has_learnt:
            above = self._stuck_above(error, rows, held_out)
            if error > above:
                retries.append(replace(MORE_EPOCHS, above=above))
        return retries

    def _stuck_above(
        self, held_out_error: float, rows: TrainingRows, held_out: TrainingRows
    ) -> float:
        """Return above which error more epochs without weight decay may pay off."""
        by_rule = self.alpha == "auto" and self.n_iter_no_change == "auto"
        error = self._stopping_error(torch.device("cpu"))
        criterion, n_layers = self._criterion, self._n_layers
        # A linear model of logarithms would have to be iterated.
        if not isinstance(criterion, NumberCriterion) or criterion.is_log:
            return math.inf
        if not (by_rule and self._takes_all(rows) and error):
            return math.inf
        if held_out_error <= _noise_rules.stuck_above(0.0, n_layers):
            return math.inf  # whatever a linear model may do
        of_linear = error_of_linear_model(rows, held_out, error)
        share = of_linear / self._constant_error(held_out)
        return _noise_rules.stuck_above(share, n_layers)

    def _may_go_by_lbfgs(self, rows: TrainingRows) -> bool:
        # L-BFGS takes all rows in every step.
        few = rows.n_with_held_out <= _noise_rules.MOST_BY_LBFGS
        return self._batches_by_rule and self._is_annealed and few


def _without_far_rows(plan: HoldingOut, rows: TrainingRows) -> HoldingOut:
    """Keep a few rows far from all others: what is made of them says little."""
    far = far_rows(rows.X, rows.weight, rows.bulk)
    weight = weights_or_ones(rows.weight, len(rows))
    are_few = 0 < np.average(far, weights=weight) <= _MOST_FAR
    return plan._replace(stays=far) if are_few else plan
