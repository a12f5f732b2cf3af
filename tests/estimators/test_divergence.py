"""Training that diverges: what is said, and what is left."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from skorch.callbacks import Callback

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from tests.estimators.support import (
    ALL_EPOCHS,
    SetsRate,
    class_data,
    fit_quietly,
    for_both,
    problem,
    weights,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (5, 5),
    "lam": 0.5,
    "max_iter": 30,
    "random_state": 0,
    **ALL_EPOCHS,
}
MESSAGE = r"epoch \d+.*lam=0.5.*learning_rate_init=1e\+"


@for_both
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("rate", [1e30, 1e200])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_message_names_epoch_lam_and_rate(
    kind: type,
    activation: str,
    solver: str,
    rate: float,
    early_stopping: bool,
    dtype: str,
) -> None:
    X, y = problem(kind)
    estimator = kind(
        **SMALL,
        activation=activation,
        solver=solver,
        learning_rate_init=rate,
        early_stopping=early_stopping,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(X.astype(dtype), y)
        except ValueError as error:
            said = str(error)
            assert not hasattr(estimator, "n_iter_")
        else:
            assert {w.category for w in caught} == {ConvergenceWarning}
            said = str(caught[0].message)
            assert all(np.isfinite(w).all() for w in weights(estimator))
            assert np.isfinite(estimator.predict(X)).all()
            if "Maximum iterations" in said:  # large, but finite to the end
                assert np.isfinite(estimator.loss_curve_).all()
                assert (dtype, rate) == ("f8", 1e30)
                return
    assert re.search(MESSAGE, said), said


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_best_state_is_restored(activation: str, early_stopping: bool) -> None:
    X, y = class_data()
    X = X.astype("f4")
    settings = SMALL | {
        "activation": activation,
        "early_stopping": early_stopping,
        "alpha": 0.0,
        "batch_size": 90,
        "learning_rate_init": 0.1,
    }
    calm = fit_quietly(TargetSpaceClassifier(**settings), X, y)
    estimator = TargetSpaceClassifier(**settings, callbacks=[SetsRate(1e38, 20)])
    with pytest.warns(ConvergenceWarning, match=r"epoch 2\d.*lam=0.5.*best"):
        estimator.fit(X, y)
    assert 19 <= estimator.n_iter_ < 30
    assert np.isfinite(estimator.loss_curve_).all()
    np.testing.assert_array_equal(estimator.loss_curve_[:19], calm.loss_curve_[:19])
    assert estimator.score(X, y) > 0.7
    if not early_stopping:
        # The best loss is that of the state kept.
        loss = log_loss(y, estimator.predict_proba(X))
        assert loss == pytest.approx(estimator.best_loss_, rel=1e-4)


def test_last_step_of_all_does_not_go_unnoticed() -> None:
    # The loss of an epoch is measured before its step: nobody measures the last.
    X, y = class_data()
    X = X.astype("f4")
    for activation in ("tanh", "relu"):
        estimator = TargetSpaceClassifier(
            **(SMALL | {"max_iter": 3}),
            activation=activation,
            callbacks=[SetsRate(1e200, 3)],
        )
        with pytest.warns(ConvergenceWarning):
            estimator.fit(X, y)
        assert all(np.isfinite(w).all() for w in weights(estimator))
        assert np.isfinite(estimator.predict_proba(X)).all()


@for_both
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_only_what_has_an_effect_is_named(
    kind: type, parameterization: str, solver: str
) -> None:
    def spoil(module: Any, inputs: Any, outputs: Any) -> Any:
        return outputs * np.inf

    class Spoils(Callback):  # type: ignore[misc]
        def on_train_begin(self, net: Any, **_: Any) -> None:
            inner = getattr(net.module_, "module", net.module_)
            inner.register_forward_hook(spoil)

    options = {**SMALL, "learning_rate_init": 0.3, "callbacks": [Spoils()]}
    model = kind(**options, parameterization=parameterization, solver=solver)
    with pytest.raises(ValueError, match="diverged") as caught:
        model.fit(*problem(kind))
    of_targets, steps = parameterization == "targets", solver == "sgd"
    for word, applies in {
        "lam=0.5": of_targets,
        "aise lam": of_targets,
        "learning_rate_init=0.3": steps,
        "ower learning_rate_init": steps,
        "tandardise X and y": kind is TargetSpaceRegressor,
        "()": False,
    }.items():
        assert (word in str(caught.value)) == applies, word


@for_both
def test_fitted_estimator_survives(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    before = estimator.predict(X)
    losses = estimator.loss_curve_
    estimator.set_params(learning_rate_init=1e300, batch_size=10, activation="relu")
    with pytest.raises(ValueError, match=MESSAGE):
        estimator.fit(X, y)
    assert estimator.loss_curve_ is losses
    np.testing.assert_array_equal(estimator.predict(X), before)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("parameterization", ["targets", "weights"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_lower_rate_goes_on_after_divergence(
    solver: str, parameterization: str, method: str
) -> None:
    X, y = class_data()
    settings = SMALL | {"parameterization": parameterization, "solver": solver}
    estimator = TargetSpaceClassifier(**settings, warm_start=True)
    rate = 0.01 if solver == "adam" else 0.5
    fit_quietly(estimator.set_params(learning_rate_init=rate), X, y)
    kept = estimator.predict_proba(X)
    estimator.set_params(callbacks=[SetsRate(1e200, 1)])
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, y)
    # The steps that follow begin where training was sound, without its last moments.
    estimator.set_params(callbacks=None, learning_rate_init=rate, max_iter=3)
    for _ in range(3):
        fit_quietly(estimator, X, y, method)
    assert estimator.loss_curve_[-1] < log_loss(y, kept) + 1e-3


def test_divergence_in_the_last_step_is_no_natural_end() -> None:
    X, y = class_data()
    settings = SMALL | {"max_iter": 3, "activation": "relu", "warm_start": True}
    estimator = TargetSpaceClassifier(**settings, callbacks=[SetsRate(1e200, 3)])
    with pytest.warns(ConvergenceWarning, match="after epoch 3"):
        estimator.fit(X.astype("f4"), y)
    assert not hasattr(estimator, "_optimiser_state")
