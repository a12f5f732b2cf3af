"""How a network in target space is trained: batches, steps, and weight decay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sktarget.estimators import _noise_rules, _rules
from sktarget.estimators._estimator import NetworkEstimator
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._sizes import parse_layer_sizes
from sktarget.estimators._weights import MOST_WEIGHT
from sktarget.training import (
    TrainingSettings,
    brings_schedule,
    supported_schedule,
)

__all__ = ["TrainingCourse"]

# In scaling the weight decay, a weighted or repeated row counts as at most this many.
_MOST_REPEATS = 10


class TrainingCourse(NetworkEstimator):
    """An estimator whose parameters say how to train.

    Those that are ``"auto"`` are decided here, by the rules.
    """

    hidden_layer_sizes: Any
    lam: Any
    parameterization: str
    fixed_batch_size: Any
    fixed_batch: Any
    batch_norm: bool
    lam_: Any
    alpha: float | str
    learning_rate: str
    power_t: float
    nesterovs_momentum: bool
    beta_1: float
    beta_2: float
    epsilon: float | str
    max_fun: int

    # The shape of an image, if X holds images.
    _images: tuple[int, int, int] | None = None
    # Number of layers with weights in the user's own module.
    _n_own_layers = 1

    @property
    def _reads_table(self) -> bool:
        """Whether X is a table, not images or sequences."""
        return self._images is None

    @property
    def _follows_table_rules(self) -> bool:
        """Whether step size, batches, schedule and stopping are chosen together."""
        return self._reads_table and self._anneals_by_default

    @property
    def _has_image_targets(self) -> bool:
        """Whether the network learns from images in target space."""
        return self._images is not None and self.parameterization == "targets"

    @property
    def _anneals_by_default(self) -> bool:
        """Whether the step size falls to zero unless the user says otherwise."""
        return (
            self.learning_rate_init == "auto"
            and self.solver == "adam"
            and self.parameterization == "targets"
            and not self._incremental
            and (self.tol > 0 or not self._reads_table)
        )

    @property
    def _is_annealed(self) -> bool:
        """Whether the step size of `solver` falls to zero.

        It stays so in a further run by L-BFGS, which has no step size.
        """
        return self._schedule() == "annealed"

    @property
    def _normalises(self) -> bool:
        """Whether there is batch normalisation, of which a module decides itself."""
        return self.batch_norm and self.module is None

    @property
    def _n_layers(self) -> int:
        """How many layers with weights the network has."""
        if self.module is not None:
            return self._n_own_layers
        return 1 + len(parse_layer_sizes(self.hidden_layer_sizes))

    @property
    def _lam_is_auto(self) -> bool:
        return isinstance(self.lam, str)

    @property
    def _is_shallow(self) -> bool:
        """Whether it is shallow enough to tell classes apart in a few epochs."""
        return self._n_layers <= 2 and self.module is None

    @property
    def _fixed_batch_kind(self) -> str:
        """``"sample"`` or ``"noise"``, and ``"given"`` for an array."""
        return self.fixed_batch if isinstance(self.fixed_batch, str) else "given"

    @property
    def _batches_by_rule(self) -> bool:
        """Whether the rules for tables choose both X̄ and the batch."""
        return (
            self._follows_table_rules
            and (self._fixed_batch_kind, self.fixed_batch_size) == ("sample", "auto")
            and self.batch_size == "auto"
        )

    def _smooths_borders(self, rows: TrainingRows) -> bool:
        """Whether λ is to smooth the borders between classes.

        It does so in one hidden layer, and on three columns or more: on fewer, borders
        have to bend often.
        """
        has_one_layer = self._n_layers == 2 and self.module is None
        return has_one_layer and not self._learns_numbers and rows.n_varying > 2

    def _takes_all(self, rows: TrainingRows) -> bool:
        """Whether rows are few enough for all of them to be both X̄ and the batch."""
        few = rows.n_with_held_out <= _rules.MOST_AT_ONCE
        return self._batches_by_rule and few

    def _arrange(self, rows: TrainingRows, seed: int) -> TrainingRows:
        """Merge repeated rows where one pass serves both X̄ and X."""
        return rows.distinct(seed) if self._takes_all(rows) else rows

    def _batch_rows(self, rows: TrainingRows) -> int:
        batch_size, n_samples = super()._batch_rows(rows), len(rows)
        if self._present_solver == "lbfgs":
            batch_size = n_samples
        elif self.batch_size == "auto" and self._has_image_targets:
            batch_size = _rules.auto_image_batch_size(n_samples)
        elif self.batch_size == "auto" and self._follows_table_rules:
            n = rows.n_with_held_out
            batch_size = _rules.auto_table_batch_size(n_samples, n)
        if self._normalises and parse_layer_sizes(self.hidden_layer_sizes):
            return self._without_single_rows(n_samples, batch_size)
        return batch_size

    def _without_single_rows(self, n_samples: int, batch_size: int) -> int:
        """Return a batch size that leaves no single row, which has no variance."""
        while self.batch_size == "auto" and n_samples % batch_size == 1:
            batch_size -= 1
        if batch_size < 2 or n_samples % batch_size == 1:
            raise ValueError(
                f"batch_norm=True needs at least two rows in every mini-batch, but "
                f"{n_samples} rows in mini-batches of batch_size={self.batch_size!r} "
                "leave a single row over: give another batch_size, or more rows"
            )
        return batch_size

    def _epochs(self, rows: TrainingRows) -> int:
        if self._incremental:
            return 1
        by_rule = self._follows_table_rules and self._is_annealed
        if not by_rule or self._run_rules.by_lbfgs:
            return self.max_iter
        if self.n_iter_no_change == np.inf:  # which asks for all of them
            return self.max_iter
        return _noise_rules.auto_epochs(
            rows.n_given,
            self.max_iter,
            shallow=self._is_shallow,
            of_numbers=self._learns_numbers,
            holds_out=rows.has_validation,
        )

    def _last_epochs(self, best_epoch: int, left: int, falls: bool) -> int:
        if self._run_rules.by_lbfgs and not self._learns_numbers:
            return _noise_rules.auto_last_epochs_by_lbfgs(best_epoch, left)
        return super()._last_epochs(best_epoch, left, falls)

    def _auto_rate(self, rows: TrainingRows) -> float:
        if self._follows_table_rules:
            return _rules.auto_table_rate(self._n_layers)
        images = self._has_image_targets
        if images and self._anneals_by_default and self._is_annealed:
            steps = self._steps_of_epoch(rows) * self.max_iter
            return _rules.auto_annealed_image_rate(steps)
        return _rules.auto_rate(self.solver, self.parameterization, images)

    def _epsilon(self) -> float:
        if self.epsilon != "auto":
            return float(self.epsilon)
        return _rules.auto_epsilon(self._has_image_targets)

    def _schedule(self) -> str:
        if self.learning_rate != "auto":
            return supported_schedule(self.solver, self.learning_rate)
        # A schedule of the user's own would be overridden.
        own = brings_schedule(self.callbacks or ())
        return "annealed" if self._anneals_by_default and not own else "constant"

    def _alphas(self, rows: TrainingRows) -> tuple[float, float]:
        """Return the weight decay to begin with, and that to end with."""
        if self.alpha != "auto":
            return float(self.alpha), float(self.alpha)
        # The penalty is divided by the total weight.  Where that is less than the rows,
        # it would grow to many times what was studied, and lead to a constant; where
        # rows stand for thousands, as those of surveys, nothing would be left of it.
        total = min(rows.total_weight, MOST_WEIGHT)
        share = total / min(rows.n_given, _MOST_REPEATS * len(rows))
        first, last = self._auto_alphas(rows)
        return first * share, last * share

    @property
    def _decay_follows_loss(self) -> bool:
        """Whether the weight decay grows as the loss falls."""
        return False

    def _auto_alphas(self, rows: TrainingRows) -> tuple[float, float]:
        rules = self._run_rules
        by_rule = self._follows_table_rules and self._is_annealed
        if rules.never_decays or not by_rule:
            return _noise_rules.LEAST_ALPHA, _noise_rules.LEAST_ALPHA
        if rules.by_lbfgs:
            alpha = _noise_rules.auto_alpha_of_lbfgs(
                rows.n_given,
                self._n_layers,
                rows.n_varying,
                of_numbers=self._learns_numbers,
            )
            return alpha, alpha
        if rules.decays_strongly:
            return _noise_rules.STRONG_ALPHA, _noise_rules.STRONG_ALPHA
        return _noise_rules.auto_alphas(
            rows.n_given,
            self._n_layers,
            rows.n_varying,
            of_numbers=self._learns_numbers,
            holds_out=rows.has_validation,
        )

    # -- the training loop -----------------------------------------------------------

    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        rate = self._rate(rows)
        described, remedies = [], ["standardise X and y"]
        if not self._learns_numbers:
            remedies = ["standardise X"]
        if self.parameterization == "targets":
            lams = np.atleast_1d(self.lam_)
            described.append("lam=" + ", ".join(f"{lam:g}" for lam in lams))
            remedies.insert(0, "raise lam")
        if self._present_solver != "lbfgs":  # which searches for the length of a step
            described.append(f"learning_rate_init={rate:g}")
            remedies.insert(0, "lower learning_rate_init")
        epochs = self._epochs(rows)
        first_alpha, alpha = self._alphas(rows)
        return TrainingSettings(
            **self._shared_settings(rows),
            learning_rate_init=rate,
            learning_rate=self._schedule(),
            power_t=self.power_t,
            nesterovs_momentum=bool(self.nesterovs_momentum),
            beta_1=float(self.beta_1),
            beta_2=float(self.beta_2),
            epsilon=self._epsilon(),
            alpha=alpha,
            first_alpha=first_alpha,
            alpha_follows_loss=self._decay_follows_loss,
            may_validate_first=self.module is None and not self.batch_norm,
            overfit_share=self._overfit_share(rows),
            max_iter=epochs,
            max_fun=self.max_fun,
            describe=", ".join(described),
            remedy=_either(remedies),
            warns_at_end=epochs == self.max_iter
            and not self._incremental
            and not self._ends_as_planned(rows),
        )

    def _overfit_share(self, rows: TrainingRows) -> float:
        # Strong decay may lead to constant outputs, from which there is no return.
        if self.n_iter_no_change != "auto" or self._run_rules.decays_strongly:
            return math.inf
        if not self._follows_table_rules:
            return 0.0
        return _noise_rules.auto_overfit_share(self._steps_of_epoch(rows))

    def _ends_as_planned(self, rows: TrainingRows) -> bool:
        """Whether an annealed run is to take all epochs.

        Reaching `max_iter` then deserves no warning.  It is so on images, sequences and
        few rows, unless there are very few epochs.
        """
        if not self._is_annealed or self.parameterization == "weights":
            return False
        if not self._reads_table:
            return True
        few = _noise_rules.few_epochs(
            len(rows), shallow=self._is_shallow, of_numbers=self._learns_numbers
        )
        return math.isinf(self._patience(rows)) and self.max_iter > few


def _either(ways: list[str]) -> str:
    """Write several ways out as one, beginning with a capital letter."""
    *first, last = ways
    text = ", ".join([*first, f"or {last}"]) if first else last
    return text[:1].upper() + text[1:]
