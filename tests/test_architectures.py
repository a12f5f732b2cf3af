"""The modules that the estimators build are ordinary, and draw as they should."""

import copy

import pytest
import torch
from torch import nn

from sktarget._linear import Linear
from sktarget.architectures import (
    ACTIVATIONS,
    DenseNetwork,
    RecurrentNetwork,
    SeededDropout,
    initialise_,
)
from tests import helpers, reference
from tests.helpers import assert_all_close, normal


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_that_of_the_reference(name: str) -> None:
    sums = normal(50)
    expected = reference.ACTIVATIONS[name][0](sums.numpy())
    assert_all_close([ACTIVATIONS[name]()(sums)], [expected], 1e-14)


@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (4,), (5, 4, 3)])
def test_dense_network_is_that_of_the_reference(
    hidden: tuple[int, ...], activation: str, shortcuts: bool
) -> None:
    net = DenseNetwork(
        3, hidden, 2, activation, shortcuts=shortcuts, dtype=torch.float64
    )
    helpers.seeded(net)
    network = reference.Network((3, *hidden, 2), activation, shortcuts)
    weights = [
        torch.cat([layer.bias[None], layer.weight.T]).detach().numpy()
        for layer in net.layers
    ]
    assert [w.shape for w in weights] == network.weight_shapes()
    x = normal(7, 3)
    expected = reference.forward(network, weights, x.numpy()).sums[-1]
    assert_all_close([net(x)], [expected], 1e-12)
    with torch.inference_mode():
        assert_all_close([net(x)], [expected], 1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_tanh_in_inference_mode() -> None:
    net = DenseNetwork(3, (5,), 2, "tanh")
    x = normal(4, 3).float()
    expected = net(x).detach()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.inference_mode():
        assert_all_close([compiled(x)], [expected], 1e-6)
        # What was traced must not hold on to the sums of one batch.
        traced = torch.jit.trace(net, torch.zeros(4, 3))
        assert_all_close([net(x), traced(x)], [expected] * 2, 1e-6)
        half = net.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert_all_close([half.float()], [expected], 0.05)


def test_tanh_within_vmap_and_with_hooks() -> None:
    net = DenseNetwork(3, (5,), 2, "tanh")
    x, seen = normal(4, 3).float(), []
    expected = net(x).detach()
    net.activation.register_forward_hook(lambda *args: seen.append(args[-1]))
    with torch.inference_mode():
        assert_all_close([net(x)], [expected], 1e-6)
        assert len(seen) == 1
        net.activation._forward_hooks.clear()
        assert_all_close([torch.func.vmap(net)(x)], [expected], 1e-6)
        graph = torch.fx.symbolic_trace(net)
        assert_all_close([graph(x)], [expected], 1e-6)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of .*, got 'swish'"):
        DenseNetwork(3, (5,), 2, "swish")
    with pytest.raises(ValueError, match=r"cell must be one of 'rnn', .*, got 'x'"):
        RecurrentNetwork(3, (5,), (), 2, cell="x", activation="tanh")
    settings = {"cell": "gru", "activation": "tanh", "vocabulary_size": 9}
    with pytest.raises(ValueError, match="needs an embedding_dim, got None"):
        RecurrentNetwork(3, (5,), (), 2, **settings)


def test_kinds_of_modules() -> None:
    kinds = [
        type(m) for m in DenseNetwork(3, (5, 4), 2, "relu", batch_norm=True).modules()
    ]
    assert kinds.count(Linear) == 3
    assert kinds.count(nn.BatchNorm1d) == 2
    assert SeededDropout not in kinds
    with_dropout = DenseNetwork(3, (5, 4), 2, "relu", dropout=0.2)
    assert isinstance(with_dropout.dropout, SeededDropout)
    assert with_dropout.dropout.p == 0.2


def test_batch_norm_precedes_the_activation() -> None:
    net = DenseNetwork(3, (50,), 2, "relu", batch_norm=True, generator=generator())
    seen: list[torch.Tensor] = []
    net.activation.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(normal(200, 3, dtype=torch.float32) * 7 + 3)
    assert seen[0].mean(0).abs().max() < 1e-4
    assert (seen[0].std(0) - 1).abs().max() < 0.01


@pytest.mark.parametrize(
    ("activation", "variance"),
    [
        ("tanh", 2 / (400 + 200)),
        ("logistic", 2 / (400 + 200)),
        ("identity", 2 / (400 + 200)),
        ("relu", 2 / 400),
        ("leaky_relu", 2 / (1 + 0.2**2) / 400),
    ],
)
def test_scale_of_initial_weights(activation: str, variance: float) -> None:
    layer = initialise_(nn.Linear(400, 200), activation, generator())
    bound = (3 * variance) ** 0.5
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert 0.999 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)
    assert abs(layer.weight.mean()) < 0.01 * bound
    assert not layer.bias.any()
    assert initialise_(nn.Linear(4, 2, bias=False), activation, None).bias is None


@pytest.mark.usefixtures("global_state_untouched")
def test_everything_random_follows_from_the_generator() -> None:
    x = normal(20, 3, dtype=torch.float32)
    outputs = []
    for seed in (0, 0, 1):
        net = DenseNetwork(3, (9, 9), 2, "tanh", dropout=0.5, generator=generator(seed))
        outputs.append(net(x))
        assert (net(x) != outputs[-1]).any()
    assert_all_close(outputs[:1], outputs[1:2], 0)
    assert (outputs[0] != outputs[2]).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_seeded_dropout(p: float) -> None:
    layer = SeededDropout(p, generator())
    x = torch.ones(20000, requires_grad=True)
    out = layer(x)
    kept = out != 0
    assert abs(kept.float().mean().item() - (1 - p)) < 0.015
    assert_all_close([out[kept]], [torch.full_like(out[kept], 1 / (1 - p))], 1e-6)
    out.sum().backward()
    assert_all_close([x.grad], [out], 0)
    assert layer.eval()(x) is x


def test_seeded_dropout_without_generator_is_the_ordinary_one() -> None:
    x = torch.ones(100)
    state = torch.get_rng_state()
    expected = nn.Dropout(0.5)(x)
    torch.set_rng_state(state)
    assert_all_close([SeededDropout(0.5)(x)], [expected], 0)


def test_copy_of_dropout_has_no_generator() -> None:
    assert copy.deepcopy(SeededDropout(0.5, generator())).generator is None
