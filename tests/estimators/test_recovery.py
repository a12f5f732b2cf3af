"""Fits that are cut short: killed, interrupted, or without a place to write to."""

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
    _archive,
)
from sktarget.estimators import _estimator, _noise_rules
from tests.estimators.support import (
    ALL_EPOCHS,
    Dies,
    Leaves,
    assert_same_weights,
    class_data,
    fit_quietly,
    for_both,
    problem,
    weights,
)

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6,),
    "batch_size": 20,
    "max_iter": 10,
    "random_state": 0,
    **ALL_EPOCHS,
}


def die(estimator: Any, X: Any, y: Any, epoch: int) -> None:
    with pytest.raises(MemoryError):
        fit_quietly(estimator.set_params(callbacks=[Dies(epoch)]), X, y)
    estimator.set_params(callbacks=None)


def epochs_in(path: Path) -> int:
    return len(_archive.read(path, "checkpoint")["log"]["loss_curve"])


@pytest.mark.parametrize("group", ["target space", "sister algorithms"])
def test_killed_fits_end_as_if_undisturbed(group: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.estimators.killed_fits", str(tmp_path), group],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    fits = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(fits) == 4
    for name, found in (pair for fit in fits for pair in fit.items()):
        assert len(found["epochs kept"]) == 5, name
        assert found["same"], name
        # Nothing is left about but what was asked for.
        assert "checkpoint" in found["files"], name
        assert not any("." in file for file in found["files"]), name
    assert sum(max(f["epochs kept"]) for fit in fits for f in fit.values()) > 10


@for_both
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.usefixtures("global_state_untouched")
def test_at_most_one_epoch_is_lost(kind: type, shuffle: bool, tmp_path: Path) -> None:
    X, y = problem(kind)
    path = tmp_path / "run"
    estimator = kind(**SMALL, shuffle=shuffle, checkpoint=path)
    for epoch, kept in [(4, 3), (1, 3), (5, 7)]:
        die(estimator, X, y, epoch)
        assert epochs_in(path) == kept
        assert not hasattr(estimator, "n_iter_")
    fit_quietly(estimator, X, y)
    undisturbed = fit_quietly(kind(**SMALL, shuffle=shuffle), X, y)
    assert estimator.n_iter_ == 10
    assert estimator.loss_curve_ == undisturbed.loss_curve_
    assert estimator.t_ == undisturbed.t_
    assert_same_weights(estimator, undisturbed)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("what", ["images", "series"])
def test_images_and_sequences_go_on(what: str, solver: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = SMALL | {"solver": solver, "dropout": 0.2}
    y = np.arange(60) % 2
    if what == "images":
        kind: Any = TargetSpaceClassifier
        X = rng.normal(size=(60, 1, 8, 8)).astype("f4")
        settings["conv_layers"] = [(3, 4, 2), (3, 4, None)]
    else:
        kind = TargetSpaceSequenceClassifier
        X = rng.normal(size=(60, 2, 7))
        X[::3, :, 5:] = np.nan
        settings |= {"cell": "gru", "recurrent_layer_sizes": (4,)}
    estimator = kind(**settings, checkpoint=tmp_path / "run")
    die(estimator, X, y, 4)
    assert epochs_in(tmp_path / "run") == 3
    fit_quietly(estimator, X, y)
    undisturbed = fit_quietly(kind(**settings), X, y)
    assert estimator.loss_curve_ == undisturbed.loss_curve_
    np.testing.assert_array_equal(
        estimator.predict_proba(X), undisturbed.predict_proba(X)
    )


def test_a_killed_fit_may_go_on_with_a_smaller_max_iter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = class_data(2, 300)
    settings = {"random_state": 0, "checkpoint": tmp_path / "run", "verbose": True}
    estimator = TargetSpaceClassifier((6,), max_iter=40, **settings)
    die(estimator, X, y, 21)
    fit_quietly(estimator.set_params(max_iter=10), X, y)
    assert estimator.n_iter_ == len(estimator.loss_curve_) == 20
    assert "Going on" not in capsys.readouterr().out


@for_both
def test_last_epochs_begin_anew(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written while rows that were held out are learnt in the end."""
    X, y = class_data(2, 300)
    path = tmp_path / "run"
    undisturbed = fit_quietly(kind((6,), max_iter=40, random_state=0), X, y)
    estimator = kind((6,), max_iter=40, random_state=0, checkpoint=path)
    with monkeypatch.context() as patch:
        patch.setattr(_noise_rules, "auto_last_epochs", _die)
        with pytest.raises(MemoryError):
            fit_quietly(estimator, X, y)
    assert epochs_in(path) == len(undisturbed.validation_scores_)
    fit_quietly(estimator, X, y)
    assert estimator.loss_curve_ == undisturbed.loss_curve_
    assert estimator.n_iter_ > len(estimator.validation_scores_)
    assert_same_weights(estimator, undisturbed)
    # So does a fit that had finished: for these epochs alone.
    again, stored = [], path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(_estimator, "learn_all", _counted(_estimator.learn_all, again))
        fit_quietly(estimator, X, y)
    assert len(again) == 1
    assert estimator.loss_curve_ == undisturbed.loss_curve_
    assert_same_weights(estimator, undisturbed)
    assert path.read_bytes() == stored


def _counted(call: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    def called(*given: Any) -> Any:
        calls.append(given)
        return call(*given)

    return called


def _die(*_: Any, **__: Any) -> int:
    raise MemoryError


@for_both
def test_what_has_ended_is_only_read(kind: type, tmp_path: Path) -> None:
    X, y = problem(kind)
    settings = SMALL | {"checkpoint": tmp_path / "run"}
    first = fit_quietly(kind(**settings), X, y)
    # It would fail in the first mini-batch of all.
    second = fit_quietly(kind(**settings, callbacks=[Dies(1)]), X, y)
    assert_same_weights(first, second)
    # More epochs may be asked for; an annealed step would have been another before.
    more = {"max_iter": 15, "learning_rate": "constant"}
    settings = SMALL | {"checkpoint": tmp_path / "more", "learning_rate": "constant"}
    fit_quietly(kind(**settings), X, y)
    longer = fit_quietly(kind(**(settings | more)), X, y)
    plain = fit_quietly(kind(**(SMALL | more)), X, y)
    assert_same_weights(longer, plain)
    assert longer.loss_curve_ == plain.loss_curve_


def test_reason_to_stop_is_kept(tmp_path: Path) -> None:
    X, y = class_data()
    settings = SMALL | {"tol": 0.5, "n_iter_no_change": 2, "early_stopping": False}
    plain = TargetSpaceClassifier(**settings).fit(X, y)
    assert plain.n_iter_ < 10
    kept = TargetSpaceClassifier(**settings, checkpoint=tmp_path / "run")
    for _ in range(2):  # without a warning that max_iter was reached
        assert kept.fit(X, y).n_iter_ == plain.n_iter_
        assert_same_weights(kept, plain)


def test_draws_of_the_first_process_are_kept(tmp_path: Path) -> None:
    X, y = class_data()
    settings: dict[str, Any] = SMALL | {"early_stopping": True, "dropout": 0.3}
    for random_state in (None, np.random.RandomState(0)):
        settings |= {"random_state": random_state, "checkpoint": tmp_path / "run"}
        killed = TargetSpaceClassifier(**settings)
        die(killed, X, y, 5)
        log = _archive.read(tmp_path / "run", "checkpoint")["log"]
        fit_quietly(killed, X, y)
        assert killed.loss_curve_[:4] == log["loss_curve"].tolist()
        assert len(killed.validation_scores_) == 10
        (tmp_path / "run").unlink()
    plain = TargetSpaceClassifier(
        **(settings | {"random_state": np.random.RandomState(0), "checkpoint": None})
    )
    assert_same_weights(killed, fit_quietly(plain, X, y))


@for_both
@pytest.mark.parametrize("place", ["run", "new/folders/run", "."])
def test_places(kind: type, place: str, tmp_path: Path) -> None:
    X, y = problem(kind)
    fit_quietly(kind(**SMALL, checkpoint=str(tmp_path / place)), X, y)
    file = tmp_path / ("checkpoint.npz" if place == "." else place)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [file]


def test_what_killed_fits_have_left_is_removed(tmp_path: Path) -> None:
    for name in ("run.0123456789ab.part", "run.probe"):
        (tmp_path / name).write_text(name)
    fit_quietly(
        TargetSpaceClassifier(**SMALL, checkpoint=tmp_path / "run"), *class_data()
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.probe"]
    assert (tmp_path / "run.probe").read_text() == "run.probe"


def test_warm_start_goes_on_with_one_file(tmp_path: Path) -> None:
    X, y = class_data()
    settings = SMALL | {"warm_start": True}
    twice = TargetSpaceClassifier(**settings, checkpoint=tmp_path / "run")
    fit_quietly(twice, X, y)
    die(twice, X, y, 4)
    assert epochs_in(tmp_path / "run") == 13
    fit_quietly(twice, X, y)
    once = fit_quietly(TargetSpaceClassifier(**(settings | {"max_iter": 20})), X, y)
    assert_same_weights(twice, once)
    assert twice.n_iter_ == 10
    # One step at a time has no use for a file.
    (tmp_path / "run").unlink()
    twice.partial_fit(X, y)
    assert not (tmp_path / "run").exists()


def test_warm_start_goes_on_after_a_callback_has_ended_a_fit(tmp_path: Path) -> None:
    X, y = class_data()
    settings = SMALL | {"warm_start": True}
    estimator = TargetSpaceClassifier(**settings, checkpoint=tmp_path / "run")
    fit_quietly(estimator.set_params(callbacks=[Leaves(4)]), X, y)
    other = TargetSpaceClassifier(**settings)
    fit_quietly(other.set_params(callbacks=[Leaves(4)]), X, y)
    for model in (estimator, other):
        fit_quietly(model.set_params(callbacks=None), X, y)
    assert len(estimator.loss_curve_) == 14
    assert_same_weights(estimator, other)


def test_warm_start_goes_on_after_an_interrupt_in_the_first_epoch(
    tmp_path: Path,
) -> None:
    class Interrupts(Callback):  # type: ignore[misc]
        def on_batch_begin(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

    X, y = class_data()
    settings = SMALL | {"warm_start": True, "checkpoint": tmp_path / "run"}
    die(TargetSpaceClassifier(**settings), X, y, 4)
    estimator = TargetSpaceClassifier(**settings, callbacks=[Interrupts()])
    fit_quietly(estimator, X, y)
    assert len(estimator.loss_curve_) == 3
    # What is left to do is up to the estimator now, not to the file.
    fit_quietly(estimator.set_params(callbacks=None), X, y)
    assert len(estimator.loss_curve_) == 13


def test_a_checkpoint_that_is_removed_meanwhile(tmp_path: Path) -> None:
    class Removes(Leaves):
        def on_train_end(self, *_: Any, **__: Any) -> None:
            (tmp_path / "run").unlink()

    estimator = TargetSpaceClassifier(**SMALL, checkpoint=tmp_path / "run")
    fit_quietly(estimator.set_params(callbacks=[Removes(4)]), *class_data())
    assert estimator.n_iter_ == 4


def test_divergence_is_told_again(tmp_path: Path) -> None:
    class Spoils(Leaves):
        def on_epoch_end(self, net: Any, **_: Any) -> None:
            if len(net.history) == self.epoch:
                with torch.no_grad():
                    next(net.module_.parameters()).fill_(np.nan)

    settings = SMALL | {"checkpoint": tmp_path / "run", "callbacks": [Spoils(4)]}
    estimator = TargetSpaceClassifier(**settings)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match=r"diverged .* best epoch is kept"):
            estimator.fit(*class_data())
        assert estimator.n_iter_ == 4


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lam": 0.5}, "lam was 'auto' and is 0.5"),
        ({"hidden_layer_sizes": (7,)}, r"hidden_layer_sizes was \(6\) and is \(7\)"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"class_weight": {0: 2.0}}, "class_weight was None"),
        ({"warm_start": True}, "warm_start was False and is True"),
        ({"fixed_batch": np.zeros((3, 4))}, "fixed_batch was 'sample' and is an array"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_parameters_are_refused(
    change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    X, y = class_data()
    settings = SMALL | {"checkpoint": tmp_path / "run"}
    die(TargetSpaceClassifier(**settings), X, y, 3)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(ValueError, match=f"run' belongs to another fit: {match}"):
        TargetSpaceClassifier(**(settings | change)).fit(X, y)
    assert (tmp_path / "run").read_bytes() == before


def test_other_rows_held_out_are_refused(tmp_path: Path) -> None:
    X, y = class_data()
    settings = {"random_state": 0, "checkpoint": tmp_path / "run"}
    estimator = TargetSpaceClassifier((4,), max_iter=4, **settings)
    die(estimator, X, y, 3)
    match = "another fit: rows held out was 0 and is 30. Remove the file"
    with pytest.raises(ValueError, match=match):
        estimator.set_params(max_iter=40).fit(X, y)


def test_other_data_are_refused(tmp_path: Path) -> None:
    X, y = class_data()
    settings = SMALL | {"checkpoint": tmp_path / "run"}
    fitted = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    before = weights(fitted)
    fitted.set_params(checkpoint=tmp_path / "run")
    die(TargetSpaceClassifier(**settings), X, y, 3)
    weight = np.linspace(1, 2, len(y))
    for data in [(X + 1e-9, y), (X, 1 - y), (X[:-1], y[:-1]), (X, y, weight)]:
        with pytest.raises(ValueError, match=r"another training set\. Remove the file"):
            fitted.fit(*data)
    with pytest.raises(ValueError, match="estimator was TargetSpaceClassifier and"):
        TargetSpaceRegressor(**settings).fit(X, y)
    for a, b in zip(before, weights(fitted), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("damage", ["cut", "foreign", "model"])
def test_damaged_and_foreign_files_are_refused(damage: str, tmp_path: Path) -> None:
    from sktarget.persistence import save

    X, y = class_data()
    path = tmp_path / "run"
    estimator = TargetSpaceClassifier(**SMALL, checkpoint=path)
    fit_quietly(estimator, X, y)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "foreign":
        path.write_text("some notes")
    else:
        save(estimator, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint.*run'.*Remove it"):
        estimator.fit(X, y)
    assert path.read_bytes() == before


def test_other_versions_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(**SMALL, checkpoint=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("sktarget.training._checkpoint.__version__", "0.0.7")
        die(estimator, X, y, 3)
    with pytest.warns(UserWarning, match=r"was written by sktarget 0\.0\.7"):
        fit_quietly(estimator, X, y)


# --- no place to write ----------------------------------------------------------------


@for_both
def test_unwritable_path_is_told_at_once(kind: type, tmp_path: Path) -> None:
    X, y = problem(kind)
    (tmp_path / "file").write_text("in the way")
    seen = []

    class Sees(Callback):
        def on_epoch_begin(self, net: Any, **_: Any) -> None:
            seen.append(len(caught.list))

    estimator = kind(**SMALL, checkpoint=tmp_path / "file" / "run", callbacks=[Sees()])
    with pytest.warns(UserWarning, match="run' cannot be written.*goes on") as caught:
        fit_quietly(estimator, X, y)
    assert len(caught) == 1
    assert seen == [1] * 10
    assert_same_weights(estimator, fit_quietly(kind(**SMALL), X, y))


@for_both
def test_full_disk_does_not_end_the_run(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = problem(kind)
    calls = iter(range(100))
    fsync = os.fsync

    def full(descriptor: int) -> None:
        # The first one tries the path; then come three epochs.
        if next(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    estimator = kind(**SMALL, checkpoint=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(UserWarning, match="No space left on device") as caught:
            fit_quietly(estimator, X, y)
    assert len(caught) == 1
    assert estimator.n_iter_ == 10
    assert_same_weights(estimator, fit_quietly(kind(**SMALL), X, y))
    assert epochs_in(tmp_path / "run") == 3
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


# --- Ctrl-C ---------------------------------------------------------------------------


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.usefixtures("global_state_untouched")
def test_ctrl_c_keeps_the_state_so_far(
    kind: type,
    parameterization: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"parameterization": parameterization, "max_iter": 10**6}
    path = tmp_path / "run"
    estimator = kind(**settings, checkpoint=path)
    fit_quietly(kind(**SMALL), X, y)  # so that what torch imports late is there
    rings: list[int] = []
    write = _archive.write

    def write_and_wind_up(*args: Any) -> None:
        write(*args)
        monkeypatch.setattr(_archive, "write", write)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 5.0)

    def ring(number: int, frame: Any) -> None:
        rings.append(number)
        # Not by SIGINT itself, which background processes may ignore.
        signal.default_int_handler(number, frame)

    # In the middle of anything at all after the first epoch, as the key would; again,
    # were it to be lost.
    before = signal.signal(signal.SIGALRM, ring)
    monkeypatch.setattr(_archive, "write", write_and_wind_up)
    with warnings.catch_warnings():
        # It may ring between the opening of the file and the `with` that closes it.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with pytest.warns(UserWarning, match=r"interrupted after \d+ epochs; the "):
                estimator.fit(X, y)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
    assert len(rings) == 1
    assert np.isfinite(estimator.predict(X)).all()
    assert len(estimator.loss_curve_) in (estimator.n_iter_, 0)
    # The file goes on as if nothing had been.
    epochs = epochs_in(path)
    assert estimator.n_iter_ - epochs in (0, 1)
    more = settings | {"max_iter": epochs + 5}
    undisturbed = fit_quietly(kind(**more), X, y)
    gone_on = fit_quietly(kind(**more, checkpoint=path), X, y)
    assert_same_weights(undisturbed, gone_on)


def wide_module(n_inputs: int, n_outputs: int, *, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(n_inputs, width), nn.Tanh(), nn.Linear(width, n_outputs)
    )


@pytest.mark.parametrize("form", ["partial", "lambda"])
def test_another_module_of_the_same_name_is_refused(form: str, tmp_path: Path) -> None:
    def module(width: int) -> Any:
        if form == "partial":
            return partial(wide_module, width=width)
        return lambda n, k: wide_module(n, k, width=width)

    X, y = class_data()
    settings = {"checkpoint": tmp_path / "run", "random_state": 0, "max_iter": 6}
    dies = TargetSpaceClassifier(module=module(5), callbacks=[Dies(3)], **settings)
    with pytest.raises(MemoryError):
        dies.fit(X, y)
    other = TargetSpaceClassifier(module=module(7), **settings)
    match = {
        "partial": r"another fit: module was partial\(wide_module, .*5.*7",
        "lambda": r"another network: .* had the shape \(.*Remove the file",
    }[form]
    with pytest.raises(ValueError, match=match):
        other.fit(X, y)
    fit_quietly(TargetSpaceClassifier(module=module(5), **settings), X, y)
