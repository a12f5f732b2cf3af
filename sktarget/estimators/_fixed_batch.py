"""Choice of X̄ by the parameters of an estimator."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._drawing import draw_rows, noise_batch
from sktarget.estimators._pixels import as_bytes
from sktarget.estimators._rows import TrainingRows
from sktarget.training import as_inputs

__all__ = ["FixedRows", "choose_fixed_batch", "warn_of_few_rows", "warn_of_loss"]

Array = NDArray[Any]

# This many rows of X̄ are enough to start from, whatever the width.
_FEW_ROWS = 50


class FixedRows(NamedTuple):
    """X̄ as it has been chosen.

    Attributes
    ----------
    values : ndarray of shape (n̄_b, ...)
        X̄ in the dtype of the arithmetic; the very inputs of the training rows where
        all of these are taken, unless they are bytes.
    place : ndarray of shape (n,) or None
        Which row of X̄ each training row is, -1 for none; None where X̄ is no sample, or
        nobody asks.
    is_all : bool
        Whether X̄ is all training rows, in their order.
    """

    values: Array
    place: Array | None
    is_all: bool


def choose_fixed_batch(
    rows: TrainingRows,
    fixed_batch: Any,
    size: int | None,
    seed: int,
    *,
    of_all_columns: bool = False,
) -> FixedRows:
    """Choose X̄ by the parameters `fixed_batch` and `fixed_batch_size`.

    Parameters
    ----------
    rows : TrainingRows
        Training rows.
    fixed_batch : {"sample", "noise"} or array-like
        Kind of X̄, or X̄ itself.
    size : int or None
        n̄_b, or None for all rows; while some are held out, a sample has at most the
        others.
    seed : int
        Decides the draw.
    of_all_columns : bool, default=False
        Whether a sample may be larger, for columns of a table that it would lack.

    Returns
    -------
    FixedRows
        X̄, and which rows it is made of.

    Raises
    ------
    ValueError
        If a given X̄ has the wrong shape or is not finite, or `size` exceeds the data.
    """
    if not isinstance(fixed_batch, str):
        return FixedRows(_given_batch(rows, fixed_batch), None, False)
    if fixed_batch == "noise":
        n_noise = len(rows) if size is None else size
        noise = noise_batch(rows.X, n_noise, seed, rows.weight)
        is_float = rows.X.dtype.kind == "f"
        if not is_float:
            noise = noise / noise.dtype.type(255)
        return FixedRows(noise, None, False)
    if size is None:
        return FixedRows(_as_floats(rows.X), np.arange(len(rows)), True)
    if size > rows.n_with_held_out:
        raise ValueError(
            f"fixed_batch_size={size} is larger than the number of training rows, "
            f"{rows.n_with_held_out}: use None for all of them, or fixed_batch='noise'."
        )
    drawn, place = draw_rows(
        rows.X, min(size, len(rows)), seed, rows.weight, of_all_columns=of_all_columns
    )
    return FixedRows(_as_floats(rows.X[drawn]), place, False)


def _given_batch(rows: TrainingRows, fixed_batch: Any) -> Array:
    """Validate an X̄ given by the user; images may be flattened, as in X."""
    kinds = [rows.dtype, np.uint8] if rows.X.ndim == 4 else rows.dtype
    if rows.X.dtype == np.uint8:
        fixed_batch = as_bytes(fixed_batch)
    try:
        given = check_array(fixed_batch, dtype=kinds, allow_nd=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"fixed_batch cannot be used: {error}") from None
    if given.shape[1:] == (math.prod(rows.X.shape[1:]),):
        given = given.reshape(-1, *rows.X.shape[1:])
    if given.shape[1:] != rows.X.shape[1:]:
        raise ValueError(
            f"fixed_batch has shape {given.shape}, but every row must have the "
            f"shape of a row of X, {rows.X.shape[1:]}"
        )
    return np.array(_as_floats(given).astype(rows.dtype, copy=False))


def _as_floats(X: Array) -> Array:
    """Scale bytes; return other arrays as they are."""
    return X if X.dtype.kind == "f" else as_inputs(as_tensor(X)).numpy()


def warn_of_few_rows(n_rows: int, widest: int) -> None:
    """Warn if the first call of ``partial_fit`` has few rows to choose X̄ from.

    Parameters
    ----------
    n_rows : int
        How many rows the solves would have.
    widest : int
        Most inputs that a layer has, bias included.
    """
    if n_rows < min(widest, _FEW_ROWS):
        warnings.warn(
            f"the first call of partial_fit chooses the fixed batch, and has only "
            f"{n_rows} row(s) for layers of up to {widest} inputs, bias included: "
            "later calls will learn little. Give it a few hundred rows, or a "
            "fixed_batch",
            stacklevel=2,
        )


def warn_of_loss(n_rows: int, widest: int, *, kept: bool) -> None:
    """Warn that a few rows do not reveal the network that is to be trained further.

    Parameters
    ----------
    n_rows : int
        How many rows the solves would have.
    widest : int
        Most inputs that a layer has, bias included.
    kept : bool
        Whether the X̄ of the last fit is still there, and another is asked for.
    """
    remedy = "" if kept else ", or set warm_start=True before fit, which keeps its own"
    warnings.warn(
        f"this call of partial_fit chooses a fixed batch, and has only {n_rows} row(s) "
        f"for layers of up to {widest} inputs, bias included: most of what was learnt "
        f"before is lost. Give it a few hundred rows{remedy}",
        stacklevel=2,
    )
