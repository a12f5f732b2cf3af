"""The values that ``"auto"`` stands for: one formula each."""

from __future__ import annotations

import math

__all__ = [
    "auto_batch_size",
    "auto_fixed_batch_size",
    "auto_fixed_length",
    "auto_fixed_sequences",
    "auto_image_lam",
    "auto_lam",
    "auto_patience",
    "auto_rate",
    "auto_recurrent_lam",
    "auto_recurrent_rate",
]


def auto_lam(n_fixed: int, n_layers: int) -> float:
    """λ = max(0.001 n̄_b, max(8, 0.01 n̄_b) / layers).

    The Gramian grows with the rows of X̄; every layer shrinks the signal by its λ, so
    that many layers bear less of it; and with a small λ the solve on a handful of rows
    follows them to the letter.
    """
    return max(1e-3 * n_fixed, max(8.0, 1e-2 * n_fixed) / n_layers)


def auto_image_lam(n_rows: int, n_columns: int) -> float:
    """λ = 2 √max(rows, columns) of a layer of a network for images.

    To a convolution every pixel of its maps on X̄ is a row.  This lies in the midst of
    the eigenvalues of the Gramians, most of which grow less than the rows do:
    neighbouring pixels repeat each other.  Where λ lies far above them a layer hardly
    moves, far below them it follows the noise of mini-batches.
    """
    return 2 * math.sqrt(max(n_rows, n_columns))


def auto_fixed_batch_size(n_samples: int, widest: int, n_pixels: int = 1) -> int:
    """n̄_b: enough rows for the widest layer's inputs, at most all of them.

    Of images, whose pixels are rows to a convolution, the paper's 100 are enough.
    """
    return min(n_samples, max(1000, 2 * widest) if n_pixels == 1 else 100)


def auto_fixed_length(n_steps: int) -> int:
    """n̄_t of noise: the solve needs rows, not long sequences (Sec. 5.4)."""
    return min(n_steps, 60)


def auto_fixed_sequences(
    n_samples: int,
    n_steps: int,
    widest_recurrent: int,
    widest_exit: int,
    per_step: bool,
) -> int:
    """n̄_b of sequences: rows are steps, but for exit layers behind the last step."""
    by_steps = -(-max(1000, 2 * widest_recurrent) // n_steps)
    exits = -(-widest_exit // n_steps) if per_step else widest_exit
    return min(n_samples, max(100, by_steps, 2 * exits))


def auto_recurrent_lam(n_rows: int) -> float:
    """λ = max(16, 0.001 rows), the rows being all steps of X̄.

    A state is shrunk at every step, so it bears less than a dense layer; and on a
    handful of rows a small λ lets training swing wildly.
    """
    return max(16.0, 1e-3 * n_rows)


def auto_batch_size(n_samples: int) -> int:
    """Rows of a mini-batch, as in scikit-learn's multi-layer perceptron."""
    return min(200, n_samples)


def auto_rate(solver: str, parameterization: str, images: bool = False) -> float:
    """Step size: targets are of order 1, weights of order 1/√n_in.

    The large λ that goes with images holds their weights back.
    """
    if parameterization == "weights":
        return 0.1 if solver == "sgd" else 1e-3
    return (1.0 if solver == "sgd" else 1e-2) * (5 if images else 1)


def auto_recurrent_rate(solver: str, parameterization: str) -> float:
    """Step size of recurrent networks, whose gradients grow over the steps."""
    rate = auto_rate(solver, parameterization)
    return rate if parameterization == "weights" else 0.5 * rate


def auto_patience(n_steps: int) -> int:
    """Epochs without progress, of `n_steps` steps each, after which to stop.

    An epoch of one step tells little: the loss of Adam in full batch swings.
    """
    return max(10, -(-200 // n_steps))
