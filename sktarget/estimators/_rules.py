"""The values that ``"auto"`` stands for: one formula each."""

from __future__ import annotations

import math

__all__ = [
    "ENOUGH_TO_JUDGE",
    "IMAGES_IN_FIXED_BATCH",
    "LAM_OF_SECOND_TRY",
    "LEAST_ALPHA",
    "LEAST_TO_SPARE",
    "MOST_AT_ONCE",
    "MOST_IMAGE_LAM",
    "STRONG_ALPHA",
    "auto_activation",
    "auto_alpha",
    "auto_alpha_of_few",
    "auto_anchor",
    "auto_anchored_lam",
    "auto_annealed_image_rate",
    "auto_annealed_recurrent_rate",
    "auto_batch_size",
    "auto_early_stopping",
    "auto_epochs",
    "auto_epsilon",
    "auto_exit_lam",
    "auto_fixed_batch_size",
    "auto_fixed_length",
    "auto_fixed_sequences",
    "auto_held_out",
    "auto_image_batch_size",
    "auto_initial_memory",
    "auto_lam",
    "auto_last_alpha_at",
    "auto_last_epochs",
    "auto_patience",
    "auto_plain_recurrent_lam",
    "auto_rate",
    "auto_recurrent_alpha",
    "auto_recurrent_lam",
    "auto_recurrent_rate",
    "auto_tuned_batch_size",
    "auto_tuned_patience",
    "auto_tuned_rate",
    "epochs_to_reserve",
    "few_epochs",
    "may_fit_noise",
    "needed_share",
    "spares_sequences",
]

MOST_AT_ONCE = 10_000
"""Up to this many rows, a whole table is both X̄ and the batch."""

IMAGES_IN_FIXED_BATCH = 100
"""n̄_b of images, each of which has a row for every pixel of a map."""

MOST_IMAGE_LAM = 30.0
"""Bound on λ of images, in mean eigenvalues of the Gramian of inputs less their means.

It leaves networks alone that end in dense layers on all pixels, and lets those learn
that end in a mean over them, which varies little.
"""

LEAST_TO_SPARE = 30
"""From this many rows on, a table can spare some to hold out."""

ENOUGH_TO_JUDGE = 40
"""So many held-out rows can tell whether a network has learnt anything."""

LEAST_ALPHA = 1e-4
"""Weight decay where nothing says otherwise, as in scikit-learn's MLP."""


# Fewer rows than these are learnt by heart in a few dozen epochs.
_SOON_LEARNT = 200


LAM_OF_SECOND_TRY = 1 / 64
"""Share of λ with which to start anew where a network has learnt nothing."""

STRONG_ALPHA = 10.0
"""Weight decay with which to start anew where a network may have fitted noise."""


def auto_activation(
    n_hidden: int, of_numbers: bool = False, images: bool = False
) -> str:
    """Leaky rectifiers in shallow networks, tanh in deep ones.

    Rectifiers learn better in one hidden layer, also in two for classes and in three
    after convolutions.  With more layers they fit noise; with ten or more they reduce
    the signal to a constant, where tanh with orthogonal weights passes it on.
    """
    most = 3 if images else 1 if of_numbers else 2
    return "leaky_relu" if n_hidden <= most else "tanh"


def auto_lam(
    n_fixed: int, n_layers: int, n_given: int | None = None, n_columns: int = 3
) -> float:
    """λ = 0.2 n̄_b f g / max(2, layers), with X̄ of n̄_b rows for n, and of d columns.

    f = max(1, min(320 / n̄_b, 1280 / n)), and g = min(1, 8^(d − 3)).

    The Gramian grows with the rows of X̄, so λ does too.  Every layer shrinks the
    signal, so each of many gets less.  On few rows a small λ would fit them exactly, so
    it is raised there, unless these rows stand for many more.  Few columns leave the
    sums of all layers on a curve or a surface, whose finer bends lie in directions of
    little variance: a large λ would not let them be learnt.
    """
    n_given = n_fixed if n_given is None else n_given
    few = max(1.0, min(320 / n_fixed, 1280 / n_given))
    narrow = 8.0 ** min(0, n_columns - 3)
    return 0.2 * n_fixed * few * narrow / max(2, n_layers)


