"""Small problems of sequences."""

from typing import Any

import numpy as np

from sktarget import TargetSpaceSequenceClassifier
from tests.estimators.support import ALL_EPOCHS, Array, fit_quietly

SMALL: dict[str, Any] = {
    "recurrent_layer_sizes": (6,),
    "learning_rate_init": 0.02,
    "lam": 0.1,
    "max_iter": 5,
    "random_state": 0,
    **ALL_EPOCHS,
}


def small(**settings: Any) -> TargetSpaceSequenceClassifier:
    return TargetSpaceSequenceClassifier(**(SMALL | settings))


def fitted(X: Any, y: Any, **settings: Any) -> TargetSpaceSequenceClassifier:
    model: TargetSpaceSequenceClassifier = fit_quietly(small(**settings), X, y)
    return model


def series(n: int = 40, n_channels: int = 2, time: int = 9) -> tuple[Array, Array]:
    """Make waves (n, channels, time) of two speeds, one class each.

    They are standardised, so that networks learn from them as they are.
    """
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    phase = rng.uniform(0, 6, (n, n_channels, 1))
    X = np.sin(phase + (0.5 + y[:, None, None]) * np.arange(time))
    X += 0.1 * rng.normal(size=X.shape)
    X -= X.mean(axis=(0, 2), keepdims=True)
    return X / X.std(axis=(0, 2), keepdims=True), y


def lengths_of(n: int, time: int = 9) -> list[int]:
    return [time - k % 5 for k in range(n)]


def as_list(X: Array) -> list[Array]:
    return [x[:, :t] for x, t in zip(X, lengths_of(len(X), X.shape[2]), strict=True)]


def as_padded(X: Array) -> Array:
    padded = np.full_like(X, np.nan)
    for row, x in zip(padded, as_list(X), strict=True):
        row[:, : x.shape[1]] = x
    return padded


def step_labels(X: Array) -> Array:
    """Label each step of (n, channels, time): is the first channel rising?"""
    return (np.diff(X[:, 0], axis=1, prepend=0) > 0).astype(int)


def tokens(n: int = 40, time: int = 9, size: int = 8) -> tuple[Array, Array]:
    """Make token ids (n, time), padded with 0; the class is whether id 3 occurs."""
    rng = np.random.default_rng(0)
    X = rng.integers(1, size, (n, time))
    X[X == 3] = 2
    X[::2, 1] = 3
    for row, length in zip(X, lengths_of(n, time), strict=True):
        row[length:] = 0
    return X, (X == 3).any(axis=1).astype(int)
