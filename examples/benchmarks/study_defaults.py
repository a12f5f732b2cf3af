"""The study behind the defaults: tables, depths, single rules, and the course of a fit.

Five parts, each of which prints its results and adds them to one JSON file:

defaults
    ``TargetSpaceClassifier()`` and ``TargetSpaceRegressor()`` beside scikit-learn's
    multi-layer perceptrons and the same network in weight space.  Gradient-boosted
    trees show what another kind of model makes of a table.
depth
    1 to 24 hidden layers of 28 in target space and in weight space, where the best of
    several step sizes, activations and weight decays counts.
tuned
    The deepest of these in target space with other weight decays, for a comparison in
    which both are tuned.
rules
    One default at a time replaced by something else, on the tables that the rules were
    chosen on.
course
    Score by epoch and by second, 16 layers of 28.

The tables are those that come with scikit-learn, generated ones and, if a folder has
them, ``tab_NAME.csv.xz`` with the target in the last column.  For all methods alike,
columns are imputed, scaled and encoded as fitted to the training part.

    python examples/benchmarks/study_defaults.py [--data DIR] [--quick] [--json FILE]

``defaults.json`` beside this file holds the results that the documentation shows, in
tables made by ``defaults_tables.py``.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measuring import limit_threads
from scipy.stats import rankdata
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.callbacks import Callback

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor

BUNDLED: dict[str, Callable[[], Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}
# The rules were chosen on the first half, and are reported on the second.
CHOOSE = {
    "classes": ["wine", "digits", "phoneme", "adult", "spheres"],
    "numbers": ["diabetes", "concrete", "abalone", "airfoil"],
}
REPORT = {
    "classes": ["iris", "breast_cancer", "optdigits", "banknote", "clusters"],
    "numbers": ["california_housing", "energy", "powerplant", "friedman"],
}
DEEP = ["digits", "optdigits", "phoneme", "banknote", "spheres"]
DEEP += ["concrete", "airfoil", "energy", "california_housing", "friedman"]
DEPTHS = [1, 2, 4, 8, 16, 24]
WIDTH = 28
MOST_ROWS = 6000

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


# --- Tables ---------------------------------------------------------------------------


def is_classes(name: str) -> bool:
    """Return whether a table has classes as its outputs."""
    return name in CHOOSE["classes"] + REPORT["classes"]


def read(name: str, folder: Path | None) -> tuple[pd.DataFrame, np.ndarray] | None:
    """Return inputs and outputs of a table, or None if it is missing."""
    if name in BUNDLED:
        X, y = BUNDLED[name](return_X_y=True)
    elif name == "spheres":
        X, y = datasets.make_hastie_10_2(4000, random_state=0)
    elif name == "clusters":
        X, y = datasets.make_classification(
            3000, 20, n_informative=8, n_classes=4, flip_y=0.05, random_state=0
        )
    elif name == "friedman":
        X, y = datasets.make_friedman1(1500, noise=1.0, random_state=0)
    elif folder is None or not (folder / f"tab_{name}.csv.xz").is_file():
        return None
    else:
        table = pd.read_csv(folder / f"tab_{name}.csv.xz", na_values="?")
        table = table.drop(columns="split", errors="ignore")
        return table.iloc[:, :-1], table.iloc[:, -1].to_numpy()
    return pd.DataFrame(X), y


def split(X: pd.DataFrame, y: np.ndarray, seed: int, classes: bool, most: int) -> Parts:
    """Return prepared training inputs, training outputs, test inputs, test outputs."""
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, random_state=seed, stratify=y if classes else None
    )
    X_train, y_train = X_train[:most], y_train[:most]
    numbers = list(X.select_dtypes("number"))
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (
            make_pipeline(
                SimpleImputer(strategy="most_frequent"),
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            ),
            [c for c in X if c not in numbers],
        ),
    )
    X_train = prepare.fit_transform(X_train).astype(float)
    return X_train, y_train, prepare.transform(X_test).astype(float), y_test


def measure(
    make: Callable[[int], Any], parts: Callable[[int], Parts], splits: int
) -> dict[str, Any]:
    """Fit and score on several splits."""
    scores, seconds, epochs = [], [], []
    for seed in range(splits):
        X, y, X_test, y_test = parts(seed)
        model = make(seed)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y)
        seconds.append(time.perf_counter() - start)
        scores.append(float(model.score(X_test, y_test)))
        epochs.append(int(getattr(model, "n_iter_", 0)))
    return {"scores": scores, "seconds": seconds, "epochs": epochs}


class Tables:
    """Tables by name, prepared split by split.

    Parameters
    ----------
    folder : Path or None
        Folder with more tables.
    most : int
        Most training rows of each.
    distinct : bool
        Leave out rows whose inputs have occurred before.
    """

    def __init__(
        self, folder: Path | None, most: int = MOST_ROWS, *, distinct: bool = False
    ) -> None:
        self.folder, self.most, self.distinct = folder, most, distinct

    def of(self, names: list[str]) -> Iterator[tuple[str, Callable[[int], Parts]]]:
        """Go through those of the tables that are available."""
        for name in names:
            table = read(name, self.folder)
            if table is None:
                print(f"{name}: not found, left out")
                continue
            if self.distinct:
                X, y = table
                is_new = ~X.duplicated().to_numpy()
                table = X[is_new].reset_index(drop=True), y[is_new]
            yield (
                name,
                lambda seed, n=name, t=table: split(*t, seed, is_classes(n), self.most),
            )


# --- Methods --------------------------------------------------------------------------


def ours(name: str, *args: Any, **settings: Any) -> Callable[[int], Any]:
    """Make the estimator of this package that a table needs."""
    kind = TargetSpaceClassifier if is_classes(name) else TargetSpaceRegressor
    return lambda seed: kind(*args, random_state=seed, **settings)


def perceptron(name: str, *args: Any, **settings: Any) -> Callable[[int], Any]:
    """Make scikit-learn's network, with its defaults unless given."""
    kind = MLPClassifier if is_classes(name) else MLPRegressor
    return lambda seed: kind(*args, random_state=seed, **settings)


