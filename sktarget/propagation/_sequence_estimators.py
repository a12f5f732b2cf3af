"""Regularised inversion of recurrent networks as scikit-learn estimators."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sktarget.estimators.base import (
    CLASS_WEIGHT,
    NetworkSequenceClassifier,
    NetworkSequenceRegressor,
    document_parameters,
)
from sktarget.propagation._sequence_base import (
    RECURRENT_CONSTRAINTS,
    RECURRENT_DOCS,
    BaseRegularizedInversionSequence,
)

__all__ = [
    "RegularizedInversionSequenceClassifier",
    "RegularizedInversionSequenceRegressor",
]


@document_parameters(**RECURRENT_DOCS)
class RegularizedInversionSequenceClassifier(
    NetworkSequenceClassifier, BaseRegularizedInversionSequence
):
    """A recurrent network classifier trained by regularised inversion of its steps.

    A network of tanh units reads a sequence.  The last state is given a target, a
    small step down the loss.  Every earlier state is given a target by
    inverting, in closed form, the step that follows it.  The same inverse serves all
    steps, so that a mini-batch costs one factorisation.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of the recurrent layer, whose inputs
        are the inputs proper and the states of the step before, and of the output.
    displacement_norms_ : ndarray of shape (time,)
        How far the last mini-batch displaced the states of each step, as the norm over
        sequences and units.
    saturation_fraction_ : float
        Share of state values beyond ±(1 − ε) in the last mini-batch.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch of the last call of ``fit``.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`, and NaN
        in earlier fits without a validation set.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.
    module_ : torch.nn.Module
        The fitted network, an ordinary module; takes (n, time, channels).
    n_features_in_ : int
        Number of columns of X of shape (n, time), otherwise of channels.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs.
    out_activation_ : str
        ``"softmax"``.
    t_ : int
        Training sequences seen so far.

    See Also
    --------
    RegularizedInversionSequenceRegressor : The same for real outputs.
    RegularizedInversionClassifier : The same for tables.
    sktarget.TargetSpaceSequenceClassifier : Training in target space.

    Notes
    -----
    Sequences and the labels of steps are passed as to
    :class:`~sktarget.TargetSpaceSequenceClassifier`, but sequences must be real
    numbers, and nothing measures their channels: standardise them.

    The update of the recurrent layer is proportional to `target_lr` times
    `learning_rate_init` (exactly so with `linearize` and ``solver="sgd"``), that of the
    output layer to `learning_rate_init` alone.

    References
    ----------
    V. Roulet, Z. Harchaoui, "Target Propagation via Regularized Inversion", arXiv
    2112.01453; TMLR 2023.

    Examples
    --------
    >>> from sktarget.datasets import make_temporal_order
    >>> from sktarget.propagation import RegularizedInversionSequenceClassifier
    >>> X, y = make_temporal_order(1000, 10, random_state=0)
    >>> clf = RegularizedInversionSequenceClassifier(
    ...     (30,), solver="adam", tol=0.01, random_state=0
    ... )
    >>> clf.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **RECURRENT_CONSTRAINTS,
        "class_weight": CLASS_WEIGHT,
    }

    def __init__(
        self,
        recurrent_layer_sizes: int | ArrayLike = (50,),
        *,
        return_sequences: bool = False,
        target_lr: float = 0.1,
        ridge: float = 0.3,
        clip: float = 0.3,
        linearize: bool = False,
        update: str = "local",
        weight_init: str = "orthogonal",
        solver: str = "sgd",
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
            recurrent_layer_sizes,
            return_sequences=return_sequences,
            target_lr=target_lr,
            ridge=ridge,
            clip=clip,
            linearize=linearize,
            update=update,
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


@document_parameters(**RECURRENT_DOCS)
class RegularizedInversionSequenceRegressor(
    NetworkSequenceRegressor, BaseRegularizedInversionSequence
):
    """A recurrent network regressor trained by regularised inversion of its steps.

    It minimises the squared error, every output in units of its own deviation.  See
    :class:`RegularizedInversionSequenceClassifier` for the method.

    {parameters}

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of the recurrent layer, whose inputs
        are the inputs proper and the states of the step before, and of the output.
    displacement_norms_ : ndarray of shape (time,)
        How far the last mini-batch displaced the states of each step, as the norm over
        sequences and units.
    saturation_fraction_ : float
        Share of state values beyond ±(1 − ε) in the last mini-batch.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch of the last call of ``fit``.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`, and NaN
        in earlier fits without a validation set.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.
    module_ : torch.nn.Module
        The fitted network, an ordinary module; takes (n, time, channels).
    n_features_in_ : int
        Number of columns of X of shape (n, time), otherwise of channels.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs.
    out_activation_ : str
        ``"identity"``.
    t_ : int
        Training sequences seen so far.

    See Also
    --------
    RegularizedInversionSequenceClassifier : The same for classes.
    sktarget.TargetSpaceSequenceRegressor : Training in target space.

    Notes
    -----
    Sequences, and outputs at steps, are passed as to
    :class:`~sktarget.TargetSpaceSequenceRegressor`, but sequences must be real numbers,
    and nothing measures their channels: standardise them.

    References
    ----------
    V. Roulet, Z. Harchaoui, "Target Propagation via Regularized Inversion", arXiv
    2112.01453; TMLR 2023.

    Examples
    --------
    >>> from sktarget.datasets import make_adding
    >>> from sktarget.propagation import RegularizedInversionSequenceRegressor
    >>> X, y = make_adding(1000, 10, random_state=0)
    >>> reg = RegularizedInversionSequenceRegressor(
    ...     (30,),
    ...     update="through_time",
    ...     ridge=10,
    ...     clip=0.001,
    ...     linearize=True,
    ...     solver="adam",
    ...     random_state=0,
    ... )
    >>> reg.fit(X, y).score(X, y) > 0.9
    True
    """
