"""Regression on sequences, or at their steps, by a network."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from sktarget.estimators._arrays import Units
from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._guards import keeps_fitted_state
from sktarget.estimators._noise_rules import ENOUGH_TO_JUDGE
from sktarget.estimators._number_outputs import NumberOutputs, outputs_that_vary
from sktarget.estimators._rows import Role, TrainingRows
from sktarget.estimators._sequence_data import Sequences
from sktarget.estimators._sequence_network import SequenceNetwork
from sktarget.estimators._sequence_rows import SequenceRows, rows_of_steps
from sktarget.estimators._step_numbers import read_step_numbers
from sktarget.estimators._task import Task
from sktarget.estimators._validation_set import ValidationSet

__all__ = ["NetworkSequenceRegressor"]

Array = NDArray[Any]

# The unit of an output that does not vary, as a share of its size.
_OF_CONSTANT = 1e-6


class NetworkSequenceRegressor(RegressorMixin, SequenceNetwork, NumberOutputs):
    """What regressors on sequences share, whatever trains their networks."""

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
        y : array-like of shape (n,), (n, n_outputs), (n, time) or \
(n, n_outputs, time), or list
            Outputs for each sequence or, with `return_sequences`, for each step.
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
        NetworkSequenceRegressor
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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one more epoch, on the given sequences.

        Whatever is chosen from the data, such as X̄ and the units of y, is taken from
        the sequences of the first call: give it a few hundred.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Training sequences.
        y : array-like of shape (n,), (n, n_outputs), (n, time) or \
(n, n_outputs, time), or list
            Outputs.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the sequences.

        Returns
        -------
        NetworkSequenceRegressor
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _sequence_rows(
        self,
        values: Array,
        y: Any,
        weight: Array | None,
        role: Role,
    ) -> TrainingRows:
        _refuse_steps(y)
        y = self._check_given(y, values, multi_output=True, y_numeric=True)
        rows = SequenceRows(values, self._as_outputs(y, role.first), weight)
        self._learn_numbers(rows, role)
        return rows

    def _step_rows(
        self,
        sequences: Sequences,
        y: Any,
        weight: Array | None,
        role: Role,
    ) -> TrainingRows:
        numbers, y_is_1d = read_step_numbers(y, sequences, self.n_ignored_steps)
        if role.first:
            self._y_is_1d = y_is_1d
        counts = ~np.isnan(numbers[..., 0])
        step_weight = None if weight is None else weight[:, None] * counts
        rows = rows_of_steps(sequences, numbers, counts, step_weight)
        self._learn_numbers(rows, role)
        return rows

    def _tells_little(self, held_out: TrainingRows) -> bool:
        few = len(held_out) < ENOUGH_TO_JUDGE
        return (few and not self.return_sequences) or super()._tells_little(held_out)

    def _measure_outputs(self, task: Task) -> Units | None:
        measured = super()._measure_outputs(task)
        if measured is None:
            return None
        origin, unit = measured
        # The targets of a constant do not start from it, and would be off by a unit.
        least = np.maximum(_OF_CONSTANT * unit, np.finfo(unit.dtype).tiny)
        return origin, np.where(outputs_that_vary(task.all_rows), unit, least)

    # -- prediction ------------------------------------------------------------------

    def predict(self, X: Any) -> Any:
        """Predict outputs.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n,), (n, n_outputs), (n, time) or (n, n_outputs, time), or \
list of ndarray of shape (t_i,) or (n_outputs, t_i)
            Outputs for each sequence or, with `return_sequences`, for each step, with
            as many axes as `y` had in the first ``fit``, in the form of X; NaN where
            there is padding.
        """
        answers = self._answer(X, self._decode, np.nan)
        if self._y_is_1d or not self._predicts_steps:
            return answers
        if isinstance(answers, list):
            return [answer.T for answer in answers]
        return answers.transpose(0, 2, 1)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² over sequences, or over all steps that count.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.
        y : array-like of shape (n,), (n, n_outputs), (n, time) or \
(n, n_outputs, time), or list
            True outputs; for steps, NaN and the first `n_ignored_steps` of each
            sequence do not count.
        sample_weight : array-like of shape (n,), optional
            Weights of the sequences.

        Returns
        -------
        float
            The mean of the R² of all outputs.
        """
        check_is_fitted(self)
        if not self._predicts_steps:
            return float(super().score(X, y, sample_weight))
        sequences = self._read_to_predict(X)
        numbers, _ = read_step_numbers(y, sequences, self.n_ignored_steps)
        self._check_n_outputs(numbers.shape[-1])
        counts = ~np.isnan(numbers[..., 0])
        sums = self._run(sequences.values, sequences.real)
        found = self._as_learnt(sums[counts])
        weight = self._weights_of_steps(sample_weight, sequences, counts)
        return float(r2_score(numbers[counts], found, sample_weight=weight))


def _refuse_steps(y: Any) -> None:
    """Refuse outputs of steps where each sequence has outputs as a whole."""
    n_axes = getattr(y, "ndim", 1)
    uneven = isinstance(y, list | tuple) and len({np.shape(item) for item in y}) > 1
    if n_axes > 2 or uneven:
        given = f"an array of shape {y.shape}" if n_axes > 2 else "unequal items"
        raise ValueError(
            f"y must hold the same outputs for each sequence, got {given}; for outputs "
            "at every step set return_sequences=True"
        )
