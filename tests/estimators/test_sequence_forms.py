"""All forms in which sequences come mean the same, and come back as they came."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sktarget import TargetSpaceSequenceClassifier
from tests.estimators.sequence_support import (
    as_list,
    as_padded,
    fitted,
    lengths_of,
    series,
    small,
    step_labels,
    tokens,
)
from tests.estimators.support import assert_same_weights, fit_quietly

LABELS = np.array(["rest", "rise"])


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_lists_and_padding_are_the_same(parameterization: str) -> None:
    X, y = series()
    items = np.empty(len(X), dtype=object)
    items[:] = as_list(X)
    forms: list[Any] = [as_padded(X), as_list(X), tuple(as_list(X)), items]
    models = [fitted(form, y, parameterization=parameterization) for form in forms]
    for model, other in itertools.product(models[1:], forms):
        assert_same_weights(models[0], model)
        np.testing.assert_array_equal(
            models[0].predict_proba(X), model.predict_proba(X)
        )
        np.testing.assert_array_equal(
            models[0].predict(other), models[0].predict(forms[0])
        )


def test_two_axes_are_one_channel() -> None:
    X, y = series(n_channels=1)
    flat, deep = fitted(X[:, 0], y), fitted(X, y)
    assert_same_weights(flat, deep)
    assert (flat.n_features_in_, deep.n_features_in_) == (9, 1)
    ragged = fitted(as_padded(X)[:, 0], y)
    assert_same_weights(ragged, fitted(as_list(X), y))
    frame = pd.DataFrame(X[:, 0]).add_prefix("hour ")
    named = fitted(frame, y)
    assert named.feature_names_in_[1] == "hour 1"
    assert_same_weights(named, flat)


@pytest.mark.parametrize("per_step", [False, True])
def test_lists_of_one_axis_are_one_channel(per_step: bool) -> None:
    X, y = series(n_channels=1)
    labels: Any = y
    if per_step:
        labels = [
            s[: x.shape[1]] for s, x in zip(step_labels(X), as_list(X), strict=True)
        ]
    flat = [x[0] for x in as_list(X)]
    model = fitted(flat, labels, return_sequences=per_step)
    deep = fitted(as_list(X), labels, return_sequences=per_step)
    assert_same_weights(model, deep)
    assert model.n_features_in_ == 1
    for some in (flat, flat[:1], [x[:4] for x in flat]):  # the last of one length
        found = model.predict(some)
        wanted = model.predict([x[None] for x in some])
        assert len(found) == len(some)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    table = fitted(X[:, 0], y)
    with pytest.raises(ValueError, match=r"unequal lengths, but.*\(n, time\)"):
        table.predict(flat)


def test_tokens_in_lists_and_padded_are_the_same() -> None:
    X, y = tokens()
    items = [x[:t] for x, t in zip(X, lengths_of(len(X)), strict=True)]
    settings = {"vocabulary_size": 8, "embedding_dim": 3, "fixed_sequence_length": 9}
    padded, listed = fitted(X, y, **settings), fitted(items, y, **settings)
    assert_same_weights(padded, listed)
    wider = np.pad(X.astype(np.uint8), ((0, 0), (0, 4)))
    for form in (items, X.tolist(), pd.DataFrame(X), wider):
        np.testing.assert_allclose(
            padded.predict_proba(form), padded.predict_proba(X), rtol=0, atol=1e-6
        )
    assert padded.n_features_in_ == 1


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_more_padding_changes_no_answer(
    cell: str, bidirectional: bool, parameterization: str
) -> None:
    X, y = series()
    settings = {
        "cell": cell,
        "bidirectional": bidirectional,
        "parameterization": parameterization,
        "fixed_batch": np.random.default_rng(0).normal(size=(20, 2, 7)),
        "hidden_layer_sizes": (4,),
    }
    narrow, wide = as_padded(X), np.pad(X, ((0, 0), (0, 0), (0, 6)))
    wide[:, :, :9], wide[:, :, 9:] = narrow, np.nan
    models = [fitted(form, y, **settings) for form in (narrow, wide)]
    assert_same_weights(*models, atol=1e-8)
    alone = [models[0].predict_proba(x[None])[0] for x in as_list(X)]
    np.testing.assert_allclose(models[0].predict_proba(wide), alone, rtol=0, atol=1e-10)


def test_padding_enters_neither_loss_nor_solve_of_steps() -> None:
    X, _ = series()
    y = step_labels(X)
    spoilt = y.copy()
    for row, length in zip(spoilt, lengths_of(len(X)), strict=True):
        row[length:] = 1 - row[length:]
    models = [
        fitted(as_padded(X), y, return_sequences=True),
        fitted(as_padded(X), spoilt, return_sequences=True),
        fitted(
            as_list(X),
            [r[:t] for r, t in zip(y, lengths_of(len(X)), strict=True)],
            return_sequences=True,
        ),
    ]
    for model in models[1:]:
        assert_same_weights(models[0], model)
        assert model.loss_curve_ == models[0].loss_curve_


@pytest.mark.parametrize("labels", [np.array([0, 1]), LABELS, np.array([False, True])])
def test_steps_come_back_as_the_sequences_came(labels: Any) -> None:
    X, _ = series()
    y = labels[step_labels(X)]
    model = fitted(X, y, return_sequences=True)
    lengths = lengths_of(len(X))
    whole, padded, listed = map(model.predict, (X, as_padded(X), as_list(X)))
    assert whole.shape == padded.shape == y.shape
    assert set(np.unique(whole)) <= set(labels.tolist())
    assert isinstance(listed, list)
    mark = "" if labels.dtype.kind == "U" else -1
    for row, item, length in zip(padded, listed, lengths, strict=True):
        assert item.shape == (length,)
        np.testing.assert_array_equal(row[:length], item)
        assert set(row[length:].tolist()) <= {mark}
    for method, tail in (
        ("predict_proba", (2,)),
        ("predict_log_proba", (2,)),
        ("decision_function", ()),
    ):
        padded, listed = (getattr(model, method)(f) for f in (as_padded(X), as_list(X)))
        assert padded.shape == (*y.shape, *tail)
        for row, item, length in zip(padded, listed, lengths, strict=True):
            np.testing.assert_allclose(row[:length], item, rtol=0, atol=1e-12)
            assert np.isnan(row[length:]).all()
        if method == "predict_proba":
            np.testing.assert_allclose(np.concatenate(listed).sum(axis=1), 1)


class MarksPadding(nn.Module):
    """Gives NaN at padding."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(n_channels, n_outputs)

    def forward(self, x: torch.Tensor) -> Any:
        padding = x[..., :1].isnan()
        return self.out(x.nan_to_num()).masked_fill(padding, torch.nan)


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_outputs_at_padding_may_be_anything(parameterization: str) -> None:
    X, _ = series()
    y = step_labels(X)
    settings: dict[str, Any] = {"return_sequences": True, "max_iter": 3}
    settings |= {"module": MarksPadding, "parameterization": parameterization}
    model = fitted(as_padded(X), y, **settings)
    real = ~np.isnan(as_padded(X)[:, 0])
    assert not real.all()
    expected = (model.predict(as_padded(X)) == y)[real & (y >= 0)].mean()
    assert model.score(as_padded(X), y) == pytest.approx(expected)
    assert np.isfinite(model.predict_proba(as_padded(X))[real]).all()
    too_large = np.where(np.isnan(as_padded(X)), np.nan, 1e308)
    with torch.no_grad():
        model.module_.out.weight.mul_(1e10)
    with pytest.raises(ValueError, match="too large for this network"):
        model.predict(too_large)


