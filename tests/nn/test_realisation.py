"""Realised weights: evaluation, copies, files, the cached factor, initial targets."""

import copy
import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace, _layers, _target_map
from tests.helpers import (
    Residual,
    assert_all_close,
    gradients,
    move_targets,
    normal,
    perceptron,
    seeded,
    set_targets,
    targets_of,
)

X = normal(20, 3)
PROBE = normal(6, 3, seed=3)


def network(*, seed: int = 0, **options: Any) -> TargetSpace:
    """A network whose targets cannot be met, and so differ from the sums."""
    net = TargetSpace(perceptron(seed=seed), X.clone(), **{"lam": 0.1, **options})
    move_targets(net)
    return net


def step(net: TargetSpace, *, fused: bool = True) -> None:
    """Train for a step; fused ones do not raise the versions of the parameters."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=fused)
    outputs, _ = net.forward_with_weights(PROBE)
    F.mse_loss(outputs, normal(6, 2, seed=8)).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the factorisations since the last call."""
    original, calls = _target_map.factorise_design, []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    def since() -> int:
        n = len(calls)
        calls.clear()
        return n

    monkeypatch.setattr(_target_map, "factorise_design", counted)
    return since


@pytest.fixture
def forbid_solves(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("solved")

    def forbid() -> None:
        monkeypatch.setattr(_target_map, "factorise_design", fail)
        monkeypatch.setattr(_layers, "solve_and_apply", fail)

    return forbid


# --- Evaluation -----------------------------------------------------------------------


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("x", [X, PROBE], ids=["fixed batch", "another"])
def test_other_rows_are_evaluated_along(
    untangling: str, x: Tensor, count: Callable[[], int]
) -> None:
    net, other = network(untangling=untangling), normal(9, 3, seed=5)
    x = net.fixed_batch if x is X else x
    outputs, weights, evaluated = net.forward_and_evaluate(x, other)
    assert not evaluated.requires_grad
    assert net.training
    n_solves = count()
    expected, expected_weights = net.forward_with_weights(x)
    assert count() <= n_solves  # the first layer's factor is kept
    assert_all_close([outputs, *weights], [expected, *expected_weights], 0)
    assert_all_close([evaluated], [net.eval()(other)], 1e-12)


def test_dropout_is_random_in_training_alone() -> None:
    layers = nn.Linear(3, 2, dtype=X.dtype), nn.Dropout(0.5)
    net = TargetSpace(nn.Sequential(*layers), X)
    assert net.is_random
    assert not net.eval().is_random
    assert not network().is_random


def dropping(*, seed: int = 0) -> TargetSpace:
    """A network that drops hidden units, and cannot meet its targets."""
    layers = list(perceptron(seed=seed))
    net = TargetSpace(nn.Sequential(*layers[:-1], nn.Dropout(0.4), layers[-1]), X, 0.1)
    move_targets(net)
    return net


def realised(net: TargetSpace) -> list[Tensor]:
    return [p.detach() for p in net.realise().parameters()]


def test_weights_are_averaged_over_draws_of_dropout() -> None:
    net = dropping()
    clean = realised(net)
    single = []
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for _ in range(3):
            net.train().average_weights(1)
            single.append(realised(net))
        torch.manual_seed(5)
        net.train().average_weights(3)
    assert not net.training
    mean = [torch.stack(parts).mean(0) for parts in zip(*single, strict=True)]
    assert_all_close(realised(net), mean, 1e-14)
    # Nothing is dropped before the last layer.
    assert_all_close(realised(net)[:-2], clean[:-2], 1e-14)
    assert (mean[-2] - clean[-2]).norm() > 1e-3


def test_dropout_that_training_never_met_takes_no_part_in_the_mean() -> None:
    net = dropping()
    clean = realised(net)
    net.module[-2].eval()  # type: ignore[index]
    net.average_weights()
    assert_all_close(realised(net), clean, 0)
    net.train().average_weights()
    assert (realised(net)[-2] - clean[-2]).norm() > 1e-3


def test_averaged_weights_hold_until_the_network_is_trained_further() -> None:
    net = dropping()
    net.average_weights()
    kept = realised(net)
    assert_all_close(realised(copy.deepcopy(net)), kept, 0)
    assert_all_close([net.eval()(PROBE)], [net.realise()(PROBE)], 1e-12)
    assert_all_close(realised(net), kept, 0)
    step(net)
    again = dropping()
    again.load_state_dict(net.state_dict())
    assert_all_close(realised(net), realised(again), 0)


def test_averaged_weights_survive_passes_without_gradients() -> None:
    net = TargetSpace(nn.Sequential(nn.Dropout(0.5), perceptron()), X, 0.1)
    net.average_weights()
    mean = net(PROBE)
    with torch.no_grad():
        net.forward_with_weights(PROBE)
    assert_all_close([net(PROBE)], [mean], 0)


def test_a_mean_needs_draws() -> None:
    net = dropping()
    with pytest.raises(ValueError, match="n_draws must be at least 1, got 0"):
        net.average_weights(0)
    assert net.training


def test_without_dropout_one_solve_is_enough(count: Callable[[], int]) -> None:
    net, same = network(), network()
    expected = realised(same)
    count()
    net.average_weights()
    assert count() <= 2
    assert_all_close(realised(net), expected, 0)


def test_evaluation_never_solves(forbid_solves: Callable[[], None]) -> None:
    net = network().eval()
    with torch.no_grad():
        expected = net.realise()(PROBE)
    forbid_solves()
    for _ in range(3):
        assert_all_close([net(PROBE)], [expected], 0)
    net.eval()
    net.realise()
    assert_all_close([copy.deepcopy(net)(PROBE)], [expected], 0)
    with pytest.raises(AssertionError, match="solved"):
        net.train()(PROBE)


def test_evaluation_is_refreshed_once(count: Callable[[], int]) -> None:
    net = network().eval()
    before = net(PROBE)
    step(net)
    assert count() > 0
    after = net(PROBE)
    assert count() == 1  # The factor of the first layer is cached.
    net(PROBE)
    assert count() == 0
    assert (after - before).abs().max() > 1e-3
    assert_all_close([after], [net.train()(PROBE)], 1e-12)


def plain_step(net: TargetSpace) -> None:
    step(net, fused=False)


def change_by_state_dict(net: TargetSpace) -> None:
    net.load_state_dict(network(seed=5).state_dict())


def change_by_assignment(net: TargetSpace) -> None:
    net.load_state_dict(network(seed=5).state_dict(), assign=True)


def change_by_reset(net: TargetSpace) -> None:
    net.reset_targets(generator=torch.Generator().manual_seed(0))


def change_fixed_batch(net: TargetSpace) -> None:
    net.fixed_batch.mul_(-0.3)


def replace_fixed_batch(net: TargetSpace) -> None:
    net.fixed_batch = normal(20, 3, seed=6)


@pytest.mark.parametrize(
    "change",
    [
        step,
        plain_step,
        move_targets,
        change_by_state_dict,
        change_by_assignment,
        change_by_reset,
        change_fixed_batch,
        replace_fixed_batch,
    ],
)
@pytest.mark.parametrize("evaluating", [False, True])
def test_every_change_is_seen(
    change: Callable[[TargetSpace], None], evaluating: bool
) -> None:
    net = network().train(not evaluating)
    before = net(PROBE)
    change(net)
    after = net(PROBE)
    assert (after - before).abs().max() > 1e-3
    # A network that never knew another state.
    fresh = TargetSpace(perceptron(), net.fixed_batch.clone(), 0.1)
    set_targets(fresh, targets_of(net))
    assert_all_close([after], [fresh(PROBE)], 1e-11)
    assert_all_close([net.realise()(PROBE)], [after], 1e-11)


def test_gradient_of_inputs_after_evaluation_in_inference_mode() -> None:
    net = network()
    with torch.inference_mode():
        expected = net.eval()(PROBE).clone()
    x = PROBE.clone().requires_grad_()
    outputs = net(x)
    outputs.sum().backward()
    assert_all_close([outputs], [expected], 1e-12)
    assert x.grad is not None
    assert x.grad.any()


def test_module_given_in_evaluation_mode() -> None:
    module = perceptron().eval()
    net = TargetSpace(module, X, 1e-12)
    assert not net.training
    assert_all_close([net(PROBE)], [module(PROBE)], 1e-8)


def test_realisation_after_training_went_on() -> None:
    net = network()
    before = net.eval()(PROBE)
    step(net.train())
    assert (net.realise()(PROBE) - before).abs().max() > 1e-3


def test_fused_steps_between_realisations_count() -> None:
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        net(PROBE).square().sum().backward()
        before = net.realise()(PROBE)
        optimizer.step()
        after = net.realise()(PROBE)
        assert (after - before).abs().max() > 1e-3
        assert_all_close([after], [net(PROBE)], 1e-12)


# --- The factor of the first layer ----------------------------------------------------


@pytest.mark.parametrize("x", [X, PROBE], ids=["shared", "separate"])
def test_first_factor_is_computed_once(x: Tensor, count: Callable[[], int]) -> None:
    module = perceptron()
    net = TargetSpace(module, X, 0.1)
    for _ in range(5):
        net(x).sum().backward()
    net.eval()
    # The first layer once, and anew at the switch; the second in every pass.
    assert count() == 2 + 6


def test_first_factor_is_computed_once_whatever_the_layout(
    count: Callable[[], int],
) -> None:
    by_columns = X.T.contiguous().T
    net = TargetSpace(perceptron(), by_columns, 0.1)
    for _ in range(5):
        net(by_columns).sum().backward()
    assert count() == 1 + 5


@pytest.mark.parametrize(
    "change", [change_fixed_batch, replace_fixed_batch, lambda net: net.float()]
)
def test_first_factor_is_renewed(
    change: Callable[[TargetSpace], None], count: Callable[[], int]
) -> None:
    net = network()
    net(PROBE)
    assert count() == 2
    change(net)
    x = PROBE.to(net.fixed_batch.dtype)
    net(x)
    assert count() == 2
    net(x)
    assert count() == 1


def test_first_factor_after_dropout_is_not_cached(count: Callable[[], int]) -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).double()
    net = TargetSpace(module, X, 0.1)
    for _ in range(3):
        net(PROBE)
    assert count() == 3


