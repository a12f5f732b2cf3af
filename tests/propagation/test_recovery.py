"""Fits of the sister algorithms that go on from a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sktarget import _archive
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
    RegularizedInversionSequenceClassifier,
    RegularizedInversionSequenceRegressor,
)
from tests.estimators.support import (
    ALL_EPOCHS,
    Dies,
    class_data,
    curve_data,
    fit_quietly,
)

DENSE = {"hidden_layer_sizes": (7, 6, 5)}
KINDS: dict[type, dict[str, Any]] = {
    DifferenceTargetPropagationClassifier: DENSE,
    DifferenceTargetPropagationRegressor: DENSE,
    RegularizedInversionClassifier: DENSE,
    RegularizedInversionRegressor: DENSE,
    RegularizedInversionSequenceClassifier: {"recurrent_layer_sizes": (5,)},
    RegularizedInversionSequenceRegressor: {"recurrent_layer_sizes": (5,)},
}
COMMON: dict[str, Any] = {
    "batch_size": 30,
    "max_iter": 6,
    "random_state": 0,
    **ALL_EPOCHS,
}
for_all = pytest.mark.parametrize("kind", KINDS)


def fit(kind: type, **more: Any) -> Any:
    X, y = curve_data() if kind.__name__.endswith("Regressor") else class_data()
    return fit_quietly(kind(**(COMMON | KINDS[kind] | more)), X, y)


def state(estimator: Any) -> dict[str, Any]:
    """Return all that a fit has left behind but the path."""
    return {k: v for k, v in vars(estimator).items() if "check" not in k}


@for_all
@pytest.mark.usefixtures("global_state_untouched")
def test_at_most_one_epoch_is_lost(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "run"
    for epoch, kept in [(3, 2), (1, 2), (3, 4)]:
        with pytest.raises(MemoryError):
            fit(kind, checkpoint=path, callbacks=[Dies(epoch)])
        assert len(_archive.read(path, "checkpoint")["log"]["loss_curve"]) == kept
    undisturbed = fit(kind)
    gone_on = fit(kind, checkpoint=path)
    np.testing.assert_equal(state(gone_on), state(undisturbed))
    # What has ended is only read: it would fail in the first epoch of all.
    read = fit(kind, checkpoint=path, callbacks=[Dies(1)]).set_params(callbacks=None)
    np.testing.assert_equal(state(read), state(undisturbed))
    np.testing.assert_equal(
        state(fit(kind, checkpoint=path, max_iter=8)), state(fit(kind, max_iter=8))
    )


@for_all
def test_warm_start_goes_on_with_one_file(kind: type, tmp_path: Path) -> None:
    X, y = curve_data() if kind.__name__.endswith("Regressor") else class_data()
    twice = fit(kind, warm_start=True, checkpoint=tmp_path / "run")
    twice.set_params(callbacks=[Dies(3)])
    with pytest.raises(MemoryError):
        fit_quietly(twice, X, y)
    fit_quietly(twice.set_params(callbacks=None), X, y)
    once = fit(kind, max_iter=12, warm_start=True)
    assert twice.loss_curve_ == once.loss_curve_
    np.testing.assert_equal(twice.coefs_, once.coefs_)


@for_all
def test_other_fits_are_refused(kind: type, tmp_path: Path) -> None:
    fit(kind, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match=r"another fit: target_lr was .* and is 0\.5"):
        fit(kind, checkpoint=tmp_path / "run", target_lr=0.5)
    with pytest.raises(ValueError, match="'checkpoint' parameter"):
        fit(kind, checkpoint=1)
