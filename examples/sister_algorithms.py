"""Target space, its two sister algorithms and back-propagation, side by side.

The same networks learn the same data in four ways: in target space, by difference
target propagation, by regularised inversion, and in weight space.  Controls show how
far a network gets that trains only its output layer, and what each method loses
without the part that makes it work.

- Digits, with 2, 3 and 7 hidden layers: accuracy on a quarter of the rows, set aside,
  after the last epoch.
- Temporal order, 20 and 60 steps: accuracy on 1000 fresh sequences after training on
  sequences that are never shown twice, or as soon as 99.9 % are right.

    python examples/sister_algorithms.py [--quick] [--figure sister_algorithms.png]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from sktarget import TargetSpaceClassifier, TargetSpaceSequenceClassifier
from sktarget.datasets import make_temporal_order
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    RegularizedInversionClassifier,
    RegularizedInversionSequenceClassifier,
)

Table = dict[str, dict[str, list[float]]]
Make = Callable[..., Any]

DIGITS: dict[str, Make] = {
    "target space": lambda **k: TargetSpaceClassifier(activation="tanh", **k),
    "difference target propagation": lambda **k: DifferenceTargetPropagationClassifier(
        learning_rate_init=0.001, **k
    ),
    "regularised inversion": lambda **k: RegularizedInversionClassifier(
        learning_rate_init=0.001, **k
    ),
    "back-propagation": lambda **k: TargetSpaceClassifier(
        parameterization="weights",
        activation="tanh",
        learning_rate_init=0.001,
        alpha=0.0,
        **k,
    ),
    "control: output layer alone": lambda **k: DifferenceTargetPropagationClassifier(
        target_lr=0.0, learning_rate_init=0.001, **k
    ),
    "control: no difference correction": (
        lambda **k: DifferenceTargetPropagationClassifier(
            difference=False, learning_rate_init=0.001, **k
        )
    ),
}
WIDTHS = {2: 100, 3: 80, 7: 60}

INVERSION: dict[str, Any] = {"learning_rate_init": 0.1, "batch_size": 20}
ORDER: dict[str, Make] = {
    "target space": lambda width, **k: TargetSpaceSequenceClassifier(
        recurrent_layer_sizes=width, learning_rate_init=0.005, batch_size=20, **k
    ),
    "regularised inversion, local": (
        lambda width, **k: RegularizedInversionSequenceClassifier(
            width, **INVERSION, **k
        )
    ),
    "regularised inversion, through time": (
        lambda width, **k: RegularizedInversionSequenceClassifier(
            width,
            update="through_time",
            linearize=True,
            clip=1e-3,
            ridge=10.0,
            target_lr=0.1 if width < 100 else 0.01,
            **INVERSION,
            **k,
        )
    ),
    "back-propagation": lambda width, **k: TargetSpaceSequenceClassifier(
        recurrent_layer_sizes=width,
        parameterization="weights",
        learning_rate_init=0.001,
        alpha=0.0,
        batch_size=20,
        **k,
    ),
    "control: output layer alone": (
        lambda width, **k: RegularizedInversionSequenceClassifier(
            width, target_lr=0.0, **INVERSION, **k
        )
    ),
    "control: truncated to one step": (
        lambda width, **k: RegularizedInversionSequenceClassifier(
            width, ridge=1e8, target_lr=0.3, linearize=True, **INVERSION, **k
        )
    ),
}


def digits(depths: Sequence[int], epochs: int, seeds: Sequence[int]) -> Table:
    """Train every kind on the digits, and score it on the rows set aside."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    table: Table = {}
    for name, make in DIGITS.items():
        for depth in depths:
            scores = table.setdefault(name, {}).setdefault(f"{depth} layers", [])
            for seed in seeds:
                X_train, X_test, y_train, y_test = train_test_split(
                    X, y, test_size=0.25, stratify=y, random_state=seed
                )
                model = make(
                    hidden_layer_sizes=(WIDTHS[depth],) * depth,
                    max_iter=epochs,
                    tol=0.0,
                    n_iter_no_change=epochs,
                    batch_size=100,
                    random_state=seed,
                )
                scores.append(model.fit(X_train, y_train).score(X_test, y_test))
            report(name, f"digits, {depth} hidden layers", scores)
    return table


