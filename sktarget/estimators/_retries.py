"""Rules by which a fit may be run again where rows outside of training judge it."""

from __future__ import annotations

from dataclasses import dataclass

from sktarget.estimators._noise_rules import BADLY, LAM_OF_SECOND_TRY

__all__ = [
    "BY_LBFGS",
    "FIRST_RUN",
    "LESS_LAM",
    "MORE_ALPHA",
    "MORE_EPOCHS",
    "Retry",
]


@dataclass(frozen=True)
class Retry:
    """A run by other rules, each of which stays as it is if it is None here.

    Attributes
    ----------
    what : str
        What is tried, in words.
    above : float
        It is tried only if the best run so far keeps more of the error of a constant.
    needs : float
        Ratio of errors, new to old, below which it is taken, however large the old.
    lam_share : float or None
        Share of the λ that the rules choose.
    decays_strongly : bool or None
        Whether the weight decay is strong.
    never_decays : bool or None
        Whether to take all epochs, with next to no weight decay.
    by_lbfgs : bool or None
        Whether to go by L-BFGS, with a weight decay that stays as it is.
    """

    what: str
    above: float = 0.0
    needs: float = 1.0
    lam_share: float | None = None
    decays_strongly: bool | None = None
    never_decays: bool | None = None
    by_lbfgs: bool | None = None


FIRST_RUN = Retry(
    "the rules",
    lam_share=1.0,
    decays_strongly=False,
    never_decays=False,
    by_lbfgs=False,
)
LESS_LAM = Retry("less lam", lam_share=LAM_OF_SECOND_TRY)
MORE_ALPHA = Retry("more alpha", decays_strongly=True, by_lbfgs=False)
MORE_EPOCHS = Retry(
    "more epochs",
    needs=0.85,
    decays_strongly=False,
    never_decays=True,
    by_lbfgs=False,
)
BY_LBFGS = Retry(
    "L-BFGS",
    above=BADLY,
    needs=0.9,
    decays_strongly=False,
    never_decays=False,
    by_lbfgs=True,
)
