"""The torch core: networks that learn targets instead of weights.

Nothing here knows scikit-learn; see :mod:`sktarget.estimators` for that.
"""

from sktarget.nn import _convolution, _linear  # noqa: F401  (register their layers)
from sktarget.nn._target_space import TargetSpace

__all__ = ["TargetSpace"]
