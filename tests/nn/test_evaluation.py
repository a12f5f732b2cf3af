"""Whether a module stays the network it was, and what evaluation leaves behind."""

import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.architectures import DenseNetwork
from sktarget.nn import TargetSpace
from sktarget.nn._trials import never_inspects_parts


class Asking(nn.Module):
    """A network that activates what comes out of layers of a class."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.layers = nn.ModuleList(layers)

    def activates(self, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear)

    def out(self, x: Tensor) -> Any:
        return x

    def forward(self, x: Tensor) -> Any:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if self.activates(layer) and i < 2:
                x = F.relu(x)
        return self.out(x)


class AskingForMore(Asking):
    def out(self, x: Tensor) -> Any:
        return {"x": [x, None], "rows": len(x), "sum": x.sum(), "max": x.argmax(1)}


class AskingOtherwise(AskingForMore):
    def activates(self, layer: nn.Module) -> bool:
        return hasattr(layer, "out_features")


@pytest.mark.parametrize("kind", [Asking, AskingForMore])
@pytest.mark.parametrize("training", [True, False])
def test_other_networks_are_refused(kind: type[Asking], training: bool) -> None:
    module = kind().train(training)
    with pytest.raises(RuntimeError, match=r"other outputs .* than without.* freeze"):
        TargetSpace(module, torch.randn(30, 3))
    assert module.training is training


def test_other_networks_may_be_put_right() -> None:
    x = torch.randn(30, 3)
    module = AskingOtherwise()
    net = TargetSpace(module, x, lam=1e-6, keep_weights=True).eval()
    torch.testing.assert_close(net(x)["x"][0], module(x)["x"][0], rtol=0, atol=1e-3)
    frozen = Asking()
    frozen.layers[:2].requires_grad_(False)
    assert list(TargetSpace(frozen, x).target_layers()) == ["layers.2"]


class Noisy(Asking):
    def activates(self, layer: nn.Module) -> bool:
        return False

    def out(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Touchy(Noisy):
    """A network that shows rounding."""

    def out(self, x: Tensor) -> Tensor:
        return (1e8 * x).sin()


@pytest.mark.parametrize("kind", [Noisy, Touchy])
def test_what_cannot_be_compared_is_not_refused(kind: type[Asking]) -> None:
    net = TargetSpace(kind(), torch.randn(30, 3))
    assert len(net.target_layers()) == 3


def test_comparing_leaves_the_module_as_it_was() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.runs = 0

        def forward(self, x: Tensor) -> Any:
            self.runs += 1
            return self.layer(x)

    module = Keeping().train()
    TargetSpace(module, torch.randn(9, 3))
    assert module.runs == 0
    assert module.training


def test_layers_with_a_forward_of_their_own_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    own: Any = module[0]

    def doubled(self: nn.Linear, x: Tensor) -> Tensor:
        return 2 * F.linear(x, self.weight, self.bias)

    own.forward = types.MethodType(doubled, own)
    x = torch.randn(9, 3)
    with pytest.warns(UserWarning, match=r"0 \(Linear, whose forward") as record:
        net = TargetSpace(module, x, lam=0.0)
    assert len(record) == 1
    assert list(net.target_layers()) == ["2"]
    torch.testing.assert_close(net.eval()(x), module(x), rtol=0, atol=1e-3)


class Merging(nn.Module):
    """A frozen layer with an addition of low rank, merged into it in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3).requires_grad_(False)
        self.addition = nn.Parameter(torch.randn(3))
        self.merged = False

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if self.merged is mode:
            sign = -1 if mode else 1
            with torch.no_grad():
                self.layer.weight += sign * self.addition.outer(self.addition)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Any:
        out = self.layer(x)
        if not self.merged:
            out = out + (x @ self.addition)[:, None] * self.addition
        return out


@pytest.mark.parametrize("by", ["realise", "choose_lam", "reset_targets"])
def test_modules_go_back_to_training_as_they_went(by: str) -> None:
    module = nn.Sequential(Merging(), nn.Linear(3, 5), nn.Dropout(), nn.Linear(5, 2))
    net = TargetSpace(module, torch.randn(20, 3), lam=0.1).train()
    net.module[2].eval()
    assert not net.module[0].merged
    getattr(net, by)()
    assert not net.module[0].merged
    assert [part.training for part in net.module] == [True, True, False, True]
    net(torch.randn(4, 3)).sum().backward()
    assert net.module[0].addition.grad is not None
    x, merged = torch.randn(4, 3), net.eval().module[0].merged
    assert merged
    torch.testing.assert_close(net(x), net.realise()(x))


