"""What the estimators of difference target propagation do with their parameters."""

import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skorch.callbacks import Callback, Freezer, GradientNormClipping

from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
)
from sktarget.propagation._difference import DifferenceTargetNetwork
from tests.estimators.support import (
    ALL_EPOCHS,
    assert_learns,
    assert_same_weights,
    class_data,
    curve_data,
    fit_quietly,
    label_data,
    weights,
    weights_differ,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (7, 6, 5),
    "max_iter": 4,
    "batch_size": 30,
    "random_state": 0,
    **ALL_EPOCHS,
}
BOTH = [DifferenceTargetPropagationClassifier, DifferenceTargetPropagationRegressor]
for_both = pytest.mark.parametrize("kind", BOTH)


def problem(kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
    classifies = kind is DifferenceTargetPropagationClassifier
    return class_data() if classifies else curve_data()


def feedback(estimator: Any) -> list[NDArray[Any]]:
    return [*estimator.feedback_coefs_, *estimator.feedback_intercepts_]


@for_both
@pytest.mark.parametrize(("top_target", "n_maps"), [("penultimate", 2), ("output", 3)])
def test_fitted_attributes(kind: type, top_target: str, n_maps: int) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, top_target=top_target), X, y)
    widths = [X.shape[1], 7, 6, 5, estimator.n_outputs_]
    assert [c.shape for c in estimator.coefs_] == list(pairwise(widths))
    assert [c.shape for c in estimator.feedback_coefs_] == [
        (widths[i], widths[i - 1]) for i in range(2, n_maps + 2)
    ]
    assert [c.shape for c in estimator.feedback_intercepts_] == [
        (widths[i - 1],) for i in range(2, n_maps + 2)
    ]
    assert estimator.reconstruction_curve_.shape == (4, n_maps)
    assert len(estimator.loss_curve_) == estimator.n_iter_ == 4
    assert estimator.n_layers_ == 5


@for_both
def test_feedback_learns_to_reconstruct(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"max_iter": 60, "feedback_learning_rate_init": 0.01}
    learnt = fit_quietly(kind(**settings), X, y)
    curve = learnt.reconstruction_curve_
    assert (curve[-1] < 0.3 * curve[0]).all()
    steps = fit_quietly(kind(**settings, feedback_steps=5), X, y)
    assert (steps.reconstruction_curve_[5] < curve[5]).all()
    fixed = fit_quietly(kind(**settings, learn_feedback=False), X, y)
    assert fixed.reconstruction_curve_.shape == (60, 2)
    assert (fixed.reconstruction_curve_[-1] > 2 * curve[-1]).all()
    start = fit_quietly(
        kind(**(settings | {"max_iter": 1}), learn_feedback=False), X, y
    )
    for a, b in zip(feedback(fixed), feedback(start), strict=True):
        np.testing.assert_array_equal(a, b)


