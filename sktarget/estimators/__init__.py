"""The scikit-learn estimators."""

from sktarget.estimators._classifier import TargetSpaceClassifier
from sktarget.estimators._regressor import TargetSpaceRegressor
from sktarget.estimators._sequence_classifier import TargetSpaceSequenceClassifier
from sktarget.estimators._sequence_regressor import TargetSpaceSequenceRegressor

__all__ = [
    "TargetSpaceClassifier",
    "TargetSpaceRegressor",
    "TargetSpaceSequenceClassifier",
    "TargetSpaceSequenceRegressor",
]