def trees(name: str) -> Callable[[int], Any]:
    """Make scikit-learn's gradient-boosted trees, with their defaults."""
    if is_classes(name):
        return lambda seed: HistGradientBoostingClassifier(random_state=seed)
    return lambda seed: HistGradientBoostingRegressor(random_state=seed)


def scaled(make: Callable[[int], Any]) -> Callable[[int], Any]:
    """Standardise the outputs of a regression too."""
    return lambda seed: TransformedTargetRegressor(
        make(seed), transformer=StandardScaler()
    )


def methods(name: str) -> dict[str, Callable[[int], Any]]:
    """List what is compared on a table."""
    found = {
        "target space": ours(name),
        "MLP": perceptron(name),
        "weight space": ours(name, parameterization="weights"),
    }
    if not is_classes(name):
        found["MLP, y scaled"] = scaled(perceptron(name))
    return found | {"trees": trees(name)}


CONTROLS: dict[str, dict[str, Any]] = {
    "tanh, 0.001": {"activation": "tanh", "learning_rate_init": 0.001},
    "tanh, 0.003": {"activation": "tanh", "learning_rate_init": 0.003},
    "tanh, 0.001, alpha = 0.3": {
        "activation": "tanh",
        "learning_rate_init": 0.001,
        "alpha": 0.3,
    },
    "tanh, 0.003, annealed": {
        "activation": "tanh",
        "learning_rate_init": 0.003,
        "learning_rate": "annealed",
        "n_iter_no_change": np.inf,
    },
    "tanh, 0.003, annealed, alpha = 0.3": {
        "activation": "tanh",
        "learning_rate_init": 0.003,
        "learning_rate": "annealed",
        "n_iter_no_change": np.inf,
        "alpha": 0.3,
    },
    "relu, 0.001": {"activation": "relu", "learning_rate_init": 0.001},
    "batch norm": {
        "activation": "relu",
        "batch_norm": True,
        "learning_rate_init": 0.003,
    },
}
"""Settings of weight space; on each table and depth the best of them counts."""

