"""Weights realised from targets, choices of X̄, architectures."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from sktarget import TargetSpaceClassifier, TargetSpaceSequenceClassifier
from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from tests.estimators.support import (
    ALL_EPOCHS,
    assert_learns,
    assert_same_weights,
    class_data,
    fit_quietly,
    for_both,
    problem,
    reference_weights,
    weights,
    weights_differ,
)
from tests.reference import ridge

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6, 5),
    "activation": "tanh",
    "max_iter": 8,
    "random_state": 0,
    "warm_start": True,
    **ALL_EPOCHS,
}


class Residual(nn.Module):
    """A user's own network: a block with a shortcut and a learnt scale."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("order", torch.arange(n_features))
        self.first = nn.Linear(n_features, 8)
        self.block = nn.Linear(8, 8)
        self.last = nn.Linear(8, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x[:, self.order]))
        h = h + self.scale * torch.tanh(self.block(h))
        return self.last(h)


class BufferFirst(nn.Module):
    """The first entry of its state is a table of integers."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(n_features))
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, self.order])


@for_both
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("lam", [1e-4, 1e-2, 10.0, "auto"])
def test_weights_are_those_of_the_reference(
    kind: type, untangling: str, shortcuts: bool, lam: Any
) -> None:
    X, y = problem(kind)
    # Sums well within the bends of tanh: where they hardly bend, shortcuts see nearly
    # the same columns twice, and two correct solves differ by 1e-16 of a million.
    X = 2 * X
    estimator = kind(**SMALL, untangling=untangling, shortcuts=shortcuts, lam=lam)
    fit_quietly(estimator, X, y)
    assert estimator.lam_ == lam or lam == "auto"
    for ours, truth in zip(
        weights(estimator), reference_weights(estimator), strict=True
    ):
        np.testing.assert_allclose(ours, truth, rtol=1e-10, atol=1e-10)


@for_both
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_reference_at_lam_zero(kind: type, untangling: str) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, untangling=untangling, lam=0), X, y)
    assert estimator.lam_ == 0.0
    for ours, truth in zip(
        weights(estimator), reference_weights(estimator), strict=True
    ):
        # Without a ridge, the conditioning of the Gramian bounds what can agree.
        np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-6)


@for_both
def test_every_layer_may_have_its_own_lam(kind: type) -> None:
    X, y = problem(kind)
    lams = [1e-3, 1.0, 30.0]
    estimator = fit_quietly(kind(**SMALL, lam=np.array(lams)), X, y)
    assert estimator.lam_ == tuple(lams)
    inputs = estimator.fixed_batch_
    for ours, target, lam in zip(
        weights(estimator), estimator.targets_, lams, strict=True
    ):
        rows = np.insert(inputs, 0, 1, axis=1)
        np.testing.assert_allclose(ours, ridge(rows, target, lam), rtol=0, atol=1e-10)
        inputs = np.tanh(rows @ ours)
    uneven = weights(estimator)
    with pytest.raises(ValueError, match=r"lam gives 2 values, but .* 3 target"):
        estimator.set_params(lam=[1.0, 2.0]).fit(X, y)
    for before, after in zip(uneven, weights(estimator), strict=True):
        np.testing.assert_array_equal(before, after)
    # One number for all goes on from layers with their own, and back.
    fit_quietly(estimator.set_params(lam=1.0), X, y)
    assert estimator.lam_ == 1.0


@pytest.mark.parametrize(
    "activation", ["identity", "logistic", "tanh", "relu", "leaky_relu"]
)
@pytest.mark.parametrize("target_init", ["weights", "normal"])
def test_reference_for_every_activation(activation: str, target_init: str) -> None:
    X, y = class_data(3)
    estimator = TargetSpaceClassifier(
        **SMALL | {"activation": activation}, target_init=target_init, lam=1e-2
    )
    fit_quietly(estimator, X, y)
    for ours, truth in zip(
        weights(estimator), reference_weights(estimator), strict=True
    ):
        np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-10)


@for_both
def test_predictions_are_those_of_coefs(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, shortcuts=True), X, y)
    x = X
    for w, b in zip(estimator.coefs_[:-1], estimator.intercepts_[:-1], strict=True):
        x = np.hstack([x, np.tanh(x @ w + b)])
    sums = x @ estimator.coefs_[-1] + estimator.intercepts_[-1]
    with torch.no_grad():
        by_module = estimator.module_(torch.from_numpy(X)).numpy()
    found = getattr(estimator, "decision_function", estimator.predict)(X)
    for outputs in (sums, by_module):
        # Of two classes, the difference of their outputs is what decides.
        one = outputs[:, -1] - (outputs[:, 0] if outputs.shape[1] == 2 else 0)
        np.testing.assert_allclose(found, one, rtol=1e-10, atol=1e-12)


# --- X̄ --------------------------------------------------------------------------------


@for_both
def test_sampled_fixed_batch_holds_rows_of_x(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, fixed_batch_size=20), X, y)
    rows = {row.tobytes() for row in X}
    assert estimator.fixed_batch_.shape == (20, X.shape[1])
    assert {row.tobytes() for row in estimator.fixed_batch_} <= rows
    assert [t.shape for t in estimator.targets_] == [
        (20, 6),
        (20, 5),
        (20, estimator.n_outputs_),
    ]


@for_both
def test_noise_holds_no_row_of_x(kind: type) -> None:
    X, y = problem(kind)
    X = 3 * X + 50
    estimator = kind(**SMALL, fixed_batch="noise", fixed_batch_size=500)
    fit_quietly(estimator, X, y)
    rows = {row.tobytes() for row in X}
    assert estimator.fixed_batch_.shape == (500, X.shape[1])
    assert rows.isdisjoint(row.tobytes() for row in estimator.fixed_batch_)
    np.testing.assert_allclose(estimator.fixed_batch_.mean(0), X.mean(0), rtol=0.02)
    np.testing.assert_allclose(estimator.fixed_batch_.std(0), X.std(0), rtol=0.15)


@for_both
@pytest.mark.parametrize("container", [np.asarray, list])
def test_given_fixed_batch_decides_its_size(kind: type, container: Any) -> None:
    X, y = problem(kind)
    given = np.random.default_rng(1).normal(size=(13, X.shape[1]))
    estimator = kind(**SMALL, fixed_batch=container(given), fixed_batch_size=7)
    fit_quietly(estimator, X, y)
    np.testing.assert_array_equal(estimator.fixed_batch_, given)
    assert estimator.fixed_batch_ is not given


@for_both
def test_none_takes_all_rows_in_one_pass_or_two(kind: type) -> None:
    X, y = problem(kind)
    # An array is not known to have labels to start from.
    settings = SMALL | {"batch_size": 90, "target_init": "weights"}
    one = fit_quietly(kind(**settings, fixed_batch_size=None), X, y)
    np.testing.assert_array_equal(one.fixed_batch_, X)
    # A copy of X is the same X̄, though not the same tensor.
    two = fit_quietly(kind(**settings, fixed_batch=X.copy()), X, y)
    assert_same_weights(one, two, atol=1e-9)


@for_both
def test_nothing_is_kept_unless_training_goes_on(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL).set_params(warm_start=False), X, y)
    assert not hasattr(estimator, "targets_")
    assert not hasattr(estimator, "fixed_batch_")


# --- Architectures --------------------------------------------------------------------


@for_both
@pytest.mark.parametrize(
    ("sizes", "widths"),
    [((), []), (7, [7]), ([4, 3], [4, 3]), (np.array([4, 3]), [4, 3])],
)
def test_hidden_layer_sizes(kind: type, sizes: Any, widths: list[int]) -> None:
    X, y = problem(kind)
    estimator = kind(**SMALL).set_params(hidden_layer_sizes=sizes)
    fit_quietly(estimator, X, y)
    assert [w.shape[1] for w in estimator.coefs_] == [*widths, estimator.n_outputs_]
    assert estimator.n_layers_ == len(widths) + 2


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("module", [Residual, BufferFirst])
def test_module_of_the_users_own(
    kind: type, parameterization: str, module: type, global_state_untouched: None
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"max_iter": 60, "warm_start": False}
    settings |= {"learning_rate_init": 0.03}
    estimator = kind(**settings, module=module, parameterization=parameterization)
    fit_quietly(estimator, X, y)
    assert type(estimator.module_) is module
    assert estimator.loss_ < estimator.loss_curve_[0]
    assert_learns(estimator, X, y, parameterization)
    again = fit_quietly(
        kind(**settings, module=module, parameterization=parameterization), X, y
    )
    assert_same_weights(estimator, again)
    other = kind(**settings, module=module, parameterization=parameterization)
    assert weights_differ(
        estimator, fit_quietly(other.set_params(random_state=1), X, y)
    )


def rectified(n_inputs: int, n_outputs: int, inplace: bool) -> nn.Module:
    return nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(n_inputs, n_outputs))


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("batch_size", [20, 1000])
def test_modules_that_work_in_place_leave_the_data_alone(
    kind: type, parameterization: str, early_stopping: bool, batch_size: int
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"early_stopping": early_stopping, "batch_size": batch_size}
    settings |= {"parameterization": parameterization, "shuffle": False}
    given, fitted = X.copy(), []
    for inplace in (True, False):
        module = partial(rectified, inplace=inplace)
        fitted.append(fit_quietly(kind(**settings, module=module), given, y))
    np.testing.assert_array_equal(fitted[0].predict(given), fitted[1].predict(given))
    np.testing.assert_array_equal(given, X)
    assert_same_weights(*fitted)


@for_both
@pytest.mark.parametrize("batch_norm", [False, True])
def test_control_in_weight_space(kind: type, batch_norm: bool) -> None:
    X, y = problem(kind)
    estimator = kind(
        (20,),
        parameterization="weights",
        batch_norm=batch_norm,
        learning_rate_init=0.01,
        max_iter=150,
        random_state=0,
        warm_start=True,
        **ALL_EPOCHS,
    )
    fit_quietly(estimator, X, y)
    assert not hasattr(estimator, "targets_")
    assert estimator.score(X, y) > 0.9
    norms = [m for m in estimator.module_.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == batch_norm
    for norm in norms:
        assert (norm.running_var - 1).abs().max() > 0.01


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_dropout_is_drawn_by_random_state(
    kind: type, parameterization: str, global_state_untouched: None
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"parameterization": parameterization}
    a, b = (fit_quietly(kind(**settings, dropout=0.3), X, y) for _ in range(2))
    assert_same_weights(a, b)
    assert weights_differ(a, fit_quietly(kind(**settings), X, y))
    np.testing.assert_array_equal(a.predict(X), a.predict(X))


@for_both
def test_weights_of_classifiers_with_dropout_are_means_over_its_draws(
    kind: type,
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"dropout": 0.3, "warm_start": False}
    seen: dict[str, Any] = {}

    class Look(Callback):
        def on_train_end(self, net: Any, **kwargs: Any) -> None:
            network = net.module_
            mode = network.training
            seen["clean"] = [w.T.numpy() for w in _weights(network.eval().realise())]
            network.train(mode)

    estimator = fit_quietly(kind(**settings, callbacks=[Look()]), X, y)
    if kind is not TargetSpaceClassifier:
        seen["clean"][-1] *= y.std()  # Networks learn in that unit.
    first, *others = zip(estimator.coefs_, seen["clean"], strict=True)
    np.testing.assert_allclose(*first, rtol=0, atol=1e-12)  # nothing dropped before
    for found, clean in others:
        distance = np.linalg.norm(found - clean) / np.linalg.norm(clean)
        if kind is TargetSpaceClassifier:
            assert 1e-3 < distance < 1
        else:
            assert distance < 1e-12


def _weights(network: nn.Module) -> list[torch.Tensor]:
    return [m.weight.detach() for m in network.modules() if isinstance(m, nn.Linear)]


def test_draws_without_a_solution_do_not_lose_the_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = problem(TargetSpaceClassifier)
    settings = SMALL | {"dropout": 0.3}
    original = TargetSpace.average_weights

    def fail(network: TargetSpace) -> None:
        network.eval()
        raise FactorisationError("too few rows")

    monkeypatch.setattr(TargetSpace, "average_weights", fail)
    clean = fit_quietly(TargetSpaceClassifier(**settings), X, y)
    monkeypatch.setattr(TargetSpace, "average_weights", original)
    assert weights_differ(clean, fit_quietly(TargetSpaceClassifier(**settings), X, y))
    np.testing.assert_allclose(clean.coefs_[-1], reference_weights(clean)[-1][1:])


def test_weights_are_read_only() -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier((4,), max_iter=3), X, y)
    of_sequences = TargetSpaceSequenceClassifier((4,), max_iter=3)
    fit_quietly(of_sequences, X[:, None], y)
    for fitted in (estimator, of_sequences):
        for array in (*fitted.coefs_, *fitted.intercepts_):
            with pytest.raises(ValueError, match="read-only"):
                array *= 0


def test_predictions_are_those_of_evaluation() -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier((9,), dropout=0.5, max_iter=3, random_state=0)
    expected = fit_quietly(estimator, X, y).predict_proba(X)
    estimator.module_.train()
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)


def test_a_network_for_predictions_can_be_trained() -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier((4,), max_iter=3), X, y)
    with torch.inference_mode():  # by which the first prediction builds the module
        estimator.predict(X)
    sums = estimator.module_(torch.from_numpy(X))
    sums.sum().backward()
    assert all(p.grad is not None for p in estimator.module_.parameters())
