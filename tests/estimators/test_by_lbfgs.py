"""Tables that Adam is too slow for, and that L-BFGS is tried on."""

from typing import Any

import numpy as np
import pytest

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.estimators import _noise_rules, _rules, _runs
from sktarget.estimators._retries import BY_LBFGS
from tests.estimators.support import Array, fit_quietly


def parity(n: int = 150, seed: int = 0) -> tuple[Array, Array]:
    """Make ten bits, and whether the first four of them add up to an odd number."""
    X = np.random.default_rng(seed).integers(0, 2, (n, 10)).astype(float)
    return X, X[:, :4].sum(axis=1).astype(int) % 2


def shells(n: int, seed: int = 0) -> tuple[Array, Array]:
    """Make points in three dimensions, and which of ten shells each is in."""
    X = np.random.default_rng(seed).normal(size=(n, 3))
    radius = np.linalg.norm(X, axis=1)
    return X, np.digitize(radius, np.quantile(radius, np.arange(1, 10) / 10))


def test_the_rule() -> None:
    rule = _noise_rules.may_underfit
    for n_layers, late in ((2, 0.15), (3, 0.15), (4, 0.6)):
        found = [rule(0.5, late + more, 200, n_layers) for more in (-0.01, 0.0, 0.4)]
        assert found == [False, True, True]
    assert [rule(error, 0.9, 200, 2) for error in (0.12, 0.13)] == [False, True]
    assert [rule(error, 0.1, 200, 2) for error in (0.9, 0.91)] == [False, True]
    assert [rule(0.91, 0.9, max_iter, 2) for max_iter in (99, 100)] == [False, True]
    assert _noise_rules.needed_share(0.5, BY_LBFGS.needs) == 0.9


@pytest.mark.parametrize(
    ("rows", "layers", "columns", "of_classes", "of_numbers"),
    [
        (1000, 2, 4, 0.3, 1.0),
        (1000, 2, 3, 0.1, 1.0),
        (1000, 2, 2, 1e-4, 1e-4),
        (100, 8, 5, 0.25, 0.25),
    ],
)
def test_the_weight_decay(
    rows: int, layers: int, columns: int, of_classes: float, of_numbers: float
) -> None:
    rule = _noise_rules.auto_alpha_of_lbfgs
    assert rule(rows, layers, columns, of_numbers=False) == of_classes
    assert rule(rows, layers, columns, of_numbers=True) == of_numbers


