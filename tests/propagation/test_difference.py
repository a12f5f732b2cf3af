"""Difference target propagation against what is known in closed form.

D1 to D9 are the properties that targets, gradients and feedback maps must have.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.autograd.functional import jvp

from sktarget.propagation._difference import DifferenceTargetNetwork
from sktarget.propagation._feedback import FeedbackMap, propagate_targets
from sktarget.propagation._network import TransmittingNetwork
from sktarget.propagation._noise import RowNoise, _hash_rows
from sktarget.training._criteria import CRITERIA
from tests.helpers import assert_all_close, normal
from tests.propagation.support import assert_close, cross_entropy_of

B = 10
LABELS = torch.arange(B) % 3
Y = normal(B, 3, seed=7)
cross_entropy = cross_entropy_of(LABELS)


def squared_error(outputs: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over rows of squares summed over outputs."""
    losses = (outputs - Y).square().sum(1)
    return (losses if weight is None else losses * weight).mean()


def make(
    sizes: tuple[int, ...] = (5, 7, 6, 4),
    activation: str = "tanh",
    *,
    transmission: str = "identity",
    weight_init: str = "orthogonal",
    seed: int = 0,
    **kwargs: Any,
) -> DifferenceTargetNetwork:
    """Make a network of hidden layers `sizes` from 4 inputs to 3 outputs."""
    generator = torch.Generator().manual_seed(seed)
    network = TransmittingNetwork(
        4,
        sizes,
        3,
        activation,
        transmission=transmission,
        weight_init=weight_init,
        out_activation="softmax",
        generator=generator,
        dtype=torch.float64,
    )
    net = DifferenceTargetNetwork(network, generator=generator, **kwargs)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.copy_(0.3 * normal(*p.shape, seed=len(name)))
    return net


def states_of(net: DifferenceTargetNetwork, x: Tensor) -> list[Tensor]:
    """Compute h_0 to h_{M-1}, of units that transmit their values."""
    states = [x]
    with torch.no_grad():
        for i in range(1, len(net.network.layers)):
            states.append(net.network.apply_layer(states[-1], i))
    return states


