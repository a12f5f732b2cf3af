"""The values that ``"auto"`` stands for: one formula each.

Those of sequences, and those against noise, have modules of their own.
"""

from __future__ import annotations

import math

__all__ = [
    "IMAGES_IN_FIXED_BATCH",
    "MOST_AT_ONCE",
    "MOST_IMAGE_LAM",
    "auto_activation",
    "auto_annealed_image_rate",
    "auto_batch_size",
    "auto_epsilon",
    "auto_fixed_batch_size",
    "auto_image_batch_size",
    "auto_lam",
    "auto_lam_of_classes",
    "auto_rate",
    "auto_table_batch_size",
    "auto_table_fixed_batch_size",
    "auto_table_rate",
]

MOST_AT_ONCE = 10_000
"""Up to this many rows, a whole table is both X̄ and the batch."""

IMAGES_IN_FIXED_BATCH = 100
"""n̄_b of images, each of which has a row for every pixel of a map."""

MOST_IMAGE_LAM = 30.0
"""Bound on λ of images, in mean eigenvalues of the Gramian of inputs less their means.

It leaves networks alone that end in dense layers on all pixels, and lets those learn
that end in a mean over them, which varies little.
"""


def auto_activation(
    n_hidden: int,
    of_numbers: bool = False,
    images: bool = False,
    bounded: bool = False,
) -> str:
    """Leaky rectifiers in shallow networks, tanh in deep ones.

    Rectifiers learn better in one hidden layer, also in two for classes and in three
    after convolutions.  With more layers they fit noise; with ten or more they reduce
    the signal to a constant, where tanh with orthogonal weights passes it on.  If
    `bounded`, other than for images, outputs must not grow without bound with the
    inputs: where they are logarithms, or several columns have values that are very far
    from all others.
    """
    if bounded and not images:
        return "tanh"
    most = 3 if images else 1 if of_numbers else 2
    return "leaky_relu" if n_hidden <= most else "tanh"


def auto_lam(
    n_fixed: int, n_layers: int, n_given: int | None = None, n_columns: int = 3
) -> float:
    """λ = 0.2 n̄_b f g / max(2, layers), with X̄ of n̄_b rows for n, and of d columns.

    f = max(1, min(320 / n̄_b, 1280 / n)), and g = min(1, 8^(d − 3)).

    The Gramian grows with the rows of X̄, so λ does too.  Every layer shrinks the
    signal, so each of many gets less.  On few rows a small λ would fit them exactly, so
    it is raised there, unless these rows stand for many more.  Few columns leave the
    sums of all layers on a curve or a surface, whose finer bends lie in directions of
    little variance: a large λ would not let them be learnt.
    """
    n_given = n_fixed if n_given is None else n_given
    few = max(1.0, min(320 / n_fixed, 1280 / n_given))
    narrow = 8.0 ** min(0, n_columns - 3)
    return 0.2 * n_fixed * few * narrow / max(2, n_layers)


def auto_lam_of_classes(n_given: int, by_lbfgs: bool) -> float:
    """By how much λ is larger for classes in one hidden layer: rows / 200, from 1 to 2.

    Borders between classes follow single rows, and a larger λ smooths them.  Further
    runs by L-BFGS, which get to the bottom of the loss, need 15 times as much.  Few
    rows are learnt in few epochs, for which λ must not be large.  Numbers would be less
    exact, and in deeper networks every layer shrinks the signal.
    """
    return 15.0 if by_lbfgs else max(1.0, min(2.0, n_given / 200))


def auto_fixed_batch_size(n_samples: int, widest: int, n_pixels: int = 1) -> int:
    """n̄_b: enough rows for the widest layer's inputs, at most all of them.

    For images, whose pixels are rows to a convolution, the paper's 100 are enough.
    """
    least = IMAGES_IN_FIXED_BATCH if n_pixels > 1 else max(1000, 2 * widest)
    return min(n_samples, least)


def auto_table_fixed_batch_size(
    n_samples: int, n_with_held_out: int, widest: int
) -> int:
    """n̄_b of a table: all rows, or 4,000 of more than 10,000, those held out counted.

    Where batches are large anyway, more rows cost little and determine the sums better.
    """
    if n_with_held_out <= MOST_AT_ONCE:
        return n_samples
    return min(n_samples, max(4000, 2 * widest))


def auto_batch_size(n_samples: int) -> int:
    """Rows of a mini-batch: as in scikit-learn's MLP."""
    return min(200, n_samples)


def auto_table_batch_size(n_samples: int, n_with_held_out: int) -> int:
    """Rows of a mini-batch of a table: all, or parts of up to 2,000 of over 10,000.

    Those held out count, so that holding them out does not change how others are
    learnt.  All batches are about equally large: Adam's step for a small last one would
    be as long as any other.
    """
    if n_with_held_out <= MOST_AT_ONCE:
        return n_samples
    n_batches = -(-n_samples // 2000)
    return -(-n_samples // n_batches)


def auto_image_batch_size(n_samples: int) -> int:
    """As many images as there are in X̄: small batches give more steps per epoch."""
    return min(IMAGES_IN_FIXED_BATCH, n_samples)


def auto_rate(solver: str, parameterization: str, images: bool = False) -> float:
    """Step size: targets are of order 1, weights of order 1/√n_in.

    The large λ that goes with images holds their weights back.
    """
    if parameterization == "weights":
        return 0.1 if solver == "sgd" else 1e-3
    return (1.0 if solver == "sgd" else 1e-2) * (10 if images else 1)


def auto_annealed_image_rate(n_steps: int) -> float:
    """Step size of Adam for images: 0.1 √(1000 / steps), from 0.1 to 0.3.

    Annealed over a few hundred steps, smaller rates would not get far enough.
    """
    return 0.1 * min(3.0, max(1.0, math.sqrt(1000 / n_steps)))


def auto_epsilon(images: bool) -> float:
    """Stabiliser of Adam: that of scikit-learn's MLP, but next to nothing for images.

    The gradients of their targets are spread over all pixels of X̄, and those of the
    first layers are smaller than what would otherwise be added to them.
    """
    return 1e-15 if images else 1e-8


def auto_table_rate(n_layers: int) -> float:
    """Step size of Adam in large batches: 0.1 min(1, 2/√layers).

    Their gradients are steady, and allow large steps; in a deep network, the changes
    that layers make to each other's inputs add up.
    """
    return 0.1 * min(1.0, 2 / math.sqrt(n_layers))
