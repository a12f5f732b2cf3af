"""Sequences that are held out by default, and learnt in the end."""

from typing import Any

import numpy as np
import pytest
from skorch.callbacks import LRScheduler

from sktarget import TargetSpaceSequenceClassifier, TargetSpaceSequenceRegressor
from sktarget.estimators import _noise_rules, _runs, _sequence_rules
from sktarget.estimators._retries import OTHER_WEIGHTS
from sktarget.estimators._sequence_choices import SequenceChoices
from sktarget.estimators._sequence_data import find_series
from sktarget.estimators._sequence_rows import SequenceRows
from sktarget.training import TrainingNet
from tests.estimators.sequence_support import (
    as_list,
    as_padded,
    series,
    step_labels,
    tokens,
)
from tests.estimators.support import Array, SeesData, fit_quietly, weights_differ


def classifier(**settings: Any) -> TargetSpaceSequenceClassifier:
    given = {"recurrent_layer_sizes": (6,), "max_iter": 10, "random_state": 0}
    return TargetSpaceSequenceClassifier(**(given | settings))


def windows(n: int, seed: int = 0, length: int = 12) -> tuple[Array, Array]:
    """Make windows of a noisy series, and the number that follows each."""
    rng = np.random.default_rng(seed)
    steps, noise = np.zeros(n + length + 50), rng.normal(size=n + length + 50)
    for t in range(2, len(steps)):
        steps[t] = 0.6 * steps[t - 1] - 0.5 * steps[t - 2] + noise[t]
    view = np.lib.stride_tricks.sliding_window_view(steps[50:], length)[:n]
    return view[:, None], steps[50 + length : 50 + length + n]


@pytest.mark.parametrize(
    ("n", "settings", "held_out"),
    [
        (99, {}, False),
        (100, {}, True),
        (19, {"return_sequences": True}, False),
        (20, {"return_sequences": True}, True),
        (100, {"cell": "gru"}, True),
        (100, {"alpha": 0.1}, True),
        (100, {"warm_start": True}, False),
        (100, {"max_iter": 4}, False),
        (100, {"early_stopping": False}, False),
        (50, {"early_stopping": True}, True),
        (100, {"parameterization": "weights"}, False),
        (100, {"learning_rate": "constant"}, False),
        (100, {"learning_rate_init": 0.01}, False),
        (100, {"learning_rate_init": 0.01, "learning_rate": "annealed"}, True),
        (100, {"callbacks": [LRScheduler("StepLR", step_size=2)]}, False),
        (100, {"fixed_batch_size": 90}, True),
        (100, {"fixed_batch_size": 91}, True),
    ],
)
def test_when_sequences_are_held_out(n: int, settings: Any, held_out: bool) -> None:
    X, y = series(n)
    y = step_labels(X) if settings.get("return_sequences") else y
    model = fit_quietly(classifier(**settings), X, y)
    assert (model.validation_scores_ is not None) == held_out


def test_token_ids_are_held_out_as_well() -> None:
    model = fit_quietly(classifier(vocabulary_size=8), *tokens(120))
    assert len(model.validation_scores_) == 9


def test_they_are_learnt_in_half_as_many_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _sequence_rules.auto_last_sequence_epochs(30, 99) == 15
    assert _sequence_rules.auto_last_sequence_epochs(30, 9) == 9
    assert _sequence_rules.auto_last_sequence_epochs(1, 99) == 0
    tasks = []
    learn_all = _runs.learn_all
    monkeypatch.setattr(
        "sktarget.estimators._estimator.learn_all",
        lambda *given: tasks.append(given[1]) or learn_all(*given),
    )
    model = fit_quietly(classifier(max_iter=40), *series(120))
    assert [(len(t.rows), len(t.held_out), len(t.all_rows)) for t in tasks] == [
        (108, 12, 120)
    ]
    searched = len(model.validation_scores_)
    assert searched == 36
    assert searched < model.n_iter_ <= 40
    assert len(model.loss_curve_) == model.n_iter_
    without = fit_quietly(classifier(early_stopping=True, max_iter=36), *series(120))
    assert weights_differ(model, without)


@pytest.mark.parametrize("of_steps", [False, True])
def test_noise_is_not_learnt_by_heart(of_steps: bool) -> None:
    X, y = windows(1500)
    if of_steps:
        steps = X[:1200, 0, 0].reshape(30, 40)
        X, y = steps[:, None, :-1], steps[:, 1:]
    n = 20 if of_steps else 200
    scores = [
        fit_quietly(
            TargetSpaceSequenceRegressor(
                recurrent_layer_sizes=(30,),
                return_sequences=of_steps,
                early_stopping=early_stopping,
                random_state=0,
            ),
            X[:n],
            y[:n],
        ).score(X[n:], y[n:])
        for early_stopping in ("auto", False)
    ]
    assert scores[0] > 0.25
    assert scores[0] > scores[1] + 0.2


