"""Convolutional networks are what torch's functions make of their weights."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sktarget.architectures import (
    ACTIVATIONS,
    ConvLayer,
    ConvolutionalNetwork,
    SeededDropout,
    map_sizes,
)
from tests import helpers
from tests.helpers import assert_all_close, normal

STACK = [
    ConvLayer((3, 3), 4, 1),
    ConvLayer((3, 3), 5, 2),
    ConvLayer((1, 5), 3, 1),
    ConvLayer((2, 4), 6, 3),
]


def build(**options: Any) -> ConvolutionalNetwork:
    generator = torch.Generator().manual_seed(options.pop("seed", 0))
    arguments = {"activation": "tanh", "dtype": torch.float64, **options}
    return ConvolutionalNetwork(
        (2, 12, 15), STACK, (7, 6), 3, **arguments, generator=generator
    )


def by_functions(net: nn.Module, x: torch.Tensor, g: Any) -> torch.Tensor:
    """Run the network by its weights alone, pooling where the paper does."""
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for conv, layer in zip(convolutions, STACK, strict=True):
        (top, left), (h, w) = ((k - 1) // 2 for k in layer.kernel), layer.kernel
        padded = F.pad(x, (left, w - 1 - left, top, h - 1 - top))
        x = F.max_pool2d(g(F.conv2d(padded, conv.weight, conv.bias)), layer.pool)
    x = x.flatten(1)
    *hidden, last = (m for m in net.modules() if isinstance(m, nn.Linear))
    for layer in hidden:
        x = g(F.linear(x, layer.weight, layer.bias))
    return F.linear(x, last.weight, last.bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs(activation: str) -> None:
    net = helpers.seeded(build(activation=activation))
    x = normal(5, 2, 12, 15)
    assert_all_close([net(x)], [by_functions(net, x, ACTIVATIONS[activation]())], 1e-12)


def test_sizes_of_maps() -> None:
    sizes = map_sizes(STACK, (12, 15))
    assert sizes == [(12, 15), (12, 15), (6, 7), (6, 7), (2, 2)]
    seen: list[tuple[int, ...]] = []
    net = build()
    for block in net.convolutions:
        block.register_forward_hook(lambda _, __, out: seen.append(out.shape[2:]))
    net(normal(1, 2, 12, 15))
    assert seen == sizes[1:]
    assert map_sizes([], (4, 5)) == [(4, 5)]


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (ConvLayer((3, 3), 4, 2), r"conv_layers\[4\].*2 x 2.*kernel of 3 x 3"),
        (ConvLayer((1, 3), 4, 1), r"conv_layers\[4\].*2 x 2.*kernel of 1 x 3"),
        (ConvLayer((2, 2), 4, 3), r"pooling by 3 leaves nothing.*at most 2"),
    ],
)
def test_layers_that_do_not_fit(layer: ConvLayer, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        map_sizes([*STACK, layer], (12, 15))


def test_dropout_follows_even_convolutions_and_hidden_dense_layers() -> None:
    net = build(dropout=0.3)
    last = [block[-1] for block in net.convolutions]
    assert [isinstance(part, SeededDropout) for part in last] == [0, 1, 0, 1]
    assert net.head.dropout.p == last[1].p == 0.3
    # One draw for each: two convolutions, two hidden layers.
    calls: list[nn.Module] = []
    for module in net.modules():
        if isinstance(module, SeededDropout):
            module.register_forward_hook(lambda m, *_: calls.append(m))
    net(normal(2, 2, 12, 15))
    assert calls == [last[1], last[3], net.head.dropout, net.head.dropout]
    assert not any(isinstance(m, SeededDropout) for m in build().modules())


def test_batch_norm_precedes_every_hidden_activation() -> None:
    net = build(batch_norm=True)
    inputs: list[torch.Tensor] = []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, out: inputs.append(out))
    net(normal(50, 2, 12, 15) * 4 + 1)
    kinds = [type(m) for m in net.modules()]
    assert kinds.count(nn.BatchNorm2d) == 4
    assert kinds.count(nn.BatchNorm1d) == 2
    for out in inputs:
        assert_all_close([out.mean((0, 2, 3))], [torch.zeros(out.shape[1])], 1e-12)


@pytest.mark.parametrize(
    ("activation", "variance"),
    [("tanh", 2 / (64 * 9 + 128 * 9)), ("leaky_relu", 2 / (1 + 0.2**2) / (64 * 9))],
)
def test_initial_weights_suit_the_activation(activation: str, variance: float) -> None:
    layers = [ConvLayer((3, 3), 64, 1), ConvLayer((3, 3), 128, 1)]
    net = ConvolutionalNetwork((1, 4, 4), layers, (), 2, activation)
    conv = net.convolutions[1][0]
    assert conv.weight.var().item() == pytest.approx(variance, rel=0.03)
    assert not conv.bias.any()


@pytest.mark.usefixtures("global_state_untouched")
def test_everything_random_follows_from_the_generator() -> None:
    x = normal(4, 2, 12, 15)
    first, again, other = (build(dropout=0.5, seed=s)(x) for s in (0, 0, 1))
    assert_all_close([first], [again], 0)
    assert (first != other).all()


def test_shortcuts_join_the_dense_layers() -> None:
    widths = [m.in_features for m in build(shortcuts=True).head.layers]
    assert widths == [24, 24 + 7, 24 + 7 + 6]
