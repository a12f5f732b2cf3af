"""The slow truth: dense networks in target space in plain NumPy, float64.

Algorithms 1 to 3 of Fairbank, Samothrakis & Citi, *Deep Learning in Target Space*
(JMLR 23, 2022), one step after the other and without automatic differentiation.
Nothing here is shared with the package, so that the two can be compared. Patterns
are rows, where the paper has columns.

Lists run over the layers that have weights: entry k of ``weights``, ``targets``,
``sums`` and ``inputs`` belongs to the layer of width ``sizes[k + 1]``. Entry k of
``activations`` is the layer of width ``sizes[k]``, so ``activations[0]`` is the data.
The last layer is linear: its squashing function belongs to the loss.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Untangling = Literal["scu", "ocu"]


# --- Networks -------------------------------------------------------------------------


def _sigmoid(s: Array) -> Array:
    # tanh does not overflow, whatever the sign of s.
    return 0.5 * (1.0 + np.tanh(0.5 * s))


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.tanh, lambda s: 1.0 - np.tanh(s) ** 2),
    "relu": (lambda s: np.maximum(s, 0.0), lambda s: np.where(s > 0, 1.0, 0.0)),
    "leaky_relu": (
        lambda s: np.where(s > 0, s, 0.2 * s),
        lambda s: np.where(s > 0, 1.0, 0.2),
    ),
    "logistic": (_sigmoid, lambda s: _sigmoid(s) * (1.0 - _sigmoid(s))),
    "identity": (lambda s: s, np.ones_like),
}
"""Name -> (g, g'), both as functions of the sums."""


@dataclass(frozen=True)
class Network:
    """Everything about a dense network but its weights.

    ``sizes`` counts the inputs first and the outputs last.
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"
    shortcuts: bool = False
    bias: bool = True

    @property
    def n_weighted(self) -> int:
        """How many layers have weights: all but the input."""
        return len(self.sizes) - 1

    def sources(self, k: int) -> range:
        """Which layers, by their place in ``sizes``, feed weighted layer k."""
        return range(k + 1) if self.shortcuts else range(k, k + 1)

    def weight_shapes(self) -> list[tuple[int, int]]:
        """(n_in, d_j) of every weight matrix, the bias row included."""
        return [
            (self.bias + sum(self.sizes[i] for i in self.sources(k)), self.sizes[k + 1])
            for k in range(self.n_weighted)
        ]

    def target_shapes(self, n_fixed: int) -> list[tuple[int, int]]:
        """(rows of the fixed batch, d_j) of every target matrix."""
        return [(n_fixed, width) for width in self.sizes[1:]]

    def gather(self, activations: list[Array], k: int) -> Array:
        """Build A_[0:j): ones for the bias, then all that feeds layer k, in order."""
        ones = np.ones((len(activations[0]), int(self.bias)))
        return np.hstack([ones, *(activations[i] for i in self.sources(k))])

    def scatter(self, d_inputs: Array, k: int, d_activations: list[Array]) -> None:
        """Add the gradient of A_[0:j) to those of its parts: adjoint of `gather`."""
        column = int(self.bias)
        for i in self.sources(k):
            d_activations[i] += d_inputs[:, column : column + self.sizes[i]]
            column += self.sizes[i]

    def g(self, sums: Array) -> Array:
        return ACTIVATIONS[self.activation][0](sums)

    def g_prime(self, sums: Array) -> Array:
        return ACTIVATIONS[self.activation][1](sums)


class Pass(NamedTuple):
    """What a batch leaves behind in the network."""

    inputs: list[Array]
    sums: list[Array]
    activations: list[Array]


def forward(network: Network, weights: list[Array], x: Array) -> Pass:
    """Alg. 1: the ordinary forward pass."""
    inputs: list[Array] = []
    sums: list[Array] = []
    activations = [x]
    for k, w in enumerate(weights):
        inputs.append(network.gather(activations, k))
        sums.append(inputs[k] @ w)
        last = k == network.n_weighted - 1
        activations.append(sums[k] if last else network.g(sums[k]))
    return Pass(inputs, sums, activations)


def backward(
    network: Network, weights: list[Array], x: Array, d_output: Array
) -> list[Array]:
    """Ordinary backpropagation: dL/dW of every layer from dL/d(output sums)."""
    inputs, sums, activations = forward(network, weights, x)
    d_activations = [np.zeros_like(a) for a in activations]
    d_weights = [np.zeros_like(w) for w in weights]
    d_sums = d_output
    for k in reversed(range(network.n_weighted)):
        if k < network.n_weighted - 1:
            d_sums = d_activations[k + 1] * network.g_prime(sums[k])
        d_weights[k] = inputs[k].T @ d_sums
        network.scatter(d_sums @ weights[k].T, k, d_activations)
    return d_weights


# --- Targets to weights ---------------------------------------------------------------


def regularised_solve(gram: Array, right: Array, lam: float) -> Array:
    """(G + lam I)^-1 R."""
    damped = gram + lam * np.eye(len(gram))
    return np.linalg.solve(damped, right).astype(np.float64)


def ridge_primal(a: Array, t: Array, lam: float) -> Array:
    """Eq. 7: W = (A^T A + lam I)^-1 A^T T."""
    return regularised_solve(a.T @ a, a.T @ t, lam)


def ridge_dual(a: Array, t: Array, lam: float) -> Array:
    """Eq. 23: W = A^T (A A^T + lam I)^-1 T, the smaller system for few rows."""
    return a.T @ regularised_solve(a @ a.T, t, lam)


def ridge(a: Array, t: Array, lam: float, anchor: Array | None = None) -> Array:
    """W = argmin |A W - T|^2 + lam |W|^2, by the smaller of the two systems.

    With an anchor W0 the ridge is lam |W - W0|^2.
    """
    if anchor is not None:
        return anchor + ridge(a, t - a @ anchor, lam)
    n_rows, n_in = a.shape
    return (ridge_dual if n_rows < n_in else ridge_primal)(a, t, lam)


def realise(
    network: Network,
    targets: list[Array],
    fixed_batch: Array,
    lam: float,
    untangling: Untangling = "scu",
) -> tuple[list[Array], Pass]:
    """Alg. 2 (SCU) or Eq. 8 (OCU): the weights, and the pass that led to them.

    The sums are A W in both modes. SCU hands g(sums) on to later layers, OCU hands on
    g(targets), as if every target had been met.
    """
    weights: list[Array] = []
    inputs: list[Array] = []
    sums: list[Array] = []
    activations = [fixed_batch]
    for k, t in enumerate(targets):
        inputs.append(network.gather(activations, k))
        weights.append(ridge(inputs[k], t, lam))
        sums.append(inputs[k] @ weights[k])
        reached = sums[k] if untangling == "scu" else t
        last = k == network.n_weighted - 1
        activations.append(reached if last else network.g(reached))
    return weights, Pass(inputs, sums, activations)


def project(
    network: Network, targets: list[Array], fixed_batch: Array, lam: float
) -> list[Array]:
    """Eq. 13, layer by layer: T <- S, before anything is handed on.

    Once T = S, passing on g(T) or g(S) is the same, so the mode does not matter.
    """
    return realise(network, targets, fixed_batch, lam, "scu")[1].sums


def targets_from_weights(
    network: Network, weights: list[Array], fixed_batch: Array
) -> list[Array]:
    """Sec. 3.5: T <- S of the ordinary forward pass of the fixed batch."""
    return forward(network, weights, fixed_batch).sums


# --- Convolutions (Sec. 4.2) ----------------------------------------------------------


def patches(
    maps: Array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    mode: str = "constant",
) -> Array:
    """Rows = images x output pixels; columns = channels x positions of the kernel.

    ``maps`` has the shape (n, channels, *extents), ``padding`` the widths before and
    after every axis, ``mode`` is that of `np.pad`. The columns are in the order of
    torch's kernels, so the rows times ``kernel.reshape(outputs, -1).T`` are the sums.
    """
    padded = np.pad(maps, [(0, 0), (0, 0), *padding], mode=mode)  # type: ignore[call-overload]
    extents = padded.shape[2:]
    out = [
        (h - d * (k - 1) - 1) // s + 1
        for h, k, s, d in zip(extents, kernel, stride, dilation, strict=True)
    ]
    rows = []
    for image in padded:
        for pixel in itertools.product(*map(range, out)):
            window = tuple(
                slice(o * s, o * s + d * (k - 1) + 1, d)
                for o, k, s, d in zip(pixel, kernel, stride, dilation, strict=True)
            )
            rows.append(image[(slice(None), *window)].ravel())
    return np.array(rows)


def convolution_ridge(
    rows: Array, t: Array, lam: float, *, groups: int = 1, bias: bool = True
) -> tuple[Array, Array]:
    """Solve for the kernel, flattened as (outputs, columns), and the bias.

    ``rows`` are all patches, ``t`` the targets (n, outputs, *extents). Each group of
    channels is a ridge problem of its own.
    """
    t = np.moveaxis(t, 1, -1).reshape(len(rows), -1)
    kernels, biases = [], []
    for a, t_group in zip(
        np.split(rows, groups, axis=1), np.split(t, groups, axis=1), strict=True
    ):
        w = ridge_primal(np.hstack([np.ones((len(a), int(bias))), a]), t_group, lam)
        kernels.append(w[int(bias) :].T)
        biases.append(w[0] if bias else np.zeros(w.shape[1]))
    return np.vstack(kernels), np.concatenate(biases)


# --- Losses: (output sums, y) -> (loss, dL/d(output sums)) ----------------------------


def softmax_cross_entropy(sums: Array, y: NDArray[Any]) -> tuple[float, Array]:
    """Mean over rows; y holds class indices, shape (n,)."""
    rows = np.arange(len(y))
    shifted = sums - sums.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    d_sums = np.exp(log_p)
    d_sums[rows, y] -= 1.0
    return float(-log_p[rows, y].mean()), d_sums / len(y)


def logistic_loss(sums: Array, y: NDArray[Any]) -> tuple[float, Array]:
    """Mean over rows of the sum over outputs; y holds 0 and 1, shape (n, n_out)."""
    loss = (np.logaddexp(0.0, sums) - y * sums).sum() / len(y)
    return float(loss), (_sigmoid(sums) - y) / len(y)


def squared_error(sums: Array, y: NDArray[Any]) -> tuple[float, Array]:
    """Half the mean over rows and outputs; y has shape (n, n_out)."""
    return float(0.5 * np.mean((sums - y) ** 2)), (sums - y) / sums.size


def absolute_error(sums: Array, y: NDArray[Any]) -> tuple[float, Array]:
    """Mean over rows and outputs; y has shape (n, n_out)."""
    return float(np.mean(np.abs(sums - y))), np.sign(sums - y) / sums.size


def pinball_loss(sums: Array, y: NDArray[Any]) -> tuple[float, Array]:
    """Mean over rows and outputs for the quantile 0.8; y has shape (n, n_out)."""
    share = np.where(y > sums, 0.8, -0.2)
    return float(np.mean(share * (y - sums))), -share / sums.size


def poisson_deviance(sums: Array, y: NDArray[Any]) -> tuple[float, Array]:
    """Half the mean over rows and outputs; y has shape (n, n_out), sums are logs."""
    mean, some = np.exp(sums), np.where(y > 0, y, 1.0)
    deviances = y * (np.log(some) - sums) - y + mean
    return float(np.mean(deviances)), (mean - y) / sums.size


Loss = Callable[[Array, NDArray[Any]], tuple[float, Array]]
LOSSES: dict[str, Loss] = {
    "softmax": softmax_cross_entropy,
    "logistic": logistic_loss,
    "squared": squared_error,
    "absolute": absolute_error,
    "pinball": pinball_loss,
    "poisson": poisson_deviance,
}


# --- Learning in target space ---------------------------------------------------------


def target_loss(
    network: Network,
    targets: list[Array],
    fixed_batch: Array,
    x: Array,
    y: NDArray[Any],
    *,
    lam: float,
    untangling: Untangling = "scu",
    loss: str = "softmax",
) -> float:
    """L(T): realise the weights on the fixed batch, measure the loss on (x, y)."""
    weights, _ = realise(network, targets, fixed_batch, lam, untangling)
    return LOSSES[loss](forward(network, weights, x).sums[-1], y)[0]


def target_gradients(
    network: Network,
    targets: list[Array],
    fixed_batch: Array,
    x: Array,
    y: NDArray[Any],
    *,
    lam: float,
    untangling: Untangling = "scu",
    loss: str = "softmax",
) -> list[Array]:
    """Alg. 3: dL/dT of every layer.

    First what the mini-batch asks of the weights, by ordinary backpropagation; then
    back along the cascade of the fixed batch, through one ridge solve after another.
    """
    weights, fixed = realise(network, targets, fixed_batch, lam, untangling)
    output = forward(network, weights, x).sums[-1]
    d_weights = backward(network, weights, x, LOSSES[loss](output, y)[1])

    # The loss is measured on x alone: the outputs of the fixed batch feed nothing.
    d_activations = [np.zeros_like(a) for a in fixed.activations]
    d_targets = [np.zeros_like(t) for t in targets]
    for k in reversed(range(network.n_weighted)):
        a, s, t, w = fixed.inputs[k], fixed.sums[k], targets[k], weights[k]

        # SCU hands on g(S). OCU hands on g(T), and then nothing consumes S.
        d_s = np.zeros_like(s)
        d_t_direct = np.zeros_like(t)
        if untangling == "scu":
            d_s = d_activations[k + 1] * network.g_prime(s)
        else:
            d_t_direct = d_activations[k + 1] * network.g_prime(t)

        d = d_weights[k] + a.T @ d_s
        y_solve = regularised_solve(a.T @ a, d, lam)
        d_t_solve = a @ y_solve
        d_targets[k] = d_t_solve + d_t_direct
        # T enters (T - S) Y^T through the solve only, hence d_t_solve and not d_t.
        d_a = (d_s - d_t_solve) @ w.T + (t - s) @ y_solve.T
        network.scatter(d_a, k, d_activations)
    return d_targets