def gradients(net: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def local_gradients(
    net: DifferenceTargetNetwork,
    x: Tensor,
    loss: Callable[[Tensor, Tensor | None], Tensor] = cross_entropy,
    weight: Tensor | None = None,
) -> list[Tensor]:
    net.zero_grad()
    net.set_gradients(x, loss, weight)
    return gradients(net.network)


def backpropagated(
    net: DifferenceTargetNetwork,
    x: Tensor,
    loss: Callable[[Tensor, Tensor | None], Tensor] = cross_entropy,
) -> list[Tensor]:
    net.zero_grad()
    loss(net(x), None).backward()
    return gradients(net.network)


# -- D1 to D9 ------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "tanh", "relu", "logistic"])
@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_d1_one_hidden_layer_is_scaled_backpropagation(
    activation: str, loss: Callable[[Tensor, Tensor | None], Tensor]
) -> None:
    net = make((8,), activation, target_lr=0.3)
    x = normal(B, 4)
    assert len(net.feedback) == 0
    ours, truth = local_gradients(net, x, loss), backpropagated(net, x, loss)
    # η/B = η_s, the step in the convention of the parameter.
    for a, b in zip(ours[:2], truth[:2], strict=True):
        assert_close(a, 2 * 0.3 * b)
    for a, b in zip(ours[2:], truth[2:], strict=True):
        assert_close(a, b)


def test_d2_transposed_feedback_of_linear_layers_is_scaled_backpropagation() -> None:
    net = make(activation="identity", feedback_activation="identity", target_lr=0.2)
    with torch.no_grad():
        for layer, g in zip(net.network.layers[1:-1], net.feedback, strict=True):
            g.linear.weight.copy_(layer.weight.T)
            g.linear.bias.normal_(generator=torch.Generator().manual_seed(3))
    x = normal(B, 4)
    ours, truth = local_gradients(net, x), backpropagated(net, x)
    for a, b in zip(ours[:-2], truth[:-2], strict=True):
        assert_close(a, 2 * 0.2 * b)


def inverses(net: DifferenceTargetNetwork) -> None:
    """Make every feedback map the exact inverse of its linear layer."""
    with torch.no_grad():
        for layer, g in zip(net.network.layers[1:-1], net.feedback, strict=True):
            inverse = torch.linalg.inv(layer.weight)
            g.linear.weight.copy_(inverse)
            g.linear.bias.copy_(-inverse @ layer.bias)


def test_d3_exact_inverses_pass_targets_exactly() -> None:
    net = make(
        (5, 5, 5, 5), "identity", feedback_activation="identity", weight_init="uniform"
    )
    inverses(net)
    states = states_of(net, normal(B, 4))[1:]
    top = states[-1] + 0.1 * normal(B, 5, seed=1)
    with torch.no_grad():
        corrected = propagate_targets(states, top, list(net.feedback))
        plain = propagate_targets(states, top, list(net.feedback), difference=False)
    for i in range(len(states) - 1):
        layer = net.network.layers[i + 1]
        moved = corrected[i + 1] - states[i + 1]
        expected = torch.linalg.solve(layer.weight.detach(), moved.T).T
        assert_close(corrected[i] - states[i], expected, 1e-10)
        assert_close(corrected[i], plain[i], 1e-10)
        assert_close(layer(corrected[i]), corrected[i + 1], 1e-10)


@pytest.mark.parametrize("top_target", ["penultimate", "output"])
@pytest.mark.parametrize("transmission", ["identity", "sign"])
def test_d4_without_a_step_nothing_hidden_moves(
    top_target: str, transmission: str
) -> None:
    settings = {"top_target": top_target, "transmission": transmission}
    x = normal(B, 4)
    still = local_gradients(make(target_lr=0.0, **settings), x)
    n_still = -2 if top_target == "penultimate" else len(still)
    assert all((g == 0).all() for g in still[:n_still])
    plain = local_gradients(make(target_lr=0.0, difference=False, **settings), x)
    assert max(float(g.abs().max()) for g in plain[:-4]) > 0.1


@pytest.mark.parametrize("top_target", ["penultimate", "output"])
def test_inputs_stay_out_of_the_graph(top_target: str) -> None:
    for sizes in ((), (5,)):
        x = normal(B, 4)
        local_gradients(make(sizes, top_target=top_target), x)
        assert not x.requires_grad
        assert x.grad is None


def test_d4_equal_targets_are_kept_to_the_bit() -> None:
    net = make()
    states = states_of(net, normal(B, 4))[1:]
    with torch.no_grad():
        targets = propagate_targets(states, states[-1].clone(), list(net.feedback))
    assert all(torch.equal(a, b) for a, b in zip(states, targets, strict=True))


def test_d5_small_steps_are_passed_by_the_jacobian() -> None:
    net = make()
    states = states_of(net, normal(B, 4))[1:]
    direction = normal(B, 4, seed=1)
    errors = []
    for step in (1e-1, 1e-2, 1e-3):
        with torch.no_grad():
            targets = propagate_targets(
                states, states[-1] + step * direction, list(net.feedback)
            )
        moved = targets[-1] - states[-1]
        for i in range(len(states) - 2, -1, -1):
            _, moved = jvp(net.feedback[i], states[i + 1], moved)
        error = (targets[0] - states[0] - moved).norm() / moved.norm()
        errors.append(float(error.detach()))
    assert errors[0] < 0.2
    assert_allclose(errors[1:], [errors[0] / 10, errors[0] / 100], rtol=0.3)


@pytest.mark.parametrize("shape", [(3, 5), (5, 5)])
def test_d6_linear_feedback_converges_to_the_regression(shape: tuple[int, int]) -> None:
    above, below = shape
    net = make((below, above, 4), "identity", feedback_activation="identity", noise=0.5)
    layer, undo = net.network.layers[1], net.feedback[0]
    x = normal(400, 4)
    # Frozen noise: the same numbers at every call.
    noise = RowNoise(x, torch.Generator().manual_seed(1))
    noisy = states_of(net, x)[1] + 0.5 * noise.normal(below)
    optimiser = torch.optim.LBFGS(
        net.feedback[0].parameters(), max_iter=500, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        net.begin_epoch(1)
        net._generator.manual_seed(1)
        loss = net.reconstruction_losses(x)[0]
        loss.backward()
        return loss

    for _ in range(20):
        optimiser.step(closure)
    centred = noisy - noisy.mean(0)  # the bias takes up the mean
    A, S = layer.weight.detach(), centred.T @ centred / len(x)
    expected = S @ A.T @ torch.linalg.inv(A @ S @ A.T)
    assert_close(undo.linear.weight, expected, 1e-5)
    if above == below:
        assert_close(undo.linear.weight, torch.linalg.inv(A), 1e-5)


def test_d7_half_a_step_down_the_squared_error_is_the_answer() -> None:
    net = make(top_target="output", target_lr=0.5)
    x = normal(B, 4)
    local = local_gradients(net, x, squared_error)
    # So the output layer descends ‖f_M(h_{M-1}) - y‖² itself.
    truth = backpropagated(net, x, squared_error)
    for a, b in zip(local[-2:], truth[-2:], strict=True):
        assert_close(a, b)


def test_d7_a_step_per_output_down_the_estimators_error_is_the_answer() -> None:
    x, half_mean = normal(B, 4), CRITERIA["squared_error"].loss
    net = make(top_target="output", target_lr=3.0)
    local = local_gradients(net, x, lambda out, weight: half_mean(out, Y, weight))
    truth = local_gradients(make(top_target="output", target_lr=0.5), x, squared_error)
    for a, b in zip(local, truth, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize(("top_target", "n_maps"), [("penultimate", 3), ("output", 4)])
def test_d7_shapes(top_target: str, n_maps: int) -> None:
    net = make((5, 7, 6, 4), top_target=top_target)
    widths = [4, 5, 7, 6, 4, 3]
    shapes = [tuple(g.linear.weight.shape) for g in net.feedback]
    assert shapes == [(widths[i - 1], widths[i]) for i in range(2, n_maps + 2)]
    weights = [tuple(layer.weight.shape) for layer in net.network.layers]
    assert weights == [(widths[i], widths[i - 1]) for i in range(1, 6)]


def test_d8_signs_give_a_signal_only_where_one_flips() -> None:
    x = normal(B, 4)
    net = make((6, 6), transmission="sign", target_lr=1e-9)
    assert all((g == 0).all() for g in local_gradients(net, x)[:2])
    assert all((g != 0).any() for g in local_gradients(net, x)[2:])
    net = make((6, 6), transmission="sign", target_lr=30.0)
    assert all((g != 0).any() for g in local_gradients(net, x)[:2])


def test_d8_feedback_step_lowers_its_loss_and_moves_nothing_else() -> None:
    net = make()
    x = normal(B, 4)
    before = [p.clone() for p in net.network.parameters()]
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    losses = net.reconstruction_losses(x)
    torch.stack(losses).sum().backward()
    optimiser.step()
    for p, q in zip(net.network.parameters(), before, strict=True):
        assert p.grad is None
        assert torch.equal(p, q)
    net.begin_epoch(1)  # the same noise again
    after = net.reconstruction_losses(x)
    assert all(b < a for a, b in zip(losses, after, strict=True))


def test_d8_network_step_moves_no_feedback() -> None:
    net = make()
    net.set_gradients(normal(B, 4), cross_entropy)
    assert all(p.grad is None for p in net.feedback.parameters())
    assert all(p.grad is not None for p in net.network.parameters())


def test_gradients_take_the_place_of_earlier_ones() -> None:
    found = []
    for _ in range(2):
        net = make()
        for _ in range(1 + len(found)):
            net.begin_epoch(1)  # the same noise
            net.set_gradients(normal(B, 4), cross_entropy)
        found.append([p.grad for p in net.network.parameters()])
    assert_all_close(*found, 0)


def test_d9_all_singular_values_are_one() -> None:
    net = make((9, 5, 7, 7, 2))
    for name, weight in net.named_parameters():
        if name.endswith("weight"):
            values = torch.linalg.svdvals(weight.detach())
            assert_allclose(values, 1.0, atol=1e-6)


# -- beyond --------------------------------------------------------------------------


def test_gradients_are_those_of_the_local_losses() -> None:
    net = make((5, 7, 6), target_lr=0.7)
    x = normal(B, 4)
    ours = local_gradients(net, x)
    states = states_of(net, x)
    top = states[-1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        cross_entropy(net.network.layers[-1](top), None), top
    )
    with torch.no_grad():
        targets = propagate_targets(
            states[1:], states[-1] - 0.7 * B * slope, list(net.feedback)
        )
    for i, target in enumerate(targets):
        net.zero_grad()
        out = net.network.apply_layer(states[i], i + 1)
        (out - target).square().sum(1).mean().backward()
        for a, p in zip(
            ours[2 * i : 2 * i + 2], net.network.layers[i].parameters(), strict=True
        ):
            assert p.grad is not None
            assert_close(a, p.grad)


@pytest.mark.parametrize("transmission", ["identity", "sign", "bernoulli"])
@pytest.mark.parametrize("top_target", ["penultimate", "output"])
def test_weights_are_as_good_as_repeats(transmission: str, top_target: str) -> None:
    activation = "logistic" if transmission == "bernoulli" else "tanh"
    net = make(
        (5, 6, 4),
        activation,
        transmission=transmission,
        top_target=top_target,
        target_lr=0.5,
    )
    x, repeats = normal(4, 4), torch.tensor([1, 3, 2, 1])
    labels = torch.tensor([0, 1, 2, 1])

    weight = repeats / repeats.double().mean()
    weighted = local_gradients(net, x, cross_entropy_of(labels), weight)
    again, relabelled = (
        x.repeat_interleave(repeats, 0),
        labels.repeat_interleave(repeats),
    )
    order = torch.randperm(len(again), generator=torch.Generator().manual_seed(0))
    net.begin_epoch(1)
    loss = cross_entropy_of(relabelled[order])
    repeated = local_gradients(net, again[order], loss)
    for a, b in zip(weighted, repeated, strict=True):
        assert_close(a, b, 1e-10)
    net.begin_epoch(1)
    one = net.reconstruction_losses(x, weight)
    net.begin_epoch(1)
    other = net.reconstruction_losses(again[order])
    for a, b in zip(one, other, strict=True):
        assert_close(a, b, 1e-10)


@pytest.mark.parametrize("top_target", ["penultimate", "output"])
def test_inputs_are_noisy_in_training_alone(top_target: str) -> None:
    net = make(top_target=top_target, input_noise=0.3)
    x, n = normal(5000, 4), 5000
    received: list[Tensor] = []
    first = net.network.layers[0]
    first.register_forward_pre_hook(lambda _, args: received.append(args[0]))
    net.set_gradients(x, lambda out, _: out.square().mean())
    net.reconstruction_losses(x)
    for seen in received:
        noise = seen - x
        assert abs(float(noise.mean())) < 4 * 0.3 / (4 * n) ** 0.5
        assert float(noise.std()) == pytest.approx(0.3, rel=0.03)
        assert noise.T.corrcoef().fill_diagonal_(0).abs().max() < 0.1
    assert len(received) == 2
    net(x)
    assert torch.equal(received[-1], x)


def test_noise_of_an_epoch_follows_from_its_number() -> None:
    net = make(seed=3)
    x = normal(B, 4)
    net.begin_epoch(5)
    first, second = net.reconstruction_losses(x), net.reconstruction_losses(x)
    assert first[0] != second[0]
    net.begin_epoch(5)
    assert first[0] == net.reconstruction_losses(x)[0]
    net.begin_epoch(5, scale=0.0)
    quiet = net.reconstruction_losses(x)
    h = states_of(net, x)
    for i, undo in enumerate(net.feedback, start=1):
        missed = (undo(h[i + 1]) - h[i]).square().sum(1).mean()
        assert_close(quiet[i - 1], missed)


def test_rows_get_numbers_of_their_own() -> None:
    x = torch.cat([normal(500, 3), normal(500, 3)])
    for rows in (x, x.float()):
        noise = RowNoise(rows, torch.Generator().manual_seed(0))
        drawn = noise.normal(4)
        assert drawn.dtype == rows.dtype
        assert len(drawn.unique(dim=0)) == 500
        assert torch.equal(drawn[:500], drawn[500:])
        assert abs(float(drawn.mean())) < 0.1
        assert abs(float(drawn.std()) - 1) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hash_tells_grids_apart(dtype: torch.dtype) -> None:
    # Small whole numbers, permuted columns: what a careless hash confuses.
    grid = torch.cartesian_prod(*[torch.arange(-4.0, 5.0)] * 4).to(dtype)
    n_distinct, _ = RowNoise(grid, torch.Generator()).groups
    assert n_distinct == len(grid)


def test_hash_is_that_of_splitmix64() -> None:
    # Of zeros the second word is the increment itself: the first number of seed 0.
    (found,) = _hash_rows(torch.zeros(1, 2, dtype=torch.float64)).tolist()
    assert found % 2**64 == 0xE220A8397B1DCDAF


def test_bernoulli_predictions_average_samples_row_by_row() -> None:
    net = make((8, 8), "logistic", transmission="bernoulli", weight_init="uniform")
    x = normal(B, 4)
    with torch.no_grad():
        whole = net(x).softmax(1)
        rows = torch.cat([net(row[None]) for row in x]).softmax(1)
        assert_close(whole, rows, 1e-12)
        assert_close(whole.sum(1), torch.ones(B, dtype=torch.float64))
        # The mean over many independent passes.
        noise = torch.Generator().manual_seed(0)
        total = torch.zeros_like(whole)
        for _ in range(2000):
            h = x
            for i in range(1, 4):
                sent = net.network.transmit(
                    h,
                    i,
                    lambda width: torch.rand(
                        B, width, generator=noise, dtype=torch.float64
                    ),
                )
                h = net.network.apply_layer(sent, i)
            total += h.softmax(1) / 2000
    assert float((total - whole).abs().max()) < 0.1


def test_samples_are_zero_or_one_beyond_the_unit_interval() -> None:
    net = make((3, 3), "logistic", transmission="bernoulli").network
    v = torch.tensor([[-0.2, 1.3, 0.5]], dtype=torch.float64)
    for u in (0.0, 0.49, 0.51, 0.999):
        sent = net.transmit(v, 2, lambda width, u=u: torch.full((1, width), u))
        assert sent.tolist() == [[0.0, 1.0, float(u < 0.5)]]


def test_sign_is_never_zero() -> None:
    net = make((3, 3), transmission="sign").network
    v = torch.tensor([[0.0, -0.0, 1e-300, -3.0]], dtype=torch.float64)
    assert net.transmit(v, 2).tolist() == [[-1.0, -1.0, 1.0, -1.0]]
    assert torch.equal(net.transmit(v, 3), v)  # the output layer sees values
    feedback = FeedbackMap(4, 2, "tanh", signs=True, dtype=torch.float64)
    assert torch.equal(feedback(v), feedback(100 * v))
