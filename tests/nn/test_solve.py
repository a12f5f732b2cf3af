"""Weights and gradients agree with the reference and with automatic differentiation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.architectures import DenseNetwork
from sktarget.nn import TargetSpace
from sktarget.nn._link import Link
from sktarget.nn._operators import DenseOperator
from sktarget.nn._solution import factorise_design
from sktarget.nn._solve import solve_and_apply
from tests import reference
from tests.helpers import (
    ACTIVATIONS,
    PlainDense,
    assert_all_close,
    gradients,
    normal,
    set_targets,
)
from tests.reference import Network, Untangling

both_untanglings = pytest.mark.parametrize("untangling", ["scu", "ocu"])
both_biases = pytest.mark.parametrize("bias", [False, True], ids=["bare", "bias"])
both_forms = pytest.mark.parametrize("n_fixed", [4, 12], ids=["dual", "primal"])


# --- The whole network against the reference ------------------------------------------


def check_against_reference(
    network: Network,
    *,
    untangling: Untangling = "scu",
    n_fixed: int = 12,
    shared: bool = False,
    lam: float = 0.1,
    seed: int = 0,
) -> float:
    """Compare, and return the largest gradient."""
    rng = np.random.default_rng(seed)
    targets = [rng.normal(size=shape) for shape in network.target_shapes(n_fixed)]
    fixed = rng.normal(size=(n_fixed, network.sizes[0]))
    x = fixed if shared else rng.normal(size=(7, network.sizes[0]))
    y = rng.integers(network.sizes[-1], size=len(x))

    net = TargetSpace(PlainDense(network), torch.from_numpy(fixed), lam, untangling)
    set_targets(net, targets)
    batch = net.fixed_batch if shared else torch.from_numpy(x)
    sums = net(batch)
    F.cross_entropy(sums, torch.from_numpy(y)).backward()

    weights, _ = reference.realise(network, targets, fixed, lam, untangling)
    output = reference.forward(network, weights, x).sums[-1]
    expected = reference.target_gradients(
        network, targets, fixed, x, y, lam=lam, untangling=untangling
    )
    assert_all_close(matrices(net), weights, 1e-10)
    assert_all_close([sums], [output], 1e-10)
    assert_all_close(gradients(net), expected, 1e-8)
    return max(np.abs(g).max() for g in expected)


def matrices(net: TargetSpace) -> list[Tensor]:
    """Realised weights as the reference has them: inputs by outputs, bias first."""
    layers = net.realise().layers
    return [
        layer.weight.T
        if layer.bias is None
        else torch.cat([layer.bias[None], layer.weight.T])
        for layer in layers
    ]


@both_untanglings
@pytest.mark.parametrize("shortcuts", [False, True], ids=["plain", "shortcuts"])
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
@both_biases
@both_forms
def test_reference(
    untangling: Untangling, shortcuts: bool, shared: bool, bias: bool, n_fixed: int
) -> None:
    network = Network((3, 5, 4, 2), shortcuts=shortcuts, bias=bias)
    largest = check_against_reference(
        network, untangling=untangling, shared=shared, n_fixed=n_fixed
    )
    assert largest > 1e-3


@both_untanglings
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("lam", [1e-2, 10.0])
def test_reference_of_activations(
    untangling: Untangling, activation: str, lam: float
) -> None:
    network = Network((3, 5, 4, 2), activation, shortcuts=True)
    check_against_reference(network, untangling=untangling, lam=lam)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    n_fixed=st.integers(1, 15),
    lam=st.floats(1e-2, 1e2),
    untangling=st.sampled_from(["scu", "ocu"]),
    shortcuts=st.booleans(),
    bias=st.booleans(),
    shared=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50)
def test_reference_of_any_shape(
    sizes: list[int], shortcuts: bool, bias: bool, **setting: Any
) -> None:
    # With two classes the loss depends on every layer.
    network = Network((*sizes, 2), shortcuts=shortcuts, bias=bias)
    check_against_reference(network, **setting)


# --- One node -------------------------------------------------------------------------


def node(
    inputs: Tensor, targets: Tensor, bias: bool, lam: float, untangling: str
) -> tuple[Tensor, Tensor]:
    link = Link(
        DenseOperator(bias),
        lambda inputs, operator, rows: factorise_design(operator, rows, lam),
    )
    outputs, (weights,) = solve_and_apply(
        inputs, [link], [targets], optimistic=untangling == "ocu"
    )
    return outputs, weights


def formula(
    inputs: Tensor, targets: Tensor, bias: bool, lam: float, untangling: str
) -> tuple[Tensor, Tensor]:
    """The same by the textbook, left to automatic differentiation."""
    ones = inputs.new_ones(*inputs.shape[:-1], int(bias))
    rows = torch.cat([ones, inputs], -1)
    a, t = rows[: len(targets)].flatten(0, -2), targets.flatten(0, -2)
    gram = a.T @ a + lam * torch.eye(a.shape[1], dtype=a.dtype)
    weights = torch.linalg.solve(gram, a.T @ t)
    sums = rows @ weights
    if untangling == "ocu":
        sums = torch.cat([targets, sums[len(targets) :]])
    return sums, weights


PLACES = [(0,), (3,), (0, 2), (3, 2)]


@both_untanglings
@both_biases
@both_forms
@pytest.mark.parametrize("place", PLACES, ids=str)
# The last λ is above the trace of the Gramian.
@pytest.mark.parametrize("lam", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("used", ["sums", "weights", "both"])
@pytest.mark.parametrize("constant", [False, True], ids=["learnt", "constant"])
def test_node_is_the_formula(
    n_fixed: int,
    place: tuple[int, ...],
    used: str,
    untangling: str,
    bias: bool,
    lam: float,
    constant: bool,
) -> None:
    n_more, *inner = place
    results = []
    for function in (node, formula):
        inputs = normal(n_fixed + n_more, *inner, 5, seed=1)
        inputs.requires_grad_(not constant)
        targets = normal(n_fixed, *inner, 3, seed=2).requires_grad_()
        sums, weights = function(inputs, targets, bias, lam, untangling)
        loss = sums.new_zeros(())
        if used != "weights":
            loss = loss + (sums * normal(*sums.shape, seed=3)).sum()
        if used != "sums":
            loss = loss + (weights * normal(*weights.shape, seed=4)).sum()
        loss.backward()
        # Optimistic sums on X̄ are the targets, whatever the inputs.
        d_inputs = torch.zeros_like(inputs) if inputs.grad is None else inputs.grad
        results.append((sums, weights, d_inputs, targets.grad))
    assert_all_close(*results, tolerance=1e-9)


@both_untanglings
@both_biases
@pytest.mark.parametrize("n_fixed", [3, 6], ids=["dual", "primal"])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_gradcheck_of_the_node(
    n_fixed: int, place: tuple[int, ...], untangling: str, bias: bool
) -> None:
    n_more, *inner = place
    inputs = normal(n_fixed + n_more, *inner, 4, seed=1).requires_grad_()
    targets = normal(n_fixed, *inner, 2, seed=2).requires_grad_()

    def function(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return node(inputs, targets, bias, 0.1, untangling)

    assert torch.autograd.gradcheck(function, (inputs, targets))


@both_untanglings
@pytest.mark.parametrize("n_fixed", [3, 8], ids=["dual", "primal"])
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
def test_gradcheck_of_the_network(untangling: str, n_fixed: int, shared: bool) -> None:
    module = PlainDense(Network((2, 3, 2, 1), shortcuts=True))
    net = TargetSpace(module, normal(n_fixed, 2), 0.1, untangling)
    set_targets(net, [normal(n_fixed, d, seed=d) for d in (3, 2, 1)])
    x = net.fixed_batch if shared else normal(2, 2, seed=5)

    # The parameters are changed in place, which the network sees.
    def function(*_: Tensor) -> tuple[Tensor, ...]:
        outputs, weights = net.forward_with_weights(x)
        return outputs, *weights

    assert torch.autograd.gradcheck(function, tuple(net.parameters()))


@both_untanglings
def test_gradient_of_the_batch(untangling: str) -> None:
    net = TargetSpace(PlainDense(Network((3, 4, 2))), normal(9, 3), 0.1, untangling)
    x = normal(5, 3, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(net, (x,))


@both_untanglings
def test_an_empty_batch_has_no_gradient(untangling: str) -> None:
    net = TargetSpace(PlainDense(Network((3, 4, 2))), normal(9, 3), 0.1, untangling)
    net(normal(0, 3)).sum().backward()
    for gradient in gradients(net):
        assert not gradient.any()


# --- Vanishing λ ----------------------------------------------------------------------


@both_untanglings
@pytest.mark.parametrize("lam", [0.0, 1e-8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n_fixed", [4, 30], ids=["dual", "primal"])
@pytest.mark.parametrize("repeated", [False, True], ids=["distinct", "repeated"])
def test_vanishing_ridge(
    untangling: str, lam: float, dtype: torch.dtype, n_fixed: int, repeated: bool
) -> None:
    module = PlainDense(Network((3, 8, 8, 2), shortcuts=True), dtype)
    x = normal(n_fixed, 3, dtype=dtype)
    if repeated:
        x[1:] = x[0]
    net = TargetSpace(module, x, lam, untangling)
    set_targets(net, [normal(n_fixed, d, seed=d) for d in (8, 8, 2)])
    outputs = net(normal(6, 3, seed=5, dtype=dtype))
    assert outputs.isfinite().all()
    outputs.square().sum().backward()
    for gradient in gradients(net):
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize(
    ("lam", "tolerance"),
    # At 1e-3 the Gramian is formed in single precision still, a hundredth of its
    # bound on the error of 8 ε τ away; below that, in double.
    [(0.0, 1e-4), (1e-8, 1e-4), (1e-3, 1e-3), (0.1, 1e-5)],
)
@both_untanglings
def test_single_precision_nears_double(
    lam: float, tolerance: float, untangling: str
) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        fixed = normal(30, 3, dtype=torch.float32).to(dtype)
        module = PlainDense(Network((3, 5, 2)), dtype)
        net = TargetSpace(module, fixed, lam, untangling)
        set_targets(net, [normal(30, d, seed=d).float() for d in (5, 2)])
        net(fixed).square().sum().backward()
        results.append(gradients(net))
    assert_all_close(*results, tolerance=tolerance)


@pytest.mark.parametrize("lam", [1e-3, 1.0])
def test_wide_inputs_in_single_precision(lam: float) -> None:
    found, exact = [
        wide_gradients(lam, dtype) for dtype in (torch.float32, torch.float64)
    ]
    for a, b in zip(found, exact, strict=True):
        assert torch.linalg.vector_norm(a - b) < 3e-6 * torch.linalg.vector_norm(b)


@pytest.mark.parametrize("lam", [1e-3, 1e-2, 0.1])
def test_narrow_fixed_batches_in_single_precision(lam: float) -> None:
    """Targets that hardly differ in their inputs lead to huge (AAᵀ + λI)⁻¹T."""
    x = normal(40, 2, dtype=torch.float32)
    net = TargetSpace(DenseNetwork(2, (64, 64), 1, "tanh"), x, lam)
    net.reset_targets(project=False)
    # From the factor, from the weights within a pass, and from those realised.
    found = net.train()(x), net(x.clone()), net.eval()(x)
    assert_all_close(found[:2], [found[2]] * 2, 2e-3)


def test_wide_inputs_under_a_large_ridge() -> None:
    x = normal(50, 200, dtype=torch.float32)
    net = TargetSpace(nn.Linear(200, 3), x, lam=1e9).reset_targets(
        project=False, generator=torch.Generator().manual_seed(0)
    )
    # λ outweighs the Gramian, so that T − λZ would be left with rounding alone.
    torch.testing.assert_close(net(x), net.eval()(x), rtol=1e-3, atol=0)


def wide_gradients(lam: float, dtype: torch.dtype) -> list[Tensor]:
    """Take the gradients of a network of far fewer rows than inputs."""
    x = normal(100, 600, dtype=torch.float32).add(2).to(dtype)
    net = TargetSpace(PlainDense(Network((600, 5, 2)), dtype), x, lam)
    set_targets(net, [normal(100, d, seed=d).float() for d in (5, 2)])
    outputs, weights = net.forward_with_weights(net.fixed_batch)
    loss = outputs.square().sum() + sum(w.square().sum() for w in weights)
    loss.backward()
    return [gradient.double() for gradient in gradients(net)]


# --- The products of dense layers -----------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 15, 16])
@pytest.mark.parametrize("n", [1, 16, 700])
@both_biases
def test_products_of_few_columns(n: int, m: int, bias: bool) -> None:
    operator = DenseOperator(bias)
    rows, sums = normal(n, 20), normal(n, m, seed=1)
    weights = normal(20 + bias, m, seed=2)
    explicit = torch.cat([torch.ones(n, 1), rows], 1) if bias else rows
    applied = operator.apply(rows, weights)
    assert applied.is_contiguous()
    assert not applied._is_view()  # which could not be changed in place
    torch.testing.assert_close(applied, explicit @ weights)
    torch.testing.assert_close(operator.apply_transposed(rows, sums), explicit.T @ sums)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lam", [1.0, 1e4])
def test_half_precision(dtype: torch.dtype, lam: float) -> None:
    module, x = nn.Linear(4, 3), torch.randn(50, 4)
    expected = TargetSpace(module, x, lam).realise()(x)
    net = TargetSpace(module.to(dtype), x.to(dtype), lam)
    assert_all_close([net.realise()(x.to(dtype)).float()], [expected], 0.05)


TWICE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), (5,)),
    "shortcuts": (lambda: DenseNetwork(5, (4,), 2, "tanh", shortcuts=True), (5,)),
    "convolution": (lambda: nn.Conv1d(4, 3, 2), (4, 5)),
    "rnn": (lambda: nn.RNN(5, 3), (4, 5)),
    "gru": (lambda: nn.GRU(5, 3), (4, 5)),
}


@pytest.mark.parametrize("kind", TWICE)
def test_second_derivatives_are_refused(kind: str) -> None:
    make, shape = TWICE[kind]
    net = TargetSpace(make().double(), normal(6, *shape), lam=0.1).train()
    z = normal(6, *shape, seed=1).requires_grad_()

    def loss() -> Tensor:
        outputs = net(z)
        total: Tensor = (outputs[0] if isinstance(outputs, tuple) else outputs).exp()
        return total.sum()

    (once,) = torch.autograd.grad(loss(), z, create_graph=True)
    (plain,) = torch.autograd.grad(loss(), z)
    assert torch.equal(once, plain)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        once.square().sum().backward()
    # Autograd goes only where it may find what it differentiates by.
    for by in (z, *net.parameters()):
        for of in (z, *net.parameters()):
            (once,) = torch.autograd.grad(loss(), of, create_graph=True)
            with pytest.raises(RuntimeError, match="no second derivatives"):
                torch.autograd.grad(once.square().sum(), by, allow_unused=True)


def test_second_derivatives_of_what_stays_in_weight_space_are_refused() -> None:
    layers = nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)
    net = TargetSpace(nn.Sequential(*layers).double(), normal(20, 3), lam=0.1)
    norm = net.module[1].weight
    outputs = net(net.fixed_batch).square().sum()
    (once,) = torch.autograd.grad(outputs, norm, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(once[0], norm)
