"""Rules by which a fit may be run again where rows outside of training judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sktarget.estimators._noise_rules import BADLY, LAM_OF_SECOND_TRY

__all__ = [
    "BY_LBFGS",
    "FEWER_AT_ONCE",
    "LESS_LAM",
    "MORE_ALPHA",
    "MORE_EPOCHS",
    "OTHER_WEIGHTS",
    "Retry",
    "RunRules",
]


@dataclass(frozen=True)
class RunRules:
    """In what the rules of a run may differ from those of the first.

    Attributes
    ----------
    lam_share : float
        Share of the λ that the rules choose.
    smooths : bool
        Whether λ is larger where borders between classes are to be smooth.
    decays_strongly : bool
        Whether the weight decay is strong.
    never_decays : bool
        Whether to take all epochs, with next to no weight decay.
    by_lbfgs : bool
        Whether to go by L-BFGS, with a weight decay that does not fall.
    takes_fewer : bool
        Whether mini-batches of sequences are smaller.
    """

    lam_share: float = 1.0
    smooths: bool = True
    decays_strongly: bool = False
    never_decays: bool = False
    by_lbfgs: bool = False
    takes_fewer: bool = False


@dataclass(frozen=True)
class Retry:
    """A run by other rules.

    Attributes
    ----------
    what : str
        What is tried, in words.
    changes : mapping
        Fields of :class:`RunRules` that are other ones.  The rest stay as they are in
        the best run so far.
    above : float
        It is tried only if the best run so far keeps more of the error of a constant.
    needs : float
        Ratio of errors, new to old, below which it is taken, however large the old.
    """

    what: str
    changes: Mapping[str, Any]
    above: float = 0.0
    needs: float = 1.0


LESS_LAM = Retry("less lam", {"lam_share": LAM_OF_SECOND_TRY})
BY_LBFGS = Retry("L-BFGS", {"by_lbfgs": True}, above=BADLY, needs=0.9)
MORE_ALPHA = Retry(
    "more alpha",
    # Strong decay smooths the borders between classes by itself.
    {"by_lbfgs": False, "decays_strongly": True, "smooths": False},
)
MORE_EPOCHS = Retry(
    "more epochs",
    {"by_lbfgs": False, "decays_strongly": False, "never_decays": True},
    needs=0.85,
)
OTHER_WEIGHTS = Retry("other weights", {})
FEWER_AT_ONCE = Retry("smaller mini-batches", {"takes_fewer": True}, needs=0.9)
