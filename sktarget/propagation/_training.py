"""Training nets that learn from mini-batches by targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sktarget.propagation._difference import DifferenceTargetNetwork
from sktarget.training import Batch, TrainingNet

__all__ = ["FeedbackNet", "LocalNet"]


class LocalNet(TrainingNet):
    """A net whose module sets the gradients of its parameters itself."""

    def train_step_single(self, batch: Batch, **_: Any) -> dict[str, Any]:
        """Let the module set the gradients of the forward parameters."""
        x, y = batch

        def loss(sums: Tensor, weight: Tensor | None) -> Tensor:
            return self.objective.loss(self._outputs(sums), y, weight)

        value, sums = self.module_.set_gradients(x, loss, batch.weight)
        return {"loss": value, "y_pred": self._outputs(sums)}


class FeedbackNet(LocalNet):
    """A net that trains the feedback maps of its module as well.

    Parameters
    ----------
    *args
        As for :class:`~sktarget.training.TrainingNet`.
    feedback_steps : int
        Steps of the feedback maps on each mini-batch, with fresh noise; with 0 their
        reconstruction losses are only measured.
    feedback_order : {"batch", "epoch"}
        Train feedback before each step of the network, or in a pass over all
        mini-batches before a pass that trains the network.
    noise_decay : float or None
        Epochs after which half of the noise is left, as σ / (1 + epoch / decay); None
        keeps it constant.
    **kwargs
        As for :class:`~sktarget.training.TrainingNet`.
    """

    module_: DifferenceTargetNetwork

    def __init__(
        self,
        *args: Any,
        feedback_steps: int,
        feedback_order: str,
        noise_decay: float | None,
        **kwargs: Any,
    ) -> None:
        self.feedback_steps = feedback_steps
        self.feedback_order = feedback_order
        self.noise_decay = noise_decay
        super().__init__(*args, **kwargs)

    def run_single_epoch(
        self, iterator: Any, training: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Run one epoch, and record the reconstruction losses of a training epoch."""
        if not training:
            super().run_single_epoch(iterator, training, *args, **kwargs)
            return
        curve = self.module_.reconstruction_curve
        epoch = len(curve) + 1
        decay = 0.0 if self.noise_decay is None else epoch / self.noise_decay
        self.module_.begin_epoch(epoch, 1 / (1 + decay))
        self._losses: list[Tensor] = []
        if self.feedback_order == "epoch":
            for batch in iterator:
                self._train_feedback(batch)
        super().run_single_epoch(iterator, training, *args, **kwargs)
        # Read back only once per epoch, because that waits for the device.
        means = (
            torch.stack(self._losses).mean(0)
            if self._losses
            else torch.empty(0, device="cpu")
        )
        curve.append(means.tolist())

    def train_step(self, batch: Batch, **kwargs: Any) -> Any:
        """Learn from a mini-batch, feedback first."""
        if self.feedback_order == "batch":
            self._train_feedback(batch)
        return super().train_step(batch, **kwargs)

    def _train_feedback(self, batch: Batch) -> None:
        """Step the feedback maps; others have no gradients, and do not change."""
        if not self.module_.feedback:
            return
        if self.feedback_steps == 0:
            with torch.no_grad():
                self._losses.append(self._reconstruction(batch))
        for _ in range(self.feedback_steps):
            self._zero_grad_optimizer()
            losses = self._reconstruction(batch)
            if losses.requires_grad:  # Callbacks may have frozen the maps.
                losses.sum().backward()  # type: ignore[no-untyped-call]
                # For callbacks that clip gradients, told what skorch tells them.
                named = list(self.get_all_learnable_params())
                told = {"named_parameters": named, "batch": batch, "training": True}
                self.notify("on_grad_computed", **told)
                self.optimizer_.step()
            self._losses.append(losses.detach())

    def _reconstruction(self, batch: Batch) -> Tensor:
        losses = self.module_.reconstruction_losses(batch[0], batch.weight)
        return torch.stack(losses)
