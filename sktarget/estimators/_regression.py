"""Regression by a network."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils.validation import (
    _check_sample_weight,
    column_or_1d,
)

from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._device import resolve_device
from sktarget.estimators._estimator import NetworkEstimator, keeps_fitted_state
from sktarget.estimators._rows import TrainingRows, as_dense
from sktarget.estimators._start import moments_of_labels
from sktarget.training import Loss, TrainingSettings, squared_error_in

__all__ = ["NetworkRegressor"]

Array = NDArray[Any]
# Deviations of fewer spacings of numbers lose digits that matter.
_FEW_DIGITS = 32


class NetworkRegressor(RegressorMixin, NetworkEstimator):
    """What regressors share, whatever trains their networks."""

    @keeps_fitted_state
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: Any = None) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training inputs; standardise them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Training outputs.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative weights of the rows; 2 counts as two rows.

        Returns
        -------
        NetworkRegressor
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

    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Any = None
    ) -> TrainingRows:
        X, y = self._validate(
            X, as_dense(y), reset=first, multi_output=True, y_numeric=True
        )
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._y_is_1d = y.ndim == 1
        rows = TrainingRows(X, y.reshape(len(y), -1), weight)
        with np.errstate(over="ignore"):  # reported below, as an error
            rows.y = rows.y.astype(rows.dtype)
        if not np.isfinite(rows.y).all():
            raise ValueError(
                f"y is too large for {rows.dtype}, the arithmetic of X: scale y down"
            )
        if first:
            self._loss = "squared_error"
            self.n_outputs_ = rows.y.shape[1]
            self.out_activation_ = "identity"
        elif rows.y.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y has {rows.y.shape[1]} outputs, but the estimator was fitted with "
                f"{self.n_outputs_}"
            )
        return rows

    def _measure_outputs(self, rows: TrainingRows) -> tuple[Array, Array] | None:
        mean, units = moments_of_labels(rows)
        _warn_of_lost_digits(mean, units, rows.dtype)
        return mean, units

    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        # Another base of the estimator defines it.
        settings = super()._settings(rows)  # type: ignore[safe-super]
        if self._output_units is None:
            return settings
        origin, unit = map(as_tensor, self._output_units)
        return replace(settings, output_units=(origin, unit))

    def _loss_function(self) -> Loss:
        if self._output_units is None:
            return super()._loss_function()
        # The error of each output counts relative to its variance, as in a mean R².
        unit = as_tensor(self._output_units[1])
        return squared_error_in(unit.to(resolve_device(self.device)))

    def _decode(self, sums: Array) -> Array:
        return sums[:, 0] if self._y_is_1d else sums

    def _score_sums(
        self, sums: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None
    ) -> float:
        truth, found = y.numpy(force=True), sums.numpy(force=True)
        if not np.isfinite(found).all():
            return -np.inf
        weights = None if weight is None else weight.numpy(force=True)
        with np.errstate(over="ignore", invalid="ignore"):
            score = float(r2_score(truth, found, sample_weight=weights))
        return score if np.isfinite(score) else -np.inf

    def predict(self, X: ArrayLike) -> Array:
        """Predict outputs.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Outputs, with as many axes as `y` had in ``fit``.
        """
        return self._decode(self._sums(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _warn_of_lost_digits(mean: Array, units: Array, dtype: np.dtype[Any]) -> None:
    """Warn of outputs that vary by little more than the spacing of numbers their size.

    The network's outputs have to be such numbers.
    """
    lost = np.flatnonzero(units < _FEW_DIGITS * np.finfo(dtype).eps * np.abs(mean))
    if len(lost):
        k = lost[0]
        warnings.warn(
            f"y varies by {units[k]:.2g} about {mean[k]:.8g}, which {dtype}, the "
            "arithmetic of X, hardly resolves: subtract a constant from y"
            + (", or give X as float64" if dtype == np.float32 else ""),
            stacklevel=2,
        )
