"""Numbers for sequences, and for their steps."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from torch import nn

from sktarget import TargetSpaceSequenceRegressor
from sktarget.persistence import load, save
from tests.estimators.sequence_support import (
    SMALL,
    as_list,
    as_padded,
    lengths_of,
    series,
    tokens,
)
from tests.estimators.support import (
    Array,
    SeesData,
    assert_same_weights,
    fit_quietly,
    weights_differ,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, _ = series()
STEPS: dict[str, Any] = {"return_sequences": True, "batch_size": 1000}
# For each form of y: settings, and y itself.
FORMS: dict[str, tuple[dict[str, Any], Array]] = {
    "one": ({}, X[:, 0].mean(axis=1)),
    "two": ({}, X.mean(axis=2)),
    "steps": (STEPS, np.cumsum(X[:, 0], axis=1)),
    "two of steps": (STEPS, np.cumsum(X, axis=2)),
}
for_all_forms = pytest.mark.parametrize("form", FORMS)


def small(**settings: Any) -> TargetSpaceSequenceRegressor:
    return TargetSpaceSequenceRegressor(**(SMALL | settings))


def fitted(X: Any, y: Any, **settings: Any) -> TargetSpaceSequenceRegressor:
    model: TargetSpaceSequenceRegressor = fit_quietly(small(**settings), X, y)
    return model


def cut(y: Array) -> list[Array]:
    """Cut numbers of steps (n, ..., time) to the lengths of `as_list`."""
    return [row[..., :t] for row, t in zip(y, lengths_of(len(y)), strict=True)]


@for_all_forms
def test_predictions_have_the_axes_of_y(form: str) -> None:
    settings, y = FORMS[form]
    model = fitted(X, y, max_iter=60, **settings)
    assert model.predict(X).shape == y.shape
    assert model.n_outputs_ == (2 if "two" in form else 1)
    truth, found = y, model.predict(X)
    if settings:  # one row for each step
        truth, found = (
            np.moveaxis(a.reshape(40, -1, 9), 1, 2).reshape(360, -1)
            for a in (truth, found)
        )
    assert model.score(X, y) == pytest.approx(r2_score(truth, found))
    assert model.score(X, y) > 0.3


def test_later_outputs_of_other_axes_change_no_form() -> None:
    y = FORMS["steps"][1]
    model = fitted(X, y, **FORMS["steps"][0]).partial_fit(X, y[:, None])
    assert model.predict(X).shape == y.shape


@pytest.mark.parametrize("form", ["steps", "two of steps"])
def test_lists_and_padding_are_the_same(form: str) -> None:
    _, y = FORMS[form]
    padded, listed = (
        fitted(as_padded(X), y, **STEPS),
        fitted(as_list(X), cut(y), **STEPS),
    )
    assert_same_weights(padded, listed)
    whole = padded.predict(as_padded(X))
    assert whole.shape == y.shape
    for row, item, t in zip(
        whole, listed.predict(as_list(X)), lengths_of(40), strict=True
    ):
        np.testing.assert_allclose(row[..., :t], item, rtol=0, atol=1e-12)
        assert np.isnan(row[..., t:]).all()
    assert padded.score(as_padded(X), y) == pytest.approx(
        listed.score(as_list(X), cut(y))
    )


def test_marked_steps_do_not_count() -> None:
    y = np.cumsum(X, axis=2)
    marked = y.copy()
    marked[:, :, :3] = np.nan
    in_one = y.copy()
    in_one[:, 1, :3] = np.nan
    ignored = fitted(X, y, n_ignored_steps=3, **STEPS)
    for other in (marked, in_one):
        model = fitted(X, other, **STEPS)
        assert_same_weights(model, ignored)
        assert model.score(X, other) == pytest.approx(ignored.score(X, y))
    assert weights_differ(ignored, fitted(X, y, **STEPS))
    some = y.copy()
    some[::2] = np.nan
    fixed = X[1::2]
    model = fitted(X, some, fixed_batch=fixed, **STEPS)
    assert_same_weights(model, fitted(fixed, y[1::2], fixed_batch=fixed, **STEPS))


@for_all_forms
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_weight_is_repetition(form: str, parameterization: str) -> None:
    settings, y = FORMS[form]
    weight = np.arange(len(X)) % 4
    settings = settings | {
        "parameterization": parameterization,
        "alpha": 0.1,
        "batch_size": 1000,
    }
    ragged = as_padded(X)
    plain, heavy, repeated = (small(**settings) for _ in range(3))
    fit_quietly(plain, ragged, y, sample_weight=np.ones(len(X)))
    assert_same_weights(plain, fitted(ragged, y, **settings), atol=1e-10)
    fit_quietly(heavy, ragged, y, sample_weight=weight)
    order = np.repeat(np.arange(len(X)), weight)
    fit_quietly(repeated, ragged[order], y[order])
    assert_same_weights(heavy, repeated, atol=1e-8)
    assert weights_differ(plain, heavy)
    assert heavy.score(ragged, y, sample_weight=weight) == pytest.approx(
        heavy.score(ragged[order], y[order])
    )


@for_all_forms
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_scale_and_origin_of_y_are_immaterial(form: str, parameterization: str) -> None:
    settings, y = FORMS[form]
    settings = settings | {"parameterization": parameterization}
    scale, origin = (
        (8.0, -32.0)
        if "two" not in form
        else (
            np.array([8.0, 0.5]).reshape(2, *[1] * (y.ndim - 2)),
            np.array([-32.0, 4.0]).reshape(2, *[1] * (y.ndim - 2)),
        )
    )
    plain, scaled = fitted(X, y, **settings), fitted(X, y * scale + origin, **settings)
    np.testing.assert_allclose(
        scaled.predict(X), plain.predict(X) * scale + origin, rtol=0, atol=1e-6
    )


@for_all_forms
def test_pickle_and_files(form: str, tmp_path: Path) -> None:
    settings, y = FORMS[form]
    model = fitted(as_padded(X), y, cell="gru", **settings)
    save(model, tmp_path / "model")
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for again in [*copies, load(tmp_path / "model")]:
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert_same_weights(fit_quietly(clone(model), as_padded(X), y), model)


@for_all_forms
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_fitting_on_is_fitting_at_once(form: str, parameterization: str) -> None:
    settings, y = FORMS[form]
    settings = settings | {"batch_size": 40, "parameterization": parameterization}
    ragged = as_padded(X)
    whole = fitted(ragged, y, **(settings | {"max_iter": 6}))
    halves = small(**(settings | {"max_iter": 3, "warm_start": True}))
    fit_quietly(fit_quietly(halves, ragged, y), ragged, y)
    assert_same_weights(whole, halves, atol=1e-9)
    parts = small(**settings)
    for _ in range(6):
        parts.partial_fit(ragged, y)
    assert_same_weights(whole, parts, atol=1e-9)


def test_targets_are_those_of_the_weights() -> None:
    y = 5 + 3 * np.cumsum(X, axis=2)
    model = fitted(X, y, warm_start=True, max_iter=3, **STEPS)
    shapes = [target.shape for target in model.targets_]
    assert shapes == [(40, 9, 6), (360, 2)]
    # The last layer's targets are numbers of the size of y.
    assert abs(model.targets_[-1].mean() - y.mean()) < y.std()


@pytest.mark.parametrize("form", ["one", "steps"])
def test_early_stopping(form: str) -> None:
    settings, y = FORMS[form]
    seen = SeesData()
    model = fitted(
        as_padded(X),
        y,
        early_stopping=True,
        validation_fraction=0.3,
        callbacks=[seen],
        **(settings | {"max_iter": 15, "learning_rate_init": 0.5}),
    )
    assert len(seen.valid) == 12
    truth = seen.valid.y.numpy()[..., 0]
    truth = truth if settings else truth[:, None]
    held_out = seen.valid.x.numpy().transpose(0, 2, 1)
    assert model.score(held_out, truth if settings else truth[:, 0]) == pytest.approx(
        model.best_validation_score_
    )


@pytest.mark.parametrize("per_step", [False, True])
def test_lbfgs(per_step: bool) -> None:
    settings, y = FORMS["steps" if per_step else "one"]
    model = fitted(as_padded(X), y, **(settings | {"solver": "lbfgs", "max_iter": 30}))
    assert model.score(as_padded(X), y) > 0.5


def test_token_ids() -> None:
    ids, _ = tokens()
    y = (ids == 3).sum(axis=1).astype(float)
    model = fitted(ids, y, vocabulary_size=8, embedding_dim=4, max_iter=200, cell="gru")
    assert model.score(ids, y) > 0.8


def test_grid_search_and_cross_validation() -> None:
    _, y = FORMS["two of steps"]
    search = GridSearchCV(
        small(max_iter=20, **STEPS), {"cell": ["rnn", "gru"], "lam": [0.1, 1.0]}, cv=2
    ).fit(as_list(X), cut(y))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    found = cross_val_predict(small(max_iter=20), X, X.mean(axis=2), cv=KFold(2))
    assert found.shape == (40, 2)


class Own(nn.Module):
    """A network of the user's own."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(n_inputs, 6, batch_first=True)
        self.out = nn.Linear(6, n_outputs)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(self.rnn(x)[0])


