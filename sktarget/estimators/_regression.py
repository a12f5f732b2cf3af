"""Regression by a network."""

from __future__ import annotations

from typing import Any, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin, _fit_context

from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._guards import keeps_fitted_state
from sktarget.estimators._number_outputs import NumberOutputs
from sktarget.estimators._rows import Role, TrainingRows, as_dense
from sktarget.estimators._validation_set import ValidationSet
from sktarget.estimators._weights import read_weights

__all__ = ["NetworkRegressor"]

Array = NDArray[Any]


class NetworkRegressor(RegressorMixin, NumberOutputs):
    """What regressors share, whatever trains their networks."""

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
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Training outputs.
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
        NetworkRegressor
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
        self, X: ArrayLike, y: ArrayLike, sample_weight: Any = None
    ) -> Self:
        """Train for one more epoch, on the given rows.

        Whatever is chosen from the data, such as X̄, is taken from the rows of the first
        call: give it a few hundred.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Training outputs.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative weights of the rows; 2 counts as two rows.

        Returns
        -------
        NetworkRegressor
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _read_rows(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        role: Role,
    ) -> TrainingRows:
        X, y = self._validate(
            X, as_dense(y), reset=role.first, multi_output=True, y_numeric=True
        )
        weight = read_weights(sample_weight, X)
        rows = TrainingRows(X, self._as_outputs(y, role.first), weight)
        rows = self._with_enough_digits(rows, role)
        self._learn_numbers(rows, role)
        return rows

    def predict(self, X: ArrayLike) -> Array:
        """Predict outputs.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Outputs, with one axis where `y` had one column in ``fit``.
        """
        return self._decode(self._sums(X))
