"""Any module trains in target space, and what cannot is said plainly."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.architectures import DenseNetwork
from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace, _linear
from sktarget.nn._operators import AugmentedOperator
from tests.helpers import (
    Residual,
    assert_all_close,
    gradients,
    move_targets,
    normal,
    perceptron,
    seeded,
    targets_of,
)
from tests.reference import ridge

both_untanglings = pytest.mark.parametrize("untangling", ["scu", "ocu"])


def dense_with_shortcuts() -> nn.Module:
    return DenseNetwork(3, (5, 4), 2, "tanh", shortcuts=True, dtype=torch.float64)


def frozen_first() -> nn.Module:
    module = perceptron()
    module[0].requires_grad_(False)
    return module


def flattening() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Flatten(), perceptron())


def in_place() -> nn.Module:
    return perceptron(act=nn.ReLU(inplace=True))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "perceptron": perceptron,
    "linear": lambda: seeded(nn.Linear(3, 2)).double(),
    "without bias": lambda: seeded(nn.Linear(3, 2, bias=False)).double(),
    "residual": lambda: seeded(Residual(3, 5, 2)).double(),
    "two heads": lambda: seeded(Residual(3, 5, 2, heads=2)).double(),
    "shortcuts": dense_with_shortcuts,
    "frozen layer": frozen_first,
    "views": flattening,
    "in place": in_place,
}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=list(MODULES))


def as_tuple(output: Any) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def run(net: TargetSpace, x: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Outputs, and the gradients of a loss that weighs each of them differently."""
    outputs = as_tuple(net(x))
    sum((normal(*out.shape, seed=7) * out).sum() for out in outputs).backward()
    return outputs, gradients(net)


# --- Passes ---------------------------------------------------------------------------


@every_module
@both_untanglings
def test_all_ways_to_run_agree(make: Callable[[], nn.Module], untangling: str) -> None:
    net = TargetSpace(make(), normal(20, 3), 0.1, untangling)
    move_targets(net)
    x = normal(6, 3, seed=3)
    trained = as_tuple(net(x))
    realised, evaluated = as_tuple(net.realise()(x)), as_tuple(net.eval()(x))
    assert all(out.shape == (6, 2) for out in trained)
    assert_all_close(evaluated, trained, 1e-11)
    assert_all_close(realised, trained, 1e-11)


@every_module
@both_untanglings
def test_fixed_batch_itself_is_as_good_as_a_copy(
    make: Callable[[], nn.Module], untangling: str
) -> None:
    fixed = normal(20, 3)
    net = TargetSpace(make(), fixed, 0.1, untangling)
    move_targets(net)
    outputs, expected = run(net, fixed.clone())
    for same in (fixed, net.fixed_batch, fixed[:]):
        again, gradient = run(net, same)
        assert_all_close(again, outputs, 1e-11)
        assert_all_close(gradient, expected, 1e-9)


def test_fixed_batch_itself_runs_once() -> None:
    seen: list[int] = []
    module = perceptron()
    module[1].register_forward_hook(lambda *args: seen.append(len(args[2])))
    net = TargetSpace(module, normal(20, 3))
    seen.clear()
    net(net.fixed_batch)
    net(normal(6, 3))
    assert seen == [20, 26]


@both_untanglings
@pytest.mark.parametrize("n_fixed", [2, 9], ids=["dual", "primal"])
def test_one_pass_equals_two(untangling: str, n_fixed: int) -> None:
    net = TargetSpace(perceptron(width=9), normal(n_fixed, 4, 3), 0.1, untangling)
    move_targets(net)
    assert [t.shape for t in targets_of(net)] == [(n_fixed, 4, 9), (n_fixed, 4, 2)]
    x = normal(5, 4, 3, seed=3)
    (together,), expected = run(net, x)
    # With another length than that of X̄, the two cannot be stacked.
    parts = torch.cat([net(x[:, :1]), net(x[:, 1:])], 1)
    (normal(*parts.shape, seed=7) * parts).sum().backward()
    assert_all_close([parts], [together], 1e-11)
    assert_all_close(gradients(net), expected, 1e-9)


@both_untanglings
def test_axes_between_rows_and_features_are_rows(untangling: str) -> None:
    fixed, x = normal(8, 4, 3), normal(5, 4, 3, seed=3)
    net = TargetSpace(perceptron(), fixed, 0.1, untangling)
    flat = TargetSpace(perceptron(), fixed.reshape(32, 3), 0.1, untangling)
    move_targets(net)
    for layer, other in zip(
        net.target_layers().values(), flat.target_layers().values(), strict=True
    ):
        other.targets.data = layer.targets.detach().reshape(32, -1).clone()
    (outputs,), gradient = run(net, x)
    flat_outputs = flat(x.reshape(20, 3))
    (
        normal(*outputs.shape, seed=7) * flat_outputs.reshape(outputs.shape)
    ).sum().backward()
    assert_all_close([outputs.reshape(20, 2)], [flat_outputs], 1e-11)
    for a, b in zip(gradient, gradients(flat), strict=True):
        assert_all_close([a.reshape(b.shape)], [b], 1e-10)


