"""Modules as people write them: hooks, sharing, encoders, packing, autocast."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

from sktarget.nn import TargetSpace
from tests.helpers import normal


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


class Recurrent(nn.Module):
    """A recurrent layer and an exit, with something done in between."""

    def __init__(self, kind: type[nn.RNNBase], between: Callable[..., Tensor]) -> None:
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True)
        self.exit = nn.Linear(4, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(input=self.between(self.rnn, x))


def same_as_realised(module: nn.Module, fixed: Tensor, x: Tensor) -> TargetSpace:
    """Check that all targets are reached by gradients, and outputs those realised."""
    net = TargetSpace(module, fixed, lam=0.1)
    out = net(x)
    out.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    torch.testing.assert_close(out, net.realise()(x), rtol=1e-4, atol=1e-5)
    return net


def test_directions_that_share_weights_keep_them() -> None:
    cell = nn.GRU(3, 4, bidirectional=True, batch_first=True).double()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        setattr(cell, f"{name}_reverse", getattr(cell, name))
    module = nn.Sequential(cell, Last(), nn.Linear(8, 2).double())
    with pytest.warns(UserWarning, match=r"0 \(GRU, which shares weights\)"):
        net = TargetSpace(module, normal(5, 6, 3), 0.1)
    assert list(net.target_layers()) == ["2"]
    realised = net.realise()[0]
    assert realised.weight_ih_l0_reverse is realised.weight_ih_l0


class Last(nn.Module):
    """Outputs of a recurrent layer at the last step."""

    def forward(self, outputs: Any) -> Tensor:
        last: Tensor = outputs[0][:, -1]
        return last


def test_tied_layers_keep_their_weights() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 1))
    module[2].weight = module[0].weight
    shared = r"0 \(Linear, which shares weights\), 2 \(Linear"
    with pytest.warns(UserWarning, match=shared):
        net = TargetSpace(module, torch.randn(9, 3))
    assert list(net.target_layers()) == ["3"]
    realised = net.realise()
    assert realised[0].weight is realised[2].weight


def test_computed_weights_are_to_be_made_permanent() -> None:
    module = dense()
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"'0' \(Linear\) computes its weights"):
        TargetSpace(module, torch.randn(9, 3))
    prune.remove(module[0], "weight")
    same_as_realised(module, torch.randn(9, 3), torch.randn(4, 3))


def test_layer_frozen_in_part_is_left_alone() -> None:
    module = dense()
    module[0].weight.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"0 \(Linear, frozen in part\)"):
        net = TargetSpace(module, torch.randn(9, 3))
    assert net.realise()[0].weight.equal(module[0].weight)


def test_lazy_layer_is_to_run_first() -> None:
    module = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 2))
    fixed = torch.randn(9, 3)
    with pytest.raises(ValueError, match=r"'0' \(LazyLinear\) has no weights yet"):
        TargetSpace(module, fixed)
    module(fixed)
    assert list(TargetSpace(module, fixed).target_layers()) == ["0", "2"]


def test_hooks_go_along() -> None:
    module, seen = dense(), []
    module[0].register_forward_hook(lambda layer, x, out: seen.append(len(out)))
    module[2].register_forward_pre_hook(lambda layer, x: (2 * x[0],))
    fixed, x = torch.randn(9, 3), torch.randn(4, 3)
    net = same_as_realised(module, fixed, x)
    # To record, as given, on trial, to train, to realise, and realised.
    assert seen == [9, 9, *(5, 14), *(9, 5, 14), *[5, 14] * 2, 13, 9, 4]
    torch.testing.assert_close(copy.deepcopy(net)(x), net(x))


def test_attributes_of_the_layers_are_there() -> None:
    conv = nn.Conv2d(2, 3, 5, padding=2)
    net = TargetSpace(conv, torch.randn(4, 2, 6, 6))
    assert (net.module.out_channels, net.module.kernel_size) == (3, (5, 5))
    lstm = TargetSpace(
        Recurrent(nn.LSTM, lambda rnn, x: rnn(x)[0]), torch.randn(9, 5, 3)
    )
    assert (lstm.module.rnn.hidden_size, lstm.module.rnn.mode) == (4, "LSTM")


def zeros_given(rnn: nn.Module, x: Tensor) -> Tensor:
    rnn.flatten_parameters()
    return rnn(x, torch.zeros(1, len(x), rnn.hidden_size))[0]


def first_forgotten(rnn: nn.Module, x: Tensor) -> Tensor:
    h = rnn(x)[0]
    h[:, 0] = 0
    return h.relu_()


@pytest.mark.parametrize("between", [zeros_given, first_forgotten])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU])
def test_recurrent_layers_are_used_as_usual(
    kind: type[nn.RNNBase], between: Callable[..., Tensor]
) -> None:
    same_as_realised(
        Recurrent(kind, between), torch.randn(9, 5, 3), torch.randn(4, 5, 3)
    )


def test_packed_batch() -> None:
    module = Recurrent(nn.RNN, lambda rnn, x: rnn(x)[1][-1])
    x = pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    same_as_realised(module, torch.randn(9, 5, 3), x)


@pytest.mark.parametrize("fixed_rows", [6, 30])
def test_transformer_encoder(fixed_rows: int) -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    module = nn.Sequential(nn.Linear(3, 8), encoder, nn.Linear(8, 2))
    fixed = torch.randn(fixed_rows, 6, 3)
    with pytest.warns(UserWarning, match="1.self_attn"):
        net = same_as_realised(module, fixed, torch.randn(4, 6, 3))
    assert list(net.target_layers()) == ["0", "1.linear1", "1.linear2", "2"]
    x = torch.randn(5, 6, 3)
    with torch.no_grad():
        trained = net(x)
        torch.testing.assert_close(net.eval()(x), trained, rtol=1e-4, atol=1e-5)


def conv() -> nn.Sequential:
    maps = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ReLU())
    return nn.Sequential(maps, nn.Flatten(), nn.Linear(20, 2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (dense, (3,)),
    "conv": (conv, (3, 5)),
    **{
        kind.__name__: (lambda kind=kind: Recurrent(kind, lambda r, x: r(x)[0]), (5, 3))
        for kind in (nn.RNN, nn.LSTM, nn.GRU)
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_autocast_leaves_the_solves_alone(name: str) -> None:
    make, shape = NETWORKS[name]
    fixed, x = torch.randn(20, *shape), torch.randn(4, *shape)
    net = TargetSpace(make(), fixed, lam=0.1)
    exact = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(x).square().mean()
        torch.testing.assert_close(net.eval()(x).float(), exact, rtol=0.05, atol=0.05)
        # Which PyTorch advises against, and which happens.
        within = torch.autograd.grad(loss, net.parameters(), retain_graph=True)
    after = torch.autograd.grad(loss, net.parameters())
    for early, late in zip(within, after, strict=True):
        assert late.isfinite().all()
        torch.testing.assert_close(early, late)


def test_inference_mode() -> None:
    net = TargetSpace(dense(), torch.randn(20, 3))
    x = torch.randn(4, 3)
    with torch.inference_mode():
        inferred = net(x)
        realised = net.realise()
    torch.testing.assert_close(net(x).detach(), inferred.clone())
    realised(x).sum().backward()  # can be trained further


def test_inputs_changed_in_place_in_inference_mode() -> None:
    module = nn.Sequential(nn.Threshold(0.0, 0.5, inplace=True), nn.Linear(3, 2))
    net = TargetSpace(module, torch.randn(20, 3), lam=0.1)
    x = torch.randn(4, 3)
    trained = net(x.clone()).detach()
    with torch.inference_mode():
        torch.testing.assert_close(net(x.clone()), trained)
        assert len(net._stage.factors) == 0  # none factor of what is not X̄ itself


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_part_of_the_module_cannot_run_by_itself() -> None:
    recurrent = Recurrent(nn.GRU, lambda rnn, x: rnn(x)[0])
    for module, shape in ((dense(), (3,)), (recurrent, (5, 3))):
        net, x = TargetSpace(module, torch.randn(20, *shape)), torch.randn(4, *shape)
        for enabled in (True, False):
            with (
                torch.set_grad_enabled(enabled),
                pytest.raises(RuntimeError, match="call the TargetSpace"),
            ):
                net.module(x)
        assert net.eval().module(x).shape[0] == 4

    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rest = nn.Linear(3, 3), dense()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint(self.rest, self.first(x), use_reentrant=True)
            return out

    loss = TargetSpace(Saving(), torch.randn(20, 3))(torch.randn(4, 3)).sum()
    with pytest.raises(RuntimeError, match="checkpoint the whole or nothing"):
        loss.backward()


class Tied(nn.Module):
    """An autoencoder whose decoder shares the weights of its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.there(x)), self.there.weight.T)


