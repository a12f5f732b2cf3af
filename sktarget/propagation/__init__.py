"""Sister algorithms, which train networks through targets in other ways."""

from sktarget.propagation._difference_estimators import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
)
from sktarget.propagation._inversion_estimators import (
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
)
from sktarget.propagation._sequence_estimators import (
    RegularizedInversionSequenceClassifier,
    RegularizedInversionSequenceRegressor,
)

__all__ = [
    "DifferenceTargetPropagationClassifier",
    "DifferenceTargetPropagationRegressor",
    "RegularizedInversionClassifier",
    "RegularizedInversionRegressor",
    "RegularizedInversionSequenceClassifier",
    "RegularizedInversionSequenceRegressor",
]
