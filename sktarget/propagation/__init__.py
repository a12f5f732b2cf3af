"""Sister algorithms, which train networks through targets in other ways."""

from sktarget.propagation._difference_estimators import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
)
from sktarget.propagation._inversion_estimators import RegularizedInversionClassifier

__all__ = [
    "DifferenceTargetPropagationClassifier",
    "DifferenceTargetPropagationRegressor",
    "RegularizedInversionClassifier",
]
