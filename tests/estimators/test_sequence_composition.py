"""Weights as Algs. 4 and 5 have them, and the estimator in scikit-learn's company."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from sktarget import TargetSpaceSequenceClassifier
from sktarget.preprocessing import TokenSequencer
from tests import reference_recurrent
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
from tests.estimators.support import Array, assert_same_weights, fit_quietly, weights
from tests.reference import ridge

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def end(states: Array, lengths: list[int], bidirectional: bool) -> Array:
    last = np.stack([h[t - 1] for h, t in zip(states, lengths, strict=True)])
    if not bidirectional:
        return last
    width = states.shape[2] // 2
    return np.hstack([last[:, :width], states[:, 0, width:]])


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["tanh", "relu", "lstm", "gru"])
def test_weights_are_those_of_the_algorithm(
    kind: str, bidirectional: bool, per_step: bool, ragged: bool
) -> None:
    X, y = series()
    plain = kind in ("tanh", "relu")
    model = fitted(
        as_padded(X) if ragged else X,
        step_labels(X) if per_step else y,
        cell="rnn" if plain else kind,
        activation=kind if plain else "tanh",
        recurrent_layer_sizes=(5, 4),
        bidirectional=bidirectional,
        return_sequences=per_step,
        warm_start=True,
        max_iter=3,
        fixed_batch_size=20,
    )
    fixed = model.fixed_batch_.transpose(0, 2, 1)
    lengths = (~np.isnan(fixed[..., 0])).sum(axis=1).tolist()
    width = 1 + bidirectional
    targets = model.targets_
    layers = [targets[k : k + width] for k in range(0, 2 * width, width)]
    realised, _, h = reference_recurrent.realise(
        kind, layers, fixed, model.lam_, lengths=lengths, anchors=model._anchors[:-1]
    )
    if per_step:
        rows = np.concatenate([x[:t] for x, t in zip(h, lengths, strict=True)])
    else:
        rows = end(h, lengths, bidirectional)
    expected = [w for layer in realised for w in layer]
    expected.append(ridge(np.insert(rows, 0, 1, axis=1), targets[-1], model.lam_))
    for ours, truth in zip(weights(model), expected, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-10)
    assert model.n_layers_ == 4


@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_pickle_and_clone(parameterization: str) -> None:
    X, _ = series()
    y = step_labels(X)
    model = fitted(
        as_padded(X), y, return_sequences=True, parameterization=parameterization
    )
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert_same_weights(again, model)
        assert again.module_ is not model.module_
    assert not hasattr(clone(model), "classes_")
    assert_same_weights(fit_quietly(clone(model), as_padded(X), y), model)


def test_module_is_ordinary() -> None:
    X, y = series()
    model = fitted(X, y, cell="lstm", hidden_layer_sizes=(4,))
    kinds = {type(m).__module__ for m in model.module_.modules()}
    assert not any("sktarget.nn" in kind for kind in kinds)
    control = fitted(X, y, parameterization="weights", hidden_layer_sizes=(4,))
    assert [len(control.coefs_), control.n_layers_] == [3, 4]
    with torch.inference_mode():
        sums = model.module_(torch.from_numpy(X.transpose(0, 2, 1).copy()))
    np.testing.assert_array_equal(sums[:, 1] > sums[:, 0], model.predict(X) == 1)


def test_what_is_kept() -> None:
    ids, y = tokens()
    settings = {"vocabulary_size": 8, "embedding_dim": 3, "fixed_batch_size": 12}
    model = fitted(ids, y, fixed_sequence_length=7, warm_start=True, **settings)
    assert model.fixed_batch_.shape == (12, 3, 7)
    assert 0.9 < np.abs(model.fixed_batch_).max() <= 1.0
    assert [t.shape for t in model.targets_] == [(12, 7, 6), (12, 2)]
    model = fitted(ids, y, fixed_sequence_length=7, **settings)
    assert not hasattr(model, "fixed_batch_")
    X, y = series(time=80)
    model = fitted(X, y, fixed_batch="noise", fixed_batch_size=200, warm_start=True)
    assert model.fixed_batch_.shape == (200, 2, 60)
    for moment in (np.mean, np.std):
        np.testing.assert_allclose(
            moment(model.fixed_batch_, axis=(0, 2)), moment(X, axis=(0, 2)), atol=0.03
        )
    model = fitted(X, y, fixed_sequence_length=7, fixed_batch_size=9, warm_start=True)
    own = {x.tobytes() for x in X[:, :, :7].copy()}
    assert len(model.fixed_batch_) == 9
    assert own >= {x.tobytes() for x in model.fixed_batch_.copy()}


def test_noise_is_that_of_real_steps() -> None:
    X, y = series()
    X = 5 + 2 * X
    model = fitted(as_padded(X), y, fixed_batch="noise", warm_start=True)
    assert not np.isnan(model.fixed_batch_).any()
    steps = np.concatenate(as_list(X), axis=1)
    np.testing.assert_allclose(
        model.fixed_batch_.mean(axis=(0, 2)), steps.mean(axis=1), atol=0.3
    )


@pytest.mark.parametrize("form", [as_list, as_padded])
def test_grid_search(form: Any) -> None:
    X, y = series()
    grid = {"cell": ["rnn", "gru"], "recurrent_layer_sizes": [4, (3, 3)]}
    search = GridSearchCV(small(max_iter=30), grid, cv=2).fit(form(X), y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.score(form(X), y) > 0.8


def test_voting() -> None:
    X, y = series(time=6)
    models = [(f"seed {s}", small(random_state=s, max_iter=30)) for s in range(2)]
    vote = VotingClassifier(models, voting="soft").fit(X[:, 0], y)
    members = [m.predict_proba(X[:, 0]) for m in vote.estimators_]
    np.testing.assert_allclose(vote.predict_proba(X[:, 0]), np.mean(members, axis=0))
    assert vote.score(X[:, 0], y) > 0.6


def test_raw_text() -> None:
    good = ["what a fine film", "fine acting and a fine plot", "truly fine"]
    bad = ["what a dull film", "dull acting and a dull plot", "truly dull"]
    texts, y = (good + bad) * 5, np.repeat([1, 0, 1, 0, 1, 0, 1, 0, 1, 0], 3)
    model = make_pipeline(
        TokenSequencer(50, 6),
        TargetSpaceSequenceClassifier(
            recurrent_layer_sizes=(8,),
            vocabulary_size=52,
            embedding_dim=4,
            max_iter=60,
            random_state=0,
        ),
    )
    assert cross_val_score(model, texts, y, cv=3).mean() > 0.9
    model.fit(texts, y)
    assert model.predict(["a fine dull unheard word"]).shape == (1,)
    assert model.predict(["completely unheard"]).shape == (1,)
    assert model.predict(["fine", "?"]).shape == (2,)


def test_pipeline_passes_lists_on() -> None:
    X, y = series()
    model = make_pipeline("passthrough", small(max_iter=30)).fit(as_list(X), y)
    assert model.score(as_list(X), y) > 0.7


@pytest.mark.parametrize("per_step", [False, True])
def test_lbfgs(per_step: bool) -> None:
    X, y = series()
    y = step_labels(X) if per_step else y
    model = fitted(
        as_padded(X), y, solver="lbfgs", return_sequences=per_step, max_iter=20
    )
    assert model.loss_ < 0.5


def test_global_state_stays_as_it_is(global_state_untouched: None) -> None:
    ids, y = tokens()
    fitted(ids, y, vocabulary_size=8, dropout=0.2, bidirectional=True).predict(ids)


def test_dropout_is_reproducible() -> None:
    X, y = series()
    settings = {"dropout": 0.3, "hidden_layer_sizes": (5,)}
    assert_same_weights(fitted(X, y, **settings), fitted(X, y, **settings))
    lengths = lengths_of(len(X))
    assert len(set(lengths)) > 1
    assert_same_weights(
        fitted(as_padded(X), y, **settings), fitted(as_padded(X), y, **settings)
    )