@pytest.mark.parametrize("n_rows", [50, 1000])
@pytest.mark.parametrize("writes_ones", [True, False])
def test_rows_may_be_many(
    n_rows: int, writes_ones: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers treat biases in another way where there are few rows, or too many."""
    monkeypatch.setattr(_linear, "_MANY", 1000 * 90 if writes_ones else 0)
    layer = nn.Linear(90, 2, dtype=torch.float64)
    net = TargetSpace(layer, normal(n_rows, 90), lam=0.5)
    move_targets(net)
    (targets,) = net.parameters()
    (of_layer,) = net.target_layers().values()
    augmented = isinstance(of_layer.operator, AugmentedOperator)
    assert augmented == (writes_ones and n_rows > 90)
    _, (weights,) = net.forward_with_weights(net.fixed_batch)
    rows = torch.cat([torch.ones(n_rows, 1), net.fixed_batch], 1).double()
    gram = rows.T @ rows + 0.5 * torch.eye(91, dtype=torch.float64)
    expected = torch.linalg.solve(gram, rows.T @ targets)
    assert_all_close([weights], [expected[1:]], 1e-10)
    (found,) = torch.autograd.grad(weights.square().sum(), targets)
    wanted = rows @ torch.linalg.solve(gram, torch.cat([0 * expected[:1], 2 * weights]))
    assert_all_close([found], [wanted], 1e-10)


def test_penalties_reach_the_targets() -> None:
    net = TargetSpace(perceptron(), normal(20, 3), 0.1)
    _, weights = net.forward_with_weights(normal(6, 3))
    realised = net.realise()
    assert_all_close(weights, [realised[0].weight.T, realised[2].weight.T], 1e-11)
    sum(w.square().sum() for w in weights).backward()
    assert all(gradient.any() for gradient in gradients(net))


# --- Training -------------------------------------------------------------------------


def xor() -> tuple[Tensor, Tensor]:
    # Hundreds of steps in single precision end where the processor's rounding leads.
    x = normal(80, 2)
    return x, (x.prod(1) > 0).long()


@both_untanglings
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_hand_written_loop(untangling: str, kind: type) -> None:
    x, y = xor()
    net = TargetSpace(perceptron(2, 10), x[:40].clone(), 0.01, untangling)
    rate = 0.05 if kind is torch.optim.Adam else 20.0
    optimizer = kind(net.parameters(), lr=rate)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert (net.eval()(x).argmax(1) == y).float().mean() > 0.95


def test_line_search_of_lbfgs() -> None:
    x, y = xor()
    net = TargetSpace(perceptron(2, 10), x, 0.01)
    optimizer = torch.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(3):
        optimizer.step(closure)
    assert closure().item() < 0.1 * first


def test_skorch_classifier() -> None:
    x, y = xor()
    net = TargetSpace(perceptron(2, 10), x, 0.01)
    classifier = NeuralNetClassifier(
        net,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.03,
        max_epochs=30,
        batch_size=20,
        train_split=None,
        verbose=0,
    )
    classifier.fit(x.numpy(), y.numpy())
    assert classifier.score(x.numpy(), y.numpy()) > 0.95
    assert np.allclose(
        classifier.predict_proba(x.numpy()), net.eval()(x).softmax(1).detach()
    )


# --- Errors ---------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [-1e-9, math.nan, math.inf, [1.0, -1.0], [[1.0]]])
def test_bad_lam(lam: Any) -> None:
    with pytest.raises(ValueError, match="lam must be finite and at least 0, got"):
        TargetSpace(perceptron(), normal(4, 3), lam)


@pytest.mark.parametrize("lam", [1e39, [1.0, 1e39]])
def test_lam_that_single_precision_cannot_hold(lam: Any) -> None:
    net = TargetSpace(perceptron(), normal(4, 3), lam)
    assert net(normal(4, 3)).isfinite().all()
    module, fixed = perceptron().float(), normal(4, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"lam must be finite .*1e\+39.* most 3.4e"):
        TargetSpace(module, fixed, lam)
    net = TargetSpace(module, fixed)
    with pytest.raises(ValueError, match="lam must be finite"):
        net.lam = lam


@pytest.mark.parametrize("several", [False, True])
def test_lam_learns_nothing(several: bool) -> None:
    number = torch.tensor(0.5)
    lam: Any = [number, 0.5] if several else number
    assert TargetSpace(perceptron(), normal(4, 3), lam).lam == 0.5
    number.requires_grad_()
    with pytest.raises(ValueError, match=r"lam must not require gradients.*detach\("):
        TargetSpace(perceptron(), normal(4, 3), lam)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        (np.zeros((4, 3)), "must be a tensor of at least two axes"),
        (torch.zeros(3), "must be a tensor of at least two axes"),
        (torch.zeros(0, 3), r"at least one row, got torch.float32 of shape \(0, 3\)"),
        (torch.zeros(4, 3, dtype=torch.int64), "must be floating point"),
    ],
)
def test_bad_fixed_batch(fixed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"fixed_batch .*{message}"):
        TargetSpace(perceptron(), fixed)


def test_bad_untangling() -> None:
    with pytest.raises(ValueError, match="untangling must be 'scu' or 'ocu', got 'x'"):
        TargetSpace(nn.Linear(2, 1), torch.zeros(4, 2)).untangling = "x"
    with pytest.raises(ValueError, match="untangling must be 'scu' or 'ocu', got 'x'"):
        TargetSpace(perceptron(), normal(4, 3), untangling="x")


def test_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no layer that can be learnt by targets"):
        TargetSpace(nn.Tanh(), normal(4, 3))


@pytest.mark.parametrize("where", ["fixed batch", "targets"])
def test_error_of_a_solve_names_layer_lam_and_rows(where: str) -> None:
    fixed = normal(11, 3)
    net = TargetSpace(perceptron(), fixed, 0.25)
    if where == "fixed batch":
        fixed[2, 1] = math.inf
    else:
        net.module[0].targets.data[3] = math.nan
    name = "0" if where == "fixed batch" else "2"
    message = rf"layer '{name}' .*\(lam=0.25, fixed batch of 11 rows\).*standardise X"
    with pytest.raises(FactorisationError, match=message):
        net(normal(4, 3))
    # The failed pass leaves nothing behind.
    fixed.nan_to_num_(posinf=0)
    net.reset_targets(generator=torch.Generator().manual_seed(0))
    assert net(normal(4, 3)).isfinite().all()


@pytest.mark.parametrize(
    "fixed", [normal(9, 4), normal(9, 3).float()], ids=["width", "dtype"]
)
def test_error_of_the_first_pass_names_the_fixed_batch(fixed: torch.Tensor) -> None:
    with pytest.raises(RuntimeError) as caught:
        TargetSpace(perceptron(), fixed)
    (note,) = caught.value.__notes__
    assert f"ran on fixed_batch, of shape {tuple(fixed.shape)} and torch.float" in note


def test_lam_may_change() -> None:
    net = TargetSpace(perceptron(), normal(30, 3), 1.0)
    fresh = TargetSpace(perceptron(), normal(30, 3), 0.1)
    state = net.state_dict()
    net.lam = 0.1
    fresh.load_state_dict(state | {"_extra_state": net.get_extra_state()})
    torch.testing.assert_close(net(normal(4, 3)), fresh(normal(4, 3)))
    with pytest.raises(ValueError, match="lam must be finite and at least 0"):
        net.lam = -1.0
    for value in (True, [True, 0.1]):
        with pytest.raises(ValueError, match="lam must be a number"):
            net.lam = value


def test_states_that_do_not_fit_leave_lam_alone() -> None:
    net = TargetSpace(perceptron(), normal(30, 3), 1.0)
    for other in (normal(20, 3), normal(30, 4)):
        wide = nn.Sequential(nn.Linear(other.shape[1], 2)).double()
        for module in (perceptron(), wide) if other.shape[1] == 3 else (wide,):
            state = TargetSpace(module, other, 0.1).state_dict()
            misfit = "size mismatch for fixed_batch|lam gives 1 values"
            with pytest.raises((RuntimeError, ValueError), match=misfit):
                net.load_state_dict(state)
            assert net.lam == 1.0


@pytest.mark.parametrize("container", [tuple, list, np.array])
def test_every_layer_may_have_its_own_lam(container: Callable[..., Any]) -> None:
    fixed = normal(30, 3)
    net = TargetSpace(perceptron(), fixed, container([1e-3, 20.0]))
    assert net.lam == (1e-3, 20.0)
    module = net.realise()
    x = fixed.numpy()
    for i, target, lam in zip((0, 2), targets_of(net), (1e-3, 20.0), strict=True):
        expected = ridge(np.insert(x, 0, 1, axis=1), target.detach().numpy(), lam)
        np.testing.assert_allclose(module[i].bias.detach(), expected[0], atol=1e-10)
        np.testing.assert_allclose(
            module[i].weight.detach().T, expected[1:], atol=1e-10
        )
        x = np.tanh(x @ expected[1:] + expected[0])
    same = TargetSpace(perceptron(), fixed, [0.5, 0.5])
    assert same.lam == 0.5
    same.lam = (1e-3, 20.0)
    torch.testing.assert_close(same(fixed), net(fixed))


def test_one_lam_too_many() -> None:
    message = "lam gives 3 values, but the network has 2 target layers.*'0', '2'"
    with pytest.raises(ValueError, match=message):
        TargetSpace(perceptron(), normal(4, 3), (1.0, 2.0, 3.0))
