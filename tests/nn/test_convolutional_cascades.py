"""Networks with convolutions in target space."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.nn import TargetSpace

F64 = torch.float64


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
    module = Viewer()
    fixed, x = torch.rand(20, 1, 4, 4), torch.rand(3, 1, 4, 4)
    net = TargetSpace(module, fixed)
    net(x).sum().backward()
    torch.testing.assert_close(net.realise()(x), net.eval()(x))


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
    fixed, x = torch.rand(40, 1, 6, 6), torch.rand(3, 1, 6, 6)
    net = TargetSpace(
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 4, 3, padding=1)), fixed
    )
    weights = [net.forward_with_weights(x)[1][0] for _ in range(2)]
    assert not torch.allclose(*weights)