def test_reset_sees_a_changed_fixed_batch() -> None:
    drawn = []
    for used_before in (False, True):
        net = network()
        if used_before:
            net(PROBE)
        change_fixed_batch(net)
        net.reset_targets(generator=torch.Generator().manual_seed(0))
        drawn.append(targets_of(net))
    assert_all_close(*drawn, tolerance=0)


# --- An ordinary module ---------------------------------------------------------------


def test_threads_share_a_network_that_has_to_be_refreshed() -> None:
    net, other = network().eval(), network(seed=1).eval()
    # Copies, as a state shares its memory with the network that is to be changed.
    states = [copy.deepcopy(n.state_dict()) for n in (net, other)]
    expected = [net(PROBE), other(PROBE)]
    with ThreadPoolExecutor(4) as pool:
        for state, truth in [*zip(states, expected, strict=True)] * 10:
            net.load_state_dict(state)
            together = list(pool.map(net, [PROBE] * 8))
            for found in [*together, net(PROBE)]:
                assert torch.equal(found, truth)


@pytest.mark.parametrize("finite", [True, False])
def test_failed_solves_that_nobody_saw_are_found_out(finite: bool) -> None:
    (layer, *_) = network().target_layers().values()
    weights: Any = SimpleNamespace(is_cpu=False)
    weights.isfinite = lambda: torch.tensor([True, finite])
    if finite:
        layer.check(weights)
        return
    with pytest.raises(FactorisationError, match="weights are not finite"):
        layer.check(weights)


