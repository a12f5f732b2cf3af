"""
Real series, kind of cell found on the training set
===================================================

Two sets of the UCR and UEA archives: ItalyPowerDemand (one day's electricity demand,
summer or winter) and BasicMotions (six sensors of a wrist; standing, walking, running
or badminton).  A grid search on the training set picks the kind of cell; all else is
left to the estimator.  On 40 series, networks that start from different weights differ
by several points, so five with the best cell vote; the test set is looked at only once.

``python examples/real_series.py --data DIR`` needs ``ts_NAME.npz`` with the arrays
``x_train`` (n, channels, time), ``y_train``, ``x_test`` and ``y_test``.  Without it,
waves of two speeds stand in; ``--quick`` shrinks the grid and the number of epochs.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sktarget import TargetSpaceSequenceClassifier

NAMES = ["ItalyPowerDemand", "BasicMotions"]
CELLS = ["rnn", "gru", "lstm"]


def load(folder: Path, name: str) -> tuple[Any, ...]:
    """Read a set; scale its channels to mean 0 and deviation 1 in training."""
    with np.load(folder / f"ts_{name}.npz") as file:
        X, y, X_test, y_test = (
            file[k] for k in ("x_train", "y_train", "x_test", "y_test")
        )
    mean, deviation = X.mean((0, 2), keepdims=True), X.std((0, 2), keepdims=True)
    return (X - mean) / deviation, y, (X_test - mean) / deviation, y_test


def waves(n: int = 60) -> tuple[Any, ...]:
    """Make waves of two speeds."""
    rng = np.random.default_rng(0)
    parts: list[Any] = []
    for _ in range(2):
        y = rng.integers(2, size=n)
        phase = rng.uniform(0, 6, (n, 1, 1))
        X = np.sin(phase + (0.5 + 0.2 * y[:, None, None]) * np.arange(20))
        parts += [X + 0.3 * rng.normal(size=X.shape), y]
    return tuple(parts)


def average(best: TargetSpaceSequenceClassifier, n: int) -> VotingClassifier:
    """Let `n` networks of one setting vote, each starting from different weights."""
    members = [(f"seed {i}", clone(best).set_params(random_state=i)) for i in range(n)]
    return VotingClassifier(members, voting="soft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the series")
    parser.add_argument("--sets", nargs="+", default=NAMES)
    parser.add_argument("--quick", action="store_true", help="two cells, few epochs")
    arguments = parser.parse_args()
    sets = {"waves": waves()}
    if arguments.data is not None:
        sets = {name: load(arguments.data, name) for name in arguments.sets}
    cells = CELLS[:2] if arguments.quick else CELLS
    n_epochs, n_voters = (15, 2) if arguments.quick else (200, 5)
    for name, (X, y, X_test, y_test) in sets.items():
        start = time.perf_counter()
        search = GridSearchCV(
            TargetSpaceSequenceClassifier(
                recurrent_layer_sizes=(32,),
                bidirectional=True,
                max_iter=n_epochs,
                random_state=0,
            ),
            {"cell": cells},
            cv=StratifiedKFold(4, shuffle=True, random_state=0),
            scoring=["accuracy", "neg_log_loss"],
            # Several cells get all of a small training set right; the loss differs.
            refit="neg_log_loss",
        )
        search.fit(X, y)
        voters = average(search.best_estimator_, n_voters).fit(X, y)
        found = search.cv_results_["mean_test_accuracy"][search.best_index_]
        alone = [
            voter.score(X_test, voters.le_.transform(y_test))
            for voter in voters.estimators_
        ]
        print(
            f"{name}: test accuracy {voters.score(X_test, y_test):.3f}, of each voter "
            f"{min(alone):.3f} to {max(alone):.3f}, in cross-validation {found:.3f}, "
            f"{time.perf_counter() - start:.0f} s; {search.best_params_}",
            flush=True,
        )


if __name__ == "__main__":
    main()
