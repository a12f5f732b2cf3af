"""Sister algorithms, which train networks through targets in other ways."""

from sktarget.propagation._difference_estimators import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
)

__all__ = [
    "DifferenceTargetPropagationClassifier",
    "DifferenceTargetPropagationRegressor",
]
