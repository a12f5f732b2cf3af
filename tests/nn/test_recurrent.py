"""Recurrent layers in target space: weights against Alg. 5, and the contract."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from sktarget.nn import TargetSpace, _cells
from tests import reference, reference_recurrent
from tests.nn.recurrent_networks import (
    KINDS,
    Network,
    batch,
    every_kind,
    every_stack,
    grouped,
    leaves,
    recurrent,
    wrap,
)


@every_kind
@every_stack
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_weights_of_algorithm_5(
    kind: str, num_layers: int, bidirectional: bool, bias: bool, untangling: str
) -> None:
    module = Network(
        kind, num_layers=num_layers, bidirectional=bidirectional, bias=bias
    )
    fixed = batch(6, 7, 2)
    net = wrap(module, fixed, untangling=untangling)
    weights, _, h = reference_recurrent.realise(
        kind,
        grouped(net, 1 + bidirectional),
        fixed.numpy(),
        0.1,
        bias=bias,
        untangling=untangling,
    )
    realised = net.realise()
    found = iter(realised.rnn.all_weights)
    n_inputs = 2
    for layer in weights:
        for matrix in layer:
            wanted = reference_recurrent.to_torch(kind, matrix, n_inputs, bias)
            for a, b in zip(next(found), wanted, strict=True):
                assert_allclose(a.detach(), b, rtol=0, atol=1e-10)
        n_inputs = 4 * (1 + bidirectional)

    rows = np.hstack([np.ones((42, 1)), h.reshape(42, -1)])
    targets = net.target_layers()["exit"].targets.detach().numpy().reshape(42, 3)
    wanted = reference.ridge(rows, targets, 0.1)
    assert_allclose(realised.exit.weight.detach().numpy(), wanted[1:].T, atol=1e-10)
    assert_allclose(realised.exit.bias.detach().numpy(), wanted[0], atol=1e-10)


@every_kind
@pytest.mark.parametrize("n_steps", [1, 4, 7, 9])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_outputs_are_those_of_the_realised_module(
    kind: str, n_steps: int, untangling: str
) -> None:
    net = wrap(Network(kind, num_layers=2), batch(6, 7, 2), untangling=untangling)
    x = batch(5, n_steps, 2)
    wanted = net.realise()(x)
    assert_allclose(net(x).detach(), wanted.detach(), atol=1e-12)
    assert_allclose(
        net(net.fixed_batch[:5]).detach(),
        net.realise()(net.fixed_batch[:5]).detach(),
        atol=1e-12,
    )
    assert_allclose(net.eval()(x).detach(), wanted.detach(), atol=1e-12)


@every_kind
def test_fixed_batch_as_mini_batch_takes_one_pass(kind: str) -> None:
    net = wrap(Network(kind), batch(6, 7, 2))
    runs = []
    net.module.rnn.register_forward_hook(lambda *_: runs.append(1))
    once = net(net.fixed_batch)
    assert len(runs) == 1
    assert_allclose(once.detach(), net(net.fixed_batch.clone()).detach(), atol=1e-12)


@every_kind
def test_kernel_takes_some_sequences_at_a_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = wrap(Network(kind), batch(6, 7, 2)), batch(5, 7, 2)
    found = []
    for numbers in (_cells._WORKSPACE, 1, 200):
        monkeypatch.setattr(_cells, "_WORKSPACE", numbers)
        net.zero_grad()
        out = net(x)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad for p in net.parameters())])
    for part in found[1:]:
        for a, b in zip(part, found[0], strict=True):
            assert_allclose(a, b, atol=1e-10)


@every_kind
@every_stack
def test_targets_from_weights_give_the_weights_back(
    kind: str, num_layers: int, bidirectional: bool
) -> None:
    module = recurrent(kind, 2, 4, num_layers=num_layers, bidirectional=bidirectional)
    net = TargetSpace(module, batch(40, 9, 2), lam=0.0)
    x = batch(3, 12, 2)
    for a, b in zip(leaves(net(x)), leaves(module(x)), strict=True):
        assert_allclose(a.detach(), b.detach(), atol=1e-8)
    if kind != "relu":  # Units that are never on leave weights of no consequence.
        for old, new in zip(module.all_weights, net.realise().all_weights, strict=True):
            assert_allclose(old[0].detach(), new[0].detach(), atol=1e-8)
            assert_allclose(old[1].detach(), new[1].detach(), atol=1e-8)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_projection_is_taken_at_the_true_run(kind: str, bidirectional: bool) -> None:
    fixed = batch(6, 7, 2)
    module = recurrent(kind, 2, 4, bidirectional=bidirectional)
    net = TargetSpace(module, fixed, 0.1)
    net.reset_targets(1.0, project=False, generator=torch.Generator().manual_seed(1))
    _, sums, _ = reference_recurrent.realise(
        kind, grouped(net, 1 + bidirectional), fixed.numpy(), 0.1
    )
    net.reset_targets(1.0, generator=torch.Generator().manual_seed(1))
    for a, b in zip(grouped(net, 1 + bidirectional)[0], sums[0], strict=True):
        assert_allclose(a, b, atol=1e-10)


@every_kind
@every_stack
def test_one_parameter_for_each_layer_and_direction(
    kind: str, num_layers: int, bidirectional: bool
) -> None:
    module = recurrent(kind, 2, 4, num_layers=num_layers, bidirectional=bidirectional)
    net = TargetSpace(module, batch(6, 7, 2))
    blocks = reference_recurrent.CELLS[kind].n_blocks
    shapes = [tuple(p.shape) for p in net.parameters()]
    assert shapes == [(6, 7, 4 * blocks)] * (num_layers * (1 + bidirectional))
    names = [f"l{k}{d}" for k in range(num_layers) for d in ("", "_reverse")]
    assert list(net.target_layers()) == names[:: 2 - bidirectional]


@every_kind
def test_one_step(kind: str) -> None:
    net = wrap(Network(kind, bidirectional=True), batch(9, 1, 2))
    x = batch(4, 1, 2)
    out = net(x)
    out.sum().backward()
    assert_allclose(out.detach(), net.realise()(x).detach(), atol=1e-12)
    assert all(p.grad.isfinite().all() for p in net.parameters())


@every_kind
def test_copies_pickles_and_states(kind: str) -> None:
    net = wrap(Network(kind, num_layers=2, bidirectional=True), batch(6, 7, 2))
    x = batch(3, 8, 2)
    out = net(x).detach()
    fresh = TargetSpace(
        Network(kind, num_layers=2, bidirectional=True), net.fixed_batch, 0.1
    )
    fresh.load_state_dict(net.state_dict())
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), fresh]
    for twin in twins:
        assert_allclose(twin(x).detach(), out, atol=1e-12)
        assert_allclose(twin.eval()(x).detach(), out, atol=1e-12)


@every_kind
def test_realised_module_is_torch_s_own(kind: str) -> None:
    module = Network(kind, num_layers=2, bidirectional=True, dropout=0.5)
    realised = wrap(module, batch(6, 7, 2)).realise()
    assert type(realised.rnn) is type(module.rnn)
    assert repr(realised) == repr(module)
    assert realised.state_dict().keys() == module.state_dict().keys()
    for old, new in zip(module.parameters(), realised.parameters(), strict=True):
        assert old.shape == new.shape
        assert old.dtype == new.dtype
        assert new.requires_grad


def test_dropout_between_layers_is_drawn_for_each_batch() -> None:
    net = wrap(Network("lstm", num_layers=2, dropout=0.5), batch(6, 7, 2))
    assert not torch.equal(net(net.fixed_batch), net(net.fixed_batch))
    net.eval()
    assert torch.equal(net(net.fixed_batch), net(net.fixed_batch))


def test_second_call_applies_the_weights_of_the_first() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = recurrent("tanh", 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(self.rnn(x)[0])[0]

    net = wrap(Twice(), batch(6, 7, 2))
    for n_steps in (7, 3):
        x = batch(4, n_steps, 2)
        assert_allclose(net(x).detach(), net.realise()(x).detach(), atol=1e-12)


@every_kind
def test_lam_may_change(kind: str) -> None:
    net = wrap(Network(kind, num_layers=2, bidirectional=True), batch(6, 7, 2))
    fresh = TargetSpace(
        Network(kind, num_layers=2, bidirectional=True), net.fixed_batch, lam=2.0
    )
    fresh.load_state_dict(net.state_dict())
    x = batch(3, 7, 2)
    before = net(x).detach()
    net.lam = fresh.lam = 2.0
    assert {layer.lam for layer in net.target_layers().values()} == {2.0}
    assert_allclose(net(x).detach(), fresh(x).detach(), atol=1e-12)
    assert (net(x) - before).abs().max() > 1e-3


def test_errors() -> None:
    net = wrap(recurrent("gru", 2, 4), batch(6, 7, 2))
    with pytest.raises(ValueError, match="starts from zero"):
        net.module(batch(3, 7, 2), batch(1, 3, 4))
    learnt = nn.Parameter(torch.zeros(1, 3, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="none is learnt"):
        net.module(batch(3, 7, 2), learnt)
    with pytest.raises(ValueError, match=r"three axes, .* got shape \(7, 2\)"):
        net(batch(7, 2))
    with pytest.raises(ValueError, match="at least one step"):
        net(batch(3, 0, 2))
    with torch.no_grad():
        net.target_layers()["l0"].targets[0, 0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="layer 'l0' could not be solved"):
        net(batch(3, 7, 2))


def test_lstm_with_projections_keeps_its_weights() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 4, proj_size=3)).double()
    with pytest.warns(UserWarning, match=r"1 \(LSTM, "):
        net = TargetSpace(module, batch(6, 7, 2))
    assert list(net.target_layers()) == ["0"]


def test_single_precision_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            net = TargetSpace(Network(kind).float(), batch(50, 7, 2).float(), lam=0.1)
            x = batch(3, 9, 2).float()
            out = net(x)
            out.sum().backward()
            assert out.dtype == torch.float32
            assert_allclose(out.detach(), net.eval()(x).detach(), atol=1e-5)


@every_kind
def test_another_fixed_batch_is_refused(kind: str) -> None:
    net = wrap(recurrent(kind, 2, 4), batch(6, 7, 2))
    net.fixed_batch = batch(8, 7, 2)
    for run in (net.eval, lambda: net.train()(batch(3, 7, 2))):
        with pytest.raises(ValueError, match=r"given the shape \(8, 7, 2\)"):
            run()


class Changes(nn.Module):
    """Gives its recurrent layer other sequences once it is being trained."""

    def __init__(self, n: int, *, packed: bool) -> None:
        super().__init__()
        self.layer = nn.GRU(2, 4, batch_first=True)
        self.n, self.packed = n, packed

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = torch.cat([x, x])[: self.n]
        if self.packed:
            x = pack_padded_sequence(x, [7] * len(x), batch_first=True)
        return self.layer(x)[1][-1]


@pytest.mark.parametrize("n", [4, 9])
@pytest.mark.parametrize("packed", [False, True])
def test_other_rows_on_the_fixed_batch_are_refused(n: int, packed: bool) -> None:
    module = Changes(n, packed=packed).double().eval()
    net = TargetSpace(module, batch(6, 7, 2), 0.1).train()
    with pytest.raises(RuntimeError, match=rf"'layer.*' is fed {n} rows on the fixed"):
        net(net.fixed_batch)
