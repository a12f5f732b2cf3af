"""Streams of bits that a recurrent network has to remember."""

from numbers import Integral

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from sktarget.datasets._validation import validated

__all__ = ["make_delayed_addition", "make_delayed_recall"]

# Steps beyond the delay, as in Fairbank et al.
_EXTRA_STEPS = 50

_STREAMS = {
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "delay": [Interval(Integral, 0, None, closed="left")],
    "n_timesteps": [Interval(Integral, 1, None, closed="left"), None],
    "random_state": ["random_state"],
}


@validated(_STREAMS)
def make_delayed_recall(
    n_samples: int = 8000,
    delay: int = 20,
    *,
    n_timesteps: int | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make streams of random bits, and the bit that came some steps before each.

    A task for recurrent networks, which have to remember `delay` bits (Sec. 5.3 of
    [1]_).

    Parameters
    ----------
    n_samples : int, default=8000
        Number of streams.

    delay : int, default=20
        How many steps back the wanted bit lies.

    n_timesteps : int, default=None
        Length of the streams, more than `delay`; by default ``delay + 50``.

    random_state : int, RandomState instance or None, default=None
        Determines the bits. Pass an int for reproducible output across multiple
        function calls. See :term:`Glossary <random_state>`.

    Returns
    -------
    X : ndarray of shape (n_samples, 1, n_timesteps)
        The bits, 0 or 1.

    y : ndarray of shape (n_samples, n_timesteps)
        The bit `delay` steps back; -1 for the first `delay` steps, which do not count.

    References
    ----------
    .. [1] M. Fairbank, S. Samothrakis and L. Citi, "Deep Learning in Target Space",
       Journal of Machine Learning Research 23, 2022.

    Examples
    --------
    >>> from sktarget.datasets import make_delayed_recall
    >>> X, y = make_delayed_recall(1, 2, n_timesteps=8, random_state=0)
    >>> X[0, 0].astype(int)
    array([0, 1, 1, 0, 1, 1, 1, 1])
    >>> y[0]
    array([-1, -1,  0,  1,  1,  0,  1,  1])
    """
    bits = _random_bits(n_samples, delay, n_timesteps, random_state)
    y = np.full_like(bits, -1)
    y[:, delay:] = bits[:, : bits.shape[1] - delay]
    return bits[:, np.newaxis].astype(np.float64), y


@validated(_STREAMS)
def make_delayed_addition(
    n_samples: int = 8000,
    delay: int = 20,
    *,
    n_timesteps: int | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make streams of random bits, and the sum of each with a delayed copy of itself.

    A stream is read as a binary number, least significant bit first. The same number,
    `delay` steps later, is added to it. Besides the last `delay` bits, a recurrent
    network has to remember the carry (Sec. 5.3 of [1]_).

    Parameters
    ----------
    n_samples : int, default=8000
        Number of streams.

    delay : int, default=20
        By how many steps the second summand is delayed.

    n_timesteps : int, default=None
        Length of the streams, more than `delay`; by default ``delay + 50``.

    random_state : int, RandomState instance or None, default=None
        Determines the bits. Pass an int for reproducible output across multiple
        function calls. See :term:`Glossary <random_state>`.

    Returns
    -------
    X : ndarray of shape (n_samples, 1, n_timesteps)
        The bits, 0 or 1.

    y : ndarray of shape (n_samples, n_timesteps)
        Bits of the sum; -1 for the first `delay` steps, which do not count.

    References
    ----------
    .. [1] M. Fairbank, S. Samothrakis and L. Citi, "Deep Learning in Target Space",
       Journal of Machine Learning Research 23, 2022.

    Examples
    --------
    >>> from sktarget.datasets import make_delayed_addition
    >>> X, y = make_delayed_addition(1, 2, n_timesteps=8, random_state=0)
    >>> X[0, 0].astype(int)
    array([0, 1, 1, 0, 1, 1, 1, 1])
    >>> y[0]
    array([-1, -1,  1,  1,  0,  0,  1,  1])
    """
    bits = _random_bits(n_samples, delay, n_timesteps, random_state)
    y = np.full_like(bits, -1)
    carry = np.zeros(n_samples, dtype=np.int64)
    for t in range(delay, bits.shape[1]):
        carry, y[:, t] = np.divmod(bits[:, t] + bits[:, t - delay] + carry, 2)
    return bits[:, np.newaxis].astype(np.float64), y


def _random_bits(
    n_samples: int,
    delay: int,
    n_timesteps: int | None,
    random_state: int | np.random.RandomState | None,
) -> NDArray[np.int64]:
    if n_timesteps is None:
        n_timesteps = delay + _EXTRA_STEPS
    if n_timesteps <= delay:
        raise ValueError(
            f"n_timesteps must be more than delay={delay}, got {n_timesteps}"
        )
    generator = check_random_state(random_state)
    bits: NDArray[np.int64] = generator.randint(
        2, size=(n_samples, n_timesteps), dtype=np.int64
    )
    return bits