def test_parity_of_few_rows_is_learnt(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = parity(1150)
    model = TargetSpaceClassifier(random_state=0, verbose=True)
    fit_quietly(model, X[:150], y[:150])
    assert "trying L-BFGS" in capsys.readouterr().out
    assert model.solver == "adam"
    assert model.score(X[150:], y[150:]) > 0.95
    by_adam = fit_quietly(model.set_params(early_stopping=False), X[:150], y[:150])
    assert by_adam.score(X[150:], y[150:]) < 0.95


def test_what_lies_in_shells_is_learnt() -> None:
    X, y = shells(3500)
    model = fit_quietly(TargetSpaceClassifier(random_state=0), X[:1500], y[:1500])
    # Adam alone reaches 0.6.
    assert model.score(X[1500:], y[1500:]) > 0.8


def test_what_no_noise_blurs_is_told_apart() -> None:
    X = np.random.default_rng(0).normal(size=(3000, 5))
    radius = np.linalg.norm(X, axis=1)
    y = np.digitize(radius, np.quantile(radius, np.arange(1, 5) / 5))
    model = fit_quietly(TargetSpaceClassifier(random_state=0), X[:1000], y[:1000])
    # Adam alone reaches 0.7, whatever its weight decay 0.77.
    assert model.score(X[1000:], y[1000:]) > 0.85


def smooth(n: int) -> tuple[Array, Array]:
    """Make parts of a smooth function of three of eight columns, with some noise."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 8))
    found = X[:, 0] * X[:, 1] + X[:, 2] + 0.2 * rng.normal(size=n)
    return X, np.digitize(found, [-1, -0.3, 0.3, 1])


def test_borders_between_classes_are_smooth() -> None:
    X, y = smooth(3000)
    model = fit_quietly(TargetSpaceClassifier(random_state=0), X[:600], y[:600])
    # With the λ of numbers 0.66, and with as many last epochs as after Adam no more.
    assert model.score(X[600:], y[600:]) > 0.7


@pytest.mark.parametrize(("soon", "tried"), [(0, False), (1000, True)])
def test_few_rows_of_classes_are_tried_soon(
    soon: int,
    tried: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_noise_rules, "FEW_BY_LBFGS", soon)
    # The best epoch is too early for it to be tried elsewhere.
    X, y = smooth(300)
    fit_quietly(TargetSpaceClassifier(random_state=0, verbose=True), X, y)
    assert ("trying L-BFGS" in capsys.readouterr().out) == tried


def test_more_columns_than_rows_fit_everything_already(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 100)), rng.integers(0, 2, 120)
    fit_quietly(TargetSpaceClassifier(random_state=0, verbose=True), X, y)
    assert "trying" not in capsys.readouterr().out.replace("trying more alpha", "")
    fit_quietly(TargetSpaceClassifier(random_state=0, verbose=True), X[:, :50], y)
    assert "trying L-BFGS" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd"},
        {"learning_rate_init": 0.01},
        {"batch_size": 50},
        {"fixed_batch_size": 100},
        {"parameterization": "weights"},
        {"early_stopping": True},
        {"early_stopping": False},
        {"warm_start": True},
    ],
    ids=str,
)
def test_other_settings_ask_for_something_else(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = parity()
    model = TargetSpaceClassifier(**settings, random_state=0, verbose=True)
    fit_quietly(model, X, y)
    assert "L-BFGS" not in capsys.readouterr().out


def test_it_is_not_tried_where_another_run_has_done_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    X, y = parity(400)
    model = TargetSpaceClassifier(random_state=0, verbose=True)
    fit_quietly(model, X, y)
    assert "trying" not in capsys.readouterr().out
    ending = _runs.Ending(None, _runs.Reason.MAX_ITER, held_out_error=0.11, best_at=1.0)
    run: Any = _runs.Run(None, None, ending, None)  # type: ignore[arg-type]
    assert _runs.try_again(model, None, None, run, BY_LBFGS) is run  # type: ignore[arg-type]


@pytest.fixture
def further_runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the settings of all runs but the first."""
    seen, run = [], _runs.run

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[4])
        return run(*args, **kwargs)

    monkeypatch.setattr(_runs, "run", spy)
    return seen


@pytest.mark.parametrize("alpha", ["auto", 0.7])
def test_it_takes_all_rows_and_the_weight_decay_that_was_given(
    alpha: Any, further_runs: list[Any]
) -> None:
    X, y = parity()
    fit_quietly(TargetSpaceClassifier(random_state=0, alpha=alpha), X, y)
    by_lbfgs = [settings for settings in further_runs if settings.solver == "lbfgs"]
    assert by_lbfgs
    for settings in by_lbfgs:
        assert settings.batch_size >= 99
        assert settings.first_alpha in (0.0, settings.alpha)  # It does not fall.
        assert settings.alpha == pytest.approx(0.3 if alpha == "auto" else alpha)


def test_chunks_that_follow_are_learnt_with_next_to_no_weight_decay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = parity()
    model = fit_quietly(TargetSpaceClassifier(random_state=0), X, y)
    assert model._run_rules.by_lbfgs
    seen = []
    settings = TargetSpaceClassifier._settings
    monkeypatch.setattr(
        TargetSpaceClassifier,
        "_settings",
        lambda *given: seen.append(settings(*given)) or seen[-1],
    )
    model.partial_fit(X, y)
    assert [(s.solver, s.alpha) for s in seen] == [("adam", 1e-4)]


def test_training_goes_on_from_its_state() -> None:
    X, y = parity(300)
    model = TargetSpaceClassifier(random_state=0, warm_start=True)
    given = {"X_val": X[150:], "y_val": y[150:]}
    fit_quietly(model, X[:150], y[:150], **given)
    assert model._optimiser_name == "lbfgs"
    before, n = model.score(X[150:], y[150:]), len(model.loss_curve_)
    fit_quietly(model, X[:150], y[:150], **given)
    assert model._optimiser_name == "lbfgs"
    assert len(model.loss_curve_) == n + model.n_iter_
    assert model.score(X[150:], y[150:]) >= before
    fit_quietly(model, X[:150], y[:150], "partial_fit")
    assert model._optimiser_name == "adam"


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd"},
        {"learning_rate_init": 0.01},
        {"learning_rate": "constant"},
        {"batch_size": 50},
    ],
)
def test_later_fits_may_ask_for_something_else(settings: dict[str, Any]) -> None:
    X, y = parity(300)
    model = TargetSpaceClassifier(random_state=0, warm_start=True)
    given = {"X_val": X[150:], "y_val": y[150:]}
    fit_quietly(model, X[:150], y[:150], **given)
    assert model._optimiser_name == "lbfgs"
    fit_quietly(model.set_params(**settings, max_iter=5), X[:150], y[:150])
    assert model._optimiser_name == settings.get("solver", "adam")


