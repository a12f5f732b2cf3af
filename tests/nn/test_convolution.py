"""Convolutional target layers against the matrix of patches."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.nn import TargetSpace
from sktarget.nn._autocorrelation import same_gramian
from sktarget.nn._patches import Window, patch_gramian, patches
from sktarget.nn._spectrum import autocorrelation
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
    # Gathered patches.
    ((9,), {"kernel_size": 3}),
    ((12,), {"kernel_size": 4, "stride": 3, "padding": 2, "dilation": 2}),
    ((9,), {"kernel_size": 4, "padding": "same"}),
    ((8, 7), {"kernel_size": 3, "padding": "valid"}),
    ((8, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((8, 7), {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    ((8, 7), {"kernel_size": 3, "padding": "same", "dilation": 2}),
    ((8, 7), {"kernel_size": (2, 4), "padding": "same", "bias": False}),
    ((8, 7), {"kernel_size": 3, "padding": 2}),
    ((8, 7), {"kernel_size": 3, "padding": 1, "groups": 2}),
    ((8, 7), {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False}),
    ((2, 2), {"kernel_size": (7, 7), "padding": 3}),
    ((5, 4, 6), {"kernel_size": 3, "stride": (1, 2, 1), "dilation": (1, 1, 2)}),
    ((5, 4, 6), {"kernel_size": 2, "groups": 2}),
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
def test_gradients_are_those_through_the_patch_matrix(
    extents: tuple[int, ...], arguments: dict[str, Any], untangling: str
) -> None:
    layer: Any = make_layer(extents, arguments)
    fixed = make_maps(extents, 6)
    x = make_maps(extents, 4, seed=2)
    scale = torch.ones((), dtype=F64, requires_grad=True)
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
    inputs = (targets, scale)
    for ours, truth in zip(
        torch.autograd.grad(loss, inputs),
        torch.autograd.grad(expected, inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-7, atol=1e-9)


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


# --- Gramians -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extents", "kernel"),
    [
        ((7,), (3,)),
        ((150,), (9,)),
        ((2,), (5,)),
        ((6, 7), (3, 3)),
        ((6, 5), (1, 5)),
        ((1, 1), (3, 3)),
        ((2, 3), (5, 7)),
        ((50, 7), (3, 3)),
        ((45, 90), (5, 3)),
        ((70, 41), (15, 1)),
        ((4, 5, 3), (3, 3, 3)),
        ((4, 5, 6), (3, 1, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("ones", [False, True])
def test_autocorrelation_and_patches_agree(
    extents: tuple[int, ...], kernel: tuple[int, ...], ones: bool
) -> None:
    maps = make_maps(extents).movedim(1, -1)
    n = len(kernel)
    window = Window(kernel, (1,) * n, tuple(k // 2 for k in kernel), (1,) * n)
    assert window.is_same()
    expected = patch_gramian(maps, window, F64, ones=ones)[0]
    ours = same_gramian(maps, kernel, F64, ones=ones)
    scale = expected.diagonal().max()
    torch.testing.assert_close((ours / scale).tril(), (expected / scale).tril())


def test_autocorrelation_is_its_definition() -> None:
    maps = make_maps((4, 5)).movedim(1, -1)
    lags = autocorrelation(maps, (1, 1), F64)
    assert lags.shape == (5, 5, 4, 4)
    shifted = maps[:, 1:, :3].flatten(0, 2)
    expected = maps[:, :3, 2:].flatten(0, 2).T @ shifted
    torch.testing.assert_close(lags[2 + 1, 2 - 2], expected)


def test_patch_gramian_does_not_depend_on_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = make_maps((6, 5)).movedim(1, -1)
    window = Window((3, 2), (2, 1), (1, 0), (1, 2))
    whole = patch_gramian(maps, window, F64, ones=True, groups=2)
    monkeypatch.setattr("sktarget.nn._patches._SLICE", 1)
    sliced = patch_gramian(maps, window, F64, ones=True, groups=2)
    torch.testing.assert_close(whole, sliced)


def test_patches_are_rows_of_the_reference() -> None:
    maps = make_maps((6, 5))
    window = Window((3, 2), (2, 1), (1, 0), (1, 2))
    ours = patches(maps.movedim(1, -1), window)[0].unflatten(1, (6, 4)).mT.flatten(1)
    padding = ((1, 1), (0, 0))
    expected = reference.patches(maps.numpy(), (3, 2), (2, 1), padding, (1, 2))
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("decade", range(-3, 5))
def test_gramian_in_single_precision_keeps_what_lies_at_the_border(
    decade: int,
) -> None:
    # Were border terms lost in the difference, the interior would show it.
    torch.manual_seed(0)
    maps = torch.rand(20, 8, 8, 4)
    maps[:, 0] *= 10.0**decade
    maps[:, :, -1] *= 10.0 ** (decade / 2)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    exact = patch_gramian(maps, window, F64, ones=True)[0]
    ours = same_gramian(maps, (3, 3), torch.float32, ones=True)
    error = (ours - exact).tril().abs().max() / exact.diagonal().sum()
    assert error < 8 * torch.finfo(torch.float32).eps


# --- Networks -------------------------------------------------------------------------


def mnist_network(width: int = 1, dropout: float = 0.0) -> nn.Sequential:
    """Build the network of the paper, with ``width`` times its channels over 16."""
    layers: list[nn.Module] = []
    channels = 1
    for i, factor in enumerate([1, 1, 2, 2, 4, 4]):
        layers += [nn.Conv2d(channels, factor * width, 3, padding="same")]
        channels = factor * width
        layers += [nn.LeakyReLU(0.2), nn.Dropout(dropout) if i % 2 else nn.Identity()]
        if i % 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(9 * channels, 8 * width),
        nn.LeakyReLU(0.2),
        nn.Dropout(dropout),
        nn.Linear(8 * width, 10),
    )


@pytest.mark.parametrize("lam", [1e-3, 1e-1, 1e1, 1e2, 1e4])
def test_single_precision_gives_no_nan(lam: float) -> None:
    torch.manual_seed(0)
    fixed, x = torch.rand(20, 1, 28, 28), torch.rand(20, 1, 28, 28)
    labels = torch.randint(10, (20,))
    net = TargetSpace(mnist_network(width=8), fixed, lam=lam).reset_targets(0.1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
        assert all(p.isfinite().all() for p in net.parameters())
        assert all(
            p.grad is not None and p.grad.isfinite().all() for p in net.parameters()
        )


def test_single_precision_agrees_with_double() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(36, 5),
    )
    fixed, x = torch.rand(20, 1, 12, 12), torch.rand(5, 1, 12, 12)
    labels = torch.arange(5)
    single = TargetSpace(module, fixed, lam=0.1).reset_targets(0.1)
    double = copy.deepcopy(single).double()
    torch.testing.assert_close(
        single(x).double(), double(x.double()), rtol=1e-3, atol=1e-4
    )
    for net, batch in ((single, x), (double, x.double())):
        F.cross_entropy(net(batch), labels).backward()
    for ours, truth in zip(single.parameters(), double.parameters(), strict=True):
        scale = truth.grad.abs().max()
        assert (ours.grad - truth.grad).abs().max() < 1e-2 * scale


class Residual(nn.Module):
    """Two convolutions around which the input goes, as it is or projected."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Conv2d(inputs, outputs, 1, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x), inplace=True)