@pytest.mark.parametrize("bias", [False, True])
def test_realised_module_is_ordinary(bias: bool) -> None:
    module = seeded(nn.Sequential(nn.Linear(3, 4, bias=bias), Residual(4, 5, 2)))
    net = TargetSpace(module.double(), X, 0.1)
    realised = net.realise()
    assert not realised.training
    assert [type(m) for m in realised.modules()] == [type(m) for m in module.modules()]
    assert not any(
        type(m).__module__.startswith("sktarget") for m in realised.modules()
    )
    assert not list(realised.buffers())
    expected = {name: (p.shape, p.dtype) for name, p in module.named_parameters()}
    found = {name: (p.shape, p.dtype) for name, p in realised.named_parameters()}
    assert found == expected
    assert all(p.requires_grad and p.is_leaf for p in realised.parameters())
    assert str(realised) == str(module)


def test_realised_module_is_independent() -> None:
    net = network()
    realised = net.realise()
    before = realised(PROBE).detach()
    F.mse_loss(realised(PROBE), before + 1).backward()
    torch.optim.SGD(realised.parameters(), lr=0.1).step()
    assert (realised(PROBE) - before).abs().max() > 1e-3
    assert_all_close([net(PROBE)], [before], 1e-12)
    again = realised(PROBE).detach()
    step(net)
    net.eval()
    assert_all_close([realised(PROBE)], [again], 0)


