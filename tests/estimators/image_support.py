"""Small images, and networks for them, that several tests share."""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from tests.estimators.support import ALL_EPOCHS, Array

LAYERS = [(3, 4, 1), (3, 6, 2)]
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (10,),
    "conv_layers": LAYERS,
    "activation": "leaky_relu",
    "fixed_batch_size": 20,
    "batch_size": 50,
    "max_iter": 2,
    "random_state": 0,
    **ALL_EPOCHS,
}


def digits(n: int = 150) -> tuple[Array, Array]:
    """Return images of bytes (n, 1, 8, 8) and labels."""
    X, y = load_digits(return_X_y=True)
    return (X[:n] * 15).astype(np.uint8).reshape(-1, 1, 8, 8), y[:n]
