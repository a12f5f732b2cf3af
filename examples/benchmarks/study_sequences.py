"""The study behind the defaults for sequences: tasks, cells, and single rules.

Two parts, each of which prints its results and adds them to one JSON file:

defaults
    ``TargetSpaceSequenceClassifier()`` with each kind of cell, beside the same network
    in weight space, with its defaults and with other step sizes and weight decays.
rules
    One default at a time replaced by something else, without holding sequences out.

The tasks are generated series, the digits that come with scikit-learn, read row by row,
and, if a folder has them, series ``ts_NAME.npz`` with the arrays ``x_train`` (n,
channels, time), ``y_train``, ``x_test`` and ``y_test``, of which every split draws a
training set anew.  Channels are scaled to mean 0 and deviation 1.

    python examples/benchmarks/study_sequences.py [--data DIR] [--quick] [--json FILE]

``sequences.json`` beside this file holds the results that the documentation shows, in
the tables of ``sequences.md``, which ``--tables`` writes.  The rules were chosen on
splits below 20, and the comparison begins there.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from defaults_tables import marked, spread, table
from joblib import Parallel, delayed
from measuring import limit_threads
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from study_defaults import rounded

from sktarget import TargetSpaceSequenceClassifier
from sktarget.datasets import make_delayed_recall

HERE = Path(__file__).parent
CELLS = ["rnn", "gru", "lstm"]
N_TEST = 1000
Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


# --- Tasks ----------------------------------------------------------------------------


def waves(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tell the frequency of a noisy wave of 40 steps, one of three."""
    y = rng.integers(3, size=n)
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    X = np.sin(phase + (0.4 + 0.15 * y[:, None, None]) * np.arange(40))
    return X + 0.5 * rng.normal(size=X.shape), y


