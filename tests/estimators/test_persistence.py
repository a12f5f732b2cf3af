"""Copies of estimators, in memory and on disk."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone

from tests.estimators.support import (
    ALL_EPOCHS,
    Array,
    assert_same_weights,
    fit_quietly,
    for_both,
    problem,
)

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (5,),
    "max_iter": 5,
    "random_state": 0,
    **ALL_EPOCHS,
}


def holds_rows(estimator: Any, X: Array) -> bool:
    """Return whether the bytes of any row of X are in the pickle."""
    data = pickle.dumps(estimator)
    return any(row.tobytes() in data for row in X)


def walk(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield all that an object refers to, by containers and by attributes."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    yield value
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        parts = [value.__dict__]
    else:
        parts = []
    for part in parts:
        yield from walk(part, seen)


def is_torch(value: Any) -> bool:
    return type(value).__module__.split(".")[0] in ("torch", "skorch")


def roundtrip(estimator: Any, how: str, path: Path) -> Any:
    if how == "pickle":
        return pickle.loads(pickle.dumps(estimator))
    if how == "joblib":
        joblib.dump(estimator, path / "model.joblib")
        return joblib.load(path / "model.joblib")
    if how == "memory map":
        joblib.dump(estimator, path / "model.joblib")
        return joblib.load(path / "model.joblib", mmap_mode="r")
    return copy.deepcopy(estimator)


@for_both
@pytest.mark.parametrize("how", ["pickle", "joblib", "memory map", "deepcopy"])
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_copies_predict_the_same(
    kind: type, how: str, warm_start: bool, parameterization: str, tmp_path: Path
) -> None:
    X, y = problem(kind)
    settings = SMALL | {
        "warm_start": warm_start,
        "parameterization": parameterization,
        "dropout": 0.1,
    }
    estimator = fit_quietly(kind(**settings), X, y)
    early = roundtrip(estimator, how, tmp_path)
    predicted = estimator.predict(X)
    late = roundtrip(estimator, how, tmp_path)
    for other in (early, late):
        np.testing.assert_array_equal(other.predict(X), predicted)
        assert_same_weights(other, estimator)
        with torch.no_grad():
            sums = other.module_(torch.from_numpy(X))
        assert sums.shape == (90, estimator.n_outputs_)
        assert all(p.device.type == "cpu" for p in other.module_.parameters())
    # Training goes on as it would have, and does not touch the original.
    fit_quietly(late, X, y)
    np.testing.assert_array_equal(estimator.predict(X), predicted)
    assert_same_weights(late, fit_quietly(estimator, X, y))


@for_both
def test_clone_is_not_fitted(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    fresh = clone(estimator)
    assert fresh.get_params() == estimator.get_params()
    assert vars(fresh).keys() == vars(kind()).keys()
    assert_same_weights(fit_quietly(fresh, X, y), estimator)


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
def test_no_row_of_x_is_carried(kind: type, parameterization: str) -> None:
    X, y = problem(kind)
    settings = SMALL | {"parameterization": parameterization, "fixed_batch_size": None}
    plain = fit_quietly(kind(**settings), X, y)
    plain.predict(X)
    assert not holds_rows(plain, X)
    # The control: where training can go on, X̄ is there to be found.
    warm = fit_quietly(kind(**settings, warm_start=True), X, y)
    assert holds_rows(warm, X) == (parameterization == "targets")
    partial = kind(**settings).partial_fit(X, y)
    assert holds_rows(partial, X) == (parameterization == "targets")
    # ... and is gone again with the next plain fit.
    assert not holds_rows(fit_quietly(warm.set_params(warm_start=False), X, y), X)
    noise = kind(**(settings | {"fixed_batch": "noise", "warm_start": True}))
    assert not holds_rows(fit_quietly(noise, X, y), X)


@for_both
def test_size_is_that_of_the_weights(kind: type) -> None:
    X, y = problem(kind)
    X, y = np.repeat(X, 20, axis=0), np.repeat(y, 20)
    X = X + np.random.default_rng(0).normal(0, 0.01, X.shape)
    estimator = fit_quietly(kind(**SMALL), X, y)
    assert len(pickle.dumps(estimator)) < 6000 < X.nbytes / 5


@for_both
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_state_is_numpy(kind: type, warm_start: bool, solver: str) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=warm_start, solver=solver), X, y)
    # Predicting builds the module, which is not to be stored.
    estimator.predict(X)
    assert any(is_torch(v) for v in walk(estimator.module_))
    found = [v for v in walk(estimator.__getstate__()) if is_torch(v)]
    assert found == []


@for_both
def test_attributes_do_not_change_on_prediction(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    before = dict(vars(estimator))
    estimator.predict(X)
    assert vars(estimator).keys() == before.keys()
    assert all(vars(estimator)[k] is v for k, v in before.items())


@for_both
def test_loads_in_another_process(kind: type, tmp_path: Path) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(estimator))
    np.save(tmp_path / "X.npy", X)
    code = (
        "import pickle, sys, numpy as np\n"
        "path = sys.argv[1]\n"
        "model = pickle.load(open(path + '/model.pickle', 'rb'))\n"
        "np.save(path + '/found.npy', model.predict(np.load(path + '/X.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_array_equal(found, estimator.predict(X))


@for_both
def test_parameters_that_did_not_exist_have_their_defaults(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind((4,), max_iter=3, random_state=0), X, y)
    state = estimator.__getstate__()
    del state["checkpoint"]
    again = kind.__new__(kind)
    again.__setstate__(state)
    assert again.get_params() == estimator.get_params()
