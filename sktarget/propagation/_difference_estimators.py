"""Difference target propagation as scikit-learn estimators."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sktarget.architectures import ACTIVATIONS
from sktarget.estimators._classification import NetworkClassifier
from sktarget.estimators._network import as_tensor, state_to_numpy
from sktarget.estimators._parameters import CLASS_WEIGHT, document_parameters
from sktarget.estimators._preparation import TrainingRows, hidden_sizes
from sktarget.estimators._regression import NetworkRegressor
from sktarget.propagation._base import (
    SHARED_CONSTRAINTS,
    SHARED_DOCS,
    PropagationEstimator,
)
from sktarget.propagation._difference import DifferenceTargetNetwork, FeedbackMap
from sktarget.propagation._network import TransmittingNetwork
from sktarget.propagation._training import FeedbackNet
from sktarget.training import TrainingLog, TrainingNet, TrainingSettings

__all__ = [
    "DifferenceTargetPropagationClassifier",
    "DifferenceTargetPropagationRegressor",
]

Array = NDArray[Any]

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")
_CONSTRAINTS: dict[str, list[Any]] = {
    **SHARED_CONSTRAINTS,
    "hidden_layer_sizes": ["array-like", _COUNT],
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
    "solver": [StrOptions({"adam", "sgd", "rmsprop_centered"})],
    "n_samples_predict": [_COUNT],
}

_DOCS = SHARED_DOCS | {
    "activation": """{"identity", "logistic", "tanh", "relu", "leaky_relu"}, \
default={default}
    Activation of the hidden layers.  Those of ``transmission="bernoulli"`` are
    logistic, whatever is said here, since their values are probabilities.""",
    "feedback_activation": """str, default={default}
    Activation of the feedback maps, of the same names.""",
    "transmission": """{"identity", "sign", "bernoulli"}, default={default}
    What hidden units hand on: their values; between hidden layers the signs of their
    values; or samples, 1 with the value as probability and 0 otherwise.""",
    "top_target": """{"penultimate", "output"}, default={default}
    Layer with the first target.  ``"penultimate"``, the last hidden layer: the output
    layer learns by the gradient of the loss.  ``"output"``: the outputs before any
    softmax get the first target.""",
    "target_lr": """float, default={default}
    η_s ≥ 0: the first target is this step down the gradient of each row's *own* loss,
    so that it does not depend on the size of a mini-batch.  Where a publication
    multiplies the gradient of the mean loss, divide its η by the rows of its batch.
    Of squared errors, the loss is half the mean over outputs.""",
    "noise": """float, default={default}
    σ, standard deviation of the noise on the values that feedback maps learn from.""",
    "noise_decay": """float or None, default={default}
    Epochs in which the noise halves, as σ / (1 + epoch / noise_decay); None keeps
    it.""",
    "input_noise": """float, default={default}
    Standard deviation of the noise on the inputs in training.""",
    "feedback_steps": """int, default={default}
    Steps of the feedback maps for each step of the network.""",
    "feedback_order": """{"batch", "epoch"}, default={default}
    Train feedback before every step of the network on the same mini-batch, or in a
    pass of its own at the beginning of every epoch.""",
    "difference": """bool, default={default}
    The difference correction.  Without it this is plain target propagation, which
    fails in deep networks.""",
    "learn_feedback": """bool, default={default}
    Without it feedback maps keep their initial weights, as a control.""",
    "solver": """{"adam", "sgd", "rmsprop_centered"}, default={default}
    Optimiser of the network and, with a state of its own, of the feedback maps.
    ``"rmsprop_centered"`` is RMSprop with centred second moments, 0.001 under the
    root, and momentum 0.9.""",
    "feedback_learning_rate_init": """float, default={default}
    Step size of the feedback maps' weights.""",
    "n_samples_predict": """int, default={default}
    Passes with samples over which ``transmission="bernoulli"`` averages its
    predictions.""",
}
# What belongs to the feedback maps, not to the network that predicts.
_FEEDBACK = ("feedback_activation", "top_target")


