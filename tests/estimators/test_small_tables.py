"""Defaults on few rows, and on functions of few columns."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.datasets import make_two_spirals
from sktarget.estimators import _noise_rules, _rules
from sktarget.training import TrainingNet
from tests.estimators.support import Array, fit_quietly


def test_rows_to_hold_out_are_enough_to_judge_by() -> None:
    found = [_noise_rules.auto_held_out(n) for n in (30, 60, 119, 120, 400, 5000)]
    assert found == [10, 20, 39, 40, 40, 40]


@pytest.mark.parametrize("hidden", [(50, 50), (28,) * 6, (28,) * 16])
def test_what_bends_often_is_learnt(hidden: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).uniform(-1, 1, (1500, 1))
    y = np.sin(10 * X[:, 0])
    model = TargetSpaceRegressor(hidden, random_state=0)
    fit_quietly(model, X[:1000], y[:1000])
    assert model.score(X[1000:], y[1000:]) > 0.98


@pytest.mark.parametrize("n", [40, 100, 199])
@pytest.mark.parametrize("hidden", [(50,), (20, 20, 20)])
def test_noise_on_few_rows_is_not_memorised(n: int, hidden: tuple[int, ...]) -> None:
    scores = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        X = random.normal(size=(n + 1000, 8))
        y = X[:, 0] + X[:, 1] + 1.5 * random.normal(size=len(X))
        model = fit_quietly(TargetSpaceRegressor(hidden, random_state=0), X[:n], y[:n])
        scores.append([model.score(X[:n], y[:n]), model.score(X[n:], y[n:])])
    known, new = np.median(scores, axis=0)
    # A constant has 0, and no model can have more than 0.47.
    assert new > 0.2
    assert known < 0.85


def test_stopping_waits_until_something_is_learnt() -> None:
    X, y = make_two_spirals(200, random_state=0)
    X_test, y_test = make_two_spirals(500, random_state=1)
    settings: dict[str, Any] = {"hidden_layer_sizes": (28,) * 6, "random_state": 0}
    patient = fit_quietly(TargetSpaceClassifier(**settings), X, y)
    assert patient.score(X_test, y_test) > 0.95
    # As many epochs without progress as are counted once something has been.
    hasty = TargetSpaceClassifier(**settings, n_iter_no_change=30)
    fit_quietly(hasty, X, y)
    assert hasty.n_iter_ < patient.n_iter_


def test_few_epochs_where_they_do() -> None:
    def epochs(n: int, n_layers: int, numbers: bool, holds_out: bool) -> int:
        return _noise_rules.auto_epochs(
            n, 200, shallow=n_layers <= 2, of_numbers=numbers, holds_out=holds_out
        )

    # One hidden layer learns classes soon, but not from a handful of rows.
    assert [epochs(n, 2, False, True) for n in (99, 100, 199, 200)] == [
        200,
        22,
        34,
        200,
    ]
    assert epochs(150, 3, False, True) == epochs(150, 2, True, True) == 200
    # Nothing else stops these.
    easy = [epochs(n, 2, False, False) for n in (20, 29, 30, 199, 200)]
    assert easy == [100, 100, 13, 34, 200]
    assert [epochs(n, 5, False, False) for n in (20, 199, 200)] == [100, 100, 200]
    assert [epochs(n, 5, True, False) for n in (20, 199, 200)] == [45, 89, 200]


def test_a_handful_of_numbers_is_not_memorised() -> None:
    def alpha(
        n: int, n_layers: int, n_columns: int = 5, of_numbers: bool = True
    ) -> float:
        return _noise_rules.auto_alpha_of_few(
            n, n_layers, n_columns, of_numbers=of_numbers
        )

    assert [alpha(n, 2) for n in (5, 14, 29)] == [25 / 700, 0.28, 1.0]
    assert alpha(28, 4) == 2 * alpha(28, 8)
    assert alpha(29, 2, n_columns=2) == alpha(0, 2) == 1e-4
    assert alpha(9, 2, of_numbers=False) == alpha(29, 2, of_numbers=False) == 1
    assert alpha(20, 2, n_columns=2, of_numbers=False) == 0.1
    assert alpha(14, 3, of_numbers=False) == 1e-4
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 8))
    y = X[:, 0] + rng.normal(size=500)
    few = X[:29], y[:29]
    score = fit_quietly(TargetSpaceRegressor(random_state=0), *few).score(X, y)
    heedless = TargetSpaceRegressor(random_state=0, alpha=1e-4)
    assert score > 0.2 + fit_quietly(heedless, *few).score(X, y)
    # Noise-free numbers of one column are learnt all the same.
    line = np.linspace(-1, 1, 20)[:, None]
    model = fit_quietly(TargetSpaceRegressor(random_state=0), line, line[:, 0])
    assert model.score(line, line[:, 0]) > 0.999


@pytest.mark.parametrize("depth", [1, 3])
def test_a_handful_of_classes_is_told_apart(depth: int) -> None:
    X, y = load_iris(return_X_y=True)
    scores = []
    for seed in range(3):
        random = np.random.RandomState(seed)
        rows = np.concatenate([random.choice(50, 8, False) + 50 * k for k in range(3)])
        model = TargetSpaceClassifier((20,) * depth, random_state=seed)
        scores.append(fit_quietly(model, X[rows], y[rows]).score(X, y))
    assert np.mean(scores) > 0.9


def ripples(n: int = 1000, seed: int = 21) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    X = random.uniform(-2, 2, (n, 2))
    return X, np.sin(4 * X[:, 0]) * np.cos(3 * X[:, 1])


class Epochs(Callback):
    """Counts the epochs that callbacks see."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.n, self.runs = 0, getattr(self, "runs", 0) + 1

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.n += 1


