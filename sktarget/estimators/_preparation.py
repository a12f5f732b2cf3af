"""Steps between validated data and training: rows, their weights, X̄, widths."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array

from sktarget.estimators._network import as_tensor
from sktarget.nn._fixed_batch import draw_rows, noise_batch
from sktarget.training import TensorData, as_inputs

__all__ = [
    "TrainingRows",
    "as_dense",
    "can_hold_out",
    "choose_fixed_batch",
    "hidden_sizes",
    "hold_out",
    "multiply_weights",
    "relative_weights",
]

Array = NDArray[Any]


@dataclass
class TrainingRows:
    """Validated training data, rows of weight zero left out.

    Attributes
    ----------
    X : ndarray of shape (n, n_features) or (n, channels, height, width)
        Inputs, float32 or float64; uint8 for images whose pixels are bytes.
    y : ndarray of shape (n,) or (n, n_outputs)
        Outputs as the loss wants them: class indices, or floats like `X`.
    weight : ndarray of shape (n,) or None
        Positive weights.
    classes : ndarray of shape (n,) or None
        Class indices to keep in proportion when validation rows are set aside.
    """

    X: Array
    y: Array
    weight: Array | None = None
    classes: Array | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and (self.weight == 0).any():
            self._take(np.flatnonzero(self.weight))
            if len(self) == 0:
                raise ValueError("sample_weight is zero for every row")

    def _take(self, index: Array) -> None:
        self.X, self.y = self.X[index], self.y[index]
        self.weight = None if self.weight is None else self.weight[index]
        self.classes = None if self.classes is None else self.classes[index]

    def __len__(self) -> int:
        return len(self.X)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the arithmetic; bytes are computed with in float32."""
        return self.X.dtype if self.X.dtype.kind == "f" else np.dtype(np.float32)

    def __getitem__(self, index: Array) -> TrainingRows:
        picked = copy.copy(self)
        picked._take(index)
        return picked

    def distinct(self, seed: int) -> TrainingRows:
        """Merge repeated pairs (x, y) of a table, adding up their weights.

        The order of what comes back depends neither on the order of the rows nor on
        whether a row is repeated or weighted.

        Parameters
        ----------
        seed : int
            Decides the order.

        Returns
        -------
        TrainingRows
            Distinct pairs, of weights where there were any or a pair was repeated.
        """
        pairs = np.column_stack([self.X, self.y.reshape(len(self), -1)])
        drawn, place = draw_rows(pairs, len(self), seed, self.weight)
        merged = self[drawn]
        if self.weight is not None or len(drawn) < len(self):
            total = np.bincount(place, weights=self.weight).astype(np.float64)
            merged.weight = np.minimum(total, np.finfo(np.float64).max)
        return merged

    def to_tensors(self, device: torch.device, dtype: torch.dtype) -> TensorData:
        """Hand the rows to torch for a network of `dtype`; weights get the mean 1.

        Images stay where and as they are, and go to the device batch by batch.
        """
        x, y = as_tensor(self.X), as_tensor(self.y).to(device)
        x = x if x.ndim == 4 else x.to(device)
        if self.weight is None:
            return TensorData(x, y, device=device, dtype=dtype)
        relative, mean = relative_weights(self.weight)
        weight = as_tensor(relative.astype(self.dtype)).to(device)
        return TensorData(x, y, weight, mean, device, dtype)


def relative_weights(weight: Array) -> tuple[Array, float]:
    """Divide weights by their mean, even where their sum overflows.

    Parameters
    ----------
    weight : ndarray of shape (n, ...)
        Weights of any size.

    Returns
    -------
    relative : ndarray of shape (n, ...)
        Weights of mean 1.
    mean : float
        What they were divided by.
    """
    # By a power of two, which rounds nothing: sums of huge weights would overflow.
    exponent = np.frexp(weight.max())[1]
    scaled = np.ldexp(weight, -exponent)
    mean = scaled.mean()
    return scaled / mean, float(np.ldexp(mean, exponent))


def multiply_weights(sample_weight: Array, class_weight: Array) -> Array:
    """Weigh rows by what they are given and by their classes.

    Parameters
    ----------
    sample_weight, class_weight : ndarray
        Weights, of shapes that go together.

    Returns
    -------
    ndarray
        The products.

    Raises
    ------
    ValueError
        If a product overflows.
    """
    with np.errstate(over="ignore"):
        weight: Array = sample_weight * class_weight
    if not np.isfinite(weight).all():
        raise ValueError(
            "sample_weight is too large for class_weight: their product overflows. "
            "Scale sample_weight down"
        )
    return weight


def as_dense(y: Any) -> Any:
    """Write out labels that came as a sparse matrix; leave others as they are."""
    return y.toarray() if sparse.issparse(y) else y


