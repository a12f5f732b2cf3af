"""X̄ and X run as one batch only where that changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sktarget.architectures import (
    ConvLayer,
    ConvolutionalNetwork,
    DenseNetwork,
    RecurrentNetwork,
)
from sktarget.nn import TargetSpace
from tests.helpers import normal


class Siamese(nn.Module):
    """Lays the two halves of all patterns below each other."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.inner(torch.cat([x[:, 0], x[:, 1]])).tanh().chunk(2)
        out: Tensor = self.outer((a - b).abs())
        return out


class Around(nn.Module):
    """Does something before a layer and something after it."""

    def __init__(
        self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Any]
    ) -> None:
        super().__init__()
        self.layer, self.before, self.after = nn.Linear(4, 3), before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.layer(self.before(x)))


def runs_as_one(net: TargetSpace, x: Tensor) -> bool:
    """Return whether X̄ and x pass through the module together."""
    seen: list[int] = []
    hook = net.module.register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0]))
    )
    net.train()(x)
    hook.remove()
    apart = [len(net.fixed_batch), len(x)]
    assert seen in (apart, [sum(apart)])
    return seen != apart


def same(x: Tensor) -> Tensor:
    return x


def rows_last(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


class OneAfterTheOther(nn.Module):
    """Takes rows for steps in time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.GRUCell(8, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        state, states = torch.zeros(1, 3, dtype=x.dtype), []
        for row in x.flatten(1):
            state = self.cell(row[None], state)
            states += [state]
        out: Tensor = self.last(torch.cat(states))
        return out


MIXING: dict[str, Callable[[], nn.Module]] = {
    "halves": Siamese,
    "transposed": partial(Around, rows_last, rows_last),
    "centred": partial(Around, lambda x: x - x.mean(0), same),
    "softmax": partial(Around, same, lambda out: out.softmax(0)),
    # takes the second axis for rows
    "attention": partial(nn.TransformerEncoderLayer, 4, 2, 8, dropout=0.0),
    "in turn": OneAfterTheOther,
    "running sum": partial(Around, lambda x: x.cumsum(0), same),
    "over the maximum": partial(Around, lambda x: x / x.abs().max(), same),
    "less the minimum": partial(Around, lambda x: x - x.min(), same),
}


@pytest.mark.filterwarnings("ignore:these modules cannot be learnt by targets")
@pytest.mark.parametrize("name", MIXING)
def test_modules_that_mix_rows(name: str) -> None:
    net = TargetSpace(MIXING[name](), torch.randn(40, 2, 4)).train()
    x = torch.randn(6, 2, 4)
    learnt = net(x)
    torch.testing.assert_close(learnt, net.eval()(x))
    torch.testing.assert_close(learnt, net.realise()(x))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (same, lambda out: out / out.detach().abs().max().clamp_min(5.0)),
        (lambda x: x if x.mean() > 0 else x - 3, same),
    ],
)
def test_modules_that_mix_rows_of_other_sizes(
    before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]
) -> None:
    net = TargetSpace(Around(before, after), torch.randn(40, 4)).train()
    for x in (20 * torch.randn(6, 4), torch.randn(6, 4) + 4, torch.randn(6, 4) - 4):
        torch.testing.assert_close(net.train()(x), net.realise()(x))


def test_modules_that_mix_rows_where_these_are_not_clipped() -> None:
    class OverTheMaximum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = nn.functional.hardtanh(self.inner(x))
            out: Tensor = self.outer(h / (1e-3 + h.abs().max()))
            return out

    net = TargetSpace(OverTheMaximum(), torch.randn(60, 4), 0.1).train()
    net.reset_targets(0.1, project=False)
    x = torch.randn(7, 4)
    torch.testing.assert_close(net(x), net.eval()(x))


def test_modules_of_positive_inputs_are_stacked() -> None:
    def embed(x: Tensor) -> Tensor:
        return torch.eye(9)[x[:, 0].long()][:, :4]

    for before in (torch.log1p, torch.sqrt, embed):
        net = TargetSpace(Around(before, same), torch.rand(40, 4) + 1)
        assert runs_as_one(net, torch.rand(6, 4) + 1)


@pytest.mark.filterwarnings("ignore:these modules cannot be learnt by targets")
@pytest.mark.parametrize("name", MIXING)
def test_gradients_of_modules_that_mix_rows(name: str) -> None:
    net = TargetSpace(MIXING[name](), torch.randn(5, 2, 4)).double().train()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    targets = [layer.targets for layer in net.target_layers().values()]

    def loss(*_: Tensor) -> Tensor:
        out: Tensor = net(x).square().sum()
        return out

    assert torch.autograd.gradcheck(loss, targets)


def test_modules_that_treat_rows_alike_run_once() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert runs_as_one(TargetSpace(module, torch.randn(10, 4)), torch.randn(6, 4))


def test_outputs_whose_number_follows_the_rows() -> None:
    def pairs(out: Tensor) -> list[Tensor]:
        return list(torch.cdist(out, out))  # n tensors of n numbers

    net = TargetSpace(Around(same, pairs), torch.randn(10, 4)).train()
    learnt = net(x := torch.randn(6, 4))
    torch.testing.assert_close(learnt, net.eval()(x))


def test_outputs_that_are_not_there() -> None:
    net = TargetSpace(Around(same, lambda out: (out, None)), torch.randn(10, 4)).train()
    seen: list[int] = []
    net.module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    sums, nothing = net(torch.randn(6, 4))
    assert sums.shape == (6, 3)
    assert nothing is None
    assert seen == [16]


@dataclass
class Answer:
    sums: Tensor


def test_outputs_that_hide_their_rows() -> None:
    net = TargetSpace(Around(same, Answer), torch.randn(10, 4)).train()
    x = torch.randn(6, 4)
    sums = net(x).sums
    assert sums.shape == (6, 3)
    torch.testing.assert_close(sums, net.eval()(x).sums)


def test_batches_of_another_dtype_are_not_converted() -> None:
    net = TargetSpace(nn.Linear(4, 3), torch.randn(10, 4)).train()
    with pytest.raises(RuntimeError, match="dtype"):
        net(torch.randn(6, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    "first", [nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.5, inplace=True)]
)
def test_modules_that_begin_in_place_leave_the_fixed_batch_alone(
    first: nn.Module,
) -> None:
    x = torch.randn(20, 4)
    before = x.clone()
    net = TargetSpace(nn.Sequential(first, nn.Linear(4, 2)), x)
    net.reset_targets()
    net.train()(net.fixed_batch)
    net.average_weights()
    net.eval().realise()
    assert torch.equal(x, before)
    assert torch.equal(net.fixed_batch, before)
    own = torch.randn(7, 4)
    given = own.clone()
    net(given)
    net.train().forward_and_evaluate(net.fixed_batch, given)
    net(given)
    net._solve_then_run(given)
    assert torch.equal(given, own)


@pytest.mark.parametrize("make", [torch.randn, torch.eye])
@pytest.mark.parametrize("n", [20, 6, 2])
def test_modules_of_the_users_that_begin_in_place(
    n: int, make: Callable[[int, int], Tensor]
) -> None:
    x = make(n, 4)
    before = x.clone()
    net = TargetSpace(Around(lambda x: x.mul_(2), same), x).train()
    net(net.fixed_batch)
    net.eval()
    assert torch.equal(x, before)
    assert torch.equal(net.fixed_batch, before)


class Skipping(nn.Module):
    """Leaves a layer out in training."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(4, 4), layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            return x
        out: Any = self.layer(x)
        return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 4), nn.GRU(4, 4, batch_first=True)], ids=["dense", "gru"]
)
def test_layers_that_run_on_the_batch_alone(layer: nn.Module) -> None:
    net = TargetSpace(Skipping(layer), torch.randn(9, 3, 4)).train()
    before = [p.clone() for p in net.parameters()]
    message = r"'layer.*has not run on the fixed batch"
    with pytest.raises(RuntimeError, match=message):
        net.forward_and_evaluate(net.fixed_batch, torch.randn(2, 3, 4))
    assert all(map(torch.equal, before, net.parameters()))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: DenseNetwork(4, (6, 5), 3, "tanh", shortcuts=True), (4,)),
        (
            lambda: ConvolutionalNetwork(
                (2, 6, 6), [ConvLayer((3, 3), 4, 2)], (5,), 3, "relu"
            ),
            (2, 6, 6),
        ),
    ],
)
def test_networks_that_are_taken_at_their_word(
    make: Callable[[], nn.Module], shape: tuple[int, ...], monkeypatch: Any
) -> None:
    module, fixed = make(), torch.randn(12, *shape)
    trusted = TargetSpace(module, fixed)
    monkeypatch.delattr(type(module), "treats_rows_alone")
    tried = TargetSpace(module, fixed)
    for net in (trusted, tried):
        assert runs_as_one(net, torch.randn(5, *shape))


