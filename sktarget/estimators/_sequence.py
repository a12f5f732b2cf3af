"""Classification of sequences, or of their steps, in target space."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    check_is_fitted,
)
from torch import nn

from sktarget.architectures import CELLS
from sktarget.estimators import _rules
from sktarget.estimators._base import BaseTargetSpace
from sktarget.estimators._compat import with_callbacks
from sktarget.estimators._estimator import keeps_fitted_state
from sktarget.estimators._labels import ClassLabels
from sktarget.estimators._parameters import CONSTRAINTS, document_parameters
from sktarget.estimators._preparation import TrainingRows, hidden_sizes
from sktarget.estimators._sequence_data import Sequences, read_series, read_tokens
from sktarget.estimators._sequence_rows import (
    SequenceRows,
    choose_fixed_sequences,
    read_step_labels,
)
from sktarget.nn._cells import cell_of
from sktarget.training import LOSSES, Loss, TensorData, over_steps

__all__ = ["TargetSpaceSequenceClassifier"]

Array = NDArray[Any]


@document_parameters(
    hidden_layer_sizes="""int or array-like of int, default={default}
    Widths of the exit layers between the recurrent layers and the output; () for
    none.""",
    cell="""{"rnn", "lstm", "gru"}, default={default}
    Kind of the recurrent layers.""",
    recurrent_layer_sizes="""int or array-like of int, default={default}
    Widths of the recurrent layers; an int stands for one layer.""",
    bidirectional="""bool, default={default}
    Run the recurrent layers in both directions.""",
    return_sequences="""bool, default={default}
    Classify every step; otherwise the whole sequence, from the states in which the
    directions end.""",
    n_ignored_steps="""int, default={default}
    Steps at the beginning of each sequence that count neither in the loss nor in the
    score; with `return_sequences`.""",
    vocabulary_size="""int or None, default={default}
    Number of token ids, 0 for padding included.  None stands for series of real
    numbers.""",
    embedding_dim="""int, default={default}
    Width of the embedding of token ids; it learns in weight space.""",
    fixed_sequence_length="""int, "auto" or None, default={default}
    n̄_t, the steps of X̄: sampled sequences are cut to their first ones.  None takes as
    many as the longest sequence has; ``"auto"`` likewise, but of noise at most 60.""",
    fixed_batch_size="""int, "auto" or None, default={default}
    n̄_b, the sequences of the fixed batch X̄.  None takes as many as the training set
    has.""",
    fixed_batch="""{"sample", "noise"} or array-like of shape \
(n̄_b, channels, n̄_t), default={default}
    X̄: a sample of the distinct training sequences; normal noise with the mean and
    deviation of every channel; or sequences of your own, whose numbers then stand in
    for `fixed_batch_size` and `fixed_sequence_length`.  For token ids, X̄ is always
    uniform noise on [−1, 1] in the space of the embedding, or an array there.""",
    activation="""{"identity", "logistic", "tanh", "relu", "leaky_relu"}, \
