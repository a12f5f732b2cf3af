"""Fitted estimators and pipelines as ONNX models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sktarget._files import replace_file
from sktarget.estimators.base import NetworkEstimator
from sktarget.export._network import network_model
from sktarget.export._skl2onnx import pipeline_model
from sktarget.export._torch import refuse_modules

if TYPE_CHECKING:
    import onnx

__all__ = ["to_onnx"]


def to_onnx(
    estimator: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    dtype: str = "float32",
) -> onnx.ModelProto:
    """Return a fitted estimator, or a pipeline with one, as an ONNX model.

    The input is called ``X`` and may have any number of rows and time steps.  The
    outputs are what the estimator predicts: ``label`` and ``probabilities`` for
    classifiers, ``predictions`` for regressors.  ``X`` has the form that the estimator
    takes, except that bytes of images are divided by 255: images are rows if
    `image_shape` was given, steps are padded with NaN or 0; outputs for padded steps
    have no meaning.  Anything but an estimator of this package is passed to skl2onnx,
    which chooses the names of the outputs itself.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator of this package, or a pipeline that skl2onnx can convert
        and that ends with one.
    path : path-like, optional
        Where to write the model; it is written completely or not at all.
    dtype : {"float32", "float64"}, default="float32"
        Arithmetic of the model, and dtype of ``X`` unless that holds token ids.
        onnxruntime runs dense networks in both, though not every release if their
        activation is the leaky rectifier, and others in float32 only.

    Returns
    -------
    onnx.ModelProto
        The model.

    Raises
    ------
    ImportError
        If the extra ``onnx`` is not installed.
    NotFittedError
        If it is not fitted.
    TypeError
        If it is a module of torch.
    ValueError
        If `dtype` is anything else, or ONNX cannot hold the labels.

    Examples
    --------
    >>> import numpy as np
    >>> from sktarget import TargetSpaceRegressor
    >>> from sktarget.export import to_onnx
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> reg = TargetSpaceRegressor((5,), tol=0.1, n_iter_no_change=5, random_state=0)
    >>> [node.op_type for node in to_onnx(reg.fit(X, X[:, 0])).graph.node]
    ['Gemm', 'LeakyRelu', 'Gemm', 'Squeeze']
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    refuse_modules(estimator)
    if isinstance(estimator, NetworkEstimator):
        model = network_model(estimator, dtype)
    else:
        model = pipeline_model(estimator, dtype)
    if path is not None:
        replace_file(path, [model.SerializeToString()])
    return model
