"""Classification of sequences, or of their steps, in target space."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from sktarget.estimators._parameters import CLASS_WEIGHT, document_parameters
from sktarget.estimators._sequence_base import BaseTargetSpaceSequence
from sktarget.estimators._sequence_classification import NetworkSequenceClassifier
from sktarget.estimators._sequence_parameters import SEQUENCE_CONSTRAINTS, SEQUENCE_DOCS

__all__ = ["TargetSpaceSequenceClassifier"]


@document_parameters(**SEQUENCE_DOCS)
class TargetSpaceSequenceClassifier(NetworkSequenceClassifier, BaseTargetSpaceSequence):
    """A recurrent neural network classifier trained in target space.

    The learnable parameters are the sums that each layer should produce on the steps of
    some fixed sequences X̄; the weights follow from them by ridge regression over all
    steps at once (Alg. 5), and the gradient flows through these solves.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    coefs_, intercepts_ : list of ndarray
        Realised weights (n_in, n_out) and biases (n_out,) of each recurrent layer and
        direction, then of each exit layer.  The inputs of a recurrent layer are its
        inputs proper and the states of the step before.
    lam_ : float or tuple of float
        The λ used; one per layer where they differ.  Not set, nor are `targets_` and
        `fixed_batch_`, with ``parameterization="weights"``.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch of the last call of ``fit``,
        penalties included;
        `best_loss_` is None with ``early_stopping=True``, as in scikit-learn.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        One entry for each epoch.  The latter two are None if sequences were neither
        held out nor given for validation; they hold NaN for earlier fits without such
        sequences, and end before the last epochs, in which those held out are learnt.
    best_validation_score_ : float or None
        The best validation score of the last call of ``fit``.  Where the error on the
        rows held out decides, another epoch than that one may be kept.
    module_ : torch.nn.Module
        The fitted network, an ordinary module; takes (n, time, channels) or token ids.
    n_features_in_ : int
        Number of columns of X of shape (n, time), of channels of other series, and 1
        for token ids.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``; like the curves, of the run that was taken
        if there were several, see :ref:`further-runs`.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs.
    out_activation_ : str
        ``"softmax"``.
    t_ : int
        Training sequences seen so far.
    targets_ : list of ndarray
        Targets of each recurrent layer and direction, (n̄_b, n̄_t, sums), and of each
        exit layer, (rows, n_out); only with `warm_start` or after ``partial_fit``.
    fixed_batch_ : ndarray of shape (n̄_b, channels, n̄_t)
        X̄, of shape (n̄_b, `embedding_dim`, n̄_t) for token ids; kept as `targets_` are.

    See Also
    --------
    TargetSpaceClassifier : The same for tables.
    sktarget.preprocessing.TokenSequencer : From text to token ids.

    Notes
    -----
    Sequences come as

    - an array (n, channels, time), with NaN after the ends of shorter sequences,
    - a list, or an array of objects, of arrays (channels, t_i), or (t_i,) with one
      channel, which in a list must not all be of one length,
    - an array (n, time) of univariate sequences, or
    - with `vocabulary_size`, integers (n, time), 0 after the ends, or a list of arrays
      of integers (t_i,).  A 0 before the end is a step like any other.

    Steps of padding enter neither the loss nor the solves.  Except for real numbers of
    shape (n, time), later sequences may be longer or shorter than those of ``fit``.

    With `return_sequences`, `y` holds a label for each step: (n, time), or a list of
    arrays (t_i,).  -1 and NaN mark steps that do not count.  For padded input,
    predictions are arrays, with the label -1 ("" among strings) and probabilities of
    NaN at padding; for a list they are lists.

    References
    ----------
    M. Fairbank, S. Samothrakis, L. Citi, "Deep Learning in Target Space", JMLR 23
    (2022), Secs. 4.1, 5.3 and 5.4.

    Examples
    --------
    >>> from sktarget import TargetSpaceSequenceClassifier
    >>> from sktarget.datasets import make_delayed_recall
    >>> X, y = make_delayed_recall(200, delay=3, n_timesteps=12, random_state=0)
    >>> clf = TargetSpaceSequenceClassifier(
    ...     recurrent_layer_sizes=(8,), return_sequences=True, random_state=0
    ... )
    >>> clf.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SEQUENCE_CONSTRAINTS,
        "class_weight": CLASS_WEIGHT,
    }

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (),
        *,
        cell: str = "rnn",
        recurrent_layer_sizes: int | ArrayLike = (50,),
        bidirectional: bool = False,
        return_sequences: bool = False,
        n_ignored_steps: int = 0,
        vocabulary_size: int | None = None,
        embedding_dim: int = 32,
        fixed_sequence_length: int | str | None = "auto",
        activation: str = "tanh",
        lam: float | str | Sequence[float] = "auto",
        fixed_batch_size: int | str | None = "auto",
        fixed_batch: str | ArrayLike = "sample",
        anchor: str = "auto",
        initial_memory: float | str | None = "auto",
        untangling: str = "scu",
        target_init: str = "weights",
        target_scale: float = 1.0,
        project_targets: bool = True,
        parameterization: str = "targets",
        shortcuts: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
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
        class_weight: dict[Any, float] | str | None = None,
        device: str = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            cell=cell,
            recurrent_layer_sizes=recurrent_layer_sizes,
            bidirectional=bidirectional,
            return_sequences=return_sequences,
            n_ignored_steps=n_ignored_steps,
            vocabulary_size=vocabulary_size,
            embedding_dim=embedding_dim,
            fixed_sequence_length=fixed_sequence_length,
            activation=activation,
            lam=lam,
            fixed_batch_size=fixed_batch_size,
            fixed_batch=fixed_batch,
            anchor=anchor,
            initial_memory=initial_memory,
            untangling=untangling,
            target_init=target_init,
            target_scale=target_scale,
            project_targets=project_targets,
            parameterization=parameterization,
            shortcuts=shortcuts,
            dropout=dropout,
            batch_norm=batch_norm,
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
            class_weight=class_weight,
        )