def test_as_many_last_epochs_are_reserved_as_the_run_is_long(
    further_runs: list[Any],
) -> None:
    X, y = parity()
    fit_quietly(TargetSpaceClassifier(random_state=0), X, y)
    by_lbfgs, last = (s for s in further_runs if s.solver == "lbfgs")
    assert (by_lbfgs.max_iter, by_lbfgs.reserved) == (200, 40)
    assert last.max_iter <= 40


def test_few_of_them_learn_the_rows_held_out() -> None:
    rule = _noise_rules.auto_last_epochs_by_lbfgs
    assert [rule(best, 40) for best in (1, 4, 9, 100, 200)] == [1, 1, 3, 25, 40]
    X, y = parity()
    model = fit_quietly(TargetSpaceClassifier(random_state=0), X, y)
    assert model._last_epochs(40, 99, True) == 10
    numbers = fit_quietly(TargetSpaceRegressor(max_iter=1), X, X[:, 0])
    numbers._other_rules = {"by_lbfgs": True}
    assert numbers._last_epochs(40, 99, True) == 50


@pytest.mark.parametrize(
    ("unlearnt", "taken", "times"),
    [
        (False, [], [2, 15, 1]),
        (False, ["L-BFGS"], [2, 15, 1]),
        (True, [], [2, 2 / 64, 1, 1]),
        (True, ["L-BFGS"], [2, 2 / 64, 1, 1]),
    ],
)
def test_lam_of_further_runs(
    unlearnt: bool,
    taken: list[str],
    times: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lams: list[float] = []
    begin = TargetSpaceClassifier._new_network

    def notes(self: Any, task: Any) -> Any:
        network = begin(self, task)
        lams.append(self.lam_)
        return network

    monkeypatch.setattr(TargetSpaceClassifier, "_new_network", notes)
    monkeypatch.setattr(_runs, "_does_better", lambda *given: given[4].what in taken)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 4)), rng.integers(0, 2, 500)
    if not unlearnt:
        y = np.digitize(X[:, 0] * X[:, 1] + X[:, 2] + rng.normal(size=500), [-1, 0, 1])
    fit_quietly(TargetSpaceClassifier((9,), max_iter=100, random_state=0), X, y)
    plain = _rules.auto_lam(450, 2)
    assert lams[: len(times)] == pytest.approx(plain * np.array(times))


@pytest.mark.parametrize("partial", [False, True])
def test_calls_between_fits_do_not_end_it(partial: bool) -> None:
    X, y = parity(300)
    model = TargetSpaceClassifier(random_state=0, warm_start=True)
    given = {"X_val": X[150:], "y_val": y[150:]}
    fit_quietly(model, X[:150], y[:150], **given)
    if partial:
        fit_quietly(model, X[:150], y[:150], "partial_fit")
        assert model._optimiser_name == "adam"
    fit_quietly(model, X[:150], y[:150], **given)
    assert model._optimiser_name == "lbfgs"


@pytest.mark.parametrize("most", [120, 150])
def test_it_is_not_tried_on_too_many_rows(
    most: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_noise_rules, "MOST_BY_LBFGS", most)
    X, y = parity()
    fit_quietly(TargetSpaceClassifier(random_state=0, verbose=True), X, y)
    assert ("trying L-BFGS" in capsys.readouterr().out) == (most == 150)


def test_it_is_tried_where_others_go_by_mini_batches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_rules, "MOST_AT_ONCE", 1000)
    X, y = shells(4500)
    model = TargetSpaceClassifier(random_state=0, verbose=True, max_iter=100)
    fit_quietly(model, X[:1500], y[:1500])
    assert "trying L-BFGS" in capsys.readouterr().out
    assert model.score(X[1500:], y[1500:]) > 0.8
