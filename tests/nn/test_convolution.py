"""Convolutional target layers against the matrix of patches."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sktarget.nn import TargetSpace
from tests import reference

# What torch says of its own layer.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
F64 = torch.float64

# Extents of the map and arguments of the layer: 4 channels in, 6 out.
LAYERS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    # Zero-padded and "same": the autocorrelation.
    ((9,), {"kernel_size": 3, "padding": 1}),
    ((9,), {"kernel_size": 5, "padding": "same", "bias": False}),
    ((3,), {"kernel_size": 5, "padding": 2}),
    ((8, 7), {"kernel_size": 3, "padding": "same"}),
    ((6, 5), {"kernel_size": (5, 3), "padding": (2, 1)}),
    ((6, 5), {"kernel_size": (1, 3), "padding": (0, 1), "bias": False}),
    ((6, 5), {"kernel_size": 1}),
    ((3, 3), {"kernel_size": (7, 5), "padding": (3, 2)}),
    ((4, 5, 3), {"kernel_size": 3, "padding": 1}),
    ((4, 5, 6), {"kernel_size": (3, 1, 5), "padding": "same"}),
    ((9,), {"kernel_size": 3, "padding": "same", "dilation": 2}),
    ((8, 7), {"kernel_size": 3, "padding": "same", "dilation": (2, 3)}),
    # Gathered patches.
    ((9,), {"kernel_size": 3}),
    ((12,), {"kernel_size": 4, "stride": 3, "padding": 2, "dilation": 2}),
    ((9,), {"kernel_size": 4, "padding": "same"}),
    ((8, 7), {"kernel_size": 3, "padding": "valid"}),
    ((8, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((8, 7), {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    ((8, 7), {"kernel_size": (2, 4), "padding": "same", "bias": False}),
    ((8, 7), {"kernel_size": 3, "padding": 2}),
    ((8, 7), {"kernel_size": 3, "padding": 1, "groups": 2}),
    ((8, 7), {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False}),
    ((2, 2), {"kernel_size": (7, 7), "padding": 3}),
    ((5, 4, 6), {"kernel_size": 3, "stride": (1, 2, 1), "dilation": (1, 1, 2)}),
    ((5, 4, 6), {"kernel_size": 2, "groups": 2}),
    # Pixels left out.
    ((8,), {"kernel_size": 1, "stride": 3, "bias": False}),
    ((8, 7), {"kernel_size": 1, "stride": 2}),
    ((8, 7), {"kernel_size": 1, "stride": (1, 3), "groups": 2}),
    ((5, 4, 6), {"kernel_size": 1, "stride": (2, 1, 2), "dilation": 2}),
    # Padded beforehand.
    ((9,), {"kernel_size": 3, "padding": 2, "padding_mode": "circular"}),
    ((8, 7), {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"}),
    ((8, 7), {"kernel_size": 3, "padding": (1, 2), "padding_mode": "replicate"}),
    # Fewer patches than columns: the dual form.
    ((5,), {"kernel_size": 5, "bias": False}),
    ((5, 5), {"kernel_size": 5}),
    ((5, 5), {"kernel_size": 5, "groups": 2}),
]
NUMPY_MODES = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "replicate": "edge",
}


def make_layer(extents: tuple[int, ...], arguments: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return CONVOLUTIONS[len(extents) - 1](4, 6, **arguments).double()


def make_maps(extents: tuple[int, ...], n: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, *extents, dtype=F64, generator=generator) + 0.5


def reference_patches(layer: Any, maps: Tensor) -> np.ndarray:
    ends = layer._reversed_padding_repeated_twice
    padding = tuple(zip(ends[-2::-2], ends[-1::-2], strict=True))
    return reference.patches(
        maps.numpy(),
        layer.kernel_size,
        layer.stride,
        padding,
        layer.dilation,
        NUMPY_MODES[layer.padding_mode],
    )


def randomised(layer: nn.Module, maps: Tensor, lam: float, **options: Any) -> Any:
    net = TargetSpace(layer, maps, lam=lam, **options)
    generator = torch.Generator().manual_seed(1)
    return net.reset_targets(project=False, generator=generator)


@pytest.mark.parametrize("lam", [1e-3, 10.0])
@pytest.mark.parametrize(("extents", "arguments"), LAYERS, ids=str)
def test_weights_are_those_of_the_patch_matrix(
    extents: tuple[int, ...], arguments: dict[str, Any], lam: float
) -> None:
    layer: Any = make_layer(extents, arguments)
    maps = make_maps(extents)
    net = randomised(layer, maps, lam)
    rows = reference_patches(layer, maps)
    targets = net.target_layers()[""].targets.detach()
    assert targets.shape == layer(maps).shape
    kernel, bias = reference.convolution_ridge(
        rows, targets.numpy(), lam, groups=layer.groups, bias=layer.bias is not None
    )
    realised: Any = net.realise()
    weight = realised.weight.detach().flatten(1).numpy()
    np.testing.assert_allclose(weight, kernel, rtol=0, atol=1e-9)
    if realised.bias is None:
        assert layer.bias is None
    else:
        np.testing.assert_allclose(realised.bias.detach(), bias, rtol=0, atol=1e-9)
    x = make_maps(extents, 3, seed=2)
    torch.testing.assert_close(net(x), realised(x))


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize(("extents", "arguments"), LAYERS, ids=str)
@pytest.mark.parametrize("constant", [False, True], ids=["learnt", "constant"])
def test_gradients_are_those_through_the_patch_matrix(
    extents: tuple[int, ...], arguments: dict[str, Any], untangling: str, constant: bool
) -> None:
    layer: Any = make_layer(extents, arguments)
    fixed = make_maps(extents, 6)
    x = make_maps(extents, 4, seed=2)
    scale = torch.ones((), dtype=F64, requires_grad=not constant)
    net = randomised(nn.Sequential(Scale(scale), layer), fixed, 0.1)
    net.untangling = untangling
    targets = net.target_layers()["1"].targets

    def loss_of(maps: Tensor, matrices: list[Tensor]) -> Tensor:
        return maps.sin().sum() + sum(m.square().sum() for m in matrices)

    outputs, weights = net.forward_with_weights(x)
    loss = loss_of(outputs, weights)
    slow = slow_forward(layer, targets, scale * fixed, scale * x, 0.1)
    expected = loss_of(*slow)
    torch.testing.assert_close(loss, expected)
    inputs = (targets,) if constant else (targets, scale)
    for ours, truth in zip(
        torch.autograd.grad(loss, inputs),
        torch.autograd.grad(expected, inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-7, atol=1e-9)


class KernelGradients(TorchDispatchMode):
    """Notes kernel and strides wherever torch finds the gradient of a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[int], list[int]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.convolution_backward.default and args[-1][1]:
            self.seen.append((list(args[2].shape[2:]), list(args[4])))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stride", [1, (2, 1), (1, 3)])
