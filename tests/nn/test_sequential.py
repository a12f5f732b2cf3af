"""Sequences whose activations overwrite the sums of target layers."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget._tanh import Tanh
from sktarget.architectures import DenseNetwork
from sktarget.nn import TargetSpace
from sktarget.nn._activations import activation_of
from sktarget.nn._sequential import restore_sequentials
from tests.helpers import normal

F64 = torch.float64

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "hardly leaky": lambda: nn.LeakyReLU(1e-4),
    "falling": lambda: nn.LeakyReLU(-0.5),
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "tanh by NumPy": Tanh,
    "logistic": nn.Sigmoid,
    "gelu": nn.GELU,
}


class Apart(nn.Sequential):
    """A sequence of unknown kind, which runs its modules one by one."""


def apart(module: nn.Module) -> nn.Module:
    """Copy a network with sequences that nothing is known of."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if type(part) is nn.Sequential:
            part.__class__ = Apart
    return module


def convolutions(g: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        g(),
        nn.Conv2d(3, 4, 3, padding=1),
        g(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1, groups=1),
        nn.MaxPool2d(2),
        g(),
        nn.Flatten(),
        nn.Linear(20, 6),
        g(),
        nn.Linear(6, 3),
    )


def nested(g: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), g()),
        nn.Sequential(nn.Conv2d(3, 4, 2), nn.MaxPool2d(2), g()),
        nn.Sequential(nn.Dropout(0.0), nn.Flatten()),
        nn.Sequential(nn.Linear(4, 5), g(), nn.Linear(5, 3)),
        g(),
    )


def dense(g: Callable[[], nn.Module]) -> nn.Sequential:
    hidden = [nn.Flatten(), nn.Linear(64, 7), g(), nn.Linear(7, 7), g()]
    return nn.Sequential(*hidden, nn.Dropout(0.0), nn.Linear(7, 3))


def chained(g: Callable[[], nn.Module]) -> nn.Sequential:
    """Layers in one chain, two of them without an activation, over axes of rows."""
    hidden = [nn.Linear(8, 7), g(), nn.Linear(7, 7), nn.Linear(7, 6), g()]
    return nn.Sequential(*hidden, nn.Linear(6, 3))


def train(module: nn.Module, x: Tensor, **arguments: Any) -> list[Tensor]:
    """Return outputs and all gradients, those of a penalty on the weights too."""
    net = TargetSpace(module, FIXED.to(x.dtype), **{"lam": 0.1, **arguments})
    outputs, weights = net.forward_with_weights(x)
    loss = outputs.square().sum() + sum((w**2).sum() for w in weights)
    return [outputs.detach(), *torch.autograd.grad(loss, list(net.parameters()))]


