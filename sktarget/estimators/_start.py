"""Where training starts: outputs from the labels, inputs as if standardised."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sktarget.architectures import DenseNetwork
from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._outliers import Bulk
from sktarget.estimators._rows import TrainingRows, relative_weights
from sktarget.linalg import ridge_solve
from sktarget.nn import TargetSpace

__all__ = [
    "aim_at_labels",
    "mean_labels",
    "standardise_inputs_",
    "targets_of_origin",
    "units_of_inputs",
]

Array = NDArray[Any]
Units = tuple[Array, Array]

# How far the initial outputs lean towards their labels, in units of the sums.
_CONFIDENCE = 4.0
# Units from which on a label counts as no further off, where outliers may be.
_FAR = 4.0
# Share of the mean weight below which a row has next to none.
_NEXT_TO_NONE = 1e-3
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


def mean_labels(rows: TrainingRows, place: Array, size: int, n_outputs: int) -> Array:
    """Average what the training rows say about each row of X̄.

    What rows of next to no weight say counts for as little: training would not correct
    it.  Less than a thousandth of the mean weight leans towards the mean of all.

    Parameters
    ----------
    rows : TrainingRows
        Training rows.
    place : ndarray of shape (n,)
        Which row of X̄ each training row is, -1 for none.
    size : int
        n̄_b.
    n_outputs : int
        Outputs of the network.

    Returns
    -------
    ndarray of shape (n̄_b, n_outputs)
        Weighted means of y; for classes, their shares.
    """
    index = np.flatnonzero(place >= 0)
    place, y = place[index], rows.y[index]
    weight = np.ones(len(index))
    if rows.weight is not None:
        weight, _ = relative_weights(rows.weight[index])
    sums = np.zeros((size, n_outputs))
    if y.ndim == 1:
        np.add.at(sums, (place, y), weight)
    else:
        np.add.at(sums, place, y * weight[:, None])
    total = np.bincount(place, weights=weight, minlength=size)[:, None]
    say = np.minimum(1.0, total / (_NEXT_TO_NONE * total.mean()))
    own = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    means: Array = say * own + (1 - say) * sums.sum(0) / total.sum()
    return means


def aim_at_labels(loss: str, means: Array, units: Units | None = None) -> Array:
    """Return the sums from which the outputs start.

    Parameters
    ----------
    loss : str
        What is minimised, one of ``CRITERIA``.
    means : ndarray of shape (n̄_b, n_outputs)
        Means of the labels, see :func:`mean_labels`.
    units : (ndarray, ndarray) of shape (n_outputs,) each, optional
        Origin and unit of every output in regression, see
        :func:`~sktarget.estimators._output_units.measure_outputs`.

    Returns
    -------
    ndarray of shape (n̄_b, n_outputs)
        Targets of the last layer.  For classes, 4 times the difference between labels
        and a blind guess.  In regression the labels themselves; for the absolute error
        those within 4 units; for counts the logarithm of what lies halfway between
        label and mean, as that of 0 is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> aim_at_labels("cross_entropy", np.array([[1.0, 0.0], [0.5, 0.5]]))
    array([[ 2., -2.],
           [ 0.,  0.]])
    """
    if loss in ("cross_entropy", "logistic"):
        guess = 1 / means.shape[1] if loss == "cross_entropy" else 0.5
        aims: Array = _CONFIDENCE * (means - guess)
        return aims
    origin, unit = (0.0, 1.0) if units is None else units
    if loss == "poisson":
        aims = np.log((means * np.exp(-origin) + 1) / 2) / unit
        return aims
    aims = (means - origin) / unit
    return aims.clip(-_FAR, _FAR) if loss == "absolute_error" else aims


def targets_of_origin(network: TargetSpace, origin: Array) -> Array:
    """Return what to add to the last layer's targets for its biases to hold `origin`.

    The network learns y − origin with targets T and weights W.  For y itself the bias
    row of W needs `origin` added; with A a column of ones and the inputs on X̄,
    T + (1 + λ (Aᵀ)⁺ e₀) originᵀ leads there if A has full column rank.

    Parameters
    ----------
    network : TargetSpace
        The network, its last layer a dense one.
    origin : ndarray of shape (n_outputs,)
        What is added to the outputs of the network.

    Returns
    -------
    ndarray of shape (n̄_b, n_outputs)
        What to add to the targets of the last layer.
    """
    last: Any = list(network.target_layers().values())[-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    was_training = network.training
    network.train().eval()  # The change of mode solves on X̄.
    hook.remove()
    network.train(was_training)
    rows = last.operator.rows(seen[0].detach()).double().cpu()
    rows = torch.cat([rows.new_ones(len(rows), 1), rows], dim=1)
    unit = torch.eye(rows.shape[1], 1, dtype=rows.dtype, device="cpu")  # e₀
    share = 1 + last.lam * ridge_solve(rows.T, unit, lam=0.0).numpy()
    more: Array = share * origin
    return more.astype(origin.dtype)


def units_of_inputs(bulk: Bulk, dtype: np.dtype[Any]) -> tuple[Array, Array] | None:
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
    mean, deviation, low, high = bulk
    with np.errstate(over="ignore", invalid="ignore"):
        span, varies = bulk.span, _varies(mean, deviation, dtype)
        # Indicators span 1, however rare what they indicate.
        narrow = varies & (deviation < _NARROW) & (span < _INDICATES)
        wide = varies & (deviation > _WIDE)
        if np.sum(deviation[narrow] ** 2) >= _LOST:
            narrow[:] = False
        # Of two values, or one in most rows, one is within a deviation of the mean.
        spread = np.minimum(mean - low, high - mean) > _REACH * deviation
        widest = np.max(deviation, where=wide, initial=0.0)
        dwarfed = varies & ~wide & spread & (deviation * _DWARFS < widest)
        wide |= dwarfed
        narrow &= ~dwarfed
        off = np.abs(mean) > np.where(varies, 2 * deviation, 2.0)
        needs = (narrow | wide | off) & np.isfinite(deviation) & np.isfinite(span)
    if not needs.any():
        return None
    unit = np.where(narrow, span / 2, np.where(wide, deviation / _WIDE, 1.0))
    found = np.where(needs, mean, 0.0), np.where(needs, unit, 1.0)
    return found[0].astype(dtype), found[1].astype(dtype)


def _varies(mean: Array, deviation: Array, dtype: np.dtype[Any]) -> Array:
    """Return which columns vary by far more than the rounding of their mean."""
    kind = np.finfo(dtype)
    floor = np.maximum(256 * kind.eps * np.abs(mean), kind.tiny)
    varies: Array = (deviation > floor) & np.isfinite(deviation)
    return varies


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
    k = len(mean)
    for layer in network.reading:
        given = layer.weight.detach().numpy()
        varies = _varies(mean, deviation, given.dtype)
        weight = given.astype(np.float64)  # a copy
        weight[:, :k] /= np.where(varies, deviation, 1.0)
        bias = -weight[:, :k] @ mean
        tensors = [as_tensor(a.astype(given.dtype)) for a in (weight, bias)]
        if all(bool(t.isfinite().all()) for t in tensors):
            with torch.no_grad():
                layer.weight.copy_(tensors[0])
                layer.bias.add_(tensors[1])