def auto_fixed_batch_size(
    n_samples: int, widest: int, n_pixels: int = 1, tuned: bool = False
) -> int:
    """n̄_b: enough rows for the widest layer's inputs, at most all of them.

    For images, whose pixels are rows to a convolution, the paper's 100 are enough.
    Where batches are large anyway, more rows cost little and determine the sums better.
    """
    if n_pixels > 1:
        return min(n_samples, IMAGES_IN_FIXED_BATCH)
    most = MOST_AT_ONCE if n_samples <= MOST_AT_ONCE else 4000
    return min(n_samples, max(most if tuned else 1000, 2 * widest))


def auto_fixed_length(n_steps: int) -> int:
    """n̄_t of noise: the solve needs rows, not long sequences (Sec. 5.4)."""
    return min(n_steps, 60)


def auto_fixed_sequences(
    n_samples: int,
    n_steps: int,
    widest_recurrent: int,
    widest_exit: int,
    per_step: bool,
) -> int:
    """n̄_b of sequences: every step is a row, except to exit layers after the last."""
    by_steps = -(-max(1000, 2 * widest_recurrent) // n_steps)
    exits = -(-widest_exit // n_steps) if per_step else widest_exit
    return min(n_samples, max(100, by_steps, 2 * exits))


def auto_anchor(simple: bool) -> str:
    """Return what λ pulls recurrent weights to: for simple cells, those of the start.

    Orthogonal weights between states hold these for long.  Towards zero, λ takes from
    them what has little variance, such as the traces of early steps.  Gates hold states
    by themselves, and learn no better so.
    """
    return "weights" if simple else "zero"


def auto_initial_memory(n_steps: float) -> float:
    """Return how long gates remember at first: half of the mean length of sequences.

    In target space that pays even where little has to be remembered, though not with
    token ids; in weight space only where much has.  All of the length, or a quarter,
    does nearly as well.
    """
    return max(2.0, n_steps / 2)


def auto_anchored_lam(n_rows: int) -> float:
    """λ of layers that it pulls to their initial weights: the number of steps in X̄.

    It then costs nothing at first, and keeps noise, in directions of little variance,
    from being learnt.
    """
    return float(n_rows)


def auto_plain_recurrent_lam(n_rows: int) -> float:
    """λ = max(16, 0.001 rows) for constant steps, the rows being all steps of X̄.

    A state is shrunk at every step, so it bears a smaller λ than a dense layer does;
    but on a handful of rows a small λ lets training swing wildly.
    """
    return max(16.0, 1e-3 * n_rows)


def auto_recurrent_lam(n_rows: int, n_steps: float) -> float:
    """λ = 0.1 min(1, 40 / steps) times the rows, which are all steps of X̄.

    Large, annealed steps need a larger one.  States of long sequences, which are shrunk
    at every step, bear less.
    """
    return 0.1 * min(1.0, 40 / n_steps) * n_rows


def auto_exit_lam(n_rows: int, n_samples: int) -> float:
    """λ = max(1, min(0.25, (n / 1000)²) rows) of the layers after the recurrent ones.

    A free exit learns many sequences by heart, before states have learnt to remember
    what tells them apart.  On few, which are also learnt in few steps, it must be free.
    """
    return max(1.0, min(0.25, (n_samples / 1000) ** 2) * n_rows)


def auto_batch_size(n_samples: int) -> int:
    """Rows of a mini-batch: as in scikit-learn's MLP."""
    return min(200, n_samples)


def auto_tuned_batch_size(n_samples: int, n_with_held_out: int) -> int:
    """Rows of a mini-batch of a table: all of them, or 2,000 of more than 10,000.

    Those held out count, so that holding them out does not change how others are
    learnt.
    """
    return min(n_samples, n_samples if n_with_held_out <= MOST_AT_ONCE else 2000)


def auto_image_batch_size(n_samples: int) -> int:
    """As many images as there are in X̄: small batches give more steps per epoch."""
    return min(IMAGES_IN_FIXED_BATCH, n_samples)


def auto_rate(solver: str, parameterization: str, images: bool = False) -> float:
    """Step size: targets are of order 1, weights of order 1/√n_in.

    The large λ that goes with images holds their weights back.
    """
    if parameterization == "weights":
        return 0.1 if solver == "sgd" else 1e-3
    return (1.0 if solver == "sgd" else 1e-2) * (10 if images else 1)


def auto_annealed_image_rate(n_steps: int) -> float:
    """Step size of Adam for images: 0.1 √(1000 / steps), from 0.1 to 0.3.

    Annealed over a few hundred steps, smaller rates would not get far enough.
    """
    return 0.1 * min(3.0, max(1.0, math.sqrt(1000 / n_steps)))


def auto_epsilon(images: bool) -> float:
    """Stabiliser of Adam: that of scikit-learn's MLP, but next to nothing for images.

    The gradients of their targets are spread over all pixels of X̄, and those of the
    first layers are smaller than what would otherwise be added to them.
    """
    return 1e-15 if images else 1e-8


def auto_tuned_rate(n_layers: int) -> float:
    """Step size of Adam in large batches: 0.1 min(1, 2/√layers).

    Their gradients are steady, and allow large steps; in a deep network, the changes
    that layers make to each other's inputs add up.
    """
    return 0.1 * min(1.0, 2 / math.sqrt(n_layers))


def auto_early_stopping(n_samples: int, learns_all: bool) -> bool:
    """Return whether a table can spare rows to hold out.

    It needs fewer if those held out are learnt in the end, and so are not lost.
    """
    return n_samples >= (LEAST_TO_SPARE if learns_all else _SOON_LEARNT)


def auto_held_out(n_samples: int) -> int:
    """Least rows to hold out, if they are learnt in the end: 40, at most a third.

    Fewer do not show when a network begins to fit noise.
    """
    return min(ENOUGH_TO_JUDGE, n_samples // 3)


def spares_sequences(n_samples: int, of_steps: bool) -> bool:
    """Return whether a tenth of some sequences may be held out.

    Fewer of them say too little, unless each of their steps is judged.  More than a
    tenth would be missed: states learn to remember from many sequences.
    """
    return n_samples >= (20 if of_steps else 100)


def auto_recurrent_rate(
    solver: str, parameterization: str, annealed: float, embeds: bool
) -> float:
    """Constant step size of recurrent networks: half of the `annealed` one.

    That is for targets learnt by Adam.  Embeddings, and other solvers, take half of the
    step of other networks, as gradients grow over the steps.
    """
    rate = auto_rate(solver, parameterization)
    if parameterization == "weights":
        return rate
    return 0.5 * (annealed if solver == "adam" and not embeds else rate)


def auto_annealed_recurrent_rate(n_steps: float, averages: bool, embeds: bool) -> float:
    """Step size of Adam for sequences: 0.1, and at most 5 / steps.

    Changes add up over the steps, unless a cell `averages` its old and its new state,
    as a GRU does.  An embedding, whose weights learn with the same step size as the
    targets, gets 0.03, and at most 0.9 / steps.
    """
    if embeds:
        return 0.03 * min(1.0, 30 / n_steps)
    return 0.1 if averages else 0.1 * min(1.0, 50 / n_steps)


def auto_recurrent_alpha(n_samples: int, gated: bool) -> float:
    """Weight decay of annealed recurrent networks: min(1, sequences / 1000).

    Large steps soon learn a training set by heart, above all without gates, where it is
    three times as much.  The decay is divided by the sequences of a batch, so it weighs
    the same on all sets that fit into one, and more on larger ones, which are learnt in
    more steps.
    """
    return (1 if gated else 3) * min(1.0, n_samples / 1000)


def auto_epochs(
    n_samples: int, max_iter: int, *, easy: bool, of_numbers: bool, holds_out: bool
) -> int:
    """Epochs of an annealed run: few on a handful of rows, which are soon learnt.

    Where no rows are held out, little else would keep their noise from being learnt.
    Where some are, and 100 or more are left, an `easy` network of one hidden layer
    learns classes, which only need to be told apart, nearly as well in a few.
    """
    soon = easy and not of_numbers and n_samples >= 100
    if n_samples >= _SOON_LEARNT or (holds_out and not soon):
        return max_iter
    return min(max_iter, few_epochs(n_samples, easy=easy, of_numbers=of_numbers))


def few_epochs(n_samples: int, *, easy: bool, of_numbers: bool) -> int:
    """Return in how many epochs fewer than 200 rows are learnt, noise and all.

    It is 0 for more: nothing is known of these.
    """
    if n_samples >= _SOON_LEARNT:
        return 0
    if of_numbers:
        return 40 + n_samples // 4
    return 10 + n_samples // 8 if easy and n_samples >= LEAST_TO_SPARE else 100


def epochs_to_reserve(max_iter: int) -> int:
    """Epochs to reserve for learning held-out rows as well: a fifth."""
    return max_iter // 5


def auto_last_epochs(
    best_epoch: int, left: int, *, falls: bool = False, sequences: bool = False
) -> int:
    """Epochs on all rows after early stopping: 10 plus half of the best epoch's number.

    They start from the best state, so few are needed.  If the weight decay `falls`,
    they get more of it than the run had at its end, longer training does not fit noise,
    and they are 10 plus all of it.  The noise of sequences is learnt at once, and they
    are half of the number alone.
    """
    if sequences:
        return min(left, best_epoch // 2)
    return min(left, 10 + (best_epoch if falls else best_epoch // 2))


def auto_alpha(n_samples: int, n_layers: int, n_columns: int, holds_out: bool) -> float:
    """Weight decay that a tuned run begins with.

    It is min(1, rows / (50 layers)) and falls from epoch to epoch.  Held-out rows show
    when it has fallen enough: noisy tables do best with nearly all of it, others with
    none.  It acts on every layer, and several times as much leads deep networks to
    constant outputs from which there is no return.  With one or two hidden layers it is
    1, and min(3, rows / 50) on fewer than 200 rows, which are learnt to the end of the
    run: elsewhere training could stop before it has fallen far enough.  On one or two
    columns, which have no room for noise, such networks need large weights to bend
    often enough.  There, and on a handful of rows none of which are held out, it is
    next to none.
    """
    if n_samples < _SOON_LEARNT and not holds_out:
        return LEAST_ALPHA
    if n_layers <= 3 and n_columns <= 2:
        return LEAST_ALPHA
    if n_layers <= 3:
        return min(3.0, n_samples / 50) if n_samples < _SOON_LEARNT else 1.0
    return min(1.0, n_samples / (50 * n_layers))


def auto_alpha_of_few(
    n_samples: int, n_layers: int, n_columns: int, *, of_numbers: bool
) -> float:
    """Weight decay of a handful of rows, none of which are held out.

    It is min(1, rows² / (350 layers)): deep networks are led to a constant by less, the
    more easily the fewer rows there are.  On one or two columns it is next to none.
    Classes, whose outputs start close to them, take 1 in one hidden layer, and 0.1 on
    one or two columns, but next to none in deeper networks.
    """
    narrow = n_columns <= 2
    if n_layers <= 2 and not of_numbers:
        return 0.1 if narrow else 1.0
    if narrow or not of_numbers:
        return LEAST_ALPHA
    return max(LEAST_ALPHA, min(1.0, n_samples**2 / (350 * n_layers)))


def may_fit_noise(held_out_error: float, n_layers: int, n_columns: int) -> bool:
    """Return whether to try a strong weight decay after a run that ended so.

    The error of the rows held out is a share of that of constant outputs.  Where it is
    small there is little noise, though deep networks fit more of it; and one or two
    columns leave no room for noise.
    """
    return held_out_error > (0.12 if n_layers <= 4 else 0.08) and n_columns > 2


def needed_share(held_out_error: float) -> float:
    """Return the share of an error that another network's must be below to be taken.

    The error is a share of that of constant outputs.  Where it is small, little gains
    on few rows are chance, and a strong weight decay costs more than it seems to.
    """
    return 1.0 if held_out_error > 0.12 else 0.85


def auto_last_alpha_at(best: float) -> float:
    """Return the time, as a share of the run, whose weight decay the last epochs use.

    It is that of a quarter of the run before the best epoch: the best state was learnt
    under the stronger decay of earlier epochs.
    """
    return max(0.0, best - 0.25)


def auto_patience(n_steps: int) -> int:
    """Epochs without progress, of `n_steps` steps each, after which to stop.

    An epoch of one step says little: the loss of full-batch Adam swings.
    """
    return max(10, -(-200 // n_steps))


def auto_tuned_patience(n_samples: int, n_steps: int, annealed: bool) -> float:
    """Epochs without progress in the course for tables, where the loss swings less.

    On fewer than 200 rows an `annealed` run goes on to its end, which costs little;
    rows held out tell which epoch was best.
    """
    if annealed and n_samples < _SOON_LEARNT:
        return math.inf
    return max(10, -(-30 // n_steps))
