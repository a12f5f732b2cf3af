"""Validated training rows."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from sktarget.estimators._arrays import as_tensor
from sktarget.estimators._drawing import draw_rows
from sktarget.estimators._hashing import by_appearance, number_pairs
from sktarget.estimators._outliers import Bulk, bulk_of_columns
from sktarget.estimators._statistics import ROUNDING
from sktarget.estimators._weights import MOST_WEIGHT, relative_weights
from sktarget.training import TensorData

__all__ = ["Role", "TrainingRows", "as_dense"]

Array = NDArray[Any]

# Sparse matrices of more numbers than this, 4 GiB in double precision, are refused.
_MOST_NUMBERS = 1 << 29
# Rows are measurements of their own where there are fewer distinct x than this, for
# each row, and more distinct pairs (x, y) than this for each distinct x.
_FEW_INPUTS, _SEVERAL = 0.8, 1.2


@dataclass
class TrainingRows:
    """Validated training data, rows of weight zero left out.

    Attributes
    ----------
    X : ndarray of shape (n, n_features) or (n, channels, height, width)
        Inputs, float32 or float64; uint8 for images whose pixels are bytes.
    y : ndarray of shape (n,) or (n, n_outputs)
        Outputs as the loss takes them: class indices, or floats like `X`.
    weight : ndarray of shape (n,) or None
        Positive weights.
    classes : ndarray of shape (n,) or None
        Class indices to keep in proportion when validation rows are set aside.
    n_before_merging : int or None
        How many rows there were before equal ones were merged; None if none were.
    n_held_out : int
        How many others have been held out.
    has_validation : bool
        Whether others tell when to stop: those held out, or a validation set.
    """

    X: Array
    y: Array
    weight: Array | None = None
    classes: Array | None = None
    n_before_merging: int | None = None
    n_held_out: int = 0
    has_validation: bool = False

    def __post_init__(self) -> None:
        if self.weight is not None and (self.weight == 0).any():
            self._take(np.flatnonzero(self.weight))
            if len(self) == 0:
                raise ValueError(
                    "every row has weight 0, by sample_weight or class_weight: give "
                    "some of them a positive weight"
                )

    def _take(self, index: Array) -> None:
        for of_all in ("bulk", "n_varying"):
            self.__dict__.pop(of_all, None)
        self.X, self.y = self.X[index], self.y[index]
        self.weight = None if self.weight is None else self.weight[index]
        self.classes = None if self.classes is None else self.classes[index]
        if "repeats" in self.__dict__:  # What are copies remains so in a part.
            self.__dict__["repeats"] = by_appearance(self.repeats[index])

    def __len__(self) -> int:
        return len(self.X)

    @cached_property
    def repeats(self) -> Array:
        """Which of the distinct rows every row is, by order of appearance.

        Rows with the same x and y are copies of one.  But where few x come with many y,
        as the answers to a questionnaire do, each row is a measurement of its own: to
        hold out all that agree would leave the others to be learnt as the truth.  Rows
        that are merged, and have weights instead, remain copies.
        """
        pairs, n_inputs = number_pairs(self.X, self.y)
        n_pairs = 1 + int(pairs.max(initial=-1))
        if n_inputs < _FEW_INPUTS * len(self) and n_pairs > _SEVERAL * n_inputs:
            return np.arange(len(self))
        return pairs

    @cached_property
    def bulk(self) -> Bulk:
        """Where most of each column of a table lies."""
        return bulk_of_columns(self.X, self.weight)

    @property
    def are_tallied(self) -> bool:
        """Whether these are answers to questions, counted by their weights.

        To hold one out would take it away from all who gave it.
        """
        n, few = len(self), _FEW_INPUTS * len(self)
        if not self.total_weight > 2 * n or self.n_before_merging is not None:
            return False
        pairs, n_inputs = number_pairs(self.X, self.y)
        n_outputs = len(np.unique(self.y.reshape(n, -1), axis=0))
        return n_inputs < few and n_outputs < few and int(pairs.max()) == n - 1

    @property
    def n_distinct(self) -> int:
        """Rows that differ, or are measurements of their own."""
        return 1 + int(self.repeats.max(initial=-1))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the arithmetic, which is float32 for bytes."""
        return self.X.dtype if self.X.dtype.kind == "f" else np.dtype(np.float32)

    @property
    def n_given(self) -> int:
        """Rows before merging, or their total weight if larger.

        The rules thus choose the same whether repeats come as rows, merged or as
        weights.
        """
        n = len(self) if self.n_before_merging is None else self.n_before_merging
        return max(n, round(min(self.total_weight, MOST_WEIGHT)))

    @property
    def n_with_held_out(self) -> int:
        """Rows, and those held out: a table is as large with them as without."""
        return len(self) + self.n_held_out

    @cached_property
    def n_varying(self) -> int:
        """Columns that vary by more than rounding, at least one."""
        least, most = self.X.min(axis=0), self.X.max(axis=0)
        kind = np.finfo(self.X.dtype)
        with np.errstate(over="ignore"):
            floor = ROUNDING * kind.eps * np.maximum(-least, most) + kind.tiny
            return max(1, int((most - least > floor).sum()))

    @property
    def total_weight(self) -> float:
        """Sum of the weights, 1 for each row if there are none."""
        if self.weight is None:
            return float(len(self))
        with np.errstate(over="ignore"):
            return float(self.weight.astype(np.float64).sum())

    def __getitem__(self, index: Array) -> TrainingRows:
        picked = copy.copy(self)
        picked._take(index)
        return picked

    def in_double(self) -> TrainingRows:
        """Return the same rows with X in double precision."""
        wide = copy.copy(self)
        wide.__dict__.pop("n_varying", None)
        wide.X = self.X.astype(np.float64)
        return wide

    def outputs(self) -> tuple[Array, Array | None]:
        """Return all outputs one by one, and their weights, if any."""
        return self.y, self.weight

    def distinct(self, seed: int) -> TrainingRows:
        """Merge repeated pairs (x, y) of a table, adding up their weights.

        The order of the result depends neither on the order of the rows nor on
        whether a row is repeated or weighted.

        Parameters
        ----------
        seed : int
            Decides the order.

        Returns
        -------
        TrainingRows
            Distinct pairs, weighted if there were weights or a pair was repeated.
        """
        pairs = np.column_stack([self.X, self.y.reshape(len(self), -1)])
        drawn, place = draw_rows(pairs, len(self), seed, self.weight)
        merged = self[drawn]
        merged.n_before_merging = len(self)
        # Those held out hold as many repeats.
        merged.n_held_out = round(self.n_held_out * len(drawn) / len(self))
        if self.weight is not None or len(drawn) < len(self):
            total = np.bincount(place, weights=self.weight).astype(np.float64)
            merged.weight = np.minimum(total, np.finfo(np.float64).max)
        return merged

    def to_tensors(self, device: torch.device, dtype: torch.dtype) -> TensorData:
        """Return the rows as tensors, with weights of mean 1.

        Parameters
        ----------
        device : torch.device
            Where the network is.  Images stay where they are, and go there batch by
            batch.
        dtype : torch.dtype
            That of the network.

        Returns
        -------
        TensorData
            The rows, sharing memory with these where they can.
        """
        x, y = as_tensor(self.X), as_tensor(self.y).to(device)
        x = x if x.ndim == 4 else x.to(device)
        if self.weight is None:
            return TensorData(x, y, device=device, dtype=dtype)
        relative, mean = relative_weights(self.weight)
        weight = as_tensor(relative.astype(self.dtype)).to(device)
        return TensorData(x, y, weight, mean, device, dtype)


@dataclass(frozen=True)
class Role:
    """In what role rows are read.

    Attributes
    ----------
    first : bool
        Whether they set what depends on y, or have to suit what an earlier fit has set.
    classes : array-like or None
        All labels that will ever occur, if ``partial_fit`` was given them.
    training : TrainingRows or None
        The training rows beside which they are a validation set.
    """

    first: bool
    classes: Any = None
    training: TrainingRows | None = None


def as_dense(a: Any) -> Any:
    """Make a sparse matrix dense; leave everything else as it is.

    Parameters
    ----------
    a : object
        Inputs or labels.

    Returns
    -------
    object
        An array for a sparse matrix, else `a` itself.

    Raises
    ------
    ValueError
        If the array would be too large to compute with.
    """
    if not sparse.issparse(a):
        return a
    if math.prod(a.shape) > _MOST_NUMBERS:
        raise ValueError(
            f"a sparse matrix of shape {a.shape} would take "
            f"{math.prod(a.shape) * a.dtype.itemsize / 2**30:.1f} GiB as the dense "
            "array that the network needs: give fewer columns, for instance with "
            "TruncatedSVD or SelectKBest, or fewer rows at a time"
        )
    return a.toarray()