def test_realised_module_compiles() -> None:
    realised = network().realise()
    compiled = torch.compile(realised, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert_all_close([compiled(PROBE)], [realised(PROBE)], 1e-12)


def test_realised_module_as_a_file(tmp_path: Path) -> None:
    realised = network().realise()
    torch.save(realised, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    assert_all_close([loaded(PROBE)], [realised(PROBE)], 0)
    torch.save(realised.state_dict(), tmp_path / "weights.pt")
    other = perceptron(seed=4)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_all_close([other(PROBE)], [realised(PROBE)], 0)


# --- Copies and files -----------------------------------------------------------------


def saved_and_loaded(net: TargetSpace) -> TargetSpace:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded: TargetSpace = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("duplicate", [copy.deepcopy, saved_and_loaded])
@pytest.mark.parametrize("evaluating", [False, True])
def test_copy_is_trainable_and_independent(
    duplicate: Callable[[TargetSpace], TargetSpace], evaluating: bool
) -> None:
    net = network().train(not evaluating)
    before = net(PROBE).detach()
    twin = duplicate(net)
    assert twin.training is not evaluating
    assert_all_close([twin(PROBE)], [before], 1e-14)
    twin.train()
    step(twin)
    twin.fixed_batch.add_(1)
    assert (twin(PROBE) - before).abs().max() > 1e-3
    assert_all_close([net(PROBE)], [before], 1e-14)
    net.train()
    step(net)
    twin.fixed_batch.sub_(1)
    assert_all_close([twin(PROBE)], [net(PROBE)], 1e-10)


def test_state_dict_round_trip() -> None:
    net = network()
    state = net.state_dict()
    names = ["fixed_batch", "_extra_state", "module.0.targets", "module.2.targets"]
    assert list(state) == names
    other = TargetSpace(perceptron(seed=4), normal(20, 3, seed=6))
    other.load_state_dict(state)
    assert_all_close([other(PROBE)], [net(PROBE)], 1e-12)
    step(net)
    step(other)
    assert_all_close(targets_of(other), targets_of(net), 1e-12)


def test_loading_a_state_leaves_the_data_given_alone() -> None:
    given = normal(20, 3, seed=6)
    before = given.clone()
    TargetSpace(perceptron(), given, 0.1).load_state_dict(network().state_dict())
    assert_all_close([given], [before], 0)


@pytest.mark.parametrize("evaluating", [False, True])
def test_a_state_holds_lam_as_a_file_does(evaluating: bool, tmp_path: Path) -> None:
    net = network(lam=(0.3, 2.0)).train(not evaluating)
    torch.save(net.state_dict(), tmp_path / "state.pt")
    other = network(seed=5).train(not evaluating)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.lam == (0.3, 2.0)
    assert_all_close([other(PROBE)], [net(PROBE)], 1e-12)
    deeper = TargetSpace(nn.Sequential(*perceptron(), nn.Linear(2, 2).double()), X)
    with pytest.raises(ValueError, match="gives 2 values, but the network has 3"):
        deeper.set_extra_state(net.get_extra_state())


def test_loading_what_is_there_writes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", X.numpy())
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Torch warns of such memory.
        fixed = torch.from_numpy(rows)
    for given in (fixed, X[:1].expand(20, 3)):
        net = TargetSpace(perceptron(), given, 0.1)
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        net.load_state_dict(state)
        assert net.fixed_batch.data_ptr() == given.data_ptr()


def test_change_of_arithmetic() -> None:
    net = network().float()
    single = net(PROBE.float())
    assert single.dtype == torch.float32
    assert_all_close([single], [network()(PROBE)], 1e-4)
    net.to(torch.float64)
    double = net(PROBE)
    double.sum().backward()
    assert {g.dtype for g in gradients(net)} == {torch.float64}
    assert_all_close([net.eval()(PROBE), net.realise()(PROBE)], [double, double], 1e-12)


def test_weights_follow_tensors_swapped_in_and_buffers() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.register_buffer("scale", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x * self.scale)
            return out

    net, x = TargetSpace(Scaled(), torch.randn(20, 4)).eval(), torch.randn(5, 4)
    own = {name: p.detach() for name, p in net.named_parameters()}
    once = net(x)
    for factor in range(1, 7):  # New tensors, maybe in the memory of the last ones.
        scaled = {name: factor * p for name, p in own.items()}
        found = torch.func.functional_call(net, scaled, (x,))
        assert_all_close([found], [factor * once], 1e-5)
    net.module.scale *= 3
    assert_all_close([net(x)], [net.realise()(x)], 1e-6)


def test_attention_drops_out() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
            self.outer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            out: Tensor = self.outer(self.attention(x, x, x)[0])
            return out

    with pytest.warns(UserWarning, match="attention"):
        net = TargetSpace(Attentive(), torch.randn(20, 3, 4)).train()
    assert net.is_random
    assert not net.eval().is_random


@pytest.mark.parametrize(("n_layers", "rate"), [(2, 0.5), (2, 0.0), (1, 0.5)])
@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last")
def test_recurrent_layers_that_keep_their_weights_drop_out(
    n_layers: int, rate: float
) -> None:
    class Exit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.states = nn.GRU(3, 4, n_layers, dropout=rate, batch_first=True)
            self.states.requires_grad_(False)
            self.exit = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.exit(self.states(x)[0])
            return out

    x = torch.randn(8, 5, 3)
    net = TargetSpace(Exit(), x, 0.1)
    assert net.is_random == (n_layers == 2 and rate > 0)
    assert net.is_random == (not torch.equal(net(x), net(x)))
    assert not net.eval().is_random


def test_masks_of_encoders_do_not_nest_targets() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
            self.encoder, self.outer = nn.TransformerEncoder(layer, 1), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            mask = x[..., 0] < -1
            out: Tensor = self.outer(self.encoder(x, src_key_padding_mask=mask))
            return out

    with pytest.warns(UserWarning, match="attn"):
        net = TargetSpace(Encoder(), torch.randn(20, 3, 4)).train()
    net(torch.randn(6, 3, 4)).sum().backward()
    assert net.module.encoder.use_nested_tensor


def test_a_fused_step_counts_that_follows_an_evaluation_in_between() -> None:
    net = network().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
    F.mse_loss(net(PROBE), normal(6, 2, seed=8)).backward()
    net.eval()
    net(PROBE)
    net.train()
    optimizer.step()
    found = net.realise()(PROBE)
    torch.testing.assert_close(found, net.eval()(PROBE))


def test_loading_the_same_padded_fixed_batch_keeps_its_memory() -> None:
    fixed = normal(8, 5, 3)
    fixed[2, 3:] = torch.nan
    other = fixed.clone()
    other[3, 4:] = torch.nan
    net = TargetSpace(EndsOfSequences().double(), fixed)
    place, state = net.fixed_batch.data_ptr(), net.state_dict()
    net.load_state_dict(copy.deepcopy(state))
    assert net.fixed_batch.data_ptr() == place
    net.load_state_dict({**state, "fixed_batch": other})
    assert net.fixed_batch.data_ptr() != place
    assert torch.equal(fixed[3, 4:].isnan(), torch.zeros(1, 3, dtype=torch.bool))


class EndsOfSequences(nn.Module):
    """Reads the first step of sequences padded with NaN, and the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cat([x[:, 0], x.nanmean(1)], 1))


def test_wrapper_compiles_with_a_fixed_batch_changed_before() -> None:
    fixed = normal(30, 3)
    fixed -= fixed.mean(0)  # in place, which tensors count
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    net = TargetSpace(seeded(module), fixed)
    compiled = torch.compile(net, backend="eager")
    optimiser = torch.optim.SGD(net.parameters(), 0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about breaks of its graphs
        losses = []
        for _ in range(3):
            optimiser.zero_grad()
            loss = compiled(fixed).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
