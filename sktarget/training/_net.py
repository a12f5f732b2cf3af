"""The skorch net that trains a network in target space or in weight space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.helper import predefined_split
from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from sktarget.nn._replacement import ordinary_weights
from sktarget.training._bridge import EpochContext
from sktarget.training._checkpoint import Checkpoint
from sktarget.training._data import Batch, MiniBatches, TensorData, rows_at_a_time
from sktarget.training._losses import Loss, squared_norm
from sktarget.training._monitor import (
    Monitor,
    Stopper,
    StopTraining,
    TrainingLog,
)
from sktarget.training._optimisers import CentredRMSprop

__all__ = ["Ending", "TrainingNet", "TrainingSettings", "train"]

# Solvers that can follow no schedule, or more than the annealed one.
_SCHEDULES: dict[str, set[str]] = {
    "lbfgs": set(),
    "sgd": {"annealed", "invscaling", "adaptive"},
}

Score = Callable[[Tensor, TensorData], float]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, in the terms of the estimators' parameters.

    Attributes
    ----------
    solver : {"adam", "sgd", "lbfgs", "rmsprop_centered"}
        Optimiser.
    learning_rate_init, learning_rate, power_t
        Step size and its schedule; ``"annealed"`` for all solvers but ``"lbfgs"``, the
        others for ``"sgd"``.
    momentum, nesterovs_momentum, beta_1, beta_2, epsilon
        Of the optimiser.
    alpha : float
        Weight decay on the weights, biases, embeddings and norms left out.
    batch_size : int
        Rows of a mini-batch.
    shuffle : bool
        Whether mini-batches are drawn anew every epoch.
    max_iter : int
        Epochs, or iterations of ``"lbfgs"``.
    reserved : int
        How many of these are left for afterwards.
    max_fun : int
        Bound on the evaluations of one ``"lbfgs"`` iteration's line search.
    tol, n_iter_no_change
        Stopping rule.
    verbose : bool
        Print the progress.
    callbacks : sequence
        The user's skorch callbacks.
    describe : str
        The settings to name when training diverges.
    incremental : bool
        Whether this is one step of many.
    warns_at_end : bool
        Whether `max_iter` epochs without convergence are worth a warning.
    remedy : str
        What to do when training diverges.
    unit : float
        Of the outputs of a regression; the loss is reported as it is.
    rates : mapping of str to float
        Step sizes of the parameters whose names match a pattern, where these are not
        `learning_rate_init`.
    """

    solver: str
    learning_rate_init: float
    batch_size: int
    shuffle: bool
    max_iter: int
    tol: float
    n_iter_no_change: float
    verbose: bool
    describe: str
    learning_rate: str = "constant"
    power_t: float = 0.5
    momentum: float = 0.0
    nesterovs_momentum: bool = True
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    alpha: float = 0.0
    max_fun: int = 15000
    reserved: int = 0
    incremental: bool = False
    warns_at_end: bool = True
    callbacks: Sequence[Any] = field(default=())
    remedy: str = "Lower learning_rate_init, or standardise X"
    unit: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)

    def group_rates(self) -> list[float]:
        """List the step sizes of the optimiser's groups of parameters."""
        return [*self.rates.values(), self.learning_rate_init]

    def for_last(self, epochs: int) -> TrainingSettings:
        """Give the settings for some last epochs, with steps half as large.

        Parameters
        ----------
        epochs : int
            Their number.

        Returns
        -------
        TrainingSettings
            These, for a run of its own that nobody looks at.
        """
        return replace(
            self,
            learning_rate_init=self.learning_rate_init / 2,
            rates={name: rate / 2 for name, rate in self.rates.items()},
            max_iter=epochs,
            n_iter_no_change=math.inf,
            callbacks=(),
            warns_at_end=False,
        )

    @property
    def epochs(self) -> int:
        """How many there are to run at most."""
        return self.max_iter - self.reserved

    @property
    def schedule(self) -> str:
        """What becomes of the step size, of what the solver can do."""
        able = _SCHEDULES.get(self.solver, {"annealed"})
        return self.learning_rate if self.learning_rate in able else "constant"

    def optimiser(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Give the class and the arguments of the optimiser."""
        if self.solver == "lbfgs":
            return torch.optim.LBFGS, {
                "lr": 1.0,
                "max_iter": 1,
                "max_eval": self.max_fun,
                "history_size": 10,
                "line_search_fn": "strong_wolfe",
            }
        if self.solver == "rmsprop_centered":
            return CentredRMSprop, {"lr": self.learning_rate_init}
        if self.solver == "sgd":
            return torch.optim.SGD, {
                "lr": self.learning_rate_init,
                "momentum": self.momentum,
                "nesterov": self.nesterovs_momentum and self.momentum > 0,
                "fused": True,
            }
        return torch.optim.Adam, {
            "lr": self.learning_rate_init,
            "betas": (self.beta_1, self.beta_2),
            "eps": self.epsilon,
            "fused": True,
        }


@dataclass(frozen=True)
class Ending:
    """How a run has ended.

    Attributes
    ----------
    optimiser_state : dict
        To continue from.
    is_natural : bool
        Whether training stopped by itself or has run all epochs; neither diverged nor
        was stopped by anyone.
    """

    optimiser_state: dict[str, Any]
    is_natural: bool


class TrainingNet(NeuralNet):
    """A skorch net over tensors in memory.

    Parameters
    ----------
    module : nn.Module
        A :class:`~sktarget.nn.TargetSpace`, or any module for weight space.
    loss : callable
        Of (sums, y, weight of the rows or None).
    score : callable
        Of (sums, data); scores the validation set.
    alpha : float
        Weight decay.
    generator : torch.Generator or None
        Shuffles the mini-batches.
    decode : callable, optional
        Turns sums into what :meth:`predict` returns, for callbacks that score.
    error : callable, optional
        Like `loss`; recorded for the validation set too.
    unit : float, default=1.0
        Of the outputs: its square is taken out of the loss before the gradient, of
        which optimisers expect to be of order 1.
    **kwargs
        As for :class:`skorch.NeuralNet`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        loss: Loss,
        score: Score,
        alpha: float,
        generator: torch.Generator | None,
        decode: Callable[[Tensor], Any] | None = None,
        error: Loss | None = None,
        unit: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.loss = loss
        self.score = score
        self.alpha = alpha
        self.generator = generator
        self.mean_weight = 1.0
        self.failure: str | None = None
        self.decode = decode
        self.error = error
        self.unit = unit
        self.ordinary_weights: list[Tensor] = [*ordinary_weights(module)]
        # What is evaluated together with a step that takes all rows, and the outputs.
        self.evaluated_first: Tensor | None = None
        self.outputs_before: Tensor | None = None
        super().__init__(module, criterion=nn.Identity, **kwargs)

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return []

    def get_iterator(self, dataset: TensorData, training: bool = False) -> Any:
        """Slice the tensors; a DataLoader would take several times as long."""
        if training:
            self.mean_weight = dataset.mean_weight
            return MiniBatches(dataset, self.batch_size, self.generator)
        return MiniBatches(dataset, max(self.batch_size, rows_at_a_time(dataset.x)))

    def train_step_single(self, batch: Batch, **_: Any) -> dict[str, Any]:
        """Forward, loss and penalty, backward."""
        x, y = batch
        if not self.module_.training:
            self.module_.train()
        sums, weights = self._forward(x)
        loss = self.loss(sums, y, batch.weight)
        if self.alpha > 0 and weights:
            if self.unit != 1:  # The last layer is in that unit already.
                weights = [*(w * self.unit for w in weights[:-1]), weights[-1]]
            n_rows = len(x) * self.mean_weight
            loss = loss + squared_norm(weights) * (0.5 * self.alpha / n_rows)
        scaled = loss if self.unit == 1 else loss / self.unit**2
        scaled.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss, "y_pred": sums}

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not isinstance(self.module_, TargetSpace):
            return self.module_(x), self.ordinary_weights
        if self.evaluated_first is None:
            sums, weights = self.module_.forward_with_weights(x)
        else:
            sums, weights, self.outputs_before = self.module_.forward_and_evaluate(
                x, self.evaluated_first
            )
        return sums, weights + self.ordinary_weights

    def validation_step(self, batch: Batch, **_: Any) -> dict[str, Any]:
        """Loss and outputs of validation rows."""
        x, y = batch
        sums = self.outputs_before
        with torch.no_grad():
            if sums is None:
                if self.module_.training:
                    self.module_.eval()
                sums = self.module_(x)
            return {"loss": self.loss(sums, y, batch.weight), "y_pred": sums}

    def run_single_epoch(
        self,
        iterator: Any,
        training: bool,
        prefix: str,
        step_fn: Callable[..., dict[str, Any]],
        **fit_params: Any,
    ) -> None:
        """Run one epoch and record its mean loss, reading it back only once."""
        if iterator is None:
            return
        total: Any = 0.0
        outputs = []
        for batch in iterator:
            self.history.new_batch()  # where callbacks of a batch leave their records
            self.notify("on_batch_begin", batch=batch, training=training)
            try:
                step = step_fn(batch, **fit_params)
            except FactorisationError as error:
                # Targets that have left the finite numbers: training has diverged.
                self.failure = str(error)
                total = math.nan
                break
            total = total + step["loss"].detach() * len(batch[0])
            if not training:
                outputs.append(step["y_pred"])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self.history.record(f"{prefix}_loss", float(total) / len(iterator.data))
        self.history.record(f"{prefix}_batch_count", len(iterator))
        if outputs:
            sums, data = torch.cat(outputs), iterator.data
            self.history.record(f"{prefix}_score", self.score(sums, data))
            if self.error is not None:
                missed = self.error(sums, data.y, data.weight)
                self.history.record(f"{prefix}_error", float(missed))

    def predict(self, X: Any) -> Any:
        """Predict as the estimator will, for callbacks that score."""
        if not isinstance(X, TensorData):
            x = torch.as_tensor(X)
            X = TensorData(x, x)
        if self.module_.training:
            self.module_.eval()
        parts = torch.split(X.x, rows_at_a_time(X.x))
        with torch.no_grad():
            stacked = torch.cat([self.module_(X.inputs(part)) for part in parts])
        if self.decode is None:
            return stacked.numpy(force=True)
        return self.decode(stacked)