@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_channels_have_their_units_in_the_last_epochs_too(scale: float) -> None:
    X, y = series(240)
    wide = classifier(recurrent_layer_sizes=(20,), max_iter=60)
    model = fit_quietly(wide, scale * X[:120], y[:120])
    assert model.n_iter_ > len(model.validation_scores_)
    assert model.score(scale * X[120:], y[120:]) > 0.9


@pytest.mark.parametrize("form", [as_list, as_padded])
def test_sequences_of_all_lengths_are_held_out(form: Any) -> None:
    X, y = series(120)
    wide = classifier(recurrent_layer_sizes=(20,), max_iter=30)
    model = fit_quietly(wide, form(X), y)
    assert len(model.validation_scores_) == 27
    assert model.score(form(X), y) > 0.9


def test_last_epochs_mix_sequences_in_the_order_of_their_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds: list[int] = []
    step = TrainingNet.train_step_single

    def spy(net: TrainingNet, batch: Any, **kwargs: Any) -> Any:
        kinds.append(len(np.unique(batch[1].numpy())))
        return step(net, batch, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step_single", spy)
    X, y = series(400)
    order = np.argsort(y, kind="stable")
    model = fit_quietly(classifier(batch_size=100), X[order], y[order])
    last = model.n_iter_ - len(model.validation_scores_)
    assert last > 0
    assert kinds == [2] * 4 * model.n_iter_


def echoes(n: int) -> tuple[Array, Array]:
    """Make noise, and that of eight steps before."""
    X, y = np.random.default_rng(0).normal(size=(n, 1, 24)), np.full((n, 24), np.nan)
    y[:, 8:] = X[:, 0, :-8]
    return X, y


def test_the_rule_for_smaller_mini_batches() -> None:
    rule = _sequence_rules.may_be_too_short
    assert [rule(error, 0.6) for error in (0.05, 0.06)] == [False, True]
    assert [rule(0.5, best_at) for best_at in (0.59, 0.6)] == [False, True]
    rows = _sequence_rules.fewer_at_once
    assert [rows(n) for n in (9, 60, 76, 300, 1000)] == [9, 25, 26, 60, 200]


@pytest.mark.parametrize(
    ("n", "settings", "tried"),
    [
        (25, {}, False),
        (26, {}, False),
        (27, {}, True),
        (400, {}, True),
        (401, {}, False),
        (400, {"batch_size": 200}, False),
    ],
)
def test_on_how_many_sequences_they_are_tried(
    n: int, settings: dict[str, Any], tried: bool
) -> None:
    rows = SequenceRows(np.zeros((n, 3, 1), "f4"), np.zeros((n, 1), "f4"))
    assert regressor(**settings)._may_take_fewer(rows) == tried


def test_what_takes_more_steps_is_learnt_in_smaller_mini_batches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    X, y = echoes(300)
    settings = {"cell": "gru", "return_sequences": True, "max_iter": 120}
    given = {"recurrent_layer_sizes": (24,), "random_state": 0, "verbose": True}
    model = TargetSpaceSequenceRegressor(**settings, **given)
    fit_quietly(model, X[:100], y[:100])
    said = capsys.readouterr().out
    assert "trying smaller mini-batches" in said
    assert "By these rows, taking this one" in said
    score = model.score(X[100:], y[100:])
    assert score > 0.9
    # A size that the user gives stays.
    fit_quietly(model.set_params(batch_size=100), X[:100], y[:100])
    assert "smaller" not in capsys.readouterr().out
    assert model.score(X[100:], y[100:]) < score - 0.1
    # So does that of single calls.
    model.set_params(batch_size="auto")
    model._other_rules = {"takes_fewer": True}
    model.partial_fit(X[:100], y[:100])
    rows = SequenceRows(X[:100].transpose(0, 2, 1).copy(), y[:100, None])
    assert model._batch_rows(rows) == 100


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("better", [False, True])
def test_other_weights_are_judged_by_the_steps_that_count(
    numbers: bool, weighted: bool, better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SequenceChoices, "_retries", lambda *_: [OTHER_WEIGHTS])
    monkeypatch.setattr(
        _noise_rules, "needed_share", lambda *_, **__: 1e9 if better else 0.0
    )
    seen: list[Any] = []
    taken: list[bool] = []
    errors, better_of = _runs._held_out_errors, _runs._better_of

    def notes(*given: Any) -> Any:
        best = better_of(*given)
        taken.append(best.network is not given[3].network)
        return best

    def measures(*given: Any) -> Any:
        seen.append(errors(*given))
        return seen[-1]

    monkeypatch.setattr(_runs, "_better_of", notes)
    monkeypatch.setattr(_runs, "_held_out_errors", measures)
    X = as_padded(series(60)[0])
    y = step_labels(np.nan_to_num(X)).astype(float)
    y[np.isnan(X[:, 0])] = np.nan
    kind = TargetSpaceSequenceRegressor if numbers else TargetSpaceSequenceClassifier
    model = kind(
        recurrent_layer_sizes=(6,), return_sequences=True, max_iter=10, random_state=0
    )
    weight = np.linspace(1, 2, 60) if weighted else None
    given = {"n_ignored_steps": 1}
    model.set_params(**given).fit(X, y if numbers else np.nan_to_num(y, nan=-1), weight)
    assert [[e.shape for e in pair] for pair in seen] == [[(1,), (1,)]] * 2
    assert taken == [better]
    assert all(bool(e.isfinite().all()) for pair in seen for e in pair)
    assert model.predict(X).shape == y.shape


def test_copies_go_the_same_way() -> None:
    X, y = windows(150)
    seen = SeesData()
    kind = TargetSpaceSequenceRegressor(
        recurrent_layer_sizes=(20,), random_state=0, callbacks=[seen]
    )
    test = windows(400, seed=1)
    once = fit_quietly(kind, X, y).score(*test)
    twice = fit_quietly(kind, np.tile(X, (2, 1, 1)), np.tile(y, 2)).score(*test)
    assert min(once, twice) > 0.1
    learnt, held_out = (
        {row.numpy().tobytes() for row in data.x} for data in (seen.train, seen.valid)
    )
    assert held_out
    assert not learnt & held_out


def test_constant_steps_are_half_of_annealed_ones() -> None:
    assert _sequence_rules.auto_recurrent_rate("adam", "targets", 0.1, False) == 0.05
    assert _sequence_rules.auto_recurrent_rate("adam", "targets", 0.1, True) == 0.005
    assert _sequence_rules.auto_recurrent_rate("sgd", "targets", 0.1, False) == 0.5
    assert _sequence_rules.auto_recurrent_rate("adam", "weights", 0.1, False) == 0.001


def test_streams_of_sequences_are_learnt_soon() -> None:
    X, y = series(240)
    model = classifier(recurrent_layer_sizes=(20,))
    for start in [0, 60, 120] * 16:
        rows = slice(start, start + 60)
        model.partial_fit(X[rows], y[rows], classes=[0, 1])
    assert model.score(X[180:], y[180:]) > 0.95


def test_last_epochs_that_fail_leave_the_network_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = series(120)
    step, start_from = TrainingNet.train_step_single, SequenceChoices._continued_on
    before: list[Any] = []

    def notes(estimator: Any, network: Any, *given: Any) -> Any:
        before.append([t.detach().clone() for t in network.parameters()])
        return start_from(estimator, network, *given)

    def diverges(net: TrainingNet, *args: Any, **kwargs: Any) -> Any:
        found = step(net, *args, **kwargs)
        if before:
            found["loss"] = found["loss"] * np.nan
        return found

    monkeypatch.setattr(SequenceChoices, "_continued_on", notes)
    monkeypatch.setattr(TrainingNet, "train_step_single", diverges)
    networks = []
    keep = SequenceChoices._fitted_attributes
    monkeypatch.setattr(
        SequenceChoices,
        "_fitted_attributes",
        lambda e, network, *given: networks.append(network) or keep(e, network, *given),
    )
    with pytest.warns(UserWarning, match="could not be learnt in the end"):
        model = classifier().fit(X, y)
    for kept, was in zip(networks[-1].parameters(), before[0], strict=True):
        np.testing.assert_array_equal(kept.detach(), was)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("seed", [0, 2])
def test_windows_that_overlap_do_not_give_each_other_away(seed: int) -> None:
    X, y = windows(1400, seed, length=24)
    settings = {"cell": "gru", "random_state": seed, "recurrent_layer_sizes": (20,)}
    model = fit_quietly(TargetSpaceSequenceRegressor(**settings), X[:400], y[:400])
    # A network that fills the gaps between the others has -0.29.
    assert model.score(X[450:], y[450:]) > 0.15


def test_series_are_found_by_their_windows() -> None:
    rng = np.random.default_rng(0)
    view = np.lib.stride_tricks.sliding_window_view
    two = [view(rng.normal(size=(60, 3)), 12, axis=0) for _ in range(2)]
    by_step = np.concatenate(two).transpose(0, 2, 1)
    found = find_series(by_step)
    assert found is not None
    np.testing.assert_array_equal(found, np.repeat([0, 1], 49))
    for step in (2, 6):
        found = find_series(view(rng.normal(size=400), 12)[::step])
        assert found is not None
        assert not found.any()
    tokens = view(rng.integers(1, 9, 200), 12)
    assert find_series(tokens) is not None
    shuffled = rng.permutation(by_step)
    independent = rng.normal(size=(50, 12, 2))
    padded = by_step.copy()
    padded[:, 8:] = np.nan
    constant = np.repeat(rng.integers(3, size=(50, 1, 1)) * 1.0, 12, axis=1)
    silent = np.where(np.arange(50)[:, None, None] < 46, 0.0, independent)
    for others in (shuffled, independent, padded, by_step[:1]):
        assert find_series(others) is None
    for others in (constant, 0 * constant, silent):
        assert find_series(others) is None


def test_windows_in_class_order_are_judged_by_all_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    view = np.lib.stride_tricks.sliding_window_view
    t = np.arange(71)
    X = np.concatenate(
        [
            view(np.sin(speed * t) + 0.1 * rng.normal(size=71), 12)
            for speed in (0.3, 0.3, 1.5, 1.5)
        ]
    )[:, None]
    X /= X.std()
    y = np.repeat([0, 1], 120)
    tasks = []
    learn_all = _runs.learn_all
    monkeypatch.setattr(
        "sktarget.estimators._estimator.learn_all",
        lambda *given: tasks.append(given[1]) or learn_all(*given),
    )
    model = fit_quietly(classifier(max_iter=40), X, y)
    assert model.score(X, y) > 0.9
    (held_out,) = (task.held_out for task in tasks)
    np.testing.assert_array_equal(np.bincount(held_out.classes), [12, 12])
    ends = X[[59, 119, 179, 239]]
    assert all((held_out.X[..., 0] == end[0]).all(1).any() for end in ends)


# --- Numbers --------------------------------------------------------------------------


def regressor(**settings: Any) -> TargetSpaceSequenceRegressor:
    given = {"recurrent_layer_sizes": (6,), "max_iter": 30, "random_state": 0}
    return TargetSpaceSequenceRegressor(**(given | settings))


def trend(slope: float, length: int = 12) -> tuple[Array, Array]:
    """Make windows of a noisy season beside a trend, and the number that follows."""
    time = np.arange(240)
    noise = 0.3 * np.random.default_rng(0).normal(size=240)
    steps = 50 + slope * time + 3 * np.sin(time / 4) + noise
    view = np.lib.stride_tricks.sliding_window_view(steps, length + 1)
    return view[:, None, :-1], view[:, -1]


@pytest.mark.parametrize(
    ("noisy", "settings", "retried"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"alpha": 0.01}, False),
        (True, {"early_stopping": False}, False),
        (True, {"parameterization": "weights"}, False),
    ],
)
def test_numbers_that_may_be_noise_are_learnt_with_more_decay(
    noisy: bool,
    settings: dict[str, Any],
    retried: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 1, 8))
    y = X[:, 0, -1] + (0.8 if noisy else 0.1) * rng.normal(size=400)
    fit_quietly(regressor(verbose=True, **settings), X, y)
    assert ("trying more alpha" in capsys.readouterr().out) == retried


