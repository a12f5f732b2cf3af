"""What the estimators cost, compared with a bare loop and scikit-learn's perceptron.

``fit`` beside a plain PyTorch loop over the same network, batches and optimiser; its
growth with the number of rows; prediction for one row to 100,000; imports.

    python examples/benchmarks/bench_estimators.py [--quick] [--threads 1]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from measuring import Row, Settings, in_turns, main
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch.nn import functional as F

from sktarget import TargetSpaceClassifier
from sktarget.architectures import DenseNetwork
from sktarget.nn import TargetSpace

# Never stop before the last epoch.
TO_THE_END = {"tol": 0.0, "n_iter_no_change": 10**6}


def data(n_rows: int, n_columns: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return random rows of ten classes, in single precision."""
    random = np.random.RandomState(0)
    X = random.standard_normal((n_rows, n_columns)).astype(np.float32)
    return X, np.arange(n_rows) % 10


def fitted(estimator: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """Fit without a warning of too few epochs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


# --- fit ------------------------------------------------------------------------------


def bare_loop(
    X: np.ndarray,
    y: np.ndarray,
    n_fixed: int,
    batch_size: int,
    epochs: int,
    device: str,
) -> Callable[[], None]:
    """Make the loop that does what ``fit`` does."""
    x, labels = (torch.from_numpy(part).to(device) for part in (X, y))
    fixed = x if n_fixed == len(x) else x[:n_fixed]
    network = DenseNetwork(X.shape[1], (100,) * 5, 10, "tanh").to(device)
    target = TargetSpace(network, fixed, 1.0)
    optimizer = torch.optim.Adam(target.parameters(), lr=1e-3, fused=True)

    def run() -> None:
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(batch_size):
                whole = len(index) == len(x)
                inputs, truth = (x, labels) if whole else (x[index], labels[index])
                optimizer.zero_grad()
                F.cross_entropy(target(inputs), truth).backward()
                optimizer.step()

    return run


def overhead(settings: Settings) -> list[Row]:
    rows, epochs = [], 20
    for name, n, n_fixed, batch_size in [
        ("5 × 100, full batch", 1000, 1000, 1000),
        ("5 × 100, batches of 200", 2000, 500, 200),
    ]:
        X, y = data(n)
        estimator = TargetSpaceClassifier(
            (100,) * 5,
            fixed_batch_size=None if n_fixed == n else n_fixed,
            lam=1.0,
            batch_size=batch_size,
            max_iter=epochs,
            learning_rate_init=1e-3,
            alpha=0.0,
            random_state=0,
            device=settings.device,
            **TO_THE_END,
        )
        calls = {
            "bare": bare_loop(X, y, n_fixed, batch_size, epochs, settings.device),
            "fit": partial(fitted, estimator, X, y),
        }
        least, seconds = settings.few((2, 1), (7, 10))
        taken = in_turns(calls, settings, seconds, warm_up=1, least=least)
        row: Row = {"case": name, "epochs": epochs, "bare loop, ms": taken["bare"]}
        row |= {"fit, ms": taken["fit"], "ratio": taken["fit"] / taken["bare"]}
        rows.append(row)
    return rows


def growth(settings: Settings) -> list[Row]:
    """Time one epoch of ``fit`` in mini-batches of 200, two layers of 100."""
    rows = []
    for n in settings.few([10**3, 10**4], [10**3, 10**4, 10**5, 10**6]):
        X, y = data(n)
        row: Row = {"case": f"{n:,} rows", "rows": n}
        for name, kind in [
            (
                "TargetSpaceClassifier",
                partial(TargetSpaceClassifier, device=settings.device),
            ),
            ("MLPClassifier", MLPClassifier),
        ]:
            estimator = kind((100, 100), max_iter=1, random_state=0, **TO_THE_END)
            taken = []
            for _ in range(5 if n < 10**5 else 1):
                start = settings.clock()
                fitted(estimator, X, y)
                taken.append(settings.clock() - start)
            row[f"{name}, s"] = statistics.median(taken)
        rows.append(row)
    return rows


# --- predict --------------------------------------------------------------------------


def prediction(settings: Settings) -> list[Row]:
    X, y = data(1000)
    rows = []
    for activation in ("relu", "tanh"):
        shape = {"hidden_layer_sizes": (100,), "activation": activation}
        few: Any = {**shape, "max_iter": 2, "random_state": 0}
        ours = fitted(TargetSpaceClassifier(**few, device=settings.device), X, y)
        mlp = fitted(MLPClassifier(**few), X, y)
        for n in (1, 100, 100_000):
            asked = data(n)[0]
            for method in ("predict", "predict_proba"):
                calls = {
                    "ours": partial(getattr(ours, method), asked),
                    "mlp": partial(getattr(mlp, method), asked),
                }
                taken = in_turns(calls, settings, settings.few(0.3, 3))
                row: Row = {"case": f"{method}, {n:,} rows, {activation}"}
                row |= {"TargetSpaceClassifier, ms": taken["ours"]}
                row |= {"MLPClassifier, ms": taken["mlp"]}
                rows.append(row | {"ratio": taken["ours"] / taken["mlp"]})
    return rows


# --- import ---------------------------------------------------------------------------

IMPORTS = {
    "import sktarget": "import sktarget",
    "import torch": "import torch",
    "import sktarget.nn": "import sktarget.nn",
    "the estimators": "from sktarget import TargetSpaceClassifier",
    "the estimators, and a first fit": (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from sktarget import TargetSpaceClassifier as C\n"
        "C(max_iter=1).fit([[0.0], [1.0]], [0, 1])"
    ),
    "MLPClassifier": "from sklearn.neural_network import MLPClassifier",
}


def imports(settings: Settings) -> list[Row]:
    """Time processes that only import something, minus one that does nothing."""

    def seconds(code: str) -> float:
        taken = []
        for _ in range(settings.few(1, 5)):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    nothing = seconds("pass")
    return [
        {"case": name, "s": max(0.0, seconds(code) - nothing)}
        for name, code in IMPORTS.items()
    ]


PARTS = {
    "fit beside the bare loop": overhead,
    "fit over rows": growth,
    "prediction": prediction,
    "import": imports,
}

if __name__ == "__main__":
    main(__doc__, PARTS)