TUNED: dict[str, dict[str, Any]] = {
    f"alpha = {alpha:g}": {"alpha": alpha} for alpha in (0.0001, 0.1, 1.0, 3.0)
}
"""Settings of target space: with its defaults, it has five as well."""

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "λ / 10": {"lam": 0.1},
    "λ × 10": {"lam": 10.0},
    "n̄_b = 100": {"fixed_batch_size": 100},
    "X̄ of noise": {"fixed_batch": "noise", "fixed_batch_size": 1000},
    "outputs from weights": {"target_init": "weights"},
    "normal targets": {"target_init": "normal"},
    "tanh": {"activation": "tanh"},
    "relu": {"activation": "relu"},
    "no early stopping": {"early_stopping": False},
    "constant step": {"learning_rate": "constant"},
    "L-BFGS": {"solver": "lbfgs"},
    "batches of 200, step 0.01": {"learning_rate_init": 0.01},
    "batches of 200, step 0.03": {"learning_rate_init": 0.03},
    "two layers": {"hidden_layer_sizes": (100, 100)},
}
"""Replacements of single defaults; "lam" multiplies the automatic value."""


# --- The five parts -------------------------------------------------------------------


def study_defaults(tables: Tables, splits: int) -> dict[str, Any]:
    """Compare the estimators with their defaults."""
    found: dict[str, Any] = {}
    for half in (CHOOSE, REPORT):
        for name, parts in tables.of(half["classes"] + half["numbers"]):
            found[name] = {
                method: measure(make, parts, splits)
                for method, make in methods(name).items()
            }
            show(name, found[name])
    return found


def study_depth(tables: Tables, splits: int, depths: list[int]) -> dict[str, Any]:
    """Compare the spaces by depth."""
    found: dict[str, Any] = {}
    for name, parts in tables.of(DEEP):
        found[name] = {}
        for depth in depths:
            widths = (WIDTH,) * depth
            runs = {"target space": measure(ours(name, widths), parts, splits)}
            for label, settings in CONTROLS.items():
                control = ours(name, widths, parameterization="weights", **settings)
                runs[label] = measure(control, parts, splits)
            found[name][str(depth)] = runs
            show(f"{name}, {depth} layers", runs)
    return found


def study_tuned(tables: Tables, splits: int, depths: list[int]) -> dict[str, Any]:
    """Try deep networks in target space with weight decays other than the default."""
    found: dict[str, Any] = {}
    for name, parts in tables.of(DEEP):
        found[name] = {}
        for depth in depths:
            found[name][str(depth)] = {
                label: measure(ours(name, (WIDTH,) * depth, **settings), parts, splits)
                for label, settings in TUNED.items()
            }
            show(f"{name}, {depth} layers", found[name][str(depth)])
    return found


def study_rules(tables: Tables, splits: int) -> dict[str, Any]:
    """Replace one default at a time."""
    found: dict[str, Any] = {}
    for name, parts in tables.of(CHOOSE["classes"] + CHOOSE["numbers"]):
        found[name] = {}
        for label, changes in VARIANTS.items():
            settings = dict(changes)
            if "lam" in settings:
                probe = ours(name, max_iter=1)(0)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    settings["lam"] *= probe.fit(*parts(0)[:2]).lam_
            found[name][label] = measure(ours(name, **settings), parts, splits)
        show(name, found[name])
    return found


