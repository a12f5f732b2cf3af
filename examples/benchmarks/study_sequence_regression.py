"""Numbers for sequences and their steps: the defaults beside weight space.

Each task is learnt with each kind of cell by ``TargetSpaceSequenceRegressor()``, and by
the same network in weight space, with its defaults and with other step sizes and weight
decays.  The tasks are generated series and, if a folder has them, the series of
``study_sequences.py``.  The rules are mostly those that were chosen for classes; how
many epochs to reserve was chosen on splits below 20, and the comparison begins there.

    python examples/benchmarks/study_sequence_regression.py [--data DIR] [--json FILE]

``sequence_numbers.json`` beside this file holds the results that the documentation
shows, in the table of ``sequence_numbers.md``, which ``--tables`` writes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from defaults_tables import spread, table
from measuring import limit_threads
from study_defaults import rounded
from study_sequences import (
    CELLS,
    a_fifth,
    in_weights,
    marked_numbers,
    quiet_fit,
    study,
)

from sktarget import TargetSpaceSequenceRegressor

HERE = Path(__file__).parent
N_TEST = 500
Pair = tuple[np.ndarray, np.ndarray]

METHODS: dict[str, dict[str, Any]] = {
    "target space": {},
    "weight space": {"parameterization": "weights"},
    "0.003, annealed": in_weights(0.003, "annealed"),
    "0.01, annealed": in_weights(0.01, "annealed"),
    "0.01, annealed, fifths": in_weights(0.01, "annealed") | {"batch_size": "fifth"},
    "0.01, annealed, alpha = 0.3": in_weights(0.01, "annealed", 0.3),
}
"""Target space, and settings of weight space, the best of which counts."""


# --- Tasks ----------------------------------------------------------------------------


def next_of_wave(n: int, rng: np.random.Generator) -> Pair:
    """Foretell, at each step, the next of a wave of any speed, with some noise."""
    phase, speed = rng.uniform(0, 2 * np.pi, (n, 1)), rng.uniform(0.2, 0.8, (n, 1))
    waves = np.sin(phase + speed * np.arange(31)) + 0.1 * rng.normal(size=(n, 31))
    return waves[:, None, :-1], waves[:, 1:]


def frequency(n: int, rng: np.random.Generator) -> Pair:
    """Tell the frequency of a wave among as much noise."""
    phase, speed = rng.uniform(0, 2 * np.pi, (n, 1)), rng.uniform(0.2, 0.8, (n, 1))
    waves = np.sin(phase + speed * np.arange(40)) + 0.5 * rng.normal(size=(n, 40))
    return waves[:, None], speed[:, 0]


def echo(n: int, rng: np.random.Generator) -> Pair:
    """Give back, at each step, the number of ten steps before."""
    X, y = rng.normal(size=(n, 1, 40)), np.full((n, 40), np.nan)
    y[:, 10:] = X[:, 0, :-10]
    return X, y


def narma(n: int, rng: np.random.Generator) -> Pair:
    """Follow a nonlinear system of order ten."""
    u, y = rng.uniform(0, 0.5, (n, 60)), np.zeros((n, 61))
    for t in range(10, 60):
        past = y[:, t] * y[:, t - 9 : t + 1].sum(1)
        y[:, t + 1] = np.tanh(
            0.3 * y[:, t] + 0.05 * past + 1.5 * u[:, t - 9] * u[:, t] + 0.1
        )
    y[:, :13] = np.nan
    return u[:, None], y[:, 1:]


def mackey_glass(n: int, rng: np.random.Generator) -> Pair:
    """Foretell a chaotic series six steps ahead."""
    series = list(rng.uniform(0.5, 1.5, (n, 18)).T)
    while len(series) < 384:
        past = series[-18]
        series.append(0.9 * series[-1] + 0.2 * past / (1 + past**10))
    last = np.stack(series[-66:], 1)
    last += 0.02 * rng.normal(size=last.shape)
    return last[:, None, :60], last[:, 6:]


def correlation(n: int, rng: np.random.Generator) -> Pair:
    """Tell the mean product of two channels of noise."""
    X = rng.normal(size=(n, 2, 25))
    return X, (X[:, 0] * X[:, 1]).mean(1)


def first_two(n: int, rng: np.random.Generator) -> Pair:
    """Remember the first two of 30 steps of noise."""
    X = rng.normal(size=(n, 1, 30))
    return X, X[:, 0, :2]


class Task(NamedTuple):
    """How to make a task, how many sequences to learn, and of what the numbers are."""

    make: Callable[[int, np.random.Generator], Pair]
    n: int
    of_steps: bool


TASKS = {
    "next of wave": Task(next_of_wave, 60, True),
    "frequency": Task(frequency, 300, False),
    "adding": Task(marked_numbers, 1000, False),
    "echo": Task(echo, 200, True),
    "NARMA": Task(narma, 100, True),
    "Mackey-Glass": Task(mackey_glass, 100, True),
    "correlation": Task(correlation, 500, False),
    "first two": Task(first_two, 300, False),
}
REAL = "ItalyPowerDemand"
"""Of a day's power demand, the last six hours from the first 18."""


