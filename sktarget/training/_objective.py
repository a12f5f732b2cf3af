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
    decode : callable, optional
        Turns sums into predictions, for callbacks that score.
    decode_proba : callable, optional
        Turns sums into probabilities, likewise.
    """

    loss: Loss
    score: Callable[[Tensor, Tensor, Tensor | None], float]
    error: Loss | None = None
    constant_error: float = 0.0
    decode: Callable[[Tensor], Any] | None = None
    decode_proba: Callable[[Tensor], Any] | None = None