def residual_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        Residual(4, 4),
        Residual(4, 8, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def stripes(n: int) -> tuple[Tensor, Tensor]:
    """Draw images of horizontal (class 0) or vertical (class 1) waves in noise."""
    labels = torch.arange(n) % 2
    phases = 6.3 * torch.rand(n, 1, 1)
    wave = torch.sin(1.5 * torch.arange(8.0).view(1, 8, 1) + phases).expand(n, 8, 8)
    images = torch.where(labels.view(n, 1, 1) == 1, wave.mT, wave)
    return (images + 0.3 * torch.randn(n, 8, 8)).unsqueeze(1), labels


def test_residual_network_learns() -> None:
    torch.manual_seed(0)
    x, labels = stripes(60)
    net = TargetSpace(residual_network(), x[:30], lam=0.1)
    assert len(net.target_layers()) == 7
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
    net.eval()
    unseen, truth = stripes(60)
    assert (net(unseen).argmax(1) == truth).double().mean() > 0.9
    torch.testing.assert_close(net.realise()(unseen), net(unseen))


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("whole", [False, True])
def test_gradients_of_a_cascade(untangling: str, whole: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(3, 4, 3, stride=2, groups=1),
        nn.Tanh(),
        nn.Conv2d(4, 2, 2, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(2, 2),
    ).double()
    fixed = torch.randn(6, 1, 6, 6, dtype=F64)
    x = fixed if whole else torch.randn(3, 1, 6, 6, dtype=F64)
    net = TargetSpace(module, fixed, lam=0.3, untangling=untangling).reset_targets()
    layers = list(net.target_layers().values())

    def outputs(*targets: Tensor) -> Tensor:
        state = {
            f"module.{layer.name}.targets": t
            for layer, t in zip(layers, targets, strict=True)
        }
        out: Tensor = torch.func.functional_call(net, state, (x,))
        return out

    assert torch.autograd.gradcheck(outputs, tuple(layer.targets for layer in layers))


def test_targets_have_the_shape_of_the_map_and_are_all_that_is_learnt() -> None:
    net = TargetSpace(mnist_network(), torch.rand(5, 1, 28, 28))
    shapes = [tuple(p.shape) for p in net.parameters()]
    assert shapes == [
        (5, 1, 28, 28),
        (5, 1, 28, 28),
        (5, 2, 14, 14),
        (5, 2, 14, 14),
        (5, 4, 7, 7),
        (5, 4, 7, 7),
        (5, 8),
        (5, 10),
    ]


def test_state_and_copies() -> None:
    torch.manual_seed(0)
    fixed, x = torch.rand(30, 1, 28, 28), torch.rand(3, 1, 28, 28)
    net = TargetSpace(mnist_network(), fixed).reset_targets()
    other = TargetSpace(mnist_network(), fixed)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x), net(x))
    torch.testing.assert_close(copy.deepcopy(net).eval()(x), net(x))
    realised = net.realise()
    assert [type(m) for m in realised] == [type(m) for m in mnist_network()]
    torch.testing.assert_close(realised(x), net(x))
    torch.testing.assert_close(net.eval()(x), net(x))


