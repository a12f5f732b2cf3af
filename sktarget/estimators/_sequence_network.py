"""What estimators of sequences share, whatever they predict."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import (
    _check_y,
    check_consistent_length,
    check_is_fitted,
)
from torch import nn

from sktarget.estimators._estimator import NetworkEstimator
from sktarget.estimators._fitted import read_only
from sktarget.estimators._rows import Role, TrainingRows, as_dense
from sktarget.estimators._sequence_data import Sequences, refuse_masks
from sktarget.estimators._series import read_series
from sktarget.estimators._sizes import parse_layer_sizes
from sktarget.estimators._tokens import read_tokens
from sktarget.estimators._weights import read_weights
from sktarget.nn.base import cell_of
from sktarget.training import Objective, TrainingLog, over_steps

__all__ = ["SequenceNetwork"]

Array = NDArray[Any]


class SequenceNetwork(NetworkEstimator):
    """An estimator whose network reads sequences.

    A subclass has the parameters `return_sequences` and `recurrent_layer_sizes`, and
    may have those below.
    """

    return_sequences: bool
    recurrent_layer_sizes: Any
    n_ignored_steps: int = 0
    vocabulary_size: int | None = None

    _is_univariate: bool

    # -- fitting ---------------------------------------------------------------------

    def _check_parameters(self) -> None:
        super()._check_parameters()
        sizes = parse_layer_sizes(self.recurrent_layer_sizes, "recurrent_layer_sizes")
        if not sizes:
            raise ValueError(
                "recurrent_layer_sizes must name at least one layer, got "
                f"{self.recurrent_layer_sizes!r}"
            )
        if self.n_ignored_steps and not self.return_sequences:
            raise ValueError(
                f"n_ignored_steps={self.n_ignored_steps} needs "
                "return_sequences=True: otherwise a sequence counts as a whole"
            )

    def _read(self, X: Any, *, reset: bool, vocabulary_size: int | None) -> Sequences:
        if vocabulary_size is not None:
            return read_tokens(self, X, vocabulary_size, reset=reset)
        known = None if reset else getattr(self, "_is_univariate", None)
        sequences, univariate = read_series(self, X, reset=reset, univariate=known)
        if reset:
            self._is_univariate = univariate
        return sequences

    @property
    def _fitted_vocabulary_size(self) -> int | None:
        """How many ids of tokens the fitted network knows; None if it reads numbers."""
        size = self.vocabulary_size  # which a module of the user's reads itself
        fitted: int | None = self._architecture.get("vocabulary_size", size)
        return fitted

    def _read_to_predict(self, X: Any) -> Sequences:
        size = self._fitted_vocabulary_size
        return self._read(X, reset=False, vocabulary_size=size)

    def _check_what_stays(self) -> None:
        super()._check_what_stays()
        if "vocabulary_size" in self._architecture:
            # X may not be what the fitted network takes.
            now = {**self._architecture, "vocabulary_size": self.vocabulary_size}
            self._refuse_other_architecture(now)

    def _read_rows(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        role: Role,
    ) -> TrainingRows:
        size = self.vocabulary_size
        sequences = self._read(X, reset=role.first, vocabulary_size=size)
        values = sequences.values
        sample_weight = read_weights(sample_weight, values)
        if self.return_sequences:
            return self._step_rows(sequences, y, sample_weight, role)
        return self._sequence_rows(values, y, sample_weight, role)

    def _check_given(self, y: Any, values: Array, **kwargs: Any) -> Array:
        """Validate what was given for sequences as a whole, as scikit-learn does."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None"
            )
        refuse_masks(y, "y", "y.filled(...), or leave rows out")
        y = _check_y(as_dense(y), estimator=self, **kwargs)
        check_consistent_length(values, y)
        return np.asarray(y)

    @abstractmethod
    def _sequence_rows(
        self,
        values: Array,
        y: Any,
        weight: Array | None,
        role: Role,
    ) -> TrainingRows:
        """Validate what belongs to sequences as a whole."""

    @abstractmethod
    def _step_rows(
        self,
        sequences: Sequences,
        y: Any,
        weight: Array | None,
        role: Role,
    ) -> TrainingRows:
        """Validate what belongs to steps."""

    def _read_for_callbacks(self, X: Any) -> Any:
        # What they see, and ask for, is in the units of the network.
        return X

    def _objective(self, held_out: TrainingRows | None = None) -> Objective:
        of_rows = super()._objective(held_out)
        if not self.return_sequences:
            return of_rows
        error = None if of_rows.error is None else over_steps(of_rows.error)
        return replace(
            of_rows,
            loss=over_steps(of_rows.loss),
            score=over_steps(of_rows.score),
            error=error,
        )

    def _weights_of_steps(
        self, sample_weight: Any, sequences: Sequences, counts: Array
    ) -> Array | None:
        """Give every step to score the weight of its sequence."""
        if sample_weight is None:
            return None
        weights = read_weights(sample_weight, sequences.values)
        assert weights is not None
        return np.repeat(weights, counts.sum(axis=1))

    # -- fitted state ----------------------------------------------------------------

    @property
    def _predicts_steps(self) -> bool:
        """Whether the fitted network gives outputs for every step."""
        return bool(self._architecture["return_sequences"])

    def _fitted_attributes(
        self, network: nn.Module, log: TrainingLog
    ) -> dict[str, Any]:
        fitted = super()._fitted_attributes(network, log)
        sizes = ("recurrent_layer_sizes", "hidden_layer_sizes")
        if sizes[0] in self._architecture:  # not of a module of the user's
            fitted["n_layers_"] = 2 + sum(len(self._architecture[k]) for k in sizes)
        return fitted

    def _weights_and_biases(self) -> Iterator[tuple[Array, Array | None]]:
        """Yield weights and biases, layer by layer and direction by direction."""
        for layer in self.module_.modules():
            if isinstance(layer, nn.RNNBase):
                for flat in layer.all_weights:
                    cell = cell_of(layer, flat[0].shape[1])
                    matrix = cell.to_matrix([w.detach() for w in flat]).numpy()
                    split = int(cell.bias)
                    yield matrix[split:], matrix[0] if cell.bias else None
            elif isinstance(layer, nn.Linear):
                bias = None if layer.bias is None else layer.bias.detach().numpy()
                yield layer.weight.detach().numpy().T, bias

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer in the order of the cascade, (n_in, n_out) each."""
        return [read_only(weight) for weight, _ in self._weights_and_biases()]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer that has them, of shape (n_out,)."""
        return [
            read_only(bias)
            for _, bias in self._weights_and_biases()
            if bias is not None
        ]

    # -- prediction ------------------------------------------------------------------

    def _answer(self, X: Any, kind: Callable[[Array], Array], filler: Any) -> Any:
        """Turn outputs into predictions by `kind`, in the form of X."""
        check_is_fitted(self)
        sequences = self._read_to_predict(X)
        if not self._predicts_steps:
            return kind(self._run(sequences.values))
        answers = kind(self._run(sequences.values, sequences.real))
        return sequences.give_back(answers, filler)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = False
        return tags
