"""Real tables: a pipeline and a grid search on ``adult`` and ``california_housing``.

Imputer, scaler and one-hot encoder feed ``TargetSpaceClassifier`` (adult) or
``TargetSpaceRegressor`` (housing); then ``GridSearchCV`` chooses λ and the widths with
two jobs.  The tables come from a folder with ``tab_adult.csv.xz`` and
``tab_california_housing.csv.xz``, or are downloaded from OpenML.

    python examples/real_tables.py [--data DIR] [--jobs 2]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import fetch_openml
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor


def load(name: str, folder: Path | None) -> tuple[pd.DataFrame, pd.Series]:
    """Read a table; its target is the last column."""
    if folder is None:
        table = fetch_openml(name, version=2 if name == "adult" else 1).frame
    else:
        table = pd.read_csv(folder / f"tab_{name}.csv.xz", na_values="?")
    table = table.drop(columns=[c for c in table if c == "split"])
    return table.iloc[:, :-1], table.iloc[:, -1]


def pipeline(X: pd.DataFrame, last: object) -> Pipeline:
    """Impute and scale numbers, impute and encode the rest, then predict."""
    numbers = list(X.select_dtypes("number"))
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            (
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                ),
                [c for c in X if c not in numbers],
            ),
        ),
        last,
    )


def study(name: str, X: pd.DataFrame, y: pd.Series, last: object, jobs: int) -> None:
    """Fit the pipeline, then search λ and widths on a part of the rows."""
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    model = pipeline(X, last)
    start = time.perf_counter()
    model.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    score = model.score(X_test, y_test)
    print(f"{name}: {len(X)} rows, fit {seconds:.0f} s, test score {score:.3f}")

    prefix = model.steps[-1][0] + "__"
    grid = {
        prefix + "lam": [100.0, 300.0, 1000.0],
        prefix + "hidden_layer_sizes": [(32,), (32, 32)],
    }
    search = GridSearchCV(model, grid, cv=3, n_jobs=jobs)
    start = time.perf_counter()
    search.fit(X_train[:8000], y_train[:8000])
    seconds = time.perf_counter() - start
    found = {key.split("__")[-1]: value for key, value in search.best_params_.items()}
    print(
        f"  grid search on 8000 rows, {jobs} jobs: {seconds:.0f} s, best {found}, "
        f"cross-validated {search.best_score_:.3f}, "
        f"test score {search.score(X_test, y_test):.3f}"
    )


def main() -> None:
    """Run both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the tables")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    X, y = load("adult", arguments.data)
    study("adult", X, y, TargetSpaceClassifier(random_state=0), arguments.jobs)
    X, y = load("california_housing", arguments.data)
    regressor = TargetSpaceRegressor(random_state=0)
    study("california_housing", X, y, regressor, arguments.jobs)


if __name__ == "__main__":
    main()