class Keeping(nn.Module):
    """A network that keeps what has gone through it, in one mode or in both."""

    def __init__(self, *modes: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.modes = modes
        self.x: Any = None
        self.kept: Any = {}

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.first(x))
        if self.training in self.modes:
            self.x, self.kept = x, {"all": [x, x[1:], h], "h": h}
        return self.last(h)


@pytest.mark.parametrize("modes", [(True,), (False,), (True, False)])
@pytest.mark.parametrize("trained", [True, False])
def test_kept_activations(modes: tuple[bool, ...], trained: bool) -> None:
    fixed, x = torch.randn(9, 3), torch.randn(4, 3)
    module = Keeping(*modes)
    module(x), module.eval()(x)
    assert not module.kept["h"].is_leaf
    net = TargetSpace(module, fixed).train(trained)
    net(x)
    realised = net.realise()
    before, kept = realised.x, realised.kept
    tensors = [t for t in (before, *kept["all"], kept["h"]) if t is not None]
    assert all(t.is_leaf for t in tensors)
    assert not any(len(t) >= 8 and t.shape[1] == 3 for t in tensors)
    assert torch.equal(kept["h"], net.module.kept["h"])
    assert kept["h"] is kept["all"][2]
    if trained:
        assert before is None
        assert kept["all"][:2] == [None, None]
    torch.testing.assert_close(realised(x), net.eval()(x))
    net.realise()


def test_kept_copies_of_the_fixed_batch_are_left_out() -> None:
    module = nn.Sequential(nn.Dropout(0.1, inplace=True), Keeping(True, False))
    net = TargetSpace(module, torch.randn(9, 3))
    net(torch.randn(4, 3))
    assert net.realise()[1].x is None
    assert net.realise()[1].kept["h"].shape == (9, 4)


def test_training_in_evaluation_mode_is_noticed() -> None:
    layers = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)
    net = TargetSpace(nn.Sequential(*layers).eval(), torch.randn(20, 3))
    assert not net.training
    optimizer, x = torch.optim.SGD(net.parameters(), 0.1), torch.randn(5, 3)
    net(x).square().sum().backward()
    optimizer.step()
    with pytest.warns(UserWarning, match=r"evaluation mode .* Call net\.train\(\)"):
        net(x)
    net(x)  # Nothing has changed since.
    net.train()(x).square().sum().backward()
    optimizer.step()
    net.eval()(x)  # Targets have changed as well.


def test_deliberate_changes_in_evaluation_mode_are_none_of_training() -> None:
    layers = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)
    net = TargetSpace(nn.Sequential(*layers), torch.randn(20, 3)).eval()
    x = torch.randn(5, 3)
    net.load_state_dict(
        TargetSpace(nn.Sequential(*layers), net.fixed_batch).state_dict()
    )
    net(x)
    with torch.no_grad():
        net.module[1].weight.mul_(2)
        net(x)  # Nothing is learnt here.
    for layer in net.target_layers().values():
        layer.targets.requires_grad_(False)
    optimizer = torch.optim.SGD([net.module[1].weight], 0.1)
    net(x).square().sum().backward()
    optimizer.step()
    net(x)  # The targets are not to be learnt.


class Relay(nn.Sequential):
    """A container that might do anything."""


@pytest.mark.parametrize(
    ("module", "known"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Tanh(), nn.Dropout())), True),
        (nn.LSTM(2, 3), True),
        (DenseNetwork(2, (3, 3), 2, "relu", dropout=0.1), True),
        (Relay(nn.Linear(2, 3)), False),
        (Asking(), False),
        (nn.Sequential(nn.Linear(2, 3), Relay()), False),
        (nn.MultiheadAttention(4, 2), False),
    ],
)
def test_only_what_may_ask_for_classes_is_tried(module: nn.Module, known: bool) -> None:
    assert never_inspects_parts(module) is known


def test_hooks_may_ask_for_classes() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    module[1].register_forward_hook(lambda *_: None)
    assert not never_inspects_parts(module)
