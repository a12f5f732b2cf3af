"""Fits that are killed at random moments and started again; run as a script.

The processes are forks of one that has loaded everything, so that each takes
milliseconds to start.  Prints what became of each kind of fit.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor, _archive, _files
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionSequenceClassifier,
)
from tests.estimators.support import ALL_EPOCHS, class_data, curve_data, with_dropout

KILLS = 5


COMMON: dict[str, Any] = {"max_iter": 40, "random_state": 0, "batch_size": 20}
Fits = dict[str, tuple[type, dict[str, Any]]]
TARGET_SPACE: Fits = {
    "dropout and early stopping": (
        TargetSpaceClassifier,
        {"hidden_layer_sizes": (6, 6), "dropout": 0.2, "early_stopping": True},
    ),
    "weights, falling rate": (
        TargetSpaceRegressor,
        {
            "parameterization": "weights",
            "hidden_layer_sizes": (50,),
            "batch_norm": True,
            "solver": "sgd",
            "learning_rate": "adaptive",
            "tol": 0.01,
            "n_iter_no_change": 2,
        },
    ),
    "full batch, lbfgs": (
        TargetSpaceClassifier,
        {"hidden_layer_sizes": (6, 6), "solver": "lbfgs", "fixed_batch_size": None},
    ),
    "own module": (TargetSpaceRegressor, {"module": with_dropout}),
}
SISTERS: Fits = {
    "samples and noise that fades": (
        DifferenceTargetPropagationClassifier,
        {
            "hidden_layer_sizes": (8, 8, 8),
            "transmission": "bernoulli",
            "noise_decay": 10.0,
            "input_noise": 0.1,
            "early_stopping": True,
        },
    ),
    "feedback in a pass of its own": (
        DifferenceTargetPropagationRegressor,
        {
            "hidden_layer_sizes": (8, 8, 8),
            "feedback_order": "epoch",
            "solver": "rmsprop_centered",
        },
    ),
    "layers inverted": (
        RegularizedInversionClassifier,
        {"hidden_layer_sizes": (8, 8), "solver": "sgd", "momentum": 0.9},
    ),
    "steps inverted": (
        RegularizedInversionSequenceClassifier,
        {"recurrent_layer_sizes": (8,), "early_stopping": True},
    ),
}
FITS = TARGET_SPACE | SISTERS
GROUPS = {"target space": TARGET_SPACE, "sister algorithms": SISTERS}


def fit(name: str, path: Path | None) -> dict[str, list[Any]]:
    """Fit, and give all that the fit has left behind."""
    kind, settings = FITS[name]
    X, y = class_data() if issubclass(kind, ClassifierMixin) else curve_data()
    estimator = kind(**(COMMON | ALL_EPOCHS | settings), checkpoint=path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, y)
    state = {k: v for k, v in estimator.__getstate__().items() if k != "checkpoint"}
    state["module"] = None
    state["_architecture"] = str(state["_architecture"])
    return state


def start(name: str, checkpoint: Path | None, result: Path) -> int:
    """Fit in a process of its own, which writes what is left; gives its id."""
    child = os.fork()
    if child == 0:
        _archive.write(result, "result", fit(name, checkpoint))
        os._exit(0)
    return child


def finish(child: int) -> None:
    """Wait for a process that is not to fail."""
    _, status = os.waitpid(child, 0)
    assert status == 0


def kill(child: int, checkpoint: Path, random: np.random.Generator) -> bool:
    """Kill a process at a random moment; tell whether it was still running.

    One kill in five comes at once; the others wait for a new epoch to be kept.
    """
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    give_up = time.monotonic() + (60 if random.random() > 0.2 else 0)
    while time.monotonic() < give_up:
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
            break
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def epochs_kept(checkpoint: Path) -> int:
    """Count the epochs in a checkpoint, which is whole at any time."""
    if not checkpoint.exists():
        return 0
    return len(_archive.read(checkpoint, "checkpoint")["log"]["loss_curve"])


def kill_again_and_again(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Kill a kind of fit at random moments, then let it end."""
    random = np.random.default_rng(seed)
    checkpoint, result = folder / "checkpoint", folder / "result"
    kept = []
    while len(kept) < KILLS:
        if kill(start(name, checkpoint, result), checkpoint, random):
            kept.append(epochs_kept(checkpoint))
        else:  # The fit was faster: begin anew.
            checkpoint.unlink()
    # A fit may have ended, and been killed while its result was written down.
    _files.remove_leftovers(result)
    finish(start(name, checkpoint, result))
    undisturbed = folder / "undisturbed"
    finish(start(name, None, undisturbed))
    again = folder / "again"
    finish(start(name, checkpoint, again))  # which only reads what has come out
    found = [path.read_bytes() for path in (undisturbed, result, again)]
    return {
        "epochs kept": kept,
        "same": found[0] == found[1] == found[2],
        "files": sorted(p.name for p in folder.iterdir()),
    }


if __name__ == "__main__":
    folder_of_all, group = sys.argv[1:]
    for name in GROUPS[group]:
        fit(name, None)  # loads what torch loads on first use
    for number, name in enumerate(GROUPS[group]):
        folder = Path(folder_of_all) / str(number)
        folder.mkdir()
        print(json.dumps({name: kill_again_and_again(name, folder, number)}))
