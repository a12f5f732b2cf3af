"""Step sizes and weight decay, as they change in the course of a run."""

from __future__ import annotations

import math
from typing import Any

from skorch.callbacks import Callback

from sktarget.training._data import n_batches
from sktarget.training._log import TrainingLog
from sktarget.training._settings import TrainingSettings

__all__ = ["Schedule"]

_LEAST_RATE = 1e-6


class Schedule(Callback):
    """Sets the step sizes of every mini-batch and the weight decay of every epoch.

    Parameters
    ----------
    log : TrainingLog
        Record of the epochs.
    settings : TrainingSettings
        How to train.
    """

    def __init__(self, log: TrainingLog, settings: TrainingSettings) -> None:
        self.log, self.settings = log, settings
        self.kind = settings.schedule
        self.rates: list[float] = []
        # Steps of the current epoch: done so far, and in total.
        self.step, self.n_steps = 0, 1

    def start_from(self, net: Any) -> None:
        """Remember the step size of every group of parameters, which is scaled.

        Parameters
        ----------
        net : TrainingNet
            Before the state of an optimiser is loaded: that holds the step sizes with
            which an earlier run ended.
        """
        self.rates = [group["lr"] for group in net.optimizer_.param_groups]

    def on_epoch_begin(self, net: Any, dataset_train: Any, **kwargs: Any) -> None:
        """Set the weight decay."""
        self.step, self.n_steps = 0, n_batches(len(dataset_train), net.batch_size)
        learnt = self.log.learnt_by(len(self.log.loss_curve))
        net.alpha = self.settings.alpha_at(self._done(), learnt)

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Follow the cosine of the annealed schedule, step by step."""
        if training and self.kind == "annealed":
            self._set_rates(net, 0.5 * (1 + math.cos(math.pi * self._done())))
            self.step += 1

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Scale the step sizes inversely, by the rows seen so far."""
        if self.kind == "invscaling":
            # A negative power underflows to zero where its inverse would overflow.
            share = (self.log.n_samples_seen + 1) ** -self.settings.power_t
            self._set_rates(net, share)

    def lower(self, net: Any) -> float | None:
        """Divide adaptive step sizes by five, unless they are tiny.

        Parameters
        ----------
        net : TrainingNet
            Has the step sizes.

        Returns
        -------
        float or None
            The new step size; None if the schedule allows no smaller one.
        """
        groups = net.optimizer_.param_groups
        if self.kind != "adaptive" or groups[-1]["lr"] <= _LEAST_RATE:
            return None
        for group in groups:
            group["lr"] /= 5
        rate: float = groups[-1]["lr"]
        return rate

    def _done(self) -> float:
        """Return the share of all steps that are done."""
        done = self.log.epochs_of_run + self.step / self.n_steps
        return min(1.0, done / self.settings.epochs)

    def _set_rates(self, net: Any, share: float) -> None:
        """Set the step sizes to a share of those that training began with."""
        for group, rate in zip(net.optimizer_.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