def temporal_order(
    lengths: Sequence[int], n_batches: int, seeds: Sequence[int], chunk: int
) -> Table:
    """Train every kind on fresh sequences, and score it on others."""
    table: Table = {}
    for name, make in ORDER.items():
        for length in lengths:
            scores = table.setdefault(name, {}).setdefault(f"{length} steps", [])
            for seed in seeds:
                model = make(30 if length <= 20 else 100, random_state=seed)
                scores.append(learn_order(model, length, n_batches, seed, chunk))
            report(name, f"temporal order, {length} steps", scores)
    return table


def learn_order(model: Any, length: int, n_batches: int, seed: int, chunk: int) -> Any:
    """Show mini-batches of fresh sequences until 99.9 % of others are right."""
    generator = np.random.RandomState(seed)
    X_test, y_test = make_temporal_order(1000, length, random_state=generator)
    score = 0.0
    for _ in range(0, n_batches, chunk):
        X, y = make_temporal_order(20 * chunk, length, random_state=generator)
        model.partial_fit(X.astype(np.float32), y, classes=range(4))
        score = model.score(X_test, y_test)
        if score >= 0.999:
            break
    return score


def report(name: str, problem: str, scores: list[float]) -> None:
    """Print one cell as soon as it is known."""
    now = time.strftime("%H:%M:%S")
    shown = f"{np.mean(scores):.3f} [{np.min(scores):.3f}]"
    print(f"{now}  {problem:<28}{name:<37}{shown}", flush=True)


def show(title: str, table: Table) -> None:
    """Print means and minima over the seeds as a table."""
    columns = list(next(iter(table.values())))
    print(f"\n| {title} | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name, cells in table.items():
        row = (f"{np.mean(s):.3f} [{np.min(s):.3f}]" for s in cells.values())
        print(f"| {name} | " + " | ".join(row) + " |")


def draw(tables: dict[str, Table], path: str) -> None:
    """Draw a bar for each mean, a dot for each seed."""
    figure, panels = plt.subplots(1, len(tables), figsize=(12, 5), sharey=True)
    for panel, (title, table) in zip(panels, tables.items(), strict=True):
        columns = list(next(iter(table.values())))
        width = 0.8 / len(table)
        for k, (name, cells) in enumerate(table.items()):
            places = np.arange(len(columns)) + (k - len(table) / 2 + 0.5) * width
            means = [np.mean(scores) for scores in cells.values()]
            color = f"C{k}" if not name.startswith("control") else f"{0.5 + 0.06 * k}"
            panel.bar(places, means, width, label=name, color=color)
            for place, scores in zip(places, cells.values(), strict=True):
                panel.plot([place] * len(scores), scores, ".k", markersize=3)
        panel.set_xticks(range(len(columns)), columns)
        panel.set_title(title)
        panel.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, fontsize="small"
        )
    panels[0].set_ylabel("accuracy")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"\nfigure: {path}")


def main() -> None:
    """Run both problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, in a minute")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figure", default="sister_algorithms.png")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if arguments.quick:
            tables = {
                "digits": digits([2, 7], epochs=12, seeds=[0]),
                "temporal order": temporal_order([20], 200, seeds=[0], chunk=100),
            }
        else:
            seeds = range(arguments.seeds)
            tables = {
                "digits": digits([2, 3, 7], epochs=60, seeds=seeds),
                "temporal order": temporal_order([20, 60], 6000, seeds, chunk=500),
            }
    for title, table in tables.items():
        show(title, table)
    draw(tables, arguments.figure)


if __name__ == "__main__":
    main()