def train(
    module: nn.Module,
    data: TensorData,
    validation: TensorData | None,
    settings: TrainingSettings,
    *,
    loss: Loss,
    score: Score,
    log: TrainingLog,
    generator: torch.Generator | None,
    optimiser_state: dict[str, Any] | None = None,
    decode: Callable[[Tensor], Any] | None = None,
    bridge: EpochContext | None = None,
    net_class: Callable[..., TrainingNet] = TrainingNet,
    checkpoint: Checkpoint | None = None,
    error: Loss | None = None,
    goes_on: bool = False,
) -> Ending:
    """Train a network in place.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `data`.
    data, validation : TensorData
        Training set, and what early stopping scores.
    settings : TrainingSettings
        How to train.
    loss, score : callable
        See :class:`TrainingNet`.
    log : TrainingLog
        Continued in place.
    generator : torch.Generator or None
        Shuffles the mini-batches.
    optimiser_state : dict, optional
        State to continue from.
    decode : callable, optional
        See :class:`TrainingNet`.
    bridge : EpochContext, optional
        Reports every epoch to scikit-learn's callbacks.
    net_class : callable
        Makes the net, which says how a mini-batch is learnt from: :class:`TrainingNet`,
        by the gradient of the loss, or a class derived from it.
    checkpoint : Checkpoint, optional
        Keeps every epoch in a file, and goes on from there.
    error : callable, optional
        Like `loss`; decides on the validation set in place of the score.
    goes_on : bool, default=False
        Whether later calls are to go on exactly from where this one ends.  Otherwise
        steps that take all rows at once, whose losses are those of states, end with
        the state of the smallest one.

    Returns
    -------
    Ending
        State of the optimiser, and whether the run was left to itself.

    Raises
    ------
    DivergenceError
        If the loss is not finite in the very first epoch.

    Warns
    -----
    ConvergenceWarning
        If training diverged later, or `max_iter` was reached without convergence.
    """
    takes_all = settings.batch_size >= len(data)
    # What user's callbacks score is the state after the step, and so is the score that
    # they see beside the loss, unless the error is all that matters.
    validates_first = (
        error is not None
        and validation is not None
        and takes_all
        and isinstance(module, TargetSpace)
        and not module.train().is_random
    )
    monitor = Monitor(
        log,
        tol=settings.tol,
        n_iter_no_change=settings.n_iter_no_change,
        learning_rate=settings.schedule,
        power_t=settings.power_t,
        verbose=settings.verbose,
        has_validation=validation is not None,
        describe=settings.describe,
        remedy=settings.remedy,
        max_iter=settings.epochs,
        stops_by_error=error is not None,
        keeps_best=takes_all and not goes_on,
        validates_first=validates_first,
    )
    kind, arguments = settings.optimiser()
    net = net_class(
        module,
        loss=loss,
        score=score,
        decode=decode,
        error=error,
        unit=settings.unit,
        alpha=settings.alpha,
        generator=generator if settings.shuffle else None,
        batch_size=settings.batch_size,
        max_epochs=settings.epochs,
        optimizer=kind,
        optimizer__param_groups=[
            (pattern, {"lr": rate}) for pattern, rate in settings.rates.items()
        ],
        **{f"optimizer__{name}": value for name, value in arguments.items()},
        train_split=None if validation is None else predefined_split(validation),
        callbacks=_in_order(monitor, settings.callbacks, bridge, checkpoint),
        device=None,
        verbose=0,
    )
    if settings.solver == "lbfgs":
        _make_contiguous(module)
    net.initialize()
    monitor.rates = [group["lr"] for group in net.optimizer_.param_groups]
    if validation is not None and validates_first:
        ((net.evaluated_first, _),) = net.get_iterator(validation)
    already = len(log.loss_curve)
    if checkpoint is not None:
        optimiser_state = checkpoint.take_up(monitor, generator) or optimiser_state
    if optimiser_state is not None:
        net.optimizer_.load_state_dict(optimiser_state)
        _lay_out_as_parameters(net.optimizer_)
    net.notify("on_train_begin", X=data, y=None)
    interrupted, stopped = False, False
    to_go = settings.epochs - (len(log.loss_curve) - already)
    try:
        net.fit_loop(data, epochs=to_go if monitor.reason is None else 0)
    except StopTraining:
        pass
    except KeyboardInterrupt:
        # A skorch callback that wants to stop raises the same.
        interrupted, stopped = not settings.callbacks, True
    else:
        monitor.reason = monitor.reason or "max_iter"
    net.notify("on_train_end", X=data, y=None)
    _warn_of_the_end(
        monitor.reason, interrupted, settings, len(log.loss_curve) - already
    )
    is_natural = not stopped and monitor.reason in ("max_iter", "no progress")
    return Ending(net.optimizer_.state_dict(), is_natural)


