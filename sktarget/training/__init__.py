"""The training loop: a skorch net over tensors in memory."""

from sktarget.training._bridge import EpochContext
from sktarget.training._checkpoint import Checkpoint
from sktarget.training._continuation import Continuation
from sktarget.training._criteria import (
    CRITERIA,
    NUMBER_CRITERIA,
    Criterion,
    NumberCriterion,
    quantile_criterion,
)
from sktarget.training._data import (
    Batch,
    TensorData,
    as_inputs,
    n_batches,
    rows_at_a_time,
)
from sktarget.training._describing import describe_value, digest
from sktarget.training._ending import Ending, Reason, may_have_learnt
from sktarget.training._given_callbacks import (
    bare,
    brings_schedule,
    refuse_to_watch_nothing,
)
from sktarget.training._log import TrainingLog
from sktarget.training._losses import Loss, over_steps
from sktarget.training._monitor import DivergenceError
from sktarget.training._net import TrainingNet
from sktarget.training._objective import Objective
from sktarget.training._optimisers import FusedAdam
from sktarget.training._settings import TrainingSettings, supported_schedule
from sktarget.training._state import state_to_numpy, state_to_torch
from sktarget.training._train import train

__all__ = [
    "CRITERIA",
    "NUMBER_CRITERIA",
    "Batch",
    "Checkpoint",
    "Continuation",
    "Criterion",
    "DivergenceError",
    "Ending",
    "EpochContext",
    "FusedAdam",
    "Loss",
    "NumberCriterion",
    "Objective",
    "Reason",
    "TensorData",
    "TrainingLog",
    "TrainingNet",
    "TrainingSettings",
    "as_inputs",
    "bare",
    "brings_schedule",
    "describe_value",
    "digest",
    "may_have_learnt",
    "n_batches",
    "over_steps",
    "quantile_criterion",
    "refuse_to_watch_nothing",
    "rows_at_a_time",
    "state_to_numpy",
    "state_to_torch",
    "supported_schedule",
    "train",
]
