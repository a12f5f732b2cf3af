"""
Film reviews
============

The sentiment task of Fairbank, Samothrakis and Citi (Sec. 5.4, Fig. 10, Table 3):
25,000 reviews to train on and as many to test, the 5,000 most frequent words, the last
500 words of each review; an embedding of 32, a recurrent layer of 100 and the output
after the last word.  A plain recurrent network learns in target space and in weight
space, and an LSTM in weight space.

``python examples/paper/imdb.py --data DIR`` needs ``imdb_train.csv.xz`` and
``imdb_test.csv.xz`` with the columns ``text`` and ``label``; without ``--data``,
made-up reviews stand in.  ``--quick`` uses few reviews and takes less than a minute.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline, make_pipeline

from sktarget import TargetSpaceSequenceClassifier
from sktarget.preprocessing import TokenSequencer

N_WORDS, N_STEPS = 5000, 500
# As in the paper's word list: single letters count, apostrophes belong to words.
WORD = r"(?u)\b\w[\w']*\b"
METHODS: dict[str, dict[str, Any]] = {
    "target space": {},
    "weight space": {"parameterization": "weights"},
    "LSTM": {"parameterization": "weights", "cell": "lstm"},
    "LSTM in target space": {"cell": "lstm"},
}
# From Table 3: best test accuracy in per cent.
PAPER = {"target space": 87.7, "weight space": 79.0, "LSTM": 87.3}


def reviews(folder: Path, n: int | None) -> list[tuple[list[str], np.ndarray]]:
    """Read training and test reviews, `n` of each, in random order."""
    parts = []
    for name in ("train", "test"):
        table = pd.read_csv(folder / f"imdb_{name}.csv.xz")
        table = table.sample(n=n or len(table), random_state=0)
        parts.append((table["text"].tolist(), table["label"].to_numpy()))
    return parts


def made_up_reviews(n: int) -> list[tuple[list[str], np.ndarray]]:
    """Make up reviews of random words, some of which depend on the label."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{k}" for k in range(400)])
    parts = []
    for _ in range(2):
        y = rng.integers(2, size=n)
        texts = []
        for label in y:
            length = rng.integers(20, 80)
            ids = rng.zipf(1.3, length) % 360
            swayed = rng.random(length) < 0.15
            ids[swayed] = 360 + 20 * label + rng.integers(20, size=swayed.sum())
            texts.append(" ".join(words[ids]))
        parts.append((texts, y))
    return parts


def build(method: str, lam: float | str, rate: float, seed: int) -> Pipeline:
    """Make the pipeline from raw text to sentiment, with the paper's settings."""
    settings = {
        "vocabulary_size": N_WORDS + 2,
        "embedding_dim": 32,
        "recurrent_layer_sizes": (100,),
        "batch_size": 40,
        "fixed_batch_size": 40,
        "fixed_sequence_length": 60,
        "lam": lam,
        "anchor": "zero",
        "learning_rate_init": rate,
        "alpha": 0.0,
        "random_state": seed,
    }
    return make_pipeline(
        TokenSequencer(N_WORDS, N_STEPS, token_pattern=WORD),
        TargetSpaceSequenceClassifier(**(settings | METHODS[method])),
    )


def train(
    model: Pipeline, train_set: Any, test_set: Any, n_epochs: int, n_checks: int
) -> tuple[list[float], float]:
    """Train part by part; return test accuracies and seconds of training."""
    sequencer, classifier = model[0], model[-1]
    X, y = sequencer.fit_transform(train_set[0]), train_set[1]
    X_test, y_test = sequencer.transform(test_set[0]), test_set[1]
    accuracies, seconds = [], 0.0
    rng = np.random.default_rng(0)
    for epoch in range(n_epochs):
        for rows in np.array_split(rng.permutation(len(y)), n_checks):
            start = time.perf_counter()
            classifier.partial_fit(X[rows], y[rows])
            seconds += time.perf_counter() - start
            accuracies.append(classifier.score(X_test, y_test))
            print(
                f"  epoch {epoch + 1}: loss {classifier.loss_:.4f}, test accuracy "
                f"{accuracies[-1]:.4f}, {seconds:.0f} s",
                flush=True,
            )
    return accuracies, seconds


def plot(curves: dict[str, list[float]], per_check: float, path: str) -> None:
    """Draw Fig. 10: test accuracy by iteration."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for method, accuracies in curves.items():
        iterations = per_check * np.arange(1, len(accuracies) + 1)
        axes.plot(iterations, accuracies, marker="o", label=method)
    axes.set(xlabel="iteration", ylabel="test accuracy", title="Film reviews")
    axes.legend()
    figure.savefig(path)
    print(f"plot: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the reviews")
    parser.add_argument("--quick", action="store_true", help="400 reviews, two epochs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*PAPER])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--checks", type=int, default=2, help="tests in an epoch")
    parser.add_argument("--reviews", type=int, help="how many; by default all")
    parser.add_argument("--lam", default=1e-3, help='a number, or "auto"')
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="where to draw Fig. 10")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.reviews, arguments.epochs = arguments.reviews or 400, 2
    if arguments.data is None:
        sets = made_up_reviews(arguments.reviews or 2000)
    else:
        sets = reviews(arguments.data, arguments.reviews)
    per_epoch = -(-len(sets[0][1]) // 40)
    lam = arguments.lam if arguments.lam == "auto" else float(arguments.lam)
    curves, lines = {}, []
    for method in arguments.methods:
        print(method, flush=True)
        model = build(method, lam, arguments.rate, arguments.seed)
        curves[method], seconds = train(
            model, *sets, arguments.epochs, arguments.checks
        )
        each = 1e3 * seconds / per_epoch / arguments.epochs
        best, paper = 100 * max(curves[method]), PAPER.get(method)
        lines.append(
            f"{method:22}{best:9.2f}{paper or '':>8}{each:12.1f}{seconds:9.0f}"
        )
    print(f"\n{'best test accuracy, %':22}{'here':>9}{'paper':>8}", end="")
    print(f"{'ms/iteration':>12}{'seconds':>9}", *lines, sep="\n")
    if arguments.plot:
        plot(curves, per_epoch / arguments.checks, arguments.plot)


if __name__ == "__main__":
    main()