def _make_contiguous(module: nn.Module) -> None:
    # L-BFGS takes gradients, which have the layout of their parameters, for vectors.
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()


def _lay_out_as_parameters(optimiser: torch.optim.Optimizer) -> None:
    # Fused optimisers read the memory of parameter and state side by side.
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def _in_order(
    monitor: Monitor,
    callbacks: Sequence[Any],
    bridge: EpochContext | None,
    checkpoint: Checkpoint | None,
) -> list[Any]:
    # The monitor records the epoch that the others may look at; the stopper ends the
    # run only when all have seen it.
    # Contexts of scikit-learn's are closed before a user's callback may interrupt.
    first: list[Any] = [("monitor", monitor)]
    if bridge is not None:
        bridge.monitor = monitor
        first.append(("bridge", bridge))
    last: list[Any] = [("stopper", Stopper(monitor))]
    if checkpoint is not None:
        last.insert(0, ("checkpoint", checkpoint))
    return [*first, *callbacks, *last]


def _warn_of_the_end(
    reason: str | None, interrupted: bool, settings: TrainingSettings, epochs: int
) -> None:
    if interrupted:
        warnings.warn(
            f"Training was interrupted after {epochs} epochs; the state so far is "
            "kept.",
            stacklevel=3,
        )
    elif reason == "max_iter" and settings.warns_at_end and not settings.incremental:
        warnings.warn(
            f"Maximum iterations ({settings.max_iter}) reached and the optimization "
            "hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=3,
        )
