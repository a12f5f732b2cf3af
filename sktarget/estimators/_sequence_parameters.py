"""Parameters of the estimators of sequences in target space: constraints and texts."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, StrOptions

from sktarget.architectures import CELLS
from sktarget.estimators._parameters import CONSTRAINTS

__all__ = ["SEQUENCE_CONSTRAINTS", "SEQUENCE_DOCS"]

SEQUENCE_CONSTRAINTS: dict[str, list[Any]] = {
    **CONSTRAINTS,
    "cell": [StrOptions(set(CELLS))],
    "recurrent_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
    "bidirectional": ["boolean"],
    "return_sequences": ["boolean"],
    "n_ignored_steps": [Interval(Integral, 0, None, closed="left")],
    "vocabulary_size": [Interval(Integral, 2, None, closed="left"), None],
    "embedding_dim": [Interval(Integral, 1, None, closed="left")],
    "fixed_sequence_length": CONSTRAINTS["fixed_batch_size"],
    "anchor": [StrOptions({"auto", "zero", "weights"})],
    "initial_memory": [
        Interval(Real, 2, None, closed="left"),
        StrOptions({"auto"}),
        None,
    ],
}
"""Constraints on the parameters that all of them have."""

SEQUENCE_DOCS = {
    "hidden_layer_sizes": """int or array-like of int, default={default}
    Widths of the exit layers between the recurrent layers and the output; () for
    none.""",
    "cell": """{"rnn", "lstm", "gru"}, default={default}
    Kind of the recurrent layers.""",
    "recurrent_layer_sizes": """int or array-like of int, default={default}
    Widths of the recurrent layers; an int stands for one layer.""",
    "bidirectional": """bool, default={default}
    Run the recurrent layers in both directions.""",
    "return_sequences": """bool, default={default}
    Predict at every step; otherwise once, from the states in which the directions of a
    sequence end.""",
    "n_ignored_steps": """int, default={default}
    Steps at the beginning of each sequence that count neither in the loss nor in the
    score; with `return_sequences`.""",
    "vocabulary_size": """int or None, default={default}
    Number of token ids, including 0 for padding.  None stands for series of real
    numbers.""",
    "embedding_dim": """int, default={default}
    Width of the embedding of token ids; it learns in weight space.""",
    "fixed_sequence_length": """int, "auto" or None, default={default}
    n̄_t, the steps of X̄: sampled sequences are cut to their first ones.  None takes as
    many as the longest sequence has; so does ``"auto"``, but at most 60 of noise.""",
    "fixed_batch_size": """int, "auto" or None, default={default}
    n̄_b, the sequences of the fixed batch X̄.  None takes as many as the training set
    has; ``"auto"`` about 100, more if they are short or layers wide, see
    :ref:`defaults`.""",
    "fixed_batch": """{"sample", "noise"} or array-like of shape \
(n̄_b, channels, n̄_t), default={default}
    X̄: a sample of the distinct training sequences; normal noise with the mean and
    deviation of every channel; or sequences of your own, whose number and length then
    replace `fixed_batch_size` and `fixed_sequence_length`.  For token ids, X̄ is always
    uniform noise on [−1, 1] in the space of the embedding, or an array of shape
    (n̄_b, `embedding_dim`, n̄_t) there.""",
    "anchor": """{"auto", "zero", "weights"}, default={default}
    What λ pulls the weights of recurrent layers to: zero, as in Eq. 7, which makes
    states fade, or the weights they start from, of which those between states are
    orthogonal and hold these for long.  ``"auto"`` is the latter for ``cell="rnn"``
    unless there is a `module` or ``target_init="normal"``; gates hold states by
    themselves.""",
    "initial_memory": """float, "auto" or None, default={default}
    Steps, at least 2, over which the longest memories of an LSTM or a GRU fade at
    first: biases of gates are drawn accordingly.  ``"auto"`` is half of the mean length
    of series of numbers, and None for token ids, with ``parameterization="weights"``
    and with ``target_init="normal"``.  None leaves the biases at zero, and that of an
    LSTM's forget gate at one.  With ``cell="rnn"``, a `module` or random targets it
    does nothing.""",
    "batch_size": """int or "auto", default={default}
    Sequences of a mini-batch.  ``"auto"`` is up to 200; a further run may take a fifth
    of the sequences at a time, see :ref:`defaults`.""",
    "learning_rate_init": """float or "auto", default={default}
    Step size.  ``"auto"`` depends on the cell and on the length of the sequences, and
    brings annealing, a weight decay and sequences held out; so does
    ``learning_rate="annealed"`` with a step size of your own.  See
    :ref:`defaults`.""",
    "activation": """{"auto", "identity", "logistic", "tanh", "relu", "leaky_relu"}, \
default={default}
    Activation of the exit layers, and for ``cell="rnn"`` of the recurrent layers, where
    it is "tanh" or "relu".  ``"auto"`` is "tanh".""",
    "shortcuts": """bool, default={default}
    Feed every exit layer the recurrent layers' output and all earlier exit layers.
    Without `hidden_layer_sizes` there is nothing to skip.""",
    "dropout": """float, default={default}
    Probability of dropping an output of a recurrent or exit layer in training; drawn
    independently for X̄ and for the mini-batch.  Classifiers end a `fit` with the mean
    of the weights over 20 draws.""",
    "batch_norm": """bool, default={default}
    Normalise the sums of hidden exit layers; only with
    ``parameterization="weights"``.""",
    "early_stopping": """bool or "auto", default={default}
    Set sequences aside, and keep the state of the epoch that does best on them.
    ``"auto"`` does so for at least 100 sequences, or 20 with `return_sequences`, by the
    loss, of classes by the Brier score, if the step size is annealed; those held out
    are learnt too in a few final epochs.  With True they stay unseen, and training
    stops when their score no longer improves.  With `warm_start`, ``"auto"`` sets none
    aside.  Where ``fit`` is given a validation set, that takes their place, and is not
    learnt.""",
    "validation_fraction": """float, default={default}
    Share of the sequences set aside by `early_stopping`.""",
    "module": """callable or None, default={default}
    Your own architecture: called with (n_channels, n_outputs), it makes a
    ``torch.nn.Module`` from (n, time, channels), with NaN after the ends of
    sequences, or from token ids (n, time), to the outputs before any softmax.  What it
    returns is copied.  The parameters of the architecture above are then ignored.
    With `vocabulary_size`, n_channels is 1, and X̄ comes as what an embedding would
    give: floats of shape (n̄_b, n̄_t, `embedding_dim`), which the module has to take in
    place of ids, so that `embedding_dim` must be the width of its embedding.""",
}
"""Texts for the section "Parameters" of their docstrings."""