STUBBORN: dict[str, Any] = {"hidden_layer_sizes": (28,) * 6, "max_iter": 40}


def test_what_has_learnt_nothing_is_tried_again_with_less_lam(
    capsys: pytest.CaptureFixture[str],
) -> None:
    X, y = ripples()
    seen = Epochs()
    model = TargetSpaceRegressor(
        **STUBBORN, random_state=0, callbacks=[seen], verbose=True
    )
    fit_quietly(model, X, y)
    out = capsys.readouterr().out
    assert "trying less lam" in out
    assert "more alpha" not in out  # The network is deep.
    first = _rules.auto_lam(900, 7, n_columns=2)
    assert model.lam_ == pytest.approx(first * _noise_rules.LAM_OF_SECOND_TRY, rel=0.2)
    assert (seen.runs, seen.n) == (1, 32)
    assert model.n_iter_ == len(model.loss_curve_) <= 40
    assert model.score(X, y) > 0.3
    # A λ of the user's own is kept.
    own = fit_quietly(TargetSpaceRegressor(**STUBBORN, random_state=0, lam=first), X, y)
    assert own.lam_ == first
    assert own.score(X, y) < 0.1
    # The next fit begins as the first one did.
    again = fit_quietly(model.set_params(hidden_layer_sizes=(50, 50)), X, X[:, 0])
    assert again.lam_ == pytest.approx(_rules.auto_lam(1000, 3, n_columns=2))


def test_the_first_try_stays_if_the_second_is_no_better() -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(100, 5)), random.normal(size=100)
    settings: dict[str, Any] = {"max_iter": 30, "random_state": 0}
    model = fit_quietly(TargetSpaceRegressor((10, 10, 10), **settings), X, y)
    errors = {}
    for lam in ("auto", model.lam_ / 64, model.lam_ * 64):
        other = TargetSpaceRegressor((10, 10, 10), lam=lam, **settings)
        errors[lam] = min(fit_quietly(other, X, y).validation_loss_curve_)
    assert min(model.validation_loss_curve_) == errors["auto"] <= min(errors.values())


@pytest.mark.parametrize("kind", [TargetSpaceClassifier, TargetSpaceRegressor])
def test_noise_is_met_with_more_weight_decay(
    kind: type, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(2700, 20))
    y = X[:, 0] * X[:, 1] + 0.3 * random.normal(size=len(X))
    y = y > 0 if kind is TargetSpaceClassifier else y
    # In fewer than 100 epochs L-BFGS is not tried.
    settings = {"hidden_layer_sizes": (50,), "random_state": 0, "max_iter": 99}
    seen = Epochs()
    model = kind(**settings, verbose=True, callbacks=[seen])
    fit_quietly(model, X[:700], y[:700])
    assert "trying more alpha" in capsys.readouterr().out
    assert seen.runs == 1
    strong = fit_quietly(
        kind(**settings, alpha=_noise_rules.STRONG_ALPHA), X[:700], y[:700]
    )
    weak = fit_quietly(kind(**settings, alpha=1e-4), X[:700], y[:700])
    # What is taken is the run with more, or one that did better by the rows held out.
    least = [min(m.validation_loss_curve_) for m in (model, strong, weak)]
    assert least[0] <= 1.1 * min(least)
    assert model.score(X[700:], y[700:]) > weak.score(X[700:], y[700:]) + 0.02
    # A weight decay of the user's own is kept.
    given = kind(**settings | {"max_iter": 5}, alpha=0.1, verbose=True)
    fit_quietly(given, X[:700], y[:700])
    assert "more alpha" not in capsys.readouterr().out


