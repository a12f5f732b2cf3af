"""The torch core: networks that learn targets instead of weights.

Nothing here depends on scikit-learn; see :mod:`sktarget.estimators` for that.
"""

# Imported because they register their layers.
from sktarget.nn import _convolution, _linear, _recurrent  # noqa: F401
from sktarget.nn._target_space import TargetSpace

__all__ = ["TargetSpace"]
