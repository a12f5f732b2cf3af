"""What all estimators share: the course of a fit."""

from __future__ import annotations

import functools
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from skorch.callbacks import Callback
from torch import nn

from sktarget.estimators import _rules
from sktarget.estimators._arrays import as_array, torch_dtype
from sktarget.estimators._compat import HAS_CALLBACKS, CallbackSupportMixin
from sktarget.estimators._device import resolve_device
from sktarget.estimators._forks import serial_in_forks
from sktarget.estimators._holding_out import hold_out
from sktarget.estimators._last_epochs import learn_all, reserve
from sktarget.estimators._network import average_weights, build_module
from sktarget.estimators._random import combine_seeds, seed_dropout, seeded_globally
from sktarget.estimators._recovery import open_checkpoint
from sktarget.estimators._resuming import ResumableNetwork
from sktarget.estimators._rows import TrainingRows, as_dense
from sktarget.estimators._second_try import Run, try_again
from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from sktarget.training import (
    LOSSES,
    Checkpoint,
    DivergenceError,
    Ending,
    EpochContext,
    Loss,
    Objective,
    TensorData,
    TrainingLog,
    TrainingNet,
    TrainingSettings,
    bare,
    state_to_torch,
    train,
)

__all__ = ["NetworkEstimator", "Task", "keeps_fitted_state"]

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")
Self_ = TypeVar("Self_", bound="NetworkEstimator")


