"""Regularised inversion as scikit-learn estimators."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import StrOptions
from torch import nn

from sktarget.estimators.base import (
    CONSTRAINTS,
    NetworkClassifier,
    Task,
    TrainingRows,
    document_parameters,
    parse_layer_sizes,
)
from sktarget.propagation._base import mean_weight, warn_of_one_layer
from sktarget.propagation._dense_inversion import DenseInversionNetwork
from sktarget.propagation._inversion_base import (
    INVERSION_CONSTRAINTS,
    INVERSION_DOCS,
    InversionEstimator,
)
from sktarget.propagation._network import TransmittingNetwork

__all__ = ["RegularizedInversionClassifier"]

Array = NDArray[Any]


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
        warn_of_one_layer(len(parse_layer_sizes(self.hidden_layer_sizes)))

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
