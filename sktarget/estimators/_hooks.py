"""What a fit calls, and each kind of estimator defines or overrides."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data
from skorch.callbacks import Callback
from torch import nn

from sktarget.estimators import _noise_rules, _rules
from sktarget.estimators._arrays import Units, as_array, as_tensor, is_clean
from sktarget.estimators._compat import CallbackSupportMixin
from sktarget.estimators._device import resolve_device
from sktarget.estimators._holding_out import HoldingOut
from sktarget.estimators._network import average_weights, build_module
from sktarget.estimators._resuming import ResumableNetwork
from sktarget.estimators._retries import Retry, RunRules
from sktarget.estimators._rows import Role, TrainingRows, as_dense
from sktarget.estimators._task import Task
from sktarget.training import (
    CRITERIA,
    Criterion,
    Ending,
    Loss,
    NumberCriterion,
    Objective,
    TrainingNet,
    TrainingSettings,
    bare,
    n_batches,
)

__all__ = ["FitHooks"]

Array = NDArray[Any]


class FitHooks(CallbackSupportMixin, ResumableNetwork):
    """An estimator with all that a fit calls, but not the fit itself.

    A subclass defines how to check the data, how to build the network and take it up
    again, and how to read its outputs.
    """

    random_state: Any
    device: str
    early_stopping: bool | str
    validation_fraction: float
    warm_start: bool
    max_iter: int
    batch_size: Any
    n_iter_no_change: Any
    momentum: float
    shuffle: bool
    tol: float
    verbose: bool | int
    callbacks: Any
    checkpoint: str | os.PathLike[str] | None
    n_outputs_: int
    # The name of what is minimised.
    _loss: str

    # Defaults of estimators that take no module and have no X̄.
    module: Any = None
    _fixed_batch_is_all = False
    # Whether rows come a batch at a time, from calls of partial_fit.
    _incremental = False
    # The rules of the present run, as far as they are not those of a first one.
    _other_rules: Mapping[str, Any] = MappingProxyType({})
    # The net that learns from mini-batches.
    _training_net: Callable[..., TrainingNet] = TrainingNet

    # -- what a kind of estimator defines --------------------------------------------

    @abstractmethod
    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        """Make the network to train of a freshly built module."""

    @abstractmethod
    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        """Turn the parameters into settings of the training loop."""

    @abstractmethod
    def _auto_rate(self, rows: TrainingRows) -> float:
        """Return the step size that the rules choose."""

    @abstractmethod
    def _read_rows(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        role: Role,
    ) -> TrainingRows:
        """Validate the data; if they are the first, set what depends on y."""

    @abstractmethod
    def _score_sums(
        self, sums: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None
    ) -> float:
        """Score the outputs on validation rows."""

    @abstractmethod
    def _decode(self, sums: Array) -> Array:
        """Turn the outputs of the network into predictions."""

    @abstractmethod
    def _as_learnt(self, sums: Array) -> Array:
        """Turn the outputs of the network into y as the training rows hold it."""

    # -- what a kind of estimator may override ---------------------------------------

    def _check_what_stays(self) -> None:
        """Check what a fit that goes on cannot change, before any data are read."""

    def _validate(
        self,
        X: Any,
        *y: Any,
        reset: bool,
        dtype: Sequence[Any] = (np.float64, np.float32),
        **kwargs: Any,
    ) -> Any:
        """Validate X, or X and y, as scikit-learn does; X comes out dense."""
        if (
            not (reset or y or kwargs)
            # Names of columns would be compared with those of X.
            and not hasattr(self, "feature_names_in_")
            and is_clean(X, self.n_features_in_, dtype)
        ):
            return X
        kwargs |= {"reset": reset, "dtype": dtype, "accept_sparse": "csr"}
        checked = validate_data(self, as_array(X), *y, **kwargs)
        if not y:
            return as_dense(checked)
        return as_dense(checked[0]), *checked[1:]

    def _unit_settings(self) -> dict[str, Any]:
        """Return the settings by which outputs are learnt in units of their own."""
        return {}

    def _probabilities(self, sums: Array) -> Array:
        """Turn the outputs of the network into probabilities, where there are any."""
        return sums

    def _check_parameters(self) -> None:
        """Check what the constraints on single parameters cannot."""
        for callback in self.callbacks or ():
            if not isinstance(bare(callback), Callback):
                raise TypeError(
                    "callbacks must be instances of skorch.callbacks.Callback, or "
                    f"pairs of a name and one, got {callback!r}"
                )
        if self._incremental and self._asks_to_stop_early:
            raise ValueError(
                "partial_fit does not support early_stopping=True: set "
                "early_stopping=False, and keep a validation set of your own"
            )

    def _build(
        self,
        architecture: dict[str, Any],
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> nn.Module:
        """Build the ordinary network that a description stands for, on the CPU."""
        return build_module(architecture, dtype, generator)

    def _plan_holding_out(self, rows: TrainingRows) -> HoldingOut | None:
        """Return how many of these rows to hold out, and which; None for none.

        Those that are repeated count once.
        """
        if not self.early_stopping:
            return None
        return HoldingOut(self._share_to_hold_out(rows))

    def _continued_on(
        self, network: nn.Module, rows: TrainingRows, seed: int
    ) -> nn.Module:
        """Make a network, with X̄ from these rows, that starts where another ended.

        The other one may be left with the mean of its weights over draws of dropout.
        """
        raise NotImplementedError

    def _stopping_error(self, device: torch.device) -> Loss | None:
        """Return the error that decides on validation rows; None if the score does."""
        return None

    def _with_enough_digits(self, rows: TrainingRows, role: Role) -> TrainingRows:
        """Return the rows of a table in the arithmetic that they need."""
        return rows

    def _arrange(self, rows: TrainingRows, seed: int) -> TrainingRows:
        """Bring the training rows into the order and form to train on."""
        return rows

    def _arrange_again(self, task: Task) -> None:
        """Bring rows into the order and form that they had in the last fit.

        If they are the same, and X̄, one pass then serves both as before.
        """

    def _batch_rows(self, rows: TrainingRows) -> int:
        """Return the number of rows in a mini-batch."""
        if self.batch_size == "auto":
            return _rules.auto_batch_size(len(rows))
        return min(int(self.batch_size), len(rows))

    def _patience(self, rows: TrainingRows) -> float:
        """Return the number of epochs without progress after which to stop."""
        if self.n_iter_no_change == "auto":
            return _noise_rules.auto_patience(self._steps_of_epoch(rows))
        return float(self.n_iter_no_change)

    def _epochs_to_reserve(self, max_iter: int) -> int:
        """Return how many of all epochs are for learning the rows held out, too."""
        return _noise_rules.epochs_to_reserve(max_iter)

    def _last_epochs(self, best_epoch: int, left: int, falls: bool) -> int:
        """Return how many epochs to spend on all rows.

        `falls` tells whether the weight decay was still falling.
        """
        return _noise_rules.auto_last_epochs(best_epoch, left, falls)

    def _advise(self, ending: Ending, task: Task) -> None:
        """Warn of what the best run shows that the user could do better."""

    def _retries(self, ending: Ending, task: Task) -> list[Retry]:
        """Return by what other rules to run after a run that ended so."""
        return []

    def _may_go_by_lbfgs(self, rows: TrainingRows) -> bool:
        """Whether a run of the rules may go by L-BFGS."""
        return False

    @property
    def _may_run_again(self) -> bool:
        """Whether a fit with a validation set may try other rules."""
        return False

    @property
    def _criterion(self) -> Criterion:
        """What is minimised, and how outputs are judged."""
        return CRITERIA[self._loss]

    @property
    def _learns_numbers(self) -> bool:
        """Whether this is a regression."""
        return isinstance(self._criterion, NumberCriterion)

    def _loss_function(self, device: torch.device) -> Loss:
        """Return the loss of outputs on a device."""
        return self._criterion.loss

    def _constant_error(self, held_out: TrainingRows) -> float:
        """Return the error of constant outputs; 0 if it is not known."""
        return 0.0

    def _tells_little(self, held_out: TrainingRows) -> bool:
        """Return whether few of these rows decide about most of the error."""
        return False

    def _measure_outputs(self, task: Task) -> Units | None:
        """Return the origin and the unit in which every output is learnt, if any.

        For counts, note the deviances of the best constants, too.
        """
        return None

    def _note_inputs(self, task: Task) -> None:
        """Note what the inputs of a fresh fit need: units of their own, or bounds."""

    def _read_in_units(self, task: Task) -> None:
        """Put rows into the units that the inputs need, before X̄ is chosen of them."""

    def _read_for_callbacks(self, X: Any) -> Any:
        """Validate rows for which a callback asks for predictions."""
        return as_tensor(self._validate(X, reset=False))

    def _objective(self, held_out: TrainingRows | None = None) -> Objective:
        """Return what to learn, and how outputs are judged.

        With rows that judge whether another run is worth while, progress on them is
        known, too.
        """
        device = resolve_device(self.device)
        return Objective(
            loss=self._loss_function(device),
            score=self._score_sums,
            error=self._stopping_error(device),
            constant_error=0.0 if held_out is None else self._constant_error(held_out),
            read=self._read_for_callbacks,
            decode=lambda sums: self._as_learnt(sums.numpy(force=True)),
            decode_proba=lambda sums: self._probabilities(sums.numpy(force=True)),
        )

    # -- what all kinds share -------------------------------------------------------

    @property
    def _run_rules(self) -> RunRules:
        """The rules of the present run."""
        return RunRules(**self._other_rules)

    def _rate(self, rows: TrainingRows) -> float:
        """Return the step size to begin with."""
        rate = self.learning_rate_init
        if not isinstance(rate, str):
            return float(rate)
        # Calls of partial_fit are epochs of one course, whatever rows they are given.
        solver, first = self._first_rate or ("", 0.0)
        goes_on = self._incremental and solver == self.solver
        return first if goes_on else self._auto_rate(rows)

    def _shared_settings(self, rows: TrainingRows) -> dict[str, Any]:
        """Return the settings of training that all kinds have parameters for."""
        return {
            "solver": self._present_solver,
            "momentum": float(self.momentum),
            "batch_size": self._batch_rows(rows),
            "shuffle": bool(self.shuffle),
            "tol": self.tol,
            "n_iter_no_change": self._patience(rows),
            "verbose": bool(self.verbose),
            "callbacks": tuple(self.callbacks or ()),
            **self._unit_settings(),
        }

    @property
    def _present_solver(self) -> str:
        """The solver asked for, or that of a further run, which takes all rows."""
        by_lbfgs = self._run_rules.by_lbfgs and not self._incremental
        return "lbfgs" if by_lbfgs else self.solver

    def _share_to_hold_out(self, rows: TrainingRows) -> int:
        return math.ceil(self.validation_fraction * rows.n_distinct)

    def _steps_of_epoch(self, rows: TrainingRows) -> int:
        return n_batches(len(rows), self._batch_rows(rows))

    def _average_weights(self, network: nn.Module) -> None:
        """End a fit with the mean of the weights over draws of dropout, if any."""
        # The mean shrinks sums, which shifts predicted numbers but hardly changes the
        # order of classes.
        if not self._learns_numbers:
            average_weights(network)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
