"""What a linear model makes of a table: a deep network should do better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sktarget.estimators._rows import TrainingRows
from sktarget.estimators._weights import weights_or_ones
from sktarget.linalg import FactorisationError, ridge_solve
from sktarget.training import Loss

__all__ = ["error_of_linear_model", "flattened"]

Array = NDArray[Any]

# With more columns the Gramian would take longer than it is worth.
_MOST_COLUMNS = 1000


def error_of_linear_model(
    rows: TrainingRows, held_out: TrainingRows, error: Loss
) -> float:
    """Return the error of ridge regression on rows that were held out.

    Parameters
    ----------
    rows, held_out : TrainingRows
        Rows of a table to learn from, and rows to predict.
    error : callable
        Of predictions, outputs and weights.

    Returns
    -------
    float
        The error; infinite for more than 1,000 columns, which are not tried, where
        numbers are too large to be squared, and where sequences that were held out have
        other lengths than those to learn from.
    """
    n_columns = rows.X.shape[1]
    if n_columns > _MOST_COLUMNS or n_columns != held_out.X.shape[1]:
        return math.inf
    try:
        with np.errstate(all="ignore"):
            found = _error(rows, held_out, error)
    except FactorisationError:
        return math.inf
    return found if math.isfinite(found) else math.inf


def flattened(rows: TrainingRows) -> TrainingRows:
    """Return sequences as rows of a table, with a column for each step and channel.

    Parameters
    ----------
    rows : TrainingRows
        Sequences of one length.

    Returns
    -------
    TrainingRows
        The rows.
    """
    return TrainingRows(rows.X.reshape(len(rows), -1), rows.y, rows.weight)


def _error(rows: TrainingRows, held_out: TrainingRows, error: Loss) -> float:
    weight = weights_or_ones(rows.weight, len(rows))
    X, y = rows.X.astype(np.float64), rows.y.astype(np.float64)
    of_columns, of_outputs = (np.average(a, axis=0, weights=weight) for a in (X, y))
    unit = np.sqrt(np.average((X - of_columns) ** 2, axis=0, weights=weight))
    unit[unit == 0] = 1
    root = np.sqrt(weight)[:, None]
    design = torch.from_numpy(root * (X - of_columns) / unit)
    coef = ridge_solve(design, torch.from_numpy(root * (y - of_outputs)), lam=1.0)
    others = held_out.to_tensors(torch.device("cpu"), torch.float64)
    found = torch.from_numpy((held_out.X - of_columns) / unit) @ coef
    return float(error(found + torch.from_numpy(of_outputs), others.y, others.weight))
