"""The training loop: a skorch net over tensors in memory."""

from sktarget.training._bridge import EpochContext
from sktarget.training._data import Batch, TensorData
from sktarget.training._losses import LOSSES
from sktarget.training._monitor import DivergenceError, TrainingLog
from sktarget.training._net import TrainingNet, TrainingSettings, train

__all__ = [
    "LOSSES",
    "Batch",
    "DivergenceError",
    "EpochContext",
    "TensorData",
    "TrainingLog",
    "TrainingNet",
    "TrainingSettings",
    "train",
]