def test_weights_start_the_targets() -> None:
    torch.manual_seed(0)
    module = mnist_network(width=2).double()
    fixed, x = torch.rand(40, 1, 28, 28, dtype=F64), torch.rand(3, 1, 28, 28, dtype=F64)
    net = TargetSpace(module, fixed, lam=0.0)
    torch.testing.assert_close(net(x), module(x), rtol=1e-3, atol=5e-5)


class Viewer(nn.Module):
    """A network that asks for rows of maps that are laid out channel after channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.last = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x).relu()
        out: Tensor = self.last(maps.view(len(x), -1))
        return out


def test_views_of_maps_are_legal() -> None:
    torch.manual_seed(0)
    module = Viewer()
    fixed, x = torch.rand(20, 1, 4, 4), torch.rand(3, 1, 4, 4)
    net = TargetSpace(module, fixed)
    net(x).sum().backward()
    torch.testing.assert_close(net.realise()(x), net.eval()(x))


def test_unbatched_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="layer '0' takes a batch of maps"):
        TargetSpace(nn.Sequential(nn.Conv2d(3, 2, 3)), torch.rand(3, 8, 8))


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


# --- Dropout --------------------------------------------------------------------------


class Recorder(nn.Module):
    """Keep what comes through."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return x


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d])
@pytest.mark.parametrize("same_batch", [False, True])
def test_dropout_is_drawn_apart_on_both_batches(
    kind: type[nn.Module], same_batch: bool
) -> None:
    torch.manual_seed(0)
    n = 40
    fixed = torch.rand(n, 1, 6, 6) + 1
    x = fixed if same_batch else fixed.clone()
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Sigmoid(),
        kind(0.5),
        Recorder(),
        nn.Conv2d(8, 2, 3),
    )
    net = TargetSpace(module, fixed)
    recorder = net.module[3]
    recorder.seen.clear()
    net(x)
    (both,) = recorder.seen
    assert len(both) == 2 * n
    kept = both != 0
    # Whole maps with Dropout2d, single pixels with Dropout; half of either is kept.
    units = kept.flatten(2)
    if kind is nn.Dropout2d:
        assert (units.all(2) | ~units.any(2)).all()
    assert 0.4 < kept[:n].double().mean() < 0.6
    assert 0.4 < kept[n:].double().mean() < 0.6
    # Equal rows, drawn apart: they agree in half of the places.
    assert 0.4 < (kept[:n] == kept[n:]).double().mean() < 0.6
    recorder.seen.clear()
    net.eval()(x)
    assert all((seen != 0).all() for seen in recorder.seen)


def test_dropout_on_the_input_is_not_answered_from_the_cache() -> None:
    torch.manual_seed(0)
    fixed, x = torch.rand(40, 1, 6, 6), torch.rand(3, 1, 6, 6)
    net = TargetSpace(
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 4, 3, padding=1)), fixed
    )
    weights = [net.forward_with_weights(x)[1][0] for _ in range(2)]
    assert not torch.allclose(*weights)
