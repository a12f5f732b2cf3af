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
        Those of every epoch, NaN where an earlier run had no validation set; empty if
        none had one.
    no_improvement : int
        Epochs in a row without progress.
    n_samples_seen : int
        Rows shown to the network so far, the t of the ``invscaling`` schedule.
    epochs_before : int
        Epochs in the log that this one continues.
    first : int
        Index of the first epoch of the present fit, among whose epochs the best is
        looked for.
    epochs_of_earlier_runs : int
        Epochs of earlier runs; those of ``partial_fit`` are runs within one fit.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    no_improvement: int = 0
    n_samples_seen: int = 0
    epochs_before: int = 0
    first: int = 0
    epochs_of_earlier_runs: int = 0

    def begin_run(self) -> None:
        """Begin to count the epochs of another run."""
        self.epochs_of_earlier_runs = len(self.loss_curve)

    @property
    def epochs_of_run(self) -> int:
        """How many epochs the present run has taken."""
        return len(self.loss_curve) - self.epochs_of_earlier_runs

    def begin_fit(self) -> None:
        """Begin another fit, perhaps to other data, whose losses may be larger."""
        self.no_improvement, self.first = 0, len(self.loss_curve)

    def add_validation(self, loss: float, score: float) -> None:
        """Record the validation of the last epoch.

        Parameters
        ----------
        loss, score : float
            Loss and score of the validation set.
        """
        without = len(self.loss_curve) - 1 - len(self.validation_scores)
        self.validation_losses += [*without * [math.nan], loss]
        self.validation_scores += [*without * [math.nan], score]

    @property
    def best_epoch(self) -> int:
        """Number of the last epoch with progress, from 1."""
        return max(1, len(self.loss_curve) - self.no_improvement)

    def learnt_by(self, epoch: int) -> float:
        """Return the share by which the loss has fallen since the first epoch.

        It is the mean loss of two epochs that counts: a weight decay that drives the
        loss up and then waits for it would swing from epoch to epoch.  Where the
        present fit is not the first, the larger of their first losses is the measure:
        one that goes on with the same data has learnt what was learnt before, and one
        with others may begin above all of that.

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
        first = max([*losses[:1], *losses[self.first : self.first + 1]], default=0.0)
        if not last or first <= 0:
            return 0.0
        return max(0.0, 1 - sum(last) / len(last) / first)

    @property
    def best_loss(self) -> float:
        """The smallest finite training loss."""
        losses = (x for x in self.loss_curve[self.first :] if math.isfinite(x))
        return min(losses, default=math.inf)

    @property
    def best_score(self) -> float:
        """The largest validation score; minus infinity if there is none."""
        return max(self._validated(self.validation_scores), default=-math.inf)

    @property
    def best_validation_loss(self) -> float:
        """The smallest validation loss; infinity if there is none."""
        return min(self._validated(self.validation_losses), default=math.inf)

    def _validated(self, curve: list[float]) -> list[float]:
        return [value for value in curve[self.first :] if not math.isnan(value)]
