"""Difference target propagation as scikit-learn estimators."""

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
from sktarget.propagation._difference_base import BaseDifferenceTargetPropagation
from sktarget.propagation._difference_parameters import (
    DIFFERENCE_CONSTRAINTS,
    DIFFERENCE_DOCS,
)

__all__ = [
    "DifferenceTargetPropagationClassifier",
    "DifferenceTargetPropagationRegressor",
]


@document_parameters(**DIFFERENCE_DOCS)
class DifferenceTargetPropagationClassifier(
    NetworkClassifier, BaseDifferenceTargetPropagation
):
    """A neural network classifier trained by difference target propagation.

    No gradient travels down the network.  Each layer is given a target for its values
    by a learned feedback map, which undoes the layer above, and moves towards it.  This
    allows units to be discrete or random, see `transmission`.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, or the indices of the labels of a multilabel problem.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer.
    feedback_coefs_, feedback_intercepts_ : list of ndarray
        Those of the feedback maps, from the second layer up: weights (n_in, n_out) lead
        from a layer, n_in, to the one below, n_out.  Empty for one hidden layer,
        unless `top_target` is ``"output"``.
    reconstruction_curve_ : ndarray of shape (n_epochs, n_maps)
        Mean squared norm of the reconstruction error of each feedback map.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch of the last call of ``fit``.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`, and NaN
        in earlier fits without a validation set.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.
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
    RegularizedInversionClassifier : Inverts layers in place of learning feedback maps.
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
        **DIFFERENCE_CONSTRAINTS,
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


@document_parameters(**DIFFERENCE_DOCS)
class DifferenceTargetPropagationRegressor(
    NetworkRegressor, BaseDifferenceTargetPropagation
):
    """A neural network regressor trained by difference target propagation.

    It minimises the squared error, of several outputs each in units of its own
    deviation.  See :class:`DifferenceTargetPropagationClassifier` for the method.

    {parameters}

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer.
    feedback_coefs_, feedback_intercepts_ : list of ndarray
        Those of the feedback maps, from the second layer up: weights (n_in, n_out) lead
        from a layer, n_in, to the one below, n_out.  Empty for one hidden layer,
        unless `top_target` is ``"output"``.  A map from the outputs takes them
        standardised, by the means and deviations of y.
    reconstruction_curve_ : ndarray of shape (n_epochs, n_maps)
        Mean squared norm of the reconstruction error of each feedback map.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch of the last call of ``fit``.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`, and NaN
        in earlier fits without a validation set.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.
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
