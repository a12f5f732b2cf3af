"""What is chosen for sequences where nothing is said about it."""

from typing import Any

import numpy as np
import pytest
from skorch.callbacks import Callback, LRScheduler

from sktarget import TargetSpaceSequenceClassifier
from sktarget.datasets import make_delayed_recall
from sktarget.estimators import _sequence_rules
from sktarget.training import _train
from sktarget.training._monitor import Monitor
from tests.estimators.sequence_support import as_list, series, step_labels, tokens
from tests.estimators.support import Array, Leaves, SeesRates, fit_quietly


class Course(Callback):
    """Records step size and weight decay of every mini-batch."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.alphas: list[float] = []

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])
            self.alphas.append(net.alpha)


def course(
    X: Any, y: Any, method: str = "fit", **settings: Any
) -> tuple[Course, TargetSpaceSequenceClassifier]:
    """Fit a small network and follow it."""
    seen = Course()
    model = TargetSpaceSequenceClassifier(
        recurrent_layer_sizes=(6,), random_state=0, **settings
    )
    model.set_params(callbacks=[*settings.get("callbacks", ()), seen])
    return seen, fit_quietly(model, X, y, method)


# --- λ --------------------------------------------------------------------------------


def test_states_of_long_sequences_bear_a_smaller_lam() -> None:
    assert _sequence_rules.auto_recurrent_lam(1000, 10) == pytest.approx(100)
    assert _sequence_rules.auto_recurrent_lam(1000, 40) == pytest.approx(100)
    assert _sequence_rules.auto_recurrent_lam(1000, 400) == pytest.approx(10)


def test_exits_have_their_own_lam() -> None:
    X, y = series(40, 2, 9)
    settings = {"hidden_layer_sizes": (4,), "bidirectional": True, "max_iter": 1}
    _, model = course(X, y, cell="gru", **settings)
    np.testing.assert_allclose(model.lam_, [36, 36, 1, 1])  # 0.1 · 40 · 9
    _, model = course(X, y, cell="gru", anchor="weights", **settings)
    np.testing.assert_allclose(model.lam_, [360, 360, 1, 1])
    _, model = course(X, y, anchor="zero", **settings)
    np.testing.assert_allclose(model.lam_, [36, 36, 1, 1])


def test_exits_after_many_sequences_are_less_free() -> None:
    found = [_sequence_rules.auto_exit_lam(1000, n) for n in (10, 100, 400, 500, 10**6)]
    assert found == pytest.approx([1, 10, 160, 250, 250])
    assert _sequence_rules.auto_exit_lam(2, 10**6) == 1
    X, _ = series(40, 2, 9)
    _, model = course(X, step_labels(X), return_sequences=True, max_iter=1)
    np.testing.assert_allclose(model.lam_, [360, 1])


def test_only_real_steps_count() -> None:
    X, y = series(40, 2, 9)
    listed = as_list(X)
    _, model = course(listed, y, max_iter=1)
    n_steps = sum(x.shape[1] for x in listed)
    np.testing.assert_allclose(model.lam_, [n_steps, 1])


def test_lam_of_tokens_goes_by_the_length_of_the_sequences() -> None:
    ids = np.random.default_rng(0).integers(1, 8, size=(30, 80))
    y = np.arange(30) % 2
    _, model = course(ids, y, vocabulary_size=8, max_iter=1, anchor="zero")
    assert model.fixed_sequence_length == "auto"  # 60 steps of noise
    np.testing.assert_allclose(model.lam_, [0.1 * 0.5 * 30 * 60, 1])


# --- Step size ------------------------------------------------------------------------


def test_only_averages_tolerate_large_steps_over_many_steps() -> None:
    def rate(n_steps: float, averages: bool = False, embeds: bool = False) -> float:
        return _sequence_rules.auto_annealed_recurrent_rate(n_steps, averages, embeds)

    assert rate(10) == rate(50) == rate(10, averages=True) == 0.1
    assert rate(500, averages=True) == 0.1
    assert rate(500) == pytest.approx(0.01)
    assert rate(10, embeds=True) == rate(10, True, True) == 0.03
    assert rate(300, embeds=True) == rate(300, True, True) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("cell", "expected"), [("rnn", 0.05), ("lstm", 0.05), ("gru", 0.1)]
)
def test_step_size_goes_by_the_cell(cell: str, expected: float) -> None:
    seen, _ = course(*series(12, 1, 100), cell=cell, max_iter=1)
    assert seen.rates == pytest.approx([expected])


def test_step_size_is_annealed() -> None:
    seen, model = course(*series(), max_iter=8)
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(8) / 8))
    np.testing.assert_allclose(seen.rates, expected)
    assert model.n_iter_ == 8


PLAIN: list[dict[str, Any]] = [
    {"learning_rate_init": 0.02},
    {"solver": "sgd"},
    {"parameterization": "weights"},
    {"callbacks": [LRScheduler("StepLR", step_size=5)]},
    {"learning_rate": "constant"},
]


@pytest.mark.parametrize("settings", PLAIN, ids=lambda settings: next(iter(settings)))
def test_plain_training(settings: dict[str, Any]) -> None:
    seen, model = course(*series(), max_iter=4, **settings)
    assert getattr(model, "lam_", (360, 16)) == (360, 16)
    assert set(seen.alphas) == {1e-4}
    assert len(set(seen.rates)) == 1


def test_plain_training_without_an_anchor() -> None:
    _, model = course(*series(), max_iter=1, cell="gru", learning_rate_init=0.02)
    assert model.lam_ == 16


def test_partial_fit_is_plain_training() -> None:
    X, y = series()
    seen, model = course(X, y, "partial_fit")
    model.partial_fit(X, y)
    assert model.lam_ == (360, 16)
    assert set(seen.rates) == {0.05}
    assert set(seen.alphas) == {1e-4}


# --- Weight decay ---------------------------------------------------------------------


def test_weight_decay_follows_the_loss() -> None:
    X, y = series(50)
    seen, model = course(X, y, max_iter=40)
    losses = np.array(model.loss_curve_)
    recent = np.r_[losses[0], (losses[1:-1] + losses[:-2]) / 2]
    learnt = np.maximum(0, 1 - recent / losses[0])
    share = _sequence_rules.auto_recurrent_alpha(50, gated=False)
    np.testing.assert_allclose(seen.alphas, share * np.r_[0, learnt**2])
    assert seen.alphas[-1] > 0.2 * share


def test_more_sequences_bear_more_weight_decay() -> None:
    sizes = (10, 100, 1000, 10**6)
    gated = [_sequence_rules.auto_recurrent_alpha(n, gated=True) for n in sizes]
    assert gated == pytest.approx([0.01, 0.1, 1, 1])
    plain = [_sequence_rules.auto_recurrent_alpha(n, gated=False) for n in sizes]
    assert plain == pytest.approx([0.03, 0.3, 3, 3])


def test_weight_decay_that_is_given_stays() -> None:
    seen, _ = course(*series(), max_iter=6, alpha=0.03)
    assert set(seen.alphas) == {0.03}
    assert seen.rates[-1] < seen.rates[0]


def test_a_step_size_of_the_users_own_may_be_annealed() -> None:
    seen, _ = course(
        *series(), max_iter=6, learning_rate="annealed", learning_rate_init=0.02
    )
    assert seen.rates[0] == 0.02 > seen.rates[-1]
    assert seen.alphas[0] == 0 < seen.alphas[-1]


def test_embeddings_are_trained_without_much_weight_decay() -> None:
    seen, _ = course(*tokens(), vocabulary_size=8, max_iter=6)
    assert set(seen.alphas) == {1e-4}
    assert seen.rates[0] == 0.03 > seen.rates[-1]


def test_weight_decay_goes_on_where_a_fit_goes_on() -> None:
    seen, model = course(*series(), max_iter=10, warm_start=True)
    before = model.loss_curve_[-1]
    model.fit(*series())
    assert seen.alphas[10] > 0.5 * seen.alphas[9] > 0
    assert model.loss_curve_[-1] < before


def test_runs_to_the_end() -> None:
    # The loss may rise with the weight decay; that is no reason to stop.
    _, model = course(*series(), max_iter=40, tol=10.0)
    assert model.n_iter_ == 40
    _, model = course(*series(), max_iter=40, tol=10.0, n_iter_no_change=3)
    assert model.n_iter_ < 40
    _, model = course(*series(), max_iter=250, tol=10.0, early_stopping=True)
    assert model.n_iter_ < 250
    _, model = course(*series(), max_iter=40, tol=10.0, early_stopping="auto")
    assert model.n_iter_ == 40


def test_losses_with_more_and_more_weight_decay_are_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    class Spy(Monitor):
        def __init__(self, *args: Any, keeps_best: bool, **kwargs: Any) -> None:
            seen.append(keeps_best)
            super().__init__(*args, keeps_best=keeps_best, **kwargs)

    monkeypatch.setattr(_train, "Monitor", Spy)
    for alpha in ("auto", 0.1):
        course(*series(), max_iter=2, alpha=alpha)
    assert seen == [False, True]


# --- What it is worth -----------------------------------------------------------------


def noisy_waves(n: int, seed: int) -> tuple[Array, Array]:
    """Make waves of two speeds in noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    phase = rng.uniform(0, 6, (n, 1, 1))
    X = np.sin(phase + (0.4 + 0.25 * y[:, None, None]) * np.arange(30))
    return X + 0.5 * rng.normal(size=X.shape), y


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_a_few_noisy_series_are_not_learnt_by_heart(cell: str) -> None:
    X, y = noisy_waves(60, 0)
    model = TargetSpaceSequenceClassifier(cell=cell, random_state=0).fit(X, y)
    assert model.score(*noisy_waves(500, 1)) > 0.9


