"""Mini-batches as index slices of tensors that stay in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from skorch.dataset import Dataset
from torch import Tensor, nn

__all__ = [
    "Batch",
    "MiniBatches",
    "TensorData",
    "as_inputs",
    "n_batches",
    "rows_at_a_time",
    "stored_like",
]

# Limits on the rows, and on the numbers in them, that are evaluated at a time, so that
# the output of a layer is still in cache for the next, and maps of images fit into
# memory.
_MOST_ROWS = 1024
_MOST_NUMBERS = 1 << 19
# (n, channels, height, width)
_IMAGE_AXES = 4


def as_inputs(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert inputs from how they are stored to what a network reads.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Floating point, uint8 for the brightness of pixels, or int64 for token ids.
    dtype : torch.dtype, default=torch.float32
        What to convert to.

    Returns
    -------
    Tensor of shape (n, ...)
        Bytes 0 to 255 scaled to the range from 0 to 1; token ids as they are; other
        numbers in `dtype`, and `x` itself where nothing changes.

    Examples
    --------
    >>> import torch
    >>> as_inputs(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    tensor([[0.0000, 0.2000, 1.0000]])
    """
    if x.dtype == torch.int64:
        return x
    return x.to(dtype).div_(255) if x.dtype == torch.uint8 else x.to(dtype)


def stored_like(x: Tensor, stored: torch.dtype, dtype: torch.dtype) -> Tensor:
    """Convert integers to how a training set stores them.

    Only there is it known whether they are token ids or numbers like others.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        The rows, in any dtype.
    stored : torch.dtype
        That of the training set, as :func:`as_inputs` takes it.
    dtype : torch.dtype
        What the network computes in.

    Returns
    -------
    Tensor of shape (n, ...)
        Images of bytes, whose values are brightness, as they are; other integers as
        the training set stores them, if that is possible; everything else in `dtype`.

    Examples
    --------
    >>> import torch
    >>> rows = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    >>> as_inputs(stored_like(rows, torch.float64, torch.float32))
    tensor([[  0.,  51., 255.]])
    """
    if x.dtype == torch.uint8 and x.ndim == _IMAGE_AXES:
        return x
    if not x.is_floating_point() and not stored.is_floating_point:
        is_same = x.to(stored) == x
        if is_same.all():
            return x.to(stored)
    return x.to(dtype)


def n_batches(n_rows: int, batch_size: int) -> int:
    """Return how many mini-batches there are in an epoch; the last may be smaller.

    Parameters
    ----------
    n_rows, batch_size : int
        Rows to learn, and rows of a mini-batch.

    Returns
    -------
    int
        Their number.
    """
    return -(-n_rows // batch_size)


def rows_at_a_time(x: Tensor) -> int:
    """Return how many rows to evaluate at once.

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
    (1024, 170)
    """
    return max(1, min(_MOST_ROWS, _MOST_NUMBERS // max(1, x.shape[1:].numel())))


class Batch(tuple[Tensor, Tensor]):
    """A mini-batch: the pair (inputs, outputs) that skorch expects, and weights.

    Parameters
    ----------
    x : Tensor of shape (n_b, ...)
        Inputs.
    y : Tensor of shape (n_b, ...)
        Outputs as the loss expects them.
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
        Mean of the weights before they were scaled to mean 1: how many rows a row
        stands for.
    device : torch.device, optional
        Where the network is, if not where `x` is; batches of `x` are sent there.
    dtype : torch.dtype, optional
        What the network computes in, if not the dtype of `x`; see :func:`as_inputs`.

    Attributes
    ----------
    copies : bool
        Whether to hand out only copies, because the network may modify its inputs in
        place.
    """

    copies = False

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        weight: Tensor | None = None,
        mean_weight: float = 1.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.x, self.y, self.weight = x, y, weight
        self.mean_weight = mean_weight
        self.device, self.dtype = device or x.device, dtype or x.dtype

    def inputs(self, x: Tensor) -> Tensor:
        """Prepare some rows for the network.

        Parameters
        ----------
        x : Tensor of shape (m, ...)
            Rows as they are stored.

        Returns
        -------
        Tensor of shape (m, ...)
            The rows on the network's device, in the dtype that it reads.
        """
        prepared = as_inputs(x.to(self.device), self.dtype)
        return prepared.clone() if self.copies and prepared is x else prepared

    def outputs_of(self, module: nn.Module) -> Tensor:
        """Return what a network makes of all rows, some at a time.

        Parameters
        ----------
        module : nn.Module
            The network, in evaluation mode.

        Returns
        -------
        Tensor of shape (n, ...)
            Its outputs, which need no gradient.
        """
        parts = torch.split(self.x, rows_at_a_time(self.x))
        with torch.no_grad():
            return torch.cat([module(self.inputs(part)) for part in parts])

    @property
    def X(self) -> Tensor:  # noqa: N802
        """The inputs, under the name that skorch's callbacks use."""
        return self.x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        weight = None if self.weight is None else self.weight[index]
        return Batch(self.inputs(self.x[index]), self.y[index], weight)


class MiniBatches:
    """One epoch of mini-batches, redrawn whenever it is iterated over.

    Parameters
    ----------
    data : TensorData
        The rows to draw from.
    batch_size : int
        Rows of a batch; the last one may be smaller.  If one batch holds all rows, they
        are in their order, and not copied unless `data` needs it.
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
        return n_batches(len(self.data), self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        data, n = self.data, len(self.data)
        if self.batch_size >= n:
            yield Batch(data.inputs(data.x), data.y, data.weight)
            return
        if self.generator is None:
            for start in range(0, n, self.batch_size):
                yield data[start : start + self.batch_size]
            return
        order = torch.randperm(n, generator=self.generator, device="cpu")
        order = order.to(data.x.device)
        for index in torch.split(order, self.batch_size):
            yield data[index]
