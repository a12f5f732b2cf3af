"""The estimators' parameters: what each means and which values it takes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from sktarget.architectures import ACTIVATIONS
from sktarget.training import NUMBER_CRITERIA

__all__ = ["CLASS_WEIGHT", "CONSTRAINTS", "LOSS_OF_NUMBERS", "document_parameters"]

CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": [
        "array-like",
        Interval(Integral, 1, None, closed="left"),
    ],
    "activation": [StrOptions({"auto", *ACTIVATIONS})],
    "lam": [
        StrOptions({"auto"}),
        Interval(Real, 0, None, closed="left"),
        "array-like",
    ],
    "fixed_batch_size": [
        StrOptions({"auto"}),
        Interval(Integral, 1, None, closed="left"),
        None,
    ],
    "fixed_batch": [StrOptions({"sample", "noise"}), "array-like"],
    "untangling": [StrOptions({"scu", "ocu"})],
    "target_init": [StrOptions({"auto", "weights", "normal"})],
    "target_scale": [Interval(Real, 0, None, closed="neither")],
    "project_targets": ["boolean"],
    "parameterization": [StrOptions({"targets", "weights"})],
    "shortcuts": ["boolean"],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "batch_norm": ["boolean"],
    "conv_layers": ["array-like", None],
    "image_shape": ["array-like", None],
    "module": [callable, None],
    "solver": [StrOptions({"adam", "sgd", "lbfgs"})],
    "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [
        StrOptions({"auto", "annealed", "constant", "invscaling", "adaptive"})
    ],
    "learning_rate_init": [
        StrOptions({"auto"}),
        Interval(Real, 0, None, closed="neither"),
    ],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean", StrOptions({"auto"})],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [
        StrOptions({"auto"}),
        Interval(Integral, 1, None, closed="left"),
        Options(Real, {np.inf}),
    ],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    "device": [str],
    "callbacks": [list, tuple, None],
    "checkpoint": [str, os.PathLike, None],
}
"""Constraints on the parameters of estimators of tables; others pick from these."""

LOSS_OF_NUMBERS: dict[str, list[Any]] = {
    "loss": [StrOptions({*NUMBER_CRITERIA, "quantile"})],
    "quantile": [Interval(Real, 0, 1, closed="neither")],
}
"""Constraints on the parameters that regressors in target space share."""

CLASS_WEIGHT: list[Any] = [dict, StrOptions({"balanced"}), None]
"""Constraint on the parameter that all classifiers share."""

_DOCS = {
    "hidden_layer_sizes": """int or array-like of int, default={default}
    Widths of the hidden layers; an int stands for one layer.""",
    "loss": """{"squared_error", "absolute_error", "quantile", "poisson"}, \
default={default}
    What is minimised: half the squared error, which leads to the mean of y; the
    absolute error, which leads to its median, and which a few outliers of y hardly
    change; the pinball loss, which leads to a `quantile` of y; or half the deviance of
    Poisson's distribution, for counts and other numbers ≥ 0 that vary by factors, of
    which the network learns the logarithm.""",
    "quantile": """float, default={default}
    Which quantile is predicted with ``loss="quantile"``: the share of y that is to lie
    below the predictions.  ``score`` is R² all the same, which says nothing of them:
    search by ``make_scorer(d2_pinball_score, alpha=quantile)``.""",
    "activation": """{"auto", "identity", "logistic", "tanh", "relu", "leaky_relu"}, \
default={default}
    Activation of the hidden layers; the slope of ``"leaky_relu"`` is 0.2.  ``"auto"``
    is ``"leaky_relu"`` for one hidden layer, for up to two in classifiers and up to
    three after convolutions; for more it is ``"tanh"``, and for tables also with
    ``loss="poisson"``, which learns logarithms, and where values of several columns are
    very far off.""",
    "lam": """float, "auto" or array-like of float, default={default}
    λ ≥ 0 of Eq. 7: the ridge of every solve for weights.  It bounds how steeply the
    weights follow the targets; it is not weight decay, which is `alpha`.  ``"auto"``
    grows with the rows of X̄, and is smaller for one or two columns, or where nothing
    was learnt with the usual value, and larger for classes with one hidden layer; for
    images it is the mean eigenvalue of each layer's Gramian; recurrent and exit layers
    differ, see :ref:`defaults`.  Several numbers give each layer its own, in the order
    of ``coefs_``.""",
    "fixed_batch_size": """int, "auto" or None, default={default}
    n̄_b, the rows of the fixed batch X̄; while rows are held out, a sample has at most
    the others.  None takes the whole training set as X̄; together with a `batch_size` of
    all rows, one pass then serves both.  ``"auto"``:
    for tables all rows up to 10,000, else 4,000, or 1,000 if you set a step size, and
    more for wide layers; 100 images.  See :ref:`defaults`.""",
    "fixed_batch": """{"sample", "noise"} or array-like of shape (n̄_b, n_features), \
