"""Images: what "auto" stands for, and what is learnt."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, LRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from tests.estimators.image_support import LAYERS, SMALL, digits
from tests.estimators.support import (
    assert_same_weights,
    fit_quietly,
    for_both,
    weights_differ,
)

# --- What "auto" stands for -----------------------------------------------------------


@for_both
def test_what_auto_stands_for(kind: type) -> None:
    X, y = digits(150)
    auto = SMALL | {"fixed_batch_size": "auto", "max_iter": 1}
    estimator = fit_quietly(kind(**auto, warm_start=True), X, y)
    assert estimator.fixed_batch_.shape == (100, 1, 8, 8)
    # A row for each of 64 pixels, nine columns and the ones.
    maps = F.pad(torch.from_numpy(estimator.fixed_batch_), (1, 1, 1, 1))
    patches = maps.unfold(2, 3, 1).unfold(3, 3, 1)
    squares = patches.square().sum().item() + 6400
    assert estimator.lam_[0] == pytest.approx(squares / 10, rel=1e-5)
    assert len(set(estimator.lam_)) == 4
    explicit = auto | {
        "lam": estimator.lam_,
        "learning_rate_init": 0.3,  # There are three steps.
        "learning_rate": "annealed",
        "epsilon": 1e-15,
    }
    assert_same_weights(fit_quietly(kind(**explicit), X, y), estimator)
    few = fit_quietly(kind(**auto, warm_start=True), X[:60], y[:60])
    assert len(few.fixed_batch_) == 60
    assert few.lam_[0] < 0.8 * estimator.lam_[0]
    bright = fit_quietly(kind(**auto, warm_start=True), 2 * X.astype(float) / 255, y)
    squares = 4 * (squares - 6400) + 6400
    assert bright.lam_[0] == pytest.approx(squares / 10, rel=0.01)  # Another sample.


@for_both
def test_an_annealed_course_ends_as_planned(kind: type) -> None:
    X, y = digits(150)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        kind(**SMALL).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        kind(**SMALL, learning_rate="constant").fit(X, y)


class Steps(Callback):
    """Notes the step size of every step, and the stabiliser of Adam."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.rates: list[float] = []
        self.epsilon = net.optimizer_.param_groups[0].get("eps")

    def on_batch_end(self, net: Any, training: bool = False, **_: Any) -> None:
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])


@for_both
def test_steps_are_annealed_unless_the_user_knows_better(kind: type) -> None:
    X, y = digits(150)
    steps = Steps()
    auto = SMALL | {"callbacks": [steps]}
    estimator = fit_quietly(kind(**auto), X, y)
    annealed = 0.15 * (1 + np.cos(np.pi * np.arange(6) / 6))
    np.testing.assert_allclose(steps.rates, annealed, rtol=1e-12)
    assert steps.epsilon == 1e-15
    fit_quietly(kind(**auto, learning_rate_init=0.03, epsilon=1e-9), X, y)
    assert set(steps.rates) == {0.03}
    assert steps.epsilon == 1e-9
    estimator.partial_fit(X, y)
    assert set(steps.rates) == {0.1}
    by_sgd = {"solver": "sgd", "learning_rate": "annealed"}
    fit_quietly(kind(**auto, **by_sgd), X, y)
    np.testing.assert_allclose(steps.rates, annealed * (10 / 0.3), rtol=1e-12)
    own = LRScheduler("ExponentialLR", gamma=0.5)
    fit_quietly(kind(**auto | {"callbacks": [own, steps]}), X, y)
    np.testing.assert_allclose(steps.rates, [0.1] * 3 + [0.05] * 3)
    fit_quietly(kind(**auto, parameterization="weights"), X, y)
    assert set(steps.rates) == {0.001}
    assert steps.epsilon == 1e-8


# --- Learning -------------------------------------------------------------------------

LEARNS: dict[str, Any] = {
    "hidden_layer_sizes": (32,),
    "conv_layers": [(3, 8, 1), (3, 16, 2)],
    "activation": "leaky_relu",
    "max_iter": 8,
    "batch_size": 50,
    "random_state": 0,
}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dropout": 0.2},
        {"untangling": "ocu"},
        {"parameterization": "weights", "learning_rate_init": 0.01},
        {"parameterization": "weights", "batch_norm": True},
        {"activation": "tanh"},
    ],
    ids=str,
)
def test_digits_are_learnt(settings: dict[str, Any]) -> None:
    X, y = digits(1000)
    estimator = TargetSpaceClassifier(**LEARNS | settings)
    fit_quietly(estimator, X[:800], y[:800])
    assert estimator.score(X[800:], y[800:]) > 0.85


def test_brightness_is_learnt_by_the_regressor() -> None:
    X, _ = digits(600)
    y = X[:, 0, 2:5, 2:5].mean((1, 2)) / 255
    estimator = fit_quietly(TargetSpaceRegressor(**LEARNS), X[:400], y[:400])
    assert estimator.score(X[400:], y[400:]) > 0.8


def test_images_in_a_pipeline_and_a_grid() -> None:
    X, y = digits()
    flat = X.reshape(len(X), -1)
    network = TargetSpaceClassifier(**SMALL, image_shape=(1, 8, 8))
    pipeline = make_pipeline(StandardScaler(), network)
    grid = {"targetspaceclassifier__conv_layers": [LAYERS, [(3, 4, 2)], None]}
    search = fit_quietly(GridSearchCV(pipeline, grid, cv=2), flat, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_early_stopping_and_a_schedule_for_every_batch() -> None:
    X, y = digits()
    schedule = LRScheduler("CosineAnnealingLR", T_max=6, step_every="batch")
    estimator = TargetSpaceClassifier(
        **SMALL, early_stopping=True, callbacks=[schedule]
    )
    fit_quietly(estimator, X, y)
    assert len(estimator.validation_scores_) == 2
    assert schedule.lr_scheduler_.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_average_of_two_networks() -> None:
    X, y = digits(400)
    flat = X.reshape(len(X), -1)
    networks = [
        (str(seed), TargetSpaceClassifier(**LEARNS | {"random_state": seed}))
        for seed in (0, 1)
    ]
    for _, network in networks:
        network.set_params(image_shape=(1, 8, 8), max_iter=3)
    vote = fit_quietly(VotingClassifier(networks, voting="soft"), flat, y)
    mean = np.mean([e.predict_proba(flat) for e in vote.estimators_], axis=0)
    np.testing.assert_allclose(vote.predict_proba(flat), mean, rtol=1e-6)
    assert weights_differ(*vote.estimators_)


class Averaging(nn.Module):
    """A network that ends in a mean over all pixels."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_channels, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.out = nn.Linear(16, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        out: Tensor = self.out(x.mean((2, 3)))
        return out


def test_means_over_all_pixels_are_learnt_from() -> None:
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 1, 8, 8) / 16
    model = TargetSpaceClassifier(module=Averaging, max_iter=10, random_state=0)
    fit_quietly(model, X[:400], y[:400])
    assert model.score(X[400:1000], y[400:1000]) > 0.8
