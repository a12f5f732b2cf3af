"""Deep networks that stop at what is linear, and go on without weight decay."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.estimators import _judged_course, _noise_rules
from sktarget.estimators._linear_baseline import error_of_linear_model
from sktarget.estimators._retries import MORE_EPOCHS
from sktarget.estimators._rows import TrainingRows
from tests.estimators.support import Array, fit_quietly

DEEP: dict[str, Any] = {"hidden_layer_sizes": (40,) * 6, "random_state": 1}


def trend_and_waves(n: int, seed: int = 1) -> tuple[Array, Array]:
    """Return times, a season and noise as columns, and what grows and swings."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 20, n)
    season, other = 2 * np.pi * t, rng.normal(size=n)
    X = np.column_stack([t, np.sin(season), np.cos(season), other])
    y = 0.3 * t + np.sin(season) + np.sin(5 * t) + 0.2 * rng.normal(size=n)
    return X, y


def mean_square(found: torch.Tensor, y: torch.Tensor, weight: Any) -> torch.Tensor:
    squares = (found - y).square().sum(1)
    return squares.mean() if weight is None else (weight * squares).mean()


def test_the_rule() -> None:
    rule = _noise_rules.stuck_above
    assert [rule(e, 5) for e in (0.3, 0.0, np.inf)] == pytest.approx(
        [0.27, 0.02, np.inf]
    )
    assert rule(0.3, 3) == np.inf  # two hidden layers
    shares = [_noise_rules.needed_share(e, MORE_EPOCHS.needs) for e in (0.05, 0.5)]
    assert shares == [0.85, 0.85]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_is_that_of_a_linear_model(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    X = 5 + rng.normal(size=(200, 3)) * [1, 1e-3, 1e3]
    y = np.column_stack([X[:, 0] + X[:, 2] / 1e3, X[:, 1] ** 2]) + 3
    weight = rng.uniform(0.1, 5, 200) if weighted else None
    rows, held_out = TrainingRows(X, y, weight), TrainingRows(X[:50], y[:50])
    found = error_of_linear_model(rows, held_out, mean_square)
    expected = LinearRegression().fit(X, y, sample_weight=weight).predict(X[:50])
    error = float(np.square(expected - y[:50]).sum(1).mean())
    assert found == pytest.approx(error, rel=0.02, abs=1e-3)
    wide = TrainingRows(np.ones((3, 1001)), np.ones((3, 1)))
    assert error_of_linear_model(wide, wide, mean_square) == np.inf


def test_waves_are_learnt_after_the_trend(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = trend_and_waves(2000)
    model = fit_quietly(TargetSpaceRegressor(**DEEP, verbose=True), X[:1500], y[:1500])
    assert "trying more epochs" in capsys.readouterr().out
    of_linear = LinearRegression().fit(X[:1500], y[:1500]).score(X[1500:], y[1500:])
    assert of_linear < 0.88
    assert model.score(X[1500:], y[1500:]) > 0.93


@pytest.mark.parametrize(
    ("settings", "goes_on"),
    [
        ({}, True),
        ({"alpha": 0.1}, False),
        ({"n_iter_no_change": 20}, False),
        ({"hidden_layer_sizes": 20}, False),
        ({"hidden_layer_sizes": (20, 20)}, False),
    ],
)
def test_what_the_user_chose_is_kept(
    settings: dict[str, Any], goes_on: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = trend_and_waves(1000)
    settings = {"hidden_layer_sizes": (20,) * 4, "random_state": 0} | settings
    model = TargetSpaceRegressor(**settings, max_iter=60, verbose=True)
    # Whatever a linear model does, it is as good as the network.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_judged_course, "error_of_linear_model", lambda *_: 0.0)
        fit_quietly(model, X, y)
    assert ("more epochs" in capsys.readouterr().out) == goes_on


def test_classes_do_not_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = trend_and_waves(400)
    model = TargetSpaceClassifier(**DEEP, max_iter=40, verbose=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_noise_rules, "stuck_above", lambda *_: 0.0)
        fit_quietly(model, X, y > y.mean())
    assert "more epochs" not in capsys.readouterr().out


def test_linear_tables_with_noise_stay_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 5))
    y = X[:, 0] + rng.normal(size=500)
    predicted = []
    for tried in (True, False):
        model = TargetSpaceRegressor((20,) * 3, random_state=0, max_iter=60, verbose=1)
        with pytest.MonkeyPatch.context() as patch:
            above = 0.0 if tried else np.inf
            patch.setattr(_noise_rules, "stuck_above", lambda *_, a=above: a)
            fit_quietly(model, X, y)
        assert ("more epochs" in capsys.readouterr().out) == tried
        assert not model._run_rules.never_decays
        predicted.append(model.predict(X))
    np.testing.assert_array_equal(*predicted)


def test_columns_too_large_to_square_tell_a_linear_model_nothing() -> None:
    y = np.array([[1.0], [2.0], [3.0], [4.0]])
    rows = TrainingRows(1e200 * y, y)
    assert error_of_linear_model(rows, rows, mean_square) == pytest.approx(1.25)
    rows = TrainingRows(y, np.where(y < 4, 1.0, np.inf))
    assert error_of_linear_model(rows, rows, mean_square) == np.inf
