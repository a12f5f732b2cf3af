"""skorch's callbacks, and scikit-learn's own where it has them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    LRScheduler,
    PrintLog,
    Unfreezer,
)

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceRegressor,
)
from tests.estimators.support import (
    SHORT,
    Dies,
    Keeps,
    assert_same_weights,
    class_data,
    curve_data,
    fit_quietly,
    for_both,
    problem,
)


class Counts(Callback):
    """Counts how often each hook is called."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._count("train_begin")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._count("train_end")

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._count("epoch_begin")

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self._count("epoch_end")

    def on_batch_end(self, *_: Any, training: bool, **__: Any) -> None:
        self._count("batch" if training else "validation_batch")

    def on_grad_computed(self, *_: Any, **__: Any) -> None:
        self._count("gradient")


@for_both
@pytest.mark.parametrize("given_as", ["bare", "named"])
def test_hooks_of_skorch_are_called(kind: type, given_as: str) -> None:
    X, y = problem(kind)
    counts = Counts()
    estimator = kind(
        **SHORT,
        batch_size=30,
        early_stopping=True,
        validation_fraction=1 / 3,
        callbacks=[counts if given_as == "bare" else ("counts", counts)],
    )
    fit_quietly(estimator, X, y)
    assert counts.counts == {
        "train_begin": 1,
        "train_end": 1,
        "epoch_begin": 6,
        "epoch_end": 6,
        "batch": 12,
        "validation_batch": 6,
        "gradient": 12,
    }


@for_both
def test_callbacks_do_not_change_the_fit(kind: type) -> None:
    X, y = problem(kind)
    watched = fit_quietly(kind(**SHORT, callbacks=[Counts()]), X, y)
    assert_same_weights(watched, fit_quietly(kind(**SHORT), X, y))


def scored(kind: type, name: str, caching: bool) -> tuple[Any, Any]:
    """Fit with a scoring callback; give the estimator and the history."""
    keeps = Keeps()
    scoring = EpochScoring(name, lower_is_better=False, use_caching=caching)
    estimator = kind(
        **SHORT,
        early_stopping=True,
        validation_fraction=0.3,
        callbacks=[scoring, keeps],
    )
    return fit_quietly(estimator, *problem(kind)), keeps.history


@for_both
@pytest.mark.parametrize("caching", [False, True])
def test_epoch_scoring(kind: type, caching: bool) -> None:
    name = "accuracy" if kind is TargetSpaceClassifier else "r2"
    estimator, history = scored(kind, name, caching)
    np.testing.assert_allclose(
        history[:, name], estimator.validation_scores_, atol=1e-12
    )
    np.testing.assert_allclose(
        history[:, "valid_loss"], estimator.validation_loss_curve_
    )


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("labels", [[0, 1], [1, 2], ["no", "yes"], [False, True]])
@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc", "average_precision"])
def test_scores_of_classes_by_any_name(name: str, labels: Any, caching: bool) -> None:
    X, y = class_data()
    found = []
    for given in (y, np.array(labels)[y]):
        keeps = Keeps()
        scoring = EpochScoring(name, lower_is_better=False, use_caching=caching)
        estimator = TargetSpaceClassifier(
            **SHORT, early_stopping=True, callbacks=[scoring, keeps]
        )
        fit_quietly(estimator, X, given)
        found.append(keeps.history[:, name])
    assert found[1] == found[0]
    assert max(found[0]) > 0.6


@pytest.mark.parametrize("name", ["roc_auc_ovr", "accuracy", "f1_macro"])
def test_scores_of_several_classes(name: str) -> None:
    keeps = Keeps()
    scoring = EpochScoring(name, lower_is_better=False)
    settings = SHORT | {"early_stopping": True, "validation_fraction": 0.3}
    estimator = TargetSpaceClassifier(**settings, callbacks=[scoring, keeps])
    X, y = class_data(3)
    fit_quietly(estimator, X, np.array(["a", "b", "c"])[y])
    assert max(keeps.history[:, name]) > 0.5


