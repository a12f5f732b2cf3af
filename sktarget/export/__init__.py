"""Fitted estimators as PyTorch modules and as ONNX models.

Models compute what the estimator predicts, modules what its network gives before any
softmax or exponential.  Both run without this package, except for modules that
:func:`to_torch` copies as they are.  ONNX needs the extra ``onnx``;
importing this module registers the estimators with skl2onnx, so that its own
``to_onnx`` converts pipelines with them.
"""

import contextlib

from sktarget.export._onnx import to_onnx
from sktarget.export._skl2onnx import register_converters
from sktarget.export._torch import to_torch

__all__ = ["register_converters", "to_onnx", "to_torch"]

# Without the extra there is nothing to register; to_torch works without it.
with contextlib.suppress(ImportError):
    register_converters()
