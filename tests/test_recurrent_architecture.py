"""Recurrent networks take padded sequences as if each ran alone."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from sktarget.architectures import CELLS, RecurrentNetwork, chrono_
from sktarget.nn import TargetSpace
from tests.helpers import normal

every_network = pytest.mark.parametrize(
    ("cell", "bidirectional", "per_step"),
    list(itertools.product(CELLS, [False, True], [False, True])),
)


def network(
    cell: str, bidirectional: bool, per_step: bool, **options: object
) -> RecurrentNetwork:
    settings = {
        "activation": "tanh",
        "generator": torch.Generator().manual_seed(0),
        "dtype": torch.float64,
    }
    return RecurrentNetwork(
        2,
        (5, 4),
        (6,),
        3,
        cell=cell,
        bidirectional=bidirectional,
        return_sequences=per_step,
        **(settings | options),
    )


def ragged(n: int = 40, seed: int = 0) -> tuple[Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 7, 2, dtype=torch.float64, generator=generator)
    lengths = [7] * n
    for k in range(1, n):
        lengths[k] = 1 + k % 7
        x[k, lengths[k] :] = torch.nan
    return x, lengths


@every_network
def test_padding_changes_nothing(
    cell: str, bidirectional: bool, per_step: bool
) -> None:
    net = network(cell, bidirectional, per_step)
    x, lengths = ragged()
    together = net(x)
    for out, own, length in zip(together, x, lengths, strict=True):
        alone = net(own[None, :length])[0]
        if per_step:
            assert out[length:].eq(0).all()
            out = out[:length]
        torch.testing.assert_close(out, alone, rtol=0, atol=1e-12)


@every_network
@pytest.mark.parametrize("whole", [False, True])
def test_targets_of_own_weights_give_the_network_back(
    cell: str, bidirectional: bool, per_step: bool, whole: bool
) -> None:
    net = network(cell, bidirectional, per_step, shortcuts=True)
    x, _ = ragged(60)
    fixed = normal(60, 7, 2, seed=1) if whole else ragged(60, 1)[0]
    wrapped = TargetSpace(net, fixed, lam=1e-10)
    torch.testing.assert_close(wrapped(x), net(x), rtol=0, atol=1e-5)
    wrapped(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in wrapped.parameters())


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_sequences_of_any_length_beside_a_fixed_batch_of_whole_ones(
    untangling: str,
) -> None:
    # X̄ alone could be stacked with the batch; with padding in the batch it cannot.
    net = network("rnn", True, True)
    fixed = normal(30, 7, 2, seed=1)
    wrapped = TargetSpace(net, fixed, 0.1, untangling)
    wrapped.reset_targets(project=False, generator=torch.Generator().manual_seed(1))
    x, _ = ragged()
    torch.testing.assert_close(
        wrapped.train()(x), wrapped.eval()(x), rtol=0, atol=1e-10
    )


def test_direction_backwards_ends_at_the_first_step() -> None:
    net = network("rnn", True, False)
    net.recurrent = net.recurrent[:1]
    net.exit = nn.Identity()
    x = normal(3, 7, 2)
    _, last = net.recurrent[0](x)
    torch.testing.assert_close(net(x), torch.cat([last[0], last[1]], dim=1))


def test_embedding() -> None:
    net = network("lstm", False, False, vocabulary_size=9, embedding_dim=3)
    assert net.recurrent[0].input_size == 3
    assert net.embedding.weight[0].eq(0).all()
    ids = torch.tensor([[3, 8, 0, 0], [1, 0, 5, 2]])
    torch.testing.assert_close(net(ids)[:1], net(ids[:1, :2]))
    torch.testing.assert_close(net(ids)[1:], net(net.embedding(ids[1:])))


def test_initial_weights_come_from_the_generator(global_state_untouched: None) -> None:
    a, b = (
        network("lstm", False, False, vocabulary_size=9, embedding_dim=3) for _ in "ab"
    )
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        assert one.equal(other)
    layer = a.recurrent[0]
    assert layer.bias_ih_l0.tolist() == [0] * 5 + [1] * 5 + [0] * 10
    assert not layer.bias_hh_l0.any()
    for gate in layer.weight_hh_l0.split(5):
        torch.testing.assert_close(gate @ gate.T, torch.eye(5, dtype=torch.float64))


def test_dropout_follows_every_recurrent_layer() -> None:
    net = network("gru", False, True, dropout=0.5)
    x, _ = ragged(4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


# --- Gates ----------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_states_fade_over_two_steps_to_the_memory(cell: str) -> None:
    net = network(cell, True, False)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    chrono_(net, 30, torch.Generator().manual_seed(0))
    fades = []
    for name, parameter in net.named_parameters():
        if "bias_ih" not in name:
            assert parameter.equal(before[name])
            continue
        blocks = parameter.detach().chunk(4 if cell == "lstm" else 3)
        fades.append(1 / (1 - blocks[1].sigmoid()))
        if cell == "lstm":
            torch.testing.assert_close(blocks[0], -blocks[1])
        others = blocks[2:] if cell == "lstm" else [blocks[0], blocks[2]]
        assert not any(block.any() for block in others)
    found = torch.cat(fades)
    assert len(found) == 2 * (5 + 4)
    assert len(found.unique()) == len(found)
    assert 2 <= found.min() < 8
    assert 24 < found.max() <= 30


def test_networks_without_gates_that_have_biases() -> None:
    for net in (network("rnn", False, False), nn.GRU(1, 2, bias=False)):
        before = [p.detach().clone() for p in net.parameters()]
        with pytest.raises(ValueError, match="has no LSTM or GRU layer with biases"):
            chrono_(net, 30)
        assert all(map(torch.equal, net.parameters(), before))
    with pytest.raises(ValueError, match="on the module before wrapping it"):
        chrono_(TargetSpace(nn.GRU(1, 2, batch_first=True), torch.randn(3, 4, 1)), 30)


def test_memories_shorter_than_two_steps() -> None:
    with pytest.raises(ValueError, match=r"memory must be at least 2 steps, got 1\.5"):
        chrono_(nn.GRU(1, 2), 1.5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_of_ordinary_layers(kind: type[nn.RNNBase]) -> None:
    layer = kind(1, 3)
    chrono_(layer, 30, torch.Generator().manual_seed(0))
    assert layer.bias_ih_l0[3:6].exp().min() >= 1
    assert not layer.bias_hh_l0[3:6].any()
    assert layer.bias_hh_l0[-3:].any()  # no gate


def test_the_shortest_memory_is_of_two_steps() -> None:
    layer = nn.GRU(1, 2, dtype=torch.float64)
    chrono_(layer, 2)
    assert layer.bias_ih_l0[2:4].tolist() == [0, 0]
