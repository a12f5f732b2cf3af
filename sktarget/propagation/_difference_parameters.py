"""Parameters of difference target propagation: what each means and may be."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, StrOptions

from sktarget.architectures import ACTIVATIONS
from sktarget.estimators.base import CONSTRAINTS
from sktarget.propagation._base import SHARED_CONSTRAINTS, SHARED_DOCS

__all__ = ["DIFFERENCE_CONSTRAINTS", "DIFFERENCE_DOCS"]

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")
DIFFERENCE_CONSTRAINTS: dict[str, list[Any]] = {
    **SHARED_CONSTRAINTS,
    "hidden_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
    "activation": [StrOptions(set(ACTIVATIONS))],
    "feedback_activation": [StrOptions(set(ACTIVATIONS))],
    "transmission": [StrOptions({"identity", "sign", "bernoulli"})],
    "top_target": [StrOptions({"penultimate", "output"})],
    "noise": [_NOT_NEGATIVE],
    "noise_decay": [_POSITIVE, None],
    "input_noise": [_NOT_NEGATIVE],
    "feedback_steps": [_COUNT],
    "feedback_order": [StrOptions({"batch", "epoch"})],
    "feedback_learning_rate_init": [_POSITIVE],
    "difference": ["boolean"],
    "learn_feedback": ["boolean"],
    "n_samples_predict": [_COUNT],
}
"""Constraints on the parameters that both estimators have."""

DIFFERENCE_DOCS = SHARED_DOCS | {
    "activation": """{"identity", "logistic", "tanh", "relu", "leaky_relu"}, \
default={default}
    Activation of the hidden layers.  With ``transmission="bernoulli"`` it is always
    logistic, since the values are probabilities.""",
    "feedback_activation": """str, default={default}
    Activation of the feedback maps, with the same choices.""",
    "transmission": """{"identity", "sign", "bernoulli"}, default={default}
    What hidden units pass on: their values; between hidden layers the signs of their
    values, for an `activation` other than ``"logistic"``, which has none below zero; or
    samples, 1 with the value as probability and 0 otherwise.""",
    "top_target": """{"penultimate", "output"}, default={default}
    Layer with the first target.  ``"penultimate"`` is the last hidden layer; the output
    layer then learns by the gradient of the loss.  With ``"output"``, the outputs
    before any softmax get the first target.""",
    "target_lr": """float, default={default}
    η_s ≥ 0: the first target is this step down the gradient of each row's *own* loss,
    so that it does not depend on the size of a mini-batch.  Where a publication
    multiplies the gradient of the mean loss, divide its η by the rows of its batch.
    For squared errors, the loss is half the mean over outputs, in units of their
    deviations: of k outputs, a target at `top_target` ``"output"`` is y itself with
    η_s = k.""",
    "noise": """float, default={default}
    σ, standard deviation of the noise on the values that feedback maps learn from.""",
    "noise_decay": """float or None, default={default}
    The noise of an epoch is σ / (1 + epoch / noise_decay), which is half of σ after
    `noise_decay` epochs; None keeps it constant.""",
    "input_noise": """float, default={default}
    Standard deviation of the noise on the inputs in training.""",
    "feedback_steps": """int, default={default}
    Steps of the feedback maps for each step of the network.""",
    "feedback_order": """{"batch", "epoch"}, default={default}
    Train feedback maps on each mini-batch before the step of the network, or in a
    separate pass at the beginning of every epoch.""",
    "difference": """bool, default={default}
    Apply the difference correction.  Without it this is plain target propagation,
    which fails in deep networks.""",
    "learn_feedback": """bool, default={default}
    Train the feedback maps.  If False, they keep their initial weights, as a
    control.""",
    "solver": """{"adam", "sgd", "rmsprop_centered"}, default={default}
    Optimiser of the network and, with a state of its own, of the feedback maps.
    ``"rmsprop_centered"`` is RMSprop with centred second moments, 0.001 under the
    root, and momentum 0.9.""",
    "feedback_learning_rate_init": """float, default={default}
    Step size of the feedback maps' weights.""",
    "n_samples_predict": """int, default={default}
    Number of passes with samples that predictions average over with
    ``transmission="bernoulli"``; it is part of the fitted network, which later changes
    leave as it is.  With `early_stopping`, every epoch makes as many over the rows held
    out.""",
}
"""Texts for the section "Parameters" of their docstrings."""
