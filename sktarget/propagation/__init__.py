"""Sister algorithms, which train networks through targets in other ways."""

from sktarget.propagation._difference_estimators import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
)
from sktarget.propagation._inversion_estimators import RegularizedInversionClassifier
from sktarget.propagation._sequence_estimator import (
    RegularizedInversionSequenceClassifier,
)

__all__ = [
    "DifferenceTargetPropagationClassifier",
    "DifferenceTargetPropagationRegressor",
    "RegularizedInversionClassifier",
    "RegularizedInversionSequenceClassifier",
]
