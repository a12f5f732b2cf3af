"""What one fit is about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sktarget.estimators._random import seed_dropout
from sktarget.estimators._rows import TrainingRows
from sktarget.training import Checkpoint

__all__ = ["Task"]


@dataclass
class Task:
    """What one fit is about: its data, and its sources of randomness.

    Attributes
    ----------
    rows, held_out : TrainingRows
        Rows to train on, and rows set aside or given to stop by, if any.
    all_rows : TrainingRows
        The former, with those set aside.
    learns_all : bool
        Whether the rows set aside are learnt in the end.
    may_retry : bool
        Whether they tell if another run is worth while: not where only epochs are to
        be chosen by them.
    device : torch.device
        Where to train.
    resumes : bool
        Whether an earlier fit goes on.
    seed, dropout_seed : int
        Seeds of what is drawn once, and of dropout.
    generator : torch.Generator
        Draws initial weights, and mini-batches.
    checkpoint : Checkpoint or None
        Saves every epoch.
    """

    rows: TrainingRows
    all_rows: TrainingRows
    held_out: TrainingRows | None
    learns_all: bool
    may_retry: bool
    device: torch.device
    resumes: bool
    seed: int
    dropout_seed: int
    generator: torch.Generator
    checkpoint: Checkpoint | None

    def prepare(self, network: nn.Module) -> None:
        """Bring a network to the device, and seed what it drops out.

        Parameters
        ----------
        network : nn.Module
            The network to train, changed in place.
        """
        network.to(self.device)
        seed_dropout(network, self.dropout_seed, self.device)
