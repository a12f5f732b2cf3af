"""Where the targets of the last layer start: at what the labels say."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sktarget.estimators._arrays import Units
from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._weights import weights_or_ones
from sktarget.linalg import ridge_solve
from sktarget.nn import TargetSpace

__all__ = ["aim_at_labels", "mean_labels", "targets_of_origin"]

Array = NDArray[Any]

# How far the initial outputs lean towards their labels, in units of the sums.
_CONFIDENCE = 4.0
# Units from which on a label counts as no further off, where outliers may be.
_FARTHEST = 4.0
# Share of the mean weight below which a row has next to none.
_NEXT_TO_NONE = 1e-3


def mean_labels(rows: TrainingRows, place: Array, size: int, n_outputs: int) -> Array:
    """Average what the training rows say about each row of X̄.

    Rows of X̄ whose weight is below a thousandth of the mean are drawn towards the mean
    of all, since training would not correct what their labels say.

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
    weight = None if rows.weight is None else rows.weight[index]
    weight = weights_or_ones(weight, len(index))
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
        and quantiles those within 4 units; for counts the logarithm of what lies
        halfway between label and mean, as that of 0 is not finite.

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
    return aims if loss == "squared_error" else aims.clip(-_FARTHEST, _FARTHEST)


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