@pytest.mark.parametrize("caching", [False, True])
def test_scores_on_training_rows_that_are_shuffled(caching: bool) -> None:
    X, y = class_data()
    scoring = EpochScoring(
        "accuracy", on_train=True, lower_is_better=False, use_caching=caching
    )
    keeps = Keeps()
    model = TargetSpaceClassifier(
        **SHORT,
        learning_rate_init=0.05,
        batch_size=8,
        early_stopping=False,
        callbacks=[scoring, keeps],
    )
    fit_quietly(model, X, y)
    assert model.score(X, y) > 0.8
    assert keeps.history[-1, "accuracy"] == pytest.approx(model.score(X, y))


@pytest.mark.parametrize("caching", [False, True])
def test_scores_of_probabilities(caching: bool) -> None:
    _, history = scored(TargetSpaceClassifier, "neg_log_loss", caching)
    np.testing.assert_allclose(
        history[:, "neg_log_loss"], np.negative(history[:, "valid_loss"]), 1e-6
    )


@for_both
def test_history_tells_which_epochs_are_the_best(kind: type) -> None:
    keeps = Keeps()
    settings = SHORT | {"learning_rate_init": 0.3, "max_iter": 12}
    estimator = kind(**settings, early_stopping=True, callbacks=[keeps])
    fit_quietly(estimator, *problem(kind))
    for name, sign in [("train_loss", 1), ("valid_loss", 1), ("valid_score", -1)]:
        values = sign * np.array(keeps.history[:, name])
        best = [bool((v < values[:k]).all()) for k, v in enumerate(values)]
        assert keeps.history[:, f"{name}_best"] == best
    assert not all(keeps.history[:, "valid_loss_best"])


@for_both
def test_history_without_validation(kind: type) -> None:
    keeps = Keeps()
    settings = SHORT | {"callbacks": [keeps], "early_stopping": False}
    fit_quietly(kind(**settings), *problem(kind))
    assert keeps.history[0]["train_loss_best"] is True
    assert not any(name.startswith("valid") for name in keeps.history[0])


def test_best_so_far_is_that_of_the_fit() -> None:
    X, y = class_data()
    keeps = Keeps()
    estimator = TargetSpaceClassifier(**SHORT, warm_start=True, callbacks=[keeps])
    fit_quietly(estimator, X, y)
    fit_quietly(estimator, X, 1 - y)  # which it has learnt the opposite of
    now = keeps.history[:, "train_loss"]
    expected = [v < min([np.inf, *now[:k]]) for k, v in enumerate(now)]
    assert keeps.history[:, "train_loss_best"] == expected


def test_best_so_far_counts_what_a_killed_fit_has_seen(tmp_path: Path) -> None:
    X, y = class_data()
    settings = SHORT | {"early_stopping": True, "learning_rate_init": 0.3}
    once, twice = Keeps(), Keeps()
    fit_quietly(TargetSpaceClassifier(**settings, callbacks=[once]), X, y)
    estimator = TargetSpaceClassifier(**settings, checkpoint=tmp_path / "run")
    with pytest.raises(MemoryError):
        fit_quietly(estimator.set_params(callbacks=[Dies(4)]), X, y)
    fit_quietly(estimator.set_params(callbacks=[twice]), X, y)
    for name in ("train_loss_best", "valid_loss_best", "valid_score_best"):
        assert twice.history[:, name] == once.history[:, name]


@for_both
@pytest.mark.parametrize("monitor", ["valid_loss_best", "valid_score_best"])
def test_checkpoint_of_skorch(kind: type, monitor: str, tmp_path: Path) -> None:
    X, y = problem(kind)
    keeps = Keeps()
    kept = Checkpoint(dirname=tmp_path, monitor=monitor, f_pickle=None)
    settings = SHORT | {"learning_rate_init": 0.3, "max_iter": 12}
    settings |= {"early_stopping": True, "callbacks": [keeps, kept]}
    fit_quietly(kind(**settings), X, y)
    files = {"params.pt", "optimizer.pt", "criterion.pt", "history.json"}
    assert {p.name for p in tmp_path.iterdir()} == files
    # The last time that it was written was the last of the best epochs.
    written = json.loads((tmp_path / "history.json").read_text())
    assert [row["epoch"] for row in written if row[monitor]][-1] == len(written)
    assert not any(keeps.history[len(written) :, monitor])


