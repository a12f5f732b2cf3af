"""What networks in target space are made of, for other rooms.

Unlike :class:`~sktarget.nn.TargetSpace` this may change from one version to the next.
"""

from sktarget.nn._cells import cell_of
from sktarget.nn._copying import copy_with
from sktarget.nn._direction import is_recurrent
from sktarget.nn._ordinary import ordinary_weights
from sktarget.nn._replacement import replace_layer

__all__ = [
    "cell_of",
    "copy_with",
    "is_recurrent",
    "ordinary_weights",
    "replace_layer",
]
