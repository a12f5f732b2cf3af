"""Mini-batches as index slices of tensors that stay in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from skorch.dataset import Dataset
from torch import Tensor

__all__ = ["Batch", "MiniBatches", "TensorData", "rows_at_a_time"]

# Bounds the memory of an evaluation: hidden maps are many times as large as inputs.
_MOST_ROWS = 8192
_MOST_NUMBERS = 1 << 19


def rows_at_a_time(x: Tensor) -> int:
    """Say how many rows to evaluate at once, so that wide ones fit into memory.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        The inputs.

    Returns
    -------
    int
        A number of rows, at least one.

    Examples
    --------
    >>> import torch
    >>> rows_at_a_time(torch.zeros(9, 4)), rows_at_a_time(torch.zeros(9, 3, 32, 32))
    (8192, 170)
    """
    return max(1, min(_MOST_ROWS, _MOST_NUMBERS // max(1, x[:1].numel())))


class Batch(tuple[Tensor, Tensor]):
    """A mini-batch: the pair (inputs, outputs) that skorch expects, and weights.

    Parameters
    ----------
    x : Tensor of shape (n_b, ...)
        Inputs.
    y : Tensor of shape (n_b, ...)
        Outputs as the loss wants them.
    weight : Tensor of shape (n_b,), optional
        Weights of the rows.
    """

    weight: Tensor | None

    def __new__(cls, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Batch:
        batch = super().__new__(cls, (x, y))
        batch.weight = weight
        return batch


class TensorData(Dataset):
    """Inputs, outputs and weights of a training or validation set.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Inputs.
    y : Tensor of shape (n, ...)
        Class indices, indicators or real outputs, as the loss expects them.
    weight : Tensor of shape (n,), optional
        Non-negative weights of the rows with mean 1; None stands for ones.
    mean_weight : float, default=1.0
        Mean of the weights before they were brought to mean 1: how many rows a row
        stands for.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        weight: Tensor | None = None,
        mean_weight: float = 1.0,
    ) -> None:
        self.x, self.y, self.weight = x, y, weight
        self.mean_weight = mean_weight

    @property
    def X(self) -> Tensor:  # noqa: N802
        """The inputs, by the name that skorch's callbacks know."""
        return self.x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        weight = None if self.weight is None else self.weight[index]
        return Batch(self.x[index], self.y[index], weight)


class MiniBatches:
    """One epoch of mini-batches, drawn anew at every iteration over it.

    Parameters
    ----------
    data : TensorData
        The rows to draw from.
    batch_size : int
        Rows of a batch; the last one may be smaller.  With all rows in one batch, the
        very tensors of `data` are handed out, in their order.
    generator : torch.Generator, optional
        Shuffles the rows; without it they keep their order.
    """

    def __init__(
        self,
        data: TensorData,
        batch_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        data, n = self.data, len(self.data)
        if self.batch_size >= n:
            yield Batch(data.x, data.y, data.weight)
            return
        if self.generator is None:
            for start in range(0, n, self.batch_size):
                yield data[start : start + self.batch_size]
            return
        order = torch.randperm(n, generator=self.generator).to(data.x.device)
        for index in torch.split(order, self.batch_size):
            yield data[index]