def test_checkpoint_of_skorch_when_training_diverges(tmp_path: Path) -> None:
    X, y = class_data()
    breaks = Breaks(3)
    kept = Checkpoint(dirname=tmp_path, monitor="train_loss_best", f_pickle=None)
    estimator = TargetSpaceClassifier(**SHORT, callbacks=[breaks, kept])
    with pytest.warns(match="Training diverged"):
        estimator.fit(X, y)
    # The epoch that diverged is not the best.
    written = json.loads((tmp_path / "history.json").read_text())
    assert len(written) == len(estimator.loss_curve_) == 3
    assert (tmp_path / "params.pt").exists()


@for_both
def test_what_prints_sees_the_last_epoch_too(kind: type) -> None:
    lines: list[str] = []
    estimator = kind((4,), max_iter=50, tol=10.0, n_iter_no_change=3)
    # Held-out rows would be learnt in epochs of which callbacks know nothing.
    estimator.set_params(early_stopping=False, callbacks=[PrintLog(sink=lines.append)])
    fit_quietly(estimator, *problem(kind))
    assert estimator.n_iter_ < 50
    assert len(lines) == 2 + estimator.n_iter_  # Two lines of heading.


@pytest.mark.parametrize("verbose", [False, True])
def test_callbacks_talk_if_the_estimator_does(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [PrintLog(), EarlyStopping("train_loss", patience=1, threshold=9.0)]
    estimator = TargetSpaceClassifier((4,), verbose=verbose, callbacks=callbacks)
    fit_quietly(estimator, *class_data())
    said = capsys.readouterr().out
    assert ("train_loss" in said) == ("Stopping since" in said) == verbose


class Breaks(Callback):
    """Makes training diverge at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        if len(net.history) == self.epoch:
            with torch.no_grad():
                for parameter in net.module_.parameters():
                    parameter.fill_(np.nan)


@for_both
def test_early_stopping_of_skorch(kind: type) -> None:
    X, y = problem(kind)
    stops = EarlyStopping(
        "train_loss", patience=2, threshold=10.0, threshold_mode="abs", sink=_silent
    )
    estimator = kind(**(SHORT | {"max_iter": 100}), callbacks=[stops])
    estimator.fit(X, y)  # not a warning: whoever stops knows why
    assert estimator.n_iter_ == 3
    assert np.isfinite(estimator.predict(X)).all()


def _silent(_: str) -> None:
    pass


class Fails(Callback):
    def on_epoch_end(self, net: Any, **_: Any) -> None:
        raise RuntimeError("from a callback")


@for_both
def test_failing_callback_leaves_the_estimator_as_it_was(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SHORT), X, y)
    before = estimator.predict(X)
    with pytest.raises(RuntimeError, match="from a callback"):
        estimator.set_params(callbacks=[Fails()]).fit(X + 1, y)
    np.testing.assert_array_equal(estimator.predict(X), before)
    fresh = kind(**SHORT, callbacks=[Fails()])
    with pytest.raises(RuntimeError, match="from a callback"):
        fresh.fit(X, y)
    assert not hasattr(fresh, "n_iter_")


# --- scikit-learn's own ---------------------------------------------------------------


class Records:
    """A callback of scikit-learn's kind."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.calls: list[str] = []
        self.predictions: list[Any] = []

    def setup(self, estimator: Any, context: Any) -> None:
        self.calls.append("setup")

    def teardown(self, estimator: Any, context: Any) -> None:
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(
        self,
        estimator: Any,
        context: Any,
        *,
        X: Any = None,
        fitted_estimator: Any = None,
    ) -> bool:
        self.calls.append(f"end {context.task_name}")
        if context.task_name == "epoch":
            assert not hasattr(estimator, "n_iter_")
            self.predictions.append(fitted_estimator.predict(X))
        return len(self.predictions) == self.stop_at


@for_both
def test_callback_sees_every_epoch(kind: type) -> None:
    pytest.importorskip("sklearn.callback")
    X, y = problem(kind)
    records = Records()
    estimator = fit_quietly(kind(**SHORT).set_callbacks(records), X, y)
    epoch = ["begin epoch", "end epoch"]
    assert records.calls == ["setup", "begin fit", *6 * epoch, "end fit", "teardown"]
    np.testing.assert_array_equal(records.predictions[-1], estimator.predict(X))
    assert_same_weights(estimator, fit_quietly(kind(**SHORT), X, y))


@for_both
def test_callback_stops_training(kind: type) -> None:
    pytest.importorskip("sklearn.callback")
    X, y = problem(kind)
    records = Records(stop_at=2)
    estimator = kind(**SHORT).set_callbacks(records).fit(X, y)
    assert estimator.n_iter_ == 2
    assert records.calls[-2:] == ["end fit", "teardown"]


@for_both
def test_epochs_are_closed_when_another_callback_stops(kind: type) -> None:
    pytest.importorskip("sklearn.callback")
    X, y = problem(kind)
    stops = EarlyStopping("train_loss", patience=2, threshold=10.0, sink=_silent)
    records = Records()
    kind(**SHORT, callbacks=[stops]).set_callbacks(records).fit(X, y)
    assert records.calls.count("begin epoch") == records.calls.count("end epoch")
    assert records.calls[-2:] == ["end fit", "teardown"]


@pytest.mark.parametrize("inside", ["alone", "pipeline", "search"])
def test_scoring_monitor(inside: str) -> None:
    callback = pytest.importorskip("sklearn.callback")
    X, y = class_data()
    estimator = TargetSpaceClassifier(**SHORT)
    monitor = callback.ScoringMonitor(scoring="accuracy")
    estimator.set_callbacks(monitor)
    model: Any = estimator
    if inside != "alone":
        model = make_pipeline(StandardScaler(), estimator)
    if inside == "search":
        grid = {"targetspaceclassifier__lam": [1e-3, 1.0]}
        model = GridSearchCV(model, grid, cv=2, refit=False)
    fit_quietly(model, X, y)
    logs = monitor.get_logs(select="all")
    rows = [row for log in logs for row in log.data if "epoch" in str(row)]
    assert len(rows) == (24 if inside == "search" else 6)
    if inside == "alone":
        assert rows[-1]["accuracy"] == estimator.score(X, y)


@pytest.mark.parametrize("given_as", ["bare", "named"])
def test_a_schedule_of_the_users_replaces_annealing(given_as: str) -> None:
    X, y = class_data()
    stands = LRScheduler("LambdaLR", lr_lambda=lambda _: 0.0)
    estimator = TargetSpaceClassifier((4,), max_iter=8, random_state=0)
    callbacks = [stands if given_as == "bare" else ("mine", stands)]
    estimator.set_params(callbacks=callbacks, early_stopping=False)
    losses = fit_quietly(estimator, X, y).loss_curve_
    assert max(losses) - min(losses) < 0.2 * losses[0]
    fit_quietly(estimator.set_params(callbacks=None), X, y)
    assert estimator.loss_curve_[-1] < min(losses)


def test_scores_of_batches() -> None:
    X, y = class_data()
    scoring = BatchScoring("accuracy", on_train=True)
    seen = []

    class Reads(Callback):
        def on_epoch_end(self, net: Any, **_: Any) -> None:
            seen.append(net.history[-1]["accuracy"])

    estimator = TargetSpaceClassifier(
        **SHORT, batch_size=20, callbacks=[scoring, Reads()]
    )
    fit_quietly(estimator, X, y)
    assert len(seen) == 6
    # The mean over batches of what is measured on outputs before each step.
    assert seen[-1] > seen[0]
    assert seen[-1] == pytest.approx(estimator.score(X, y), abs=0.1)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("space", ["targets", "weights"])
def test_everything_may_be_frozen_for_a_while(solver: str, space: str) -> None:
    X, y = curve_data()
    settings = {"solver": solver, "parameterization": space, "early_stopping": False}
    model = TargetSpaceRegressor(
        (4,), max_iter=6, random_state=0, callbacks=[Freezer("*")], **settings
    )
    fit_quietly(model, X, y)
    assert len(set(model.loss_curve_)) == 1
    model.set_params(callbacks=[Freezer("*"), Unfreezer("*", at=4)])
    fit_quietly(model, X, y)
    assert len(set(model.loss_curve_)) > 1


@pytest.mark.parametrize(
    "schedule",
    [
        LRScheduler("CosineAnnealingLR", T_max=3),
        LRScheduler(torch.optim.lr_scheduler.PolynomialLR, total_iters=4),
    ],
)
def test_lbfgs_takes_no_step_of_length_zero(schedule: LRScheduler) -> None:
    X, y = curve_data()
    model = TargetSpaceRegressor(
        (4,), solver="lbfgs", max_iter=8, random_state=0, callbacks=[schedule]
    )
    assert fit_quietly(model, X, y).score(X, y) > 0


@pytest.mark.parametrize("given_as", ["bare", "named"])
def test_stored_callbacks_hold_no_targets(given_as: str) -> None:
    X, y = class_data(n_samples=2000)
    own = [
        LRScheduler("StepLR", step_size=5),
        EarlyStopping(monitor="train_loss", load_best=True),
    ]
    callbacks = own if given_as == "bare" else (*zip("ab", own, strict=True),)
    settings = {"learning_rate_init": 0.01, "max_iter": 5, "random_state": 0}
    plain = fit_quietly(TargetSpaceClassifier((4,), **settings), X, y)
    with_callbacks = TargetSpaceClassifier((4,), callbacks=callbacks, **settings)
    fit_quietly(with_callbacks, X, y)
    stored = pickle.dumps(with_callbacks)
    assert len(stored) < len(pickle.dumps(plain)) + 5000
    # The user's own stay as they are.
    assert hasattr(own[0], "lr_scheduler_")
    again = pickle.loads(stored)
    assert type(again.callbacks) is type(callbacks)
    np.testing.assert_array_equal(again.predict(X), with_callbacks.predict(X))
    fit_quietly(again, X, y)


@pytest.mark.parametrize("of", ["one output", "two outputs", "steps"])
def test_scorers_of_numpy_get_predictions_like_y(of: str) -> None:
    shapes = []

    def error(net: Any, X: Any, y: Any) -> float:
        found, truth = net.predict(X), np.asarray(y)
        shapes.append((found.shape, truth.shape))
        return float(np.nanmean(np.abs(found - truth)))

    X, y = curve_data()
    settings = SHORT | {"callbacks": [EpochScoring(error, name="error")]}
    kind: Any = TargetSpaceRegressor
    if of == "two outputs":
        y = np.column_stack([y, -y])
    elif of == "steps":
        X = np.random.default_rng(0).normal(size=(90, 1, 5))
        y, kind = X[:, 0], TargetSpaceSequenceRegressor
        settings = {"return_sequences": True, "max_iter": 3} | {
            "callbacks": settings["callbacks"],
            "early_stopping": True,
        }
    fit_quietly(kind(**(settings | {"early_stopping": True})), X, y)
    assert shapes
    assert all(found == truth for found, truth in shapes)


@pytest.mark.parametrize(
    "callback",
    [EarlyStopping(), Checkpoint(), ("saves", Checkpoint(monitor="valid_score_best"))],
)
@pytest.mark.parametrize("settings", [{"early_stopping": False}, {"warm_start": True}])
def test_what_is_not_measured_cannot_be_monitored(
    callback: Any, settings: dict[str, Any]
) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(callbacks=[callback], **settings)
    with pytest.raises(ValueError, match=r"callbacks: .* goes by 'valid_.*_loss'"):
        estimator.fit(X, y)

    with pytest.raises(
        ValueError, match=r"let it go by monitor='train_loss' or, in fit"
    ):
        clone(estimator).set_params(early_stopping="auto").partial_fit(X, y)