def test_pixels_are_left_out_before_the_gradient_of_a_kernel(stride: Any) -> None:
    net = TargetSpace(nn.Conv2d(4, 8, 1, stride), torch.rand(20, 4, 8, 8), lam=0.1)
    with KernelGradients() as gradients:
        net(torch.rand(5, 4, 8, 8)).sum().backward()
    in_the_solve_and_in_the_backward_pass = [([1, 1], [1, 1])] * 2
    assert gradients.seen == in_the_solve_and_in_the_backward_pass


# Axes of length 1: the channels, as oneDNN reads single precision, and the map's.
def one_channel() -> nn.Module:
    return nn.Conv2d(1, 8, (5, 3), stride=(1, 2))


def one_channel_between() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 1, 1), one_channel())


def one_row() -> nn.Module:
    return nn.Conv2d(6, 2, 1, stride=(2, 1), groups=2, bias=False).double()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (one_channel, (1, 100, 3)),
        (one_channel_between, (4, 100, 3)),
        (one_row, (6, 1, 9)),
    ],
)
def test_axes_of_length_one(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    module = make()
    dtype = next(module.parameters()).dtype
    fixed, x = (torch.randn(n, *shape, dtype=dtype) for n in (60, 5))
    net = TargetSpace(module, fixed, lam=1e-6)
    # Torch, too, would misread weights that have odd strides.
    fresh = copy.deepcopy(module)
    fresh.load_state_dict(net.realise().state_dict())
    outputs = module(x)
    for other in (net, net.eval(), net.realise(), fresh):
        torch.testing.assert_close(other(x), outputs, rtol=1e-3, atol=1e-3)
    net.train()(x).square().mean().backward()
    assert all(p.grad.abs().max() < 100 for p in net.parameters())


class Scale(nn.Module):
    """Multiply by a number: a module with a gradient before the first layer."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = [scale]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Scale":
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.scale[0] * x


def slow_forward(
    layer: Any, targets: Tensor, fixed: Tensor, x: Tensor, lam: float
) -> tuple[Tensor, list[Tensor]]:
    """Solve with an explicit matrix of patches, in the reach of autograd."""
    kernels, biases, matrices = [], [], []
    bias = layer.bias is not None
    columns = explicit_patches(layer, fixed)
    t = targets.movedim(1, -1).flatten(0, -2)
    for a, t_group in zip(
        columns.chunk(layer.groups, 1), t.chunk(layer.groups, 1), strict=True
    ):
        a = torch.cat([torch.ones(len(a), int(bias), dtype=F64), a], 1)
        gram = a.T @ a + lam * torch.eye(a.shape[1], dtype=F64)
        w = torch.linalg.solve(gram, a.T @ t_group)
        matrices.append(w[int(bias) :])
        kernels.append(w[int(bias) :].T)
        biases.append(w[0])
    kernel = torch.cat(kernels).view(layer.weight.shape)
    b = torch.cat(biases) if bias else None
    state = {"weight": kernel} | ({"bias": b} if bias else {})
    return torch.func.functional_call(layer, state, x), matrices


def explicit_patches(layer: Any, maps: Tensor) -> Tensor:
    """Build the matrix of patches by convolving with every unit kernel."""
    ends = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    maps = F.pad(maps, ends, mode=mode)
    size = maps.shape[1] * math.prod(layer.kernel_size)
    units = torch.eye(size, dtype=F64).view(size, -1, *layer.kernel_size)
    convolve = [F.conv1d, F.conv2d, F.conv3d][len(layer.kernel_size) - 1]
    out = convolve(maps, units, None, layer.stride, 0, layer.dilation)
    return out.movedim(1, -1).flatten(0, -2)


def test_unbatched_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="layer '0' takes a batch of maps"):
        TargetSpace(nn.Sequential(nn.Conv2d(3, 2, 3)), torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="the layer takes maps of 3 channels; got 2"):
        TargetSpace(nn.Conv2d(3, 2, 3), torch.rand(4, 2, 8, 8))


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_padding_under_autocast(mode: str) -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode)
    net, x = TargetSpace(layer, torch.randn(20, 2, 6, 6)), torch.randn(4, 2, 6, 6)
    for training in (True, False):
        expected = net.train(training)(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(net(x), expected)


def test_maps_may_be_given_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(input=x)
            return out

    x = torch.randn(5, 1, 6, 6)
    assert TargetSpace(Named(), x)(x).shape == (5, 2, 4, 4)


@pytest.mark.parametrize(
    ("layer", "extents", "match"),
    [
        (nn.Conv2d(1, 2, 5), (4, 9), r"'0'.*\(5, 5\).*\(4, 9\).*pad more"),
        (nn.Conv2d(1, 2, 5, padding=1), (2, 2), r"\(5, 5\).*padding \(1, 1\)"),
        (nn.Conv2d(1, 2, 3, dilation=4), (8, 8), r"dilation \(4, 4\).*\(8, 8\)"),
        (nn.Conv1d(1, 2, 7), (6,), r"\(7,\).*\(6,\)"),
        (
            nn.Conv2d(1, 2, 9, padding=2, padding_mode="circular"),
            (4, 4),
            r"\(9, 9\).*\(8, 8\)",
        ),
        (nn.Conv2d(3, 2, 3), (8, 8), "'0' takes maps of 3 channels; got 1"),
    ],
)
def test_maps_that_do_not_fit_are_refused(
    layer: nn.Module, extents: tuple[int, ...], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        TargetSpace(nn.Sequential(layer), torch.rand(3, 1, *extents))
