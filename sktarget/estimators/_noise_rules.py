"""How long to train, what to hold out and how much weight decay: against noise."""

from __future__ import annotations

import math

from sktarget.estimators._rules import MOST_AT_ONCE
from sktarget.training import may_have_learnt

__all__ = [
    "BADLY",
    "BENEFIT_OF_DOUBT",
    "ENOUGH_TO_JUDGE",
    "FEW_BY_LBFGS",
    "LAM_OF_SECOND_TRY",
    "LEAST_ALPHA",
    "LEAST_TO_SPARE",
    "MOST_BY_LBFGS",
    "STRONG_ALPHA",
    "auto_alpha",
    "auto_alpha_of_few",
    "auto_alpha_of_lbfgs",
    "auto_alphas",
    "auto_early_stopping",
    "auto_epochs",
    "auto_held_out",
    "auto_last_alpha_at",
    "auto_last_epochs",
    "auto_last_epochs_by_lbfgs",
    "auto_overfit_share",
    "auto_patience",
    "auto_table_patience",
    "epochs_to_reserve",
    "few_epochs",
    "may_fit_noise",
    "may_underfit",
    "needed_share",
    "noisy_above",
    "stuck_above",
]

LEAST_TO_SPARE = 30
"""From this many rows on, a table can spare some to hold out."""

ENOUGH_TO_JUDGE = 40
"""So many held-out rows can tell whether a network has learnt anything."""

LEAST_ALPHA = 1e-4
"""Weight decay where nothing says otherwise, as in scikit-learn's MLP."""

# Shares of all epochs from which on the best one is late, in shallow networks and deep.
_LATE, _LATE_OF_DEEP = 0.15, 0.6
# Epochs asked for from which on another run is not too much.
_TIME_ENOUGH = 100
# Fewer rows than these are memorised in a few dozen epochs.
_SOON_LEARNT = 200

LAM_OF_SECOND_TRY = 1 / 64
"""Share of λ with which to start anew where a network has learnt nothing."""

BADLY = 0.12
"""Share of the error of a constant above which rows are predicted badly."""

MOST_BY_LBFGS = 50_000
"""Of more rows than this, passes over all of them take too much time and memory."""

FEW_BY_LBFGS = 1000
"""Fewer rows than this are learnt by L-BFGS, with a larger λ, in next to no time."""

STRONG_ALPHA = 10.0
"""Weight decay with which to start anew where a network may have fitted noise."""

BENEFIT_OF_DOUBT = 1.2
"""Ratio of errors up to which strong decay is taken where few rows judge it."""


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


def auto_epochs(
    n_samples: int, max_iter: int, *, shallow: bool, of_numbers: bool, holds_out: bool
) -> int:
    """Epochs of an annealed run: few on a handful of rows, which are soon learnt.

    Where no rows are held out, little else would keep their noise from being learnt.
    Where some are, and 100 or more are left, a `shallow` network of one hidden layer
    learns classes, which only need to be told apart, nearly as well in a few.
    """
    soon = shallow and not of_numbers and n_samples >= 100
    if n_samples >= _SOON_LEARNT or (holds_out and not soon):
        return max_iter
    return min(max_iter, few_epochs(n_samples, shallow=shallow, of_numbers=of_numbers))


def few_epochs(n_samples: int, *, shallow: bool, of_numbers: bool) -> int:
    """Return after how many epochs fewer than 200 rows are learnt, noise included.

    It is 0 for 200 and more, for which no such number is known.
    """
    if n_samples >= _SOON_LEARNT:
        return 0
    if of_numbers:
        return 40 + n_samples // 4
    return 10 + n_samples // 8 if shallow and n_samples >= LEAST_TO_SPARE else 100


def epochs_to_reserve(max_iter: int) -> int:
    """Epochs to reserve for learning held-out rows as well: a fifth."""
    return max_iter // 5


