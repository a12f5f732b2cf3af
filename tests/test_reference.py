"""The reference is the truth for the rest, so it answers to mathematics alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tests.reference import (
    ACTIVATIONS,
    LOSSES,
    Array,
    Network,
    Untangling,
    backward,
    forward,
    project,
    realise,
    ridge,
    ridge_dual,
    ridge_primal,
    target_gradients,
    target_loss,
    targets_from_weights,
)

SIZES = (3, 4, 5, 2)


def draw(
    network: Network, n_fixed: int = 12, seed: int = 0
) -> tuple[list[Array], list[Array], Array]:
    """Random weights, targets and fixed batch."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) for shape in network.weight_shapes()]
    targets = [rng.normal(size=shape) for shape in network.target_shapes(n_fixed)]
    return weights, targets, rng.normal(size=(n_fixed, network.sizes[0]))


def draw_labels(loss: str, n_rows: int, n_out: int, seed: int = 1) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if loss == "softmax":
        return rng.integers(n_out, size=n_rows)
    if loss == "logistic":
        return rng.integers(2, size=(n_rows, n_out))
    if loss == "poisson":
        return rng.poisson(1.5, size=(n_rows, n_out))
    return rng.normal(size=(n_rows, n_out))


def finite_differences(f: Callable[[], float], at: Array, step: float = 1e-5) -> Array:
    """Central differences of the scalar f() in every entry of `at`, in place."""
    gradient = np.empty_like(at)
    for index in np.ndindex(at.shape):
        value = at[index]
        at[index] = value + step
        above = f()
        at[index] = value - step
        below = f()
        at[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


# --- Shapes and the forward pass ------------------------------------------------------


@pytest.mark.parametrize(
    ("shortcuts", "bias", "expected"),
    [
        (False, True, [(4, 4), (5, 5), (6, 2)]),
        (False, False, [(3, 4), (4, 5), (5, 2)]),
        (True, True, [(4, 4), (8, 5), (13, 2)]),
        (True, False, [(3, 4), (7, 5), (12, 2)]),
    ],
)
def test_layer_table(
    shortcuts: bool, bias: bool, expected: list[tuple[int, int]]
) -> None:
    network = Network(SIZES, shortcuts=shortcuts, bias=bias)
    _, targets, fixed_batch = draw(network, n_fixed=9)
    weights, fixed = realise(network, targets, fixed_batch, lam=0.1)

    assert network.weight_shapes() == expected
    assert network.target_shapes(9) == [(9, 4), (9, 5), (9, 2)]
    assert [w.shape for w in weights] == expected
    assert [a.shape for a in fixed.inputs] == [(9, n_in) for n_in, _ in expected]
    assert [s.shape for s in fixed.sums] == [(9, 4), (9, 5), (9, 2)]
    assert [a.shape for a in fixed.activations] == [(9, d) for d in SIZES]


def test_forward_is_the_textbook_formula() -> None:
    network = Network((3, 4, 2), shortcuts=True)
    (w1, w2), _, x = draw(network)
    hidden = np.tanh(w1[0] + x @ w1[1:])
    output = w2[0] + x @ w2[1:4] + hidden @ w2[4:]
    assert_allclose(forward(network, [w1, w2], x).activations[-1], output, rtol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_derivatives(name: str) -> None:
    g, g_prime = ACTIVATIONS[name]
    s = np.array([-3.0, -0.7, -0.01, 0.02, 0.9, 4.0])
    assert_allclose(g_prime(s), (g(s + 1e-6) - g(s - 1e-6)) / 2e-6, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_derivatives(loss: str) -> None:
    sums = np.random.default_rng(0).normal(size=(4, 3))
    y = draw_labels(loss, 4, 3)
    numeric = finite_differences(lambda: LOSSES[loss](sums, y)[0], sums)
    assert_allclose(LOSSES[loss](sums, y)[1], numeric, atol=1e-9)


# --- The solve ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 4), (4, 20), (6, 6)])
@pytest.mark.parametrize("lam", [1e-6, 1e-3, 1.0, 100.0])
def test_primal_equals_dual(shape: tuple[int, int], lam: float) -> None:
    rng = np.random.default_rng(0)
    a, t = rng.normal(size=shape), rng.normal(size=(shape[0], 3))
    assert_allclose(ridge_primal(a, t, lam), ridge_dual(a, t, lam), atol=1e-8)


@pytest.mark.parametrize("shape", [(20, 4), (4, 20)])
@pytest.mark.parametrize("lam", [1e-3, 1.0])
def test_solve_is_the_argmin(shape: tuple[int, int], lam: float) -> None:
    rng = np.random.default_rng(0)
    a, t = rng.normal(size=shape), rng.normal(size=(shape[0], 3))
    w = ridge(a, t, lam)

    def objective(w: Array) -> float:
        return float(((a @ w - t) ** 2).sum() + lam * (w**2).sum())

    # Half the gradient of the objective: the normal equations' residual.
    assert_allclose(a.T @ (a @ w - t) + lam * w, 0.0, atol=1e-11)
    for _ in range(5):
        assert objective(w) < objective(w + 1e-3 * rng.normal(size=w.shape))


def test_limits_of_lambda() -> None:
    rng = np.random.default_rng(0)
    a, t = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    assert_allclose(ridge(a, t, 0.0), np.linalg.lstsq(a, t, rcond=None)[0], atol=1e-12)
    assert_allclose(ridge(a, t, 1e9), a.T @ t / 1e9, rtol=1e-6)


# --- The cascade ----------------------------------------------------------------------


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("n_fixed", [5, 12])
def test_every_layer_solves_on_what_it_is_handed(
    untangling: Untangling, shortcuts: bool, n_fixed: int
) -> None:
    network, lam = Network(SIZES, shortcuts=shortcuts), 0.1
    _, targets, fixed_batch = draw(network, n_fixed)
    weights, fixed = realise(network, targets, fixed_batch, lam, untangling)
    handed_on = fixed.sums if untangling == "scu" else targets

    for k, (w, t) in enumerate(zip(weights, targets, strict=True)):
        parts = [fixed_batch, *(np.tanh(s) for s in handed_on[:k])]
        a = np.hstack([np.ones((n_fixed, 1)), *(parts if shortcuts else parts[-1:])])
        assert_allclose(fixed.inputs[k], a, rtol=1e-13)
        assert_allclose(a.T @ (a @ w - t) + lam * w, 0.0, atol=1e-12)
        assert_allclose(fixed.sums[k], a @ w, rtol=1e-12, atol=1e-14)


def test_scu_sums_are_those_of_the_realised_network() -> None:
    network = Network(SIZES, shortcuts=True)
    _, targets, fixed_batch = draw(network)
    weights, fixed = realise(network, targets, fixed_batch, lam=0.1)
    for cascade, ordinary in zip(
        fixed.sums, forward(network, weights, fixed_batch).sums, strict=True
    ):
        assert_allclose(cascade, ordinary, rtol=1e-13)


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("shortcuts", [False, True])
def test_targets_from_weights_give_the_weights_back(
    untangling: Untangling, shortcuts: bool
) -> None:
    network = Network(SIZES, shortcuts=shortcuts)
    weights, _, fixed_batch = draw(network, n_fixed=40)
    targets = targets_from_weights(network, weights, fixed_batch)
    again, _ = realise(network, targets, fixed_batch, 1e-12, untangling)
    for w, w_again in zip(weights, again, strict=True):
        assert_allclose(w_again, w, atol=1e-8)


def test_projected_targets_can_be_met() -> None:
    network = Network(SIZES)
    _, targets, fixed_batch = draw(network, n_fixed=40)
    projected = project(network, targets, fixed_batch, lam=1e-12)
    for untangling in ("scu", "ocu"):
        _, fixed = realise(network, projected, fixed_batch, 1e-12, untangling)
        for s, t, raw in zip(fixed.sums, projected, targets, strict=True):
            assert_allclose(s, t, atol=1e-8)
            assert np.abs(t - raw).max() > 0.1


# --- Gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_backpropagation(shortcuts: bool, bias: bool) -> None:
    network = Network(SIZES, shortcuts=shortcuts, bias=bias)
    weights, _, x = draw(network)
    y = draw_labels("softmax", len(x), SIZES[-1])

    def measure() -> tuple[float, Array]:
        return LOSSES["softmax"](forward(network, weights, x).sums[-1], y)

    gradients = backward(network, weights, x, measure()[1])
    for w, gradient in zip(weights, gradients, strict=True):
        numeric = finite_differences(lambda: measure()[0], w)
        assert_allclose(gradient, numeric, atol=1e-9)


def check_target_gradients(
    network: Network,
    *,
    untangling: Untangling,
    n_fixed: int = 12,
    shared: bool = False,
    loss: str = "softmax",
    lam: float = 0.1,
) -> None:
    """Compare Alg. 3 with central differences in every entry of every target."""
    _, targets, fixed_batch = draw(network, n_fixed)
    x = fixed_batch if shared else draw(network, n_fixed=6, seed=2)[2]
    y = draw_labels(loss, len(x), network.sizes[-1])
    setting: dict[str, Any] = {"lam": lam, "untangling": untangling, "loss": loss}

    measure = partial(target_loss, network, targets, fixed_batch, x, y, **setting)
    gradients = target_gradients(network, targets, fixed_batch, x, y, **setting)
    for t, gradient in zip(targets, gradients, strict=True):
        numeric = finite_differences(measure, t)
        # The differences are blurred in proportion to the largest entry.
        scale = np.abs(numeric).max()
        assert scale > 1e-6
        assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n_fixed", [4, 12], ids=["dual", "primal"])
def test_target_gradients(
    untangling: Untangling, shortcuts: bool, shared: bool, bias: bool, n_fixed: int
) -> None:
    network = Network(SIZES, shortcuts=shortcuts, bias=bias)
    check_target_gradients(
        network, untangling=untangling, shared=shared, n_fixed=n_fixed
    )


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_target_gradients_of_activations(
    untangling: Untangling, activation: str
) -> None:
    check_target_gradients(Network(SIZES, activation), untangling=untangling)


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("lam", [1e-3, 1.0])
def test_target_gradients_of_losses(
    untangling: Untangling, loss: str, lam: float
) -> None:
    network = Network(SIZES, shortcuts=True)
    check_target_gradients(network, untangling=untangling, loss=loss, lam=lam)
