"""Where fits of recurrent networks with anchors go on."""

from typing import Any

import numpy as np
import pytest

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


@pytest.mark.parametrize("first", ["zero", "weights"])
def test_goes_on_with_another_anchor(first: str) -> None:
    X, y = series()
    model = fitted(X, y, anchor=first, warm_start=True, lam=1e-6)
    before = model.coefs_
    second = "weights" if first == "zero" else "zero"
    fit_quietly(model.set_params(anchor=second, **NO_STEPS), X, y)
    for a, b in zip(model.coefs_, before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert (model._anchors[0] is None) == (second == "zero")


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


def test_wrong_name() -> None:
    with pytest.raises(ValueError, match=r"'anchor' parameter .* must be a str among"):
        fitted(*series(), anchor="start")
