"""Small problems and helpers that the tests of the estimators share."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from tests.reference import Network, realise

Array = NDArray[Any]

ESTIMATORS = [TargetSpaceClassifier, TargetSpaceRegressor]
for_both = pytest.mark.parametrize("kind", ESTIMATORS)

# Trains exactly `max_iter` epochs.
ALL_EPOCHS: dict[str, Any] = {"tol": 0.0, "n_iter_no_change": 100_000}
# Enough for callbacks to see something.
SHORT: dict[str, Any] = {
    "hidden_layer_sizes": (4,),
    "max_iter": 6,
    "random_state": 0,
    **ALL_EPOCHS,
}


def fit_quietly(
    estimator: Any, X: Any, y: Any, method: str = "fit", **kwargs: Any
) -> Any:
    """Fit, whether or not `max_iter` is enough to converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return getattr(estimator, method)(X, y, **kwargs)


def class_data(n_classes: int = 2, n_samples: int = 90) -> tuple[Array, Array]:
    X, y = make_classification(
        n_samples,
        4,
        n_informative=4,
        n_redundant=0,
        n_classes=n_classes,
        n_clusters_per_class=1,
        class_sep=1.5,
        random_state=0,
    )
    return StandardScaler().fit_transform(X), y


def label_data(n_labels: int = 3, n_samples: int = 90) -> tuple[Array, Array]:
    X, y = make_multilabel_classification(
        n_samples, 6, n_classes=n_labels, random_state=0
    )
    return StandardScaler().fit_transform(X), y


def curve_data(n_outputs: int | None = None) -> tuple[Array, Array]:
    """Make noise-free sums of waves: y of shape (n,), or (n, n_outputs)."""
    X = np.random.default_rng(0).uniform(-1, 1, (90, 3))
    phases = np.arange(n_outputs or 1)
    Y = np.sin(2 * X[:, [0]] + phases) + X[:, [1]] * X[:, [2]]
    return X, Y[:, 0] if n_outputs is None else Y


def noisy_numbers(n: int = 600) -> tuple[Any, Any]:
    """Return five columns, and numbers that the first tells little about."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5))
    return X, X[:, 0] + 2 * rng.normal(size=n)


def noisy(kind: type) -> tuple[Any, Any]:
    """Return a problem on which training stops early."""
    X, y = class_data(2, 400)
    if kind is TargetSpaceRegressor:
        X = np.random.default_rng(0).uniform(-1, 1, (400, 3))
        y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
    X = np.hstack([X, np.random.default_rng(0).normal(size=(400, 4))])
    y = np.where(np.random.default_rng(1).uniform(size=400) < 0.05, y[::-1], y)
    return X, y


def with_dropout(n_features: int, n_outputs: int) -> nn.Module:
    """Make a network that draws from torch's global generator."""
    layers = nn.Linear(n_features, 8), nn.Dropout(0.2), nn.Tanh()
    return nn.Sequential(*layers, nn.Linear(8, n_outputs))


def problem(kind: type) -> tuple[Array, Array]:
    return class_data() if kind is TargetSpaceClassifier else curve_data()


def weights(estimator: Any) -> list[Array]:
    """Stack intercepts on coefficients, as the reference has them."""
    pairs = zip(estimator.intercepts_, estimator.coefs_, strict=True)
    return [np.vstack([b, w]) for b, w in pairs]


def assert_same_weights(a: Any, b: Any, atol: float = 0.0) -> None:
    for one, other in zip(weights(a), weights(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def weights_differ(a: Any, b: Any) -> bool:
    """Return whether any layer differs by more than rounding could explain."""
    pairs = zip(weights(a), weights(b), strict=True)
    return any(not np.allclose(one, other, atol=1e-6) for one, other in pairs)


def reference_weights(estimator: Any) -> list[Array]:
    """Realise the targets that the estimator kept by the slow NumPy truth."""
    sizes = (estimator.n_features_in_, *(t.shape[1] for t in estimator.targets_))
    network = Network(sizes, estimator._activation(), estimator.shortcuts)
    realised, _ = realise(
        network,
        estimator.targets_,
        estimator.fixed_batch_,
        estimator.lam_,
        estimator.untangling,
    )
    return realised


def assert_learns(
    estimator: Any, X: Array, y: Any, parameterization: str = "targets"
) -> None:
    """Ask for more than chance gives, of weight space for little more."""
    chance = 0.0
    if is_classifier(estimator):
        chance = np.unique(y, return_counts=True)[1].max() / len(y)
    share = 0.4 if parameterization == "targets" else 0.1
    assert estimator.score(X, y) > chance + share * (1 - chance)


class NoTraining(Callback):
    """Fails the test if training begins."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        pytest.fail("training began")


class SeesData(Callback):
    """Remembers the rows that were trained on and those set aside."""

    def on_epoch_end(
        self, net: Any, dataset_train: Any, dataset_valid: Any, **_: Any
    ) -> None:
        self.train, self.valid = dataset_train, dataset_valid


class Dies(Callback):
    """Lets the fit fail within an epoch, as if the process had come to its end."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.begun = epoch, 0

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        self.begun += 1

    def on_batch_end(self, net: Any, **_: Any) -> None:
        if self.begun == self.epoch:
            raise MemoryError("the end")

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the epochs of a process are counted, not those of a run."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Leaves(Callback):
    """Ends a run after a number of epochs, as skorch's callbacks do."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


class Keeps(Callback):
    """Keeps the history of the last epoch."""

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.history = net.history


class SeesRates(Callback):
    """Remembers the step size of every epoch of the last fit."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.rates: list[float] = []

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


class SetsRate(Callback):
    """Gives the optimiser another step size from some epoch on."""

    def __init__(self, rate: float, epoch: int) -> None:
        self.rate, self.epoch = rate, epoch

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        if len(net.history) == self.epoch:
            for group in net.optimizer_.param_groups:
                group["lr"] = self.rate
