"""Initial targets, and where random numbers come from."""

import pytest
import torch
from torch import Tensor, nn

from sktarget.architectures import DenseNetwork
from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from tests.helpers import (
    Residual,
    assert_all_close,
    normal,
    perceptron,
    seeded,
    targets_of,
)


def network() -> TargetSpace:
    return TargetSpace(perceptron(), normal(20, 3), 0.1)


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_targets_give_the_weights_back(untangling: str) -> None:
    module = seeded(Residual(3, 5, 2, heads=2)).double()
    errors = []
    for lam in (1.0, 1e-3, 1e-6, 1e-12):
        realised = TargetSpace(module, normal(60, 3), lam, untangling).realise()
        pairs = zip(realised.parameters(), module.parameters(), strict=True)
        errors.append(max((a - b).abs().max().item() for a, b in pairs))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ValueError, match=f"positive and finite, got {scale}"):
        TargetSpace(nn.Linear(3, 2), torch.zeros(5, 3)).reset_targets(scale)


def test_drawn_targets_are_truncated_normal() -> None:
    module = nn.Linear(3, 200).double()
    net = TargetSpace(module, normal(100, 3)).reset_targets(
        0.5, project=False, generator=generator()
    )
    (t,) = targets_of(net)
    assert t.abs().max() <= 1.0
    assert t.abs().max() > 0.99
    assert abs(t.mean()) < 0.02
    # Cut off at 2σ, the deviation is 0.88 σ.
    assert abs(t.std() - 0.5 * 0.8796) < 0.01


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("n_fixed", [4, 40], ids=["dual", "primal"])
def test_projected_targets_can_be_met(untangling: str, n_fixed: int) -> None:
    fixed = normal(n_fixed, 3)
    net = TargetSpace(perceptron(), fixed, 1e-10, untangling)
    net.reset_targets(generator=generator())
    projected = targets_of(net)
    sums: list[Tensor] = []
    realised = net.realise()
    for layer in (realised[0], realised[2]):
        layer.register_forward_hook(lambda *args: sums.append(args[2]))
    realised(fixed)
    assert_all_close(sums, projected, 1e-6)
    raw = targets_of(net.reset_targets(project=False, generator=generator()))
    if n_fixed == 40:
        assert all(
            (a - b).abs().max() > 0.1 for a, b in zip(raw, projected, strict=True)
        )


@pytest.mark.parametrize("project", [False, True])
def test_drawn_targets_follow_from_the_generator(project: bool) -> None:
    first = targets_of(network().reset_targets(project=project, generator=generator()))
    again = network().eval()
    again.reset_targets(project=project, generator=generator())
    assert_all_close(targets_of(again), first, 0)
    again.reset_targets(project=project, generator=generator().manual_seed(1))
    assert (targets_of(again)[0] - first[0]).abs().max() > 0.1
    twice = targets_of(
        network().reset_targets(2.0, project=project, generator=generator())
    )
    assert_all_close(twice[:1], [2 * first[0]], 1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_dropout_differs_between_fixed_batch_and_batch(shared: bool) -> None:
    seen: list[Tensor] = []
    module = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 2))
    module[1].register_forward_hook(lambda *args: seen.append(args[2] == 0))
    fixed = normal(20, 3, dtype=torch.float32)
    net = TargetSpace(module, fixed, 0.1)
    seen.clear()
    assert net(fixed if shared else fixed.clone()).shape == (20, 2)
    (dropped,) = seen
    on_fixed, on_batch = dropped[:20], dropped[20:]
    assert 0.4 < on_fixed.float().mean() < 0.6
    assert 0.4 < on_batch.float().mean() < 0.6
    assert 0.4 < (on_fixed == on_batch).float().mean() < 0.6
    net.eval()(fixed)
    assert not seen[-1].any()


@pytest.mark.usefixtures("global_state_untouched")
def test_global_state() -> None:
    generator = torch.Generator().manual_seed(0)
    module = DenseNetwork(3, (6, 4), 2, "tanh", dropout=0.5, generator=generator)
    net = TargetSpace(module, normal(10, 3, dtype=torch.float32))
    net.reset_targets(generator=generator)
    net.module.dropout.generator = generator
    x = normal(4, 3, dtype=torch.float32)
    net(x).sum().backward()
    net.eval()(x)
    net.realise()


def test_targets_that_cannot_be_projected_leave_the_others_in_place() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    net = TargetSpace(module, normal(20, 3).float(), 0.1)
    before = [targets.detach().clone() for targets in net.parameters()]
    with pytest.raises(FactorisationError, match="could not be solved"):
        net.reset_targets(1e30)
    for kept, targets in zip(before, net.parameters(), strict=True):
        assert torch.equal(kept, targets)
