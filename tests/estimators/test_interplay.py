"""Parameters that act together, each of which is tested by itself elsewhere."""

import copy
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import (
    Callback,
    LRScheduler,
)
from torch import Tensor, nn

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
)
from sktarget.estimators import _fixed_targets
from sktarget.estimators._comparison import Errors, share_of_errors
from sktarget.estimators._rows import TrainingRows
from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from tests.estimators.support import (
    SeesRates,
    assert_learns,
    class_data,
    fit_quietly,
    for_both,
    noisy,
    noisy_numbers,
    weights_differ,
)


def waves(n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2, 12))
    return X, (X[:, 0].sum(1) > 0).astype(int)


def test_constants_are_judged_where_the_rows_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = noisy_numbers()
    model = fit_quietly(TargetSpaceRegressor((4,), max_iter=5, random_state=0), X, y)
    elsewhere = torch.device("meta")  # as a GPU, it takes no numbers of the CPU
    monkeypatch.setattr(
        "sktarget.estimators._hooks.resolve_device", lambda _: elsewhere
    )
    error = model._constant_error(TrainingRows(X, y[:, None]))
    assert error == pytest.approx(0.5, abs=0.1)  # in units of the deviation


@pytest.mark.parametrize(
    ("errors", "known", "of_constant", "is_better"),
    [
        ([0.7, 0.0], [0.6, 0.0], [1.0, 0.0], False),  # an output that is constant
        ([0.5, 0.0], [0.6, 0.0], [1.0, 0.0], True),
        ([0.7, 1e-9], [0.6, 1e-7], [1.0, 1.0], False),  # one that both predict
        ([0.5, 1e-7], [0.6, 1e-9], [1.0, 1.0], True),
        ([0.5, 1.1], [0.6, 1.0], [1.0, 1.1], True),  # one that nothing predicts
    ],
)
def test_outputs_that_say_nothing_do_not_decide_which_network_is_better(
    errors: list[float], known: list[float], of_constant: list[float], is_better: bool
) -> None:
    constant = torch.tensor(of_constant)
    other, before = (Errors(torch.tensor(e), constant) for e in (errors, known))
    assert (share_of_errors(other, before) < 1) == is_better


