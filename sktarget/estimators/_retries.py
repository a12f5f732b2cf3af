"""Rules by which a fit that held rows out may be run again."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FIRST_RUN", "Retry"]


@dataclass(frozen=True)
class Retry:
    """A run by other rules, each of which stays as it is if it is None here.

    Attributes
    ----------
    what : str
        What is tried, in words.
    lam_share : float or None
        Share of the λ that the rules choose.
    decays_strongly : bool or None
        Whether the weight decay is strong.
    never_decays : bool or None
        Whether to take all epochs, with next to no weight decay.
    """

    what: str
    lam_share: float | None = None
    decays_strongly: bool | None = None
    never_decays: bool | None = None


FIRST_RUN = Retry("the rules", lam_share=1.0, decays_strongly=False, never_decays=False)
