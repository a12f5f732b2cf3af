"""What the estimators that invert layers or steps share."""

from __future__ import annotations

from numbers import Real
from typing import Any

from sklearn.utils._param_validation import Interval

from sktarget.estimators.base import TrainingRows
from sktarget.propagation._base import (
    SHARED_CONSTRAINTS,
    SHARED_DOCS,
    PropagationEstimator,
)
from sktarget.propagation._inversion import Inversion
from sktarget.propagation._training import LocalNet
from sktarget.training import TrainingLog, TrainingSettings, state_to_numpy

__all__ = ["INVERSION_CONSTRAINTS", "INVERSION_DOCS", "InversionEstimator"]

INVERSION_CONSTRAINTS: dict[str, list[Any]] = {
    **SHARED_CONSTRAINTS,
    "ridge": [Interval(Real, 0, None, closed="neither")],
    "clip": [Interval(Real, 0, 1, closed="neither")],
    "linearize": ["boolean"],
}
"""Constraints on the parameters that all inversion estimators have."""

INVERSION_DOCS = SHARED_DOCS | {
    "target_lr": """float, default={default}
    γ ≥ 0: the first target is this step down the gradient of the mean loss of a whole
    mini-batch.  With ``solver="adam"`` it matters little unless it is tiny, with
    `linearize` even less.""",
    "ridge": """float, default={default}
    r > 0, the ridge penalty on the states that an inverse finds.  Every layer that
    displacements are passed down multiplies them by up to 1 / 2√r, and where units are
    saturated by up to 1 / (1 − (1 − ε)²) in addition: with a small ridge they may
    explode, with a large one they fade.""",
    "clip": """float, default={default}
    ε: values are clipped to ±(1 − ε) before the activation is inverted.""",
    "linearize": """bool, default={default}
    Pass displacements on by the derivative of the inverse at the state, instead of by
    the difference of two inverses.  Displacements of units beyond the clipped range
    then count up to 1 / (1 − (1 − ε)²) times, instead of as zero.""",
    "solver": """{"adam", "sgd", "rmsprop_centered"}, default={default}
    Optimiser.  ``"rmsprop_centered"`` is RMSprop with centred second moments, 0.001
    under the root, and momentum 0.9.""",
}
"""Texts for the section "Parameters" of their docstrings."""


class InversionEstimator(PropagationEstimator):
    """Base of the estimators that invert layers."""

    activation: str
    batch_size: int
    ridge: float
    clip: float
    linearize: bool

    _remedy = (
        "Raise ridge or clip, lower learning_rate_init or target_lr, or standardise X"
    )
    _training_net = LocalNet

    def _inversion(self) -> Inversion:
        return Inversion(
            ridge=float(self.ridge),
            clip=float(self.clip),
            linearize=bool(self.linearize),
            activation=self.activation,
        )

    def _n_rows(self, rows: TrainingRows) -> float:
        """Return how many rows a mini-batch stands for.

        A row of weight 2 counts as two, but weights that add up to less than the number
        of rows, such as those that sum to one, only compare them.
        """
        return min(float(self.batch_size), max(float(len(rows)), rows.total_weight))

    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        return self._propagation_settings(rows, describe=["target_lr", "ridge", "clip"])

    def _fitted_attributes(self, network: Any, log: TrainingLog) -> dict[str, Any]:
        return super()._fitted_attributes(network, log) | {
            "displacement_norms_": state_to_numpy(network.displacement_norms),
            "saturation_fraction_": float(network.saturation_fraction),
        }