class Course(Callback):
    """Scores test rows after every epoch, and records the time without the scoring."""

    def __init__(self, X: np.ndarray, truth: np.ndarray) -> None:
        self.X, self.truth = X, truth
        self.scores: list[float] = []
        self.seconds: list[float] = []

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.spent, self.start = 0.0, time.perf_counter()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Stop the clock, score, and restart the clock."""
        self.spent += time.perf_counter() - self.start
        self.seconds.append(self.spent)
        self.scores.append(float(np.mean(net.predict(self.X) == self.truth)))
        self.start = time.perf_counter()


def study_course(tables: Tables, names: list[str]) -> dict[str, Any]:
    """Follow a deep network through its training."""
    found: dict[str, Any] = {}
    for name, parts in tables.of(names):
        X, y, X_test, y_test = parts(0)
        runs: dict[str, dict[str, Any]] = {"target space": {}}
        for label, settings in CONTROLS.items():
            runs[label] = {"parameterization": "weights", **settings}
        found[name] = {}
        for label, settings in runs.items():
            course = Course(X_test, y_test)
            model = ours(name, (WIDTH,) * 16, **settings)(0)
            model.set_params(callbacks=[course], early_stopping=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(X, y)
            found[name][label] = {"scores": course.scores, "seconds": course.seconds}
            print(
                f"{name}, 16 layers, {label}: {course.scores[-1]:.4f} after "
                f"{course.seconds[-1]:.1f} s",
                flush=True,
            )
    return found


# --- Results --------------------------------------------------------------------------


def show(title: str, runs: dict[str, dict[str, Any]]) -> None:
    """Print the mean scores of a table."""
    print(f"{title}:", flush=True)
    for label, run in runs.items():
        print(
            f"    {label:28s}{np.mean(run['scores']):8.4f} ± "
            f"{np.std(run['scores']):.4f}{np.median(run['seconds']):9.2f} s"
            f"{np.mean(run['epochs']):6.0f} epochs",
            flush=True,
        )


def rounded(found: Any) -> Any:
    """Round every number to four decimals."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return round(found, 4) if isinstance(found, float) else found


def networks(runs: dict[str, Any]) -> list[str]:
    """List the methods that are compared by rank: not the trees."""
    return [label for label in runs if label != "trees"]


def summarise(found: dict[str, Any]) -> str:
    """Return mean rank, mean score and worst gap of the estimators by default."""
    lines = []
    for title, half in (("chose the defaults", CHOOSE), ("held back", REPORT)):
        for kind, names in half.items():
            there = [n for n in names if n in found]
            labels = networks(found[there[0]])
            means = np.array(
                [[np.mean(found[n][m]["scores"]) for m in labels] for n in there]
            )
            ranks = np.mean([rankdata(-row) for row in means], axis=0)
            lines.append(f"\n{title}, {kind}: {', '.join(there)}")
            for j, label in enumerate(labels):
                gap = np.max(means[:, labels.index("MLP")] - means[:, j])
                lines.append(
                    f"    {label:16s} mean rank {ranks[j]:.2f}, mean score "
                    f"{means[:, j].mean():.4f}, most behind the MLP {gap:+.4f}"
                )
    return "\n".join(lines)


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with tab_NAME.csv.xz")
    parser.add_argument("--quick", action="store_true", help="few rows, one split")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--json", type=Path, help="add the results to this file")
    parser.add_argument(
        "--distinct", action="store_true", help="without repeated rows of inputs"
    )
    parser.add_argument("--threads", type=int, default=1)
    names = ("defaults", "depth", "tuned", "rules", "course")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    limit_threads(options.threads)
    found: dict[str, Any] = {}
    if options.json is not None and options.json.is_file():
        found = json.loads(options.json.read_text())
    most, splits = (200, 1) if options.quick else (MOST_ROWS, options.splits)
    tables, small = (
        Tables(options.data, n, distinct=options.distinct)
        for n in (most, min(most, 2000))
    )
    depths = [1, 4] if options.quick else DEPTHS
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "defaults": lambda: study_defaults(tables, splits),
        "depth": lambda: study_depth(small, splits, depths),
        "tuned": lambda: study_tuned(small, splits, depths[-2:]),
        "rules": lambda: study_rules(small, min(2, splits)),
        "course": lambda: study_course(small, ["digits", "phoneme"]),
    }
    for name in options.only:
        found[name] = parts[name]()
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(rounded(found), separators=(",", ":"))
            options.json.write_text(text + "\n")
    if "defaults" in found:
        print(summarise(found["defaults"]))


if __name__ == "__main__":
    main()
