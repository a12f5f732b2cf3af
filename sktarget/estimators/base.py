"""What estimators are built on, for those of other packages.

Unlike the estimators themselves this may change from one version to the next.
"""

from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._classification import NetworkClassifier
from sktarget.estimators._estimator import NetworkEstimator
from sktarget.estimators._parameters import (
    CLASS_WEIGHT,
    CONSTRAINTS,
    document_parameters,
)
from sktarget.estimators._regression import NetworkRegressor
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._sequence_classification import NetworkSequenceClassifier
from sktarget.estimators._sequence_network import SequenceNetwork
from sktarget.estimators._sequence_regression import NetworkSequenceRegressor
from sktarget.estimators._sizes import parse_layer_sizes
from sktarget.estimators._task import Task

__all__ = [
    "CLASS_WEIGHT",
    "CONSTRAINTS",
    "NetworkClassifier",
    "NetworkEstimator",
    "NetworkRegressor",
    "NetworkSequenceClassifier",
    "NetworkSequenceRegressor",
    "SequenceNetwork",
    "Task",
    "TrainingRows",
    "as_tensor",
    "document_parameters",
    "parse_layer_sizes",
]
