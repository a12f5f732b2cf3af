"""Sequences that a few early steps decide: tests of long memory."""

from numbers import Integral

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from sktarget.datasets._validation import validated

__all__ = ["make_adding", "make_temporal_order"]

_SEQUENCES = {
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "n_timesteps": [Interval(Integral, 10, None, closed="left")],
    "random_state": ["random_state"],
}
_N_SYMBOLS = 6


@validated(_SEQUENCES)
def make_temporal_order(
    n_samples: int = 8000,
    n_timesteps: int = 60,
    *,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make sequences of symbols, two of which, and their order, decide the class.

    There are six symbols.  Two steps hold symbol 0 or 1: one step in the second tenth
    of the sequence, and one in the tenth that follows its middle.  All other steps hold
    one of the symbols 2 to 5, which mean nothing.  The class says which two symbols
    occurred, and in which order: ``v + 2 w`` for v followed by w.  The task comes from
    [1]_; this form is that of [2]_.

    Parameters
    ----------
    n_samples : int, default=8000
        Number of sequences.

    n_timesteps : int, default=60
        Length of the sequences, at least 10.

    random_state : int, RandomState instance or None, default=None
        Determines the symbols. Pass an int for reproducible output across multiple
        function calls. See :term:`Glossary <random_state>`.

    Returns
    -------
    X : ndarray of shape (n_samples, 6, n_timesteps)
        The symbols, one-hot.

    y : ndarray of shape (n_samples,)
        The class, 0 to 3.

    References
    ----------
    .. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural
       Computation 9 (1997).

    .. [2] N. Manchev and M. Spratling, "Target propagation in recurrent neural
       networks", Journal of Machine Learning Research 21 (2020).

    Examples
    --------
    >>> from sktarget.datasets import make_temporal_order
    >>> X, y = make_temporal_order(3, 10, random_state=0)
    >>> X.argmax(axis=1)
    array([[2, 1, 3, 2, 5, 0, 5, 5, 3, 5],
           [3, 1, 2, 5, 4, 0, 2, 2, 4, 3],
           [4, 1, 5, 4, 2, 1, 3, 3, 3, 2]])
    >>> y
    array([1, 1, 3])
    """
    generator = check_random_state(random_state)
    tenth, middle = n_timesteps // 10, n_timesteps // 2
    symbols = generator.randint(2, _N_SYMBOLS, size=(n_samples, n_timesteps))
    decisive = generator.randint(2, size=(n_samples, 2))
    rows = np.arange(n_samples)
    for k, start in enumerate((tenth, middle)):
        steps = start + generator.randint(tenth, size=n_samples)
        symbols[rows, steps] = decisive[:, k]
    X = (symbols[:, np.newaxis] == np.arange(_N_SYMBOLS)[:, np.newaxis]).astype(float)
    return X, (decisive[:, 0] + 2 * decisive[:, 1]).astype(np.int64)


@validated(_SEQUENCES)
def make_adding(
    n_samples: int = 8000,
    n_timesteps: int = 30,
    *,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make sequences of numbers, two of them marked, and the means of these two.

    The first mark is in the first tenth of the sequence, the second one in the four
    tenths that follow.  A network that always answers 0.5 has a mean squared error of
    1/24.  The task comes from [1]_; this form is that of [2]_.

    Parameters
    ----------
    n_samples : int, default=8000
        Number of sequences.

    n_timesteps : int, default=30
        Length of the sequences, at least 10.

    random_state : int, RandomState instance or None, default=None
        Determines numbers and marks. Pass an int for reproducible output across
        multiple function calls. See :term:`Glossary <random_state>`.

    Returns
    -------
    X : ndarray of shape (n_samples, 2, n_timesteps)
        Marks, 0 or 1, in the first channel; numbers from [0, 1) in the second.

    y : ndarray of shape (n_samples,)
        Mean of the two marked numbers.

    References
    ----------
    .. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural
       Computation 9 (1997).

    .. [2] N. Manchev and M. Spratling, "Target propagation in recurrent neural
       networks", Journal of Machine Learning Research 21 (2020).

    Examples
    --------
    >>> from sktarget.datasets import make_adding
    >>> X, y = make_adding(1, 10, random_state=0)
    >>> X[0].round(1)
    array([[1. , 0. , 1. , 0. , 0. , 0. , 0. , 0. , 0. , 0. ],
           [0.5, 0.7, 0.6, 0.5, 0.4, 0.6, 0.4, 0.9, 1. , 0.4]])
    >>> y.round(2)
    array([0.55])
    """
    generator = check_random_state(random_state)
    first, second = n_timesteps // 10, 4 * n_timesteps // 10
    X = np.zeros((n_samples, 2, n_timesteps))
    X[:, 1] = generator.uniform(size=(n_samples, n_timesteps))
    rows = np.arange(n_samples)
    X[rows, 0, generator.randint(first, size=n_samples)] = 1
    X[rows, 0, first + generator.randint(second, size=n_samples)] = 1
    y: NDArray[np.float64] = (X[:, 0] * X[:, 1]).sum(axis=1) / 2
    return X, y
