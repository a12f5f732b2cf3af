"""Units in which a recurrent network learns from the channels of sequences."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sktarget.architectures import RecurrentNetwork
from sktarget.estimators._arrays import Units, as_tensor
from sktarget.estimators._input_units import (
    columns_that_vary,
    reaches_out,
    units_of_inputs,
)
from sktarget.estimators._outliers import bulk_of_columns
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._sequence_rows import real_steps

__all__ = ["fold_units_", "in_units", "rows_in_units", "units_of_channels"]

Array = NDArray[Any]

# Weights in units of the channels are smaller.
_LARGE_WEIGHT = 1e3
# By how much a standard channel may be off in place, and by which factor in width.
_NEARLY = 0.2
# Deviations that an indicator of something may at most be off.
_RARE = 10.0


def units_of_channels(rows: TrainingRows) -> Units | None:
    """Choose the units in which to learn from the channels of sequences.

    What is read is passed on from step to step, so channels are standardised: measured
    from the mean of most of their values, in units of the deviation of these.  Those
    that are about standard as they are stay so, and so do indicators of events so rare
    that they would be more than ten deviations off.  If no channel reaches out to both
    sides of its mean, as indicators and bits do not, only those are standardised that
    would get units as columns of a table, see
    :func:`~sktarget.estimators._input_units.units_of_inputs`: indicators of what is
    rare would be so large that simple cells forget what came before.

    Parameters
    ----------
    rows : TrainingRows
        Sequences (n, time, channels), padded with NaN.

    Returns
    -------
    Units or None
        Arrays of shape (n_channels,); None where no channel needs any.
    """
    bulk = bulk_of_columns(*real_steps(rows))
    mean, deviation = bulk.mean, bulk.deviation
    found = units_of_inputs(bulk, rows.dtype)
    if found is None:
        found = np.zeros_like(mean), np.ones_like(mean)
    needs = found[1] != 1
    reach = reaches_out(bulk, rows.dtype)
    if reach.any():
        farthest = np.maximum(bulk.high - mean, mean - bulk.low)
        is_rare = ~reach & (farthest > _RARE * deviation)
        varied = columns_that_vary(mean, deviation, rows.dtype)
        needs |= varied & ~is_rare & ~_are_standard(mean, deviation)
    with np.errstate(all="ignore"):
        origin = np.where(needs, mean, found[0]).astype(rows.dtype)
        unit = np.where(needs, deviation, 1).astype(rows.dtype)
        # Weights for the channels as given must exist.
        largest = _LARGE_WEIGHT * np.maximum(1, np.abs(origin)) / unit
    is_needed = needs.any() or origin.any()
    return (origin, unit) if is_needed and np.isfinite(largest).all() else None


def _are_standard(mean: Array, deviation: Array) -> Array:
    """Return which channels have about a mean of 0 and a deviation of 1."""
    with np.errstate(divide="ignore"):
        is_as_wide = np.abs(np.log(deviation)) <= _NEARLY
    found: Array = is_as_wide & (np.abs(mean) <= _NEARLY)
    return found


def in_units(X: Array, units: Units) -> Array:
    """Measure sequences in units.

    Parameters
    ----------
    X : ndarray of shape (n, time, channels)
        Sequences as given.
    units : Units
        Origin and unit of every channel.

    Returns
    -------
    ndarray of shape (n, time, channels)
        The sequences in these units, in the dtype of `X`.
    """
    origin, unit = units
    measured: Array = ((X - origin) / unit).astype(X.dtype, copy=False)
    return measured


def rows_in_units(rows: TrainingRows, units: Units) -> TrainingRows:
    """Return the same rows with their sequences measured in units.

    Parameters
    ----------
    rows : TrainingRows
        Sequences as given.
    units : Units
        Origin and unit of every channel.

    Returns
    -------
    TrainingRows
        Others, which share all else.
    """
    measured = copy.copy(rows)
    measured.X = in_units(rows.X, units)
    return measured


def fold_units_(network: RecurrentNetwork, units: Units) -> None:
    """Let a network that has learnt in units read channels as they are given.

    Parameters
    ----------
    network : RecurrentNetwork
        The network, changed in place.
    units : Units
        Origin and unit of every channel.
    """
    first: Any = network.recurrent[0]
    origin, unit = map(as_tensor, units)
    with torch.no_grad():
        for name, weight in first.named_parameters():
            if name.startswith("weight_ih_l0"):
                weight /= unit
                first.get_parameter(name.replace("weight", "bias")).sub_(
                    weight @ origin
                )
