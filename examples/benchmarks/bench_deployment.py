"""What a fitted model costs to store, load and call, compared with scikit-learn's.

Prints, for each network, the sizes of its stored forms, the times to load them, and the
latencies of ``predict_proba`` for 1, 100 and 10,000 rows, of ``TargetSpaceClassifier``,
of ``MLPClassifier`` with the same layers, and of the exported model in onnxruntime;
medians, taken in turns within one process.

    python examples/benchmarks/bench_deployment.py [--quick] [--threads 1]
"""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import skops.io
import torch
from measuring import Settings, in_turns, options, settings_of
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from sktarget import TargetSpaceClassifier
from sktarget.export import to_onnx
from sktarget.persistence import load, save

# Inputs and hidden widths; ten classes each.
NETWORKS = [(20, (100,)), (64, (100, 100)), (784, (256, 256, 256))]
ROWS = (1, 100, 10_000)


def fitted(n_inputs: int, widths: tuple[int, ...]) -> tuple[Any, Any]:
    """Fit both classifiers briefly, in single precision."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, n_inputs)).astype("f4")
    y = np.arange(1000) % 10
    settings: dict[str, Any] = {
        "hidden_layer_sizes": widths,
        "activation": "relu",
        "max_iter": 2,
        "random_state": 0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours = TargetSpaceClassifier(**settings).fit(X, y)
        return ours, MLPClassifier(**settings).fit(X, y)


def sizes(ours: Any, mlp: Any, path: Path) -> dict[str, int]:
    """Return the sizes of the stored forms, in bytes."""
    return {
        "weights alone": sum(w.nbytes for w in ours.coefs_ + ours.intercepts_),
        "pickle": len(pickle.dumps(ours)),
        "save": path.stat().st_size,
        "skops": len(skops.io.dumps(ours)),
        "ONNX": to_onnx(ours).ByteSize(),
        "MLPClassifier, pickle": len(pickle.dumps(mlp)),
    }


def loading(ours: Any, mlp: Any, path: Path) -> dict[str, Callable[[], Any]]:
    """Return ways to load a model, each of which also makes the first prediction."""
    row = np.zeros((1, ours.n_features_in_), dtype="f4")
    kept, kept_mlp = pickle.dumps(ours), pickle.dumps(mlp)
    kept_skops, graph = skops.io.dumps(ours), to_onnx(ours).SerializeToString()
    trusted = skops.io.get_untrusted_types(data=kept_skops)
    return {
        "pickle": lambda: pickle.loads(kept).predict(row),
        "save": lambda: load(path).predict(row),
        "skops": lambda: skops.io.loads(kept_skops, trusted=trusted).predict(row),
        "ONNX": lambda: session(graph).run(None, {"X": row}),
        "MLPClassifier, pickle": lambda: pickle.loads(kept_mlp).predict(row),
    }


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """Load an ONNX model, to run on as many threads as torch uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"]
    )


def predicting(ours: Any, mlp: Any, n: int) -> dict[str, Callable[[], Any]]:
    """Return ways to predict for some rows."""
    X = np.random.default_rng(1).normal(size=(n, ours.n_features_in_)).astype("f4")
    running = session(to_onnx(ours).SerializeToString())
    return {
        "TargetSpaceClassifier": lambda: ours.predict_proba(X),
        "MLPClassifier": lambda: mlp.predict_proba(X),
        "onnxruntime": lambda: running.run(None, {"X": X}),
    }


def timed(calls: dict[str, Callable[[], Any]], settings: Settings) -> dict[str, float]:
    """Time calls in turns, in milliseconds."""
    return in_turns(calls, settings, settings.few(0.2, 3))


def main() -> None:
    settings = settings_of(options(__doc__).parse_args())
    for n_inputs, widths in NETWORKS:
        ours, mlp = fitted(n_inputs, widths)
        print(f"\n{n_inputs} inputs, hidden layers {widths}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.npz"
            save(ours, path)
            found = sizes(ours, mlp, path)
            for name, size in found.items():
                ratio = size / found["weights alone"]
                print(f"  size   {name:24} {size / 1e3:10.1f} kB  {ratio:6.2f}")
            for name, taken in timed(loading(ours, mlp, path), settings).items():
                print(f"  load   {name:24} {taken:10.3f} ms")
        for n in ROWS:
            for name, taken in timed(predicting(ours, mlp, n), settings).items():
                print(f"  {n:6,d} {name:24} {taken:10.3f} ms")


if __name__ == "__main__":
    main()
