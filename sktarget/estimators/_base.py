"""Estimators in target space: their parameters, X̄, λ and targets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from sktarget.estimators import _rules
from sktarget.estimators._estimator import NetworkEstimator
from sktarget.estimators._images import (
    as_rows,
    parse_conv_layers,
    parse_image_shape,
    shape_of_images,
)
from sktarget.estimators._network import (
    WEIGHTED,
    as_tensor,
    ordinary_module,
    state_to_numpy,
    torch_dtype,
)
from sktarget.estimators._parameters import CONSTRAINTS
from sktarget.estimators._preparation import (
    TrainingRows,
    can_hold_out,
    choose_fixed_batch,
    hidden_sizes,
)
from sktarget.estimators._start import (
    aim_at_labels,
    mean_labels,
    moments_of_labels,
    output_layer,
    standardise_inputs_,
    targets_of_origin,
)
from sktarget.nn import TargetSpace
from sktarget.training import QUADRATIC_ERRORS, Loss, TrainingSettings, as_inputs

__all__ = ["BaseTargetSpace"]

Array = NDArray[Any]


class BaseTargetSpace(NetworkEstimator):
    """Base of all estimators in target space."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS
    # Whether X is a table, unless it holds images.
    _takes_tables = True
    # Names of the last layer's parameters, and the unit of the outputs.
    _output_scale: tuple[str, float] = ("", 1.0)

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
        alpha: float = 0.0001,
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
        epsilon: float = 1e-8,
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

    def _check_parameters(self, incremental: bool) -> None:
        super()._check_parameters(incremental)
        self._incremental = incremental
        hidden_sizes(self.hidden_layer_sizes)
        if self.batch_norm and self.parameterization == "targets":
            raise ValueError(
                "batch_norm=True goes with parameterization='weights' only: targets "
                "fix the statistics that it normalises"
            )
        if incremental and self.solver == "lbfgs":
            raise ValueError(
                "partial_fit needs mini-batches, which solver='lbfgs' does not take: "
                "use solver='adam' or solver='sgd'"
            )

    def _validate(self, X: Any, *y: Any, reset: bool, **kwargs: Any) -> Any:
        """Validate; images, flattened or not, come out with four axes."""
        if reset:
            self._images = shape_of_images(
                X, self.conv_layers, self.image_shape, self.module is not None
            )
        flat, shape = as_rows(X, self._images), self._images
        if shape is None:
            return super()._validate(flat, *y, reset=reset, **kwargs)
        kwargs["dtype"] = (np.float64, np.float32, np.uint8)
        checked = super()._validate(flat, *y, reset=reset, **kwargs)
        if not y:
            return checked.reshape(-1, *shape)
        return checked[0].reshape(-1, *shape), *checked[1:]

    @property
    def _reads_table(self) -> bool:
        """Whether X is a table, not images or sequences."""
        return self._takes_tables and self._images is None

    @property
    def _tuned(self) -> bool:
        """Whether step size, batches, schedule and stopping are chosen together."""
        return (
            self._reads_table
            and self.learning_rate_init == "auto"
            and self.tol > 0
            and self.solver == "adam"
            and self.parameterization == "targets"
            and not self._incremental
        )

    def _holds_out(self, rows: TrainingRows) -> bool:
        if self.early_stopping != "auto":
            return bool(self.early_stopping)
        return (
            self._tuned
            and not self.warm_start
            and _rules.auto_early_stopping(len(rows))
            and can_hold_out(rows, self.validation_fraction)
        )

    def _learns_held_out(self, rows: TrainingRows) -> bool:
        # Who asks for early stopping may want rows that the network has not seen.
        automatic = self.early_stopping == "auto"
        return automatic and self._takes_all(rows) and self._schedule() == "annealed"

    def _start_from(
        self, network: nn.Module, rows: TrainingRows, seed: int
    ) -> nn.Module:
        module = ordinary_module(network).cpu()
        return self._to_targets(module, rows, seed, keep_weights=True).train()

    def _stopping_error(self) -> Loss | None:
        automatic = self.early_stopping == "auto"
        return QUADRATIC_ERRORS[self._loss] if automatic else None

    def _arrange(self, rows: TrainingRows, seed: int) -> TrainingRows:
        """Merge repeated rows where one pass is to serve X̄ and X."""
        return rows.distinct(seed) if self._takes_all(rows) else rows

    def _takes_all(self, rows: TrainingRows) -> bool:
        """Whether all rows are X̄ and batch at once, by their number."""
        return (
            self._tuned
            and isinstance(self.fixed_batch, str)
            and (self.fixed_batch, self.fixed_batch_size) == ("sample", "auto")
            and self.batch_size == "auto"
            and len(rows) <= _rules.MOST_AT_ONCE
        )

    def _start(
        self, rows: TrainingRows, generator: torch.Generator, seed: int
    ) -> nn.Module:
        """Build the network, and X̄ and targets for it."""
        self._architecture = self._describe_architecture(rows.X)
        self._space = self.parameterization
        dtype = torch_dtype(rows.dtype)
        module = self._build(self._architecture, dtype, generator)
        self._check_outputs(module, rows)
        self._fixed_batch_is_all = False
        self._origin, self._output_scale = None, ("", 1.0)
        if self._loss == "squared_error" and self.module is None:
            name, layer = output_layer(module)
            self._origin, unit = moments_of_labels(rows)
            if self._starts_from_labels:
                with torch.no_grad():
                    layer.weight.mul_(unit)
                self._output_scale = (f"*{name}.*", unit)
        if self.parameterization == "weights":
            return module
        if self._starts_from_labels and self._reads_table:
            first = next(m for m in module.modules() if isinstance(m, nn.Linear))
            standardise_inputs_(first, rows)
        network = self._to_targets(module, rows, seed)
        if self.target_init == "normal":
            network.reset_targets(
                self.target_scale, project=self.project_targets, generator=generator
            )
        return network

    @property
    def _starts_from_labels(self) -> bool:
        """Whether the last layer is known to give the outputs, and free to start."""
        return self.target_init == "auto" and self.module is None

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        if self.module is not None:
            return {
                "module": self.module,
                "n_inputs": X.shape[1],
                "n_outputs": self.n_outputs_,
            }
        return {
            **self._describe_inputs(X),
            "hidden_layer_sizes": hidden_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": self._activation(),
            "shortcuts": bool(self.shortcuts),
            "dropout": float(self.dropout),
            "batch_norm": bool(self.batch_norm),
        }

    def _activation(self) -> str:
        if self.activation != "auto":
            return self.activation
        return _rules.auto_activation(len(hidden_sizes(self.hidden_layer_sizes)))

    def _describe_inputs(self, X: Array) -> dict[str, Any]:
        if self.conv_layers is None:
            return {"n_inputs": X.shape[1]}
        given = self.image_shape
        return {
            # Plain tuples: the description is stored with the fitted state.
            "conv_layers": tuple(map(tuple, parse_conv_layers(self.conv_layers))),
            "image_shape": X.shape[1:] if given is None else parse_image_shape(given),
        }

    def _check_outputs(self, module: nn.Module, rows: TrainingRows) -> None:
        """Try a module of the user's own before any training."""
        if self.module is None:
            return
        X = rows.X
        mode = module.training
        try:
            with torch.no_grad():
                x = as_inputs(as_tensor(X[:2]), torch_dtype(rows.dtype))
                shape = tuple(module.eval()(x).shape)
        except Exception as error:
            raise ValueError(
                f"module cannot take rows of X, of shape {X[:2].shape}: {error}"
            ) from error
        module.train(mode)
        needed = self._output_shape(X[:2])
        if shape != needed:
            raise ValueError(
                f"module gives outputs of shape {shape} for {len(X[:2])} rows; "
                f"{needed} is needed"
            )

    def _output_shape(self, X: Array) -> tuple[int, ...]:
        """Say which shape the outputs for some rows are to have."""
        return len(X), self.n_outputs_

    def _to_targets(
        self,
        module: nn.Module,
        rows: TrainingRows,
        seed: int,
        *,
        keep_weights: bool = False,
    ) -> TargetSpace:
        """Choose X̄ and λ; take targets from the given weights, and from the labels."""
        array, place = self._choose_fixed_batch(module, rows, seed)
        fixed, lam = as_tensor(array), self.lam
        network = TargetSpace(module, fixed, untangling=self.untangling)
        network.lam = self._auto_lam(network) if isinstance(lam, str) else lam
        self.lam_ = network.lam
        if keep_weights:
            return TargetSpace(
                module, fixed, self.lam_, self.untangling, keep_weights=True
            )
        if place is not None and self._starts_from_labels and self._reads_table:
            outputs = list(network.target_layers().values())[-1]
            means = mean_labels(rows, place, len(fixed), self.n_outputs_)
            if self._origin is not None:
                means -= self._origin
            start = aim_at_labels(self._loss, means)
            with torch.no_grad():
                outputs.targets.copy_(as_tensor(start))
        return network

    def _choose_fixed_batch(
        self, module: nn.Module, rows: TrainingRows, seed: int
    ) -> tuple[Array, Array | None]:
        """Choose X̄, and say which of its rows each training row is."""
        size = self.fixed_batch_size
        if self._takes_all(rows):
            size = None
        elif size == "auto":
            widest, n_pixels = 1 + max(_columns(module), default=0), rows.X[0, :1].size
            size = _rules.auto_fixed_batch_size(
                len(rows), widest, n_pixels, self._tuned
            )
        fixed, place = choose_fixed_batch(
            rows, self.fixed_batch, None if size is None else int(size), seed
        )
        is_sample = isinstance(self.fixed_batch, str) and self.fixed_batch == "sample"
        self._fixed_batch_is_all = is_sample and size is None
        return fixed, place

    def _auto_lam(self, network: TargetSpace) -> float | Sequence[float]:
        layers = network.target_layers().values()
        if self._images is None:
            return _rules.auto_lam(len(network.fixed_batch), len(layers))
        return [_rules.auto_image_lam(la.n_rows, la.n_columns) for la in layers]

    def _auto_rate(self) -> float:
        if self._tuned:
            return _rules.auto_tuned_rate(
                1 + len(hidden_sizes(self.hidden_layer_sizes))
            )
        images = self._images is not None
        return _rules.auto_rate(self.solver, self.parameterization, images)

    def _kept_fixed_batch(self) -> Array:
        """Give X̄ of the last fit as the network takes it."""
        fixed: Array = self.fixed_batch_
        return fixed

    def _take_up(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        """Go on from the targets of the last fit, or else from its weights."""
        self._fixed_batch_is_all = False
        if self.parameterization != self._space:
            raise ValueError(
                f"warm_start and partial_fit cannot go on from "
                f"parameterization={self._space!r} to {self.parameterization!r}: set "
                "warm_start=False or clone the estimator"
            )
        if self.parameterization == "weights":
            return module
        if not hasattr(self, "targets_"):
            return self._to_targets(module, rows, seed, keep_weights=True)
        fixed = self._kept_fixed_batch()
        lam = self.lam_ if isinstance(self.lam, str) else self.lam
        network = TargetSpace(module, as_tensor(fixed), lam, self.untangling)
        self.lam_ = network.lam
        with torch.no_grad():
            layers = network.target_layers().values()
            targets = [*self.targets_[:-1], self._last_targets]
            for layer, kept in zip(layers, targets, strict=True):
                layer.targets.copy_(as_tensor(kept))
        self._fixed_batch_is_all = np.array_equal(rows.X, fixed)
        return network

    def _without_single_rows(self, n_samples: int, batch_size: int) -> int:
        """Leave no mini-batch with a single row, whose statistics would be nothing."""
        while self.batch_size == "auto" and n_samples % batch_size == 1:
            batch_size -= 1
        if batch_size < 2 or n_samples % batch_size == 1:
            raise ValueError(
                f"batch_norm=True needs at least two rows in every mini-batch, but "
                f"{n_samples} rows in mini-batches of batch_size={self.batch_size!r} "
                "leave one alone: give another batch_size, or more rows"
            )
        return batch_size

    def _settings(self, n_samples: int, incremental: bool) -> TrainingSettings:
        rate = self.learning_rate_init
        if rate == "auto":
            rate = self._auto_rate()
        described = [f"learning_rate_init={rate:g}"]
        if self.parameterization == "targets":
            lams = np.atleast_1d(self.lam_)
            described.insert(0, "lam=" + ", ".join(f"{lam:g}" for lam in lams))
        epochs = self._epochs(n_samples, incremental)
        name, unit = self._output_scale
        rates = {}
        if unit != 1 and self.solver != "lbfgs":  # which finds its steps itself
            rates[name] = float(rate) * unit ** (2 if self.solver == "sgd" else 1)
        return TrainingSettings(
            solver=self.solver,
            learning_rate_init=float(rate),
            learning_rate=self._schedule(),
            power_t=self.power_t,
            momentum=self.momentum,
            nesterovs_momentum=bool(self.nesterovs_momentum),
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            alpha=self.alpha,
            batch_size=self._batch_rows(n_samples),
            shuffle=bool(self.shuffle),
            max_iter=epochs,
            max_fun=self.max_fun,
            tol=self.tol * unit**2,
            unit=unit,
            origin=None if self._origin is None else as_tensor(self._origin),
            rates=rates,
            n_iter_no_change=self._patience(n_samples),
            verbose=bool(self.verbose),
            describe=", ".join(described),
            remedy="Lower learning_rate_init, raise lam, or standardise X"
            + (" and y" if self._loss == "squared_error" else ""),
            incremental=incremental,
            # A course that is meant to be shorter ends as planned.
            warns_at_end=epochs == self.max_iter,
            callbacks=tuple(self.callbacks or ()),
        )

    def _batch_rows(self, n_samples: int) -> int:
        whole = self.solver == "lbfgs"
        batch_size = n_samples if whole else super()._batch_rows(n_samples)
        if self.batch_norm and hidden_sizes(self.hidden_layer_sizes):
            return self._without_single_rows(n_samples, batch_size)
        return batch_size

    def _epochs(self, n_samples: int, incremental: bool) -> int:
        if incremental:
            return 1
        if not self._tuned or self._schedule() != "annealed":
            return self.max_iter
        of_numbers = self._loss == "squared_error"
        return _rules.auto_epochs(n_samples, self.max_iter, of_numbers)

    def _schedule(self) -> str:
        if self.learning_rate != "auto":
            return self.learning_rate
        return "annealed" if self._tuned else "constant"

    def _keep_network(self, network: nn.Module) -> None:
        if isinstance(network, TargetSpace):
            layers = network.target_layers().values()
            self.targets_ = [state_to_numpy(layer.targets) for layer in layers]
            self._last_targets = self.targets_[-1]
            if self._origin is not None:
                more = targets_of_origin(network, self._origin)
                self.targets_[-1] = self._last_targets + more
            self.fixed_batch_ = state_to_numpy(network.fixed_batch)


def _columns(module: nn.Module) -> list[int]:
    """Count the inputs of each output of the weighted layers."""
    layers = (m for m in module.modules() if isinstance(m, WEIGHTED))
    return [layer.weight[0].numel() for layer in layers]
