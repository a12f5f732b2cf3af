"""Batch normalisation beside targets: whose statistics count where."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from tests.helpers import normal, seeded


def batches(n: int) -> list[Tensor]:
    """Return batches that are distributed otherwise than the fixed one."""
    generator = torch.Generator().manual_seed(1)
    options: Any = {"dtype": torch.float64, "generator": generator}
    return [3 + 2 * torch.randn(12, 4, **options) for _ in range(n)]


def network() -> TargetSpace:
    """Return a network with two normalisations, the first of them of its inputs."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.BatchNorm1d(4),
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.Tanh(),
        nn.Linear(6, 2),
    )
    fixed = torch.randn(30, 4, dtype=torch.float64)
    return TargetSpace(module.double(), fixed, lam=0.1)


def train(net: TargetSpace, xs: list[Tensor]) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for x in xs:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def weights_in_training(net: TargetSpace) -> list[Tensor]:
    assert net.training
    kept = copy.deepcopy(net)  # its statistics move on
    return [w.detach() for w in kept.forward_with_weights(batches(1)[0])[1]]


def weights_of(module: nn.Module) -> list[Tensor]:
    layers = (m for m in module.modules() if isinstance(m, nn.Linear))
    return [layer.weight.detach().T for layer in layers]


def test_evaluation_has_the_weights_of_training() -> None:
    net = network()
    train(net, batches(5))
    wanted = weights_in_training(net)
    torch.testing.assert_close(weights_of(net.realise()), wanted)  # not yet switched
    net.eval()
    torch.testing.assert_close(weights_of(net.realise()), wanted)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with torch.no_grad():
            next(iter(other.target_layers().values())).targets.mul_(1)  # solve anew
        torch.testing.assert_close(weights_of(other.realise()), wanted)


def test_running_statistics_are_of_the_batches_alone() -> None:
    net, plain = network(), nn.BatchNorm1d(4).double()
    xs = batches(5)
    train(net, xs)
    for x in xs:
        plain(x)
    norm = net.module[0]
    assert int(norm.num_batches_tracked) == 5
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    net.choose_lam().reset_targets().eval()
    net.realise()
    assert int(norm.num_batches_tracked) == 5
    assert norm.track_running_stats
    assert not norm.training


def test_evaluation_normalises_batches_by_running_statistics() -> None:
    net = network()
    train(net, batches(40))
    x = batches(1)[0]
    realised = net.eval().realise()
    torch.testing.assert_close(net(x), realised(x))
    torch.testing.assert_close(net(x[:1]), realised(x)[:1])
    # The statistics have had time to settle, so both kinds are about the same.
    assert F.mse_loss(net(x), net.train()(x)) < 0.1 * net(x).var()


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_evaluation_of_the_fixed_batch_is_that_of_equal_rows(norm: str) -> None:
    if norm == "batch":
        net = network()
        train(net, [3 * x + 1 for x in batches(5)])
        x = net.fixed_batch
    else:
        x = normal(6, 2, 9)
        layers = nn.Conv1d(2, 3, 3), nn.InstanceNorm1d(3, track_running_stats=True)
        net = TargetSpace(seeded(nn.Sequential(*layers)).double(), x, 0.1).train()
        for _ in range(5):
            net(3 * normal(6, 2, 9) + 1)
    net.eval()
    wanted, weights = net.forward_with_weights(x.clone())
    found, same = net.forward_with_weights(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(same, weights)
    torch.testing.assert_close(found, net.realise()(x))
    torch.testing.assert_close(net.forward_and_evaluate(x, x)[2], wanted)


def test_one_pass_for_both_is_tracked_once() -> None:
    net = network()
    net(net.fixed_batch)
    assert int(net.module[0].num_batches_tracked) == 1


def test_frozen_statistics_count_everywhere() -> None:
    net = network()
    train(net, batches(5))
    for norm in (net.module[0], net.module[2]):
        norm.eval()
    x = batches(1)[0]
    learnt = net(x)
    assert net.training
    torch.testing.assert_close(net.eval()(x), learnt)
    assert int(net.module[0].num_batches_tracked) == 5


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_images(norm: type[nn.Module]) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), norm(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)
    )
    net = TargetSpace(module.double(), torch.randn(60, 1, 6, 6).double(), lam=0.1)
    x = torch.randn(8, 1, 6, 6).double()
    wanted = copy.deepcopy(net).forward_with_weights(x)[1]
    net(x)
    found = net.eval().realise()
    torch.testing.assert_close(found[4].weight.T, wanted[1].detach())
    assert int(found[1].num_batches_tracked) == 1


def shifted(module: nn.Module) -> nn.Module:
    """Give normalisations running statistics that are not those of X̄."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.fill_(0.7)
            part.running_var.fill_(2.5)
    return module


@pytest.mark.parametrize("training", [True, False])
def test_given_weights_are_kept(training: bool) -> None:
    given = shifted(network().realise()).train(training)
    fixed = network().fixed_batch
    net = TargetSpace(given, fixed, lam=0.3, keep_weights=True).eval()
    torch.testing.assert_close(weights_of(net.realise()), weights_of(given))
    torch.testing.assert_close(net(fixed), given.eval()(fixed))


def test_projected_targets_can_be_met() -> None:
    net = network()
    shifted(net.module)
    net.lam = 0.0
    net.reset_targets(generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    last = list(net.target_layers().values())[-1]
    last.register_forward_hook(lambda _, args, sums: seen.append(sums.detach()))
    net(batches(1)[0])
    torch.testing.assert_close(seen[0], last.targets.detach())


def test_norms_are_as_they_were_after_an_error() -> None:
    net = network()
    with torch.no_grad():
        next(iter(net.target_layers().values())).targets.fill_(torch.nan)
    with pytest.raises(FactorisationError, match="could not be solved"):
        net(batches(1)[0])
    for norm in (net.module[0], net.module[2]):
        assert norm.training
        assert norm.track_running_stats


def test_norms_that_were_exchanged_leave_no_trace_either() -> None:
    net = network()
    nn.SyncBatchNorm.convert_sync_batchnorm(net)
    net(batches(1)[0])
    assert int(net.module[0].num_batches_tracked) == 1
