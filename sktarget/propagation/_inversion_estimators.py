"""Regularised inversion as scikit-learn estimators."""

from __future__ import annotations

import os
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sktarget.estimators.base import (
    CLASS_WEIGHT,
    CONSTRAINTS,
    NetworkClassifier,
    Task,
    TrainingRows,
    document_parameters,
    parse_layer_sizes,
)
from sktarget.propagation._base import (
    SHARED_CONSTRAINTS,
    SHARED_DOCS,
    PropagationEstimator,
    mean_weight,
)
from sktarget.propagation._dense_inversion import DenseInversionNetwork
from sktarget.propagation._inversion import Inversion
from sktarget.propagation._network import TransmittingNetwork
from sktarget.propagation._training import LocalNet
from sktarget.training import TrainingLog, TrainingSettings, state_to_numpy

__all__ = [
    "INVERSION_CONSTRAINTS",
    "INVERSION_DOCS",
    "InversionEstimator",
    "RegularizedInversionClassifier",
]

Array = NDArray[Any]

INVERSION_CONSTRAINTS: dict[str, list[Any]] = {
    **SHARED_CONSTRAINTS,
    "ridge": [Interval(Real, 0, None, closed="neither")],
    "clip": [Interval(Real, 0, 1, closed="neither")],
    "linearize": ["boolean"],
    "class_weight": CLASS_WEIGHT,
}
"""Constraints on the parameters that all inversion estimators have."""

INVERSION_DOCS = SHARED_DOCS | {
    "target_lr": """float, default={default}
    γ ≥ 0: the first target is this step down the gradient of the mini-batch's *mean*
    loss.  With ``solver="adam"`` it matters little unless it is tiny, with `linearize`
    even less.  A row of weight 2 counts as two rows: weights that sum to one make the
    step as many times larger as there are rows, and want a smaller γ.""",
    "ridge": """float, default={default}
    r > 0, the ridge penalty on the states that an inverse finds.  Every layer that
    displacements are passed down multiplies them by up to 1 / 2√r, and where units are
    saturated by up to 1 / (1 − (1 − ε)²) beside: with a small ridge they may explode,
    with a large one they fade.""",
    "clip": """float, default={default}
    ε: values are clipped to ±(1 − ε) before the activation is inverted.""",
    "linearize": """bool, default={default}
    Pass displacements on by the derivative of the inverse at the state, instead of by
    the difference of two inverses.  Displacements of units beyond the clipped range
    then count up to 1 / (1 − (1 − ε)²) times, instead of as zero.""",
    "solver": """{"adam", "sgd", "rmsprop_centered"}, default={default}
    Optimiser.  ``"rmsprop_centered"`` is RMSprop with centred second moments, 0.001
    under the root, and momentum 0.9.""",
}
"""Texts for the section "Parameters" of their docstrings."""


class InversionEstimator(PropagationEstimator):
    """Base of the estimators that invert layers."""

    activation: str
    ridge: float
    clip: float
    linearize: bool

    _remedy = (
        "Raise ridge or clip, lower learning_rate_init or target_lr, or standardise X"
    )
    _training_net = LocalNet

    def _inversion(self) -> Inversion:
        return Inversion(
            ridge=float(self.ridge),
            clip=float(self.clip),
            linearize=bool(self.linearize),
            activation=self.activation,
        )

    def _settings(self, rows: TrainingRows) -> TrainingSettings:
        return self._propagation_settings(rows, describe=["target_lr", "ridge", "clip"])

    def _fitted_attributes(
        self, network: Any, log: TrainingLog, n_iter: int
    ) -> dict[str, Any]:
        return super()._fitted_attributes(network, log, n_iter) | {
            "displacement_norms_": state_to_numpy(network.displacement_norms),
            "saturation_fraction_": float(network.saturation_fraction),
        }


@document_parameters(
    **INVERSION_DOCS
    | {
        "activation": """{"tanh", "identity"}, default={default}
    Activation of the hidden layers; it must be invertible."""
    }
)
class RegularizedInversionClassifier(NetworkClassifier, InversionEstimator):
    """A neural network classifier trained by regularised inversion of its layers.

    No gradient travels down the network.  Each layer is given a target for its values
    by inverting the layer above in closed form, and moves towards it.  The inverse need
    not be learned, and no step is random.

    The method was published for recurrent networks, see
    :class:`RegularizedInversionSequenceClassifier`.  This is its extension to dense
    layers, where inverting costs one factorisation per layer and mini-batch.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, or the indices of the labels of a multilabel problem.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer.
    displacement_norms_ : ndarray of shape (n_hidden,)
        How far the last mini-batch displaced the values of each hidden layer, as the
        norm over rows and units.
    saturation_fraction_ : float
        Share of hidden values beyond ±(1 − ε) in the last mini-batch.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`.
    best_validation_score_ : float or None
        The best validation score.
    module_ : torch.nn.Module
        The fitted network, an ordinary module.
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
    DifferenceTargetPropagationClassifier : Targets from learned feedback maps.
    sktarget.TargetSpaceClassifier : Training in target space.

    References
    ----------
    V. Roulet, Z. Harchaoui, "Target Propagation via Regularized Inversion", arXiv
    2112.01453; TMLR 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktarget.propagation import RegularizedInversionClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> X = (X - X.mean(axis=0)) / X.std(axis=0)
    >>> clf = RegularizedInversionClassifier((20, 20), tol=0.01, random_state=0)
    >>> clf.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **INVERSION_CONSTRAINTS,
        "hidden_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
        "activation": [StrOptions({"tanh", "identity"})],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100, 100),
        *,
        activation: str = "tanh",
        target_lr: float = 1.0,
        ridge: float = 1.0,
        clip: float = 0.5,
        linearize: bool = False,
        weight_init: str = "orthogonal",
        solver: str = "adam",
        learning_rate_init: float | str = "auto",
        momentum: float = 0.0,
        batch_size: int = 100,
        max_iter: int = 200,
        shuffle: bool = True,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.target_lr = target_lr
        self.ridge = ridge
        self.clip = clip
        self.linearize = linearize
        self.weight_init = weight_init
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.device = device
        self.callbacks = callbacks
        self.checkpoint = checkpoint

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._warn_of_one_layer(len(parse_layer_sizes(self.hidden_layer_sizes)))

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        return {
            "n_inputs": X.shape[1],
            "hidden_layer_sizes": parse_layer_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": self.activation,
            "weight_init": self.weight_init,
        }

    def _build(
        self,
        architecture: dict[str, Any],
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> TransmittingNetwork:
        return TransmittingNetwork(**architecture, generator=generator, dtype=dtype)

    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        return self._restored(module, task.rows, task.seed)

    def _restored(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        assert isinstance(module, TransmittingNetwork)
        return DenseInversionNetwork(
            module, self._inversion(), self.target_lr, mean_weight(rows)
        )
