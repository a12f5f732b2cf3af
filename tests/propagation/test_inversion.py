"""Regularised inversion against what is known in closed form.

P0 to P12 are the properties that inverses, displacements and gradients must have.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor
from torch.nn import functional as F

from sktarget.architectures import RecurrentNetwork
from sktarget.linalg import FactorisationError
from sktarget.propagation._dense_inversion import DenseInversionNetwork
from sktarget.propagation._inversion import Inversion, inverse_matrix
from sktarget.propagation._network import TransmittingNetwork
from sktarget.propagation._recurrent_inversion import (
    RecurrentInversionNetwork,
    displace,
    step_errors,
)
from tests.helpers import normal, seeded
from tests.propagation.support import (
    assert_close,
    assert_each_close,
    cross_entropy_of,
)

B, T, D, P, K = 5, 7, 3, 6, 4
LABELS = torch.arange(B) % K
STEP_LABELS = torch.arange(B * T).reshape(B, T) % K
UPDATES = ["local", "through_time"]
cross_entropy = cross_entropy_of(LABELS)


def step_cross_entropy(outputs: Tensor, weight: Tensor | None) -> Tensor:
    counts = STEP_LABELS >= 0
    return F.cross_entropy(outputs[counts], STEP_LABELS[counts])


def make(
    *,
    update: str = "local",
    return_sequences: bool = False,
    scale: float = 1.0,
    target_lr: float = 0.1,
    **inversion: Any,
) -> RecurrentInversionNetwork:
    network = RecurrentNetwork(
        D,
        (P,),
        (),
        K,
        cell="rnn",
        activation="tanh",
        return_sequences=return_sequences,
        dtype=torch.float64,
    )
    seeded(network)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if "bias_hh" in name:
                p.zero_()
            elif "weight" in name:
                p.mul_(scale)
    settings = {"ridge": 1.0, "clip": 1e-3, "linearize": True} | inversion
    return RecurrentInversionNetwork(network, Inversion(**settings), target_lr, update)


def weights_of(net: RecurrentInversionNetwork) -> tuple[Tensor, ...]:
    cell = net.network.recurrent[0]
    parts = cell.weight_hh_l0, cell.weight_ih_l0, cell.bias_ih_l0
    return tuple(p.detach() for p in parts)


def cell_gradients(net: RecurrentInversionNetwork) -> list[Tensor]:
    cell = net.network.recurrent[0]
    parts = cell.weight_hh_l0, cell.weight_ih_l0, cell.bias_ih_l0
    return [p.grad.clone() for p in parts]


def ours(
    net: RecurrentInversionNetwork, x: Tensor, loss: Any = cross_entropy
) -> list[Tensor]:
    net.zero_grad()
    net.set_gradients(x, loss)
    return cell_gradients(net)


def through_time(
    net: RecurrentInversionNetwork, x: Tensor, loss: Any = cross_entropy
) -> list[Tensor]:
    """Backpropagate through time by automatic differentiation."""
    net.zero_grad()
    loss(net(x), None).backward()
    return cell_gradients(net)


def states_of(net: RecurrentInversionNetwork, x: Tensor) -> Tensor:
    with torch.no_grad():
        states: Tensor = net.network.recurrent[0](x)[0].transpose(0, 1)
    return states


def square(seed: int = 0, *, orthogonal: bool = False) -> Tensor:
    W = normal(P, P, seed=seed)
    return torch.linalg.qr(W)[0] if orthogonal else 0.2 * W + torch.eye(P)


def pulled(W: Tensor, h: Tensor, inversion: Inversion) -> Callable[..., Tensor]:
    """Make the pull-back of a recurrent layer at states (time, n_b, width)."""
    matrix = inverse_matrix(W, inversion.ridge)
    return lambda t, d: inversion.pull_back(matrix, h[t], d)


def share_of_saturated(h: Tensor, clip: float) -> float:
    return float((h.abs() > 1 - clip).double().mean())


def identity(ridge: float, *, linearize: bool = True) -> Inversion:
    return Inversion(ridge, 1e-3, linearize, activation="identity")


# -- P0 to P12 -----------------------------------------------------------------------


@pytest.mark.parametrize("per_step", [False, True], ids=["P0", "P12"])
def test_p0_p12_transposes_make_it_backpropagation_through_time(per_step: bool) -> None:
    net = make(return_sequences=per_step)
    x, loss = normal(B, T, D), step_cross_entropy if per_step else cross_entropy
    truth = through_time(net, x, loss)
    h = states_of(net, x)
    W, _, _ = weights_of(net)
    read = (h.transpose(0, 1) if per_step else h[-1]).clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(net.network.exit(read), None), read)
    direct = torch.zeros_like(h)
    if per_step:
        direct = -slope.transpose(0, 1)
    else:
        direct[-1] = -slope
    slopes = 1 - h.square()
    d = displace(direct, lambda t, d: (d * slopes[t]) @ W)
    errors = step_errors(d, slopes, None)
    before = torch.cat([torch.zeros(1, B, P), h[:-1]])
    found = [
        torch.einsum("tbi,tbj->ij", errors, before),
        torch.einsum("tbi,btj->ij", errors, x),
        errors.sum((0, 1)),
    ]
    assert_each_close(found, truth)


@pytest.mark.parametrize("linearize", [True, False])
def test_p1_small_ridge_undoes_the_steps(linearize: bool) -> None:
    W, last = square(), normal(B, P, seed=1)
    direct, h = torch.zeros(T, B, P), normal(T, B, P, seed=2)
    direct = direct.double()
    direct[-1] = last
    exact = [last]
    for _ in range(T - 1):
        exact.append(torch.linalg.solve(W, exact[-1].T).T)
    errors = []
    for ridge in (1e-2, 1e-6, 1e-10):
        d = displace(direct, pulled(W, h, identity(ridge, linearize=linearize)))
        errors.append(float((d[0] - exact[-1]).norm() / exact[-1].norm()))
    assert errors[0] < 1
    assert errors[1] < 3e-4 * errors[0]
    assert errors[2] < 3e-4 * errors[1]


def test_p2_displaced_start_arrives_at_the_target() -> None:
    W, last = square(), 0.1 * normal(B, P, seed=1)
    fed = normal(T, B, P, seed=3)
    h = [normal(B, P, seed=2)]
    for t in range(T):
        h.append(h[-1] @ W.T + fed[t])
    states = torch.stack(h)
    direct = torch.zeros_like(states)
    direct[-1] = last
    d = displace(direct, pulled(W, states, identity(1e-12)))
    v = h[0] + d[0]
    for t in range(T):
        v = v @ W.T + fed[t]
    assert_close(v, h[-1] + last, 1e-9)


@pytest.mark.parametrize("linearize", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.5, 3.0])
def test_p3_orthogonal_weights_shrink_the_backpropagated(
    ridge: float, linearize: bool
) -> None:
    W, last = square(orthogonal=True), normal(B, P, seed=1)
    direct, h = torch.zeros(T, B, P).double(), normal(T, B, P, seed=2)
    direct[-1] = last
    d = displace(direct, pulled(W, h, identity(ridge, linearize=linearize)))
    back = last
    for t in range(T - 1, -1, -1):
        assert_close(d[t], back / (1 + ridge) ** (T - 1 - t), 1e-10)
        back = back @ W


def test_p4_large_ridge_makes_the_inverse_a_transpose() -> None:
    W = normal(4, P)
    errors = [
        float((ridge * inverse_matrix(W, ridge) - W.T).norm())
        for ridge in (1e3, 1e5, 1e7)
    ]
    assert_allclose(errors[1:], [errors[0] / 1e2, errors[0] / 1e4], rtol=0.05)


@pytest.mark.parametrize("shape", [(P, P), (3, 8), (8, 3)])
def test_p5_norm_of_the_inverse_is_bounded(shape: tuple[int, int]) -> None:
    for ridge in (1e-4, 1e-2, 1.0, 100.0):
        for scale in (1e-3, ridge**0.5, 10.0):
            W = torch.linalg.qr(normal(8, 8))[0][: shape[0], : shape[1]] * scale
            norm = float(torch.linalg.matrix_norm(inverse_matrix(W, ridge), 2))
            assert norm <= 1 / (2 * ridge**0.5) * (1 + 1e-9)


def last_step(net: RecurrentInversionNetwork, x: Tensor) -> Tensor:
    """Compute the gradient of the loss with respect to the last state."""
    end = states_of(net, x)[-1].clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(net.network.exit(end), None), end)
    return g


def displacements(net: RecurrentInversionNetwork, x: Tensor) -> Tensor:
    h, W = states_of(net, x), weights_of(net)[0]
    direct = torch.zeros_like(h)
    direct[-1] = -net.target_lr * last_step(net, x)
    return displace(direct, pulled(W, h, net.inversion))


def test_p6_differences_become_linear_in_small_steps() -> None:
    x = normal(B, T, D)
    errors = []
    for step in (1e-3, 1e-4, 1e-5, 1e-6):
        settings = {"scale": 0.5, "target_lr": step}
        linear = displacements(make(**settings, linearize=True), x)
        difference = displacements(make(**settings, linearize=False), x)
        errors.append(float((difference - linear).norm() / linear.norm()))
    assert float(states_of(make(scale=0.5), x).abs().max()) < 1 - 1e-3
    assert errors[0] < 0.1
    for a, b in pairwise(errors):
        assert b / a == pytest.approx(0.1, rel=0.3)


def test_p6_saturated_units_tell_the_two_apart() -> None:
    inversion = [Inversion(1.0, 1e-3, linearize) for linearize in (True, False)]
    h, d = torch.tensor([[0.9999]]).double(), torch.tensor([[1e-6]]).double()
    eye = torch.eye(1).double()
    linear, difference = (i.pull_back(eye, h, d) for i in inversion)
    assert float(difference) == 0
    assert float(linear) == pytest.approx(1e-6 / (1 - 0.999**2))


@pytest.mark.parametrize("update", UPDATES)
def test_p7_linearised_is_homogeneous(update: str) -> None:
    x = normal(B, T, D)
    one = ours(make(update=update, target_lr=0.1), x)
    other = ours(make(update=update, target_lr=0.4), x)
    assert_each_close([4 * g for g in one], other)


def test_gradients_take_the_place_of_earlier_ones() -> None:
    net, x = make(), normal(B, T, D)
    found = []
    for _ in range(2):
        net.set_gradients(x, cross_entropy)
        found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert_each_close(*found, 0)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("linearize", [True, False])
@pytest.mark.parametrize("settings", [(1e-2, 0.5), (10.0, 1e-3)])
def test_p8_one_step_is_scaled_backpropagation(
    update: str, linearize: bool, settings: tuple[float, float]
) -> None:
    ridge, clip = settings
    net = make(
        update=update, linearize=linearize, ridge=ridge, clip=clip, target_lr=0.3
    )
    x = normal(B, 1, D)
    truth = through_time(net, x)
    assert_each_close(ours(net, x), [0.3 * g for g in truth])


def inverse(inversion: Inversion, matrix: Tensor, v: Tensor, fed: Tensor) -> Tensor:
    """Compute F(v), of which displacements are differences."""
    return (inversion.undo(v) - fed) @ matrix.T


def test_p9_inverse_is_stationary() -> None:
    W, v, fed = normal(4, P), 2 * normal(B, 4, seed=1), normal(B, 4, seed=2)
    inversion = Inversion(0.3, 0.1, linearize=False)
    h = inverse(inversion, inverse_matrix(W, 0.3), v, fed).requires_grad_()
    aim = torch.atanh(v.clamp(-0.9, 0.9))
    objective = (h @ W.T + fed - aim).square().sum() / 2 + 0.15 * h.square().sum()
    (slope,) = torch.autograd.grad(objective, h)
    assert float(slope.abs().max()) < 1e-13


def test_values_beyond_the_clipped_range_are_saturated() -> None:
    h = torch.tensor([-1.0, -0.95, 0.0, 0.89, 0.91])
    inversion = Inversion(1.0, 0.1, linearize=True)
    assert float(inversion.saturated(h)) == pytest.approx(3 / 5)


@pytest.mark.parametrize("clip", [1e-3, 0.1, 0.5])
def test_p10_factor_of_saturated_units_is_bounded(clip: float) -> None:
    inversion = Inversion(1.0, clip, linearize=True)
    h = torch.linspace(-1, 1, 1001).double()
    factor = 1 / inversion.slope(inversion.clipped(h))
    assert float(factor.max()) == pytest.approx(1 / (1 - (1 - clip) ** 2))
    if clip == 1e-3:
        assert float(factor.max()) == pytest.approx(500.25, abs=1e-3)


@pytest.mark.parametrize("update", UPDATES)
def test_p11_limits_of_a_large_ridge(update: str) -> None:
    net = make(update=update, ridge=1e9, target_lr=0.3)
    x = normal(B, T, D)
    found = ours(net, x)
    if update == "through_time":
        truth = through_time(net, x)
    else:  # one step of the recurrence, from a state that is taken as given
        h, cell = states_of(net, x), net.network.recurrent[0]
        net.zero_grad()
        sums = h[-2] @ cell.weight_hh_l0.T + x[:, -1] @ cell.weight_ih_l0.T
        end = torch.tanh(sums + cell.bias_ih_l0)
        cross_entropy(net.network.exit(end), None).backward()
        truth = cell_gradients(net)
    assert_each_close(found, [0.3 * g for g in truth], 1e-6)


# -- beyond --------------------------------------------------------------------------


@pytest.mark.parametrize("linearize", [True, False])
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("per_step", [True, False])
def test_gradients_are_those_of_the_squared_distances(
    linearize: bool, update: str, per_step: bool
) -> None:
    net = make(update=update, linearize=linearize, return_sequences=per_step, clip=0.2)
    x, loss = normal(B, T, D), step_cross_entropy if per_step else cross_entropy
    found = ours(net, x, loss)
    h = states_of(net, x)
    read = (h.transpose(0, 1) if per_step else h[-1]).clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(net.network.exit(read), None), read)
    direct = -0.1 * slope.transpose(0, 1) if per_step else torch.zeros_like(h)
    if not per_step:
        direct[-1] = -0.1 * slope
    targets = h + displace(direct, pulled(weights_of(net)[0], h, net.inversion))
    net.zero_grad()
    cell = net.network.recurrent[0]
    if update == "through_time":
        again = cell(x)[0].transpose(0, 1)
    else:
        before = torch.cat([torch.zeros(1, B, P), h[:-1]])
        again = torch.tanh(
            before @ cell.weight_hh_l0.T
            + x.transpose(0, 1) @ cell.weight_ih_l0.T
            + cell.bias_ih_l0
        )
    (0.5 * (again - targets).square().sum()).backward()
    assert_each_close(found, cell_gradients(net), 1e-10)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("per_step", [True, False])
def test_padding_counts_for_nothing(update: str, per_step: bool) -> None:
    settings = {"update": update, "linearize": False, "return_sequences": per_step}
    net = make(**settings)
    x, lengths = normal(B, T, D), torch.tensor([3, 7, 1, 5, 2])
    padded = x.clone()
    labels = STEP_LABELS.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = torch.nan
        labels[row, length:] = -1

    def loss(outputs: Tensor, weight: Tensor | None) -> Tensor:
        if not per_step:
            return cross_entropy(outputs, weight)
        counts = labels >= 0
        return F.cross_entropy(outputs[counts], labels[counts], reduction="sum") / B

    together = ours(net, padded, loss)
    real = states_of(net, x).transpose(0, 1)[~padded[..., 0].isnan()]
    share = share_of_saturated(real, 1e-3)
    assert float(net.saturation_fraction) == pytest.approx(share)
    assert_close(
        net.displacement_norms[-1],
        displacements_of_last(net, x, per_step),
        1e-10,
    )
    alone = [torch.zeros_like(g) for g in together]
    for row, length in enumerate(lengths):

        def loss_of_row(outputs: Tensor, weight: Any, row: int = row) -> Tensor:
            if per_step:
                known = labels[row][labels[row] >= 0]
                return F.cross_entropy(outputs[0], known, reduction="sum") / B
            return F.cross_entropy(outputs, LABELS[row : row + 1]) / B

        for total, g in zip(
            alone, ours(net, x[row : row + 1, :length], loss_of_row), strict=True
        ):
            total += g
    assert_each_close(together, alone, 1e-10)


def displacements_of_last(
    net: RecurrentInversionNetwork, x: Tensor, per_step: bool
) -> Tensor:
    """Compute the displacement of the only sequence that has a last step."""
    end = states_of(net, x)[-1, 1:2].clone().requires_grad_()
    label = STEP_LABELS[1, -1:] if per_step else LABELS[1:2]
    loss = F.cross_entropy(net.network.exit(end), label) / B
    (slope,) = torch.autograd.grad(loss, end)
    return net.target_lr * slope.norm()


@pytest.mark.parametrize("kind", ["dense", "recurrent"])
@pytest.mark.parametrize("linearize", [True, False])
def test_weights_are_as_good_as_repeats(kind: str, linearize: bool) -> None:
    repeats = torch.tensor([1, 3, 2, 1, 2])
    relative = repeats / repeats.double().mean()
    inversion = Inversion(0.3, 0.3, linearize)

    def gradients(x: Tensor, labels: Tensor, weight: Tensor | None) -> Any:
        n = int(repeats.sum())
        if kind == "dense":
            network = TransmittingNetwork(D, (P, P), K, "tanh", dtype=torch.float64)
            net: Any = DenseInversionNetwork(seeded(network), inversion, 5.0, n)
            x = x[:, 0]
        else:
            inner = make(update="local").network
            net = RecurrentInversionNetwork(inner, inversion, 5.0, "local", n)

        net.set_gradients(x, cross_entropy_of(labels), weight)
        return [p.grad for p in net.parameters() if p.grad is not None]

    x = normal(B, T, D)
    weighted = gradients(x, LABELS, relative)
    again, labels = (v.repeat_interleave(repeats, 0) for v in (x, LABELS))
    assert_each_close(weighted, gradients(again, labels, None), 1e-10)


def test_dense_layers_are_inverted_one_by_one() -> None:
    network = TransmittingNetwork(D, (5, 7, 4), K, "tanh", dtype=torch.float64)
    inversion = Inversion(0.3, 0.3, linearize=False)
    net = DenseInversionNetwork(network, inversion, 0.5)
    x = normal(B, D)
    _, outputs = net.set_gradients(x, cross_entropy)
    found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    assert_close(outputs, network(x))
    layers = list(network.layers)
    h = [x]
    for layer in layers[:-1]:
        h.append(torch.tanh(layer(h[-1])).detach())
    end = h[-1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(layers[-1](end), None), end)
    target, targets = h[-1] - 0.5 * slope, []
    for i in range(3, 0, -1):
        targets.insert(0, target)
        matrix = inverse_matrix(layers[i - 1].weight.detach(), 0.3)
        fed = layers[i - 1].bias.detach()
        undone = (inverse(inversion, matrix, v, fed) for v in (target, h[i]))
        target = h[i - 1] + (next(undone) - next(undone))
    share = share_of_saturated(torch.cat(h[1:], 1), 0.3)
    assert 0 < share < 1
    assert float(net.saturation_fraction) == pytest.approx(share)
    assert_allclose(
        net.displacement_norms,
        [float((t - v).norm()) for t, v in zip(targets, h[1:], strict=True)],
    )
    net.zero_grad()
    cross_entropy(layers[-1](h[-1]), None).backward()
    for i, t in enumerate(targets):
        (0.5 * (torch.tanh(layers[i](h[i])) - t).square().sum()).backward()
    truth = [p.grad for p in network.parameters() if p.grad is not None]
    assert_each_close(found, truth, 1e-10)


def test_identity_is_neither_clipped_nor_saturated() -> None:
    inversion = identity(0.5)
    h = 100 * normal(B, P)
    assert torch.equal(inversion.clipped(h), h)
    assert float(inversion.saturated(h)) == 0
    assert torch.equal(inversion.slope(h), torch.ones_like(h))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fading_displacements_never_become_denormal(dtype: torch.dtype) -> None:
    direct = torch.zeros(2000, 1, 1, dtype=dtype)
    direct[-1] = 1
    for d in (
        displace(direct, lambda t, d: d / 2),
        step_errors(direct, torch.ones_like(direct), torch.full((1, 1), 0.5).to(dtype)),
    ):
        sizes = d.abs()[d != 0]
        assert len(sizes) > 90
        assert float(sizes.min()) >= torch.finfo(dtype).tiny
        assert float(d[0]) == 0


def test_weights_that_are_not_finite_are_reported() -> None:
    net = make()
    with torch.no_grad():
        net.network.recurrent[0].weight_hh_l0[0, 0] = torch.inf
    with pytest.raises(FactorisationError, match="trace of the Gramian is inf"):
        net.set_gradients(normal(B, T, D), cross_entropy)


@pytest.mark.parametrize("update", UPDATES)
def test_weights_of_steps_scale_their_losses(update: str) -> None:
    x, weight = (
        normal(B, T, D),
        torch.rand(
            B, T, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        ),
    )
    weight[1, 2:4] = weight[3] = 0  # some steps of a sequence, and all of another

    def loss(outputs: Tensor, weight: Tensor | None) -> Tensor:
        losses = F.cross_entropy(
            outputs.flatten(0, 1), STEP_LABELS.flatten(), reduction="none"
        )
        return (losses if weight is None else losses * weight.flatten()).mean()

    # Linear displacements: it does not matter what the weights are multiplied with.
    net = make(update=update, return_sequences=True)
    net.set_gradients(x, loss, weight)
    found = cell_gradients(net)
    inside = ours(net, x, lambda outputs, _: loss(outputs, weight))
    assert_each_close(found, inside, 1e-10)


@pytest.mark.parametrize("update", UPDATES)
def test_padding_of_all_changes_no_steps(update: str) -> None:
    x, net = normal(B, T, D), make(update=update, return_sequences=True)
    expected = ours(net, x, step_cross_entropy)
    padded = F.pad(x, (0, 0, 0, 4), value=torch.nan)
    net.zero_grad()
    _, outputs = net.set_gradients(
        padded, lambda outputs, _: step_cross_entropy(outputs[:, :T], None)
    )
    assert outputs.shape == (B, T + 4, K)
    assert net.displacement_norms.shape == (T + 4,)
    assert_each_close(cell_gradients(net), expected)