def auto_last_epochs(best_epoch: int, left: int, falls: bool) -> int:
    """Epochs on all rows after early stopping: 10 plus half of the best epoch's number.

    They start from the best state, so few are needed.  If the weight decay `falls`
    during the run, the last epochs use more of it than the run ended with; longer
    training then fits no noise, and they are 10 plus the number of the best epoch.
    """
    return min(left, 10 + (best_epoch if falls else best_epoch // 2))


def auto_last_epochs_by_lbfgs(best_epoch: int, left: int) -> int:
    """Epochs of L-BFGS on all rows after early stopping: a quarter of the best one's.

    That is for classes.  It gets to the bottom in a few dozen epochs, and nothing tells
    when it begins to tell single rows apart.
    """
    return min(left, -(-best_epoch // 4))


def auto_alpha(n_samples: int, n_layers: int, n_columns: int, holds_out: bool) -> float:
    """Weight decay that an annealed run on a table begins with.

    It is min(1, rows / (50 layers)), and falls from epoch to epoch where rows are held
    out, which show when it has fallen enough: noisy tables do best with nearly all of
    it, others with none.  It acts on every layer, and several times as much leads deep
    networks to constant outputs from which there is no return.  With one or two hidden
    layers it is 1, and min(3, rows / 50) on fewer than 200 rows, which are learnt to
    the end of the run: elsewhere training could stop before it has fallen far enough.
    On one or two columns, which have no room for noise, such networks need large
    weights to bend often enough.  There, and on a handful of rows none of which are
    held out, it is next to none.
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
    """Weight decay of a handful of rows.

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


def auto_alpha_of_lbfgs(
    n_samples: int, n_layers: int, n_columns: int, *, of_numbers: bool
) -> float:
    """Weight decay of a further run by L-BFGS: 1 for numbers, 0.3 for classes.

    It is at most what Adam begins with, and stays as it is.  L-BFGS gets to the bottom
    within a few dozen epochs; with next to no weight decay all rows are fitted there,
    however large weights must be for that.  For classes on three columns, whose borders
    bend more often, it is 0.1.
    """
    of_classes = 0.1 if n_columns <= 3 else 0.3
    most = auto_alpha(n_samples, n_layers, n_columns, holds_out=True)
    return min(1.0 if of_numbers else of_classes, most)


def auto_alphas(
    n_samples: int, n_layers: int, n_columns: int, *, of_numbers: bool, holds_out: bool
) -> tuple[float, float]:
    """Return the weight decay that an annealed run on a table begins and ends with.

    It falls only where rows are held out, which tell when it has fallen enough;
    without them all noise would be learnt in the end.  Fewer than 30 rows keep what
    they begin with, other than in deeper networks for classes.
    """
    shape = n_samples, n_layers, n_columns
    few = n_samples < LEAST_TO_SPARE
    if few and (of_numbers or n_layers <= 2 or not holds_out):
        alpha = auto_alpha_of_few(*shape, of_numbers=of_numbers)
        return alpha, alpha
    first = auto_alpha(*shape, holds_out)
    return first, LEAST_ALPHA if holds_out else first


def auto_overfit_share(n_steps: int) -> float:
    """Return the ratio of losses, of training to held out, that tells noise by itself.

    A network that does no better than a constant may have a slow start, for which to
    wait.  It fits noise if it does better on the rows to train on; 0.9 is reached in
    the first few of a noisy table's epochs, and never before the end of a slow start.
    Where an epoch is one step, no such ratio ends a run: the weight decay is still to
    fall.
    """
    return 0.0 if n_steps == 1 else 0.9


def may_fit_noise(
    held_out_error: float, n_layers: int, n_columns: int, n_samples: int
) -> bool:
    """Return whether to repeat a run with this error with a strong weight decay.

    The error of the rows held out is a share of that of constant outputs.  Where it is
    small there is little noise.  One or two columns leave no room for noise, and more
    than 10,000 rows, and more than 250 for each column, little of it.
    """
    if n_columns <= 2 or n_samples > max(MOST_AT_ONCE, 250 * n_columns):
        return False
    return held_out_error > noisy_above(n_layers)


def noisy_above(n_layers: int) -> float:
    """Return the share of the error of a constant above which noise may be the cause.

    Deep networks fit more of it.
    """
    return BADLY if n_layers <= 4 else 0.08


def stuck_above(linear_error: float, n_layers: int) -> float:
    """Return the error above which to go on after a run.

    Both errors are shares of that of constant outputs.  With three or more hidden
    layers, what is not linear, such as a wave, may come long after what is.
    """
    return max(0.02, 0.9 * linear_error) if n_layers > 3 else math.inf


def may_underfit(
    held_out_error: float, best_at: float, max_iter: int, n_layers: int
) -> bool:
    """Return whether another optimiser might get further than a run did.

    That is so if the run has learnt nothing; or if it still improved after 0.15 of all
    its epochs, and keeps more than 0.12 of the error of a constant.  Noisy tables are
    at their best long before.  With three or more hidden layers, where such a run takes
    long and seldom does better, it is 0.6 of the epochs.  With fewer than 100 epochs in
    all, time is what counts.
    """
    late = _LATE if n_layers <= 3 else _LATE_OF_DEEP
    is_late = held_out_error > BADLY and best_at >= late
    is_poor = is_late or not may_have_learnt(held_out_error)
    return is_poor and max_iter >= _TIME_ENOUGH


def needed_share(held_out_error: float, at_most: float = 1.0) -> float:
    """Return the ratio of errors, new to old, below which another network is taken.

    `held_out_error`, the old one, is a share of that of constant outputs.  Where it is
    small, little gains on few rows are chance, and a strong weight decay costs more
    than it seems to.  A run may have to gain more wherever it is tried: `at_most`
    is its own ratio.
    """
    return at_most if held_out_error > BADLY else min(at_most, 0.85)


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


def auto_table_patience(n_samples: int, n_steps: int, annealed: bool) -> float:
    """Epochs without progress in the course for tables, where the loss swings less.

    On fewer than 200 rows an `annealed` run goes on to its end, which costs little;
    rows held out tell which epoch was best.
    """
    if annealed and n_samples < _SOON_LEARNT:
        return math.inf
    return max(10, -(-30 // n_steps))
