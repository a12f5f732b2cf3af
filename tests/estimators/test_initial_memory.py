"""How long gates remember from the start."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from sktarget.estimators import _sequence_rules
from tests.estimators.sequence_support import as_list, fitted, series, tokens
from tests.estimators.support import fit_quietly

# Steps too small to change anything, and no λ that would.
AT_THE_START: dict[str, Any] = {
    "learning_rate_init": 1e-12,
    "lam": 1e-6,
    "max_iter": 1,
    "recurrent_layer_sizes": (2,),
}


def kept(model: Any) -> np.ndarray:
    """Return the biases of the gates that keep the states, the second of the blocks."""
    bias = model.intercepts_[0]
    n_hidden = model.recurrent_layer_sizes[0]
    return np.asarray(bias[n_hidden : 2 * n_hidden])


def test_memories_last_half_as_long_as_sequences() -> None:
    assert _sequence_rules.auto_initial_memory(100.0) == 50.0
    assert _sequence_rules.auto_initial_memory(1.0) == 2.0


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gates_start_by_the_mean_length(cell: str) -> None:
    X, y = series(40, 2, 9)
    same: dict[str, Any] = {**AT_THE_START, "cell": cell}
    expected = kept(fitted(X, y, initial_memory=4.5, **same))
    assert (expected > 0).all()
    assert (expected < np.log(3.5)).all()
    np.testing.assert_allclose(kept(fitted(X, y, **same)), expected, rtol=1e-3)
    listed = as_list(X)
    half = np.mean([x.shape[1] for x in listed]) / 2
    auto, given = (
        kept(fitted(listed, y, initial_memory=m, **same)) for m in ("auto", half)
    )
    np.testing.assert_allclose(auto, given, rtol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"initial_memory": None},
        {"parameterization": "weights"},
    ],
)
def test_gates_start_without_memory(settings: dict[str, Any]) -> None:
    for cell, expected in (("gru", 0.0), ("lstm", 1.0)):
        model = fitted(*series(), cell=cell, **{**AT_THE_START, **settings})
        np.testing.assert_allclose(kept(model), expected, atol=1e-3)


def test_memory_is_for_weight_space_too() -> None:
    same: dict[str, Any] = {**AT_THE_START, "cell": "gru", "initial_memory": 9}
    here, there = (
        kept(fitted(*series(), parameterization=space, **same))
        for space in ("targets", "weights")
    )
    np.testing.assert_allclose(here, there, rtol=1e-3)


def test_random_targets_take_no_weights_and_no_draws() -> None:
    same = {"cell": "gru", "target_init": "normal", "max_iter": 1}
    auto, none = (
        fitted(*series(), initial_memory=memory, **same).coefs_
        for memory in ("auto", None)
    )
    for a, b in zip(auto, none, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_module_of_ones_own_is_left_alone() -> None:
    class Own(nn.Module):
        def __init__(self, n_channels: int, n_outputs: int) -> None:
            super().__init__()
            self.states = nn.GRU(n_channels, 2, batch_first=True)
            self.exit = nn.Linear(2, n_outputs)
            nn.init.constant_(self.states.bias_ih_l0, 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.exit(self.states(x)[0][:, -1])

    model = fitted(*series(), module=Own, initial_memory=50, **AT_THE_START)
    weights = model.module_.state_dict()
    kept_ = (weights["states.bias_ih_l0"] + weights["states.bias_hh_l0"])[2:4]
    assert (kept_ < 1.6).all()  # Torch draws the other bias from up to 1 / √2.


@pytest.mark.parametrize("memory", [1.5, 0, -3, "long"])
def test_impossible_memories(memory: Any) -> None:
    with pytest.raises(ValueError, match="initial_memory"):
        fitted(*series(), cell="gru", initial_memory=memory)


def test_going_on_draws_no_gates_anew() -> None:
    X, y = series()
    model = fitted(X, y, cell="gru", warm_start=True, **AT_THE_START)
    before = kept(model)
    fit_quietly(model.set_params(initial_memory=200), X, y)
    np.testing.assert_allclose(kept(model), before, rtol=1e-3)
    fit_quietly(model, X[:, :, :5], y)  # Other lengths make no other network.


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_tokens_are_not_remembered_at_first(cell: str) -> None:
    X, y = tokens()
    same: dict[str, Any] = {**AT_THE_START, "cell": cell, "vocabulary_size": 8}
    auto, none, given = (
        kept(fitted(X, y, initial_memory=memory, **same))
        for memory in ("auto", None, 9)
    )
    np.testing.assert_array_equal(auto, none)
    assert (given != none).any()


def test_draws_come_from_the_random_state(global_state_untouched: None) -> None:
    X, y = series()
    same: dict[str, Any] = {**AT_THE_START, "cell": "gru"}
    a, b, c = (kept(fitted(X, y, **{**same, "random_state": k})) for k in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_both_directions_of_all_layers_remember(cell: str) -> None:
    X, y = series()
    settings = {**AT_THE_START, "recurrent_layer_sizes": (2, 3), "max_iter": 1}
    model = fitted(
        X.astype(float), y, cell=cell, bidirectional=True, initial_memory=9, **settings
    )
    sizes = [2, 2, 3, 3]
    gates = [b[h : 2 * h] for b, h in zip(model.intercepts_[:4], sizes, strict=True)]
    found = np.concatenate(gates)
    assert len(np.unique(found)) == sum(sizes)
    assert (found > -0.01).all()
    assert (found < np.log(8) + 0.01).all()
