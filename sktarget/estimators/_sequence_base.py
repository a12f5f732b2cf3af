"""Estimators of sequences in target space: their parameters and networks."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import nn

from sktarget.architectures import RecurrentNetwork
from sktarget.estimators._channel_units import fold_units_
from sktarget.estimators._sequence_choices import SequenceChoices
from sktarget.estimators._sizes import parse_layer_sizes

__all__ = ["BaseTargetSpaceSequence"]

Array = NDArray[Any]


class BaseTargetSpaceSequence(SequenceChoices):
    """Base of the estimators of sequences in target space."""

    bidirectional: bool
    _reads_table = False
    _fixed_in_units: Array
    _resumable: ClassVar = (*SequenceChoices._resumable, "_fixed_in_units")

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
