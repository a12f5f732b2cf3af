"""The base of the estimators that invert the layers of dense networks."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import StrOptions
from torch import nn

from sktarget.estimators.base import (
    CONSTRAINTS,
    Task,
    TrainingRows,
    parse_layer_sizes,
)
from sktarget.propagation._base import warn_of_few_layers
from sktarget.propagation._dense_inversion import DenseInversionNetwork
from sktarget.propagation._inversion_base import (
    INVERSION_CONSTRAINTS,
    INVERSION_DOCS,
    InversionEstimator,
)
from sktarget.propagation._network import TransmittingNetwork

__all__ = ["DENSE_CONSTRAINTS", "DENSE_DOCS", "BaseRegularizedInversion"]

Array = NDArray[Any]

DENSE_CONSTRAINTS: dict[str, list[Any]] = {
    **INVERSION_CONSTRAINTS,
    "hidden_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
    "activation": [StrOptions({"tanh", "identity"})],
}
"""Constraints on the parameters that both estimators have."""

DENSE_DOCS = INVERSION_DOCS | {
    "activation": """{"tanh", "identity"}, default={default}
    Activation of the hidden layers; it must be invertible."""
}
"""Texts for the section "Parameters" of their docstrings."""


class BaseRegularizedInversion(InversionEstimator):
    """Base of the estimators that invert dense layers."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = DENSE_CONSTRAINTS

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100, 100),
        *,
        activation: str = "tanh",
        target_lr: float = 1.0,
        ridge: float = 1.0,
        clip: float = 0.5,
        linearize: bool = False,
        weight_init: str = "orthogonal",
        solver: str = "adam",
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.target_lr = target_lr
        self.ridge = ridge
        self.clip = clip
        self.linearize = linearize
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
        warn_of_few_layers(len(parse_layer_sizes(self.hidden_layer_sizes)))

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        return {
            "n_inputs": X.shape[1],
            "hidden_layer_sizes": parse_layer_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": self.activation,
            "weight_init": self.weight_init,
        }

    def _build(
        self,
        architecture: dict[str, Any],
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> TransmittingNetwork:
        return TransmittingNetwork(**architecture, generator=generator, dtype=dtype)

    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        return self._restored(module, task.rows, task.seed)

    def _restored(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        assert isinstance(module, TransmittingNetwork)
        return DenseInversionNetwork(
            module, self._inversion(), self.target_lr, self._n_rows(rows)
        )
