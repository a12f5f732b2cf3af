"""How a training run ended."""

from __future__ import annotations

import enum
import warnings
from dataclasses import dataclass
from typing import Any

__all__ = ["Ending", "Reason"]


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
    optimiser_state : dict
        State to continue from.
    reason : Reason
        Why it ended.
    has_learnt : bool
        Whether the network does clearly better than constant outputs, if that is known.
    warning : Warning or None
        What the user should be told, if the network is kept.
    """

    optimiser_state: dict[str, Any]
    reason: Reason
    has_learnt: bool = True
    warning: Warning | None = None

    @property
    def is_natural(self) -> bool:
        """Whether the run ended by itself, without diverging."""
        return self.reason in (Reason.NO_PROGRESS, Reason.MAX_ITER)

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
