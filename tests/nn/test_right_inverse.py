"""Targets that the solves turn into the weights given."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sktarget.nn import TargetSpace
from tests.helpers import Residual, assert_all_close, normal, perceptron, seeded

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "dense": (perceptron(3, 8, 2), (40, 3)),
    "no bias": (nn.Linear(5, 2, bias=False), (40, 5)),
    "wide": (perceptron(100, 70, 2), (300, 100)),
    "residual": (Residual(3, 5, 2, heads=2), (40, 3)),
    "same convolutions": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
        (300, 2, 8, 8),
    ),
    "strides and groups": (
        nn.Sequential(
            nn.Conv1d(4, 6, 5, stride=2, groups=2), nn.Tanh(), nn.Conv1d(6, 3, 2)
        ),
        (40, 4, 15),
    ),
    "rows with time": (nn.Linear(4, 3), (10, 6, 4)),
}
with_networks = pytest.mark.parametrize("name", NETWORKS)


def start(name: str, untangling: str, lam: float) -> tuple[nn.Module, Tensor, Any]:
    network, shape = NETWORKS[name]
    module, fixed = seeded(network).double(), normal(*shape)
    return (
        module,
        fixed,
        TargetSpace(module, fixed, lam, untangling, keep_weights=True),
    )


@with_networks
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("lam", [0.0, 1e-3, 10.0, 1e3])
def test_weights_given_are_kept(name: str, untangling: str, lam: float) -> None:
    module, _, net = start(name, untangling, lam)
    realised = net.realise()
    assert_all_close(realised.parameters(), module.parameters(), 1e-6)
    if lam > 1:
        sums = TargetSpace(module, net.fixed_batch, lam, untangling).realise()
        pairs = zip(sums.parameters(), module.parameters(), strict=True)
        assert max((a - b).abs().max().item() for a, b in pairs) > 1e-3


def test_weights_of_groups_of_any_scale_are_kept() -> None:
    fixed = normal(50, 2, 9) * torch.tensor([1e4, 1e-2], dtype=torch.float64)[:, None]
    module = seeded(nn.Conv1d(2, 2, 1, groups=2, bias=False)).double()
    net = TargetSpace(module, fixed, lam=1e-3, keep_weights=True)
    torch.testing.assert_close(net.realise().weight, module.weight, rtol=1e-4, atol=0)


@with_networks
@pytest.mark.parametrize("mode", [True, False])
def test_passes_in_training_begin_where_the_module_is(name: str, mode: bool) -> None:
    network, shape = NETWORKS[name]
    module, x = seeded(network).double().train(mode), normal(*shape, seed=1)
    net = TargetSpace(module, normal(*shape), 3.0, keep_weights=True)
    expected = module(x) if name == "residual" else (module(x),)
    for _ in range(2):
        found = net(x) if name == "residual" else (net(x),)
        assert_all_close(found, expected, 1e-6)
        net.train()


def test_normal_equations_hold() -> None:
    module, fixed, net = start("dense", "scu", 5.0)
    a = np.hstack([np.ones((40, 1)), fixed.numpy()])
    for layer, linear in zip(
        net.target_layers().values(), [module[0], module[2]], strict=True
    ):
        t = layer.targets.detach().numpy()
        w = np.vstack([linear.bias.detach(), linear.weight.detach().T])
        left, right = a.T @ t, a.T @ a @ w + 5.0 * w
        np.testing.assert_allclose(left, right, atol=1e-6)
        # Of least norm: all of T is in the range of A.
        np.testing.assert_allclose(a @ np.linalg.pinv(a) @ t, t, atol=1e-6)
        a = np.hstack([np.ones((40, 1)), np.tanh(a @ w)])


@pytest.mark.parametrize("degenerate", ["few rows", "equal columns", "constant column"])
def test_outputs_on_the_fixed_batch_are_kept(degenerate: str) -> None:
    module, fixed = perceptron(6, 9, 2), normal(40, 6)
    if degenerate == "few rows":
        fixed = fixed[:4]
    elif degenerate == "equal columns":
        fixed[:, 3] = fixed[:, 2]
    else:
        fixed[:, 3] = 7.0
    net = TargetSpace(module, fixed, 2.0, keep_weights=True)
    assert_all_close([net.realise()(fixed)], [module(fixed)], 1e-6)


def test_single_precision() -> None:
    module = perceptron(20, 30, 3, dtype=torch.float32)
    fixed, x = normal(200, 20).float(), normal(50, 20, seed=1).float()
    net = TargetSpace(module, fixed, 8.0, keep_weights=True)
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert_all_close([net.realise()(x)], [module(x)], 1e-4)


def test_targets_stay_near_what_they_were() -> None:
    # What a solve has weakened asks for no larger targets than it came from.
    module, fixed, _ = start("wide", "scu", 0.0)
    first = TargetSpace(module, fixed, 50.0)
    again = TargetSpace(first.realise(), fixed, 50.0, keep_weights=True)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert b.norm() <= 1.001 * a.norm()


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_start_from_their_sums(kind: type, untangling: str) -> None:
    module = seeded(kind(3, 4, batch_first=True)).double()
    fixed = normal(20, 7, 3)
    plain, exact = (
        TargetSpace(module, fixed, 2.0, untangling, keep_weights=keep)
        for keep in (False, True)
    )
    assert_all_close(exact.parameters(), plain.parameters(), 0)


def test_inputs_that_are_not_finite_are_explained() -> None:
    fixed = torch.full((5, 3), torch.inf)
    with pytest.raises(RuntimeError, match="layer '0' could not be solved"):
        TargetSpace(perceptron(dtype=torch.float32), fixed, 1.0, keep_weights=True)
