"""The values that ``"auto"`` stands for where X holds sequences: one formula each."""

from __future__ import annotations

import math

from sktarget.estimators import _rules

__all__ = [
    "ALPHA_OF_NUMBERS",
    "auto_anchor",
    "auto_anchored_lam",
    "auto_annealed_recurrent_rate",
    "auto_exit_lam",
    "auto_fixed_length",
    "auto_fixed_sequences",
    "auto_initial_memory",
    "auto_last_sequence_epochs",
    "auto_plain_recurrent_lam",
    "auto_recurrent_alpha",
    "auto_recurrent_lam",
    "auto_recurrent_rate",
    "auto_share_of_rate",
    "fewer_at_once",
    "may_be_too_short",
    "sequence_epochs_to_reserve",
    "spares_sequences",
]


ALPHA_OF_NUMBERS = 0.1
"""Share of the weight decay of classes that is enough for numbers.

It would keep them from being as exact as they could be, which classes need not be.
"""


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
    by themselves, and do not learn better that way.
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

    A free exit memorises many sequences, before states have learnt to remember
    what tells them apart.  On few, which are also learnt in few steps, it must be free.
    """
    return max(1.0, min(0.25, (n_samples / 1000) ** 2) * n_rows)


def spares_sequences(n_samples: int, of_steps: bool) -> bool:
    """Return whether a tenth of some sequences may be held out.

    Fewer of them say too little, unless each of their steps is judged.  More than a
    tenth would be missed: states learn to remember from many sequences.
    """
    return n_samples >= (20 if of_steps else 100)


def sequence_epochs_to_reserve(max_iter: int) -> int:
    """Epochs to reserve for learning held-out sequences as well: a tenth.

    Long memories take all epochs to be found, and few of the last ones are needed.
    """
    return max(1, max_iter // 10) if max_iter >= 5 else 0


def auto_last_sequence_epochs(best_epoch: int, left: int) -> int:
    """Epochs on all sequences after early stopping: half of the best epoch's number.

    Their noise is learnt at once.
    """
    return min(left, best_epoch // 2)


def auto_recurrent_rate(
    solver: str, parameterization: str, annealed: float, embeds: bool
) -> float:
    """Constant step size of recurrent networks: half of the `annealed` one.

    That is for targets learnt by Adam.  Embeddings, and other solvers, take half of the
    step of other networks, as gradients grow over the steps.
    """
    rate = _rules.auto_rate(solver, parameterization)
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


def auto_share_of_rate(n_updates: int) -> float:
    """Share of the annealed step that simple cells take: √(1000 / updates), at most 1.

    With thousands of updates, large steps lead states without gates astray.
    """
    return min(1.0, math.sqrt(1000 / n_updates))


def may_be_too_short(held_out_error: float, best_at: float) -> bool:
    """Return whether more steps might get further than a run did.

    That is so if it keeps more than 0.05 of the error of constant outputs, and was at
    its best only after 0.6 of its epochs: noise is learnt long before.
    """
    return held_out_error > 0.05 and best_at >= 0.6


def fewer_at_once(n_samples: int) -> int:
    """Sequences of a mini-batch where a run was too short: a fifth, at least 25.

    None is left over alone, which layers of the user's may not take.
    """
    size = max(25, -(-n_samples // 5))
    return size + 1 if n_samples % size == 1 else min(n_samples, size)


def auto_recurrent_alpha(n_samples: int, gated: bool) -> float:
    """Weight decay of annealed recurrent networks: min(1, sequences / 1000).

    Large steps soon memorise a training set, above all without gates, where it is
    three times as much.  The decay is divided by the sequences of a batch, so it weighs
    the same on all sets that fit into one, and more on larger ones, which are learnt in
    more steps.
    """
    return (1 if gated else 3) * min(1.0, n_samples / 1000)