def load(task: str, seed: int, folder: Path | None) -> tuple[Any, ...] | None:
    """Return training and test sequences, or None if they are missing."""
    rng = np.random.default_rng(seed)
    if task == REAL:
        if folder is None or not (folder / f"ts_{task}.npz").is_file():
            return None
        with np.load(folder / f"ts_{task}.npz") as file:
            days = np.concatenate([file["x_train"], file["x_test"]])[:, 0]
        days = days[rng.permutation(len(days))]
        X, y, n, of_steps = days[:, None, :18], days[:, 18:], 200, False
    else:
        make, n, of_steps = TASKS[task]
        X, y = make(n + N_TEST, rng)
    mean, deviation = (
        X[:n].mean((0, 2), keepdims=True),
        X[:n].std((0, 2), keepdims=True),
    )
    X = ((X - mean) / deviation).astype(np.float32)
    return X[:n], y[:n], X[n:], y[n:], of_steps


# --- Methods and results --------------------------------------------------------------


def measure(
    task: str, cell: str, label: str, seed: int, folder: Path | None, epochs: int
) -> dict[str, Any] | None:
    """Fit and score on one split."""
    limit_threads(1)
    parts = load(task, seed, folder)
    if parts is None:
        return None
    X, y, X_test, y_test, of_steps = parts
    settings = dict(METHODS[label])
    if settings.get("batch_size") == "fifth":
        settings["batch_size"] = a_fifth(X)
    model = TargetSpaceSequenceRegressor(
        cell=cell,
        return_sequences=of_steps,
        max_iter=epochs,
        random_state=seed,
        **settings,
    )
    start = time.perf_counter()
    quiet_fit(model, X, y)
    seconds = time.perf_counter() - start
    return {"scores": float(model.score(X_test, y_test)), "seconds": seconds}


def as_markdown(found: dict[str, Any]) -> str:
    """Return the table of all tasks, and means."""
    rows, others = [], list(METHODS)[1:]
    for task, cells in found.items():
        for cell, runs in cells.items():
            best = max(others, key=lambda m: np.mean(runs[m]["scores"]))
            shown = [spread(runs, m) for m in ("target space", "weight space", best)]
            rows.append([task, cell, *shown, "defaults" if best == others[0] else best])
    for cell in CELLS:
        means = {
            m: np.mean([np.mean(cells[cell][m]["scores"]) for cells in found.values()])
            for m in METHODS
        }
        best = max(others, key=means.__getitem__)
        shown = [f"{means[m]:.3f}" for m in ("target space", "weight space", best)]
        rows.append(["mean", cell, *shown, "defaults" if best == others[0] else best])
    head = ["task", "cell", "target space", "weight space", "best of five", "which"]
    return table(head, rows) + "\n"


def main() -> None:
    """Run the study, or write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with ts_NAME.npz")
    parser.add_argument("--quick", action="store_true", help="few epochs")
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    options = parser.parse_args()
    if options.tables:
        text = (HERE / "sequence_numbers.json").read_text("utf-8")
        (HERE / "sequence_numbers.md").write_text(
            as_markdown(json.loads(text)), "utf-8"
        )
        return
    tasks, seeds = [*TASKS, REAL], range(20, 20 + options.splits)
    found = rounded(study(tasks, CELLS, list(METHODS), seeds, options, measure))
    if options.json is not None:
        text = json.dumps(found, separators=(",", ":"))
        options.json.write_text(text + "\n", "utf-8")
    print(as_markdown(found))


if __name__ == "__main__":
    main()
