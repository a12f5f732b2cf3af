"""Rules by which a fit may be run again where rows outside of training judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sktarget.estimators._noise_rules import BADLY, LAM_OF_SECOND_TRY

__all__ = [
    "BY_LBFGS",
    "FEWER_AT_ONCE",
    "FIRST_RUN",
    "LESS_LAM",
    "MORE_ALPHA",
    "MORE_EPOCHS",
    "OTHER_WEIGHTS",
    "Retry",
]


@dataclass(frozen=True)
class Retry:
    """A run by other rules.

    Attributes
    ----------
    what : str
        What is tried, in words.
    changes : mapping
        Attributes of the estimator by which its rules are the other ones.  Others stay
        as they are in the best run so far.
    above : float
        It is tried only if the best run so far keeps more of the error of a constant.
    needs : float
        Ratio of errors, new to old, below which it is taken, however large the old.
    """

    what: str
    changes: Mapping[str, Any]
    above: float = 0.0
    needs: float = 1.0

    def __post_init__(self) -> None:
        unknown = self.changes.keys() - FIRST_RUN.keys()
        assert not unknown, f"no such rules: {unknown}"


FIRST_RUN: Mapping[str, Any] = {
    "_lam_share": 1.0,
    "_smooths": True,
    "_decays_strongly": False,
    "_never_decays": False,
    "_by_lbfgs": False,
    "_takes_fewer": False,
}
"""Attributes by which the rules are those of the first run."""

LESS_LAM = Retry("less lam", {"_lam_share": LAM_OF_SECOND_TRY})
BY_LBFGS = Retry("L-BFGS", {"_by_lbfgs": True}, above=BADLY, needs=0.9)
MORE_ALPHA = Retry(
    "more alpha",
    # Strong decay smooths the borders between classes by itself.
    {"_by_lbfgs": False, "_decays_strongly": True, "_smooths": False},
)
MORE_EPOCHS = Retry(
    "more epochs",
    {"_by_lbfgs": False, "_decays_strongly": False, "_never_decays": True},
    needs=0.85,
)
OTHER_WEIGHTS = Retry("other weights", {})
FEWER_AT_ONCE = Retry("smaller mini-batches", {"_takes_fewer": True}, needs=0.9)
