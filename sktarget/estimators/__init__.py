"""The scikit-learn estimators."""

from sktarget.estimators._classifier import TargetSpaceClassifier
from sktarget.estimators._regressor import TargetSpaceRegressor
from sktarget.estimators._sequence import (
    TargetSpaceSequenceClassifier,
    TargetSpaceSequenceRegressor,
)

__all__ = [
    "TargetSpaceClassifier",
    "TargetSpaceRegressor",
    "TargetSpaceSequenceClassifier",
    "TargetSpaceSequenceRegressor",
]
