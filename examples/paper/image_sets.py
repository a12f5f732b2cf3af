"""
Four image sets in target space and in weight space
===================================================

Table 2 of Fairbank, Samothrakis and Citi (Sec. 5.2): a convolutional network learns
MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 in target space, in weight space, and in
weight space with batch normalisation. Prints the test accuracy of each: the mean over
its networks, and that of their averaged probabilities ("ensemble").

    python examples/paper/image_sets.py --data DIR [--sets mnist cifar10] [--epochs 8]

DIR holds, for each set to run, one of

- ``mnist.npz``, ``fashion_mnist.npz``, ``cifar10.npz``, ``cifar100.npz`` with the
  arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``, as Keras stores them;
- ``cifar-10-batches-py``, ``cifar-100-python``: the folders of the sets' authors;
- ``cifar10_jpeg_full.npz``: the images as JPEG files (needs Pillow).

Sets that are missing are left out. Without ``--data`` the hand-written digits of
scikit-learn stand in. ``--quick`` uses a small part of each set, and takes less than a
minute.
"""

import argparse
import io
import itertools
import pickle
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import OneCycleLR

from sktarget import TargetSpaceClassifier

SETS = ("mnist", "fashion_mnist", "cifar10", "cifar100")
# Table 1: convolutions of 3 by 3, pooling by 2 after every second; dense layers.
WIDTHS = {"digits": (16, 32), "cifar10": (32, 64, 128), "cifar100": (32, 64, 128)}
DENSE = {"cifar100": (512, 128)}
METHODS: dict[str, dict[str, Any]] = {
    "target space": {"parameterization": "targets"},
    "weight space": {"parameterization": "weights"},
    "batch norm": {"parameterization": "weights", "batch_norm": True},
}
# Peak step size in weight space; target space chooses and anneals its own.
RATE = 0.003

Images = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


# --- Data -----------------------------------------------------------------------------


def load(name: str, folder: Path | None) -> Images | None:
    """Return images (n, channels, height, width) as bytes, and labels; None if missing.

    Training images and labels come first, then those of the test set.
    """
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = (15 * X).astype(np.uint8).reshape(-1, 1, 8, 8)
        return X[:1300], y[:1300], X[1300:], y[1300:]
    if folder is None:
        return None
    if (folder / f"{name}.npz").is_file():
        with np.load(folder / f"{name}.npz") as file:
            return _with_channels(*(file[f"{k}_{s}"] for s, k in _PARTS))
    if name == "cifar10" and (folder / "cifar10_jpeg_full.npz").is_file():
        with np.load(folder / "cifar10_jpeg_full.npz") as file:
            return _with_channels(
                _decode(file, "train"), file["y_train"],
                _decode(file, "test"), file["y_test"],
            )  # fmt: skip
    return _load_batches(name, folder)


_PARTS = [("train", "x"), ("train", "y"), ("test", "x"), ("test", "y")]


def _with_channels(*arrays: np.ndarray) -> Images:
    """Put the channels first, and labels in one axis."""
    x, y, x_test, y_test = arrays
    if x.ndim == 3:
        x, x_test = x[:, None], x_test[:, None]
    else:
        x, x_test = (np.ascontiguousarray(a.transpose(0, 3, 1, 2)) for a in (x, x_test))
    return x, y.ravel(), x_test, y_test.ravel()


def _decode(file: Any, split: str) -> np.ndarray:
    """Decode JPEG files with a common header, stored end to end in an array."""
    from PIL import Image

    head, data = file["jpeg_head"].tobytes(), file[f"{split}_bytes"].tobytes()
    offsets = file[f"{split}_offsets"]
    return np.stack(
        [
            np.asarray(Image.open(io.BytesIO(head + data[a:b] + b"\xff\xd9")))
            for a, b in itertools.pairwise(offsets)
        ]
    )