default={default}
    Activation of the exit layers, and for ``cell="rnn"`` of the recurrent layers, where
    it is "tanh" or "relu".""",
    shortcuts="""bool, default={default}
    Feed every exit layer with the recurrent layers' output and all earlier exit
    layers.""",
    dropout="""float, default={default}
    Probability of dropping an output of a recurrent or exit layer in training; drawn
    independently for X̄ and for the mini-batch.""",
    batch_norm="""bool, default={default}
    Normalise the sums of hidden exit layers; only with
    ``parameterization="weights"``.""",
    module="""callable or None, default={default}
    Your own architecture: called with (n_channels, n_outputs), it returns a
    ``torch.nn.Module`` from (n, time, channels), with NaN behind the ends of
    sequences, or from token ids (n, time), to the outputs before any softmax.  The
    parameters of the architecture above are then ignored.""",
)
class TargetSpaceSequenceClassifier(ClassifierMixin, ClassLabels, BaseTargetSpace):
    """A recurrent neural network classifier trained in target space.

    The learnable parameters are the sums that each layer is to give on the steps of
    some fixed sequences X̄; the weights follow from them by ridge regression over all
    steps at once (Alg. 5), and the gradient runs through these solves.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    coefs_, intercepts_ : list of ndarray
        Realised weights (n_in, n_out) and biases (n_out,) of each recurrent layer and
        direction, then of each exit layer.  The inputs of a recurrent layer are its
        inputs proper and the states of the step before.
    lam_ : float
        The λ used.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch, penalties included.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`.
    best_validation_score_ : float or None
        The best validation score.
    module_ : torch.nn.Module
        The fitted network, an ordinary module; takes (n, time, channels) or token ids.
    n_features_in_ : int
        Number of columns of X of shape (n, time), of channels of other series, and 1
        for token ids.
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
    targets_ : list of ndarray
        Targets of each recurrent layer and direction, (n̄_b, n̄_t, sums), and of each
        exit layer, (rows, n_out); only with `warm_start` or after ``partial_fit``.
    fixed_batch_ : ndarray of shape (n̄_b, channels, n̄_t)
        X̄; likewise.

    See Also
    --------
    TargetSpaceClassifier : The same for tables.
    sktarget.preprocessing.TokenSequencer : From text to token ids.

    Notes
    -----
    Sequences come as

    - an array (n, channels, time), of NaN behind the ends of shorter sequences,
    - a list of arrays (channels, t_i),
    - an array (n, time) of univariate sequences, or
    - with `vocabulary_size`, integers (n, time), 0 behind the ends, or a list of arrays
      of integers (t_i,).  A 0 before the end is a step like others.

    Steps of padding enter neither the loss nor the solves.  But for real numbers of
    shape (n, time), later sequences may be longer or shorter than those of ``fit``.

    With `return_sequences`, `y` holds a label for each step: (n, time), or a list of
    arrays (t_i,).  -1 and NaN mark steps that do not count.  Padded input gives arrays
    back, with -1 (for labels that are strings: "") where there is padding and with
    probabilities of NaN; a list gives lists.

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
    ...     recurrent_layer_sizes=(8,), return_sequences=True, lam=0.1, random_state=0
    ... )
    >>> clf.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CONSTRAINTS,
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "cell": [StrOptions(set(CELLS))],
        "recurrent_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
        "bidirectional": ["boolean"],
        "return_sequences": ["boolean"],
        "n_ignored_steps": [Interval(Integral, 0, None, closed="left")],
        "vocabulary_size": [Interval(Integral, 2, None, closed="left"), None],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "fixed_sequence_length": CONSTRAINTS["fixed_batch_size"],
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
        self.cell = cell
        self.recurrent_layer_sizes = recurrent_layer_sizes
        self.bidirectional = bidirectional
        self.return_sequences = return_sequences
        self.n_ignored_steps = n_ignored_steps
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.fixed_sequence_length = fixed_sequence_length
        self.class_weight = class_weight

    _is_univariate: bool

    # -- fitting ---------------------------------------------------------------------

    @keeps_fitted_state
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Training sequences, see the notes; standardise them.
        y : array-like of shape (n,) or (n, time), or list
            A class label for each sequence or, with `return_sequences`, for each step.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the sequences.

        Returns
        -------
        TargetSpaceSequenceClassifier
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
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: Any = None,
    ) -> Self:
        """Train for one more epoch, on the given sequences.

        X̄ is chosen at the first call, from the sequences of that call.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Training sequences.
        y : array-like of shape (n,) or (n, time), or list
            Class labels.
        classes : array-like of shape (n_classes,), optional
            All labels that will ever occur; needed at the first call unless `y` holds
            them all.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the sequences.

        Returns
        -------
        TargetSpaceSequenceClassifier
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _check_parameters(self, incremental: bool) -> None:
        super()._check_parameters(incremental)
        sizes = hidden_sizes(self.recurrent_layer_sizes, "recurrent_layer_sizes")
        if not sizes:
            raise ValueError(
                "recurrent_layer_sizes must name at least one layer, got "
                f"{self.recurrent_layer_sizes!r}"
            )
        if self.cell == "rnn" and self.activation not in ("tanh", "relu"):
            raise ValueError(
                f"activation={self.activation!r} is none that cell='rnn' can have: use "
                "'tanh' or 'relu', or cell='lstm' or 'gru'"
            )
        if self.n_ignored_steps and not self.return_sequences:
            raise ValueError(
                f"n_ignored_steps={self.n_ignored_steps} goes with "
                "return_sequences=True only: otherwise sequences have one label each"
            )

    def _read(self, X: Any, *, reset: bool) -> Sequences:
        if self.vocabulary_size is not None:
            return read_tokens(self, X, self.vocabulary_size, reset=reset)
        known = None if reset else self._is_univariate
        sequences, univariate = read_series(self, X, reset=reset, univariate=known)
        if reset:
            self._is_univariate = univariate
        return sequences

    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Any = None
    ) -> TrainingRows:
        sequences = self._read(X, reset=first)
        values = sequences.values
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, values, dtype=np.float64, ensure_non_negative=True
            )
        if self.return_sequences:
            rows = self._step_rows(sequences, y, sample_weight, first, classes)
        else:
            rows = self._sequence_rows(values, y, sample_weight, first, classes)
        if len(rows) == 0:
            raise ValueError("sample_weight is zero for every row")
        return rows

    def _sequence_rows(
        self, values: Array, y: Any, weight: Array | None, first: bool, classes: Any
    ) -> TrainingRows:
        if getattr(y, "ndim", 1) == 2 and y.shape[1] > 1:
            raise ValueError(
                f"y should be a 1d array of one label for each sequence, got an array "
                f"of shape {y.shape}; for a label at every step set "
                "return_sequences=True"
            )
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None"
            )
        y = _check_y(y, estimator=self)
        check_consistent_length(values, y)
        check_classification_targets(y)
        if self.class_weight is not None:
            weight = compute_sample_weight(self.class_weight, y) * (
                1.0 if weight is None else weight
            )
        present = np.unique(y if weight is None else y[weight > 0])
        self._learn_classes(present, first, classes)
        rows = SequenceRows(values, y, weight)
        rows.classes = rows.y = self._encode(rows.y)
        return rows

    def _step_rows(
        self, sequences: Sequences, y: Any, weight: Array | None, first: bool, c: Any
    ) -> TrainingRows:
        labels, counts = read_step_labels(y, sequences, self.n_ignored_steps)
        values, step_weight = sequences.values, None
        if weight is not None or self.class_weight is not None:
            step_weight = np.zeros(counts.shape)
            step_weight[counts] = 1.0
            if self.class_weight is not None:
                step_weight[counts] = compute_sample_weight(self.class_weight, labels)
            if weight is not None:
                step_weight *= weight[:, None]
            labels = labels[step_weight[counts] > 0]
            counts &= step_weight > 0
        self._learn_classes(np.unique(labels), first, c)
        outputs = np.full(counts.shape, -1)
        outputs[counts] = self._encode(labels)
        row_weight = None
        if step_weight is not None:
            row_weight = step_weight.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
        rows = SequenceRows(values, outputs, row_weight, step_weight=step_weight)
        return rows if step_weight is not None else rows[np.flatnonzero(counts.any(1))]

    def _loss_function(self) -> Loss:
        loss = LOSSES[self._loss]
        return over_steps(loss) if self.return_sequences else loss

    # -- the network -----------------------------------------------------------------

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        n_inputs = X.shape[2] if X.ndim == 3 else 1
        per_step = bool(self.return_sequences)
        if self.module is not None:
            return {
                "module": self.module,
                "n_inputs": n_inputs,
                "n_outputs": self.n_outputs_,
                "return_sequences": per_step,
            }
        embeds = self.vocabulary_size is not None
        return {
            "n_inputs": n_inputs,
            "recurrent_layer_sizes": hidden_sizes(self.recurrent_layer_sizes),
            "hidden_layer_sizes": hidden_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "cell": self.cell,
            "activation": self.activation,
            "bidirectional": bool(self.bidirectional),
            "return_sequences": per_step,
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": int(self.embedding_dim) if embeds else None,
            "shortcuts": bool(self.shortcuts),
            "dropout": float(self.dropout),
            "batch_norm": bool(self.batch_norm),
        }

    def _output_shape(self, X: Array) -> tuple[int, ...]:
        steps = (X.shape[1],) if self.return_sequences else ()
        return len(X), *steps, self.n_outputs_

    def _choose_fixed_batch(
        self, module: nn.Module, rows: TrainingRows, seed: int
    ) -> Array:
        tokens = self.vocabulary_size is not None
        kind, longest = self.fixed_batch, rows.X.shape[1]
        noise = tokens or (isinstance(kind, str) and kind == "noise")
        length, size = self.fixed_sequence_length, self.fixed_batch_size
        if length == "auto":
            length = _rules.auto_fixed_length(longest) if noise else longest
        n_steps = longest if length is None else int(length)
        if size == "auto":
            size = _rules.auto_fixed_sequences(
                len(rows), n_steps, *_widest(module), per_step=self.return_sequences
            )
        fixed = choose_fixed_sequences(
            rows,
            kind,
            None if size is None else int(size),
            n_steps,
            self.embedding_dim if tokens else None,
            seed,
        )
        self._fixed_batch_is_all = fixed is rows.X
        return fixed

    def _auto_lam(self, module: nn.Module, fixed: Array) -> float:
        return _rules.auto_recurrent_lam(fixed.shape[0] * fixed.shape[1])

    def _auto_rate(self) -> float:
        return _rules.auto_recurrent_rate(self.solver, self.parameterization)

    def _keep_network(self, network: nn.Module) -> None:
        super()._keep_network(network)
        if hasattr(self, "fixed_batch_"):
            self.fixed_batch_ = self.fixed_batch_.transpose(0, 2, 1).copy()

    def _kept_fixed_batch(self) -> Array:
        fixed: Array = self.fixed_batch_.transpose(0, 2, 1)
        return fixed

    def _fitted_attributes(self, *args: Any) -> dict[str, Any]:
        fitted = super()._fitted_attributes(*args)
        if self.module is None:
            sizes = ("recurrent_layer_sizes", "hidden_layer_sizes")
            fitted["n_layers_"] = 2 + sum(len(self._architecture[k]) for k in sizes)
        return fitted

    def _maps(self) -> Iterator[tuple[Array, Array | None]]:
        """Give weights and biases, layer by layer and direction by direction."""
        for layer in self.module_.modules():
            if isinstance(layer, nn.RNNBase):
                for flat in layer.all_weights:
                    cell = cell_of(layer, flat[0].shape[1])
                    matrix = cell.to_matrix([w.detach() for w in flat]).numpy()
                    split = int(cell.bias)
                    yield matrix[split:], matrix[0] if cell.bias else None
            elif isinstance(layer, nn.Linear):
                bias = None if layer.bias is None else layer.bias.detach().numpy()
                yield layer.weight.detach().numpy().T, bias

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer in the order of the cascade, (n_in, n_out) each."""
        return [weight for weight, _ in self._maps()]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer that has them, of shape (n_out,)."""
        return [bias for _, bias in self._maps() if bias is not None]

    # -- prediction ------------------------------------------------------------------

    def _decode(self, sums: Array) -> Array:
        return np.asarray(self.classes_[self._indices(sums)])

    def _score_sums(self, sums: torch.Tensor, data: TensorData) -> float:
        truth, found = data.y.numpy(force=True), self._indices(sums.numpy(force=True))
        weight = None if data.weight is None else data.weight.numpy(force=True)
        if self.return_sequences:
            counts = truth >= 0
            truth, found = truth[counts], found[counts]
            weight = None if weight is None else weight[counts]
        return float(accuracy_score(truth, found, sample_weight=weight))

    def _answer(self, X: Any, kind: Callable[[Array], Array], filler: Any) -> Any:
        """Turn outputs into answers, in the form in which the sequences came."""
        check_is_fitted(self, "n_iter_")
        sequences = self._read(X, reset=False)
        answers = kind(self._run(sequences.values))
        if not self._architecture["return_sequences"]:
            return answers
        return sequences.give_back(answers, filler)

    def predict(self, X: Any) -> Any:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n,) or (n, time), or list of ndarray of shape (t_i,)
            A label for each sequence or, with `return_sequences`, for each step, in
            the form of X; -1 or "" where there is padding.
        """
        check_is_fitted(self, "n_iter_")
        return self._answer(X, self._labels, self._mark)

    @property
    def _mark(self) -> Any:
        """The label of padding, which is no class."""
        return "" if self.classes_.dtype.kind in "US" else -1

    def _labels(self, sums: Array) -> Array:
        labels = self._decode(sums)
        return (
            labels.astype(np.int64)
            if labels.dtype.kind in "bu" and sums.ndim == 3
            else labels
        )

    def decision_function(self, X: Any) -> Any:
        """Give the outputs of the network before softmax.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes), with a second axis for steps, or list
            For two classes one number, by how much the output of the second exceeds
            that of the first; NaN where there is padding.
        """
        return self._answer(X, self._margins, np.nan)

    def predict_proba(self, X: Any) -> Any:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n, n_classes) or (n, time, n_classes), or list of ndarray
            Probabilities of the classes, in the order of ``classes_``, in the form of
            X; NaN where there is padding.
        """
        return self._answer(X, self._probabilities, np.nan)

    def predict_log_proba(self, X: Any) -> Any:
        """Predict logarithms of probabilities, accurate where these vanish.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.

        Returns
        -------
        ndarray of shape (n, n_classes) or (n, time, n_classes), or list of ndarray
            Logarithms of what :meth:`predict_proba` gives.
        """
        return self._answer(X, self._log_probabilities, np.nan)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Give the accuracy on sequences, or on all steps that count.

        Parameters
        ----------
        X : array-like of shape (n, channels, time) or (n, time), or list
            Sequences.
        y : array-like of shape (n,) or (n, time), or list
            True labels; of steps, -1 and NaN and the first `n_ignored_steps` of each
            sequence do not count.
        sample_weight : array-like of shape (n,), optional
            Weights of the sequences.

        Returns
        -------
        float
            Fraction of the labels that are predicted.
        """
        check_is_fitted(self, "n_iter_")
        if not self._architecture["return_sequences"]:
            return float(super().score(X, y, sample_weight))
        sequences = self._read(X, reset=False)
        labels, counts = read_step_labels(y, sequences, self.n_ignored_steps)
        found = self._decode(self._run(sequences.values))[counts]
        weight = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, sequences.values)
            weight = np.repeat(weights, counts.sum(axis=1))
        return float(accuracy_score(labels, found, sample_weight=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _widest(module: nn.Module) -> tuple[int, int]:
    """Count the inputs of the widest recurrent and the widest dense layer."""
    recurrent = [
        1 + flat[0].shape[1] + m.hidden_size
        for m in module.modules()
        if isinstance(m, nn.RNNBase)
        for flat in m.all_weights
    ]
    dense = [1 + m.in_features for m in module.modules() if isinstance(m, nn.Linear)]
    return max(recurrent, default=1), max(dense, default=1)
