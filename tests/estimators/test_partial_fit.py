"""What goes on from one call of ``partial_fit`` to the next."""

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    Freezer,
    LRScheduler,
    PrintLog,
)

from sktarget import TargetSpaceRegressor, TargetSpaceSequenceClassifier
from sktarget.propagation import DifferenceTargetPropagationRegressor
from tests.estimators.support import Keeps, SeesRates, fit_quietly, noisy_numbers


@pytest.mark.parametrize(
    "schedule",
    [
        LRScheduler("ExponentialLR", gamma=0.5),
        LRScheduler("StepLR", step_size=2),
        LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda e: 0.9**e),
        LRScheduler("CosineAnnealingLR", T_max=6),
        LRScheduler("WarmRestartLR", base_period=3),
    ],
    ids=lambda schedule: getattr(schedule.policy, "__name__", schedule.policy),
)
def test_a_schedule_goes_on_from_call_to_call_of_partial_fit(
    schedule: LRScheduler,
) -> None:
    X, y = noisy_numbers(100)
    seen, rates = SeesRates(), []
    model = TargetSpaceRegressor(
        (3,), learning_rate_init=0.1, callbacks=[schedule, seen], random_state=0
    )
    for _ in range(6):
        fit_quietly(model, X, y, "partial_fit")
        rates += seen.rates
    assert rates == pytest.approx(schedule.simulate(6, 0.1).tolist())


def test_a_stored_model_goes_on_with_its_schedule() -> None:
    X, y = noisy_numbers(100)
    callbacks = [LRScheduler("StepLR", step_size=2), SeesRates()]
    model = TargetSpaceRegressor((3,), callbacks=callbacks, random_state=0)
    rates = []
    # Another step size is where it begins anew.
    for initial in (0.1, 0.1, 0.1, 0.1, 0.3, 0.3, 0.3):
        model = pickle.loads(pickle.dumps(model)).set_params(learning_rate_init=initial)
        fit_quietly(model, X, y, "partial_fit")
        rates += model.callbacks[1].rates
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.3, 0.3, 0.03])


def test_skorchs_callbacks_go_on_from_call_to_call_of_partial_fit() -> None:
    X, y = noisy_numbers(100)
    scores = EpochScoring("r2", on_train=True, lower_is_better=False)
    model = TargetSpaceRegressor(
        (3,),
        parameterization="weights",
        callbacks=[scores, Freezer("layers.0.*", at=3), Keeps()],
        random_state=0,
    )
    first = []
    for _ in range(6):
        fit_quietly(model, X, y, "partial_fit")
        first.append(model.coefs_[0].copy())
    moved = [bool((a != b).any()) for a, b in pairwise(first)]
    assert moved == [True, False, False, False, False]
    history = model.callbacks[-1].history
    assert history[:, "epoch"] == [1, 2, 3, 4, 5, 6]
    bests = [i for i, is_best in enumerate(history[:, "r2_best"]) if is_best]
    assert history[bests[-1], "r2"] == max(history[:, "r2"])
    # Every fit is a course of its own.
    fit_quietly(model.set_params(max_iter=2), X, y)
    assert model.callbacks[-1].history[:, "epoch"] == [1, 2]


def test_early_stopping_does_not_undo_calls_of_partial_fit() -> None:
    X, y = noisy_numbers(100)
    stops = EarlyStopping(monitor="train_loss", load_best=True, patience=1)
    model = TargetSpaceRegressor((3,), callbacks=[stops], random_state=0)
    fit_quietly(model, X, y, "partial_fit")
    before = [w.copy() for w in model.coefs_]
    fit_quietly(model, X, 3 * y, "partial_fit")  # whose loss is far larger
    assert any((a != b).any() for a, b in zip(before, model.coefs_, strict=True))