def test_other_lengths_later() -> None:
    X, y = series(time=9)
    longer, _ = series(time=30)
    model = fitted(X, y)
    short, long = model.predict_proba([X[0, :, :3], longer[1]])
    np.testing.assert_allclose(short, model.predict_proba(X[:1, :, :3])[0], atol=1e-12)
    np.testing.assert_allclose(long, model.predict_proba(longer)[1], atol=1e-12)
    by_step = fitted(X, step_labels(X), return_sequences=True)
    assert by_step.predict(longer).shape == (40, 30)
    ids, y = tokens()
    model = fitted(ids, y, vocabulary_size=8)
    np.testing.assert_allclose(
        model.predict_proba(np.pad(ids, ((0, 0), (0, 9)))),
        model.predict_proba(ids),
        rtol=0,
        atol=1e-6,
    )
    # A table has its columns.
    flat = fitted(X[:, 0], np.arange(40) % 2)
    with pytest.raises(ValueError, match=r"X has 30 features, but .* expecting 9"):
        flat.predict(longer[:, 0])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("per_step", [False, True])
def test_sequences_of_one_step(cell: str, per_step: bool) -> None:
    X, y = series(time=1)
    shape = (40, 1) if per_step else (40,)
    settings = {"cell": cell, "return_sequences": per_step, "bidirectional": True}
    model = fitted(X, y.reshape(shape), **settings)
    assert model.predict(X).shape == shape
    ids = 1 + y[:, None]
    model = fitted(ids, y.reshape(shape), vocabulary_size=3, max_iter=30, **settings)
    assert model.score(ids, y.reshape(shape)) == 1.0
    mixed = [[1], [2, 1, 2]]
    answers = model.predict(mixed)
    assert len(answers) == 2
    if per_step:
        assert [len(a) for a in answers] == [1, 3]


