"""The slow truth: recurrent networks in target space in plain NumPy, float64.

Algorithms 4 and 5 of Fairbank, Samothrakis & Citi, *Deep Learning in Target Space*
(JMLR 23, 2022), with loops over time, and the gated cells that the paper proposes.
Nothing here is shared with the package.

Sequences are arrays (n, time, features). A matrix W has a row of biases, the rows of
the inputs and those of the context h(t - 1); its columns are the blocks of sums of the
cell, each of the width of h: s of the plain cell; i, f, g, o of the LSTM; r, z, u, v of
the GRU, where u hears the input alone and v the context alone, and the candidate is
tanh(u + r v).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.reference import ridge

Array = NDArray[np.float64]
State = tuple[Array, ...]


def _sigmoid(s: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-s))


def _plain(g: Callable[[Array], Array]) -> Callable[[Array, State], State]:
    return lambda s, _: (g(s),)


def _lstm(s: Array, state: State) -> State:
    i, f, g, o = np.split(s, 4, axis=1)
    c = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(s: Array, state: State) -> State:
    r, z, u, v = np.split(s, 4, axis=1)
    n = np.tanh(u + _sigmoid(r) * v)
    return ((1.0 - _sigmoid(z)) * n + _sigmoid(z) * state[0],)


class Cell(NamedTuple):
    """A kind of cell: blocks of sums, parts of the state, (sums, state) -> state."""

    n_blocks: int
    n_states: int
    step: Callable[[Array, State], State]


CELLS = {
    "tanh": Cell(1, 1, _plain(np.tanh)),
    "relu": Cell(1, 1, _plain(lambda s: np.maximum(s, 0.0))),
    "lstm": Cell(4, 2, _lstm),
    "gru": Cell(4, 1, _gru),
}


def _rows(x: Array, context: Array, bias: bool) -> Array:
    """[1, x, h(t - 1)], one row a sequence."""
    return np.hstack([np.ones((len(x), int(bias))), x, context])


def run(cell: Cell, weights: Array, x: Array, bias: bool) -> tuple[Array, Array]:
    """Alg. 4: the sums and the outputs h of all steps, from a state of zeros."""
    n_hidden = weights.shape[1] // cell.n_blocks
    state: State = (np.zeros((len(x), n_hidden)),) * cell.n_states
    sums, outputs = [], []
    for t in range(x.shape[1]):
        sums.append(_rows(x[:, t], state[0], bias) @ weights)
        state = cell.step(sums[-1], state)
        outputs.append(state[0])
    return np.stack(sums, axis=1), np.stack(outputs, axis=1)


def estimate(cell: Cell, targets: Array) -> Array:
    """Eq. 21: the outputs of all steps, were every target met."""
    n_hidden = targets.shape[2] // cell.n_blocks
    state: State = (np.zeros((len(targets), n_hidden)),) * cell.n_states
    outputs = []
    for t in range(targets.shape[1]):
        state = cell.step(targets[:, t], state)
        outputs.append(state[0])
    return np.stack(outputs, axis=1)


def solve(
    name: str,
    targets: Array,
    x: Array,
    lam: float,
    bias: bool,
    lengths: list[int],
    anchor: Array | None = None,
) -> Array:
    """Alg. 5, lines 1 to 9: one least squares over the real steps of all sequences."""
    cell = CELLS[name]
    h = estimate(cell, targets)
    inputs, context, wanted = [], [], []
    for k, length in enumerate(lengths):
        for t in range(length):
            inputs.append(x[k, t])
            context.append(h[k, t - 1] if t > 0 else np.zeros(h.shape[2]))
            wanted.append(targets[k, t])
    x_rows, h_rows, t_rows = map(np.array, (inputs, context, wanted))
    one, d, width = int(bias), x.shape[2], h.shape[2]
    if name != "gru":
        return ridge(_rows(x_rows, h_rows, bias), t_rows, lam, anchor)
    weights = np.zeros((one + d + width, 4 * width))
    nothing = np.zeros((len(t_rows), 0))
    gates, u, v = np.split(t_rows, [2 * width, 3 * width], axis=1)
    g_0 = u_0 = v_0 = None
    if anchor is not None:
        g_0, u_0, v_0 = np.split(anchor, [2 * width, 3 * width], axis=1)
        u_0, v_0 = u_0[: one + d], np.delete(v_0, np.s_[one : one + d], axis=0)
    weights[:, : 2 * width] = ridge(_rows(x_rows, h_rows, bias), gates, lam, g_0)
    u_map = ridge(_rows(x_rows, nothing, bias), u, lam, u_0)
    v_map = ridge(_rows(h_rows, nothing, bias), v, lam, v_0)
    weights[: one + d, 2 * width : 3 * width] = u_map
    weights[:one, 3 * width :] = v_map[:one]
    weights[one + d :, 3 * width :] = v_map[one:]
    return weights


def backwards(x: Array, lengths: list[int]) -> Array:
    """Reverse every sequence, its padding left behind."""
    out = x.copy()
    for k, length in enumerate(lengths):
        out[k, :length] = x[k, :length][::-1]
    return out


def realise(
    name: str,
    targets: list[list[Array]],
    x: Array,
    lam: float,
    *,
    bias: bool = True,
    untangling: str = "scu",
    lengths: list[int] | None = None,
    anchors: list[Array] | None = None,
) -> tuple[list[list[Array]], list[list[Array]], Array]:
    """Alg. 5 for a stack of layers, each of one direction or of two.

    `targets` holds, layer by layer, one array a direction. Returns weights and true
    sums in the same order, and the outputs that the exit layers see. `anchors` has one
    array for each of all directions.
    """
    anchor = iter(anchors or ())
    lengths = [x.shape[1]] * len(x) if lengths is None else lengths
    weights: list[list[Array]] = []
    sums: list[list[Array]] = []
    for layer in targets:
        weights.append([])
        sums.append([])
        outputs = []
        for direction, own in enumerate(layer):
            # Backwards in time: the same on reversed sequences.
            flip = backwards if direction else lambda a, _: a
            t, x_seen = flip(own, lengths), flip(x, lengths)
            w = solve(name, t, x_seen, lam, bias, lengths, next(anchor, None))
            s, h = run(CELLS[name], w, x_seen, bias)  # Line 10.
            if untangling == "ocu":
                h = estimate(CELLS[name], t)
            weights[-1].append(w)
            sums[-1].append(flip(s, lengths))
            outputs.append(flip(h, lengths))
        x = np.concatenate(outputs, axis=2)
    return weights, sums, x


def to_torch(name: str, weights: Array, n_inputs: int, bias: bool) -> list[Array]:
    """Return W as torch has it: w_ih, w_hh, and the two biases, the second mostly 0."""
    one = int(bias)
    x_part, h_part = weights[one : one + n_inputs].T, weights[one + n_inputs :].T
    b_ih, b_hh = weights[:one].ravel(), np.zeros(one * len(x_part))
    if name == "gru":
        width = len(x_part) // 4
        x_part, h_part = (
            x_part[: 3 * width],
            np.delete(h_part, np.s_[2 * width : 3 * width], axis=0),
        )
        if bias:
            b_hh = np.concatenate([np.zeros(2 * width), b_ih[3 * width :]])
            b_ih = b_ih[: 3 * width]
    return [x_part, h_part] + ([b_ih, b_hh] if bias else [])