class MixedInTraining(nn.Module):
    """Batch statistics by hand, which evaluation does not show."""

    treats_rows_alone = False

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) if self.training else x


class MixedLikewise(MixedInTraining):
    pass


@pytest.mark.parametrize("kind", [MixedInTraining, MixedLikewise])
def test_what_mixes_rows_in_training_alone_may_say_so(kind: type[nn.Module]) -> None:
    layer = nn.Linear(4, 2, bias=False)
    net = TargetSpace(nn.Sequential(kind(), layer).double(), normal(20, 4)).train()
    x = normal(6, 4, seed=1)
    learnt, (weights,) = net.forward_with_weights(x)
    torch.testing.assert_close(learnt, (x - x.mean(0)) @ weights)


def test_a_subclass_has_to_say_so_itself() -> None:
    class Centred(DenseNetwork):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0))

    net = TargetSpace(Centred(4, (6,), 3, "tanh"), torch.randn(12, 4))
    assert Centred.treats_rows_alone
    assert not runs_as_one(net, torch.randn(5, 4))


def test_batch_normalisation_is_of_the_batch_alone() -> None:
    norm = nn.BatchNorm1d(4, affine=False)
    module = nn.Sequential(norm, nn.Linear(4, 2, bias=False)).double()
    net = TargetSpace(module, normal(20, 4))
    x = normal(6, 4, seed=1)
    learnt, (weights,) = net.train().forward_with_weights(x)
    alone = (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(learnt, alone @ weights)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(x[:1])


def test_the_negative_of_the_fixed_batch_is_another_batch() -> None:
    fixed = torch.randn(20, 4, 2)[..., 0]
    net = TargetSpace(nn.Linear(4, 3), fixed, 0.1).reset_targets(project=False).train()
    negative = torch._neg_view(net.fixed_batch)  # in the same memory
    torch.testing.assert_close(net(negative), net(negative.clone()))


def test_gradient_of_rows_that_are_those_of_the_fixed_batch() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    fixed = normal(20, 4)
    net = TargetSpace(module, fixed, lam=0.1).train()
    found = []
    for x in (fixed.detach().requires_grad_(), fixed.clone().requires_grad_()):
        (d,) = torch.autograd.grad(net(x).sum(), x)
        found.append(d)
    torch.testing.assert_close(*found)
    (d,) = torch.autograd.grad(net.eval()(x).sum(), x)
    torch.testing.assert_close(d, found[0])


def test_a_padded_batch_does_not_keep_others_from_being_stacked() -> None:
    module = RecurrentNetwork(3, (4,), (), 2, cell="rnn", activation="tanh").double()
    net = TargetSpace(module, normal(9, 5, 3), lam=0.1).train()
    seen: list[int] = []
    net.module.exit.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    whole = normal(4, 5, 3, seed=1)
    padded = whole.clone()
    padded[1, 3:] = torch.nan
    outputs = [net(x) for x in (whole, padded, whole)]
    # X̄ and X together; one after the other, as only X has padding; together again.
    assert seen == [13, 9, 4, 13]
    torch.testing.assert_close(outputs[0], outputs[2])


class Gated(nn.Module):
    """Mixes rows by as much as it has learnt to."""

    def __init__(self, gate: float) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(4, 6), nn.Linear(6, 2)
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x).tanh()
        out: Tensor = self.out(h + self.gate * h.mean(0))
        return out


@pytest.mark.parametrize("gate", [0.0, 1e-6])
def test_modules_that_learn_to_mix_rows(gate: float) -> None:
    net = TargetSpace(Gated(gate).double(), normal(20, 4), lam=0.1)
    x = normal(6, 4, seed=1) + 2
    assert not runs_as_one(net, x)
    with torch.no_grad():
        net.module.gate.fill_(1.0)
    torch.testing.assert_close(net(x), net.eval()(x))


def test_a_last_layer_that_starts_from_zero() -> None:
    module = Around(same, lambda out: out - out.mean(0)).double()
    nn.init.zeros_(module.layer.weight)
    nn.init.zeros_(module.layer.bias)
    net = TargetSpace(module, normal(20, 4), lam=0.1)
    assert not runs_as_one(net, normal(6, 4, seed=1))


def test_gates_that_start_from_zero_and_mix_nothing() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(x + self.gate * self.layer(x).tanh())
            return out

    module = Residual()
    before = [p.detach().clone() for p in module.parameters()]
    assert runs_as_one(TargetSpace(module, torch.randn(20, 4)), torch.randn(6, 4))
    assert all(map(torch.equal, module.parameters(), before))
