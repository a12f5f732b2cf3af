"""What a user's module is and does stays: modes, hooks, attributes, and X̄."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from sktarget.nn import TargetSpace


class Scaled(nn.Module):
    """A network one of whose parameters is used by a hook alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(3, 4), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(4))
        self.kept: Tensor | None = None
        self.a.register_forward_hook(self.hook)
        self.o.register_forward_pre_hook(self.pre_hook, with_kwargs=True)
        self.options: dict[str, Any] = {}

    def hook(self, layer: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        self.kept = out
        return out * self.scale

    def pre_hook(self, layer: nn.Module, inputs: Any, options: Any) -> None:
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return self.o(torch.tanh(self.a(x)))


def test_hooks_of_the_module_become_those_of_its_copy() -> None:
    given, fixed = Scaled(), torch.randn(50, 3)
    net = TargetSpace(given, fixed)
    net(torch.randn(4, 3)).sum().backward()
    assert given.kept is None
    assert given.scale.grad is None
    assert net.module.scale.grad is not None
    assert len(net.module.kept) == 54
    realised = net.realise()
    realised(torch.randn(7, 3))
    assert len(realised.kept) == 7
    for table in (realised.a._forward_hooks, realised.o._forward_pre_hooks):
        assert all(hook.__self__ is realised for hook in table.values())
    torch.testing.assert_close(copy.deepcopy(net)(fixed), net(fixed))


def test_realised_modules_do_not_carry_the_given_one_along() -> None:
    net = TargetSpace(Scaled(), torch.randn(5000, 3))
    realised, file = net.realise(), io.BytesIO()
    realised.kept = None
    pickle.dump(realised, file)
    assert file.tell() < 20_000


def test_hooks_that_are_no_methods_of_the_module_stay_the_same() -> None:
    class Counter:
        n = 0

        def __call__(self, *_: Any) -> None:
            self.n += 1

    module, counter = nn.Linear(3, 2), Counter()
    module.register_forward_hook(counter)
    net = TargetSpace(module, torch.randn(9, 3))
    before = counter.n
    net(torch.randn(4, 3))
    assert counter.n == before + 1


def test_parts_keep_their_modes() -> None:
    frozen = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
    frozen.eval().requires_grad_(False)
    module = nn.Sequential(frozen, nn.Dropout(0.5).eval(), nn.Linear(8, 2))
    fixed = torch.randn(20, 3)
    net = TargetSpace(module, fixed)
    assert net.training
    assert not net.is_random
    mean = net.module[0][1].running_mean.clone()
    net(fixed[:10] + 5)
    assert net.module[0][1].running_mean.equal(mean)
    net.train()
    assert net.is_random


def test_dropout_left_on_in_evaluation() -> None:
    module = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 2)).eval()
    module[1].train()
    fixed = torch.randn(80, 3)
    net = TargetSpace(module, fixed)
    assert not net.training
    assert not net(fixed).equal(net(fixed))


def test_a_layer_in_training_within_a_module_in_evaluation() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    module[0].train()
    fixed = torch.randn(9, 3)
    net = TargetSpace(module, fixed, lam=1e-6)
    torch.testing.assert_close(net(fixed), module(fixed), atol=1e-3, rtol=1e-3)


class ReadsAttribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.a.gain = [2.0]
        self.rnn = nn.GRU(4, 5, batch_first=True)
        self.rnn.note = "kept"
        # Names that target layers use for something else.
        self.a.name, self.a.stage, self.rnn.lam = "encoder", 2, "unused"

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.a(x) * self.a.gain[0])[0]


def test_attributes_that_a_user_gave_to_layers_go_along() -> None:
    given = ReadsAttribute()
    net = TargetSpace(given, torch.randn(9, 6, 3))
    net.module.a.gain[0] = 3.0
    realised = net.realise()
    assert (given.a.gain, realised.a.gain, realised.rnn.note) == ([2.0], [3.0], "kept")
    assert (realised.a.name, realised.a.stage) == ("encoder", 2)
    assert realised.rnn.lam == "unused"
    assert type(realised.a) is nn.Linear
    assert vars(realised.a).keys() == vars(given.a).keys()


def test_names_of_a_target_layer_are_free_on_the_ordinary_one() -> None:
    given = nn.Sequential(nn.Linear(3, 2))
    for name in ("targets", "name", "lam", "stage", "anchor", "given", "shown"):
        setattr(given[0], name, "mine")
    realised = TargetSpace(given, torch.randn(9, 3)).realise()
    assert vars(realised[0]).keys() == vars(given[0]).keys()
    assert realised[0].targets == "mine"
    assert [name for name, _ in realised.named_parameters()] == ["0.weight", "0.bias"]


