"""Regression in target space."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from sktarget.estimators._base import BaseTargetSpace
from sktarget.estimators._parameters import (
    CONSTRAINTS,
    LOSS_OF_NUMBERS,
    document_parameters,
)
from sktarget.estimators._regression import NetworkRegressor

__all__ = ["TargetSpaceRegressor"]


@document_parameters()
class TargetSpaceRegressor(NetworkRegressor, BaseTargetSpace):
    """A neural network regressor trained in target space.

    It minimises the squared error or another `loss`, with each of several outputs in
    units of its own unless another `target_init` is chosen.  See
    :class:`TargetSpaceClassifier` for the method.

    {parameters}

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Realised weights (n_in, n_out) and biases (n_out,) of each layer; with
        `shortcuts` the input comes first, then the earlier layers in order.  A
        convolution's n_in is channels × height × width of its kernel, the channel
        varying slowest.
    lam_ : float or tuple of float
        The λ used; one per layer where they differ.  Not set, nor are `targets_` and
        `fixed_batch_`, with ``parameterization="weights"``.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch of the last call of ``fit``,
        penalties included;
        `best_loss_` is None with ``early_stopping=True``, as in scikit-learn.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        One entry for each epoch.  The latter two are None if rows were neither held
        out nor given for validation; they hold NaN for earlier fits without such rows,
        and end before the last epochs, in which rows held out are learnt.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.  Where the error on the
        rows held out decides, another epoch than that one may be kept.
    module_ : torch.nn.Module
        The fitted network, an ordinary module.
    n_features_in_ : int
        Number of columns of X, after flattening if X holds images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``; like the curves, of the run that was taken
        if there were several, see :ref:`further-runs`.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs.
    out_activation_ : str
        ``"identity"``; ``"exp"`` with ``loss="poisson"``, whose `module_` gives
        logarithms.
    t_ : int
        Rows seen so far; equal ones that were merged count once.
    targets_ : list of ndarray of shape (n̄_b, n_out)
        Targets of each layer, of shape (n̄_b, channels, height, width) for convolutions;
        only with `warm_start` or after ``partial_fit``.
    fixed_batch_ : ndarray of shape (n̄_b, `n_features_in_`)
        X̄, of shape (n̄_b, channels, height, width) for images; kept as `targets_` are.

    See Also
    --------
    TargetSpaceClassifier : The same for classes.
    sklearn.neural_network.MLPRegressor : Training in weight space.

    References
    ----------
    M. Fairbank, S. Samothrakis, L. Citi, "Deep Learning in Target Space", JMLR 23
    (2022).

    Examples
    --------
    >>> import numpy as np
    >>> from sktarget import TargetSpaceRegressor
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> y = np.sin(4 * X[:, 0])
    >>> reg = TargetSpaceRegressor((20,), random_state=0)
    >>> reg.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CONSTRAINTS,
        **LOSS_OF_NUMBERS,
    }

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100,),
        *,
        loss: str = "squared_error",
        quantile: float = 0.5,
        activation: str = "auto",
        lam: float | str | Sequence[float] = "auto",
        fixed_batch_size: int | str | None = "auto",
        fixed_batch: str | ArrayLike = "sample",
        untangling: str = "scu",
        target_init: str = "auto",
        target_scale: float = 1.0,
        project_targets: bool = True,
        parameterization: str = "targets",
        shortcuts: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        conv_layers: Sequence[tuple[int, int, int]] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        module: Callable[[int, int], nn.Module] | None = None,
        solver: str = "adam",
        alpha: float | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: str = "auto",
        learning_rate_init: float | str = "auto",
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | str = "auto",
        n_iter_no_change: int | str = "auto",
        max_fun: int = 15000,
        device: str = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            lam=lam,
            fixed_batch_size=fixed_batch_size,
            fixed_batch=fixed_batch,
            untangling=untangling,
            target_init=target_init,
            target_scale=target_scale,
            project_targets=project_targets,
            parameterization=parameterization,
            shortcuts=shortcuts,
            dropout=dropout,
            batch_norm=batch_norm,
            conv_layers=conv_layers,
            image_shape=image_shape,
            module=module,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            device=device,
            callbacks=callbacks,
            checkpoint=checkpoint,
            loss=loss,
            quantile=quantile,
        )

    @property
    def _learns_in_units(self) -> bool:
        return self._starts_from_labels
