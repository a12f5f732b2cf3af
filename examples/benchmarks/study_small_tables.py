"""The study of tables of few rows, and of few columns.

Two parts, each of which prints its results and adds them to one JSON file:

rows
    40, 80 and 160 training rows of every table of ``study_defaults.py``, one layer of
    100 and three of 28, beside scikit-learn's multi-layer perceptron.
columns
    Functions of one or two inputs that bend often, with one, three, six and sixteen
    hidden layers, likewise.

    python examples/benchmarks/study_small_tables.py [--data DIR] [--json FILE]

``small.json`` beside this file holds the results that the documentation shows, in the
tables of ``small.md``, which ``--tables`` writes.  The rules were chosen on splits
below 20, and the comparison begins there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from defaults_tables import marked, table
from joblib import Parallel, delayed
from measuring import limit_threads
from sklearn.neural_network import MLPClassifier, MLPRegressor
from study_defaults import (
    CHOOSE,
    REPORT,
    Parts,
    Tables,
    is_classes,
    measure,
    rounded,
    scaled,
)

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.datasets import make_two_spirals

HERE = Path(__file__).parent
ROWS = [40, 80, 160]
SHAPES = {
    "100": (100,),
    "3 × 28": (28,) * 3,
    "6 × 28": (28,) * 6,
    "16 × 28": (28,) * 16,
}
SPLITS = range(20, 24)
N_TEST = 2000


# --- Functions of few inputs ----------------------------------------------------------


def sine(
    n: int, rng: np.random.Generator, rate: float, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Make a sine of one input from -1 to 1."""
    X = rng.uniform(-1, 1, (n, 1))
    return X, np.sin(rate * X[:, 0]) + noise * rng.normal(size=n)


