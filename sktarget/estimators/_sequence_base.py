"""Estimators of sequences in target space: their parameters and networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from sktarget.architectures import RecurrentNetwork
from sktarget.estimators._channel_units import fold_units_
from sktarget.estimators._sequence_choices import SequenceChoices
from sktarget.estimators._sequence_parameters import SEQUENCE_CONSTRAINTS
from sktarget.estimators._sizes import parse_layer_sizes

__all__ = ["BaseTargetSpaceSequence"]

Array = NDArray[Any]


class BaseTargetSpaceSequence(SequenceChoices):
    """Base of the estimators of sequences in target space."""

    _takes_tables = False
    _fixed_in_units: Array
    _resumable: ClassVar = (*SequenceChoices._resumable, "_fixed_in_units")
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = SEQUENCE_CONSTRAINTS

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (),
        *,
        cell: str = "rnn",
        recurrent_layer_sizes: int | ArrayLike = (50,),
        bidirectional: bool = False,
        return_sequences: bool = False,
        n_ignored_steps: int = 0,
        vocabulary_size: int | None = None,
        embedding_dim: int = 32,
        fixed_sequence_length: int | str | None = "auto",
        activation: str = "tanh",
        lam: float | str | Sequence[float] = "auto",
        fixed_batch_size: int | str | None = "auto",
        fixed_batch: str | ArrayLike = "sample",
        anchor: str = "auto",
        initial_memory: float | str | None = "auto",
        untangling: str = "scu",
        target_init: str = "weights",
        target_scale: float = 1.0,
        project_targets: bool = True,
        parameterization: str = "targets",
        shortcuts: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
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
        super().__init__(
            hidden_layer_sizes,
            activation=activation,
            lam=lam,
            fixed_batch_size=fixed_batch_size,
            fixed_batch=fixed_batch,
            untangling=untangling,
            target_init=target_init,
            target_scale=target_scale,
            project_targets=project_targets,
            parameterization=parameterization,
            shortcuts=shortcuts,
            dropout=dropout,
            batch_norm=batch_norm,
            module=module,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            device=device,
            callbacks=callbacks,
            checkpoint=checkpoint,
        )
        self.cell = cell
        self.recurrent_layer_sizes = recurrent_layer_sizes
        self.bidirectional = bidirectional
        self.return_sequences = return_sequences
        self.n_ignored_steps = n_ignored_steps
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.fixed_sequence_length = fixed_sequence_length
        self.anchor = anchor
        self.initial_memory = initial_memory

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self._is_simple and self._activation() not in ("tanh", "relu"):
            raise ValueError(
                f"activation={self.activation!r} cannot be used with cell='rnn': use "
                "'tanh' or 'relu', or cell='lstm' or 'gru'"
            )

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        n_inputs = X.shape[2] if X.ndim == 3 else 1
        per_step = bool(self.return_sequences)
        if self.module is not None:
            return {
                "module": self.module,
                "n_inputs": n_inputs,
                "n_outputs": self.n_outputs_,
                "return_sequences": per_step,
            }
        embeds = self.vocabulary_size is not None
        return {
            "n_inputs": n_inputs,
            "recurrent_layer_sizes": parse_layer_sizes(self.recurrent_layer_sizes),
            "hidden_layer_sizes": parse_layer_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "cell": self.cell,
            "activation": self._activation(),
            "bidirectional": bool(self.bidirectional),
            "return_sequences": per_step,
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": int(self.embedding_dim) if embeds else None,
            "shortcuts": bool(self.shortcuts),
            "dropout": float(self.dropout),
            "batch_norm": bool(self.batch_norm),
        }

    def _activation(self) -> str:
        return "tanh" if self.activation == "auto" else self.activation

    def _output_shape(self, X: Array) -> tuple[int, ...]:
        steps = (X.shape[1],) if self.return_sequences else ()
        return len(X), *steps, self.n_outputs_

    def _keep_network(self, network: nn.Module) -> None:
        super()._keep_network(network)
        if not hasattr(self, "fixed_batch_"):
            return
        if self._channel_units is not None:
            # Measured again, it would be rounded once more.
            self._fixed_in_units = self.fixed_batch_
            origin, unit = self._channel_units
            self.fixed_batch_ = self.fixed_batch_ * unit + origin
        self.fixed_batch_ = self.fixed_batch_.transpose(0, 2, 1).copy()

    def _kept_fixed_batch(self) -> Array:
        if self._channel_units is not None:
            return self._fixed_in_units
        fixed: Array = self.fixed_batch_.transpose(0, 2, 1)
        return fixed

    def _rebuild_to_predict(self) -> nn.Module:
        module = super()._rebuild_to_predict()
        if self._channel_units is not None:
            assert isinstance(module, RecurrentNetwork)
            fold_units_(module, self._channel_units)
        return module
