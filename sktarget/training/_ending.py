"""How a training run ended."""

from __future__ import annotations

import enum
import warnings
from dataclasses import dataclass

from sktarget.training._continuation import Continuation

__all__ = ["Ending", "Reason", "may_have_learnt"]

# Share of the error of constant outputs below which something has been learnt.
_CLEARLY = 0.9


class Reason(enum.Enum):
    """Why a run ended; the values are those that checkpoints keep."""

    NO_PROGRESS = "no progress"
    MAX_ITER = "max_iter"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"
    ASKED_TO = "a callback asked to stop"


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes
    ----------
    continuation : Continuation or None
        What to go on from; None if training diverged, which it would do again.
    reason : Reason
        Why it ended.
    held_out_error : float or None
        The least error of the rows held out, as a share of what it is for constant
        outputs; None if that is not known.
    best_at : float
        When the best epoch was, as a share of all epochs that the run might take.
    warning : Warning or None
        What the user should be told, if the network is kept.
    """

    continuation: Continuation | None
    reason: Reason
    held_out_error: float | None = None
    best_at: float = 0.0
    warning: Warning | None = None

    @property
    def is_natural(self) -> bool:
        """Whether the run ended by itself, without diverging."""
        return self.reason in (Reason.NO_PROGRESS, Reason.MAX_ITER)

    @property
    def has_learnt(self) -> bool:
        """Whether the network does clearly better than constant outputs, if known."""
        return may_have_learnt(self.held_out_error)

    def warn(self) -> None:
        """Warn of the way in which the run ended, if there is anything to say.

        Warns
        -----
        ConvergenceWarning
            If training diverged, or `max_iter` was reached without convergence.
        UserWarning
            If it was interrupted.
        """
        if self.warning is not None:
            warnings.warn(self.warning, stacklevel=3)


def may_have_learnt(held_out_error: float | None) -> bool:
    """Return whether an error is that of a network that has learnt something.

    Parameters
    ----------
    held_out_error : float or None
        As a share of that of constant outputs; None if it is not known.

    Returns
    -------
    bool
        True if it is not known.
    """
    return held_out_error is None or not held_out_error > _CLEARLY
