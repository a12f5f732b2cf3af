"""The base of the estimators that invert the steps of recurrent networks."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import StrOptions
from torch import nn

from sktarget.architectures import RecurrentNetwork
from sktarget.estimators.base import (
    CONSTRAINTS,
    Task,
    TrainingRows,
    parse_layer_sizes,
)
from sktarget.propagation._inversion_base import (
    INVERSION_CONSTRAINTS,
    INVERSION_DOCS,
    InversionEstimator,
)
from sktarget.propagation._network import INITIALISATIONS
from sktarget.propagation._recurrent_inversion import RecurrentInversionNetwork

__all__ = [
    "RECURRENT_CONSTRAINTS",
    "RECURRENT_DOCS",
    "BaseRegularizedInversionSequence",
]

Array = NDArray[Any]

RECURRENT_CONSTRAINTS: dict[str, list[Any]] = {
    **INVERSION_CONSTRAINTS,
    "recurrent_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
    "return_sequences": ["boolean"],
    "update": [StrOptions({"local", "through_time"})],
}
"""Constraints on the parameters that both estimators have."""

RECURRENT_DOCS = INVERSION_DOCS | {
    "recurrent_layer_sizes": """int or array-like of one int, default={default}
    Width of the only recurrent layer.""",
    "return_sequences": """bool, default={default}
    Give outputs for every step; otherwise for the whole sequence, from its last
    state.""",
    "update": """{"local", "through_time"}, default={default}
    ``"local"``: every step moves towards its own target, all else being constant.
    ``"through_time"``: as in the implementation that the authors of the method
    released, the distances from the targets are also sent back through time by the
    chain rule, so that it includes back-propagation through time.  Long sequences need
    it; use it with `ridge` 10, `clip` 0.001 and `linearize`.""",
    "batch_size": """int, default={default}
    Sequences of a mini-batch; all sequences, if there are fewer.""",
}
"""Texts for the section "Parameters" of their docstrings."""


class BaseRegularizedInversionSequence(InversionEstimator):
    """Base of the estimators that invert the steps of a recurrent layer."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = RECURRENT_CONSTRAINTS
    # tanh can be inverted; other activations have no use here.
    activation = "tanh"

    def __init__(
        self,
        recurrent_layer_sizes: int | ArrayLike = (50,),
        *,
        return_sequences: bool = False,
        target_lr: float = 0.1,
        ridge: float = 0.3,
        clip: float = 0.3,
        linearize: bool = False,
        update: str = "local",
        weight_init: str = "orthogonal",
        solver: str = "sgd",
        learning_rate_init: float | str = "auto",
        momentum: float = 0.0,
        batch_size: int = 100,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | str = "auto",
        device: str = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.recurrent_layer_sizes = recurrent_layer_sizes
        self.return_sequences = return_sequences
        self.target_lr = target_lr
        self.ridge = ridge
        self.clip = clip
        self.linearize = linearize
        self.update = update
        self.weight_init = weight_init
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.callbacks = callbacks
        self.checkpoint = checkpoint

    def _check_parameters(self) -> None:
        super()._check_parameters()
        sizes = parse_layer_sizes(self.recurrent_layer_sizes, "recurrent_layer_sizes")
        if len(sizes) > 1:
            raise ValueError(
                "recurrent_layer_sizes must name a single layer, got "
                f"{self.recurrent_layer_sizes!r}: the method is defined for one"
            )

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        return {
            "n_inputs": X.shape[2],
            "recurrent_layer_sizes": parse_layer_sizes(self.recurrent_layer_sizes),
            "hidden_layer_sizes": (),
            "n_outputs": self.n_outputs_,
            "cell": "rnn",
            "activation": self.activation,
            "return_sequences": bool(self.return_sequences),
        }

    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        for name, parameter in module.named_parameters():
            if "weight" in name:
                INITIALISATIONS[self.weight_init](parameter, generator=task.generator)
        return self._restored(module, task.rows, task.seed)

    def _restored(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        assert isinstance(module, RecurrentNetwork)
        return RecurrentInversionNetwork(
            module, self._inversion(), self.target_lr, self.update, self._n_rows(rows)
        )