def ripples(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a product of two waves."""
    X = rng.uniform(-2, 2, (n, 2))
    return X, np.sin(4 * X[:, 0]) * np.cos(3 * X[:, 1])


def saddle(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a product of two inputs, and as much noise."""
    X = rng.normal(size=(n, 2))
    return X, X[:, 0] * X[:, 1] + rng.normal(size=n)


def checkers(
    n: int, rng: np.random.Generator, side: int, wrong: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Make the two colours of a board, some of them wrong."""
    X = rng.uniform(0, side, (n, 2))
    y = (np.floor(X).sum(1) % 2).astype(int)
    return X, np.where(rng.uniform(size=n) < wrong, 1 - y, y)


def spirals(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make two spirals."""
    X, y = make_two_spirals(n, random_state=int(rng.integers(2**31)))
    order = rng.permutation(n)
    return X[order], y[order]


BENT: dict[str, tuple[Callable[..., Any], int]] = {
    "sin 10x": (partial(sine, rate=10), 1000),
    "sin 20x": (partial(sine, rate=20), 2000),
    "sin 3x, noise": (partial(sine, rate=3, noise=0.5), 300),
    "ripples": (ripples, 1000),
    "saddle, noise": (saddle, 400),
    "checkers": (partial(checkers, side=6), 2000),
    "checkers, noise": (partial(checkers, side=3, wrong=0.2), 1000),
    "spirals": (spirals, 200),
}
"""Makers of functions, and numbers of training rows."""


def load(name: str, seed: int) -> Parts:
    """Return standardised training and test inputs, and outputs, of a function."""
    make, n = BENT[name]
    X, y = make(n + N_TEST, np.random.default_rng(seed))
    X = (X - X[:n].mean(0)) / X[:n].std(0)
    return X[:n], y[:n], X[n:], y[n:]


# --- The two parts --------------------------------------------------------------------


def rivals(classes: bool, shape: tuple[int, ...]) -> dict[str, Callable[[int], Any]]:
    """Make the estimators to compare; the MLP gets standardised outputs."""
    kind = TargetSpaceClassifier if classes else TargetSpaceRegressor
    mlp = MLPClassifier if classes else MLPRegressor

    def make_mlp(seed: int) -> Any:
        return mlp(hidden_layer_sizes=shape, random_state=seed)

    return {
        "target space": lambda seed: kind(shape, random_state=seed),
        "MLP": make_mlp if classes else scaled(make_mlp),
    }


def of_rows(name: str, n: int, shape: str, folder: Path | None) -> Any:
    """Compare on a table of which only some rows are learnt."""
    limit_threads(1)
    for _, parts in Tables(folder, n).of([name]):
        found = rivals(is_classes(name), SHAPES[shape])
        return {m: measure_on(make, parts) for m, make in found.items()}
    return None


def of_columns(name: str, shape: str) -> Any:
    """Compare on a function of few inputs."""
    limit_threads(1)
    found = rivals(load(name, 0)[1].dtype.kind == "i", SHAPES[shape])
    return {m: measure_on(make, partial(load, name)) for m, make in found.items()}


def measure_on(make: Callable[[int], Any], parts: Callable[[int], Parts]) -> Any:
    """Fit and score on the splits that chose nothing."""
    return measure(lambda k: make(SPLITS[k]), lambda k: parts(SPLITS[k]), len(SPLITS))


def study_rows(parallel: Parallel, folder: Path | None) -> dict[str, Any]:
    """Compare on few rows of all tables that are available."""
    names = [n for half in (CHOOSE, REPORT) for kind in half.values() for n in kind]
    cases = [(name, n, s) for name in names for n in ROWS for s in ("100", "3 × 28")]
    found: dict[str, Any] = {}
    results = parallel(delayed(of_rows)(*case, folder) for case in cases)
    for (name, n, shape), result in zip(cases, results, strict=True):
        if result is not None:
            found.setdefault(name, {}).setdefault(str(n), {})[shape] = result
    return found


def study_columns(parallel: Parallel) -> dict[str, Any]:
    """Compare on all functions of few inputs."""
    cases = [(name, shape) for name in BENT for shape in SHAPES]
    found: dict[str, Any] = {}
    results = parallel(delayed(of_columns)(*case) for case in cases)
    for (name, shape), result in zip(cases, results, strict=True):
        found.setdefault(name, {})[shape] = result
    return found


# --- Results --------------------------------------------------------------------------


def mean(run: dict[str, Any]) -> float:
    """Return the mean score of a method over the splits."""
    return float(np.mean(run["scores"]))


def of_few_rows(found: dict[str, Any]) -> str:
    """Return means over tables of classes and of numbers, by rows and layers."""
    lines = []
    for n in map(str, ROWS):
        for shape in next(iter(found.values()))[n]:
            cells = [n, shape]
            for classes in (True, False):
                runs = [
                    by_rows[n][shape]
                    for name, by_rows in found.items()
                    if is_classes(name) == classes
                ]
                pairs = [(mean(r["target space"]), mean(r["MLP"])) for r in runs]
                cells += [f"{m:.3f}" for m in np.mean(pairs, axis=0)]
                cells.append(f"{sum(a > b for a, b in pairs)} of {len(pairs)}")
            lines.append(cells)
    of_each = ["target space", "MLP", "ahead on"]
    head = [
        "rows",
        "layers",
        *(f"{h}, {k}" for k in ("accuracy", "R²") for h in of_each),
    ]
    return table(head, lines)


def of_few_columns(found: dict[str, Any]) -> str:
    """Return the scores on each function, by layers."""
    lines = []
    for name, by_shape in found.items():
        for method in ("target space", "MLP"):
            scores = (f"{mean(runs[method]):.3f}" for runs in by_shape.values())
            lines.append([name, method, *scores])
    return table(["function", "", *SHAPES], lines)


def as_markdown(found: dict[str, Any]) -> str:
    """Return the tables there are, each between marks by which pages include it."""
    kinds = {"rows": of_few_rows, "columns": of_few_columns}
    return marked({k: write(found[k]) for k, write in kinds.items() if k in found})


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with tab_NAME.csv.xz")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--json", type=Path, help="add the results to this file")
    parser.add_argument("--tables", action="store_true", help="only write small.md")
    parser.add_argument("--only", nargs="+", choices=("rows", "columns"))
    options = parser.parse_args()
    if options.tables:
        found = json.loads((HERE / "small.json").read_text("utf-8"))
        (HERE / "small.md").write_text(as_markdown(found), "utf-8")
        return
    found = {}
    if options.json is not None and options.json.is_file():
        found = json.loads(options.json.read_text("utf-8"))
    parallel = Parallel(options.jobs)
    jobs: dict[str, Callable[[], Any]] = {
        "rows": lambda: study_rows(parallel, options.data),
        "columns": lambda: study_columns(parallel),
    }
    for part in options.only or jobs:
        found[part] = rounded(jobs[part]())
        if options.json is not None:
            text = json.dumps(found, separators=(",", ":"))
            options.json.write_text(text + "\n", "utf-8")
    print(as_markdown(found))


if __name__ == "__main__":
    main()