def first_step(
    n: int, rng: np.random.Generator, n_steps: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Remember the sign of the first of some steps of noise."""
    X = rng.normal(size=(n, 1, n_steps))
    return X, (X[:, 0, 0] > 0).astype(int)


def peaks(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Remember the signs of two peaks among 60 steps of weak noise."""
    X, signs = 0.1 * rng.normal(size=(n, 1, 60)), rng.integers(2, size=(2, n))
    X[np.arange(n), 0, rng.integers(3, 10, n)] = 2 * signs[0] - 1
    X[np.arange(n), 0, rng.integers(25, 32, n)] = 2 * signs[1] - 1
    return X, 2 * signs[0] + signs[1]


def recall(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Give back, at each of 40 steps, the bit of 15 steps before."""
    seed = int(rng.integers(2**31))
    return make_delayed_recall(n, delay=15, n_timesteps=40, random_state=seed)


def running_sum(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tell at each of 30 steps of noise whether the last four add up to more than 0."""
    X = rng.normal(size=(n, 1, 30))
    sums = np.cumsum(np.pad(X[:, 0], ((0, 0), (4, 0))), axis=1)
    return X, (sums[:, 4:] > sums[:, :-4]).astype(int)


def marked_numbers(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make 30 numbers, of which two are marked, and the sum of these."""
    numbers, marks = rng.uniform(size=(n, 30)), np.zeros((n, 30))
    marks[np.arange(n), rng.integers(0, 15, n)] = 1
    marks[np.arange(n), rng.integers(15, 30, n)] = 1
    return np.stack([numbers, marks], 1), (numbers * marks).sum(1)


def adding(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tell whether two marked numbers among 30 add up to more than 1."""
    X, sums = marked_numbers(n, rng)
    return X, (sums > 1).astype(int)


MADE: dict[str, tuple[Callable[..., Any], int]] = {
    "waves": (waves, 300),
    "waves, few": (waves, 60),
    "first of 20": (first_step, 200),
    "first of 50": (partial(first_step, n_steps=50), 500),
    "peaks": (peaks, 200),
    "adding": (adding, 1000),
    "recall": (recall, 200),
    "running sum": (running_sum, 100),
}
"""Makers of tasks, and numbers of training sequences."""
LABELS_OF_STEPS = ["recall", "running sum"]
DIGITS = {"digits": 1200, "digits, few": 150}
REAL = ["ItalyPowerDemand", "GunPoint", "BasicMotions"]
TASKS = [*MADE, *DIGITS, *REAL]


def load(task: str, seed: int, folder: Path | None) -> Parts | None:
    """Return training and test sequences of a split, or None if they are missing."""
    if task in MADE:
        make, n = MADE[task]
        X, y = make(n + N_TEST, np.random.default_rng(seed))
        X, X_test, y, y_test = X[:n], X[n:], y[:n], y[n:]
    elif task in DIGITS:
        images = load_digits()
        X, X_test, y, y_test = train_test_split(
            images.images.transpose(0, 2, 1),
            images.target,
            train_size=DIGITS[task],
            stratify=images.target,
            random_state=seed,
        )
    elif folder is None or not (folder / f"ts_{task}.npz").is_file():
        return None
    else:
        with np.load(folder / f"ts_{task}.npz") as file:
            n = len(file["y_train"])
            X, y = (
                np.concatenate([file[f"{k}_train"], file[f"{k}_test"]]) for k in "xy"
            )
        X, X_test, y, y_test = train_test_split(
            X, y, train_size=n, stratify=y, random_state=seed
        )
    mean, deviation = X.mean((0, 2), keepdims=True), X.std((0, 2), keepdims=True)
    deviation[deviation == 0] = 1
    parts = ((X - mean) / deviation, y, (X_test - mean) / deviation, y_test)
    return tuple(p.astype(np.float32) if p.ndim == 3 else p for p in parts)  # type: ignore[return-value]


# --- Methods --------------------------------------------------------------------------


def in_weights(rate: float, schedule: str, alpha: float = 0.0001) -> dict[str, Any]:
    """Return settings of a network in weight space."""
    return {
        "parameterization": "weights",
        "learning_rate_init": rate,
        "learning_rate": schedule,
        "alpha": alpha,
    }


METHODS: dict[str, dict[str, Any]] = {
    "target space": {},
    "weight space": {"parameterization": "weights"},
    "0.003, annealed": in_weights(0.003, "annealed"),
    "0.01, annealed": in_weights(0.01, "annealed"),
    "0.01, annealed, fifths": in_weights(0.01, "annealed") | {"batch_size": "fifth"},
    "0.01, annealed, alpha = 0.3": in_weights(0.01, "annealed", 0.3),
    "memory": {"parameterization": "weights", "initial_memory": "half"},
    "0.003, annealed, memory": {
        **in_weights(0.003, "annealed"),
        "initial_memory": "half",
    },
}
"""Target space, and settings of weight space, the best of which counts.

The last two begin with gates that remember for half of a sequence, as target space does
by default; simple cells have no gates.
"""

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "λ / 10": {"factors": (0.1, 0.1)},
    "λ × 10": {"factors": (10, 10)},
    "λ of exits as of states": {"factors": (1, None)},
    "anchor = zero": {"anchor": "zero"},
    "anchor = weights": {"anchor": "weights"},
    "no initial memory": {"initial_memory": None},
    "constant step 0.005": {"learning_rate_init": 0.005},
    "step 0.03": {
        "learning_rate_init": 0.03,
        "learning_rate": "annealed",
    },
    "step 0.3": {
        "learning_rate_init": 0.3,
        "learning_rate": "annealed",
    },
    "alpha = 0.0001": {"alpha": 0.0001},
    "alpha from the start": {"alpha": "full"},
}
"""Replacements of single defaults; `factors` multiply λ of states and of exits."""


def quiet_fit(
    model: TargetSpaceSequenceClassifier, *data: np.ndarray
) -> TargetSpaceSequenceClassifier:
    """Fit without a warning that the epochs have run out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*data)


def a_fifth(X: np.ndarray) -> int:
    """Return the mini-batches that a further run in target space may take."""
    return min(len(X), max(25, len(X) // 5))


def measure(
    task: str, cell: str, label: str, seed: int, folder: Path | None, epochs: int
) -> dict[str, Any] | None:
    """Fit and score on one split."""
    limit_threads(1)
    parts = load(task, seed, folder)
    if parts is None:
        return None
    X, y, X_test, y_test = parts
    settings = dict((METHODS | VARIANTS)[label])
    model = TargetSpaceSequenceClassifier(
        cell=cell,
        return_sequences=task in LABELS_OF_STEPS,
        max_iter=epochs,
        random_state=seed,
        early_stopping="auto" if label in METHODS else False,
    )
    if "factors" in settings:
        states, exits = settings.pop("factors")
        lam = quiet_fit(model.set_params(max_iter=1), X, y).lam_
        model.set_params(max_iter=epochs)
        settings["lam"] = (states * lam[0], exits * lam[1] if exits else lam[0])
    if settings.get("batch_size") == "fifth":
        settings["batch_size"] = a_fifth(X)
    if settings.get("initial_memory") == "half":
        settings["initial_memory"] = X.shape[2] / 2
    if settings.get("alpha") == "full":
        settings["alpha"] = min(1.0, len(X) / 1000) * (3 if cell == "rnn" else 1)
    start = time.perf_counter()
    quiet_fit(model.set_params(**settings), X, y)
    seconds = time.perf_counter() - start
    score = float(model.score(X_test, y_test))
    return {"scores": score, "seconds": seconds, "epochs": model.n_iter_}


def study(
    tasks: list[str],
    cells: list[str],
    labels: list[str],
    seeds: range,
    options: Any,
    measure: Callable[..., dict[str, Any] | None] = measure,
) -> dict[str, Any]:
    """Measure all combinations."""
    found: dict[str, Any] = {}
    epochs = 3 if options.quick else 200
    for task in tasks:
        for cell in cells:
            runs = Parallel(options.jobs)(
                delayed(measure)(task, cell, label, seed, options.data, epochs)
                for label in labels
                for seed in seeds
            )
            if runs[0] is None:
                print(f"{task}: not found, left out")
                break
            of_cell = found.setdefault(task, {})[cell] = {}
            print(f"{task}, {cell}:", flush=True)
            for k, label in enumerate(labels):
                several = runs[k * len(seeds) : (k + 1) * len(seeds)]
                of_cell[label] = {key: [r[key] for r in several] for key in several[0]}
                print(f"    {label:28s}{spread(of_cell, label)}", flush=True)
    return found


# --- Tables ---------------------------------------------------------------------------


def of_methods(found: dict[str, Any]) -> str:
    """Compare target space with weight space, task by task."""
    rows, others = [], list(METHODS)[1:]
    for task, cells in found.items():
        for cell, runs in cells.items():
            best = max(others, key=lambda m: np.mean(runs[m]["scores"]))
            shown = [spread(runs, m) for m in ("target space", "weight space", best)]
            rows.append([task, cell, *shown, "defaults" if best == others[0] else best])
    head = ["task", "cell", "target space", "weight space", "best of seven", "which"]
    return table(head, rows)


def of_means(found: dict[str, Any], labels: list[str], cells: list[str]) -> str:
    """Return the mean score of each label over all tasks, by cell."""
    rows = []
    for label in labels:
        by_cell = [[runs[cell][label] for runs in found.values()] for cell in cells]
        means = [np.mean([np.mean(r["scores"]) for r in runs]) for runs in by_cell]
        rows.append([label, *(f"{mean:.3f}" for mean in means)])
    return table(["", *cells], rows)


def as_markdown(found: dict[str, Any]) -> str:
    """Return all tables, each between marks by which pages include it."""
    rules = found["rules"]
    parts = {
        "means": of_means(found["defaults"], list(METHODS), CELLS),
        "tasks": of_methods(found["defaults"]),
        "rules": of_means(rules, list(VARIANTS), list(next(iter(rules.values())))),
    }
    return marked(parts)


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with ts_NAME.npz")
    parser.add_argument("--quick", action="store_true", help="few epochs, one split")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--json", type=Path, help="add the results to this file")
    parser.add_argument("--tables", action="store_true", help="only write sequences.md")
    names = ("defaults", "rules")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    if options.tables:
        found = json.loads((HERE / "sequences.json").read_text("utf-8"))
        (HERE / "sequences.md").write_text(as_markdown(found), "utf-8")
        return
    found = {}
    if options.json is not None and options.json.is_file():
        found = json.loads(options.json.read_text("utf-8"))
    splits, tasks = options.splits, TASKS
    if options.quick:
        splits, tasks = 1, ["digits, few", "waves, few"]
    large = ("adding", "waves", "digits", "first of 50", "recall")
    small = [t for t in tasks if t not in large]
    shown, tried = range(20, 20 + splits), range(splits)
    jobs: dict[str, Callable[[], Any]] = {
        "defaults": lambda: study(tasks, CELLS, list(METHODS), shown, options),
        "rules": lambda: study(small, CELLS[:2], list(VARIANTS), tried, options),
    }
    for name in options.only:
        found[name] = rounded(jobs[name]())
        if options.json is not None:
            options.json.write_text(
                json.dumps(found, separators=(",", ":")) + "\n", "utf-8"
            )


if __name__ == "__main__":
    main()
