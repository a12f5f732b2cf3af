"""What an estimator of sequences chooses where its user does not."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sktarget.architectures import chrono_
from sktarget.estimators import _sequence_rules
from sktarget.estimators._arrays import Units
from sktarget.estimators._base import BaseTargetSpace
from sktarget.estimators._channel_units import (
    in_units,
    rows_in_units,
    units_of_channels,
)
from sktarget.estimators._fixed_batch import FixedRows
from sktarget.estimators._fixed_sequences import choose_fixed_sequences
from sktarget.estimators._holding_out import HoldingOut, can_hold_out
from sktarget.estimators._linear_baseline import error_of_linear_model, flattened
from sktarget.estimators._noise_rules import BADLY
from sktarget.estimators._retries import FEWER_AT_ONCE, MORE_ALPHA, OTHER_WEIGHTS, Retry
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._sequence_data import find_series, mean_length
from sktarget.estimators._task import Task
from sktarget.nn import TargetSpace
from sktarget.nn.base import is_recurrent
from sktarget.training import (
    Ending,
    NumberCriterion,
    TrainingSettings,
    n_batches,
    over_steps,
)

__all__ = ["SequenceChoices"]

Array = NDArray[Any]

# Share of the error of a network below which what predicts otherwise does much better.
_MUCH_BETTER = 0.8


class SequenceChoices(BaseTargetSpace):
    """Gates, X̄, λ, step size and weight decay of a recurrent network."""

    cell: str
    return_sequences: bool
    vocabulary_size: int | None
    embedding_dim: int
    fixed_sequence_length: int | str | None
    anchor: str
    initial_memory: float | str | None

    _choosing: ClassVar = (*BaseTargetSpace._choosing, "fixed_sequence_length")
    # Units in which the network learns from the channels, if they need any.
    _channel_units: Units | None = None

    # -- what kind of network it is --------------------------------------------------

    @property
    def _is_simple(self) -> bool:
        """Whether states have no gates; a module of the user's may have some."""
        return self.module is None and self.cell == "rnn"

    @property
    def _averages(self) -> bool:
        """Whether a new state is a mean of the old one and another."""
        return self.module is None and self.cell == "gru"

    @property
    def _embeds(self) -> bool:
        return self.vocabulary_size is not None

    # -- what it starts from ---------------------------------------------------------

    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        memory = self._initial_memory(task.rows)
        if memory is not None:
            chrono_(module, memory, task.generator)
        return super()._trainable(module, task)

    def _initial_memory(self, rows: TrainingRows) -> float | None:
        """Return the steps over which states may fade at first; None if not chosen."""
        in_weights = self.parameterization == "weights"
        # Random targets come from no gates.
        is_random = self.target_init == "normal" and not in_weights
        if self.module is not None or self._is_simple or is_random:
            return None
        if self.initial_memory != "auto":
            return None if self.initial_memory is None else float(self.initial_memory)
        if in_weights or self._embeds:
            return None
        return _sequence_rules.auto_initial_memory(mean_length(rows.X))

    # -- what it is judged by --------------------------------------------------------

    def _plan_holding_out(self, rows: TrainingRows) -> HoldingOut | None:
        plan = super()._plan_holding_out(rows)
        # A window that is held out can be filled in from those that overlap it.
        return plan and plan._replace(series=find_series(rows.X))

    def _auto_holding_out(self, rows: TrainingRows) -> HoldingOut | None:
        if not self._anneals_targets or self._epochs_to_reserve(self.max_iter) == 0:
            return None
        n, per_step = max(2, self._share_to_hold_out(rows)), bool(self.return_sequences)
        wants_to = _sequence_rules.spares_sequences(rows.n_distinct, per_step)
        if not (wants_to and can_hold_out(rows, n)):
            return None
        return HoldingOut(n, learns_all=True)

    @property
    def _may_run_again(self) -> bool:
        return self._anneals_targets

    def _epochs_to_reserve(self, max_iter: int) -> int:
        return _sequence_rules.sequence_epochs_to_reserve(max_iter)

    def _last_epochs(self, best_epoch: int, left: int, falls: bool) -> int:
        return _sequence_rules.auto_last_sequence_epochs(best_epoch, left)

    def _error_of_best_constant(self, y: Tensor, weight: Tensor | None) -> float:
        of_rows = super()._error_of_best_constant
        if not self.return_sequences:
            return of_rows(y, weight)
        return over_steps(lambda _, y, weight: of_rows(y, weight))(y, y, weight)

    def _continued_on(
        self, network: nn.Module, rows: TrainingRows, seed: int
    ) -> nn.Module:
        # X̄, a sample, may stay as it is.  Other targets would change recurrent weights.
        self._fixed_batch_is_all = False
        return copy.deepcopy(network).train()

    def _retries(self, ending: Ending, task: Task) -> list[Retry]:
        if not ending.is_natural:
            return []
        if not ending.has_learnt:
            # Whether a long memory is found within a run is partly luck.
            return [OTHER_WEIGHTS]
        error, retries = ending.held_out_error, []
        if error is None:
            return []
        is_too_short = _sequence_rules.may_be_too_short(error, ending.best_at)
        if is_too_short and self._may_take_fewer(task.rows):
            retries.append(FEWER_AT_ONCE)
        if self._learns_numbers and self._decay_follows_loss:
            retries.append(replace(MORE_ALPHA, above=BADLY))
        return retries

    def _advise(self, ending: Ending, task: Task) -> None:
        error, held_out = ending.held_out_error, task.held_out
        measure = self._stopping_error(torch.device("cpu"))
        if error is None or held_out is None or measure is None:
            return
        criterion, X = self._criterion, held_out.X
        if self.return_sequences or not isinstance(criterion, NumberCriterion):
            return
        if criterion.is_log or self._embeds or find_series(X) is None:
            return
        of_linear = error_of_linear_model(
            flattened(task.rows), flattened(held_out), measure
        )
        of_linear /= self._constant_error(held_out)
        if of_linear < _MUCH_BETTER * error:
            warnings.warn(
                "the windows that training stops by are predicted worse than by linear "
                f"regression on their steps: the errors are {error:.2g} and "
                f"{of_linear:.2g} of that of a constant. If the series has a trend, "
                "learn changes: subtract the last value of each window from X and y",
                stacklevel=2,
            )

    # -- what it learns from ---------------------------------------------------------

    def _note_inputs(self, task: Task) -> None:
        super()._note_inputs(task)
        self._channel_units = None
        in_weights = self.parameterization == "weights"
        if self.module is None and not (
            self._embeds or in_weights or self.target_init == "normal"
        ):
            self._channel_units = units_of_channels(task.rows)

    def _read_in_units(self, task: Task) -> None:
        units = self._channel_units
        if units is None:
            return
        are_all = task.all_rows is task.rows
        task.rows = rows_in_units(task.rows, units)
        if task.held_out is not None:
            task.held_out = rows_in_units(task.held_out, units)
        # Those are long, and are read again only to be learnt in the end.
        if are_all:
            task.all_rows = task.rows
        elif task.learns_all:
            task.all_rows = rows_in_units(task.all_rows, units)

    # -- X̄ ---------------------------------------------------------------------------

    def _choose_fixed_batch(
        self, module: nn.Module, rows: TrainingRows, seed: int
    ) -> FixedRows:
        longest = rows.X.shape[1]
        noise = self._embeds or self._fixed_batch_kind == "noise"
        length, size = self.fixed_sequence_length, self.fixed_batch_size
        if length == "auto":
            length = _sequence_rules.auto_fixed_length(longest) if noise else longest
        n_steps = longest if length is None else int(length)
        if size == "auto":
            size = _sequence_rules.auto_fixed_sequences(
                len(rows), n_steps, *_widest(module), per_step=self.return_sequences
            )
        fixed = choose_fixed_sequences(
            rows,
            self.fixed_batch,
            None if size is None else int(size),
            n_steps,
            self.embedding_dim if self._embeds else None,
            seed,
        )
        is_all = fixed is rows.X
        if self._channel_units is not None and self._fixed_batch_kind == "given":
            fixed = in_units(fixed, self._channel_units)
        return FixedRows(fixed, None, is_all)

    # -- λ, and what it pulls to -----------------------------------------------------

    def _anchor(self) -> str:
        if self.anchor != "auto":
            return self.anchor
        return _sequence_rules.auto_anchor(
            self._is_simple and self.target_init != "normal"
        )

    def _auto_lam(
        self, network: TargetSpace, rows: TrainingRows
    ) -> float | Sequence[float]:
        n_steps = int((~network.fixed_batch[..., 0].isnan()).sum())
        plain = of_states = _sequence_rules.auto_plain_recurrent_lam(n_steps)
        if network.anchor == "weights":
            of_states = _sequence_rules.auto_anchored_lam(n_steps)
        elif self._anneals_targets:
            of_states = _sequence_rules.auto_recurrent_lam(n_steps, mean_length(rows.X))
        lams, reads_states = [], False
        for layer in network.target_layers().values():
            if is_recurrent(layer):
                lams.append(of_states)
                reads_states = True
            elif reads_states and self._anneals_targets:
                n_rows = layer.targets[..., 0].numel()
                lams.append(_sequence_rules.auto_exit_lam(n_rows, rows.n_given))
            else:
                lams.append(plain)
        return lams

    # -- how it learns ---------------------------------------------------------------

    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        settings = super()._settings(rows)
        if self.module is None or not np.isnan(rows.X).any():
            return settings
        remedy = (
            "X has sequences of unequal lengths, and the module gets NaN after their "
            f"ends, which it has to leave out. Otherwise: {settings.remedy}"
        )
        return replace(settings, remedy=remedy)

    @property
    def _anneals_targets(self) -> bool:
        """Whether targets are learnt, with a step size that falls to zero."""
        return (
            self.parameterization == "targets"
            and not self._incremental
            and self._is_annealed
        )

    @property
    def _decay_follows_loss(self) -> bool:
        return self.alpha == "auto" and not self._embeds and self._anneals_targets

    def _auto_rate(self, rows: TrainingRows) -> float:
        annealed = _sequence_rules.auto_annealed_recurrent_rate(
            mean_length(rows.X), self._averages, self._embeds
        )
        if self._anneals_by_default and self._is_annealed:
            if not self._is_simple or self._embeds:
                return annealed
            n_updates = self._steps_of_epoch(rows) * self.max_iter
            return annealed * _sequence_rules.auto_share_of_rate(n_updates)
        return _sequence_rules.auto_recurrent_rate(
            self.solver, self.parameterization, annealed, self._embeds
        )

    def _auto_alphas(self, rows: TrainingRows) -> tuple[float, float]:
        if not self._decay_follows_loss:
            return super()._auto_alphas(rows)
        alpha = _sequence_rules.auto_recurrent_alpha(
            rows.n_given, gated=not self._is_simple
        )
        if self._learns_numbers and not self._run_rules.decays_strongly:
            alpha *= _sequence_rules.ALPHA_OF_NUMBERS
        return alpha, alpha

    def _may_take_fewer(self, rows: TrainingRows) -> bool:
        """Whether a further run may have smaller mini-batches, and far more of them."""
        n_steps = n_batches(len(rows), _sequence_rules.fewer_at_once(len(rows)))
        return self.batch_size == "auto" and n_steps >= 2 * self._steps_of_epoch(rows)

    def _batch_rows(self, rows: TrainingRows) -> int:
        by_rule = self.batch_size == "auto" and self._anneals_targets
        if self._run_rules.takes_fewer and by_rule:
            return _sequence_rules.fewer_at_once(len(rows))
        return super()._batch_rows(rows)

    def _patience(self, rows: TrainingRows) -> float:
        # Where the weight decay grows, the loss may rise while the network improves.
        automatic = self.n_iter_no_change == "auto"
        if automatic and self._decay_follows_loss and not self._asks_to_stop_early:
            return math.inf
        return super()._patience(rows)


def _widest(module: nn.Module) -> tuple[int, int]:
    """Count the inputs of the widest recurrent and the widest dense layer."""
    recurrent = [
        1 + flat[0].shape[1] + m.hidden_size
        for m in module.modules()
        if isinstance(m, nn.RNNBase)
        for flat in m.all_weights
    ]
    dense = [1 + m.in_features for m in module.modules() if isinstance(m, nn.Linear)]
    return max(recurrent, default=1), max(dense, default=1)
