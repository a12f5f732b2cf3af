"""Two intertwined spirals."""

from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from sktarget.datasets._validation import validated

__all__ = ["make_two_spirals"]

# The radii between which each arm grows, read off the points of Fairbank et al.
_INNER_RADIUS = 0.65
_OUTER_RADIUS = 6.5


@validated(
    {
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "n_turns": [Interval(Real, 0, None, closed="neither")],
        "midpoints": ["boolean"],
        "noise": [Interval(Real, 0, None, closed="left"), None],
        "random_state": ["random_state"],
    }
)
def make_two_spirals(
    n_samples: int = 194,
    *,
    n_turns: float = 3.0,
    midpoints: bool = False,
    noise: float | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    r"""Make two intertwined spirals, one class each.

    A small problem that is notoriously hard for a neural network [1]_. The defaults
    give the 194 training points of [2]_ (Sec. 5.1); with ``midpoints=True`` they give
    its 194 test points, which lie on the same arms, half-way between.

    Point :math:`i` of :math:`m` on the first arm is

    .. math::

        r_i (\cos \varphi_i, \sin \varphi_i), \quad
        \varphi_i = 2 \pi \, n_\text{turns} \, t_i, \quad
        r_i = 0.65 + (6.5 - 0.65) \, t_i, \quad
        t_i = \frac{i}{m - 1},

    with :math:`i + \frac{1}{2}` in place of :math:`i` for the midpoints. The second arm
    is the first one reflected in the origin. The points of the two arms alternate.

    Parameters
    ----------
    n_samples : int, default=194
        Total number of points, at least 2. If odd, the first arm has one more.

    n_turns : float, default=3.0
        Full turns that each arm makes. The radii do not depend on it, so the more
        turns, the closer they lie.

    midpoints : bool, default=False
        Whether to return the angular midpoints: the same arms, shifted by half the
        angle between neighbours. The last point of each arm then lies half a step
        beyond the end of the training points.

    noise : float, default=None
        Standard deviation of Gaussian noise added to the points.

    random_state : int, RandomState instance or None, default=None
        Determines the noise. Pass an int for reproducible output across multiple
        function calls. See :term:`Glossary <random_state>`.

    Returns
    -------
    X : ndarray of shape (n_samples, 2)
        The generated points.

    y : ndarray of shape (n_samples,)
        The arm, 0 or 1, on which each point lies.

    References
    ----------
    .. [1] K. J. Lang and M. J. Witbrock, "Learning to tell two spirals apart",
       Proceedings of the 1988 Connectionist Models Summer School, 1988.

    .. [2] M. Fairbank, S. Samothrakis and L. Citi, "Deep Learning in Target Space",
       Journal of Machine Learning Research 23, 2022.

    Examples
    --------
    >>> from sktarget.datasets import make_two_spirals
    >>> X, y = make_two_spirals()
    >>> X.shape, y.shape
    ((194, 2), (194,))
    >>> X[:4].round(3).tolist()
    [[0.65, 0.0], [-0.65, -0.0], [0.697, 0.139], [-0.697, -0.139]]
    >>> y[:4].tolist()
    [0, 1, 0, 1]
    >>> X_test, y_test = make_two_spirals(midpoints=True)
    >>> X_test[:2].round(3).tolist()
    [[0.677, 0.067], [-0.677, -0.067]]
    """
    row = np.arange(n_samples)
    position, y = np.divmod(row, 2)
    steps = max((n_samples - 1) // 2, 1)  # A single point on each arm has no step.
    along = (position + 0.5 * midpoints) / steps

    angle = 2.0 * np.pi * n_turns * along
    radius = _INNER_RADIUS + (_OUTER_RADIUS - _INNER_RADIUS) * along
    signed_radius = np.where(y == 0, radius, -radius)
    X = signed_radius[:, np.newaxis] * np.column_stack([np.cos(angle), np.sin(angle)])

    if noise is not None:
        generator = check_random_state(random_state)
        X += generator.normal(scale=noise, size=X.shape)
    return X, y.astype(np.int64)
