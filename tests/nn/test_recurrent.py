"""Recurrent layers in target space, against slow truths and by their properties."""

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sktarget.nn import TargetSpace
from sktarget.nn._scan import linear_scan
from tests import reference, reference_recurrent

KINDS: dict[str, Any] = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_stack = pytest.mark.parametrize(
    ("num_layers", "bidirectional"), [(1, False), (1, True), (2, False), (3, True)]
)


def recurrent(kind: str, *sizes: int, **options: Any) -> nn.RNNBase:
    make, more = KINDS[kind]
    layer: nn.RNNBase = make(
        *sizes, **{"batch_first": True, "dtype": torch.float64, **more, **options}
    )
    return layer


class Network(nn.Module):
    """A recurrent module and a dense exit layer, on all steps."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.rnn = recurrent(kind, 2, 4, **options)
        width = 4 * (2 if self.rnn.bidirectional else 1)
        self.exit = nn.Linear(width, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.rnn(x)[0])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def wrap(
    module: nn.Module, fixed: Tensor, lam: float = 0.1, untangling: str = "scu"
) -> TargetSpace:
    """Wrap a module with random, unprojected targets: far from any that can be met."""
    net = TargetSpace(module, fixed, lam, untangling)
    return net.reset_targets(1.0, project=False)


def grouped(net: TargetSpace, width: int) -> list[list[np.ndarray]]:
    """Group the targets of the recurrent module by layer."""
    layers = net.target_layers()
    flat = [m.targets.detach().numpy() for name, m in layers.items() if name != "exit"]
    return [flat[k : k + width] for k in range(0, len(flat), width)]


def leaves(output: Any) -> list[Tensor]:
    outputs, last = output
    return [outputs, *(last if isinstance(last, tuple) else [last])]


# --- The weights ----------------------------------------------------------------------


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


# --- Gradients ------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("n_steps", [3, 4])
def test_gradcheck(kind: str, untangling: str, n_steps: int) -> None:
    module = Network(kind, num_layers=2, bidirectional=True)
    net = wrap(module, batch(3, 4, 2), untangling=untangling)
    names = [name for name, _ in net.named_parameters()]
    x = batch(2, n_steps, 2).requires_grad_()

    def loss(x: Tensor, *targets: Tensor) -> Tensor:
        given = dict(zip(names, targets, strict=True))
        out: Tensor = torch.func.functional_call(net, given, (x,))
        return out.square().sum()

    targets = tuple(p.detach().clone().requires_grad_() for p in net.parameters())
    assert torch.autograd.gradcheck(loss, (x, *targets), fast_mode=True)


def _step(kind: str, s: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    if kind in ("tanh", "relu"):
        return getattr(s, kind)(), c
    p, q, u, v = s.chunk(4, 1)
    if kind == "lstm":
        c = q.sigmoid() * c + p.sigmoid() * u.tanh()
        return v.sigmoid() * c.tanh(), c
    n = torch.tanh(u + p.sigmoid() * v)
    return n + q.sigmoid() * (h - n), c


def _loop(kind: str, x: Tensor, matrix: Tensor | None, targets: Tensor) -> Tensor:
    """Run a cell with its matrix, or, without one, as if all targets were met."""
    h = c = x.new_zeros(len(x), 4)
    outputs = []
    for t in range(x.shape[1]):
        if matrix is None:
            s = targets[:, t]
        else:
            s = torch.cat([torch.ones_like(h[:, :1]), x[:, t], h], 1) @ matrix
        h, c = _step(kind, s, h, c)
        outputs.append(h)
    return torch.stack(outputs, 1)


def _ridge(rows: Tensor, targets: Tensor) -> Tensor:
    gram = rows.T @ rows + 0.1 * torch.eye(rows.shape[1], dtype=rows.dtype)
    return torch.linalg.solve(gram, rows.T @ targets)


def _slow_layer(kind: str, x_bar: Tensor, targets: Tensor) -> Tensor:
    h = _loop(kind, x_bar, None, targets)
    context = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    ones = torch.ones_like(h[:, :, :1])
    rows = torch.cat([ones, x_bar, context], 2).flatten(0, 1)
    t = targets.flatten(0, 1)
    if kind != "gru":
        return _ridge(rows, t)
    d = x_bar.shape[2]
    both = _ridge(rows, t[:, :8])
    u, v = (
        _ridge(rows[:, : 1 + d], t[:, 8:12]),
        _ridge(rows[:, [0, *range(1 + d, 5 + d)]], t[:, 12:]),
    )
    u = torch.cat([u, u.new_zeros(4, 4)])
    v = torch.cat([v[:1], v.new_zeros(d, 4), v[1:]])
    return torch.cat([both, u, v], 1)


@every_kind
@pytest.mark.parametrize("n_steps", [5, 6])
def test_gradients_of_plain_autograd_through_loops(kind: str, n_steps: int) -> None:
    x_bar, x = batch(6, 5, 2), batch(3, n_steps, 2)
    net = wrap(Network(kind, num_layers=2), x_bar)
    net(x).square().sum().backward()
    layers = net.target_layers()
    t0, t1, t2 = (m.targets.detach().clone().requires_grad_() for m in layers.values())
    for t in (t0, t1):
        matrix = _slow_layer(kind, x_bar, t)
        x_bar, x = _loop(kind, x_bar, matrix, t), _loop(kind, x, matrix, t)
    ones = torch.ones_like(x_bar[:, :, :1])
    w = _ridge(torch.cat([ones, x_bar], 2).flatten(0, 1), t2.flatten(0, 1))
    (x @ w[1:] + w[0]).square().sum().backward()
    for fast, slow in zip(net.parameters(), (t0, t1, t2), strict=True):
        assert_allclose(fast.grad, slow.grad, rtol=1e-8, atol=1e-10)


def test_linear_scan() -> None:
    for n_steps in (1, 2, 3, 8, 13):
        decay = torch.rand(2, n_steps, 3, dtype=torch.float64).requires_grad_()
        gain = batch(2, n_steps, 3).requires_grad_()
        c, states = torch.zeros(2, 3, dtype=torch.float64), []
        for t in range(n_steps):
            c = decay[:, t] * c + gain[:, t]
            states.append(c)
        assert_allclose(
            linear_scan(decay, gain).detach(), torch.stack(states, 1).detach()
        )
        assert torch.autograd.gradcheck(linear_scan, (decay, gain))


# --- Layouts --------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_time_first(kind: str, bidirectional: bool) -> None:
    fixed, x = batch(6, 7, 2), batch(5, 7, 2)
    options = {"num_layers": 2, "bidirectional": bidirectional}
    net = wrap(recurrent(kind, 2, 4, **options), fixed)
    turned = recurrent(kind, 2, 4, batch_first=False, **options)
    other = TargetSpace(turned, fixed.transpose(0, 1), 0.1)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert a.shape == b.shape
        b.data.copy_(a)
    for ours, theirs in ((net, other), (net.eval(), other.eval())):
        for i, (a, b) in enumerate(
            zip(leaves(ours(x)), leaves(theirs(x.transpose(0, 1))), strict=True)
        ):
            b = b.transpose(0, 1) if i == 0 else b
            assert_allclose(a.detach(), b.detach(), atol=1e-12)


@every_kind
@pytest.mark.parametrize("n_fixed", [2, 6])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_last_states_are_those_of_x(kind: str, n_fixed: int, untangling: str) -> None:
    # With two rows of X̄, h_n of two layers has as many rows as X̄: a coincidence.
    module = recurrent(kind, 2, 4, num_layers=2)
    net = wrap(module, batch(n_fixed, 7, 2), untangling=untangling)
    x = batch(5, 7, 2)
    for a, b in zip(leaves(net(x)), leaves(net.realise()(x)), strict=True):
        assert a.shape == b.shape
        assert_allclose(a.detach(), b.detach(), atol=1e-12)


class Packed(nn.Module):
    """Sequences of unequal lengths, by a last feature that is nan on padding."""

    def __init__(self, kind: str, sort: bool, **options: Any) -> None:
        super().__init__()
        self.rnn = recurrent(kind, 2, 4, **options)
        self.sort = sort

    def forward(self, x: Tensor) -> Tensor:
        lengths = (~x[:, :, 0].isnan()).sum(1)
        packed = pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=self.sort
        )
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


def padded(lengths: list[int]) -> Tensor:
    x = batch(len(lengths), max(lengths), 2)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = torch.nan
    return x


@every_kind
@pytest.mark.parametrize("lengths", [[5, 4, 2, 1], [3, 1, 5, 3]])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_packed_sequences(kind: str, lengths: list[int], untangling: str) -> None:
    sort = lengths == sorted(lengths, reverse=True)
    fixed, x = padded(lengths), padded([6, 4, 1])
    module = Packed(kind, sort, num_layers=2, bidirectional=True)
    net = wrap(module, fixed, untangling=untangling)
    targets = grouped(net, 2)
    zeros = np.nan_to_num(fixed.numpy())
    weights, _, _ = reference_recurrent.realise(
        kind, targets, zeros, 0.1, untangling=untangling, lengths=lengths
    )
    realised = net.realise()
    wanted = reference_recurrent.to_torch(kind, weights[1][1], 8, True)
    for a, b in zip(realised.rnn.all_weights[3], wanted, strict=True):
        assert_allclose(a.detach(), b, atol=1e-10)
    out = net(x)
    assert_allclose(out.detach(), realised(x).detach(), atol=1e-12)
    out.sum().backward()
    for layer in net.target_layers().values():
        for row, length in zip(layer.targets.grad, lengths, strict=True):
            assert (row[length:] == 0).all()
            assert (row[:length] != 0).any()


# --- The contract ---------------------------------------------------------------------


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


def test_errors() -> None:
    net = wrap(recurrent("gru", 2, 4), batch(6, 7, 2))
    with pytest.raises(ValueError, match="starts from zero"):
        net.module(batch(3, 7, 2), batch(1, 3, 4))
    with pytest.raises(ValueError, match=r"three axes .* got shape \(7, 2\)"):
        net(batch(7, 2))
    with pytest.raises(ValueError, match="at least one step"):
        net(batch(3, 0, 2))
    with torch.no_grad():
        net.target_layers()["l0"].targets[0, 0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="layer 'l0' could not be solved"):
        net(batch(3, 7, 2))


def test_lstm_with_projections_keeps_its_weights() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 4, proj_size=3)).double()
    with pytest.warns(UserWarning, match=r"1 \(LSTM\)"):
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