class BaseDifferenceTargetPropagation(PropagationEstimator):
    """Base of the estimators that learn feedback maps."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = _CONSTRAINTS
    out_activation_: str

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100, 100),
        *,
        activation: str = "tanh",
        feedback_activation: str = "tanh",
        transmission: str = "identity",
        top_target: str = "penultimate",
        target_lr: float = 0.01,
        noise: float = 0.1,
        noise_decay: float | None = None,
        input_noise: float = 0.0,
        feedback_steps: int = 1,
        feedback_order: str = "batch",
        difference: bool = True,
        learn_feedback: bool = True,
        weight_init: str = "orthogonal",
        solver: str = "adam",
        learning_rate_init: float | str = "auto",
        feedback_learning_rate_init: float = 1e-3,
        momentum: float = 0.0,
        batch_size: int = 100,
        max_iter: int = 200,
        shuffle: bool = True,
        n_samples_predict: int = 100,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | str = "auto",
        device: str = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.feedback_activation = feedback_activation
        self.transmission = transmission
        self.top_target = top_target
        self.target_lr = target_lr
        self.noise = noise
        self.noise_decay = noise_decay
        self.input_noise = input_noise
        self.feedback_steps = feedback_steps
        self.feedback_order = feedback_order
        self.difference = difference
        self.learn_feedback = learn_feedback
        self.weight_init = weight_init
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.feedback_learning_rate_init = feedback_learning_rate_init
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.n_samples_predict = n_samples_predict
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.callbacks = callbacks
        self.checkpoint = checkpoint

    @property
    def _training_net(self) -> Callable[..., TrainingNet]:  # type: ignore[override]
        return partial(
            FeedbackNet,
            feedback_steps=self.feedback_steps if self.learn_feedback else 0,
            feedback_order=self.feedback_order,
            noise_decay=self.noise_decay,
        )

    def _check_parameters(self, incremental: bool) -> None:
        super()._check_parameters(incremental)
        n_hidden = len(hidden_sizes(self.hidden_layer_sizes))
        if self.top_target == "penultimate":
            self._warn_of_one_layer(n_hidden)

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        samples = self.transmission == "bernoulli"
        return {
            "n_inputs": X.shape[1],
            "hidden_layer_sizes": hidden_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": "logistic" if samples else self.activation,
            "transmission": self.transmission,
            "weight_init": self.weight_init,
            "out_activation": self.out_activation_,
            "n_passes": self.n_samples_predict,
            "feedback_activation": self.feedback_activation,
            "top_target": self.top_target,
        }

    def _build(
        self,
        architecture: dict[str, Any],
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> TransmittingNetwork:
        kept = {k: v for k, v in architecture.items() if k not in _FEEDBACK}
        return TransmittingNetwork(**kept, generator=generator, dtype=dtype)

    def _start(
        self, rows: TrainingRows, generator: torch.Generator, seed: int
    ) -> nn.Module:
        self._architecture = self._describe_architecture(rows.X)
        dtype = as_tensor(rows.X[:0]).dtype
        module = self._build(self._architecture, dtype, generator)
        return self._with_feedback(module, generator, seed)

    def _take_up(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        assert isinstance(module, TransmittingNetwork)
        network = self._with_feedback(module, torch.Generator(), seed)
        network.reconstruction_curve = self.reconstruction_curve_.tolist()
        with torch.no_grad():
            for k, linear in enumerate(_linear_parts(network)):
                linear.weight.copy_(as_tensor(self.feedback_coefs_[k].T))
                linear.bias.copy_(as_tensor(self.feedback_intercepts_[k]))
        return network

    def _with_feedback(
        self, module: TransmittingNetwork, generator: torch.Generator, seed: int
    ) -> DifferenceTargetNetwork:
        return DifferenceTargetNetwork(
            module,
            feedback_activation=self.feedback_activation,
            target_lr=self.target_lr,
            top_target=self.top_target,
            noise=self.noise,
            input_noise=self.input_noise,
            difference=self.difference,
            weight_init=self.weight_init,
            generator=generator,
            seed=seed,
        )

    def _settings(self, n_samples: int, incremental: bool) -> TrainingSettings:
        return self._propagation_settings(
            n_samples,
            incremental,
            describe=["feedback_learning_rate_init", "target_lr"],
            rates={"feedback.*": float(self.feedback_learning_rate_init)},
        )

    def _fitted_attributes(
        self, network: nn.Module, log: TrainingLog, n_iter: int
    ) -> dict[str, Any]:
        assert isinstance(network, DifferenceTargetNetwork)
        linear = _linear_parts(network)
        # An epoch that diverged has no loss, and so no row here.
        curve = network.reconstruction_curve[: len(log.loss_curve)]
        shape = (len(curve), len(linear))
        return super()._fitted_attributes(network, log, n_iter) | {
            "feedback_coefs_": [state_to_numpy(g.weight.T) for g in linear],
            "feedback_intercepts_": [state_to_numpy(g.bias) for g in linear],
            "reconstruction_curve_": np.array(curve, dtype=np.float64).reshape(shape),
        }


def _linear_parts(network: DifferenceTargetNetwork) -> list[nn.Linear]:
    maps = (g for g in network.feedback if isinstance(g, FeedbackMap))
    return [g.linear for g in maps]


@document_parameters(**_DOCS)
class DifferenceTargetPropagationClassifier(
    NetworkClassifier, BaseDifferenceTargetPropagation
):
    """A neural network classifier trained by difference target propagation.

    No gradient travels down the network.  Each layer is given a target for its values
    by a learned feedback map, which undoes the layer above, and moves towards it.  So
    units may be discrete or random, see `transmission`.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, or the indices of the labels of a multilabel problem.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer.
    feedback_coefs_, feedback_intercepts_ : list of ndarray
        Those of the feedback maps, from the second layer up: weights (n_in, n_out) lead
        from a layer, n_in, to the one below, n_out.  Empty for one hidden layer.
    reconstruction_curve_ : ndarray of shape (n_epochs, n_maps)
        Mean squared norm by which each feedback map missed what it was to reconstruct.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`.
    best_validation_score_ : float or None
        The best validation score.
    module_ : torch.nn.Module
        The fitted network, an ordinary module, without feedback.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs.
    out_activation_ : str
        ``"softmax"``, or ``"logistic"`` for multilabel problems.
    t_ : int
        Training rows seen so far.

    See Also
    --------
    DifferenceTargetPropagationRegressor : The same for real outputs.
    RegularizedInversionClassifier : Targets by inverting layers, without feedback maps.
    sktarget.TargetSpaceClassifier : Training in target space.

    References
    ----------
    D.-H. Lee, S. Zhang, A. Fischer, Y. Bengio, "Difference Target Propagation",
    ECML/PKDD 2015, arXiv 1412.7525.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktarget.propagation import DifferenceTargetPropagationClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> X = (X - X.mean(axis=0)) / X.std(axis=0)
    >>> clf = DifferenceTargetPropagationClassifier((20, 20), tol=0.01, random_state=0)
    >>> clf.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_CONSTRAINTS,
        "class_weight": CLASS_WEIGHT,
    }

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100, 100),
        *,
        activation: str = "tanh",
        feedback_activation: str = "tanh",
        transmission: str = "identity",
        top_target: str = "penultimate",
        target_lr: float = 0.01,
        noise: float = 0.1,
        noise_decay: float | None = None,
        input_noise: float = 0.0,
        feedback_steps: int = 1,
        feedback_order: str = "batch",
        difference: bool = True,
        learn_feedback: bool = True,
        weight_init: str = "orthogonal",
        solver: str = "adam",
        learning_rate_init: float | str = "auto",
        feedback_learning_rate_init: float = 1e-3,
        momentum: float = 0.0,
        batch_size: int = 100,
        max_iter: int = 200,
        shuffle: bool = True,
        n_samples_predict: int = 100,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | str = "auto",
        class_weight: dict[Any, float] | str | None = None,
        device: str = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation=activation,
            feedback_activation=feedback_activation,
            transmission=transmission,
            top_target=top_target,
            target_lr=target_lr,
            noise=noise,
            noise_decay=noise_decay,
            input_noise=input_noise,
            feedback_steps=feedback_steps,
            feedback_order=feedback_order,
            difference=difference,
            learn_feedback=learn_feedback,
            weight_init=weight_init,
            solver=solver,
            learning_rate_init=learning_rate_init,
            feedback_learning_rate_init=feedback_learning_rate_init,
            momentum=momentum,
            batch_size=batch_size,
            max_iter=max_iter,
            shuffle=shuffle,
            n_samples_predict=n_samples_predict,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            device=device,
            callbacks=callbacks,
            checkpoint=checkpoint,
        )
        self.class_weight = class_weight


@document_parameters(**_DOCS)
class DifferenceTargetPropagationRegressor(
    NetworkRegressor, BaseDifferenceTargetPropagation
):
    """A neural network regressor trained by difference target propagation.

    It minimises the squared error.  See :class:`DifferenceTargetPropagationClassifier`
    for the method.

    {parameters}

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer.
    feedback_coefs_, feedback_intercepts_ : list of ndarray
        Those of the feedback maps, from the second layer up: weights (n_in, n_out) lead
        from a layer, n_in, to the one below, n_out.  Empty for one hidden layer.
    reconstruction_curve_ : ndarray of shape (n_epochs, n_maps)
        Mean squared norm by which each feedback map missed what it was to reconstruct.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`.
    best_validation_score_ : float or None
        The best validation score.
    module_ : torch.nn.Module
        The fitted network, an ordinary module, without feedback.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs.
    out_activation_ : str
        ``"identity"``.
    t_ : int
        Training rows seen so far.

    See Also
    --------
    DifferenceTargetPropagationClassifier : The same for classes.
    sktarget.TargetSpaceRegressor : Training in target space.

    References
    ----------
    D.-H. Lee, S. Zhang, A. Fischer, Y. Bengio, "Difference Target Propagation",
    ECML/PKDD 2015, arXiv 1412.7525.

    Examples
    --------
    >>> import numpy as np
    >>> from sktarget.propagation import DifferenceTargetPropagationRegressor
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> y = np.sin(4 * X[:, 0])
    >>> reg = DifferenceTargetPropagationRegressor(
    ...     (20, 20), tol=1e-3, max_iter=1000, random_state=0
    ... )
    >>> reg.fit(X, y).score(X, y) > 0.95
    True
    """
