"""The skorch net that trains a network in target space or in weight space."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from sklearn.utils.metaestimators import available_if
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from sktarget.nn.base import ordinary_weights
from sktarget.training._data import (
    Batch,
    MiniBatches,
    TensorData,
    rows_at_a_time,
    stored_like,
)
from sktarget.training._losses import squared_norm
from sktarget.training._objective import Objective

__all__ = ["TrainingNet"]


class TrainingNet(NeuralNet):
    """A skorch net over tensors in memory.

    Parameters
    ----------
    module : nn.Module
        A :class:`~sktarget.nn.TargetSpace`, or any module for weight space.
    objective : Objective
        What to learn, and how to judge outputs.
    generator : torch.Generator or None
        Shuffles the mini-batches.
    loss_unit : float, default=1.0
        Unit of the loss.  Losses are multiplied by it before they are recorded and
        passed to callbacks.
    output_units : (Tensor, Tensor) of shape (n_outputs,) each, optional
        Origin and unit of every output: those of the module are first turned into
        ``origin + unit * outputs``.
    **kwargs
        As for :class:`skorch.NeuralNet`.

    Attributes
    ----------
    interrupted_in : Callback or None
        Whose method a KeyboardInterrupt came from, if it was a callback's.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        objective: Objective,
        generator: torch.Generator | None,
        loss_unit: float = 1.0,
        output_units: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        self.objective = objective
        self.alpha = 0.0  # Schedule sets it in every epoch.
        self.generator = generator
        self.mean_weight = 1.0
        self.failure: str | None = None
        self.interrupted_in: Callback | None = None
        self.loss_unit = loss_unit
        self.output_units = output_units
        if output_units is not None:
            origin, units = output_units
            device = next(module.parameters()).device
            self.output_units = origin.to(device), units.to(device)
        self.ordinary_weights: list[Tensor] = [*ordinary_weights(module)]
        self.n_free_at_first = _n_free(module)
        # Where a step takes all rows, its pass may evaluate the validation set too: all
        # of its inputs, and the outputs that the last step has left.
        self.rows_to_evaluate: Tensor | None = None
        self.outputs_before: Tensor | None = None
        # How rows of the user's that callbacks ask about are read.
        self.stored_as: torch.dtype | None = None
        # Outputs of shuffled mini-batches are not in the order of the training rows.
        kwargs["use_caching"] = False
        super().__init__(module, criterion=nn.Identity, **kwargs)

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return []

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call a method of every callback, and note which one interrupts training."""
        getattr(self, method_name)(self, **cb_kwargs)
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except KeyboardInterrupt:
                self.interrupted_in = callback
                raise

    def get_iterator(self, dataset: TensorData, training: bool = False) -> Any:
        """Slice the tensors; a DataLoader would take several times as long."""
        if training:
            self.mean_weight = dataset.mean_weight
            return MiniBatches(dataset, self.batch_size, self.generator)
        if self.rows_to_evaluate is not None:  # All outputs come at once.
            return MiniBatches(dataset, max(1, len(dataset)))
        return MiniBatches(dataset, max(self.batch_size, rows_at_a_time(dataset.x)))

    def train_step_single(self, batch: Batch, **_: Any) -> dict[str, Any]:
        """Run forward, add loss and penalty, and run backward."""
        x, y = batch
        if not self.module_.training:
            self.module_.train()
        sums, weights = self._forward(x)
        loss = self.objective.loss(sums, y, batch.weight)
        if self.alpha > 0 and weights:
            decay = 0.5 * self.alpha / (len(x) * self.mean_weight)
            loss = loss + squared_norm(weights) * decay
        # Callbacks may have frozen everything for a while.
        if loss.requires_grad or _n_free(self.module_) == self.n_free_at_first:
            loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss, "y_pred": sums}

    def _step_optimizer(self, step_fn: Callable[[], Tensor]) -> None:
        searches = isinstance(self.optimizer_, torch.optim.LBFGS)
        if searches and self.optimizer_.param_groups[0]["lr"] == 0:
            step_fn()  # Torch's line search would divide by the step.
            return
        super()._step_optimizer(self._searchable(step_fn) if searches else step_fn)

    def _searchable(self, step_fn: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Let a step be as long as torch's line search likes.

        A loss that is NaN would send it further and further, and a solve that fails
        would end the run; from a loss that is infinite, with a slope that is not known,
        it goes back by halves.
        """
        losses: list[Tensor] = []

        def step() -> Tensor:
            try:
                loss = step_fn()
            except FactorisationError:
                if not losses:  # It is where the step begins.
                    raise
            else:
                losses[:] = [loss.detach()]
                if loss.isfinite():
                    return loss
            for parameter in self.module_.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.full_like(parameter, math.nan)
            return losses[0].new_full((), math.inf)

        return step

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        # Callbacks may freeze weights, and set them free.
        ordinary = [w for w in self.ordinary_weights if w.requires_grad]
        if not isinstance(self.module_, TargetSpace):
            return self._outputs(self.module_(x)), ordinary
        if self.rows_to_evaluate is not None:
            sums, weights, before = self.module_.forward_and_evaluate(
                x, self.rows_to_evaluate
            )
            self.outputs_before = self._outputs(before)
        elif self.alpha == 0:
            return self._outputs(self.module_(x)), []
        else:
            sums, weights = self.module_.forward_with_weights(x)
        return self._outputs(sums), weights + ordinary

    def _outputs(self, sums: Tensor) -> Tensor:
        if self.output_units is None:
            return sums
        origin, unit = self.output_units
        return torch.addcmul(origin, sums, unit)

    def validation_step(self, batch: Batch, **_: Any) -> dict[str, Any]:
        """Return the loss and the outputs of validation rows."""
        x, y = batch
        sums = self.outputs_before
        with torch.no_grad():
            if sums is None:
                if self.module_.training:
                    self.module_.eval()
                sums = self._outputs(self.module_(x))
            loss = self.objective.loss(sums, y, batch.weight)
            return {"loss": loss, "y_pred": sums}

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
            # This opens a batch in the history, where callbacks leave their records.
            self.notify("on_batch_begin", batch=batch, training=training)
            self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            try:
                step = step_fn(batch, **fit_params)
            except FactorisationError as error:
                # Targets are no longer finite: training has diverged.
                self.failure = self.failure or str(error)
                total = math.nan
                break
            total = total + step["loss"].detach() * len(batch[0])
            if not training:
                outputs.append(step["y_pred"])
            if self.loss_unit != 1:
                step["loss"] = step["loss"].detach() * self.loss_unit
            self.notify("on_batch_end", batch=batch, training=training, **step)
        mean = float(total) / len(iterator.data)
        self.history.record(f"{prefix}_loss", mean * self.loss_unit)
        self.history.record(f"{prefix}_batch_count", len(iterator))
        if outputs:
            sums, data = torch.cat(outputs), iterator.data
            judges, truth = self.objective, (data.y, data.weight)
            self.history.record(f"{prefix}_score", judges.score(sums, *truth))
            if judges.error is not None:
                missed = judges.error(sums, *truth)
                self.history.record(f"{prefix}_error", float(missed) * self.loss_unit)

    def predict(self, X: Any) -> Any:
        """Predict y as the training data hold it, for callbacks that score."""
        return self._answer(X, self.objective.decode)

    def predict_proba(self, X: Any) -> Any:
        """Predict probabilities as the estimator will, for callbacks that score."""
        return self._answer(X, self.objective.decode_proba)

    @available_if(lambda net: net.objective.decide is not None)
    def decision_function(self, X: Any) -> Any:
        """Return what the estimator's method will, for callbacks that score.

        Parameters
        ----------
        X : TensorData or array-like
            Inputs as ``fit`` takes them; sequences as the network does.

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes)
            For two classes, one number per row.
        """
        return self._answer(X, self.objective.decide)

    def _answer(self, X: Any, decode: Callable[[Tensor], Any] | None) -> Any:
        if not isinstance(X, TensorData):
            if self.objective.read is not None and not isinstance(X, Tensor):
                X = self.objective.read(X)
            x, own = torch.as_tensor(X), next(self.module_.parameters())
            if self.stored_as is not None:
                x = stored_like(x, self.stored_as, own.dtype)
            X = TensorData(x, x, device=own.device, dtype=own.dtype)
            X.copies = True
        if self.module_.training:
            self.module_.eval()
        sums = self._outputs(X.outputs_of(self.module_))
        return sums.numpy(force=True) if decode is None else decode(sums)


def _n_free(module: nn.Module) -> int:
    """Return how many parameters learn."""
    return sum(p.requires_grad for p in module.parameters())
