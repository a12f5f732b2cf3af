"""Classification of sequences, or of their steps, by a network."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_is_fitted,
)

from sktarget.estimators._class_outputs import ClassOutputs
from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._guards import keeps_fitted_state
from sktarget.estimators._rows import Role, TrainingRows
from sktarget.estimators._sequence_data import Sequences
from sktarget.estimators._sequence_network import SequenceNetwork
from sktarget.estimators._sequence_rows import SequenceRows, rows_of_steps
from sktarget.estimators._step_labels import read_step_labels
from sktarget.estimators._validation_set import ValidationSet

__all__ = ["NetworkSequenceClassifier"]

Array = NDArray[Any]


class NetworkSequenceClassifier(ClassifierMixin, SequenceNetwork, ClassOutputs):
    """What classifiers of sequences share, whatever trains their networks.

    A subclass has the parameter `class_weight`, besides those of sequences.
    """

    # -- fitting ---------------------------------------------------------------------

    @keeps_fitted_state
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Training sequences, see the notes.
        y : array-like of shape (n,) or (n, time), or list
            A class label for each sequence or, with `return_sequences`, for each step.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the sequences.
        X_val, y_val : array-like or list, optional
            Validation set, in the form of `X` and `y`, that early stopping goes by; it
            needs `early_stopping`.  No sequences are then set aside, and these are
            never learnt.
        sample_weight_val : array-like of shape (n_val,), optional
            Weights of its sequences.

        Returns
        -------
        NetworkSequenceClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data or a parameter is invalid, or training diverges at once.
        """
        validation = ValidationSet.of(X_val, y_val, sample_weight_val)
        return self._fit(X, y, sample_weight, validation=validation)

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

    def _sequence_rows(
        self,
        values: Array,
        y: Any,
        weight: Array | None,
        role: Role,
    ) -> TrainingRows:
        if getattr(y, "ndim", 1) == 2 and y.shape[1] > 1:
            raise _labels_of_steps(f"an array of shape {y.shape}")
        if isinstance(y, list | tuple) and any(np.size(item) > 1 for item in y):
            raise _labels_of_steps("a list of arrays")
        y = self._check_given(y, values)
        check_classification_targets(y)
        weight = self._with_class_weights(y, weight, role)
        present = np.unique(y if weight is None else y[weight > 0])
        self._learn_classes(present, role)
        rows = SequenceRows(values, y, weight)
        rows.classes = rows.y = self._encode(rows.y)
        return rows

    def _step_rows(
        self,
        sequences: Sequences,
        y: Any,
        weight: Array | None,
        role: Role,
    ) -> TrainingRows:
        ignored = self.n_ignored_steps
        named = [] if role.classes is None else np.ravel(role.classes).tolist()
        if -1 in named:
            raise ValueError(
                "classes holds -1, which marks steps that do not count: leave it out, "
                "or add 1 to all labels"
            )
        labels, counts = read_step_labels(y, sequences, ignored, warns=role.first)
        if "" in named or (labels.dtype.kind in "UT" and (labels == "").any()):
            raise ValueError(
                "y, or classes, holds the label '', which predictions have at padding: "
                "give it another name, or mark steps that do not count by NaN"
            )
        step_weight = None
        if weight is not None or self.class_weight is not None:
            step_weight = np.zeros(counts.shape)
            of_rows = np.ones(len(counts)) if weight is None else weight
            of_steps = np.repeat(of_rows, counts.sum(axis=1))
            step_weight[counts] = self._with_class_weights(labels, of_steps, role)
            labels = labels[step_weight[counts] > 0]
            counts &= step_weight > 0
        self._learn_classes(np.unique(labels), role)
        outputs = np.full(counts.shape, -1)
        outputs[counts] = self._encode(labels)
        return rows_of_steps(sequences, outputs, counts, step_weight)

    # -- prediction ------------------------------------------------------------------

    def _decode(self, sums: Array) -> Array:
        return np.asarray(self.classes_[self._as_learnt(sums)])

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
        check_is_fitted(self)
        return self._answer(X, self._labels, self._padding_label)

    @property
    def _padding_label(self) -> Any:
        """The label of padding, which is not a class."""
        are_texts = all(isinstance(label, str) for label in self.classes_.tolist())
        return "" if are_texts else -1

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
        check_is_fitted(self)
        if not self._predicts_steps:
            return float(super().score(X, y, sample_weight))
        sequences = self._read_to_predict(X)
        labels, counts = read_step_labels(y, sequences, self.n_ignored_steps)
        sums = self._run(sequences.values, sequences.real)
        found = self._decode(sums)[counts]
        weight = self._weights_of_steps(sample_weight, sequences, counts)
        return float(accuracy_score(labels, found, sample_weight=weight))


def _labels_of_steps(given: str) -> ValueError:
    return ValueError(
        f"y should be a 1d array of one label for each sequence, got {given}: for a "
        "label at every step set return_sequences=True; for several labels of each "
        "sequence use sklearn.multioutput.MultiOutputClassifier"
    )
