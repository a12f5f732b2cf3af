"""Networks and comparisons that several test modules share."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch import Tensor, nn

from sktarget.linalg import _products
from sktarget.nn import TargetSpace
from tests.reference import Array, Network

needs_onednn = pytest.mark.skipif(
    _products._find_onednn() is None, reason="needs vectors of 512 bits"
)

ACTIVATIONS: dict[str, nn.Module] = {
    "tanh": nn.Tanh(),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "logistic": nn.Sigmoid(),
    "identity": nn.Identity(),
}


class PlainDense(nn.Module):
    """The torch network that an entry of the reference describes."""

    def __init__(self, network: Network, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleList(
            nn.Linear(n_in - network.bias, n_out, bias=network.bias, dtype=dtype)
            for n_in, n_out in network.weight_shapes()
        )
        self.g = ACTIVATIONS[network.activation]

    def forward(self, x: Tensor) -> Any:
        activations = [x]
        for k, layer in enumerate(self.layers):
            fed = [activations[i] for i in self.network.sources(k)]
            sums = layer(torch.cat(fed, 1))
            activations.append(self.g(sums))
        return sums


class Residual(nn.Module):
    """Blocks that add to what they are given, with a head of its own for each sum."""

    def __init__(self, n_in: int, width: int, n_out: int, *, heads: int = 1) -> None:
        super().__init__()
        self.stem = nn.Linear(n_in, width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width, bias=False)
        self.heads = nn.ModuleList(nn.Linear(width, n_out) for _ in range(heads))

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.stem(x))
        x = x + self.outer(torch.tanh(self.inner(x)))
        outputs = tuple(head(x) for head in self.heads)
        return outputs if len(outputs) > 1 else outputs[0]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw standard normal numbers, the same ones for the same arguments."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def perceptron(
    n_in: int = 3,
    width: int = 6,
    n_out: int = 2,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    act: nn.Module | None = None,
) -> nn.Sequential:
    """Make a network of two dense layers, with weights that follow from the seed."""
    module = nn.Sequential(
        nn.Linear(n_in, width), act or nn.Tanh(), nn.Linear(width, n_out)
    )
    return seeded(module, seed).to(dtype)


def seeded(module: nn.Module, seed: int = 0) -> Any:
    """Draw all weights anew, with the deviation of Glorot's rule."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
    return module


def set_targets(net: TargetSpace, targets: Sequence[Array | Tensor]) -> None:
    """Give the layers their targets, in the order in which they run."""
    with torch.no_grad():
        layers = net.target_layers().values()
        for layer, t in zip(layers, targets, strict=True):
            layer.targets.copy_(torch.as_tensor(t))


def targets_of(net: TargetSpace) -> list[Tensor]:
    """Copy the targets, in the order in which the layers run."""
    return [layer.targets.detach().clone() for layer in net.target_layers().values()]


def move_targets(net: TargetSpace, seed: int = 9) -> None:
    """Shift the targets at random, so that they cannot be met."""
    moved = [t + normal(*t.shape, seed=seed) for t in targets_of(net)]
    set_targets(net, moved)


def gradients(net: TargetSpace) -> list[Tensor]:
    """Collect the gradients of the targets, and leave none behind."""
    collected = []
    for layer in net.target_layers().values():
        assert layer.targets.grad is not None
        collected.append(layer.targets.grad)
    net.zero_grad()
    return collected


def assert_all_close(
    actual: Iterable[Tensor | NDArray[Any]],
    expected: Iterable[Tensor | NDArray[Any]],
    tolerance: float,
) -> None:
    """Compare pair by pair, to a relative or absolute tolerance."""
    for a, b in zip(actual, expected, strict=True):
        a, b = (np.asarray(torch.as_tensor(value).detach()) for value in (a, b))
        assert_allclose(a, b, rtol=tolerance, atol=tolerance)
