"""What all estimators share: the course of a fit."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from skorch.callbacks import Callback
from torch import nn

from sktarget.estimators import _rules
from sktarget.estimators._compat import HAS_CALLBACKS, CallbackSupportMixin
from sktarget.estimators._fitted import FittedNetwork
from sktarget.estimators._forks import serial_in_forks
from sktarget.estimators._holding_out import hold_out
from sktarget.estimators._last_epochs import learn_all, reserve
from sktarget.estimators._network import (
    as_array,
    build_module,
    ordinary_module,
    resolve_device,
    seed_dropout,
    seeded_globally,
    settle,
    torch_dtype,
    weight_names,
)
from sktarget.estimators._recovery import open_checkpoint
from sktarget.estimators._rows import TrainingRows
from sktarget.linalg import FactorisationError
from sktarget.training import (
    LOSSES,
    Checkpoint,
    DivergenceError,
    EpochContext,
    Loss,
    TensorData,
    TrainingLog,
    TrainingNet,
    TrainingSettings,
    state_to_numpy,
    state_to_torch,
    train,
)

__all__ = ["NetworkEstimator", "keeps_fitted_state"]

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")
Self_ = TypeVar("Self_", bound="NetworkEstimator")

# Attributes that exist only while training can go on.
_RESUMABLE = (
    "targets_",
    "fixed_batch_",
    "_last_targets",
    "_optimiser_state",
    "_generator_state",
)


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
def _clear_errors() -> Iterator[None]:
    """Say what went wrong in the terms of the estimators' users."""
    try:
        yield
    except (DivergenceError, FactorisationError) as error:
        raise ValueError(str(error)) from None