def test_zero_before_the_last_token_is_a_step() -> None:
    X, y = tokens()
    model = fitted(X, y, vocabulary_size=8)
    a, b = model.predict_proba([[0, 0, 3, 1], [3, 1]])
    assert not np.array_equal(a, b)
    # In the same place of the batch: BLAS may round other rows in another way.
    c, d = (model.predict_proba([x, [0, 0, 3, 1]])[0] for x in ([3, 1, 0, 0], [3, 1]))
    np.testing.assert_array_equal(c, d)


def test_precision_is_that_of_the_data() -> None:
    X, y = series()
    for dtype in (np.float32, np.float64):
        model = fitted(X.astype(dtype), y)
        assert {w.dtype for w in model.coefs_} == {np.dtype(dtype)}
        assert model.predict_proba(X).dtype == dtype
    assert fitted((10 * X).astype(int), y).coefs_[0].dtype == np.float64
    ids, y = tokens()
    assert fitted(ids, y, vocabulary_size=8).coefs_[0].dtype == np.float32


def test_read_only_data() -> None:
    X, y = series()
    X = as_padded(X)
    X.flags.writeable = False
    before = X.copy()
    fit_quietly(small(), X, y).predict(X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_steps_that_are_padding_everywhere_change_nothing(
    parameterization: str, return_sequences: bool
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2, 9))
    X[:10, :, 6:] = np.nan
    y = (X[:, 0] > 0).astype(int) if return_sequences else (X[:, 0, 0] > 0).astype(int)
    wider = np.pad(X, [(0, 0), (0, 0), (0, 50)], constant_values=np.nan)
    labels = np.pad(y, [(0, 0), (0, 50)]) if return_sequences else y
    estimator = TargetSpaceSequenceClassifier(
        (),
        recurrent_layer_sizes=(4,),
        parameterization=parameterization,
        return_sequences=return_sequences,
        max_iter=3,
        random_state=0,
    )
    expected = fit_quietly(clone(estimator), X, y)
    found = fit_quietly(clone(estimator), wider, labels)
    assert getattr(found, "lam_", 0) == getattr(expected, "lam_", 0)
    probabilities = found.predict_proba(wider)
    if return_sequences:
        assert np.isnan(probabilities[:, 9:]).all()
        probabilities = probabilities[:, :9]
    np.testing.assert_allclose(probabilities, expected.predict_proba(X), rtol=1e-9)
