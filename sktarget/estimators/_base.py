"""Estimators in target space: their parameters, images, and networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from sktarget.estimators import _rules
from sktarget.estimators._fixed_targets import FixedTargets
from sktarget.estimators._images import (
    as_rows,
    parse_conv_layers,
    parse_image_shape,
    shape_of_images,
)
from sktarget.estimators._parameters import CONSTRAINTS
from sktarget.estimators._pixels import (
    as_bytes,
    warn_of_large_pixels,
    warn_of_other_pixels,
)
from sktarget.estimators._sizes import parse_layer_sizes

__all__ = ["BaseTargetSpace"]

Array = NDArray[Any]


class BaseTargetSpace(FixedTargets):
    """Base of all estimators in target space."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS

    # Whether images were fitted as bytes.
    _of_bytes = False

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100,),
        *,
        activation: str = "auto",
        lam: float | str | Sequence[float] = "auto",
        fixed_batch_size: int | str | None = "auto",
        fixed_batch: str | ArrayLike = "sample",
        untangling: str = "scu",
        target_init: str = "auto",
        target_scale: float = 1.0,
        project_targets: bool = True,
        parameterization: str = "targets",
        shortcuts: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        conv_layers: Sequence[tuple[int, int, int]] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        module: Callable[[int, int], nn.Module] | None = None,
        solver: str = "adam",
        alpha: float | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: str = "auto",
        learning_rate_init: float | str = "auto",
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | str = "auto",
        n_iter_no_change: int | str = "auto",
        max_fun: int = 15000,
        device: str = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.lam = lam
        self.fixed_batch_size = fixed_batch_size
        self.fixed_batch = fixed_batch
        self.untangling = untangling
        self.target_init = target_init
        self.target_scale = target_scale
        self.project_targets = project_targets
        self.parameterization = parameterization
        self.shortcuts = shortcuts
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.conv_layers = conv_layers
        self.image_shape = image_shape
        self.module = module
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.callbacks = callbacks
        self.checkpoint = checkpoint

    def _check_parameters(self) -> None:
        super()._check_parameters()
        parse_layer_sizes(self.hidden_layer_sizes)
        if self._normalises and self.parameterization == "targets":
            raise ValueError(
                "batch_norm=True needs parameterization='weights': targets already fix "
                "the statistics that it normalises"
            )
        if self._incremental and self.learning_rate == "annealed":
            raise ValueError(
                "partial_fit does not support learning_rate='annealed', as it cannot "
                "know the number of calls: use 'auto', 'constant' or an LRScheduler "
                "among the callbacks"
            )
        if self._incremental and self.solver == "lbfgs":
            raise ValueError(
                "partial_fit needs mini-batches, which solver='lbfgs' does not take: "
                "use solver='adam' or solver='sgd'"
            )

    def _validate(self, X: Any, *y: Any, reset: bool, **kwargs: Any) -> Any:
        """Validate the data; images, flattened or not, come out with four axes."""
        if reset:
            self._images = shape_of_images(
                X, self.conv_layers, self.image_shape, self.module is not None
            )
        flat, shape = as_rows(X, self._images), self._images
        if shape is None:
            return super()._validate(flat, *y, reset=reset, **kwargs)
        kwargs["dtype"] = (np.float64, np.float32, np.uint8)
        if not reset and self._of_bytes:
            flat = as_bytes(flat)
        checked = super()._validate(flat, *y, reset=reset, **kwargs)
        pixels = checked[0] if y else checked
        if reset:
            self._of_bytes = pixels.dtype == np.uint8
        elif self._of_bytes:
            warn_of_other_pixels(pixels)
        if not y:
            return checked.reshape(-1, *shape)
        if reset and self.parameterization == "targets":
            warn_of_large_pixels(checked[0])
        return checked[0].reshape(-1, *shape), *checked[1:]

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        if self.module is not None:
            return {
                "module": self.module,
                "n_inputs": X.shape[1],
                "n_outputs": self.n_outputs_,
            }
        return {
            **self._describe_inputs(X),
            "hidden_layer_sizes": parse_layer_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": self._activation(),
            "shortcuts": bool(self.shortcuts),
            "dropout": float(self.dropout),
            "batch_norm": bool(self.batch_norm),
        }

    def _activation(self) -> str:
        if self.activation != "auto":
            return self.activation
        return _rules.auto_activation(
            len(parse_layer_sizes(self.hidden_layer_sizes)),
            of_numbers=self._learns_numbers,
            images=self._images is not None,
            bounded=self._is_bounded or self.out_activation_ == "exp",
        )

    def _describe_inputs(self, X: Array) -> dict[str, Any]:
        if self.conv_layers is None:
            return {"n_inputs": X.shape[1]}
        given = self.image_shape
        return {
            # Plain tuples: the description is stored with the fitted state.
            "conv_layers": tuple(map(tuple, parse_conv_layers(self.conv_layers))),
            "image_shape": X.shape[1:] if given is None else parse_image_shape(given),
        }

    def _output_shape(self, X: Array) -> tuple[int, ...]:
        """Return the shape that the outputs for some rows must have."""
        return len(X), self.n_outputs_