def test_numbers_take_a_tenth_of_the_weight_decay() -> None:
    X, y = windows(200)
    rows = SequenceRows(X.transpose(0, 2, 1).copy(), y[:, None])
    model = fit_quietly(regressor(max_iter=1), X, y)
    model._other_rules = {}
    assert model._auto_alphas(rows) == pytest.approx((0.06, 0.06))  # 3 · 0.2 / 10
    model._other_rules = {"decays_strongly": True}
    assert model._auto_alphas(rows) == pytest.approx((0.6, 0.6))


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_a_trend_is_warned_of(loss: str) -> None:
    X, y = trend(0.1)
    wanted = "worse than by linear regression .* If the series has a trend"
    with pytest.warns(UserWarning, match=wanted):
        regressor(loss=loss).fit(X, y)
    flag = np.zeros_like(X)  # that is up only in the windows to learn from
    flag[:100] = 1
    several = np.concatenate([X, flag], axis=1), np.c_[y, -y]
    assert fit_quietly(regressor(loss=loss), *several).n_outputs_ == 2
    order = np.random.default_rng(0).permutation(len(X))
    regressor(loss=loss).fit(X[order], y[order])  # no windows to be seen


def test_a_linear_model_is_not_asked_about_other_lengths() -> None:
    X, y = trend(0.1)
    longer, following = trend(0.1, length=15)
    regressor().fit(X[:150], y[:150], X_val=longer[150:], y_val=following[150:])