def _load_batches(name: str, folder: Path) -> Images | None:
    """Read the CIFAR sets in the format that their authors publish."""
    if name == "cifar10":
        folder, label = folder / "cifar-10-batches-py", b"labels"
        parts = [[f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]]
    elif name == "cifar100":
        folder, label = folder / "cifar-100-python", b"fine_labels"
        parts = [["train"], ["test"]]
    else:
        return None
    if not folder.is_dir():
        return None
    arrays: list[np.ndarray] = []
    for files in parts:
        batches = [
            pickle.loads((folder / file).read_bytes(), encoding="bytes")
            for file in files
        ]
        images = np.concatenate([batch[b"data"] for batch in batches])
        arrays.append(images.reshape(-1, 3, 32, 32))
        arrays.append(np.concatenate([batch[label] for batch in batches]))
    return arrays[0], arrays[1], arrays[2], arrays[3]


# --- Networks -------------------------------------------------------------------------


def network(
    name: str, method: str, n_images: int, seed: int, options: argparse.Namespace
) -> TargetSpaceClassifier:
    """Make the paper's network for a set, with the settings of the page on images."""
    batch_size = min(options.batch, n_images)
    settings = dict(METHODS[method])
    if settings["parameterization"] == "weights":
        settings["learning_rate_init"] = RATE
        settings["callbacks"] = [
            LRScheduler(
                OneCycleLR,
                step_every="batch",
                max_lr=RATE,
                pct_start=0.1,
                total_steps=options.epochs * -(-n_images // batch_size),
            )
        ]
    return TargetSpaceClassifier(
        DENSE.get(name, (128,)),
        conv_layers=[(3, c, p) for c in WIDTHS.get(name, (16, 32, 64)) for p in (1, 2)],
        dropout=options.dropout,
        fixed_batch_size=min(options.fixed, n_images),
        batch_size=batch_size,
        alpha=0.0,
        max_iter=options.epochs,
        n_iter_no_change=options.epochs,
        random_state=seed,
        **settings,
    )


def study(
    name: str, images: Images, method: str, options: argparse.Namespace
) -> tuple[float, float]:
    """Return the mean accuracy of the networks and that of their ensemble."""
    X, y, X_test, y_test = images
    accuracies, probabilities = [], []
    for seed in range(options.networks):
        start = time.perf_counter()
        with warnings.catch_warnings():
            # The schedule ends with the last epoch, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier = network(name, method, len(X), seed, options).fit(X, y)
        probabilities.append(classifier.predict_proba(X_test))
        found = classifier.classes_[probabilities[-1].argmax(1)]
        accuracies.append(np.mean(found == y_test))
        print(
            f"{name}, {method}, seed {seed}: {accuracies[-1]:.4f} after "
            f"{classifier.n_iter_} epochs, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    average = classifier.classes_[np.mean(probabilities, axis=0).argmax(1)]
    return float(np.mean(accuracies)), float(np.mean(average == y_test))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--data", type=Path, help="folder with the sets")
    parser.add_argument("--quick", action="store_true", help="small parts of the sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--batch", type=int, default=100, help="rows of a mini-batch")
    parser.add_argument(
        "--fixed", type=int, default=100, help="rows of the fixed batch"
    )
    parser.add_argument("--networks", type=int, default=2, help="of an ensemble")
    options = parser.parse_args()
    names = list(options.sets) if options.data else ["digits"]
    if options.quick:
        options.epochs, options.networks = 4, 1
        options.batch = options.fixed = 50
    table = {}
    for name in names:
        images = load(name, options.data)
        if images is None:
            print(f"{name}: not in {options.data}, left out")
            continue
        if options.quick:
            n = 1000 if images[0].shape[1] == 1 else 200
            images = images[0][:n], images[1][:n], images[2][:500], images[3][:500]
        for method in options.methods:
            table[name, method] = study(name, images, method, options)
    print(f"\n{'test accuracy in %':30s}{'mean':>8s}{'ensemble':>10s}")
    for (name, method), (mean, ensemble) in table.items():
        print(f"{name:16s}{method:14s}{100 * mean:8.2f}{100 * ensemble:10.2f}")


if __name__ == "__main__":
    main()
