"""Classification by a network: labels, classes, probabilities."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from sktarget.estimators._class_outputs import ClassOutputs
from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._guards import keeps_fitted_state
from sktarget.estimators._rows import Role, TrainingRows, as_dense
from sktarget.estimators._validation_set import ValidationSet
from sktarget.estimators._weights import read_weights

__all__ = ["NetworkClassifier"]

Array = NDArray[Any]

# Types of y that are taken.
_OF_CLASSES = {"binary", "multiclass", "multilabel-indicator"}


class NetworkClassifier(ClassifierMixin, ClassOutputs):
    """What classifiers share, whatever trains their networks.

    A subclass has the parameter `class_weight`.
    """

    @keeps_fitted_state
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: Any = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or indicators of several labels.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative weights of the rows; 2 counts as two rows.
        X_val, y_val : array-like, optional
            Validation set, in the form of `X` and `y`, that early stopping goes by; it
            needs `early_stopping`.  No rows are then set aside, and these are never
            learnt.  The steps of a pipeline do not transform it unless the pipeline is
            given ``transform_input=["X_val"]``.
        sample_weight_val : array-like of shape (n_val,), optional
            Weights of its rows.

        Returns
        -------
        NetworkClassifier
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
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: Any = None,
    ) -> Self:
        """Train for one more epoch, on the given rows.

        Whatever is chosen from the data, such as X̄, is taken from the rows of the first
        call: give it a few hundred.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels.
        classes : array-like of shape (n_classes,), optional
            All labels that will ever occur; needed at the first call unless `y` holds
            them all.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative weights of the rows; 2 counts as two rows.

        Returns
        -------
        NetworkClassifier
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _read_rows(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        role: Role,
    ) -> TrainingRows:
        X, y = self._validate(X, as_dense(y), reset=role.first, multi_output=True)
        kind = type_of_target(y)
        if kind not in _OF_CLASSES:  # The check asks for the type again.
            check_classification_targets(y)
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns of classes; only indicators of labels (0 or 1) "
                "may have several columns"
            )
        if kind != "multilabel-indicator":
            y = column_or_1d(y, warn=True)
        weight = read_weights(sample_weight, X)
        weight = self._with_class_weights(y, weight, role)
        rows = self._with_enough_digits(TrainingRows(X, y, weight), role)
        if kind == "multilabel-indicator":
            self._learn_labels(rows, role)
        else:
            self._learn_one_column(rows, role)
        return rows

    def _learn_labels(self, rows: TrainingRows, role: Role) -> None:
        """Take indicators of labels as outputs; at the first fit, count them."""
        y = rows.y
        if not np.isin(y, (0, 1)).all():
            raise ValueError(
                "y has several columns, so each must say whether a row has a label (1) "
                f"or not (0); got the values {np.unique(y)[:5].tolist()}"
            )
        classes = role.classes
        if classes is not None and not np.array_equal(classes, np.arange(y.shape[1])):
            raise ValueError(
                f"classes={classes!r} does not name the columns of y, which has "
                f"{y.shape[1]} labels: leave it out, or give range({y.shape[1]})"
            )
        if role.first:
            self.classes_ = np.arange(y.shape[1])
            self._set_loss("logistic", y.shape[1])
            self._multilabel = True
        elif y.shape[1] != self.n_outputs_ or not self._multilabel:
            kind = "labels" if self._multilabel else "classes in one column"
            raise ValueError(
                f"y has {y.shape[1]} labels, but the estimator was fitted with "
                f"{self.n_outputs_} {kind}: set warm_start=False or clone the estimator"
            )
        rows.y = y.astype(rows.dtype)

    def _learn_one_column(self, rows: TrainingRows, role: Role) -> None:
        """Take one column of classes as outputs; at the first fit, note which."""
        if role.first:
            self._multilabel = False
        elif self._multilabel:
            raise ValueError(
                "y has one column of classes, but the estimator was fitted with "
                f"indicators of {self.n_outputs_} labels: set warm_start=False or "
                "clone the estimator"
            )
        self._learn_classes(np.unique(rows.y), role)
        rows.classes = rows.y = self._encode(rows.y)

    # -- prediction ------------------------------------------------------------------

    def _decode(self, sums: Array) -> Array:
        indices = self._as_learnt(sums)
        return indices if self._multilabel else np.asarray(self.classes_[indices])

    def predict(self, X: ArrayLike) -> Array:
        """Predict labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels, or indicators of labels.
        """
        return self._decode(self._sums(X))

    def decision_function(self, X: ArrayLike) -> Array:
        """Return the outputs of the network before softmax or the logistic function.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes, one number per row: by how much the output of the second
            exceeds that of the first.
        """
        return self._margins(self._sums(X))

    def predict_proba(self, X: ArrayLike) -> Array:
        """Predict probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities of the classes, in the order of ``classes_``; they sum to 1
            in each row, except in multilabel problems.
        """
        return self._probabilities(self._sums(X))

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Predict logarithms of probabilities, accurate where these vanish.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Logarithms of what :meth:`predict_proba` returns.
        """
        return self._log_probabilities(self._sums(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
