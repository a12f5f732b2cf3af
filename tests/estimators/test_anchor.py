"""Where fits of recurrent networks with anchors go on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from sktarget.persistence import load, save
from tests.estimators.sequence_support import fitted, series
from tests.estimators.support import fit_quietly

# Steps too small to change anything.
NO_STEPS: dict[str, Any] = {"learning_rate_init": 1e-12, "max_iter": 1}


@pytest.mark.parametrize("cell", ["rnn", "gru"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_goes_on_from_the_same_weights(cell: str, method: str) -> None:
    X, y = series()
    model = fitted(X, y, cell=cell, anchor="weights", warm_start=True, lam=50.0)
    before, anchors = model.coefs_, model._anchors
    assert [a is None for a in anchors] == [False, True]
    fit_quietly(model.set_params(**NO_STEPS), X, y, method)
    for a, b in zip(model.coefs_, before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_array_equal(model._anchors[0], anchors[0])


@pytest.mark.parametrize(("first", "then"), [("zero", "weights"), ("weights", "zero")])
def test_does_not_go_on_with_another_anchor(first: str, then: str) -> None:
    X, y = series()
    model = fitted(X, y, anchor=first, warm_start=True)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=f"anchor='{then}'.*clone the estimator"):
        model.set_params(anchor=then).fit(X, y)
    with pytest.raises(ValueError, match=f"anchor='{then}'.*clone the estimator"):
        model.set_params(lam=7.0).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_partial_fit_goes_on_from_a_fit_that_kept_no_targets() -> None:
    X, y = series()
    model = fitted(X, y, lam="auto", learning_rate_init="auto")
    before = model.coefs_
    assert not hasattr(model, "_anchors")
    fit_quietly(model.set_params(**NO_STEPS), X, y, "partial_fit")
    for a, b in zip(model.coefs_, before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_simple_cells_are_anchored_by_default() -> None:
    X, y = series()
    anchored = {
        cell: fitted(X, y, cell=cell, warm_start=True)._anchors[0] is not None
        for cell in ("rnn", "gru", "lstm")
    }
    assert anchored == {"rnn": True, "gru": False, "lstm": False}


def test_random_targets_have_no_weights_to_be_pulled_to() -> None:
    model = fitted(*series(), target_init="normal", warm_start=True)
    assert model._anchors == [None, None]


def test_layers_before_the_states_have_the_small_lam() -> None:
    class Own(nn.Module):
        def __init__(self, n_channels: int, n_outputs: int) -> None:
            super().__init__()
            self.inward = nn.Linear(n_channels, 3)
            self.states = nn.GRU(3, 4, batch_first=True)
            self.exit = nn.Linear(4, n_outputs)

        def forward(self, x: Tensor) -> Tensor:
            return self.exit(self.states(self.inward(x).tanh())[0][:, -1])

    X, y = series()
    rules = {"lam": "auto", "learning_rate_init": "auto"}
    model = fitted(X, y, module=Own, anchor="weights", max_iter=1, **rules)
    np.testing.assert_allclose(model.lam_, [16, 360, 1])


def test_wrong_name() -> None:
    with pytest.raises(ValueError, match=r"'anchor' parameter .* must be a str among"):
        fitted(*series(), anchor="start")


def test_anchors_are_saved_with_the_targets(tmp_path: Path) -> None:
    X, y = series()
    model = fitted(X, y, warm_start=True)
    save(model, tmp_path / "model.npz")
    again = load(tmp_path / "model.npz", callbacks=None)
    for one in (model, again):
        fit_quietly(one, X, y)
    for a, b in zip(again.coefs_, model.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