@for_both
@pytest.mark.parametrize("order", ["batch", "epoch"])
def test_order_of_feedback(kind: type, order: str) -> None:
    X, y = problem(kind)

    class Watch(Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_batch_begin(self, net: Any, training: bool, **_: Any) -> None:
            if training:
                weight = net.module_.feedback[0].linear.weight
                self.seen.append(float(weight.detach().sum()))

    watch = Watch()
    settings = SMALL | {"max_iter": 1, "callbacks": [watch], "feedback_order": order}
    fit_quietly(kind(**settings), X, y)
    # With a pass of its own, feedback stands still while the network learns.
    assert len(watch.seen) == 3
    assert len(set(watch.seen)) == (3 if order == "batch" else 1)


@for_both
def test_target_lr_of_zero_trains_the_output_layer_alone(kind: type) -> None:
    X, y = problem(kind)
    one = fit_quietly(kind(**(SMALL | {"max_iter": 1}), target_lr=0), X, y)
    more = fit_quietly(kind(**(SMALL | {"max_iter": 9}), target_lr=0), X, y)
    for a, b in zip(one.coefs_[:-1], more.coefs_[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(one.coefs_[-1], more.coefs_[-1])


@for_both
@pytest.mark.parametrize("solver", ["adam", "sgd", "rmsprop_centered"])
@pytest.mark.parametrize("method", ["partial_fit", "warm_start"])
def test_going_on_keeps_both_optimisers(kind: type, solver: str, method: str) -> None:
    X, y = problem(kind)
    settings = SMALL | {"solver": solver, "momentum": 0.9, "noise_decay": 2.0}
    once = fit_quietly(kind(**settings), X, y)
    parts = kind(**(settings | {"max_iter": 1}), warm_start=method == "warm_start")
    for _ in range(4):
        if method == "partial_fit":
            fit_quietly(parts, X, y, method="partial_fit")
        else:
            fit_quietly(parts, X, y)
    assert_same_weights(once, parts)  # bit for bit
    for a, b in zip(feedback(once), feedback(parts), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        once.reconstruction_curve_, parts.reconstruction_curve_
    )
    assert once.loss_curve_ == parts.loss_curve_


@for_both
@pytest.mark.parametrize("decay", [2, None])
def test_noise_decays_from_epoch_to_epoch(
    kind: type, decay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    deviations = []
    true = DifferenceTargetNetwork.begin_epoch

    def recorded(net: DifferenceTargetNetwork, epoch: int, scale: float = 1.0) -> None:
        true(net, epoch, scale)
        deviations.append(net._sigma)

    X, y = problem(kind)
    settings = SMALL | {"max_iter": 3, "noise": 0.7, "noise_decay": decay}
    monkeypatch.setattr(DifferenceTargetNetwork, "begin_epoch", recorded)
    fit_quietly(kind(**settings), X, y)
    scales = np.ones(3) if decay is None else 1 / (1 + np.arange(1, 4) / decay)
    # Noise is chosen when the network is made, too.
    np.testing.assert_allclose(deviations[1:], 0.7 * scales)


@for_both
@pytest.mark.parametrize("top_target", ["penultimate", "output"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feedback_activation", "relu"),
        ("difference", False),
        ("input_noise", 0.3),
        ("noise", 0.0),
    ],
)
def test_parameters_have_a_say(
    kind: type, top_target: str, name: str, value: Any
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"top_target": top_target}
    plain = fit_quietly(kind(**settings), X, y)
    assert weights_differ(plain, fit_quietly(kind(**settings, **{name: value}), X, y))


@for_both
def test_signs_of_what_is_never_negative_are_refused(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"transmission": "sign", "activation": "logistic"}
    with pytest.raises(ValueError, match=r'activation="logistic".*give activation="ta'):
        kind(**settings).fit(X, y)
    # With one hidden layer, nothing is passed on as a sign.
    shallow = settings | {"hidden_layer_sizes": 5, "top_target": "output"}
    fit_quietly(kind(**shallow), X, y)


@for_both
@pytest.mark.parametrize(
    ("sizes", "top_target", "least"),
    [((), "output", "one"), ((5,), "penultimate", "two"), ((), "penultimate", "two")],
)
def test_networks_that_pass_no_target_down_are_named(
    kind: type, sizes: tuple[int, ...], top_target: str, least: str
) -> None:
    X, y = problem(kind)
    settings = SMALL | {"hidden_layer_sizes": sizes, "top_target": top_target}
    with pytest.warns(UserWarning, match=f"no target is passed down.*Give {least}"):
        fit_quietly(kind(**settings), X, y)


@for_both
def test_going_on_draws_no_weights(kind: type) -> None:
    X, y = problem(kind)
    pair = [fit_quietly(kind(**SMALL, warm_start=True), X, y) for _ in range(2)]
    for estimator, weight_init in zip(pair, ("orthogonal", "uniform"), strict=True):
        fit_quietly(estimator.set_params(weight_init=weight_init), X, y)
    assert_same_weights(*pair)


@for_both
def test_samples_are_drawn_with_logistic_probabilities(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"transmission": "bernoulli"}
    fits = [
        fit_quietly(kind(**settings, activation=activation), X, y)
        for activation in ("logistic", "relu", "tanh")
    ]
    for other in fits[1:]:
        assert_same_weights(fits[0], other)


@for_both
def test_predictions_are_free_of_noise(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, input_noise=0.3), X, y)
    h, (*hidden, last) = X, weights(estimator)
    for stacked in hidden:
        h = np.tanh(h @ stacked[1:] + stacked[0])
    truth = h @ last[1:] + last[0]
    if kind is DifferenceTargetPropagationClassifier:
        found, truth = estimator.decision_function(X), np.diff(truth)
    else:
        found = estimator.predict(X)
    np.testing.assert_allclose(found, truth[:, 0])


@for_both
def test_going_on_takes_other_rates(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    before, before_feedback = weights(estimator), feedback(estimator)
    fit_quietly(estimator.set_params(feedback_learning_rate_init=1e-14), X, y)
    for a, b in zip(before_feedback, feedback(estimator), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    assert not np.allclose(before[0], weights(estimator)[0], atol=1e-5)
    before = weights(estimator)
    fit_quietly(estimator.set_params(learning_rate_init=1e-14), X, y)
    for a, b in zip(before, weights(estimator), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


@for_both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_layer_sizes", (7, 6)),
        ("transmission", "sign"),
        ("top_target", "output"),
    ],
)
def test_going_on_with_another_network_is_refused(
    kind: type, name: str, value: Any
) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    before = weights(estimator)
    with pytest.raises(ValueError, match=name):
        estimator.set_params(**{name: value}).fit(X, y)
    for a, b in zip(before, weights(estimator), strict=True):
        np.testing.assert_array_equal(a, b)


@for_both
@pytest.mark.parametrize("transmission", ["sign", "bernoulli"])
def test_other_transmissions(kind: type, transmission: str) -> None:
    X, y = problem(kind)
    settings = SMALL | {
        "transmission": transmission,
        "max_iter": 150,
        "hidden_layer_sizes": (60, 60),
        "target_lr": 0.5,
        "learning_rate_init": 0.005,
        "n_samples_predict": 20,
    }
    estimator = fit_quietly(kind(**settings), X, y)
    assert_learns(estimator, X, y)
    assert estimator.score(X, y) > (0.85 if transmission == "sign" else 0.5)
    # Whatever is drawn, a row is predicted in the same way in any company.
    whole = estimator.predict(X)
    np.testing.assert_array_equal(whole, estimator.predict(X))
    np.testing.assert_allclose(whole[::-1], estimator.predict(X[::-1].copy()))
    restored = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(whole, restored.predict(X))


def test_more_passes_predict_more_evenly() -> None:
    X, y = class_data(3)
    predicted = []
    for n in (1, 50):
        settings = SMALL | {"transmission": "bernoulli", "n_samples_predict": n}
        few = fit_quietly(DifferenceTargetPropagationClassifier(**settings), X, y)
        predicted.append(few.predict_proba(X))
        np.testing.assert_allclose(predicted[-1].sum(1), 1)
    assert len(np.unique(predicted[0].round(9), axis=0)) < len(
        np.unique(predicted[1].round(9), axis=0)
    )


@pytest.mark.parametrize("transmission", ["identity", "bernoulli"])
def test_passes_of_a_fitted_network_stay(transmission: str) -> None:
    X, y = class_data(3)
    estimator = DifferenceTargetPropagationClassifier(
        **SMALL, transmission=transmission, n_samples_predict=3, warm_start=True
    )
    shapes = []
    for n in (3, 7):
        fit_quietly(estimator.set_params(n_samples_predict=n), X, y)
        shapes.append([b.shape for b in estimator.module_.buffers()])
    assert shapes[0] == shapes[1]
    assert len(estimator.loss_curve_) == 2 * SMALL["max_iter"]


@pytest.mark.parametrize("sizes", [(5,), 5, ()])
def test_one_layer_is_told_to_be_backpropagation(sizes: Any) -> None:
    X, y = class_data()
    estimator = DifferenceTargetPropagationClassifier(
        **(SMALL | {"hidden_layer_sizes": sizes})
    )
    with pytest.warns(UserWarning, match=r"hidden layer no target.*backpropagation"):
        fit_quietly(estimator, X, y)
    assert estimator.feedback_coefs_ == estimator.feedback_intercepts_ == []
    assert estimator.reconstruction_curve_.shape == (4, 0)


def test_one_layer_with_output_targets_has_a_map() -> None:
    X, y = class_data()
    settings = SMALL | {"hidden_layer_sizes": (5,), "top_target": "output"}
    estimator = fit_quietly(DifferenceTargetPropagationClassifier(**settings), X, y)
    assert [c.shape for c in estimator.feedback_coefs_] == [(2, 5)]


def test_several_labels_and_outputs() -> None:
    X, y = label_data()
    estimator = DifferenceTargetPropagationClassifier(
        **(SMALL | {"max_iter": 200, "learning_rate_init": 0.01})
    )
    assert fit_quietly(estimator, X, y).score(X, y) > 0.6
    X, y = curve_data(3)
    regressor = DifferenceTargetPropagationRegressor(
        **(SMALL | {"max_iter": 300, "learning_rate_init": 0.01, "target_lr": 0.1})
    )
    assert fit_quietly(regressor, X, y).score(X, y) > 0.9
    assert regressor.predict(X).shape == y.shape


@for_both
def test_early_stopping_keeps_the_best_network_and_its_feedback(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"early_stopping": True, "validation_fraction": 0.3}
    # Steps too large, so that the score comes and goes.
    settings |= {"learning_rate_init": 0.03, "target_lr": 0.1, "max_iter": 30}
    estimator = fit_quietly(kind(**settings), X, y)
    best = int(np.argmax(estimator.validation_scores_)) + 1
    assert best < 30
    shorter = fit_quietly(kind(**(settings | {"max_iter": best})), X, y)
    assert_same_weights(estimator, shorter)
    for a, b in zip(feedback(estimator), feedback(shorter), strict=True):
        np.testing.assert_array_equal(a, b)


@for_both
def test_divergence_names_what_may_be_at_fault(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"activation": "relu", "solver": "sgd", "max_iter": 20}
    estimator = kind(**settings, learning_rate_init=1e30)
    message = (
        r"diverged.*epoch 1 \(learning_rate_init=1e\+30, feedback_learning_rate_init="
        r"0.001, target_lr=0.01\)\. Lower learning_rate_init, feedback_learning_rate_in"
    )
    with pytest.raises(ValueError, match=message):
        estimator.fit(X.astype("f4"), y)
    assert not hasattr(estimator, "n_iter_")


@for_both
@pytest.mark.usefixtures("global_state_untouched")
def test_random_state_alone_decides(kind: type) -> None:
    X, y = problem(kind)
    settings = SMALL | {"transmission": "bernoulli", "input_noise": 0.3}
    a, b = (fit_quietly(kind(**settings), X, y) for _ in range(2))
    assert_same_weights(a, b)
    c = fit_quietly(kind(**(settings | {"random_state": 1})), X, y)
    assert weights_differ(a, c)


@for_both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_lr", -1.0),
        ("noise", -0.1),
        ("noise_decay", 0.0),
        ("feedback_steps", 0),
        ("feedback_order", "never"),
        ("transmission", "tanh"),
        ("solver", "lbfgs"),
        ("weight_init", "zeros"),
        ("batch_size", 0),
        ("callbacks", [3]),
    ],
)
def test_bad_parameters_are_named(kind: type, name: str, value: Any) -> None:
    X, y = problem(kind)
    with pytest.raises((ValueError, TypeError), match=name):
        kind(**(SMALL | {name: value})).fit(X, y)


@pytest.mark.parametrize("settings", [{}, {"top_target": "output"}], ids=str)
def test_units_and_mean_of_y_do_not_matter(settings: dict[str, Any]) -> None:
    X, y = curve_data(2)
    factor, shift = np.array([1e3, 1e-2]), np.array([-5e3, 7.0])
    kept = {**SMALL, "max_iter": 30, **settings}
    regressor = fit_quietly(DifferenceTargetPropagationRegressor(**kept), X, y)
    other = fit_quietly(
        DifferenceTargetPropagationRegressor(**kept), X, factor * y + shift
    )
    np.testing.assert_allclose(
        (other.predict(X) - shift) / factor, regressor.predict(X), atol=1e-9
    )
    np.testing.assert_allclose(
        other.intercepts_[-1], factor * regressor.intercepts_[-1] + shift
    )
    for a, b in zip(feedback(regressor), feedback(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_regressors_go_on_in_the_units_of_their_first_fit() -> None:
    X, y = curve_data(2)
    y = 1e4 + 300 * y
    kept = {**SMALL, "max_iter": 5, "noise": 0.0}
    at_once = fit_quietly(DifferenceTargetPropagationRegressor(**kept), X, y)
    twice = DifferenceTargetPropagationRegressor(**kept, warm_start=True)
    fit_quietly(twice, X, y)
    before, copy = twice.loss_, pickle.loads(pickle.dumps(twice))
    fit_quietly(twice, X, y)
    np.testing.assert_array_equal(fit_quietly(copy, X, y).predict(X), twice.predict(X))
    assert twice.loss_curve_[:5] == at_once.loss_curve_
    assert twice.loss_ < before < 3 * 300**2
    misses = 0.5 * np.mean((twice.predict(X) - y) ** 2)
    assert misses == pytest.approx(twice.loss_, rel=0.2)


@pytest.mark.parametrize(
    ("kind", "pattern", "frozen"),
    [
        (
            RegularizedInversionClassifier,
            "network.layers.0.*",
            lambda e: weights(e)[:1],
        ),
        (BOTH[0], "network.layers.[01].*", lambda e: weights(e)[:2]),
        (BOTH[0], "feedback.*", feedback),
    ],
)
def test_frozen_layers_stay(
    kind: type, pattern: str, frozen: Callable[[Any], list[NDArray[Any]]]
) -> None:
    X, y = class_data()
    short, long = (
        fit_quietly(
            kind((5, 4), max_iter=n, callbacks=[Freezer(pattern)], random_state=0), X, y
        )
        for n in (1, 4)
    )
    for a, b in zip(frozen(short), frozen(long), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(short.coefs_[-1], long.coefs_[-1])


class Training(Callback):
    """Takes the arguments by the names that skorch passes."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def on_grad_computed(
        self, net: Any, named_parameters: Any, batch: Any, training: bool
    ) -> None:
        self.told.append(training)


def test_callbacks_are_told_what_skorch_tells_them() -> None:
    X, y = class_data()
    seen = Training()
    estimator = DifferenceTargetPropagationClassifier(
        (5, 5), max_iter=2, callbacks=[seen], random_state=0
    )
    fit_quietly(estimator, X, y)
    assert seen.told == 4 * [True]  # in two epochs, of the feedback and the network


def test_gradients_of_feedback_maps_can_be_clipped() -> None:
    X, y = class_data()
    settings = {"solver": "sgd", "feedback_learning_rate_init": 10.0, "max_iter": 2}
    clip = GradientNormClipping(gradient_clip_value=1e-9)
    estimator = DifferenceTargetPropagationClassifier(
        (5, 5), **settings, callbacks=[clip], random_state=0
    )
    fit_quietly(estimator, X, y)
    unmoved = DifferenceTargetPropagationClassifier(
        (5, 5), **settings, learn_feedback=False, random_state=0
    )
    fit_quietly(unmoved, X, y)
    np.testing.assert_allclose(
        estimator.feedback_coefs_[0], unmoved.feedback_coefs_[0], atol=1e-6
    )