def test_module_of_the_users_own() -> None:
    _, y = FORMS["two of steps"]
    model = fitted(X, y, module=Own, max_iter=60, **STEPS)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.3
    with pytest.warns(UserWarning, match="learns it as it is"):
        fitted(X, 1000 * y, module=Own, **STEPS)


BAD: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "none": (X, None, {}, "requires y to be passed"),
    "three axes": (X, np.cumsum(X, axis=2), {}, "set return_sequences=True"),
    "uneven": (X, cut(X[:, 0]), {}, "set return_sequences=True"),
    "too few": (X, X[:9, 0, 0], {}, "inconsistent numbers of samples"),
    "NaN": (X, np.full(40, np.nan), {}, "Input y contains NaN"),
    "words": (X, np.array(["a"] * 40, dtype=object), {}, "could not convert"),
    "no y of steps": (X, None, STEPS, "y is None"),
    "one per sequence": (X, X[:, 0, 0], STEPS, "y must hold numbers for every step"),
    "four axes": (X, X[..., None, None], STEPS, "y must hold numbers for every step"),
    "words of steps": (X, [["a"] * 9] * 40, STEPS, "item 0 of y does not hold numbers"),
    "complex": (X, X[:, 0] + 1j, STEPS, "item 0 of y does not hold numbers"),
    "fewer steps": (X, X[:, 0, :8], STEPS, "8 steps for sequence 0, but X has 9"),
    "too few of steps": (X, X[:9, 0], STEPS, "inconsistent numbers of samples"),
    "infinity": (X, np.where(X > 0, np.inf, X), STEPS, "y contains infinity"),
    "all marked": (X, np.full((40, 9), np.nan), STEPS, "no step of y counts"),
    "unequal outputs": (
        X,
        [X[0, 0], *X[1:]],
        STEPS,
        "every sequence needs as many outputs",
    ),
    "too large": (
        X.astype(np.float32),
        np.full((40, 9), 1e300),
        STEPS,
        "y is too large for float32",
    ),
    "ignored": (X, X[:, 0, 0], {"n_ignored_steps": 2}, "needs return_sequences=True"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_outputs(case: str) -> None:
    given, y, settings, message = BAD[case]
    model = small(**settings)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(given, y)
    assert not hasattr(model, "n_iter_")


def test_other_numbers_of_outputs_later() -> None:
    model = fitted(X, X[:, 0], warm_start=True, **STEPS)
    with pytest.raises(ValueError, match="y has 2 outputs, but the estimator was"):
        model.fit(X, X)
    with pytest.raises(ValueError, match="y has 2 outputs, but the estimator was"):
        model.score(X, X)


def test_foretells_waves_by_default() -> None:
    rng = np.random.default_rng(0)
    phase, speed = rng.uniform(0, 6, (2, 300, 1))
    waves = np.sin(phase + (0.2 + 0.1 * speed) * np.arange(31))
    X, y = waves[:, :-1], waves[:, 1:]
    # The first steps do not tell the speed.
    model = TargetSpaceSequenceRegressor(
        recurrent_layer_sizes=(20,),
        return_sequences=True,
        n_ignored_steps=3,
        random_state=0,
    )
    assert model.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.98


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["rnn", "gru"])
@pytest.mark.parametrize("constant", [1e4, 0.0, 1e-36])
def test_constant_outputs_are_predicted_as_they_are(
    constant: float, cell: str, dtype: str
) -> None:
    X = np.random.default_rng(0).normal(size=(60, 1, 8)).astype(dtype)
    y = np.column_stack([np.full(60, constant), X.sum((1, 2))])
    model = TargetSpaceSequenceRegressor(
        cell=cell, recurrent_layer_sizes=(4,), max_iter=5, random_state=0
    )
    for given in (y, y[:, 0]):
        found = fit_quietly(model, X, given).predict(X).reshape(60, -1)
        np.testing.assert_allclose(found[:, 0], constant, rtol=1e-4, atol=1e-4)
        assert model._output_units[1].dtype == model.coefs_[0].dtype == dtype