FIXED = normal(9, 1, 8, 8)
OTHERS = normal(4, 1, 8, 8, seed=1)


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("x", [FIXED, OTHERS], ids=["full batch", "mini-batch"])
@pytest.mark.parametrize("make", [convolutions, nested, dense, chained])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_sequences_give_what_their_modules_give_one_by_one(
    name: str, make: Callable[..., nn.Sequential], x: Tensor, untangling: str
) -> None:
    torch.manual_seed(1)
    module = make(ACTIVATIONS[name]).to(F64)
    together = train(module, x, untangling=untangling)
    for ours, truth in zip(
        together, train(apart(module), x, untangling=untangling), strict=True
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lam", [1e-8, 1.0])
def test_single_precision_too(lam: float) -> None:
    torch.manual_seed(1)
    module = convolutions(ACTIVATIONS["leaky_relu"])
    together = train(module, OTHERS.float(), lam=lam)
    for ours, truth in zip(
        together, train(apart(module), OTHERS.float(), lam=lam), strict=True
    ):
        torch.testing.assert_close(
            ours, truth, rtol=1e-4, atol=1e-5 * float(truth.abs().max())
        )


def bytes_kept(module: nn.Module) -> int:
    """Count the bytes kept for the backward pass, X̄ and targets left out."""
    net = TargetSpace(module, FIXED, lam=0.1)
    known = {p.untyped_storage().data_ptr() for p in (FIXED, *net.parameters())}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        net(OTHERS)
    return sum(
        x.untyped_storage().nbytes() for at, x in kept.items() if at not in known
    )


@pytest.mark.parametrize(
    ("name", "share"), [("leaky_relu", 0.6), ("tanh", 0.8), ("gelu", 1.0)]
)
def test_sums_are_not_kept_beside_activations(name: str, share: float) -> None:
    module = convolutions(ACTIVATIONS[name]).to(F64)
    assert bytes_kept(module) <= share * bytes_kept(apart(module))


def test_going_back_twice_gives_the_same() -> None:
    net = TargetSpace(convolutions(ACTIVATIONS["leaky_relu"]).to(F64), FIXED, lam=0.1)
    loss = net(OTHERS).square().sum()
    parameters = list(net.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    for ours, truth in zip(torch.autograd.grad(loss, parameters), first, strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=0)


@pytest.mark.parametrize("of", ["layer", "activation", "pooling", "everything"])
def test_hooks_see_what_they_always_see(of: str) -> None:
    module = convolutions(ACTIVATIONS["leaky_relu"]).to(F64)
    seen: dict[str, list[Tensor]] = {"together": [], "apart": []}
    for name, network in (("together", module), ("apart", apart(module))):
        net = TargetSpace(network, FIXED, lam=0.1)
        parts = {"layer": 2, "activation": 3, "pooling": 4}

        def note(_: Any, inputs: Any, out: Tensor, name: str = name) -> None:
            seen[name] += [inputs[0].clone(), out.clone()]

        if of == "everything":
            hook = nn.modules.module.register_module_forward_hook(note)
        else:
            hook = net.module[parts[of]].register_forward_hook(note)
        net(OTHERS)
        hook.remove()
    assert len(seen["together"]) == len(seen["apart"]) > 0
    for ours, truth in zip(seen["together"], seen["apart"], strict=True):
        torch.testing.assert_close(ours, truth)


class Double(nn.Module):
    """Overwrites what it is given, as torch allows after most modules."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class ReadsTwice(nn.Module):
    """Takes a sequence to pieces, and uses what is between them."""

    def __init__(self) -> None:
        super().__init__()
        parts = nn.Flatten(), nn.Linear(64, 5), nn.LeakyReLU(0.2)
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        sums = self.parts[:2](x)
        return self.parts[2](sums) + sums


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.LeakyReLU(0.2), Double()),
        nn.Sequential(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.LeakyReLU(0.2)),
            nn.Flatten(0),
            Double(),
            nn.Unflatten(0, (-1, 5)),
        ),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.LeakyReLU(0.2), Double()),
        ReadsTwice(),
    ],
    ids=["overwritten", "a view overwritten", "pooled and overwritten", "read twice"],
)
def test_others_may_overwrite_and_read(module: nn.Module) -> None:
    module = module.to(F64)
    for ours, truth in zip(
        train(module, OTHERS), train(apart(module), OTHERS), strict=True
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("x", [FIXED, OTHERS], ids=["full batch", "mini-batch"])
@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("name", ["leaky_relu", "tanh", "logistic"])
def test_dense_networks_give_what_their_modules_give_one_by_one(
    name: str, shortcuts: bool, x: Tensor, untangling: str
) -> None:
    module = DenseNetwork(64, (7, 6), 3, name, shortcuts=shortcuts, dtype=F64)
    found = []
    for as_one in (True, False):
        net = TargetSpace(module, FIXED.flatten(1), lam=0.1, untangling=untangling)
        if not as_one:
            restore_sequentials(net.module)
        full = x is FIXED
        rows = net.fixed_batch if full else x.flatten(1).clone().requires_grad_()
        outputs, weights = net.forward_with_weights(rows)
        nodes = {w.grad_fn.next_functions[0][0] for w in weights if w.grad_fn}
        assert len(nodes) == (1 if as_one else 3)
        loss = outputs.square().sum() + sum((w**2).sum() for w in weights)
        leaves = [*net.parameters(), *([] if full else [rows])]
        # Once more, because nothing that is kept may be overwritten.
        first = torch.autograd.grad(loss, leaves, retain_graph=True)
        found.append([outputs, *first, *torch.autograd.grad(loss, leaves)])
    for ours, truth in zip(*found, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("of", [0, 1, 2])
def test_dense_networks_with_a_frozen_layer(of: int, shortcuts: bool) -> None:
    module = DenseNetwork(64, (7, 6), 3, "tanh", shortcuts=shortcuts, dtype=F64)
    found = []
    for as_one in (True, False):
        net = TargetSpace(module, FIXED.flatten(1), lam=0.1)
        if not as_one:
            restore_sequentials(net.module)
        layer = list(net.target_layers().values())[of]
        layer.targets.requires_grad_(False)
        leaves = [p for p in net.parameters() if p.requires_grad]
        outputs = net(OTHERS.flatten(1))
        found.append(torch.autograd.grad(outputs.square().sum(), leaves))
    for ours, truth in zip(*found, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shortcuts", [False, True])
def test_gradients_of_weights_alone(shortcuts: bool) -> None:
    module = DenseNetwork(64, (7, 6), 3, "tanh", shortcuts=shortcuts, dtype=F64)
    for of in range(3):
        found = []
        for as_one in (True, False):
            net = TargetSpace(module, FIXED.flatten(1), lam=0.1)
            if not as_one:
                restore_sequentials(net.module)
            _, weights = net.forward_with_weights(OTHERS.flatten(1))
            loss, leaves = weights[of].square().sum(), list(net.parameters())
            # What comes after has no part in it.
            found.append(torch.autograd.grad(loss, leaves, materialize_grads=True))
        for ours, truth in zip(*found, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)


def test_hooks_within_a_dense_network() -> None:
    module = DenseNetwork(64, (7, 6), 3, "tanh", dtype=F64)
    net = TargetSpace(module, FIXED.flatten(1), lam=0.1)
    seen: list[Tensor] = []
    layer = net.module.layers[1]
    layer.register_forward_hook(lambda module, x, out: seen.append(out.clone()))
    net(OTHERS.flatten(1))
    assert [part.shape for part in seen] == [(13, 6)]
    assert float(seen[0].detach().abs().max()) > 1  # sums, not their activations


def test_dense_networks_are_plain_outside() -> None:
    module = DenseNetwork(64, (7, 6), 3, "tanh", dtype=F64)
    net = TargetSpace(module, FIXED.flatten(1), lam=0.1)
    assert "run_layers" not in vars(module)
    assert "run_layers" in vars(net.module)
    assert "run_layers" not in vars(net.realise())


def test_an_attribute_of_that_name_is_left_alone() -> None:
    module: Any = nn.Sequential(nn.Linear(4, 3)).double()
    module.run_layers = "mine"
    net = TargetSpace(module, FIXED.flatten(1)[:, :4])
    assert net.realise().run_layers == "mine"


def test_sequences_are_plain_outside() -> None:
    module = nested(ACTIVATIONS["relu"])
    net = TargetSpace(module, FIXED.float(), lam=0.1)
    kinds = [type(part) for part in module.modules()]
    assert [type(part) for part in net.realise().modules()] == kinds
    assert repr(net.module).startswith("Sequential(")
    assert repr(net.realise()) == repr(module)


@pytest.mark.parametrize(
    "name", [n for n in ACTIVATIONS if n not in ("falling", "gelu")]
)
def test_activations_by_what_comes_out(name: str) -> None:
    module = ACTIVATIONS[name]()
    activation = activation_of(module)
    assert activation is not None
    sums = torch.randn(50, dtype=F64, requires_grad=True)
    truth = module(sums)
    d = torch.randn(50, dtype=F64)
    out = activation.apply_(sums.detach().clone())
    torch.testing.assert_close(out, truth.detach(), rtol=1e-15, atol=0)
    (gradient,) = torch.autograd.grad(truth, sums, d)
    torch.testing.assert_close(activation.gradient(d, out, None), gradient)
    assert activation.gradient(d, out, d) is d
    torch.testing.assert_close(d, gradient)
    if activation.residual is not None:
        targets = torch.randn(50, dtype=F64)
        residual = activation.residual(targets, out)
        torch.testing.assert_close(residual, targets - sums.detach())


@pytest.mark.parametrize("name", ["falling", "gelu"])
def test_what_does_not_tell_the_sum_is_left_alone(name: str) -> None:
    assert activation_of(ACTIVATIONS[name]()) is None
    assert F.leaky_relu(torch.tensor(-1.0), -0.5) > 0
