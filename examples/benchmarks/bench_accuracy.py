"""How long it takes to reach a stated test accuracy, compared with alternatives.

Each contender is fitted with more and more iterations until the median test accuracy
over the seeds reaches the stated one; then fits of so many iterations are timed, all
contenders in turns, and the median is shown.  A contender whose ladder of iterations
ends below it is shown with the best accuracy that it reached.  All run in one process,
on as many threads as asked for.

    python examples/benchmarks/bench_accuracy.py [--quick] [--data DIR]
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from bench_recurrent import Recurrent
from measuring import Row, Settings, main
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

from sktarget import TargetSpaceClassifier
from sktarget.architectures import DenseNetwork
from sktarget.datasets import make_delayed_recall, make_two_spirals
from sktarget.nn import TargetSpace

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Make = Callable[[int, int], Any]  # from the number of iterations and the seed

LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40, 60, 80, 120)
LONG_LADDER = (*range(120, 240, 20), *range(240, 500, 40))
TO_THE_END = {"tol": 0.0, "n_iter_no_change": 10**6}


def fit(estimator: Any, data: Data) -> Any:
    """Fit without a warning of too few epochs."""
    X, y, _, _ = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


def climb(
    make: Make, data: Data, wanted: float, ladder: Sequence[int], seeds: Sequence[int]
) -> Row:
    """Fit with more and more iterations until the accuracy is reached."""
    _, _, X_test, y_test = data
    best = 0.0
    for n_iterations in ladder:
        fitted = (fit(make(n_iterations, seed), data) for seed in seeds)
        accuracy = statistics.median(one.score(X_test, y_test) for one in fitted)
        best = max(best, accuracy)
        if accuracy >= wanted:
            return {"iterations": n_iterations, "s": None, "accuracy": accuracy}
    return {"iterations": None, "s": None, "accuracy": best}


def race(
    contenders: dict[str, tuple[Make, Sequence[int]]],
    data: Data,
    wanted: float,
    settings: Settings,
    n_seeds: int = 5,
) -> list[Row]:
    """Run all contenders, and report their times as multiples of the first one's.

    Those that have arrived are timed in turns, as the speed of a machine varies.
    """
    seeds = range(settings.few(1, n_seeds))
    with np.errstate(all="ignore"):
        rows: list[Row] = [
            {"case": name} | climb(make, data, wanted, ladder, seeds)
            for name, (make, ladder) in contenders.items()
        ]
        arrived = [row for row in rows if row["iterations"]]
        taken: dict[str, list[float]] = {row["case"]: [] for row in arrived}
        for seed in seeds:
            for row in arrived:
                estimator = contenders[row["case"]][0](row["iterations"], seed)
                start = settings.clock()
                fit(estimator, data)
                taken[row["case"]].append(settings.clock() - start)
    for row in arrived:
        row["s"] = statistics.median(taken[row["case"]])
    for row in rows:
        own, first = row["s"], rows[0]["s"]
        row["times the first"] = own / first if own and first else None
    return rows


def skorch_net(
    hidden: tuple[int, ...],
    activation: str,
    rate: float,
    batch: int,
    *sizes: int,
    device: str,
) -> Make:
    """Make a skorch net over the dense network that the estimators build."""

    def make(n_iterations: int, seed: int) -> NeuralNetClassifier:
        torch.manual_seed(seed)
        return NeuralNetClassifier(
            DenseNetwork(sizes[0], hidden, sizes[1], activation),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=rate,
            batch_size=batch,
            iterator_train__shuffle=True,
            max_epochs=n_iterations,
            train_split=None,
            device=device,
            verbose=0,
        )

    return make


# --- Two spirals ----------------------------------------------------------------------


def two_spirals(settings: Settings) -> list[Row]:
    """194 points, full batch, until 98 % of the points between them are right."""
    (X, y), (X_test, y_test) = make_two_spirals(), make_two_spirals(midpoints=True)
    X, X_test = X.astype(np.float32), X_test.astype(np.float32)
    y = y.astype(np.int64)
    common = {"solver": "adam", "batch_size": len(X), **TO_THE_END}

    def ours(hidden: tuple[int, ...], lam: float, rate: float) -> Make:
        return lambda n_iterations, seed: TargetSpaceClassifier(
            hidden,
            activation="tanh",
            shortcuts=True,
            lam=lam,
            learning_rate_init=rate,
            fixed_batch_size=None,
            alpha=0.0,
            max_iter=n_iterations,
            random_state=seed,
            device=settings.device,
            **common,
        )

    def mlp(hidden: tuple[int, ...], activation: str, rate: float) -> Make:
        return lambda n_iterations, seed: MLPClassifier(
            hidden,
            activation=activation,
            learning_rate_init=rate,
            max_iter=n_iterations,
            random_state=seed,
            **common,
        )

    # These are the best from a search over widths, depths, step sizes, activations,
    # solvers and the moments of Adam; for target space also λ, shortcuts and schedules.
    contenders = {
        "TargetSpaceClassifier (20, 40, 80)": (ours((20, 40, 80), 0.02, 0.4), LADDER),
        "MLPClassifier (20, 40, 80), relu": (
            mlp((20, 40, 80), "relu", 0.025),
            LONG_LADDER,
        ),
        "TargetSpaceClassifier (40, 40, 40)": (ours((40,) * 3, 0.1, 0.5), LADDER),
        "MLPClassifier (64, 64, 64), relu": (
            mlp((64,) * 3, "relu", 0.02),
            LONG_LADDER,
        ),
        "skorch (64, 64, 64), relu": (
            skorch_net((64,) * 3, "relu", 0.02, len(X), 2, 2, device=settings.device),
            LONG_LADDER,
        ),
    }
    if not settings.quick:
        contenders |= {
            "MLPClassifier (100, 100), relu": (
                mlp((100, 100), "relu", 0.02),
                LONG_LADDER,
            ),
            "MLPClassifier (100, 100), tanh": (
                mlp((100, 100), "tanh", 0.02),
                LONG_LADDER,
            ),
        }
    return race(contenders, (X, y, X_test, y_test), 0.98, settings, n_seeds=20)


# --- A deep narrow network ------------------------------------------------------------


def deep_digits(settings: Settings) -> list[Row]:
    """Hand-written digits through ten hidden layers of ten, to 93 %."""
    X, y = load_digits(return_X_y=True)
    X = ((X - X.mean(0)) / (X.std(0) + 1e-3)).astype(np.float32)
    parts = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    data = parts[0], parts[2], parts[1], parts[3]
    hidden, batch = (10,) * 10, 200
    common = {"activation": "tanh", "batch_size": batch, **TO_THE_END}
    ladder = settings.few((20, 60), (10, 20, 40, 80, 160, 320))

    def ours(n_iterations: int, seed: int) -> Any:
        return TargetSpaceClassifier(
            hidden,
            learning_rate_init=0.05,
            max_iter=n_iterations,
            random_state=seed,
            device=settings.device,
            **common,
        )

    def mlp(n_iterations: int, seed: int) -> Any:
        return MLPClassifier(
            hidden,
            learning_rate_init=0.003,
            max_iter=n_iterations,
            random_state=seed,
            **common,
        )

    contenders = {
        "TargetSpaceClassifier": (ours, ladder),
        "MLPClassifier": (mlp, ladder),
        "skorch": (
            skorch_net(hidden, "tanh", 0.003, batch, 64, 10, device=settings.device),
            ladder,
        ),
    }
    return race(contenders, data, 0.93, settings)


# --- Delayed recall -------------------------------------------------------------------


class RecallLoop:
    """A plain PyTorch loop that learns to recall bits, as an estimator of sorts."""

    def __init__(self, space: str, cell: str, rate: float, delay: int) -> None:
        self.space, self.cell, self.rate, self.delay = space, cell, rate, delay

    def prepare(self, n_iterations: int, seed: int) -> RecallLoop:
        torch.manual_seed(seed)
        self.n_iterations = n_iterations
        self.network: nn.Module = Recurrent(
            self.cell, (1, self.delay + 3, 2), 0, last=False
        )
        if self.space == "targets":
            bits = make_delayed_recall(100, self.delay, random_state=seed + 1)[0]
            fixed = torch.from_numpy(bits).float().transpose(1, 2).contiguous()
            self.network = TargetSpace(self.network, fixed, 0.1).reset_targets(1.0)
        return self

    def fit(self, X: np.ndarray, y: np.ndarray) -> RecallLoop:
        x, labels = torch.from_numpy(X), torch.from_numpy(y)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self.rate)
        for _ in range(self.n_iterations):
            rows = torch.randint(len(x), (100,))
            optimizer.zero_grad()
            sums = self.network(x[rows]).flatten(0, 1)
            F.cross_entropy(sums, labels[rows].flatten(), ignore_index=-1).backward()
            optimizer.step()
        return self

    @torch.no_grad()
    def score(self, X: np.ndarray, y: np.ndarray) -> float:
        found = self.network.eval()(torch.from_numpy(X)).argmax(-1).numpy()
        return float((found == y)[y >= 0].mean())


def delayed_recall(settings: Settings) -> list[Row]:
    """Bits of N steps ago, until 99 % are right."""
    delay = settings.few(5, 10)

    def bits(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        X, y = make_delayed_recall(n, delay, random_state=seed)
        return np.ascontiguousarray(X.transpose(0, 2, 1), np.float32), y

    data: Data = (*bits(8000, 2), *bits(1000, 3))
    ladder = settings.few((50, 100, 200), (100, 200, 400, 800, 1600))
    contenders = {
        name: (RecallLoop(space, cell, rate, delay).prepare, ladder)
        for name, space, cell, rate in [
            ("RNN in target space", "targets", "rnn", 0.01),
            ("RNN in weight space", "weights", "rnn", 0.003),
            ("LSTM in weight space", "weights", "lstm", 0.01),
        ]
    }
    return race(contenders, data, 0.99, settings)


# --- MNIST ----------------------------------------------------------------------------


def mnist(settings: Settings) -> list[Row]:
    """A dense network on the first 10,000 images, to 95 %; needs --data."""
    if settings.data is None or settings.quick:
        return []
    with np.load(settings.data / "mnist.npz") as file:
        X, y = (file[name][:10_000] for name in ("x_train", "y_train"))
        X_test, y_test = file["x_test"], file["y_test"]
    X, X_test = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (X, X_test))

    def make(kind: Any, n_iterations: int, seed: int, **kwargs: Any) -> Any:
        return kind((128,), max_iter=n_iterations, random_state=seed, **kwargs)

    # The first keeps its defaults: it anneals its steps over the epochs that it gets.
    contenders = {
        "TargetSpaceClassifier": (
            partial(make, TargetSpaceClassifier, device=settings.device),
            (20, 40, 50, 60, 80),
        ),
        **{
            f"MLPClassifier, {activation}": (
                partial(make, MLPClassifier, activation=activation, **TO_THE_END),
                (10, 20, 40, 80, 160),
            )
            for activation in ("relu", "tanh")
        },
    }
    return race(contenders, (X, y, X_test, y_test), 0.95, settings)


PARTS = {
    "two spirals, 98 %": two_spirals,
    "digits, ten layers of ten, 93 %": deep_digits,
    "delayed recall, 99 %": delayed_recall,
    "MNIST, 10,000 images, 95 %": mnist,
}

if __name__ == "__main__":
    main(__doc__, PARTS)
