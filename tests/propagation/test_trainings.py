"""Whole trainings: what each method reaches, and what its control does not."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_friedman1
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from sktarget.datasets import make_temporal_order
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionSequenceClassifier,
)
from tests.estimators.support import ALL_EPOCHS, fit_quietly

DEEP = [(100,) * 2, (80,) * 3, (60,) * 7]


def digits(seed: int) -> list[NDArray[Any]]:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    split: list[NDArray[Any]] = train_test_split(
        X, y, test_size=0.25, stratify=y, random_state=seed
    )
    return split


def accuracies(kind: type, n_seeds: int, **settings: Any) -> NDArray[Any]:
    """Score the state after the last epoch on rows set aside."""
    scores = []
    for seed in range(n_seeds):
        X_train, X_test, y_train, y_test = digits(seed)
        shared = {"max_iter": 60, "batch_size": 100, "random_state": seed}
        estimator = kind(**(shared | ALL_EPOCHS | settings))
        scores.append(fit_quietly(estimator, X_train, y_train).score(X_test, y_test))
    return np.array(scores)


class FreezesFirstLayer(Callback):
    def on_grad_computed(self, net: Any, **_: Any) -> None:
        layer = net.module_.network.layers[0]
        layer.weight.grad = layer.bias.grad = None


@pytest.mark.slow
@pytest.mark.parametrize("sizes", DEEP, ids=len)
def test_difference_target_propagation_on_digits(sizes: tuple[int, ...]) -> None:
    settings = {"hidden_layer_sizes": sizes, "learning_rate_init": 0.001}
    scores = accuracies(DifferenceTargetPropagationClassifier, 5, **settings)
    assert (scores > 0.95).all()
    head = accuracies(
        DifferenceTargetPropagationClassifier, 5, **settings, target_lr=0.0
    )
    assert (scores - head).mean() > 0.02
    assert (scores > head).all()


@pytest.mark.slow
def test_without_the_difference_correction_depth_is_fatal() -> None:
    settings = {"hidden_layer_sizes": DEEP[-1], "learning_rate_init": 0.001}
    plain = accuracies(
        DifferenceTargetPropagationClassifier, 2, **settings, difference=False
    )
    assert (plain < 0.6).all()


@pytest.mark.slow
@pytest.mark.parametrize("transmission", ["sign", "bernoulli"])
def test_discrete_units_on_digits(transmission: str) -> None:
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (100, 100),
        "max_iter": 100,
        "transmission": transmission,
    }
    if transmission == "sign":
        settings |= {
            "solver": "rmsprop_centered",
            "learning_rate_init": 6.6e-4,
            "feedback_learning_rate_init": 4.3e-4,
            "noise": 0.5,
            "noise_decay": 50.0,
            "target_lr": 1.0,
        }
    else:
        settings |= {
            "learning_rate_init": 0.001,
            "target_lr": 0.3,
            "weight_init": "uniform",
        }
    scores = accuracies(DifferenceTargetPropagationClassifier, 3, **settings)
    assert scores.mean() > (0.935 if transmission == "sign" else 0.92)
    frozen = accuracies(
        DifferenceTargetPropagationClassifier,
        3,
        **settings,
        callbacks=[FreezesFirstLayer()],
    )
    assert (scores > frozen).all()


@pytest.mark.slow
@pytest.mark.parametrize("sizes", DEEP, ids=len)
def test_regularised_inversion_on_digits(sizes: tuple[int, ...]) -> None:
    settings = {"hidden_layer_sizes": sizes, "learning_rate_init": 0.001}
    scores = accuracies(RegularizedInversionClassifier, 3, **settings)
    assert (scores > 0.95).all()
    head = accuracies(RegularizedInversionClassifier, 3, **settings, target_lr=0.0)
    assert (scores - head).mean() > 0.02
    assert (scores > head).all()
    too_stiff = {"linearize": True, "clip": 1e-3, "ridge": 10.0}
    if len(sizes) == 7:
        faded = accuracies(RegularizedInversionClassifier, 1, **settings, **too_stiff)
        assert (faded < 0.8).all()


@pytest.mark.slow
def test_regression_of_friedman() -> None:
    X, y = make_friedman1(1200, noise=0.0, random_state=0)
    X, y = StandardScaler().fit_transform(X), (y - y.mean()) / y.std()
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (64, 64),
        "learning_rate_init": 0.001,
        "max_iter": 300,
        "random_state": 0,
        **ALL_EPOCHS,
    }
    score = []
    for target_lr in (0.1, 0.0):
        regressor = DifferenceTargetPropagationRegressor(
            **settings, target_lr=target_lr
        )
        fit_quietly(regressor, X[:900], y[:900])
        score.append(regressor.score(X[900:], y[900:]))
    assert score[0] > 0.95
    assert score[0] > score[1] + 0.1


def order_scores(
    length: int, n_batches: int, n_seeds: int, **settings: Any
) -> list[float]:
    """Train on fresh sequences until 99.9 % of others are right."""
    scores = []
    for seed in range(n_seeds):
        X_test, y_test = make_temporal_order(1000, length, random_state=10_000 + seed)
        X, y = make_temporal_order(20 * n_batches, length, random_state=seed)
        X = X.astype(np.float32)
        shared = {"learning_rate_init": 0.1, "batch_size": 20, "random_state": seed}
        estimator = RegularizedInversionSequenceClassifier(**(shared | settings))
        score = 0.0
        for k in range(0, len(X), 10_000):
            part = slice(k, k + 10_000)
            estimator.partial_fit(X[part], y[part], classes=range(4))
            score = float(estimator.score(X_test, y_test))
            if score >= 0.999:
                break
        scores.append(score)
    return scores


@pytest.mark.slow
def test_local_update_learns_the_order_of_20_steps() -> None:
    scores = order_scores(20, 6000, 5, recurrent_layer_sizes=30)
    assert sum(score > 0.99 for score in scores) >= 4
    head = order_scores(20, 3000, 1, recurrent_layer_sizes=30, target_lr=0.0)
    assert head[0] < 0.75


@pytest.mark.slow
def test_update_through_time_learns_the_order_of_60_steps() -> None:
    settings = {"update": "through_time", "linearize": True, "clip": 1e-3}
    scores = order_scores(
        60, 4000, 3, recurrent_layer_sizes=100, ridge=10.0, target_lr=0.01, **settings
    )
    assert all(score > 0.99 for score in scores)
