"""Weight decay that falls where nothing is said about it."""

import math
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_hastie_10_2
from skorch.callbacks import LRScheduler

from sktarget import TargetSpaceClassifier
from sktarget.estimators import _noise_rules
from sktarget.training import TrainingNet
from tests.estimators.support import class_data, fit_quietly, for_both, noisy

DEEP = (6,) * 4


@pytest.fixture
def alphas(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the weight decay of every step."""
    seen: list[float] = []
    step = TrainingNet.train_step_single

    def spy(net: TrainingNet, batch: Any, **kwargs: Any) -> Any:
        seen.append(net.alpha)
        return step(net, batch, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step_single", spy)
    return seen


def test_more_rows_and_fewer_layers_bear_more_weight_decay() -> None:
    def first(
        n: int, n_layers: int, n_columns: int = 9, holds_out: bool = True
    ) -> float:
        return _noise_rules.auto_alpha(n, n_layers, n_columns, holds_out)

    assert first(850, 17) == first(10**6, 5) == 1.0
    assert first(425, 17) == pytest.approx(0.5)
    assert first(200, 5) == first(200, 5, holds_out=False) == pytest.approx(0.8)
    assert first(20, 5) == pytest.approx(0.08)
    # Shallow networks bear more on few rows.  A handful of them are not held out.
    assert [first(n, 3) for n in (20, 150, 199, 200, 10**6)] == [0.4, 3, 3, 1, 1]
    assert first(199, 5, holds_out=False) == first(199, 2, holds_out=False) == 1e-4
    # Few columns have no room for noise.
    assert [first(500, n, n_columns=2) for n in (2, 3, 4)] == [1e-4, 1e-4, 1]


def test_strong_weight_decay_is_tried_where_noise_may_be_learnt() -> None:
    assert not _noise_rules.may_fit_noise(0.1, 2, 9, 500)
    assert _noise_rules.may_fit_noise(0.3, 2, 9, 500)
    assert _noise_rules.may_fit_noise(0.3, 4, 3, 500)
    assert not _noise_rules.may_fit_noise(0.3, 4, 2, 500)
    assert _noise_rules.may_fit_noise(0.1, 5, 9, 500)
    assert not _noise_rules.may_fit_noise(0.07, 5, 9, 500)
    assert not _noise_rules.may_fit_noise(0.9, 5, 2, 500)
    # Many rows for each column leave little to fit.
    assert _noise_rules.may_fit_noise(0.3, 2, 9, 10_000)
    assert not _noise_rules.may_fit_noise(0.3, 2, 9, 10_001)
    assert _noise_rules.may_fit_noise(0.3, 2, 90, 22_500)
    assert not _noise_rules.may_fit_noise(0.3, 2, 90, 22_501)
    # Little gains where there is little noise are not to be trusted.
    assert [_noise_rules.needed_share(e) for e in (0.1, 0.13, 0.95)] == [0.85, 1, 1]


@for_both
@pytest.mark.parametrize("depth", [4, 8])
def test_weight_decay_falls_by_halves(
    kind: type, depth: int, alphas: list[float]
) -> None:
    X, y = noisy(kind)
    estimator = kind((6,) * depth, early_stopping=True, random_state=0)
    estimator.set_params(max_iter=40, n_iter_no_change=np.inf)
    fit_quietly(estimator, X, y)
    n_left = len(X) - math.ceil(0.1 * len(X))
    first = min(1.0, n_left / (50 * (depth + 1)))
    expected = first * 0.5 ** (20 * np.arange(40) / 40)
    np.testing.assert_allclose(alphas, np.maximum(expected, 1e-4))
    assert alphas[-1] == 1e-4


@for_both
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_falls_in_shallow_networks_too(
    kind: type, depth: int, alphas: list[float]
) -> None:
    X, y = noisy(kind)
    settings: dict[str, Any] = {"early_stopping": True, "max_iter": 5}
    fit_quietly(kind((6,) * depth, **settings), X, y)
    assert alphas == [1, 2**-4, 2**-8, 2**-12, 1e-4]


@for_both
@pytest.mark.parametrize("settings", [{"early_stopping": False}, {"warm_start": True}])
@pytest.mark.parametrize(("depth", "alpha"), [(1, 1.0), (2, 1.0), (39, 0.2)])
def test_it_stays_where_nothing_tells_when_it_is_small_enough(
    kind: type, settings: dict[str, Any], depth: int, alpha: float, alphas: list[float]
) -> None:
    X, y = noisy(kind)
    fit_quietly(kind((4,) * depth, max_iter=5, **settings), X, y)
    assert alphas == pytest.approx([alpha] * 5)


def test_deep_networks_that_fit_noise_are_followed_by_others(
    alphas: list[float],
) -> None:
    X, y = noisy(TargetSpaceClassifier)
    estimator = fit_quietly(TargetSpaceClassifier(DEEP, random_state=0), X, y)
    assert 10.0 in alphas
    last = estimator.n_iter_ - len(estimator.validation_scores_)
    assert (set(alphas[-last:]) == {10.0}) == estimator._run_rules.decays_strongly


def test_strong_decay_ends_with_the_rules_for_tables(alphas: list[float]) -> None:
    X, y = noisy(TargetSpaceClassifier)
    model = TargetSpaceClassifier(max_iter=99, warm_start=True, random_state=0)
    fit_quietly(model, X, y, X_val=X, y_val=y[::-1])
    model._other_rules = {"decays_strongly": True}
    alphas.clear()
    fit_quietly(model, X, y, X_val=X, y_val=y[::-1])
    assert alphas[0] == 10.0
    alphas.clear()
    model.set_params(learning_rate_init=0.01)
    fit_quietly(model, X, y, X_val=X, y_val=y[::-1])
    assert set(alphas) == {1e-4}


def test_last_epochs_have_the_weight_decay_of_a_quarter_earlier(
    alphas: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_noise_rules, "may_fit_noise", lambda *_: False)
    X, y = noisy(TargetSpaceClassifier)
    estimator = fit_quietly(TargetSpaceClassifier(DEEP, random_state=0), X, y)
    searched = len(estimator.validation_scores_)
    last = estimator.n_iter_ - searched
    good = last - 10
    assert alphas[0] == 1.0
    assert 0 < good < searched
    earlier = max(0, good - 40)
    assert alphas[searched:] == pytest.approx([alphas[earlier]] * last)
    assert alphas[searched] > alphas[searched - 1]


SETTLED: list[dict[str, Any]] = [
    {"learning_rate_init": 0.01},
    {"solver": "sgd"},
    {"solver": "lbfgs"},
    {"tol": 0.0},
    {"parameterization": "weights"},
    {"callbacks": [LRScheduler("StepLR", step_size=5)]},
]


@pytest.mark.parametrize("settings", SETTLED, ids=lambda settings: next(iter(settings)))
def test_weight_decay_stays_in_plain_training(
    settings: dict[str, Any], alphas: list[float]
) -> None:
    X, y = class_data(2, 400)
    estimator = TargetSpaceClassifier(DEEP, max_iter=5, **settings)
    fit_quietly(estimator, X, y)
    assert set(alphas) == {1e-4}


@for_both
@pytest.mark.parametrize("alpha", [0, 0.03, 2])
def test_weight_decay_that_is_given_stays(
    kind: type, alpha: float, alphas: list[float]
) -> None:
    X, y = class_data(2, 400)
    fit_quietly(kind(DEEP, alpha=alpha, max_iter=30, random_state=0), X, y)
    assert len(alphas) == 30
    assert set(alphas) == {alpha}


def test_it_falls_anew_with_every_fit(alphas: list[float]) -> None:
    X, y = class_data(2, 400)
    estimator = TargetSpaceClassifier(DEEP, warm_start=True, random_state=0)
    estimator.set_params(max_iter=8, n_iter_no_change=np.inf, early_stopping=True)
    for _ in range(2):
        fit_quietly(estimator, X, y)
    assert alphas[:8] == alphas[8:]
    assert alphas[7] < 0.01 * alphas[0]


def test_a_strong_decay_that_leads_to_a_constant_soon_ends(alphas: list[float]) -> None:
    X, y = make_hastie_10_2(500, random_state=0)
    fit_quietly(TargetSpaceClassifier((10,) * 12, random_state=0), X, y)
    of_second = alphas.count(_noise_rules.STRONG_ALPHA)
    assert 0 < of_second < 100
    assert alphas[-1] < _noise_rules.STRONG_ALPHA  # It was not taken.