class NetworkEstimator(CallbackSupportMixin, FittedNetwork):
    """An estimator that trains a torch module.

    A subclass says how to check the data, how to build and take up the network again,
    and how to read its outputs.
    """

    random_state: Any
    device: str
    early_stopping: bool | str
    validation_fraction: float
    warm_start: bool
    max_iter: int
    solver: str
    batch_size: Any
    n_iter_no_change: Any
    callbacks: Any
    checkpoint: str | os.PathLike[str] | None
    n_outputs_: int

    # What only some kinds have: networks of the user's own, X̄ of all rows.
    module: Any = None
    _fixed_batch_is_all = False
    # Whether rows come a batch at a time, from calls of partial_fit.
    _incremental = False
    # How a mini-batch is learnt from.
    _training_net: Callable[..., TrainingNet] = TrainingNet

    # -- what a kind of estimator defines --------------------------------------------

    @abstractmethod
    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        """Give what `_build` needs, in plain values."""

    @abstractmethod
    def _start(
        self, rows: TrainingRows, generator: torch.Generator, seed: int
    ) -> nn.Module:
        """Build the network to train; set `_architecture`."""

    @abstractmethod
    def _take_up(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        """Make the network to train out of the fitted ordinary module."""

    @abstractmethod
    def _settings(self, n_samples: int) -> TrainingSettings:
        """Turn the parameters into settings of the training loop."""

    @abstractmethod
    def _keep_network(self, network: nn.Module) -> None:
        """Keep, beyond the realised weights, what training on would need."""

    def _validate(
        self,
        X: Any,
        *y: Any,
        reset: bool,
        dtype: Sequence[Any] = (np.float64, np.float32),
        **kwargs: Any,
    ) -> Any:
        """Validate X, or X and y, as scikit-learn does."""
        X = as_array(X)
        return validate_data(self, X, *y, reset=reset, dtype=dtype, **kwargs)

    @abstractmethod
    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Any = None
    ) -> TrainingRows:
        """Validate the data; on the first call set `_loss` and what y decides."""

    @abstractmethod
    def _score_sums(self, sums: torch.Tensor, data: TensorData) -> float:
        """Score the outputs on validation rows."""

    @abstractmethod
    def _decode(self, sums: Array) -> Array:
        """Turn the outputs of the network into predictions."""

    def _probabilities(self, sums: Array) -> Array:
        """Turn the outputs of the network into probabilities, where there are any."""
        return sums

    # -- what a kind of estimator may define in another way --------------------------

    def _check_parameters(self) -> None:
        """Check what the constraints on single parameters cannot."""
        for callback in self.callbacks or ():
            part = callback[1] if isinstance(callback, tuple) else callback
            if not isinstance(part, Callback):
                raise TypeError(
                    "callbacks must be instances of skorch.callbacks.Callback, or "
                    f"pairs of a name and one, got {callback!r}"
                )
        if self._incremental and self.early_stopping is True:
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
        """Say whether rows are set aside to stop by."""
        return bool(self.early_stopping)

    def _learns_held_out(self, rows: TrainingRows) -> bool:
        """Say whether, of all these rows, those held out are learnt in the end."""
        return False

    def _start_from(
        self, network: nn.Module, rows: TrainingRows, seed: int
    ) -> nn.Module:
        """Make a network with X̄ of these rows that starts where another has ended."""
        raise NotImplementedError

    def _stopping_error(self) -> Loss | None:
        """Give what decides on validation rows, where it is not the score."""
        return None

    def _arrange(self, rows: TrainingRows, seed: int) -> TrainingRows:
        """Put the training rows into the order and the form to train on."""
        return rows

    def _batch_rows(self, n_samples: int) -> int:
        """Give the rows of a mini-batch."""
        if self.batch_size == "auto":
            return _rules.auto_batch_size(n_samples, self._tuned)
        return min(int(self.batch_size), n_samples)

    def _patience(self, n_samples: int) -> float:
        """Give the epochs without progress after which to stop."""
        if self.n_iter_no_change == "auto":
            steps = -(-n_samples // self._batch_rows(n_samples))
            return _rules.auto_patience(steps, self._tuned)
        return float(self.n_iter_no_change)

    def _settle(self, network: nn.Module) -> None:
        """Choose the weights that a fit ends with."""
        # A mean over draws shrinks sums: that moves numbers, and hardly the order of
        # classes.
        if self._loss != "squared_error":
            settle(network)

    def _loss_function(self) -> Loss:
        return LOSSES[self._loss]

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
        device = resolve_device(self.device)
        rows = self._check_rows(X, y, sample_weight, first=not resumes, classes=classes)
        random = check_random_state(self.random_state)
        checkpoint = None
        if self.checkpoint is not None and not incremental:
            checkpoint = open_checkpoint(self, rows, random, resumes=resumes)
            random = checkpoint.random_state
        all_rows, held_out = rows, None
        if self._holds_out(rows):
            rows, held_out = hold_out(rows, self.validation_fraction, random)
        seed = int(random.randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        if resumes and hasattr(self, "_generator_state"):
            generator.set_state(state_to_torch(self._generator_state))
        # What is dropped out in one call is not to be dropped out in the next again.
        draws = _mixed(seed, self.t_) if resumes else seed
        with (
            _clear_errors(),
            torch.inference_mode(False),
            torch.enable_grad(),
            serial_in_forks(),
            seeded_globally(self.module is not None, draws, device),
        ):
            if resumes:
                network, log = self._resume(rows, seed)
            else:
                rows = self._arrange(rows, seed)
                network, log = self._start(rows, generator, seed), TrainingLog()
            network.to(device)
            seed_dropout(network, draws, device)
            dtype = torch_dtype(self._dtype if resumes else rows.dtype)
            data = rows.to_tensors(device, dtype)
            if self._fixed_batch_is_all:
                # The very tensor of X̄, so that one pass can serve both.
                data.x = network.fixed_batch  # type: ignore[assignment]
            finish = None
            if held_out is not None and self._learns_held_out(all_rows):
                finish = functools.partial(learn_all, self, all_rows, seed, device)
            self._train(
                network,
                data,
                None if held_out is None else held_out.to_tensors(device, dtype),
                log,
                generator,
                checkpoint,
                finish=finish,
                task={"X": X, "y": y, "metadata": {"sample_weight": sample_weight}},
            )
        return self

    def _resume(self, rows: TrainingRows, seed: int) -> tuple[nn.Module, TrainingLog]:
        """Rebuild the network of the last fit in the state it was left in."""
        now = self._describe_architecture(rows.X)
        if now != self._architecture:
            before = self._architecture
            names = now.keys() | before.keys()
            changed = sorted(k for k in names if now.get(k) != before.get(k))
            raise ValueError(
                f"warm_start and partial_fit cannot change {', '.join(changed)} of a "
                "fitted network: set warm_start=False or clone the estimator"
            )
        network = self._take_up(self._rebuild(), rows, seed)
        log = TrainingLog(
            loss_curve=list(self.loss_curve_),
            validation_losses=list(self.validation_loss_curve_ or []),
            validation_scores=list(self.validation_scores_ or []),
            no_improvement=self._no_improvement,
            n_samples_seen=self.t_,
        )
        return network.train(), log

    def _train(
        self,
        network: nn.Module,
        data: TensorData,
        held_out: TensorData | None,
        log: TrainingLog,
        generator: torch.Generator,
        checkpoint: Checkpoint | None,
        *,
        finish: Callable[[nn.Module, TrainingLog, TrainingSettings], nn.Module] | None,
        task: dict[str, Any],
    ) -> None:
        already = len(log.loss_curve)
        incremental = self._incremental
        goes_on = incremental or self.warm_start
        if not incremental:
            log.no_improvement = 0
        settings = self._settings(len(data))
        if finish is not None:
            settings = reserve(settings)

        def fitted() -> dict[str, Any]:
            return self._fitted_attributes(network, log, len(log.loss_curve) - already)

        bridge = None
        if HAS_CALLBACKS and not incremental:
            context = self._init_callback_context(max_subtasks=self.max_iter)
            context.call_on_fit_task_begin(estimator=self, **task)
            if getattr(self, "_skl_callbacks", None):
                bridge = EpochContext(context, fitted, estimator=self, **task)
        ending = train(
            network,
            data,
            held_out,
            settings,
            loss=self._loss_function(),
            score=self._score_sums,
            log=log,
            generator=generator,
            optimiser_state=self._kept_optimiser_state(already > 0, settings),
            net_class=self._training_net,
            decode=lambda sums: self._decode(sums.numpy(force=True)),
            decode_proba=lambda sums: self._probabilities(sums.numpy(force=True)),
            bridge=bridge,
            checkpoint=checkpoint,
            error=self._stopping_error(),
            goes_on=goes_on,
        )
        if finish is not None and settings.reserved and ending.is_natural:
            network = finish(network, log, settings)
        if not incremental:
            self._settle(network)
        self.__dict__.update(fitted())
        self._forget_how_to_resume()
        if goes_on:
            self._keep_for_resuming(
                network, ending.optimiser_state, generator, settings
            )
        if HAS_CALLBACKS and not incremental:
            context.call_on_fit_task_end(
                estimator=self, **task, reconstruction_attributes=dict
            )

    # -- fitted state ----------------------------------------------------------------

    def _fitted_attributes(
        self, network: nn.Module, log: TrainingLog, n_iter: int
    ) -> dict[str, Any]:
        module = ordinary_module(network)
        names = weight_names(network)
        scores, losses = log.validation_scores, log.validation_losses
        return {
            "_module_state": state_to_numpy(dict(module.state_dict())),
            "_weight_names": names,
            "_module_cache": {},
            "_no_improvement": log.no_improvement,
            "n_layers_": len(names) + 1,
            "n_iter_": max(n_iter, 1),
            "t_": log.n_samples_seen,
            "loss_": log.loss_curve[-1] if log.loss_curve else np.inf,
            "loss_curve_": list(log.loss_curve),
            "best_loss_": None if scores else log.best_loss,
            "validation_scores_": list(scores) or None,
            "validation_loss_curve_": list(losses) or None,
            "best_validation_score_": max(scores) if scores else None,
        }

    def _kept_optimiser_state(
        self, resumes: bool, settings: TrainingSettings
    ) -> dict[str, Any] | None:
        kept = getattr(self, "_optimiser_state", None)
        if not resumes or kept is None or self._optimiser_name != self.solver:
            return None
        state: dict[str, Any] = state_to_torch(kept)
        groups = state["param_groups"]
        rates = zip(settings.group_rates(), self._optimiser_rates, strict=True)
        # The last group is there always, those before it where their parameters are.
        for group, (rate, kept_rate) in zip(
            reversed(groups), reversed(list(rates)), strict=False
        ):
            # An annealed rate has come down to nothing, and is not to stay there.
            if rate != kept_rate or self._optimiser_anneals:
                group["lr"] = rate
        return state

    def _forget_how_to_resume(self) -> None:
        """Drop what the last fit has kept.

        X̄ holds rows of the training set: a model that is only to predict must not
        carry them about.
        """
        for name in _RESUMABLE:
            self.__dict__.pop(name, None)

    def _keep_for_resuming(
        self,
        network: nn.Module,
        optimiser_state: dict[str, Any],
        generator: torch.Generator,
        settings: TrainingSettings,
    ) -> None:
        """Keep targets, X̄ and the state of the optimiser, for training to go on."""
        self._optimiser_rates = settings.group_rates()
        self._optimiser_state = state_to_numpy(optimiser_state)
        self._optimiser_name = self.solver
        self._optimiser_anneals = settings.schedule == "annealed"
        self._generator_state = state_to_numpy(generator.get_state())
        self._keep_network(network)


def _mixed(*seeds: int) -> int:
    """Make one seed of several."""
    return int(np.random.SeedSequence([int(s) for s in seeds]).generate_state(1)[0])
