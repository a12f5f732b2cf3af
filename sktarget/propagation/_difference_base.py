"""The base of the estimators that train by difference target propagation."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from sktarget.estimators.base import (
    Task,
    TrainingRows,
    as_tensor,
    parse_layer_sizes,
)
from sktarget.propagation._base import PropagationEstimator, warn_of_few_layers
from sktarget.propagation._difference import DifferenceTargetNetwork
from sktarget.propagation._difference_parameters import DIFFERENCE_CONSTRAINTS
from sktarget.propagation._feedback import FeedbackMap
from sktarget.propagation._network import TransmittingNetwork
from sktarget.propagation._training import FeedbackNet
from sktarget.training import TrainingLog, TrainingNet, TrainingSettings, state_to_numpy

__all__ = ["BaseDifferenceTargetPropagation"]

Array = NDArray[Any]

# Arguments of the feedback maps, not of the network that predicts.
_FEEDBACK = ("feedback_activation", "top_target")


class BaseDifferenceTargetPropagation(PropagationEstimator):
    """Base of the estimators that learn feedback maps."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = DIFFERENCE_CONSTRAINTS
    _remedy = (
        "Lower learning_rate_init, feedback_learning_rate_init or target_lr, or "
        "standardise X"
    )
    out_activation_: str

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100, 100),
        *,
        activation: str = "tanh",
        feedback_activation: str = "tanh",
        transmission: str = "identity",
        top_target: str = "penultimate",
        target_lr: float = 0.01,
        noise: float = 0.1,
        noise_decay: float | None = None,
        input_noise: float = 0.0,
        feedback_steps: int = 1,
        feedback_order: str = "batch",
        difference: bool = True,
        learn_feedback: bool = True,
        weight_init: str = "orthogonal",
        solver: str = "adam",
        learning_rate_init: float | str = "auto",
        feedback_learning_rate_init: float = 1e-3,
        momentum: float = 0.0,
        batch_size: int = 100,
        max_iter: int = 200,
        shuffle: bool = True,
        n_samples_predict: int = 100,
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
        self.feedback_activation = feedback_activation
        self.transmission = transmission
        self.top_target = top_target
        self.target_lr = target_lr
        self.noise = noise
        self.noise_decay = noise_decay
        self.input_noise = input_noise
        self.feedback_steps = feedback_steps
        self.feedback_order = feedback_order
        self.difference = difference
        self.learn_feedback = learn_feedback
        self.weight_init = weight_init
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.feedback_learning_rate_init = feedback_learning_rate_init
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.n_samples_predict = n_samples_predict
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

    @property
    def _training_net(self) -> Callable[..., TrainingNet]:  # type: ignore[override]
        return partial(
            FeedbackNet,
            feedback_steps=self.feedback_steps if self.learn_feedback else 0,
            feedback_order=self.feedback_order,
            noise_decay=self.noise_decay,
        )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        n_hidden = len(parse_layer_sizes(self.hidden_layer_sizes))
        warn_of_few_layers(n_hidden, 2 if self.top_target == "penultimate" else 1)
        if (self.transmission, self.activation) == ("sign", "logistic") and (
            n_hidden > 1
        ):
            raise ValueError(
                'the values of activation="logistic" are all positive, so that with '
                'transmission="sign" every row would be predicted alike: give '
                'activation="tanh", or transmission="bernoulli" to transmit samples'
            )

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        samples = self.transmission == "bernoulli"
        return {
            "n_inputs": X.shape[1],
            "hidden_layer_sizes": parse_layer_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": "logistic" if samples else self.activation,
            "transmission": self.transmission,
            "weight_init": self.weight_init,
            "out_activation": self.out_activation_,
            "n_passes": self.n_samples_predict,
            "feedback_activation": self.feedback_activation,
            "top_target": self.top_target,
        }

    def _build(
        self,
        architecture: dict[str, Any],
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> TransmittingNetwork:
        kept = {k: v for k, v in architecture.items() if k not in _FEEDBACK}
        return TransmittingNetwork(**kept, generator=generator, dtype=dtype)

    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        assert isinstance(module, TransmittingNetwork)
        return self._with_feedback(module, task.generator, task.seed)

    def _restored(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        assert isinstance(module, TransmittingNetwork)
        network = self._with_feedback(module, torch.Generator(), seed)
        network.reconstruction_curve = self.reconstruction_curve_.tolist()
        with torch.no_grad():
            for k, linear in enumerate(_linear_parts(network)):
                linear.weight.copy_(as_tensor(self.feedback_coefs_[k].T))
                linear.bias.copy_(as_tensor(self.feedback_intercepts_[k]))
        return network

    def _with_feedback(
        self, module: TransmittingNetwork, generator: torch.Generator, seed: int
    ) -> DifferenceTargetNetwork:
        return DifferenceTargetNetwork(
            module,
            feedback_activation=self.feedback_activation,
            target_lr=self.target_lr,
            top_target=self.top_target,
            noise=self.noise,
            input_noise=self.input_noise,
            difference=self.difference,
            weight_init=self.weight_init,
            generator=generator,
            seed=seed,
        )

    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        return self._propagation_settings(
            rows,
            describe=["feedback_learning_rate_init", "target_lr"],
            rates={"feedback.*": float(self.feedback_learning_rate_init)},
        )

    def _fitted_attributes(
        self, network: nn.Module, log: TrainingLog
    ) -> dict[str, Any]:
        assert isinstance(network, DifferenceTargetNetwork)
        linear = _linear_parts(network)
        # An epoch that diverged has no loss, and so gets no row here.
        curve = network.reconstruction_curve[: len(log.loss_curve)]
        shape = (len(curve), len(linear))
        return super()._fitted_attributes(network, log) | {
            "feedback_coefs_": [state_to_numpy(g.weight.T) for g in linear],
            "feedback_intercepts_": [state_to_numpy(g.bias) for g in linear],
            "reconstruction_curve_": np.array(curve, dtype=np.float64).reshape(shape),
        }


def _linear_parts(network: DifferenceTargetNetwork) -> list[nn.Linear]:
    maps = (g for g in network.feedback if isinstance(g, FeedbackMap))
    return [g.linear for g in maps]
