"""Regularised inversion of recurrent networks as a scikit-learn estimator."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import StrOptions
from torch import nn

from sktarget.architectures import RecurrentNetwork
from sktarget.estimators.base import (
    CONSTRAINTS,
    NetworkSequenceClassifier,
    Task,
    TrainingRows,
    document_parameters,
    parse_layer_sizes,
)
from sktarget.propagation._base import mean_weight
from sktarget.propagation._inversion_base import (
    INVERSION_CONSTRAINTS,
    INVERSION_DOCS,
    InversionEstimator,
)
from sktarget.propagation._network import INITIALISATIONS
from sktarget.propagation._recurrent_inversion import RecurrentInversionNetwork

__all__ = ["RegularizedInversionSequenceClassifier"]

Array = NDArray[Any]

_DOCS = INVERSION_DOCS | {
    "recurrent_layer_sizes": """int or array-like of one int, default={default}
    Width of the only recurrent layer.""",
    "return_sequences": """bool, default={default}
    Classify every step; otherwise the whole sequence, from its last state.""",
    "update": """{"local", "through_time"}, default={default}
    ``"local"``: every step moves towards its own target, all else being constant.
    ``"through_time"``: as in the implementation that the authors of the method
    released, the distances from the targets are also sent back through time by the
    chain rule, so that it includes back-propagation through time.  Long sequences need
    it; use it with `ridge` 10, `clip` 0.001 and `linearize`.""",
    "batch_size": """int, default={default}
    Sequences of a mini-batch; all sequences, if there are fewer.""",
}


@document_parameters(**_DOCS)
class RegularizedInversionSequenceClassifier(
    NetworkSequenceClassifier, InversionEstimator
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
        Training loss of the last and of the best epoch.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`.
    best_validation_score_ : float or None
        The best validation score.
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
        **INVERSION_CONSTRAINTS,
        "recurrent_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
        "return_sequences": ["boolean"],
        "update": [StrOptions({"local", "through_time"})],
    }
    # tanh can be inverted; other activations have no use here.
    activation = "tanh"

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
        self.recurrent_layer_sizes = recurrent_layer_sizes
        self.return_sequences = return_sequences
        self.target_lr = target_lr
        self.ridge = ridge
        self.clip = clip
        self.linearize = linearize
        self.update = update
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
        sizes = parse_layer_sizes(self.recurrent_layer_sizes, "recurrent_layer_sizes")
        if len(sizes) > 1:
            raise ValueError(
                "recurrent_layer_sizes must name a single layer, got "
                f"{self.recurrent_layer_sizes!r}: the method is defined for one"
            )

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        return {
            "n_inputs": X.shape[2],
            "recurrent_layer_sizes": parse_layer_sizes(self.recurrent_layer_sizes),
            "hidden_layer_sizes": (),
            "n_outputs": self.n_outputs_,
            "cell": "rnn",
            "activation": self.activation,
            "return_sequences": bool(self.return_sequences),
        }

    def _trainable(self, module: nn.Module, task: Task) -> nn.Module:
        for name, parameter in module.named_parameters():
            if "weight" in name:
                INITIALISATIONS[self.weight_init](parameter, generator=task.generator)
        return self._restored(module, task.rows, task.seed)

    def _restored(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        assert isinstance(module, RecurrentNetwork)
        return RecurrentInversionNetwork(
            module, self._inversion(), self.target_lr, self.update, mean_weight(rows)
        )