def test_weights_may_be_used_elsewhere_once_they_are_solved_for() -> None:
    x = normal(20, 5)
    net = TargetSpace(Tied().double(), x, lam=0.1).train()
    targets = net.module.there.targets
    other = normal(7, 5, seed=1)

    def loss(targets: Tensor) -> Tensor:
        names = {"module.there.targets": targets}
        out: Tensor = torch.func.functional_call(net, names, (other,)).square().mean()
        return out

    assert torch.autograd.gradcheck(loss, [targets])
    with torch.no_grad():
        net.module.there.targets.add_(0.3)
    learnt = net(other)
    torch.testing.assert_close(learnt, net.eval()(other))
    torch.testing.assert_close(learnt, net.realise()(other))


def test_weights_that_are_not_solved_for_yet_are_unknown() -> None:
    class Early(Tied):
        def forward(self, x: Tensor) -> Tensor:
            weight, bias = self.there.weight, self.there.bias
            assert weight.shape == (3, 5)
            assert bias is not None
            assert bias.shape == (3,)
            return self.there(x.to(weight.device, weight.dtype))

    class TooEarly(Tied):
        def forward(self, x: Tensor) -> Tensor:
            return self.there.weight.norm() * self.there(x)

    x = normal(3, 5)
    net = TargetSpace(Early().double(), normal(20, 5)).train()
    torch.testing.assert_close(net(x), net.eval()(x))
    net = TargetSpace(TooEarly().double(), normal(20, 5)).train()
    assert net(x).isnan().all()