class Prototypes(nn.Module):
    """Distances to rows that the module was given, and the rows it has last seen."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows, self.seen = rows, [torch.zeros(1)]
        self.exit = nn.Linear(len(rows), 2)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = [x]
        out: Tensor = self.exit(torch.cdist(x, self.rows))
        return out


@pytest.mark.parametrize("n", [9, 12])
@pytest.mark.parametrize("copied", [False, True])
def test_rows_of_the_module_itself_are_no_trace_of_a_pass(n: int, copied: bool) -> None:
    rows = torch.randn(n, 3)
    net = TargetSpace(Prototypes(rows), rows[:9], 0.1)
    net = copy.deepcopy(net) if copied else net
    x = torch.randn(4, 3)
    found = net(x)
    realised = net.eval().realise()
    assert torch.equal(realised.rows, rows)
    assert realised.seen == [None]
    torch.testing.assert_close(realised(x), found, rtol=1e-4, atol=1e-5)


def test_other_rows_on_the_fixed_batch_are_refused() -> None:
    class Filtering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.least = nn.Parameter(torch.zeros(()))
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x[x[:, 0] > self.least])
            return out

    x = torch.linspace(-1, 1, 60).reshape(20, 3)
    net = TargetSpace(Filtering(), x, 0.1)
    n = len(net(x))
    with torch.no_grad():
        net.module.least.fill_(-2.0)
    with pytest.raises(RuntimeError, match=f"is fed 20 rows .*has targets for {n}"):
        net(x)


def test_layers_with_parts_of_their_own_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module[0].register_buffer("mask", torch.ones(4))
    with pytest.warns(UserWarning, match=r"0 \(Linear, which has been given parts"):
        net = TargetSpace(module, torch.randn(9, 3))
    assert list(net.target_layers()) == ["2"]
    assert net.module[0].mask.equal(torch.ones(4))


class ChangesInput(nn.Module):
    """Changes its input in place, but only in training."""

    treats_rows_alone = False

    def __init__(self, starts_at: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.runs, self.starts_at = 0, starts_at

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.runs += 1
            if self.runs > self.starts_at:
                x = F.dropout(x, 0.5, inplace=True)
        return self.layer(x)


@pytest.mark.parametrize("n", [20, 40])
def test_fixed_batch_survives_modules_that_write_in_training(n: int) -> None:
    fixed = torch.randn(40, 3)
    before = fixed.clone()
    net = TargetSpace(ChangesInput(), fixed)
    for _ in range(3):
        net(fixed if n == 40 else fixed[:n].clone()).sum().backward()
    assert net.fixed_batch.equal(before)
    assert fixed.equal(before)


def test_modules_that_come_to_write_over_the_fixed_batch_are_found_out() -> None:
    net = TargetSpace(ChangesInput(starts_at=4), torch.randn(40, 3))
    x = torch.randn(5, 3)
    net(x)
    net(x)
    with pytest.raises(RuntimeError, match="written over the fixed batch"):
        net(x)


class Coded(nn.Module):
    """A network with a layer that reads a vector of its own, not the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.ones(3))
        self.gate, self.out = nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) * torch.sigmoid(self.gate(self.code))


@pytest.mark.parametrize("training", [False, True])
def test_layers_that_run_on_a_vector_are_refused(training: bool) -> None:
    module, x = Coded().train(training), torch.randn(6, 4)
    with pytest.raises(ValueError, match=r"'gate' runs on a vector of shape \(3,\)"):
        TargetSpace(module, x)
    module.gate.requires_grad_(False)
    expected = module(x)
    net = TargetSpace(module, x, 0.0, keep_weights=True)
    torch.testing.assert_close(net(x), expected)


def test_a_fixed_batch_changed_through_numpy_is_seen_at_the_next_switch() -> None:
    numbers = np.random.default_rng(0).normal(size=(30, 2))
    net = TargetSpace(nn.Linear(2, 1).double(), torch.from_numpy(numbers), lam=0.1)
    net(torch.randn(3, 2, dtype=torch.float64))
    numbers *= 3
    weights = net.train().eval().realise().weight
    inputs = np.hstack([np.ones((30, 1)), numbers])
    (layer,) = net.target_layers().values()
    target = layer.targets.detach().numpy()
    expected = np.linalg.solve(inputs.T @ inputs + 0.1 * np.eye(3), inputs.T @ target)
    np.testing.assert_allclose(weights.detach().numpy(), expected[1:].T, rtol=1e-9)


@pytest.mark.parametrize(
    "fixed_batch", [torch.eye(4).to_sparse(), torch.ones(3, 4, device="meta")]
)
def test_fixed_batches_without_numbers_are_refused(fixed_batch: Tensor) -> None:
    with pytest.raises(ValueError, match="must be a dense tensor that holds numbers"):
        TargetSpace(nn.Linear(4, 2), fixed_batch)


def test_packed_fixed_batches_are_refused() -> None:
    packed = pack_sequence([torch.randn(3, 4), torch.randn(2, 4)])
    with pytest.raises(
        ValueError, match=r"got a PackedSequence: .* let the module pack"
    ):
        TargetSpace(nn.RNN(4, 2), packed)  # type: ignore[arg-type]


def test_an_empty_network_takes_over_a_state() -> None:
    net = TargetSpace(nn.Linear(4, 2), torch.randn(9, 4))
    empty = copy.deepcopy(net).to("meta")
    empty.load_state_dict(net.state_dict(), assign=True)
    x = torch.randn(3, 4)
    torch.testing.assert_close(empty(x), net(x))
