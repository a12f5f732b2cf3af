"""Regularised inversion of dense layers as scikit-learn estimators."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sktarget.estimators.base import (
    CLASS_WEIGHT,
    NetworkClassifier,
    NetworkRegressor,
    document_parameters,
)
from sktarget.propagation._dense_inversion_base import (
    DENSE_CONSTRAINTS,
    DENSE_DOCS,
    BaseRegularizedInversion,
)

__all__ = ["RegularizedInversionClassifier", "RegularizedInversionRegressor"]


@document_parameters(**DENSE_DOCS)
class RegularizedInversionClassifier(NetworkClassifier, BaseRegularizedInversion):
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
        Training loss of the last and of the best epoch of the last call of ``fit``.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`, and NaN
        in earlier fits without a validation set.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.
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
    RegularizedInversionRegressor : The same for real outputs.
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
        **DENSE_CONSTRAINTS,
        "class_weight": CLASS_WEIGHT,
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
        super().__init__(
            hidden_layer_sizes,
            activation=activation,
            target_lr=target_lr,
            ridge=ridge,
            clip=clip,
            linearize=linearize,
            weight_init=weight_init,
            solver=solver,
            learning_rate_init=learning_rate_init,
            momentum=momentum,
            batch_size=batch_size,
            max_iter=max_iter,
            shuffle=shuffle,
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


@document_parameters(**DENSE_DOCS)
class RegularizedInversionRegressor(NetworkRegressor, BaseRegularizedInversion):
    """A neural network regressor trained by regularised inversion of its layers.

    It minimises the squared error, every output in units of its own deviation.  See
    :class:`RegularizedInversionClassifier` for the method.

    {parameters}

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer.
    displacement_norms_ : ndarray of shape (n_hidden,)
        How far the last mini-batch displaced the values of each hidden layer, as the
        norm over rows and units.
    saturation_fraction_ : float
        Share of hidden values beyond ±(1 − ε) in the last mini-batch.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch of the last call of ``fit``.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`, and NaN
        in earlier fits without a validation set.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.
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
        ``"identity"``.
    t_ : int
        Training rows seen so far.

    See Also
    --------
    RegularizedInversionClassifier : The same for classes.
    DifferenceTargetPropagationRegressor : Targets from learned feedback maps.
    sktarget.TargetSpaceRegressor : Training in target space.

    References
    ----------
    V. Roulet, Z. Harchaoui, "Target Propagation via Regularized Inversion", arXiv
    2112.01453; TMLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sktarget.propagation import RegularizedInversionRegressor
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> y = np.sin(4 * X[:, 0])
    >>> reg = RegularizedInversionRegressor((20, 20), max_iter=500, random_state=0)
    >>> reg.fit(X, y).score(X, y) > 0.95
    True
    """
