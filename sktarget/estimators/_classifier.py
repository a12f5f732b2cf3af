"""Classification in target space."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_sample_weight,
    column_or_1d,
)
from torch import nn

from sktarget.estimators._base import BaseTargetSpace
from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._estimator import keeps_fitted_state
from sktarget.estimators._labels import ClassLabels
from sktarget.estimators._parameters import CONSTRAINTS, document_parameters
from sktarget.estimators._preparation import TrainingRows
from sktarget.training import TensorData

__all__ = ["TargetSpaceClassifier"]

Array = NDArray[Any]


@document_parameters()
class TargetSpaceClassifier(ClassifierMixin, ClassLabels, BaseTargetSpace):
    """A neural network classifier trained in target space.

    The learnable parameters are the sums that each layer is to give on a fixed batch
    X̄; the weights follow from them by ridge regression, layer by layer, and the
    gradient runs through these solves.  Deep and narrow networks train that do not
    train by their weights.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, or the indices of the labels of a multilabel problem.
    coefs_, intercepts_ : list of ndarray
        Realised weights (n_in, n_out) and biases (n_out,) of each layer; with
        `shortcuts` the input comes first, then the earlier layers in order.  A
        convolution's n_in is channels × height × width of its kernel, the channel the
        slowest.
    lam_ : float
        The λ used.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch, penalties included.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`.
    best_validation_score_ : float or None
        The best validation score.
    module_ : torch.nn.Module
        The fitted network, an ordinary module.
    n_features_in_ : int
        Number of columns of X, those of flattened images where X holds images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs: one a class or
        label, also for two classes, as in the paper.
    out_activation_ : str
        ``"softmax"``, or ``"logistic"`` for multilabel problems.
    t_ : int
        Training rows seen so far.
    targets_ : list of ndarray of shape (n̄_b, n_out)
        Targets of each layer, of shape (n̄_b, channels, height, width) for convolutions;
        only with `warm_start` or after ``partial_fit``.
    fixed_batch_ : ndarray of shape (n̄_b, `n_features_in_`)
        X̄, of shape (n̄_b, channels, height, width) for images; likewise.

    See Also
    --------
    TargetSpaceRegressor : The same for real outputs.
    sklearn.neural_network.MLPClassifier : Training in weight space.

    References
    ----------
    M. Fairbank, S. Samothrakis, L. Citi, "Deep Learning in Target Space", JMLR 23
    (2022).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktarget import TargetSpaceClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> X = (X - X.mean(axis=0)) / X.std(axis=0)
    >>> clf = TargetSpaceClassifier(
    ...     (8, 8), learning_rate_init=0.1, tol=0.01, max_iter=1000, random_state=0
    ... )
    >>> clf.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CONSTRAINTS,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100,),
        *,
        activation: str = "tanh",
        lam: float | str = "auto",
        fixed_batch_size: int | str | None = "auto",
        fixed_batch: str | ArrayLike = "sample",
        untangling: str = "scu",
        target_init: str = "weights",
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
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
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
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int | str = "auto",
        max_fun: int = 15000,
        class_weight: dict[Any, float] | str | None = None,
        device: str = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
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
        )
        self.class_weight = class_weight

    @keeps_fitted_state
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: Any = None) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training inputs; standardise them.  Images may have the shape (n_samples,
            channels, height, width), see :ref:`images`.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or indicators of several labels.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative weights of the rows.

        Returns
        -------
        TargetSpaceClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data or a parameter are not valid, or training diverges at once.
        """
        return self._fit(X, y, sample_weight)

    @keeps_fitted_state
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: Any = None,
    ) -> Self:
        """Train for one more epoch, on the given rows.

        X̄ is chosen at the first call, from the rows of that call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels.
        classes : array-like of shape (n_classes,), optional
            All labels that will ever occur; needed at the first call unless `y` holds
            them all.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative weights of the rows.

        Returns
        -------
        TargetSpaceClassifier
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Any = None
    ) -> TrainingRows:
        X, y = self._validate(X, y, reset=first, multi_output=True)
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns of classes; only indicators of labels (0 or 1) "
                "may have several columns"
            )
        if kind != "multilabel-indicator":
            y = column_or_1d(y, warn=True)
        weight = self._row_weights(X, y, sample_weight, classes)
        if kind == "multilabel-indicator":
            return self._multilabel_rows(X, y, weight, first)
        return self._class_rows(X, y, weight, first, classes)

    def _row_weights(
        self, X: Array, y: Array, sample_weight: Any, classes: Any
    ) -> Array | None:
        if sample_weight is None and self.class_weight is None:
            return None
        weight: Array = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        if self.class_weight is not None:
            weight = weight * compute_sample_weight(self.class_weight, y)
        return weight

    def _multilabel_rows(
        self, X: Array, y: Array, weight: Array | None, first: bool
    ) -> TrainingRows:
        if first:
            self.classes_ = np.arange(y.shape[1])
            self._set_loss("logistic", y.shape[1])
            self._multilabel = True
        elif y.shape[1] != self.n_outputs_ or not self._multilabel:
            kind = "labels" if self._multilabel else "classes in one column"
            raise ValueError(
                f"y has {y.shape[1]} labels, but the estimator was fitted with "
                f"{self.n_outputs_} {kind}: set warm_start=False or clone the estimator"
            )
        rows = _non_empty(TrainingRows(X, y, weight))
        rows.y = rows.y.astype(rows.dtype)
        return rows

    def _class_rows(
        self, X: Array, y: Array, weight: Array | None, first: bool, classes: Any
    ) -> TrainingRows:
        present = np.unique(y if weight is None else y[weight > 0])
        if first:
            self._multilabel = False
        elif self._multilabel:
            raise ValueError(
                "y has one column of classes, but the estimator was fitted with "
                f"indicators of {self.n_outputs_} labels: set warm_start=False or "
                "clone the estimator"
            )
        self._learn_classes(present, first, classes)
        rows = _non_empty(TrainingRows(X, y, weight))
        rows.classes = self._encode(rows.y)
        rows.y = rows.classes
        return rows

    # -- prediction ------------------------------------------------------------------

    def _decode(self, sums: Array) -> Array:
        indices = self._indices(sums)
        return indices if self._multilabel else np.asarray(self.classes_[indices])

    def _score_sums(self, sums: torch.Tensor, data: TensorData) -> float:
        truth = data.y.numpy(force=True)
        weight = None if data.weight is None else data.weight.numpy(force=True)
        found = self._indices(sums.numpy(force=True))
        return float(accuracy_score(truth, found, sample_weight=weight))

    def predict(self, X: ArrayLike) -> Array:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, or images as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels, or indicators of labels.
        """
        return self._decode(self._sums(X))

    def decision_function(self, X: ArrayLike) -> Array:
        """Give the outputs of the network before softmax or the logistic function.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, or images as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes one number a row, by how much the output of the second
            exceeds that of the first.
        """
        return self._margins(self._sums(X))

    def predict_proba(self, X: ArrayLike) -> Array:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, or images as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities of the classes, in the order of ``classes_``; they sum to 1
            in each row but for multilabel problems.
        """
        return self._probabilities(self._sums(X))

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Predict logarithms of probabilities, accurate where these vanish.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, or images as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Logarithms of what :meth:`predict_proba` gives.
        """
        return self._log_probabilities(self._sums(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _non_empty(rows: TrainingRows) -> TrainingRows:
    if len(rows) == 0:
        raise ValueError("sample_weight is zero for every row")
    return rows
