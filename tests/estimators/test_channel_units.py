"""Channels of any scale are learnt as standardised ones are."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from sktarget import TargetSpaceSequenceClassifier, TargetSpaceSequenceRegressor
from sktarget.estimators._channel_units import units_of_channels
from sktarget.estimators._rows import TrainingRows
from sktarget.export import to_onnx
from sktarget.persistence import load, save
from tests.estimators.sequence_support import (
    as_list,
    as_padded,
    fitted,
    series,
    small,
    step_labels,
    tokens,
)
from tests.estimators.support import (
    Array,
    Dies,
    SeesData,
    assert_same_weights,
    fit_quietly,
)

X, Y = series()
FAR: dict[str, tuple[Array, Array]] = {
    "small": (np.array([[1e-3], [1e-4]]), np.array([[0.0], [0.0]])),
    "large": (np.array([[1e3], [1e5]]), np.array([[5e3], [-7e4]])),
    "mixed": (np.array([[1e-6], [1e6]]), np.array([[2e-5], [0.0]])),
}


def rescaled(name: str, given: Array = X) -> Array:
    scale, offset = FAR[name]
    return given * scale + offset


def units_of(X: Array, weight: Array | None = None) -> Any:
    return units_of_channels(TrainingRows(X.transpose(0, 2, 1), Y, weight))


# --- Which channels get units ---------------------------------------------------------


INDICATOR = np.zeros((40, 1, 9))
INDICATOR[3, 0, 2] = 1.0
BITS = (X[:, :1] > 0).astype(float)


@pytest.mark.parametrize("given", [X, INDICATOR, BITS, 1.05 * X + 0.05])
def test_standard_channels_and_those_of_two_values_need_none(given: Array) -> None:
    assert units_of(given) is None


@pytest.mark.parametrize("other", [1.0 * (X[:, :1] > 1.5), BITS, 0.3 + 0.4 * X])
def test_beside_channels_of_numbers_all_are_standardised(other: Array) -> None:
    origin, unit = units_of(np.concatenate([X, other], axis=1))
    n = other.shape[1]
    np.testing.assert_allclose(origin[-n:], other.mean((0, 2)))
    np.testing.assert_allclose(unit[-n:], other.std((0, 2)))
    assert not origin[:-n].any()
    assert np.all(unit[:-n] == 1)


@pytest.mark.parametrize(("every", "unit"), [(50, 0.14), (1000, 1.0)])
def test_what_is_very_rare_does_not_become_large(every: int, unit: float) -> None:
    rng = np.random.default_rng(0)
    flags = np.zeros((40, 100))
    flags.flat[::every] = 1.0
    given = np.stack([rng.normal(size=(40, 100)), flags], axis=1)
    found = units_of(given)
    assert (1.0 if found is None else found[1][1]) == pytest.approx(unit, abs=0.01)


def test_the_adding_problem_is_learnt_as_it_is_given() -> None:
    rng = np.random.default_rng(0)
    given = np.zeros((1100, 2, 40))
    given[:, 0] = rng.uniform(size=(1100, 40))
    for row in given:
        row[1, [rng.integers(20), rng.integers(20, 40)]] = 1
    y = given.prod(axis=1).sum(axis=1)
    model = TargetSpaceSequenceRegressor(random_state=0)
    fit_quietly(model, given[:300], y[:300])
    # Without units it is 0.8.
    assert model.score(given[300:], y[300:]) > 0.9


def test_units_are_those_of_real_steps() -> None:
    far = rescaled("large")
    for form in (far, as_padded(far)):
        real = ~np.isnan(form[:, 0])
        steps = form.transpose(0, 2, 1)[real]
        origin, unit = units_of(form)
        np.testing.assert_allclose(origin, steps.mean(axis=0))
        np.testing.assert_allclose(unit, steps.std(axis=0))
    # Each channel by itself; one that is constant keeps its size.
    ones = np.ones((40, 1, 9))
    mixed = np.concatenate([3 * X[:, :1], X[:, :1], 9 * ones], axis=1)
    origin, unit = units_of(mixed)
    np.testing.assert_allclose(origin[1:], [0, 9])
    np.testing.assert_allclose(unit[1:], 1)


def test_repeats_and_weights_mean_the_same() -> None:
    far = rescaled("small")
    times = np.arange(40) % 3 + 1.0
    repeated = np.repeat(far, times.astype(int), axis=0)
    weighted = units_of(as_padded(far), times)
    padded = np.repeat(as_padded(far), times.astype(int), axis=0)
    for a, b in zip(weighted, units_of(padded), strict=True):
        np.testing.assert_allclose(a, b)
    assert not np.allclose(weighted[1], units_of(repeated)[1], rtol=1e-3)


def test_what_no_weight_could_undo_is_left_as_it_is() -> None:
    assert units_of(1e-306 * X) is None


# --- Learning -------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bidirectional": True, "recurrent_layer_sizes": (5, 4)},
        {"return_sequences": True},
        {"fixed_batch": "noise", "lam": "auto"},
        {"batch_size": 10, "early_stopping": True},
    ],
    ids=str,
)
def test_scales_do_not_matter(cell: str, settings: dict[str, Any]) -> None:
    y = step_labels(X) if "return_sequences" in settings else Y
    found = []
    for name in FAR:
        far = as_padded(rescaled(name))
        model = fitted(far, y, cell=cell, **settings)
        proba = model.predict_proba(far)
        found.append(proba[~np.isnan(proba)])
        assert np.ptp(found[-1]) > 0.01
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-6)


def test_numbers_are_learnt_from_any_scale() -> None:
    y = X.mean(axis=(1, 2))
    scores = [
        fit_quietly(
            TargetSpaceSequenceRegressor(max_iter=60, random_state=0), given, y
        ).score(given, y)
        for given in (X, *map(rescaled, FAR))
    ]
    assert min(scores) > 0.9


class Own(torch.nn.Module):
    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.out = torch.nn.Linear(n_channels, n_outputs)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(x)


@pytest.mark.parametrize(
    ("name", "value"),
    [("parameterization", "weights"), ("target_init", "normal"), ("module", Own)],
)
def test_who_gets_the_channels_as_they_are(name: str, value: Any) -> None:
    far, seen = 100 * X, SeesData()
    settings = {name: value, "callbacks": [seen], "return_sequences": True}
    fitted(far, step_labels(X), **settings)
    np.testing.assert_array_equal(seen.train.x.numpy(), far.transpose(0, 2, 1))


def test_tokens_have_no_units() -> None:
    ids, y = tokens()
    assert fitted(ids, y, vocabulary_size=8)._channel_units is None


# --- Fitted state ---------------------------------------------------------------------


@pytest.mark.parametrize("form", [np.array, as_padded, as_list])
def test_the_network_reads_what_was_given(form: Any) -> None:
    far = rescaled("mixed")
    model = fitted(form(far), Y, recurrent_layer_sizes=(6, 5), bidirectional=True)
    network, seen = model._rebuild(), as_padded(far) if form is not np.array else far
    origin, unit = model._channel_units
    x = torch.from_numpy((seen.transpose(0, 2, 1) - origin) / unit)
    with torch.no_grad():
        expected = network(x).softmax(1).numpy()
        directly = model.module_(torch.from_numpy(seen.transpose(0, 2, 1)).double())
    found = model.predict_proba(form(far))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(directly.softmax(1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fixed_batch", ["sample", "noise", "given"])
def test_fixed_sequences_are_in_the_scale_of_the_data(fixed_batch: str) -> None:
    far = rescaled("mixed")
    given: Any = far[:7] if fixed_batch == "given" else fixed_batch
    model = fitted(far, Y, fixed_batch=given, warm_start=True)
    kept = model.fixed_batch_
    if fixed_batch == "given":
        np.testing.assert_allclose(kept, far[:7], rtol=1e-12)
    for own, steps in zip(kept.transpose(1, 0, 2), far.transpose(1, 0, 2), strict=True):
        assert own.std() == pytest.approx(steps.std(), rel=0.3)
        assert abs(own.mean() - steps.mean()) < steps.std()


@pytest.mark.parametrize("fixed_batch_size", [None, 20])
def test_two_fits_are_one(fixed_batch_size: int | None) -> None:
    far = as_padded(rescaled("large"))
    settings: dict[str, Any] = {
        "warm_start": True,
        "fixed_batch_size": fixed_batch_size,
        "batch_size": 40,
    }
    twice = fitted(far, Y, **settings)
    fit_quietly(twice, far, Y)
    once = fitted(far, Y, **(settings | {"max_iter": 10}))
    assert_same_weights(twice, once)  # bit for bit
    np.testing.assert_array_equal(twice.fixed_batch_, once.fixed_batch_)
    # The units of the first fit stay, and so does what the network does.
    units = twice._channel_units
    fit_quietly(twice.set_params(learning_rate_init=1e-12), 2 * far, Y)
    np.testing.assert_array_equal(twice._channel_units, units)
    np.testing.assert_allclose(
        twice.predict_proba(far), once.predict_proba(far), rtol=0, atol=1e-6
    )


def test_a_fit_without_need_forgets_the_units() -> None:
    model = fitted(rescaled("large"), Y)
    fit_quietly(model, X, Y)
    assert_same_weights(model, fitted(X, Y))


def test_a_stream_keeps_the_units_of_its_beginning() -> None:
    far = rescaled("small").astype(np.float32)
    model = small().partial_fit(far[:20], Y[:20], classes=[0, 1])
    units = model._channel_units
    model.partial_fit(far[20:].astype(np.float64), Y[20:])
    np.testing.assert_array_equal(model._channel_units, units)
    assert np.isfinite(model.predict_proba(far)).all()


def test_killed_fits_go_on(tmp_path: Path) -> None:
    far = rescaled("mixed")
    model = small(checkpoint=tmp_path / "run", callbacks=[Dies(3)])
    with pytest.raises(MemoryError):
        model.fit(far, Y)
    fit_quietly(model.set_params(callbacks=None), far, Y)
    assert_same_weights(model, fitted(far, Y))


def test_copies_files_and_exports(tmp_path: Path) -> None:
    far = as_padded(rescaled("mixed").astype(np.float32))
    model: TargetSpaceSequenceClassifier = fitted(far, Y, warm_start=True)
    expected = model.predict_proba(far)
    save(model, tmp_path / "model.npz")
    for other in (load(tmp_path / "model.npz"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(far), expected)
        fit_quietly(other, far, Y)
    assert_same_weights(other, fit_quietly(model, far, Y))
    expected = model.predict_proba(far)
    exported = to_onnx(model).SerializeToString()
    session = onnxruntime.InferenceSession(exported)
    _, proba = session.run(None, {session.get_inputs()[0].name: far})
    np.testing.assert_allclose(proba, expected, rtol=0, atol=1e-4)
