"""Many threads and processes at once; what belongs to all is left alone."""

import copy
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from sktarget import TargetSpaceClassifier
from tests.estimators.support import (
    ALL_EPOCHS,
    assert_same_weights,
    class_data,
    fit_quietly,
    for_both,
    problem,
    with_dropout,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6,),
    "max_iter": 5,
    "random_state": 0,
    **ALL_EPOCHS,
}
THREADS = 16


def at_once(call: Callable[[int], Any]) -> list[Any]:
    """Call from many threads, all of which begin together."""
    barrier = threading.Barrier(THREADS)

    def begin(number: int) -> Any:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


@for_both
@pytest.mark.parametrize(
    "settings", [{}, {"dropout": 0.3, "shortcuts": True}, {"module": with_dropout}]
)
@pytest.mark.usefixtures("global_state_untouched")
def test_threads_predict_at_once(kind: type, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**(SMALL | settings)), X, y)
    # Rows of their own for each, and as many: their number may decide the last bit.
    expected = [estimator.predict(X[number:]) for number in range(THREADS)]
    for _ in range(10):
        # The module has to be built again, by whoever comes first.
        estimator = copy.deepcopy(estimator)

        def predict(number: int, estimator: Any = estimator) -> Any:
            return [estimator.predict(X[number:]) for _ in range(5)]

        for number, found in enumerate(at_once(predict)):
            for part in found:
                np.testing.assert_array_equal(part, expected[number])
        assert len({id(m) for m in at_once(lambda _, e=estimator: e.module_)}) == 1


@for_both
@pytest.mark.parametrize("settings", [{"dropout": 0.3}, {"module": with_dropout}])
@pytest.mark.usefixtures("global_state_untouched")
def test_threads_fit_at_once(kind: type, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    settings = SMALL | settings
    alone = [
        fit_quietly(kind(**(settings | {"random_state": seed})), X, y)
        for seed in range(THREADS)
    ]
    with warnings.catch_warnings():  # for all threads
        warnings.simplefilter("ignore")
        together = at_once(
            lambda seed: kind(**(settings | {"random_state": seed})).fit(X, y)
        )
    for a, b in zip(alone, together, strict=True):
        if "module" in settings:
            np.testing.assert_array_equal(a.predict(X), b.predict(X))
        else:
            assert_same_weights(a, b)


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("settings", [{}, {"module": with_dropout}], ids=["", "module"])
@pytest.mark.usefixtures("global_state_untouched")
def test_grid_search(backend: str, settings: dict[str, Any]) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(**SMALL, **settings)
    grid = {"lam": [1e-3, 1e3], "learning_rate_init": [0.01, 0.1]}
    one = fit_quietly(GridSearchCV(estimator, grid, cv=2), X, y)
    with joblib.parallel_backend(backend, n_jobs=2), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two = GridSearchCV(estimator, grid, cv=2).fit(X, y)
    for name in ("mean_test_score", "split0_test_score"):
        np.testing.assert_array_equal(two.cv_results_[name], one.cv_results_[name])
    np.testing.assert_array_equal(two.predict_proba(X), one.predict_proba(X))


FORKING = """
import joblib, numpy as np, warnings
from sktarget import TargetSpaceClassifier

def fit_and_predict(seed):
    warnings.simplefilter("ignore")
    X = np.random.RandomState(seed).normal(size=(4000, 50))
    model = TargetSpaceClassifier((50,), max_iter=2, batch_size=2000, random_state=0)
    return model.fit(X, X[:, 0] > 0).predict_proba(X)

here = fit_and_predict(0)
there = joblib.Parallel(n_jobs=2, backend="multiprocessing", timeout=60)(
    joblib.delayed(fit_and_predict)(seed) for seed in range(2)
)
np.testing.assert_allclose(there[0], here, rtol=1e-6)
"""


def test_forked_processes_do_not_wait_for_threads_of_their_parent() -> None:
    # In a process of its own, because the tests themselves run on one thread.
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run(
        [sys.executable, "-c", FORKING], env=environment, check=True, timeout=120
    )


class Waits(Callback):
    """Waits in the middle of a fit."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.begun.set()
        self.may_end.wait(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("global_state_untouched")
def test_forked_processes_do_not_wait_for_fits_of_their_parent() -> None:
    X, y = class_data()
    settings = SMALL | {"module": with_dropout}
    # A copy builds its module anew.
    fitted = copy.deepcopy(fit_quietly(TargetSpaceClassifier(**settings), X, y))
    waits = Waits()
    busy = TargetSpaceClassifier(**settings, callbacks=[waits])
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as pool:
        # That fits have not converged, and that processes with threads are forked.
        warnings.simplefilter("ignore")
        fit = pool.submit(busy.fit, X, y)
        try:
            assert waits.begun.wait(60)
            child = os.fork()
            if child == 0:
                try:
                    signal.alarm(30)
                    fitted.predict(X)
                    os._exit(0)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
        finally:
            waits.may_end.set()
        fit.result()
    assert status == 0


def threads_in_worker(_: int) -> tuple[int, int]:
    """Fit in a worker, and count torch's threads before and after."""
    X, y = class_data()
    before = torch.get_num_threads()
    fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    return before, torch.get_num_threads()


def test_workers_keep_their_share_of_the_cores() -> None:
    # joblib limits the threads of its workers; a fit has to leave that as it is.
    counts = joblib.Parallel(n_jobs=2)(
        joblib.delayed(threads_in_worker)(k) for k in range(2)
    )
    share = max(1, joblib.cpu_count() // 2)
    assert all(before == after <= share for before, after in counts)


@for_both
def test_generators_of_devices_that_are_not_used_stay_as_they_are(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError(seed)

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    X, y = problem(kind)
    fit_quietly(kind(**(SMALL | {"module": with_dropout})), X, y).predict(X)


@for_both
@pytest.mark.parametrize(
    "settings",
    [{}, {"module": with_dropout}, {"parameterization": "weights", "dropout": 0.5}],
)
@pytest.mark.usefixtures("global_state_untouched")
def test_nothing_global_is_touched(kind: type, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    before = list(warnings.filters), torch.get_num_interop_threads()
    errors = np.geterr()
    for random_state in (0, np.random.RandomState(0)):
        estimator = kind(**(SMALL | settings | {"random_state": random_state}))
        with pytest.warns(match="Maximum iterations"):
            estimator.fit(X, y)
        estimator.partial_fit(X, y).predict(X)
    assert (list(warnings.filters), torch.get_num_interop_threads()) == before
    assert np.geterr() == errors