def test_clean_tables_are_learnt_at_the_first_try(
    capsys: pytest.CaptureFixture[str],
) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 4))
    y = X[:, 0] + np.sin(X[:, 1])
    fit_quietly(TargetSpaceRegressor((30,), random_state=0, verbose=True), X, y)
    assert "trying" not in capsys.readouterr().out


def test_an_interrupt_in_the_second_try_ends_the_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = ripples()
    model = TargetSpaceRegressor(**STUBBORN, random_state=0)
    begun: list[float] = []
    step = TrainingNet.train_step_single

    def interrupted(net: TrainingNet, *args: Any, **kwargs: Any) -> Any:
        lam = float(np.mean(net.module_.lam))
        begun.append(lam)
        if lam < begun[0] and begun.count(lam) == 3:
            raise KeyboardInterrupt
        return step(net, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step_single", interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        fit_quietly(model, X, y)
    # Neither more of the second try, nor epochs on all rows.
    assert len(begun) == 32 + 3
    assert model.n_iter_ == 32
    assert model.lam_ == pytest.approx(begun[0])


@pytest.mark.parametrize("fails", ["at once", "later"])
def test_a_second_try_that_fails_leaves_no_trace(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = ripples()
    settings: dict[str, Any] = STUBBORN | {"random_state": 0, "tol": 1e-9}
    step, lams = TrainingNet.train_step_single, []

    def diverges(net: TrainingNet, *args: Any, **kwargs: Any) -> Any:
        lam = float(np.mean(net.module_.lam))
        lams.append(lam)
        found = step(net, *args, **kwargs)
        second = lam < lams[0] and len(lams) < 40
        if second and (fails == "at once" or lams.count(lam) == 3):
            found["loss"] = found["loss"] * np.nan
        return found

    monkeypatch.setattr(TrainingNet, "train_step_single", diverges)
    model = TargetSpaceRegressor(**settings)
    with pytest.warns(ConvergenceWarning) as told:
        model.fit(X, y)
    assert [str(w.message)[:18] for w in told] == ["Maximum iterations"]
    assert len(set(lams)) > 1
    assert model.n_iter_ > 32  # The last epochs, on all rows, come all the same.
    assert model.lam_ == pytest.approx(lams[0], rel=0.2)


def test_where_nothing_is_learnt_the_best_epoch_is_known() -> None:
    random = np.random.default_rng(1)
    X, y = random.normal(size=(300, 5)), random.normal(size=300)
    model = fit_quietly(TargetSpaceRegressor((20, 20), random_state=0), X, y)
    n_judged = len(model.validation_scores_)
    best = int(np.argmin(model.validation_loss_curve_)) + 1
    assert n_judged == 160
    # Half as many as led to the best epoch, or all, and ten; the validation loss is
    # that before a step.
    assert model.n_iter_ - n_judged <= 10 + best


def test_all_epochs_may_be_asked_for_with_few_rows() -> None:
    X, y = load_iris(return_X_y=True)
    few = X[::10], y[::10]
    model = TargetSpaceClassifier((5,), n_iter_no_change=np.inf, random_state=0)
    assert model.fit(*few).n_iter_ == 200
    assert TargetSpaceClassifier((5,), random_state=0).fit(*few).n_iter_ == 100


@pytest.mark.parametrize("when", ["another run", "last epochs"])
def test_an_interrupt_between_runs_keeps_the_run_before(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = ripples(300)
    model = TargetSpaceRegressor(**STUBBORN, random_state=0)
    begin, calls = TargetSpaceRegressor._new_network, []

    def interrupted(*given: Any) -> Any:
        calls.append(given)
        if when == "last epochs" or len(calls) == 2:
            raise KeyboardInterrupt
        return begin(*given)

    name = "_new_network" if when == "another run" else "_continued_on"
    monkeypatch.setattr(TargetSpaceRegressor, name, interrupted)
    with pytest.warns(UserWarning, match="Training was interrupted"):
        fit_quietly(model, X, y)
    assert np.isfinite(model.predict(X)).all()
    assert model.n_iter_ == len(model.validation_scores_)
