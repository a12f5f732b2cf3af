"""Classification of sequences, or of their steps, by a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    check_is_fitted,
)
from torch import nn

from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._estimator import NetworkEstimator, keeps_fitted_state
from sktarget.estimators._fitted import read_only
from sktarget.estimators._labels import ClassLabels
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._sequence_data import Sequences, read_series, read_tokens
from sktarget.estimators._sequence_rows import SequenceRows
from sktarget.estimators._sizes import parse_layer_sizes
from sktarget.estimators._step_labels import read_step_labels
from sktarget.nn.base import cell_of
from sktarget.training import LOSSES, Loss, TensorData, over_steps

__all__ = ["NetworkSequenceClassifier"]

Array = NDArray[Any]


class NetworkSequenceClassifier(ClassifierMixin, ClassLabels, NetworkEstimator):
    """What classifiers of sequences share, whatever trains their networks.

    A subclass has the parameters `return_sequences`, `recurrent_layer_sizes` and
    `class_weight`, and may have those below.
    """

    return_sequences: bool
    recurrent_layer_sizes: Any
    class_weight: Any
    n_ignored_steps: int = 0
    vocabulary_size: int | None = None

    _is_univariate: bool

    # -- fitting ---------------------------------------------------------------------

    @keeps_fitted_state
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Training sequences, see the notes; standardise them.
        y : array-like of shape (n,) or (n, time), or list
            A class label for each sequence or, with `return_sequences`, for each step.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the sequences.

        Returns
        -------
        NetworkSequenceClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data or a parameter is invalid, or training diverges at once.
        """
        return self._fit(X, y, sample_weight)

    @keeps_fitted_state
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: Any = None,
    ) -> Self:
        """Train for one more epoch, on the given sequences.

        Whatever is chosen from the data, such as X̄, is taken from the sequences of the
        first call: give it a few hundred.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Training sequences.
        y : array-like of shape (n,) or (n, time), or list
            Class labels.
        classes : array-like of shape (n_classes,), optional
            All labels that will ever occur; needed at the first call unless `y` holds
            them all.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the sequences.

        Returns
        -------
        NetworkSequenceClassifier
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

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
                "return_sequences=True: otherwise sequences have one label each"
            )

    def _read(self, X: Any, *, reset: bool, vocabulary_size: int | None) -> Sequences:
        if vocabulary_size is not None:
            return read_tokens(self, X, vocabulary_size, reset=reset)
        known = None if reset else self._is_univariate
        sequences, univariate = read_series(self, X, reset=reset, univariate=known)
        if reset:
            self._is_univariate = univariate
        return sequences

    def _read_to_predict(self, X: Any) -> Sequences:
        size = self._architecture.get("vocabulary_size", self.vocabulary_size)
        return self._read(X, reset=False, vocabulary_size=size)

    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Any = None
    ) -> TrainingRows:
        size = self.vocabulary_size
        sequences = self._read(X, reset=first, vocabulary_size=size)
        # Steps that are padding in every sequence take time, and should decide nothing.
        values = sequences.values[:, : sequences.lengths.max()]
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, values, dtype=np.float64, ensure_non_negative=True
            )
        if self.return_sequences:
            return self._step_rows(sequences, y, sample_weight, first, classes)
        return self._sequence_rows(values, y, sample_weight, first, classes)

    def _sequence_rows(
        self, values: Array, y: Any, weight: Array | None, first: bool, classes: Any
    ) -> TrainingRows:
        if getattr(y, "ndim", 1) == 2 and y.shape[1] > 1:
            raise _labels_of_steps(f"an array of shape {y.shape}")
        if isinstance(y, list | tuple) and any(np.size(item) > 1 for item in y):
            raise _labels_of_steps("a list of arrays")
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None"
            )
        y = _check_y(y, estimator=self)
        check_consistent_length(values, y)
        check_classification_targets(y)
        weight = self._with_class_weights(y, weight, first, classes)
        present = np.unique(y if weight is None else y[weight > 0])
        self._learn_classes(present, first, classes)
        rows = SequenceRows(values, y, weight)
        rows.classes = rows.y = self._encode(rows.y)
        return rows

    def _step_rows(
        self,
        sequences: Sequences,
        y: Any,
        weight: Array | None,
        first: bool,
        classes: Any,
    ) -> TrainingRows:
        labels, counts = read_step_labels(y, sequences, self.n_ignored_steps)
        longest, step_weight = sequences.lengths.max(), None
        if weight is not None or self.class_weight is not None:
            step_weight = np.zeros(counts.shape)
            of_rows = np.ones(len(counts)) if weight is None else weight
            of_steps = np.repeat(of_rows, counts.sum(axis=1))
            step_weight[counts] = self._with_class_weights(
                labels, of_steps, first, classes
            )
            labels = labels[step_weight[counts] > 0]
            counts &= step_weight > 0
        self._learn_classes(np.unique(labels), first, classes)
        outputs = np.full(counts.shape, -1)
        outputs[counts] = self._encode(labels)
        row_weight = None
        if step_weight is not None:
            n_counted = np.maximum(counts.sum(axis=1, keepdims=True), 1)
            row_weight = (step_weight / n_counted).sum(axis=1)
            step_weight = step_weight[:, :longest]
        rows = SequenceRows(
            sequences.values[:, :longest],
            outputs[:, :longest],
            row_weight,
            step_weight=step_weight,
        )
        return rows if step_weight is not None else rows[np.flatnonzero(counts.any(1))]

    def _loss_function(self) -> Loss:
        loss = LOSSES[self._loss]
        return over_steps(loss) if self.return_sequences else loss

    # -- fitted state ------------------------------------------------------------

    def _maps(self) -> Iterator[tuple[Array, Array | None]]:
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
        return [read_only(weight) for weight, _ in self._maps()]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer that has them, of shape (n_out,)."""
        return [read_only(bias) for _, bias in self._maps() if bias is not None]

    # -- prediction ------------------------------------------------------------------

    def _decode(self, sums: Array) -> Array:
        return np.asarray(self.classes_[self._indices(sums)])

    def _score_sums(self, sums: torch.Tensor, data: TensorData) -> float:
        truth, found = data.y.numpy(force=True), self._indices(sums.numpy(force=True))
        weight = None if data.weight is None else data.weight.numpy(force=True)
        if self.return_sequences:
            counts = truth >= 0
            truth, found = truth[counts], found[counts]
            weight = None if weight is None else weight[counts]
        return float(accuracy_score(truth, found, sample_weight=weight))

    def _answer(self, X: Any, kind: Callable[[Array], Array], filler: Any) -> Any:
        """Turn outputs into predictions by `kind`, in the form of X."""
        check_is_fitted(self, "n_iter_")
        sequences = self._read_to_predict(X)
        answers = kind(self._run(sequences.values))
        if not self._architecture["return_sequences"]:
            return answers
        return sequences.give_back(answers, filler)

    def predict(self, X: Any) -> Any:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n,) or (n, time), or list of ndarray of shape (t_i,)
            A label for each sequence or, with `return_sequences`, for each step, in
            the form of X; -1 or "" where there is padding.
        """
        check_is_fitted(self, "n_iter_")
        return self._answer(X, self._labels, self._padding_label)

    @property
    def _padding_label(self) -> Any:
        """The label of padding, which is not a class."""
        return "" if self.classes_.dtype.kind in "US" else -1

    def _labels(self, sums: Array) -> Array:
        labels = self._decode(sums)
        return (
            labels.astype(np.int64)
            if labels.dtype.kind in "bu" and sums.ndim == 3
            else labels
        )

    def decision_function(self, X: Any) -> Any:
        """Return the outputs of the network before softmax.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes), with a second axis for steps, or list
            For two classes, one number: by how much the output of the second exceeds
            that of the first.  NaN where there is padding.
        """
        return self._answer(X, self._margins, np.nan)

    def predict_proba(self, X: Any) -> Any:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n, n_classes) or (n, time, n_classes), or list of ndarray
            Probabilities of the classes, in the order of ``classes_``, in the form of
            X; NaN where there is padding.
        """
        return self._answer(X, self._probabilities, np.nan)

    def predict_log_proba(self, X: Any) -> Any:
        """Predict logarithms of probabilities, accurate where these vanish.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n, n_classes) or (n, time, n_classes), or list of ndarray
            Logarithms of what :meth:`predict_proba` returns.
        """
        return self._answer(X, self._log_probabilities, np.nan)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on sequences, or on all steps that count.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.
        y : array-like of shape (n,) or (n, time), or list
            True labels; for steps, -1, NaN and the first `n_ignored_steps` of each
            sequence do not count.
        sample_weight : array-like of shape (n,), optional
            Weights of the sequences.

        Returns
        -------
        float
            Fraction of the labels that are predicted correctly.
        """
        check_is_fitted(self, "n_iter_")
        if not self._architecture["return_sequences"]:
            return float(super().score(X, y, sample_weight))
        sequences = self._read_to_predict(X)
        labels, counts = read_step_labels(y, sequences, self.n_ignored_steps)
        found = self._decode(self._run(sequences.values))[counts]
        weight = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, sequences.values)
            weight = np.repeat(weights, counts.sum(axis=1))
        return float(accuracy_score(labels, found, sample_weight=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = False
        return tags


def _labels_of_steps(given: str) -> ValueError:
    return ValueError(
        f"y should be a 1d array of one label for each sequence, got {given}; for a "
        "label at every step set return_sequences=True"
    )
