"""A loss and comparisons that the tests of the sister algorithms share."""

from collections.abc import Iterable
from typing import Any

import torch
from numpy.testing import assert_allclose
from torch import Tensor
from torch.nn import functional as F

from sktarget.propagation._losses import BatchLoss


def cross_entropy_of(labels: Tensor) -> BatchLoss:
    """Make the mean cross-entropy of rows with these labels."""

    def cross_entropy(outputs: Tensor, weight: Tensor | None) -> Tensor:
        losses = F.cross_entropy(outputs, labels, reduction="none")
        return (losses if weight is None else losses * weight).mean()

    return cross_entropy


def assert_close(a: Any, b: Any, rtol: float = 1e-12) -> None:
    """Compare to a share of the largest number of all."""
    a, b = torch.as_tensor(a).detach(), torch.as_tensor(b).detach()
    assert_allclose(a, b, rtol=0, atol=rtol * float(b.abs().max()))


def assert_each_close(
    a: Iterable[Tensor], b: Iterable[Tensor], rtol: float = 1e-12
) -> None:
    """Compare pair by pair, each to a share of its largest number."""
    for one, other in zip(a, b, strict=True):
        assert_close(one, other, rtol)