default={default}
    X̄: a sample of the distinct training rows; normal noise with the mean and
    deviation of every column; or rows of your own, whose number then replaces
    `fixed_batch_size`.""",
    "untangling": """{"scu", "ocu"}, default={default}
    Sequential cascade untangling (Alg. 2) passes on the sums actually met on X̄;
    optimistic cascade untangling (Eq. 8) passes on the targets.""",
    "target_init": """{"auto", "weights", "normal"}, default={default}
    Start from the sums that well-scaled random weights give (Sec. 3.5), or from
    truncated normal targets (Sec. 3.3).  ``"auto"`` is the former, except that for
    tables the output layer starts from the labels of a sampled X̄, see
    :ref:`initial-targets`.""",
    "target_scale": """float, default={default}
    σ of the normal targets.""",
    "project_targets": """bool, default={default}
    Replace normal targets once with the sums that they lead to (Eq. 13).""",
    "parameterization": """{"targets", "weights"}, default={default}
    ``"weights"`` trains the same network in weight space, as a control.""",
    "shortcuts": """bool, default={default}
    Feed every layer the input and all earlier layers; with `conv_layers`, among
    the dense layers.""",
    "dropout": """float, default={default}
    Probability of dropping an output of a hidden dense layer, or of every second
    convolution, in training; drawn independently for X̄ and for the mini-batch.
    Classifiers end a `fit` with the mean of the weights over 20 draws.""",
    "batch_norm": """bool, default={default}
    Normalise the hidden layers' sums; only with ``parameterization="weights"``.""",
    "conv_layers": """sequence of (kernel, channels, pool) or None, default={default}
    Convolutions before the dense layers: the edge of the kernel or its height and
    width, the number of channels, and the edge of the max-pooling window (1 or None
    for none).  They keep the size of the map; pooling divides it.  X then holds
    images, see `image_shape` and :ref:`images`.""",
    "image_shape": """(channels, height, width) or None, default={default}
    How to read each row of a flattened X as an image for `conv_layers` or a `module`;
    not needed where X has the axes (n, channels, height, width).""",
    "module": """callable or None, default={default}
    Your own architecture: called with (n_features, n_outputs), it makes a
    ``torch.nn.Module`` that gives the outputs before any softmax.  With images,
    n_features is the number of channels.  What it returns is copied, so a trained
    network, or parts of one, may be where training starts.  The other parameters of the
    architecture, `image_shape` apart, are then ignored.""",
    "solver": """{"adam", "sgd", "lbfgs"}, default={default}
    Optimiser of the targets.  ``"lbfgs"`` takes all rows at once.  Where the default
    does badly on a table of up to 50,000 rows that holds little noise, or few rows of
    classes, it is tried, too, see :ref:`defaults`.""",
    "alpha": """float or "auto", default={default}
    Weight decay: half of it, times the squares of the realised weights (biases,
    embeddings and norms left out), divided by the rows of the batch, is added to the
    loss.  ``"auto"`` is 0.0001; for tables it starts with up to 3 and comes down to
    that, so that the rows held out show how much is good, and 10 is tried, too, where
    these are predicted badly; without such rows it stays at what it starts with.  For
    series it grows to up to 3 as they are learnt, for numbers to a tenth of that.  See
    :ref:`defaults`.""",
    "batch_size": """int or "auto", default={default}
    Rows of a mini-batch.  ``"auto"``: for tables all rows up to 10,000, else parts of
    up to 2,000, or 200 if you set a step size; for images 100, in weight space 200.
    See :ref:`defaults`.""",
    "learning_rate": """{"auto", "annealed", "constant", "invscaling", "adaptive"}, \
default={default}
    Schedule of the step size: ``"annealed"`` lowers it to zero along half a cosine
    wave, over the `max_iter` epochs of ``fit``; the last two are for
    ``solver="sgd"``, as in scikit-learn's multi-layer perceptron.  ``"auto"`` anneals
    a step size that is ``"auto"`` too, in target space with ``solver="adam"``, unless
    `callbacks` have a schedule; otherwise it is constant.""",
    "learning_rate_init": """float or "auto", default={default}
    Step size.  With ``"auto"``, tables are learnt in large batches, with annealing and
    early stopping; with a step size of your own, in plain mini-batches.  See
    :ref:`defaults`.""",
    "power_t": """float, default={default}
    Exponent of ``learning_rate="invscaling"``.""",
    "max_iter": """int, default={default}
    Epochs of each call of ``fit``; iterations for ``"lbfgs"``.""",
    "shuffle": """bool, default={default}
    Draw the mini-batches anew in each epoch.""",
    "random_state": """int, RandomState instance or None, default={default}
    Determines the initial weights or targets, X̄, the validation rows, the mini-batches
    and dropout.""",
    "tol": """float, default={default}
    Least improvement that counts as progress: in the training loss or, where rows are
    held out, in their error, or with ``early_stopping=True`` in their score.  In
    regression the loss is relative to the variance of y, where outputs are measured in
    units of their own.""",
    "verbose": """bool or int, default={default}
    Print the progress.""",
    "warm_start": """bool, default={default}
    Continue from the last ``fit``: its targets, its X̄ and its optimiser's state.  With
    another `lam` or `untangling` its weights and its X̄ are kept, with another
    `fixed_batch` or `fixed_batch_size` only its weights.  An annealed
    step size begins anew in every call, so for many short calls set
    `learning_rate_init`.  Where a batch holds all rows, and no others judge, a fit ends
    with its last state; without `warm_start`, with that of the least loss.""",
    "momentum": """float, default={default}
    Momentum of ``solver="sgd"``.""",
    "nesterovs_momentum": """bool, default={default}
    Use Nesterov's momentum.""",
    "early_stopping": """bool or "auto", default={default}
    Set rows aside, stop when their score no longer improves, and keep the state of
    the best epoch.  Equal rows go the same way, unless few kinds of rows come with many
    kinds of y, as in a survey.  ``"auto"`` does so for tables of at
    least 30 rows, judging by the loss, of classes by the Brier score, if
    `learning_rate_init` is ``"auto"`` too; those held out are learnt too in a few final
    epochs, where the step size is annealed and `max_iter` at least 5; otherwise they
    are not, and there have to be 200 rows.  With True they stay unseen.  With
    `warm_start`, ``"auto"`` sets none aside: every call would draw others.  Where
    ``fit`` is given a validation set, that takes their place, and is not learnt.""",
    "validation_fraction": """float, default={default}
    Share of the rows set aside by `early_stopping`; with ``"auto"``, where they are
    learnt in the end, at least 40 rows, or a third of all if that is fewer.""",
    "beta_1": """float, default={default}
    Decay of the first moment of ``"adam"``.""",
    "beta_2": """float, default={default}
    Decay of the second moment of ``"adam"``.""",
    "epsilon": """float or "auto", default={default}
    Keeps the divisions of ``"adam"`` finite.  ``"auto"`` is 1e-8, and 1e-15 for images
    in target space, where the gradients of targets are small.""",
    "n_iter_no_change": """int or "auto", default={default}
    Epochs without progress after which training stops; ``np.inf`` for never.
    ``"auto"`` is 10 epochs or, where an epoch has few mini-batches, as many as make
    200 steps (for tables 30 steps, but no end before the network does better than
    constant outputs or fits noise, and none for fewer than 200 rows, see
    :ref:`defaults`); never while a weight decay that is ``"auto"`` grows, unless
    ``early_stopping=True``.""",
    "max_fun": """int, default={default}
    Bound on the evaluations of the loss within one ``"lbfgs"`` iteration; more than
    100 make no difference.""",
    "class_weight": """dict, "balanced" or None, default={default}
    Weights of the classes, as in scikit-learn; ``"balanced"`` counts rows by their
    `sample_weight`, in ``partial_fit`` those of the call.""",
    "device": """str, default={default}
    Where to train: ``"auto"`` is the first CUDA device if there is one, else
    ``"cpu"``.""",
    "callbacks": """list of skorch callbacks or None, default={default}
    Called during training, after the estimator's own stopping rule has judged an
    epoch, and before it ends the run.  The history of the net has ``train_loss`` and,
    where rows are held out, ``valid_loss`` and ``valid_score`` of every epoch; the same
    names with ``_best`` at the end tell whether an epoch's is the best so far.  Where a
    step takes all rows, its pass evaluates the rows held out, too, so that their loss
    and score are those before the step, unless ``early_stopping=True``.  Callbacks take
    no part in further runs, nor in last epochs on all rows, where a fit has such, see
    :ref:`defaults`.  In ``partial_fit`` the history, schedules and scores go on from
    call to call.  Callbacks that set step sizes themselves need
    ``learning_rate="constant"``, except skorch's schedules.""",
    "checkpoint": """path-like or None, default={default}
    File in which ``fit`` keeps its state after every epoch.  A ``fit`` that finds one
    goes on from there, and so ends as if it had never been killed.  It refuses the file
    of a fit with other data or parameters; remove a file to start afresh.  See
    :ref:`recovery`.""",
}

Class = TypeVar("Class", bound=type)


def document_parameters(**more: str) -> Callable[[Class], Class]:
    """Write the section "Parameters" of an estimator's docstring.

    Each parameter is described in one place only; the order and the defaults come from
    the signature.

    Parameters
    ----------
    **more : str
        Texts of parameters that only this estimator has, or that mean something else
        in it.

    Returns
    -------
    callable
        Class decorator, which fills in the line ``{parameters}`` of the docstring.
    """
    texts = _DOCS | more

    def decorate(cls: Class) -> Class:
        lines = ["Parameters", "----------"]
        for name, parameter in inspect.signature(cls).parameters.items():
            default = parameter.default
            shown = f'"{default}"' if isinstance(default, str) else repr(default)
            lines.append(f"{name} : {texts[name].replace('{default}', shown)}")
        section = inspect.cleandoc("\n".join(lines)).replace("\n", "\n    ")
        cls.__doc__ = (cls.__doc__ or "").replace("{parameters}", section)
        return cls

    return decorate
