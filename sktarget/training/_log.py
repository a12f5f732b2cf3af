"""The record of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["TrainingLog"]


@dataclass
class TrainingLog:
    """What a run leaves behind besides the network.

    Attributes
    ----------
    loss_curve : list of float
        Training loss of every epoch, penalties included.
    validation_losses, validation_scores : list of float
        Those of every epoch; empty without a validation set.
    no_improvement : int
        Epochs in a row without progress.
    n_samples_seen : int
        Rows shown to the network so far, the t of the ``invscaling`` schedule.
    epochs_before : int
        Epochs in the log that this one continues.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    no_improvement: int = 0
    n_samples_seen: int = 0
    epochs_before: int = 0

    @property
    def best_epoch(self) -> int:
        """Number of the last epoch with progress, from 1."""
        return max(1, len(self.loss_curve) - self.no_improvement)

    def learnt_by(self, epoch: int) -> float:
        """Return the share by which the loss has fallen since the first epoch.

        It is the mean loss of two epochs that counts: a weight decay that drives the
        loss up and then waits for it would swing from epoch to epoch.

        Parameters
        ----------
        epoch : int
            The number of the second of them.

        Returns
        -------
        float
            From 0 to 1.
        """
        losses = self.loss_curve
        last = losses[max(0, epoch - 2) : epoch]
        if not last or losses[0] <= 0:
            return 0.0
        return max(0.0, 1 - sum(last) / len(last) / losses[0])

    @property
    def best_loss(self) -> float:
        """The smallest finite training loss."""
        return min((x for x in self.loss_curve if math.isfinite(x)), default=math.inf)
