"""Recurrent networks for the tests."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sktarget.nn import TargetSpace

KINDS: dict[str, Any] = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_stack = pytest.mark.parametrize(
    ("num_layers", "bidirectional"), [(1, False), (1, True), (2, False), (3, True)]
)


def recurrent(kind: str, *sizes: int, **options: Any) -> nn.RNNBase:
    make, more = KINDS[kind]
    layer: nn.RNNBase = make(
        *sizes, **{"batch_first": True, "dtype": torch.float64, **more, **options}
    )
    return layer


class Network(nn.Module):
    """A recurrent module and a dense exit layer, on all steps."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.rnn = recurrent(kind, 2, 4, **options)
        width = 4 * (2 if self.rnn.bidirectional else 1)
        self.exit = nn.Linear(width, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.rnn(x)[0])


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def wrap(
    module: nn.Module,
    fixed: Tensor,
    lam: float = 0.1,
    untangling: str = "scu",
    anchor: str = "zero",
) -> TargetSpace:
    """Wrap a module with random, unprojected targets: far from any that can be met."""
    net = TargetSpace(module, fixed, lam, untangling, anchor=anchor)
    return net.reset_targets(1.0, project=False)


def grouped(net: TargetSpace, width: int) -> list[list[np.ndarray]]:
    """Group the targets of the recurrent module by layer."""
    layers = net.target_layers()
    flat = [m.targets.detach().numpy() for name, m in layers.items() if name != "exit"]
    return [flat[k : k + width] for k in range(0, len(flat), width)]


def leaves(output: Any) -> list[Tensor]:
    outputs, last = output
    return [outputs, *(last if isinstance(last, tuple) else [last])]


def has_right_gradients(net: TargetSpace, x: Tensor) -> bool:
    """Compare gradients of all targets and of the inputs with finite differences."""
    names = [name for name, _ in net.named_parameters()]

    def loss(x: Tensor, *targets: Tensor) -> Tensor:
        given = dict(zip(names, targets, strict=True))
        out: Tensor = torch.func.functional_call(net, given, (x,))
        return out.square().sum()

    targets = tuple(p.detach().clone().requires_grad_() for p in net.parameters())
    inputs = (x.detach().requires_grad_(), *targets)
    return torch.autograd.gradcheck(loss, inputs, fast_mode=True)