def keeps_fitted_state(
    method: Callable[Concatenate[Self_, P], R],
) -> Callable[Concatenate[Self_, P], R]:
    """Leave the estimator as it was if the method fails."""

    @functools.wraps(method)
    def guarded(self: Self_, *args: P.args, **kwargs: P.kwargs) -> R:
        before = dict(self.__dict__)
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return cast(Callable[Concatenate[Self_, P], R], guarded)


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Raise failures of training as ValueError, which users of estimators expect."""
    try:
        yield
    except (DivergenceError, FactorisationError) as error:
        raise ValueError(str(error)) from None


@dataclass
class Task:
    """What one fit is about: its data, and its sources of randomness.

    Attributes
    ----------
    rows, held_out : TrainingRows
        Rows to train on, and rows set aside, if any.
    all_rows : TrainingRows
        Both together.
    device : torch.device
        Where to train.
    resumes : bool
        Whether an earlier fit goes on.
    seed, dropout_seed : int
        Of what is drawn once, and of dropout.
    generator : torch.Generator
        Draws initial weights, and mini-batches.
    checkpoint : Checkpoint or None
        Saves every epoch.
    """

    rows: TrainingRows
    all_rows: TrainingRows
    held_out: TrainingRows | None
    device: torch.device
    resumes: bool
    seed: int
    dropout_seed: int
    generator: torch.Generator
    checkpoint: Checkpoint | None


class NetworkEstimator(CallbackSupportMixin, ResumableNetwork):
    """An estimator that trains a torch module.

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
    callbacks: Any
    checkpoint: str | os.PathLike[str] | None
    n_outputs_: int

    # Only some estimators have a network of the user's own, or all rows as X̄.
    module: Any = None
    _fixed_batch_is_all = False
    # Whether rows come a batch at a time, from calls of partial_fit.
    _incremental = False
    # Share of the λ that the rules choose.
    _lam_share = 1.0
    # The net that learns from mini-batches.
    _training_net: Callable[..., TrainingNet] = TrainingNet

    # -- what a kind of estimator defines --------------------------------------------

    @abstractmethod
    def _start(self, module: nn.Module, task: Task) -> nn.Module:
        """Make the network to train of a freshly built module."""

    @abstractmethod
    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        """Turn the parameters into settings of the training loop."""

    def _validate(
        self,
        X: Any,
        *y: Any,
        reset: bool,
        dtype: Sequence[Any] = (np.float64, np.float32),
        **kwargs: Any,
    ) -> Any:
        """Validate X, or X and y, as scikit-learn does; X comes out dense."""
        kwargs |= {"reset": reset, "dtype": dtype, "accept_sparse": "csr"}
        checked = validate_data(self, as_array(X), *y, **kwargs)
        if not y:
            return as_dense(checked)
        return as_dense(checked[0]), *checked[1:]

    @abstractmethod
    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Any = None
    ) -> TrainingRows:
        """Validate the data; on the first call set what depends on y."""

    @abstractmethod
    def _score_sums(
        self, sums: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None
    ) -> float:
        """Score the outputs on validation rows."""

    @abstractmethod
    def _decode(self, sums: Array) -> Array:
        """Turn the outputs of the network into predictions."""

    def _probabilities(self, sums: Array) -> Array:
        """Turn the outputs of the network into probabilities, where there are any."""
        return sums

    # -- what a kind of estimator may override ---------------------------------------

    def _check_parameters(self) -> None:
        """Check what the constraints on single parameters cannot."""
        for callback in self.callbacks or ():
            if not isinstance(bare(callback), Callback):
                raise TypeError(
                    "callbacks must be instances of skorch.callbacks.Callback, or "
                    f"pairs of a name and one, got {callback!r}"
                )
        if self._incremental and self.early_stopping not in (False, "auto"):
            raise ValueError("partial_fit does not support early_stopping=True")

    def _build(
        self,
        architecture: dict[str, Any],
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> nn.Module:
        """Build the ordinary network that a description stands for, on the CPU."""
        return build_module(architecture, dtype, generator)

    @property
    def _tuned(self) -> bool:
        """Whether step size, batches, schedule and stopping are chosen together."""
        return False

    def _holds_out(self, rows: TrainingRows) -> bool:
        """Return whether rows are held out for early stopping."""
        return bool(self.early_stopping)

    def _n_held_out(self, rows: TrainingRows) -> int:
        """Return how many rows are held out, if any are."""
        return math.ceil(self.validation_fraction * len(rows))

    def _learns_held_out(self, rows: TrainingRows) -> bool:
        """Return whether the rows held out of these are learnt as well in the end."""
        return False

    def _start_from(
        self, network: nn.Module, rows: TrainingRows, seed: int
    ) -> nn.Module:
        """Make a network, with X̄ from these rows, that starts where another ended."""
        raise NotImplementedError

    def _stopping_error(self) -> Loss | None:
        """Return the error that decides on validation rows; None if the score does."""
        return None

    def _arrange(self, rows: TrainingRows, seed: int) -> TrainingRows:
        """Bring the training rows into the order and form to train on."""
        return rows

    def _arrange_again(self, rows: TrainingRows) -> TrainingRows:
        """Bring rows that the last fit learnt from into the order that they had there.

        If they are X̄, one pass serves both as before.
        """
        return rows

    def _batch_rows(self, n_samples: int) -> int:
        """Return the number of rows in a mini-batch."""
        if self.batch_size == "auto":
            return _rules.auto_batch_size(n_samples, self._tuned)
        return min(int(self.batch_size), n_samples)

    def _patience(self, n_samples: int) -> float:
        """Return the number of epochs without progress after which to stop."""
        if self.n_iter_no_change == "auto":
            steps = -(-n_samples // self._batch_rows(n_samples))
            return _rules.auto_patience(n_samples, steps, self._tuned)
        return float(self.n_iter_no_change)

    def _may_try_again(self, ending: Ending, task: Task) -> bool:
        """Return whether to start anew after a run that ended so."""
        return False

    def _average_weights(self, network: nn.Module) -> None:
        """End a fit with the mean of the weights over draws of dropout, if any."""
        # The mean shrinks sums, which shifts predicted numbers but hardly changes the
        # order of classes.
        if self._loss != "squared_error":
            average_weights(network)

    def _loss_function(self) -> Loss:
        return LOSSES[self._loss]

    def _constant_error(self, held_out: TensorData) -> float:
        """Return the error of constant outputs; 0 if early stopping need not wait."""
        return 0.0

    def _objective(self, held_out: TensorData | None = None) -> Objective:
        """Return what to learn, and how outputs are judged."""
        return Objective(
            loss=self._loss_function(),
            score=self._score_sums,
            error=self._stopping_error(),
            constant_error=0.0 if held_out is None else self._constant_error(held_out),
            decode=lambda sums: self._decode(sums.numpy(force=True)),
            decode_proba=lambda sums: self._probabilities(sums.numpy(force=True)),
        )

    def _measure_outputs(self, rows: TrainingRows) -> tuple[Array, Array] | None:
        """Return the origin and the unit in which every output is learnt, if any."""
        return None

    # -- fitting ---------------------------------------------------------------------

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        incremental: bool = False,
        classes: Any = None,
    ) -> Self:
        resumes = hasattr(self, "_module_state") and (incremental or self.warm_start)
        self._incremental = incremental
        self._check_parameters()
        task = self._open_task(X, y, sample_weight, classes, resumes)
        with (
            _as_value_errors(),
            torch.inference_mode(False),
            torch.enable_grad(),
            serial_in_forks(),
            seeded_globally(self.module is not None, task.dropout_seed, task.device),
        ):
            if resumes:
                task.rows = self._arrange_again(task.rows)
                network, log = self._resume(task.rows, task.seed)
            else:
                task.rows = self._arrange(task.rows, task.seed)
                self._output_units = self._measure_outputs(task.rows)
                self._architecture = self._describe_architecture(task.rows.X)
                dtype = torch_dtype(task.rows.dtype)
                module = self._build(self._architecture, dtype, task.generator)
                self._lam_share = 1.0
                network = self._start(module, task)
                log = TrainingLog()
            network.to(task.device)
            seed_dropout(network, task.dropout_seed, task.device)
            given = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
            self._train(network, log, task, given)
        return self

    def _open_task(
        self, X: Any, y: Any, sample_weight: Any, classes: Any, resumes: bool
    ) -> Task:
        """Validate the data, hold rows out, and set up the sources of randomness."""
        device = resolve_device(self.device)
        rows = self._check_rows(X, y, sample_weight, first=not resumes, classes=classes)
        random = check_random_state(self.random_state)
        checkpoint = None
        if self.checkpoint is not None and not self._incremental:
            checkpoint = open_checkpoint(self, rows, random, resumes=resumes)
            random = checkpoint.random_state
        all_rows, held_out = rows, None
        if self._holds_out(rows):
            n, fraction = self._n_held_out(rows), self.validation_fraction
            rows, held_out = hold_out(rows, n, fraction, random)
        seed = int(random.randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        if resumes and hasattr(self, "_generator_state"):
            generator.set_state(state_to_torch(self._generator_state))
        # A later call must not repeat the dropout of an earlier one.
        dropout_seed = combine_seeds(seed, self.t_) if resumes else seed
        return Task(
            rows,
            all_rows,
            held_out,
            device,
            resumes,
            seed,
            dropout_seed,
            generator,
            checkpoint,
        )

    def _train(
        self, network: nn.Module, log: TrainingLog, task: Task, given: dict[str, Any]
    ) -> None:
        """Train, and keep the results; `given` is what ``fit`` was called with."""
        already = len(log.loss_curve)
        resumable = self._incremental or self.warm_start
        if not self._incremental:
            log.no_improvement = 0
        data, held_out = self._to_tensors(network, task)
        settings = self._settings(task.rows)
        learns_all = held_out is not None and self._learns_held_out(task.all_rows)
        objective = self._objective(held_out if learns_all else None)
        if learns_all:
            settings = reserve(settings)

        def fitted() -> dict[str, Any]:
            return self._fitted_attributes(network, log, len(log.loss_curve) - already)

        with self._notifying_callbacks(fitted, given) as bridge:
            ending = train(
                network,
                data,
                held_out,
                settings,
                objective,
                log=log,
                generator=task.generator,
                optimiser_state=self._kept_optimiser_state(already > 0, settings),
                net_class=self._training_net,
                bridge=bridge,
                checkpoint=task.checkpoint,
                resumable=resumable,
            )
            if self._may_try_again(ending, task):
                run = Run(network, log, ending)
                network, log, ending = try_again(self, task, settings, objective, run)
            ending.warn()
            if learns_all and ending.is_natural:
                network = learn_all(
                    self, task.all_rows, task.seed, task.device, network, log, settings
                )
            if not self._incremental:
                self._average_weights(network)
            self.__dict__.update(fitted())
            self._forget_how_to_resume()
            if resumable:
                self._keep_for_resuming(
                    network, ending.optimiser_state, task.generator, settings
                )

    def _to_tensors(
        self, network: nn.Module, task: Task
    ) -> tuple[TensorData, TensorData | None]:
        """Convert training rows and held-out rows to tensors."""
        dtype = torch_dtype(self._dtype if task.resumes else task.rows.dtype)
        data, held_out = task.rows.to_tensors(task.device, dtype), None
        if self._fixed_batch_is_all:
            # The same tensor as X̄, so that one pass can serve both.
            data.x = network.fixed_batch  # type: ignore[assignment]
        if task.held_out is not None:
            held_out = task.held_out.to_tensors(task.device, dtype)
        if self.module is not None and not isinstance(network, TargetSpace):
            # A module of the user's may work in place, which would change the rows.
            for rows in filter(None, (data, held_out)):
                rows.copies = True
        return data, held_out

    @contextmanager
    def _notifying_callbacks(
        self, fitted: Callable[[], dict[str, Any]], given: dict[str, Any]
    ) -> Iterator[EpochContext | None]:
        """Notify scikit-learn's callbacks of a fit; yield what does so of epochs."""
        if not HAS_CALLBACKS or self._incremental:
            yield None
            return
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(estimator=self, **given)
        bridge = None
        if getattr(self, "_skl_callbacks", None):
            bridge = EpochContext(context, fitted, estimator=self, **given)
        yield bridge
        context.call_on_fit_task_end(
            estimator=self, **given, reconstruction_attributes=dict
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