def test_weights_kept_by_a_net_that_works_in_place() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    module = module.double()
    x = normal(30, 4)
    net = TargetSpace(module, x, lam=0.1, untangling="ocu", keep_weights=True)
    torch.testing.assert_close(net.eval()(x), module(x))


@pytest.mark.parametrize("of", ["layer", "activation", "sequence"])
def test_forwards_of_single_modules_run(of: str) -> None:
    inner = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    module = nn.Sequential(inner, nn.Linear(3, 2)).double()
    net = TargetSpace(module, normal(10, 4), lam=0.1).train()
    part = {"layer": net.module[0][0], "activation": net.module[0][1]}.get(
        of, net.module[0]
    )
    forward, seen = type(part).forward, []

    def patched(x: Tensor, *args: Any) -> Any:
        seen.append(len(x))
        return forward(part, x, *args)

    part.forward = patched
    net(normal(3, 4))
    assert seen == [13]


def test_fixed_batches_of_another_shape_are_refused() -> None:
    net = TargetSpace(dense(), torch.randn(9, 3)).train()
    for n in (5, 12):
        net.fixed_batch = torch.randn(n, 3)
        with pytest.raises(ValueError, match=rf"\({n}, 3\), but .* \(9, 3\): make"):
            net(torch.randn(20, 3))
    net.fixed_batch = torch.randn(9, 3)
    assert net(torch.randn(20, 3)).shape == (20, 2)


def test_what_is_no_network_and_no_rows() -> None:
    x: Any = torch.randn(9, 3)
    with pytest.raises(TypeError, match=r"an nn\.Module.*got a class"):
        TargetSpace(nn.Linear, x)  # type: ignore[arg-type]
    net = TargetSpace(dense(), x).train()
    with pytest.raises(ValueError, match="module holds a TargetSpace: give"):
        TargetSpace(net, x)
    for wrong, what in ((x.numpy(), "ndarray: torch.as"), (x[:, 0], r"\(9,\): x\[:")):
        with pytest.raises(ValueError, match=f"fixed_batch must be .*got .*{what}"):
            TargetSpace(dense(), wrong)
    for mode in (True, False):
        with pytest.raises(TypeError, match="layer '0' takes a tensor, got ndarray"):
            net.train(mode)(x.numpy())
