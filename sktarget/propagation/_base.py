"""What the estimators of this package share, on top of what all estimators share."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any

from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sktarget.estimators.base import (
    CONSTRAINTS,
    NetworkEstimator,
    TrainingRows,
)
from sktarget.training import TrainingSettings

__all__ = [
    "SHARED_CONSTRAINTS",
    "SHARED_DOCS",
    "PropagationEstimator",
    "warn_of_few_layers",
]

Array = NDArray[Any]

_AS_IN_TARGET_SPACE = [
    "learning_rate_init",
    "shuffle",
    "max_iter",
    "random_state",
    "tol",
    "verbose",
    "warm_start",
    "momentum",
    "validation_fraction",
    "n_iter_no_change",
    "device",
    "callbacks",
    "checkpoint",
]
SHARED_CONSTRAINTS: dict[str, list[Any]] = {
    "weight_init": [StrOptions({"orthogonal", "uniform"})],
    "target_lr": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "solver": [StrOptions({"adam", "sgd", "rmsprop_centered"})],
    "early_stopping": ["boolean"],
    **{name: CONSTRAINTS[name] for name in _AS_IN_TARGET_SPACE},
}
"""Constraints on the parameters that all these estimators have."""

_AUTO_RATES = {"adam": 0.001, "sgd": 0.1, "rmsprop_centered": 0.01}
_FULL_BATCH_RATE, _A_HANDFUL = 0.01, 50
SHARED_DOCS = {
    "weight_init": """{"orthogonal", "uniform"}, default={default}
    Initial weights: matrices all of whose singular values are 1, or uniform numbers up
    to ±√(6 / (n_in + n_out)).  Biases start at 0.""",
    "learning_rate_init": """float or "auto", default={default}
    Step size of the network's weights.  ``"auto"`` is 0.001 for ``solver="adam"``, 0.1
    for ``"sgd"`` and 0.01 for ``"rmsprop_centered"``; where one mini-batch holds all
    rows of ``fit``, it is 0.01 for ``"adam"`` too, and of fewer than 50 rows for every
    solver.""",
    "early_stopping": """bool, default={default}
    Set rows aside, stop when their score no longer improves, and keep the state of
    the best epoch.  A validation set given to ``fit`` takes their place.""",
    "batch_size": """int, default={default}
    Rows of a mini-batch; all rows, if there are fewer.""",
    "max_iter": """int, default={default}
    Epochs of each call of ``fit``.""",
    "random_state": """int, RandomState instance or None, default={default}
    Decides the initial weights, the validation rows, the mini-batches and all
    noise.""",
    "warm_start": """bool, default={default}
    Continue from the weights and optimiser states of the last ``fit``.""",
    "momentum": """float, default={default}
    Nesterov momentum of ``solver="sgd"``.""",
    "validation_fraction": """float, default={default}
    Share of the rows set aside by `early_stopping`.""",
    "n_iter_no_change": """int or "auto", default={default}
    Epochs without progress after which training stops; ``np.inf`` for never.
    ``"auto"`` is 10 epochs or, where an epoch has few mini-batches, as many as make
    200 steps.""",
}
"""Texts for the section "Parameters" of their docstrings."""

# Parts of an architecture that are drawn once, in the first fit, and then stay.
_DRAWN = ("weight_init", "n_passes")


class PropagationEstimator(NetworkEstimator):
    """Base of the estimators whose networks learn layer by layer from targets."""

    target_lr: float

    _remedy = "Lower learning_rate_init or target_lr, or standardise X"

    def _propagation_settings(
        self,
        rows: TrainingRows,
        describe: list[str],
        rates: dict[str, float] | None = None,
    ) -> TrainingSettings:
        """Make settings; `describe` names parameters to report if training diverges."""
        rate = self._rate(rows)
        named = {"learning_rate_init": rate}
        named |= {name: getattr(self, name) for name in describe}
        return TrainingSettings(
            **self._shared_settings(rows),
            learning_rate_init=rate,
            max_iter=1 if self._incremental else self.max_iter,
            describe=", ".join(f"{k}={value:g}" for k, value in named.items()),
            remedy=self._remedy,
            warns_at_end=not self._incremental,
            rates=rates or {},
        )

    def _auto_rate(self, rows: TrainingRows) -> float:
        rate, n_samples = _AUTO_RATES[self.solver], len(rows)
        if n_samples > self._batch_rows(rows) or self._incremental:
            return rate
        # There are fewer steps in full batch, which should not be smaller.  But large
        # ones on a handful of rows are chaotic: rounding decides what is learnt.
        few = n_samples < _A_HANDFUL
        return _FULL_BATCH_RATE if few else max(rate, _FULL_BATCH_RATE)

    def _refuse_other_architecture(self, now: dict[str, Any]) -> None:
        drawn = {k: v for k, v in self._architecture.items() if k in _DRAWN}
        super()._refuse_other_architecture(now | drawn)

    def _keep_network(self, network: nn.Module) -> None:
        """Keep nothing more: weights and optimiser state are all there is."""


def warn_of_few_layers(n_hidden: int, needed: int = 2) -> None:
    """Warn of fewer hidden layers than it takes to pass a target down."""
    if n_hidden < needed:
        layers = "one hidden layer" if n_hidden else "no hidden layer"
        least = "two" if needed == 2 else "one"
        warnings.warn(
            f"With {layers} no target is passed down: this is backpropagation. Give "
            f"{least} or more hidden_layer_sizes.",
            stacklevel=2,
        )
