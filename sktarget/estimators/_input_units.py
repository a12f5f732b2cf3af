"""Units in which a dense network learns from the columns of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sktarget.architectures import DenseNetwork
from sktarget.estimators._arrays import Units, as_tensor
from sktarget.estimators._outliers import Bulk
from sktarget.estimators._statistics import ROUNDING

__all__ = ["columns_that_vary", "reaches_out", "standardise_inputs_", "units_of_inputs"]

Array = NDArray[Any]

# Deviation below which λ suppresses a column.
_NARROW = 0.1
# Deviation above which a column counts as large.
_WIDE = 2.0
# Ratio of the widest deviation to those of columns that it dwarfs.
_DWARFS = 100.0
# Deviations that a column has to reach out on either side to be dwarfed: indicators,
# and counts of something rare, do not.
_REACH = 1.2
# Total variance of narrow columns below which λ suppresses even what they share.
_LOST = 0.1
# Span from which a column counts as an indicator.
_INDICATES = 0.9


def units_of_inputs(bulk: Bulk, dtype: np.dtype[Any]) -> Units | None:
    """Return the origin and unit of every column for the solves.

    λ acts on columns according to their size: it suppresses those that are small, or
    vary little beside their mean, and hardly touches large ones.  So columns with a
    deviation above 2 get half their deviation as the unit, and with them those that
    the widest dwarfs by a factor of 100, unless they hardly reach out to one side, as
    columns of two values or mostly one do.  Columns with a deviation below 0.1 that
    span less than 0.9 get half their span, if all their variances add up to less than
    0.1, about where λ ceases to suppress them.  All these, and columns whose mean is
    more than twice their deviation, are measured from their mean.  Others are taken as
    they are, among them standardised columns, brightness, most indicators and shares
    of words.

    Parameters
    ----------
    bulk : Bulk
        Where most of each column lies.
    dtype : dtype
        That of the arithmetic.

    Returns
    -------
    origin, unit : ndarray of shape (n_features,), or None
        In this dtype; None where no column needs any.
    """
    mean, deviation = bulk.mean, bulk.deviation
    with np.errstate(over="ignore", invalid="ignore"):
        span, varied = bulk.span, columns_that_vary(mean, deviation, dtype)
        # Indicators span 1, however rare what they indicate.
        narrow = varied & (deviation < _NARROW) & (span < _INDICATES)
        wide = varied & (deviation > _WIDE)
        if np.sum(deviation[narrow] ** 2) >= _LOST:
            narrow[:] = False
        widest = np.max(deviation, where=wide, initial=0.0)
        dwarfed = reaches_out(bulk, dtype) & ~wide & (deviation * _DWARFS < widest)
        wide |= dwarfed
        narrow &= ~dwarfed
        off = np.abs(mean) > np.where(varied, 2 * deviation, 2.0)
        needs = (narrow | wide | off) & np.isfinite(deviation) & np.isfinite(span)
    if not needs.any():
        return None
    unit = np.where(narrow, span / 2, np.where(wide, deviation / _WIDE, 1.0))
    found = np.where(needs, mean, 0.0), np.where(needs, unit, 1.0)
    return found[0].astype(dtype), found[1].astype(dtype)


def reaches_out(bulk: Bulk, dtype: np.dtype[Any]) -> Array:
    """Return which columns vary to either side of their mean.

    Of two values, or one in most rows, one is within a deviation of the mean.

    Parameters
    ----------
    bulk : Bulk
        Where most of each column lies.
    dtype : dtype
        That of the arithmetic.

    Returns
    -------
    ndarray of shape (n_features,)
        Booleans.
    """
    mean, deviation, low, high = bulk
    with np.errstate(over="ignore", invalid="ignore"):
        reach = np.minimum(mean - low, high - mean)
        found: Array = columns_that_vary(mean, deviation, dtype) & (
            reach > _REACH * deviation
        )
    return found


def columns_that_vary(mean: Array, deviation: Array, dtype: np.dtype[Any]) -> Array:
    """Return which columns vary by far more than the rounding of their mean.

    Parameters
    ----------
    mean, deviation : ndarray of shape (n_features,)
        Those of each column.
    dtype : dtype
        That of the arithmetic.

    Returns
    -------
    ndarray of shape (n_features,)
        Booleans.
    """
    kind = np.finfo(dtype)
    floor = np.maximum(ROUNDING * kind.eps * np.abs(mean), kind.tiny)
    found: Array = (deviation > floor) & np.isfinite(deviation)
    return found


def standardise_inputs_(network: DenseNetwork, bulk: Bulk) -> None:
    """Make the sums start as if the columns had been standardised.

    Columns of large numbers would otherwise drown out the others, and saturate what
    follows.

    Parameters
    ----------
    network : DenseNetwork
        The network, changed in place.
    bulk : Bulk
        Where most of each column lies.
    """
    mean, deviation = bulk.mean, bulk.deviation
    k, layers = len(mean), network.reading
    dtype = layers[0].weight.detach().numpy().dtype
    scale = np.where(columns_that_vary(mean, deviation, dtype), deviation, 1.0)
    for layer in layers:
        weight = layer.weight.detach().numpy().astype(np.float64)  # a copy
        weight[:, :k] /= scale
        bias = -weight[:, :k] @ mean
        found = [array.astype(dtype) for array in (weight, bias)]
        if all(np.isfinite(array).all() for array in found):
            with torch.no_grad():
                layer.weight.copy_(as_tensor(found[0]))
                layer.bias.add_(as_tensor(found[1]))