def hidden_sizes(sizes: Any, name: str = "hidden_layer_sizes") -> tuple[int, ...]:
    """Turn the parameter into a tuple of widths.

    Parameters
    ----------
    sizes : int or array-like of int
        The parameter as given.
    name : str
        Its name.

    Returns
    -------
    tuple of int
        The widths, all positive.

    Raises
    ------
    ValueError
        If a width is not a positive integer.
    """
    try:
        widths = [sizes] if np.ndim(sizes) == 0 else list(sizes)
        result = tuple(int(width) for width in widths)
        valid = all(a == b and b >= 1 for a, b in zip(widths, result, strict=True))
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"{name} must be positive integers, got {sizes!r}")
    return result


def _classes(rows: TrainingRows) -> tuple[int, int]:
    """Count the classes, and the rows of the rarest of them."""
    if rows.classes is None:
        return 1, len(rows)
    counts = np.bincount(rows.classes)
    return len(counts), int(counts[counts > 0].min())


def can_hold_out(rows: TrainingRows, fraction: float) -> bool:
    """Tell whether validation rows can be set aside.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    fraction : float
        The parameter `validation_fraction`.

    Returns
    -------
    bool
        Whether both parts have enough rows, for every class.
    """
    n_validation = int(np.ceil(fraction * len(rows)))
    n_classes, rarest = _classes(rows)
    smaller = min(n_validation, len(rows) - n_validation)
    return n_validation >= 2 and smaller >= n_classes and rarest >= 2


def hold_out(
    rows: TrainingRows, fraction: float, random_state: np.random.RandomState
) -> tuple[TrainingRows, TrainingRows]:
    """Set validation rows aside, classes in proportion where there are any.

    Parameters
    ----------
    rows : TrainingRows
        All rows.
    fraction : float
        The parameter `validation_fraction`.
    random_state : RandomState
        Decides which rows.

    Returns
    -------
    training, validation : TrainingRows
        The two parts.

    Raises
    ------
    ValueError
        If there are too few rows for the split.
    """
    n_validation = int(np.ceil(fraction * len(rows)))
    if not can_hold_out(rows, fraction):
        n_classes, rarest = _classes(rows)
        raise ValueError(
            f"validation_fraction={fraction!r} of {len(rows)} rows is too small a "
            f"validation split for {n_classes} class(es), the rarest with {rarest} "
            "row(s): give more rows, another validation_fraction, or "
            "early_stopping=False."
        )
    training, validation = train_test_split(
        np.arange(len(rows)),
        test_size=n_validation,
        stratify=rows.classes,
        random_state=random_state,
    )
    return rows[training], rows[validation]


def choose_fixed_batch(
    rows: TrainingRows,
    fixed_batch: Any,
    size: int | None,
    seed: int,
) -> tuple[Array, Array | None]:
    """Choose X̄ as the parameters `fixed_batch` and `fixed_batch_size` say.

    Parameters
    ----------
    rows : TrainingRows
        Training rows.
    fixed_batch : {"sample", "noise"} or array-like
        Kind of X̄, or X̄ itself.
    size : int or None
        n̄_b, or None for all rows.
    seed : int
        Decides the draw.

    Returns
    -------
    fixed : ndarray of shape (n̄_b, ...)
        X̄ in the dtype of the arithmetic; the very array ``rows.X`` where all rows of a
        table are taken.
    place : ndarray of shape (n,) or None
        Which row of X̄ each training row is, -1 for none; None where X̄ is no sample.

    Raises
    ------
    ValueError
        If a given X̄ has the wrong shape or is not finite, or `size` exceeds the data.
    """
    if not isinstance(fixed_batch, str):
        return _given_batch(rows, fixed_batch), None
    if fixed_batch == "noise":
        n_noise = len(rows) if size is None else size
        noise = noise_batch(rows.X, n_noise, seed, rows.weight)
        in_range = rows.X.dtype.kind == "f"
        return noise if in_range else noise / noise.dtype.type(255), None
    if size is None:
        return _as_floats(rows.X), np.arange(len(rows))
    if size > len(rows):
        raise ValueError(
            f"fixed_batch_size={size} is larger than the number of training rows, "
            f"{len(rows)}: use None for all of them, or fixed_batch='noise'."
        )
    drawn, place = draw_rows(rows.X, size, seed, rows.weight)
    return _as_floats(rows.X[drawn]), place


def _given_batch(rows: TrainingRows, fixed_batch: Any) -> Array:
    """Validate an X̄ of the user's; images may be flattened, as in X."""
    kinds = [rows.dtype, np.uint8] if rows.X.ndim == 4 else rows.dtype
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
    """Scale bytes; give other arrays back as they are."""
    return X if X.dtype.kind == "f" else as_inputs(as_tensor(X)).numpy()
