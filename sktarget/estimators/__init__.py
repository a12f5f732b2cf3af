"""The scikit-learn estimators."""

from sktarget.estimators._classifier import TargetSpaceClassifier
from sktarget.estimators._regressor import TargetSpaceRegressor

__all__ = ["TargetSpaceClassifier", "TargetSpaceRegressor"]
