"""Numbers as outputs: their units, what is minimised, and R²."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from sklearn.utils.validation import column_or_1d

from sktarget.estimators._arrays import Units, as_tensor
from sktarget.estimators._estimator import NetworkEstimator
from sktarget.estimators._output_checks import (
    check_counts,
    warn_of_logarithms,
    warn_of_lost_digits,
    warn_of_other_counts,
    warn_of_other_units,
    warn_of_scale,
)
from sktarget.estimators._output_units import deviances_of_counts, measure_outputs
from sktarget.estimators._rows import Role, TrainingRows
from sktarget.estimators._statistics import effective_number
from sktarget.estimators._task import Task
from sktarget.estimators._validation_set import ValidationSet, warn_of_other_mean
from sktarget.estimators._weights import weights_or_ones
from sktarget.training import NUMBER_CRITERIA, Loss, NumberCriterion, quantile_criterion

__all__ = ["NumberOutputs", "outputs_that_vary"]

Array = NDArray[Any]

# The squares of larger numbers may overflow when they are added up.
_LARGEST = 1e150
# Fewer events among the rows held out leave much to chance.
_FEW_EVENTS = 12


def outputs_that_vary(rows: TrainingRows) -> Array:
    """Return which outputs are not the same in all rows.

    Parameters
    ----------
    rows : TrainingRows
        Rows with numbers as outputs.

    Returns
    -------
    ndarray of bool of shape (n_outputs,)
        One for each output.
    """
    y, _ = rows.outputs()
    found: Array = (y != y[:1]).any(axis=0)
    return found


class NumberOutputs(NetworkEstimator):
    """An estimator of numbers: the way between these and the outputs of a network."""

    _y_is_1d: bool
    out_activation_: str

    # Of counts: those of the best constant, for every output.
    _deviances: Array
    # Only some estimators leave the choice to the user.
    loss: str = "squared_error"
    quantile: float = 0.5

    @property
    def _criterion(self) -> NumberCriterion:
        if self._loss == "quantile":
            return quantile_criterion(float(self.quantile))
        return NUMBER_CRITERIA[self._loss]

    @property
    def _learns_in_units(self) -> bool:
        """Whether every output is learnt in a unit of its own."""
        return True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.quantile != 0.5 and self.loss != "quantile":
            raise ValueError(
                f"quantile={self.quantile!r} has no meaning for loss={self.loss!r}: "
                "set loss='quantile'"
            )

    def _check_held_out(
        self, validation: ValidationSet, rows: TrainingRows
    ) -> TrainingRows:
        held_out = super()._check_held_out(validation, rows)
        warn_of_other_mean(held_out, rows)
        return held_out

    def _learn_numbers(self, rows: TrainingRows, role: Role) -> None:
        """Take the outputs into the arithmetic of X; at the first fit, count them.

        Those of a validation set go into that of the training rows.
        """
        dtype = (rows if role.training is None else role.training).dtype
        given = _take_numbers(rows, dtype)
        if role.first:
            self._loss = self.loss
            self.n_outputs_ = rows.y.shape[-1]
            self.out_activation_ = "exp" if self._criterion.is_log else "identity"
        elif self.loss != self._loss:
            raise ValueError(
                f"warm_start and partial_fit cannot go on with loss={self.loss!r}, as "
                f"the network was fitted with {self._loss!r}: set warm_start=False or "
                "clone the estimator"
            )
        self._check_n_outputs(rows.y.shape[-1])
        if self._criterion.is_log:
            check_counts(*rows.outputs(), self.loss, first=role.first)
        if role.first:
            # Rows of next to no weight may make a unit small, but lose no digits by it.
            unweighted = measure_outputs(self._loss, given, None)
            is_log = self._criterion.is_log
            warn_of_lost_digits(*unweighted, dtype, is_log=is_log)
        else:
            self._warn_of_other_numbers(rows)

    def _warn_of_other_numbers(self, rows: TrainingRows) -> None:
        """Warn of numbers that are far from those of the first fit."""
        if self._output_units is None or not self._learns_in_units:
            return
        if self._criterion.is_log:
            warn_of_other_counts(self._output_units[0], *rows.outputs())
        else:
            warn_of_other_units(self._loss, *self._output_units, *rows.outputs())

    def _as_outputs(self, y: Array, first: bool) -> Array:
        """Give y an axis of outputs; note whether the first y had one."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if first:
            self._y_is_1d = y.ndim == 1
        return y.reshape(len(y), -1)

    def _check_n_outputs(self, n_outputs: int) -> None:
        if n_outputs != self.n_outputs_:
            raise ValueError(
                f"y has {n_outputs} outputs, but the estimator was fitted with "
                f"{self.n_outputs_}: give as many, or fit anew, with warm_start=False "
                "or on a clone"
            )

    def _measure(self, rows: TrainingRows) -> tuple[Array, ...]:
        """Return origin and unit of every output, and for counts their deviances."""
        y, weight = rows.outputs()
        units = measure_outputs(self._loss, y, weight)
        if not self._criterion.is_log:
            return units
        return *units, deviances_of_counts(y, weight)[1].astype(y.dtype)

    def _measure_outputs(self, task: Task) -> Units | None:
        found = self._measure(task.rows)
        late = ~outputs_that_vary(task.rows) & outputs_that_vary(task.all_rows)
        if late.any():  # Only rows held out say by how much these vary.
            of_all = self._measure(task.all_rows)
            found = tuple(
                np.where(late, *both) for both in zip(of_all, found, strict=True)
            )
        origin, units, *deviances = found
        if deviances:
            (self._deviances,) = deviances
        if self.module is not None and self._criterion.is_log:
            warn_of_logarithms(origin)
            return None
        if self.module is not None:
            warn_of_scale(origin, units)
            return None
        return origin, units if self._learns_in_units else np.ones_like(units)

    def _tells_little(self, held_out: TrainingRows) -> bool:
        if not self._criterion.is_log:
            return False
        y, weight = held_out.outputs()
        events = y.astype(np.float64) * weights_or_ones(weight, len(y))[:, None]
        return not bool((effective_number(events) >= _FEW_EVENTS).any())

    def _scales(self, units: Units) -> torch.Tensor:
        """Return what the error of each output is measured in."""
        return as_tensor(self._deviances if self._criterion.is_log else units[1])

    def _unit_settings(self) -> dict[str, Any]:
        if self._output_units is None:
            return {}
        origin, unit = map(as_tensor, self._output_units)
        scales = self._scales(self._output_units)
        return {
            "output_units": (origin, unit),
            "loss_unit": self._criterion.unit_of_loss(scales),
        }

    def _loss_function(self, device: torch.device) -> Loss:
        if self._output_units is None:
            return super()._loss_function(device)
        # Outputs count alike: squares relative to variances, as in a mean R².
        return self._criterion.loss_in(self._scales(self._output_units).to(device))

    def _as_learnt(self, sums: Array) -> Array:
        """Turn outputs of the network into numbers like y, with an axis of outputs."""
        if not self._criterion.is_log:
            return sums
        with np.errstate(over="ignore"):
            found: Array = np.minimum(np.exp(sums), np.finfo(sums.dtype).max)
        return found

    def _decode(self, sums: Array) -> Array:
        predictions = self._as_learnt(sums)
        return predictions[..., 0] if self._y_is_1d else predictions

    def _score_sums(
        self, sums: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None
    ) -> float:
        truth, found = y.numpy(force=True), self._as_learnt(sums.numpy(force=True))
        if not np.isfinite(found).all():
            return -np.inf
        if self._loss == "quantile":  # whose R² is the worse the better it is predicted
            return self._share_explained(sums, y, weight)
        weights = None if weight is None else weight.numpy(force=True)
        with np.errstate(over="ignore", invalid="ignore"):
            score = float(r2_score(truth, found, sample_weight=weights))
        return score if np.isfinite(score) else -np.inf

    def _share_explained(
        self, sums: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None
    ) -> float:
        """Return D², the mean share of a constant's error that outputs do without."""
        criterion = self._criterion
        constant = criterion.best_constant(y, weight, y.shape[1])
        errors, of_constant = (
            criterion.errors_of_outputs(outputs.double(), y.double(), weight)
            for outputs in (sums, constant)
        )
        shares = errors / of_constant
        missed = torch.where(of_constant > 0, shares, (errors > 0).double())
        return float(1 - missed.mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _take_numbers(rows: TrainingRows, dtype: Any) -> Array:
    """Turn the outputs of rows into numbers of a dtype; return them in double."""
    if rows.y.dtype.kind not in "biuf":
        dates = rows.y.dtype.kind in "mM"
        way = "take days since the first date" if dates else "use y.astype(float)"
        raise ValueError(
            f"y has dtype {rows.y.dtype}, but a regression learns numbers: convert it, "
            f"for instance {way}"
        )
    if rows.y.ndim == 2 and not np.isfinite(rows.y).all():
        raise ValueError("Input y contains NaN, None or infinity: leave these rows out")
    rows.y = rows.y.astype(np.float64, copy=False)
    given, _ = rows.outputs()
    with np.errstate(over="ignore"):  # reported below, as an error
        rows.y = rows.y.astype(dtype)
    if not float(np.nanmax(np.abs(rows.y))) <= _LARGEST:
        raise ValueError(
            f"y is too large for {dtype}, the arithmetic of X: scale y down"
        )
    return given