@pytest.mark.parametrize("n_iter_no_change", [30, np.inf])
def test_noise_is_met_however_long_progress_is_waited_for(
    n_iter_no_change: float, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = noisy_numbers()
    model = TargetSpaceRegressor((4,), max_iter=20, random_state=0, verbose=True)
    fit_quietly(model.set_params(n_iter_no_change=n_iter_no_change), X, y)
    assert "trying more alpha" in capsys.readouterr().out


@pytest.mark.parametrize("learning_rate", ["constant", "annealed"])
def test_lbfgs_has_no_schedule(learning_rate: str) -> None:
    X, y = waves(120)
    settings: dict[str, Any] = {"solver": "lbfgs", "max_iter": 4, "random_state": 0}
    settings["recurrent_layer_sizes"] = (4,)
    plain, other = (
        fit_quietly(TargetSpaceSequenceClassifier(**settings, **more), X, y)
        for more in ({}, {"learning_rate": learning_rate})
    )
    assert plain.lam_ == other.lam_
    assert other.validation_scores_ is None
    for a, b in zip(plain.coefs_, other.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


class Normalised(nn.Module):
    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(n_inputs, 6), nn.BatchNorm1d(6)
        self.last = nn.Linear(6, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.norm(self.first(x))))
        return out


def test_own_modules_are_evaluated_as_they_evaluate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("evaluated in the pass of a step")

    X, y = noisy(TargetSpaceClassifier)
    model = TargetSpaceClassifier(module=Normalised, max_iter=10, random_state=0)
    monkeypatch.setattr(TargetSpace, "forward_and_evaluate", refuse)
    assert fit_quietly(model, X, y).validation_scores_ is not None


@for_both
def test_what_is_learnt_outlives_a_failure_of_the_last_epochs(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise FactorisationError("out of luck")

    X, y = noisy(kind)
    model = kind((4,), max_iter=20, alpha=1e-4, random_state=0)
    monkeypatch.setattr(_fixed_targets.FixedTargets, "_continued_on", fail)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.fit(X, y)
    assert "is kept: out of luck" in str(found[-1].message)
    assert model.n_iter_ == len(model.validation_scores_) <= 16
    assert model.score(X, y) > 0.3
    assert_learns(model, X, y, "weights")


@pytest.mark.parametrize(("n", "at_once"), [(10_000, True), (10_500, False)])
def test_holding_rows_out_does_not_make_a_table_small(n: int, at_once: bool) -> None:
    X = np.random.default_rng(0).normal(size=(n, 2))
    model = TargetSpaceRegressor((2,), max_iter=2, alpha=0.1, random_state=0)
    fit_quietly(model, X, X[:, 0])
    assert model._fixed_batch_is_all == at_once


def test_a_constant_step_on_few_rows_ends_without_progress() -> None:
    X, y = noisy_numbers(60)
    model = TargetSpaceRegressor(learning_rate="constant", random_state=0)
    assert fit_quietly(model, X, y).n_iter_ < 200


@pytest.mark.parametrize("n", [100, 800])
def test_all_epochs_on_purpose_are_no_lack_of_convergence(n: int) -> None:
    X, y = noisy_numbers(n)
    model = TargetSpaceRegressor((4,), alpha=0.1, max_iter=100, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(n_iter_no_change=np.inf).fit(X, y)


def test_callbacks_may_have_the_names_of_ours() -> None:
    X, y = noisy(TargetSpaceClassifier)
    schedule = LRScheduler(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
    for name in ("monitor", "schedule", "stopper", "checkpoint", "bridge"):
        model = TargetSpaceClassifier((3,), max_iter=2, callbacks=[(name, schedule)])
        assert fit_quietly(model, X, y).n_iter_ == 2


def test_another_schedule_begins_anew() -> None:
    X, y = noisy_numbers(100)
    model = TargetSpaceRegressor(
        (3,),
        solver="sgd",
        learning_rate="invscaling",
        learning_rate_init=0.5,
        warm_start=True,
        max_iter=5,
        random_state=0,
    )
    fit_quietly(model, X, y)
    again = fit_quietly(model.set_params(learning_rate="constant"), X, y)
    assert again._optimiser_state["param_groups"][0]["lr"] == 0.5


def test_a_schedule_of_the_users_begins_anew_in_every_fit() -> None:
    X, y = noisy_numbers(100)
    halved = LRScheduler("ExponentialLR", gamma=0.5)
    model = TargetSpaceRegressor((3,), warm_start=True, max_iter=3, random_state=0)
    for rate, callbacks, expected in (
        (0.1, [halved], [0.1, 0.05, 0.025]),
        (0.1, [halved], [0.1, 0.05, 0.025]),
        (0.01, [halved], [0.01, 0.005, 0.0025]),
        (0.01, [], [0.01, 0.01, 0.01]),
    ):
        seen = SeesRates()
        model.set_params(learning_rate_init=rate, callbacks=[*callbacks, seen])
        fit_quietly(model, X, y)
        assert seen.rates == pytest.approx(expected)


def test_many_rows_of_noise_leave_tokens_to_hold_out() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(1, 9, size=(200, 6))
    model = TargetSpaceSequenceClassifier(
        vocabulary_size=9, recurrent_layer_sizes=(3,), max_iter=10, random_state=0
    )
    for size in (100, 190):
        fit_quietly(model.set_params(fixed_batch_size=size), X, X[:, 0] > 4)
        assert model.validation_scores_ is not None


class TakesNaN(nn.Module):
    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(n_channels, 4, batch_first=True)
        self.out = nn.Linear(4, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.rnn(x)[0][:, -1])
        return out


def test_modules_that_do_not_leave_padding_out_are_told() -> None:
    X, y = waves(30)
    X[::2, :, 9:] = np.nan
    model = TargetSpaceSequenceClassifier(module=TakesNaN, max_iter=2)
    with pytest.raises(ValueError, match="module gets NaN after their ends"):
        model.fit(X, y)


@pytest.mark.parametrize("classes", [[5, 6], [0, 1, 2]])
def test_classes_that_are_no_labels(classes: list[int]) -> None:
    X, y = noisy_numbers(30)
    labels = np.stack([y > 0, X[:, 1] > 0], axis=1).astype(int)
    with pytest.raises(ValueError, match="does not name the columns of y"):
        TargetSpaceClassifier().partial_fit(X, labels, classes=classes)


@for_both
def test_large_weights_change_nothing_from_ten_on(kind: type) -> None:
    X, y = noisy(kind)
    model = kind((6,), max_iter=20, random_state=0)
    ten, many = (
        fit_quietly(clone(model), X, y, sample_weight=np.full(len(y), weight))
        for weight in (10.0, 2.0**17)
    )
    assert ten.lam_ == many.lam_
    np.testing.assert_allclose(ten.predict(X), many.predict(X), rtol=1e-6)


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("freezes", [False, True])
def test_a_network_that_is_used_elsewhere_stays_as_it_is(
    parameterization: str, freezes: bool
) -> None:
    X, y = class_data(3)
    inner = nn.Linear(X.shape[1], 5).requires_grad_(not freezes)
    norm = nn.BatchNorm1d(5).requires_grad_(False)
    whole = nn.Sequential(inner, norm, nn.Tanh(), nn.Linear(5, 3))
    before = copy.deepcopy(whole.state_dict())
    estimator = TargetSpaceClassifier(
        module=lambda *_: whole,
        parameterization=parameterization,
        max_iter=5,
        random_state=0,
    )
    first = fit_quietly(clone(estimator), X.astype(np.float32), y)
    again = fit_quietly(clone(estimator), X, y)
    np.testing.assert_allclose(
        first.predict_proba(X.astype(np.float32)), again.predict_proba(X), atol=1e-3
    )
    for name, value in whole.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


class Lazy(nn.Sequential):
    """A head with a buffer that has no values yet."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__(nn.LazyBatchNorm1d(), nn.LazyLinear(n_outputs))


class Locked(nn.Linear):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__(n_features, n_outputs)
        self.lock = threading.Lock()


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("head", [nn.LazyLinear, Lazy])
def test_what_is_beside_a_lazy_head_stays_as_it_is(
    parameterization: str, head: Any
) -> None:
    X, y = class_data(3)
    backbone = nn.Linear(X.shape[1], 5)
    before = backbone.weight.detach().clone()
    model = TargetSpaceClassifier(
        module=lambda _, n: nn.Sequential(backbone, nn.Tanh(), head(n)),
        parameterization=parameterization,
        max_iter=3,
        random_state=0,
    )
    fit_quietly(model, X, y)
    if head is nn.LazyLinear:  # Torch cannot copy lazy buffers.
        assert torch.equal(backbone.weight, before)
    assert model.predict(X).shape == y.shape


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    X, y = class_data()
    with pytest.raises(TypeError, match="network that cannot be copied: cannot pickle"):
        TargetSpaceClassifier(module=Locked).fit(X, y)


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_a_network_with_nothing_to_learn_is_refused(parameterization: str) -> None:
    X, y = class_data()
    model = TargetSpaceClassifier(
        module=lambda i, o: nn.Linear(i, o).requires_grad_(False),
        parameterization=parameterization,
    )
    with pytest.raises(ValueError, match=r"the module has no.* to learn|no layer"):
        model.fit(X, y)


def test_frozen_weights_are_no_part_of_the_loss() -> None:
    X, y = class_data()

    def make(n_features: int, n_outputs: int) -> nn.Module:
        spare = nn.Linear(n_features, 10_000).requires_grad_(False)
        return nn.Sequential(spare, nn.Linear(10_000, n_outputs))

    losses = [
        fit_quietly(
            TargetSpaceClassifier(
                module=make,
                parameterization="weights",
                alpha=alpha,
                max_iter=1,
                random_state=0,
            ),
            X,
            y,
        ).loss_curve_[0]
        for alpha in (0.0, 1.0)
    ]
    # Of the 40,000 frozen weights the penalty would be dozens.
    assert losses[0] < losses[1] < losses[0] + 1


class Stateful(nn.Sequential):
    """A module with a state that is no array."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}


def test_a_module_may_have_a_state_of_any_kind(tmp_path: Path) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(
        module=lambda i, o: Stateful(nn.Linear(i, 4), nn.Tanh(), nn.Linear(4, o)),
        max_iter=5,
        random_state=0,
        warm_start=True,
        checkpoint=tmp_path / "run",
    )
    for _ in range(2):
        assert fit_quietly(estimator, X, y).predict(X).shape == y.shape


class Peculiar(Stateful):
    def get_extra_state(self) -> Any:
        return {1, 2}


def test_states_that_no_file_can_hold_are_refused_at_once(tmp_path: Path) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(
        module=lambda i, o: Peculiar(nn.Linear(i, 4), nn.Tanh(), nn.Linear(4, o)),
        max_iter=5,
        checkpoint=tmp_path / "run",
    )
    with pytest.raises(ValueError, match=r"cannot hold .*_extra_state.* \{1, 2\}: let"):
        estimator.fit(X, y)
    assert not list(tmp_path.iterdir())


class Still(Callback):
    """Keeps a network where it is."""

    def on_grad_computed(self, net: Any, **_: Any) -> None:
        for parameter in net.module_.parameters():
            parameter.grad.zero_()


@pytest.mark.parametrize("max_iter", [1, 4])
def test_the_steps_of_a_short_run_are_kept(max_iter: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    settings: Any = {"max_iter": max_iter, "random_state": 0}
    moves = fit_quietly(TargetSpaceClassifier((8,), **settings), X, y)
    still = TargetSpaceClassifier((8,), callbacks=[Still()], **settings)
    assert weights_differ(moves, fit_quietly(still, X, y))
    assert moves.validation_loss_curve_[-1] < still.validation_loss_curve_[-1]
