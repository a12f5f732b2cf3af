"""Which layers learn by targets, which keep their weights, and in what order."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sktarget.nn import TargetSpace
from tests.helpers import (
    assert_all_close,
    move_targets,
    normal,
    perceptron,
    targets_of,
)


@pytest.mark.parametrize("depth", [1, 3])
def test_targets_are_the_only_parameters(depth: int) -> None:
    module = nn.Sequential(*(nn.Linear(3, 3) for _ in range(depth)))
    net = TargetSpace(module, normal(10, 3, dtype=torch.float32))
    assert [p.shape for p in net.parameters()] == [(10, 3)] * depth
    assert [(10, 3)] * depth == [t.shape for t in targets_of(net)]
    assert list(net.target_layers()) == [str(k) for k in range(depth)]


def test_cascade_follows_execution() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Any:
            return self.last(torch.tanh(self.first(x)))

    net = TargetSpace(Backwards(), normal(10, 3, dtype=torch.float32))
    assert list(net.target_layers()) == ["first", "last"]


def test_given_module_is_left_alone() -> None:
    module = perceptron()
    before = [p.clone() for p in module.parameters()]
    net = TargetSpace(module, normal(10, 3))
    move_targets(net)
    net(normal(4, 3)).sum().backward()
    assert_all_close(module.parameters(), before, 0)
    assert all(p.grad is None for p in module.parameters())
    assert type(module[0]) is nn.Linear


def test_frozen_layers_keep_their_weights() -> None:
    module = perceptron()
    module[0].requires_grad_(False)
    net = TargetSpace(module, normal(10, 3))
    assert list(net.target_layers()) == ["2"]
    net(normal(4, 3)).sum().backward()
    assert net.module[0].weight.grad is None
    assert_all_close(net.realise()[0].parameters(), module[0].parameters(), 0)


def test_layers_with_weights_of_their_own_learn_them() -> None:
    module = nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.PReLU(), nn.Linear(4, 2)
    )
    net = TargetSpace(module.double(), normal(10, 3))
    net(normal(6, 3)).square().sum().backward()
    names = {name for name, p in net.named_parameters() if p.grad.any()}
    assert names == {f"module.{n}" for n in ("0.targets", "3.targets")} | {
        f"module.{n}" for n in ("1.weight", "1.bias", "2.weight")
    }


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.pair = nn.Linear(3, 4), nn.Bilinear(4, 4, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.dense(x)
        return self.pair(x, x)


def test_unregistered_layer_is_named_once() -> None:
    with pytest.warns(UserWarning, match="keep their weights") as record:
        net = TargetSpace(Pair().double(), normal(10, 3))
    assert len(record) == 1
    assert "pair (Bilinear, " in str(record[0].message)
    assert record[0].filename == __file__
    net(normal(4, 3)).sum().backward()
    assert net.module.pair.weight.grad.any()
    assert type(net.realise().pair) is nn.Bilinear


def test_layer_that_does_not_run_is_named() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            return self.used(x)

    module = Spare()
    with pytest.warns(UserWarning, match="'spare' do not run on the fixed") as record:
        net = TargetSpace(module, normal(10, 3, dtype=torch.float32))
    assert len(record) == 1
    assert record[0].filename == __file__
    assert list(net.target_layers()) == ["used"]
    assert_all_close(net.realise().spare.parameters(), module.spare.parameters(), 0)


@pytest.mark.parametrize("training", [True, False])
def test_layer_that_does_not_run_keeps_its_mode(training: bool) -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(3, 2)
            self.spare = nn.LSTM(3, 2, num_layers=2, dropout=0.5, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.used(x) if x.ndim == 2 else self.spare(x)[0]

    module = Sometimes().train(training)
    with pytest.warns(UserWarning, match="'spare' do not run"):
        net = TargetSpace(module, normal(10, 3, dtype=torch.float32))
    assert net.module.spare.training == training
    x = normal(2, 5, 3, dtype=torch.float32)
    assert torch.equal(net(x), net(x)) != training


def test_layer_that_does_not_run_keeps_its_hooks() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            return self.spare(x) if len(x) == 1 else self.used(x)

    module, seen = Sometimes(), []
    module.spare.register_forward_hook(lambda *_: seen.append("spare"))
    with pytest.warns(UserWarning, match="'spare' do not run"):
        net = TargetSpace(module, normal(10, 3, dtype=torch.float32))
    net.eval()(normal(1, 3, dtype=torch.float32))
    assert seen == ["spare"]


def test_layer_used_twice() -> None:
    layer = nn.Linear(3, 3)
    module = nn.Sequential(layer, nn.Tanh(), layer)
    with pytest.raises(
        RuntimeError, match=r"layer '0' runs twice .*parameterization='weights'"
    ):
        TargetSpace(module, normal(10, 3, dtype=torch.float32))
    assert type(module[0]) is nn.Linear


class Shared(nn.Module):
    """Uses one layer twice, and starts a recurrent one from a state."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"first": nn.Linear(3, 4), "twice": nn.Linear(4, 4)}
        )
        self.decoder = nn.GRU(4, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        h = self.encoder["first"](x).tanh()
        h = self.encoder["twice"](self.encoder["twice"](h).tanh())
        return self.last(self.decoder(h[:, None], h[None].contiguous())[1][0])


def test_parts_that_are_named_learn_in_weight_space() -> None:
    module, names = Shared().double(), ["encoder.twice", "decoder"]
    net = TargetSpace(module, normal(20, 3), 0.1, in_weight_space=names)
    assert list(net.target_layers()) == ["encoder.first", "last"]
    x = normal(5, 3, seed=1)
    net(x).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert isinstance(net.module.decoder, nn.GRU)
    torch.testing.assert_close(net.realise()(x), net.eval()(x))
    whole = TargetSpace(module, normal(20, 3), in_weight_space=["encoder", "decoder"])
    assert list(whole.target_layers()) == ["last"]


def test_errors_say_how_to_leave_parts_in_weight_space() -> None:
    module, fixed = Shared().double(), normal(20, 3)
    with pytest.raises(RuntimeError, match=r"in_weight_space=\['encoder.twice'\]"):
        TargetSpace(module, fixed)
    with pytest.raises(ValueError, match=r"starts from zero.*in_weight_space="):
        TargetSpace(module, fixed, in_weight_space=["encoder"])
    with pytest.raises(
        ValueError, match=r"'coder', which is no part.*'encoder', 'encoder.first'"
    ):
        TargetSpace(module, fixed, in_weight_space=["coder"])
    with pytest.raises(ValueError, match=r"list of names, got 'encoder'"):
        TargetSpace(module, fixed, in_weight_space="encoder")
    with pytest.raises(
        ValueError, match=r"no layer that can be learnt .*parameterization='weights'"
    ):
        TargetSpace(module, fixed, in_weight_space=["encoder", "decoder", "last"])