class Thaws(Callback):
    """Lets everything learn."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        net.module_.requires_grad_(True)


@pytest.mark.parametrize(
    "then", [None, [SeesRates()], [Freezer("*"), Thaws()], [Freezer("no.*")]]
)
def test_what_was_frozen_may_learn_again(then: Any) -> None:
    X, y = noisy_numbers(100)
    model = TargetSpaceRegressor(
        (3,),
        parameterization="weights",
        callbacks=[Freezer("*"), PrintLog(sink=lambda *_: None)],
        random_state=0,
    )
    fit_quietly(model, X, y, "partial_fit")
    before = model.coefs_[0].copy()
    model.set_params(callbacks=[Freezer("*")])  # Printing freezes nothing.
    fit_quietly(model, X, y, "partial_fit")
    np.testing.assert_array_equal(model.coefs_[0], before)
    fit_quietly(model.set_params(callbacks=then), X, y, "partial_fit")
    assert (model.coefs_[0] != before).any()


def test_a_failed_call_of_partial_fit_leaves_the_schedule() -> None:
    X, y = noisy_numbers(100)
    schedule, seen = LRScheduler("StepLR", step_size=2), SeesRates()
    settings = {"learning_rate_init": 0.1, "random_state": 0}
    model = TargetSpaceRegressor((3,), callbacks=[schedule, seen], **settings)
    rates = []
    for _ in range(4):
        fit_quietly(model, X, y, "partial_fit")
        rates += seen.rates
        model.set_params(callbacks=[schedule, seen, Fails()])
        with pytest.raises(RuntimeError, match="on purpose"):
            fit_quietly(model, X, y, "partial_fit")
        model.set_params(callbacks=[schedule, seen])
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])


class Fails(Callback):
    """Fails when everything has been trained."""

    def on_train_end(self, net: Any, **_: Any) -> None:
        raise RuntimeError("on purpose")


def test_an_automatic_step_size_is_that_of_the_solver() -> None:
    X, y = noisy_numbers(100)
    model, seen = TargetSpaceRegressor((3,), random_state=0), SeesRates()
    for solver, rate in (("adam", 0.01), ("sgd", 1.0), ("adam", 0.01)):
        model.set_params(solver=solver, callbacks=[seen])
        fit_quietly(model, X, y, "partial_fit")
        assert seen.rates == pytest.approx([rate])


def test_step_sizes_of_sister_methods_are_those_of_every_call() -> None:
    X, y = noisy_numbers(100)
    model = DifferenceTargetPropagationRegressor(
        (3, 3), warm_start=True, random_state=0, max_iter=2
    )
    fit_quietly(model, X, y)
    fit_quietly(model, X, y, "partial_fit")
    rates = [group["lr"] for group in model._optimiser_state["param_groups"]]
    fresh = clone(model)
    fit_quietly(fresh, X, y, "partial_fit")
    assert rates == [g["lr"] for g in fresh._optimiser_state["param_groups"]]
    model.set_params(feedback_learning_rate_init=0.02)
    fit_quietly(model, X, y, "partial_fit")
    groups = model._optimiser_state["param_groups"]
    assert [group["lr"] for group in groups] == [0.02, *rates[1:]]


def test_a_schedule_goes_on_over_sequences_of_any_length() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2, 200))
    schedule, seen = LRScheduler("ExponentialLR", gamma=0.5), SeesRates()
    model = TargetSpaceSequenceClassifier(
        recurrent_layer_sizes=(3,), callbacks=[schedule, seen], random_state=0
    )
    rates = []
    for length in (20, 200, 90):
        fit_quietly(model, X[:, :, :length], X[:, 0, 0] > 0, "partial_fit")
        rates += seen.rates
    assert rates == pytest.approx([rates[0], rates[0] / 2, rates[0] / 4])
    for rate, expected in ((0.5, 0.5), ("auto", rates[0])):
        model.set_params(learning_rate_init=rate)
        fit_quietly(model, X[:, :, :20], X[:, 0, 0] > 0, "partial_fit")
        assert seen.rates == pytest.approx([expected])