def test_memories_are_learnt_at_once() -> None:
    X, y = make_delayed_recall(1000, delay=10, n_timesteps=20, random_state=0)
    settings = {
        "return_sequences": True,
        "n_ignored_steps": 10,
        "batch_size": 50,
        "max_iter": 3,  # of 20 steps
        "random_state": 0,
    }
    scores = {
        anchor: TargetSpaceSequenceClassifier(anchor=anchor, **settings)
        .fit(X, y)
        .score(X, y)
        for anchor in ("auto", "zero")
    }
    assert scores["auto"] > 0.99
    assert scores["zero"] < 0.8


def test_the_first_of_many_steps_is_remembered() -> None:
    X = np.random.default_rng(0).normal(size=(1000, 1, 40))
    y = X[:, 0, 0] > 0
    model = TargetSpaceSequenceClassifier(max_iter=60, random_state=0)
    assert model.fit(X[:500], y[:500]).score(X[500:], y[500:]) > 0.9


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_simple_cells_take_smaller_steps_in_long_runs(cell: str) -> None:
    X = np.random.default_rng(0).normal(size=(450, 1, 5))
    y = X[:, 0, 0] > 0
    rates = []
    for max_iter in (4, 2000):  # of three mini-batches each
        seen = SeesRates()
        estimator = TargetSpaceSequenceClassifier(
            (3,),
            cell=cell,
            max_iter=max_iter,
            callbacks=[seen, Leaves(1)],
            early_stopping=False,
        )
        fit_quietly(estimator, X, y)
        rates += seen.rates
    expected = np.sqrt(1000 / 6000) if cell == "rnn" else 1.0
    assert rates[1] / rates[0] == pytest.approx(expected)
