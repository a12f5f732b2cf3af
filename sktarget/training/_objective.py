"""What a network learns, and how its outputs are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sktarget.training._losses import Loss

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """What a network learns, and how its outputs are judged.

    Attributes
    ----------
    loss : callable
        Maps (sums, y, weight of the rows or None) to the loss.
    score : callable
        Maps the same to the score of the validation set.
    error : callable, optional
        Like `loss`; decides on the validation set in place of the score.
    constant_error : float
        What `error` is on the validation set for outputs that do not depend on the
        inputs.  Until a network does clearly better, early stopping waits; 0 if not.
    read : callable, optional
        Turns inputs of any form that ``fit`` takes into what torch can read, for
        callbacks that ask for predictions; leaves sequences as they are.
    decode : callable, optional
        Turns sums into predictions of y as the training data hold it, for callbacks
        that score: of classes, their indices.
    decode_proba : callable, optional
        Turns sums into probabilities, likewise.
    decide : callable, optional
        Turns sums of a classifier into what its ``decision_function`` returns.
    """

    loss: Loss
    score: Callable[[Tensor, Tensor, Tensor | None], float]
    error: Loss | None = None
    constant_error: float = 0.0
    read: Callable[[Any], Any] | None = None
    decode: Callable[[Tensor], Any] | None = None
    decode_proba: Callable[[Tensor], Any] | None = None
    decide: Callable[[Tensor], Any] | None = None
