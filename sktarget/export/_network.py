"""The network of an estimator as an ONNX model."""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sktarget._version import __version__
from sktarget.estimators.base import NetworkEstimator, SequenceNetwork
from sktarget.export._head import SUMS, Head
from sktarget.export._torch import check_exportable

if TYPE_CHECKING:
    import onnx

__all__ = ["INPUT", "OPSET", "image_row_shape", "network_model"]

# onnxruntime has long supported it; torch and skl2onnx can write it.
OPSET = 17
INPUT = "X"


class _AsGiven(nn.Module):
    """The network, but taking X in the form that the estimator takes."""

    def __init__(self, module: nn.Module, estimator: NetworkEstimator) -> None:
        super().__init__()
        self.module = module
        self.image_shape = _image_shape(estimator)
        self.is_series = _reads_series(estimator)

    def forward(self, x: torch.Tensor) -> Any:
        if self.image_shape is not None and x.ndim == 2:
            x = x.reshape(-1, *self.image_shape)
        if self.is_series and x.is_floating_point():
            x = x[..., None] if x.ndim == 2 else x.transpose(1, 2)
        return self.module(x)


def _reads_series(estimator: NetworkEstimator) -> bool:
    """Return whether X holds sequences, whatever the network is."""
    return isinstance(estimator, SequenceNetwork)


def _image_shape(estimator: NetworkEstimator) -> tuple[int, ...] | None:
    """Return the shape of a row for the network if rows are images, else None."""
    return getattr(estimator, "_images", None)


def image_row_shape(estimator: Any) -> tuple[int, ...] | None:
    """Return the shape of a row of X if that is an image with its axes, else None.

    If `image_shape` was given, images are rows of numbers.

    Parameters
    ----------
    estimator : estimator
        A fitted one, not necessarily of this package.

    Returns
    -------
    tuple of int or None
        Channels, height and width.
    """
    if getattr(estimator, "image_shape", None) is not None:
        return None
    return _image_shape(estimator)


def _example(estimator: NetworkEstimator, dtype: torch.dtype) -> torch.Tensor:
    """Make inputs that pass through the network as any others do.

    Sequences have two lengths, so that the trace handles padding.
    """
    n_features = estimator.n_features_in_
    if getattr(estimator, "_fitted_vocabulary_size", None) is not None:
        return torch.tensor([[1, 1, 1], [1, 1, 0]], device="cpu")
    if _reads_series(estimator):
        univariate = getattr(estimator, "_is_univariate", False)
        axes = (2, 3) if univariate else (2, n_features, 3)
        x = torch.zeros(axes, dtype=dtype, device="cpu")
        x[1, ..., -1] = torch.nan
        return x
    shape = image_row_shape(estimator) or (n_features,)
    return torch.zeros(2, *shape, dtype=dtype, device="cpu")


def network_model(
    estimator: NetworkEstimator, dtype: str, opset: int = OPSET
) -> onnx.ModelProto:
    """Trace the network, and append what turns its sums into predictions.

    Parameters
    ----------
    estimator : NetworkEstimator
        A fitted one.
    dtype : {"float32", "float64"}
        Arithmetic of the model.
    opset : int, default=17
        Version of the operators.

    Returns
    -------
    onnx.ModelProto
        The model, with the input ``INPUT``.
    """
    import onnx

    check_exportable(estimator)
    kind = torch.float32 if dtype == "float32" else torch.float64
    module = copy.deepcopy(estimator.module_).to(kind)
    example = _example(estimator, kind)
    served = _AsGiven(module, estimator).eval()
    axes = {INPUT: {0: "n"}, SUMS: {0: "n"}}
    if _reads_series(estimator):
        axes[INPUT][example.ndim - 1] = "time"
        if estimator._architecture["return_sequences"]:
            axes[SUMS][1] = "time"
    options: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False  # The other exporter needs further packages.
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracer warns of constants; torch, that the other exporter is the default.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            (example,),
            buffer,  # type: ignore[arg-type]  # as documented
            input_names=[INPUT],
            output_names=[SUMS],
            dynamic_axes=axes,
            opset_version=opset,
            **options,
        )
    model = onnx.load_from_string(buffer.getvalue())
    Head(model, estimator, np.dtype(dtype)).attach()
    model.producer_name, model.producer_version = "sktarget", __version__
    onnx.checker.check_model(model, full_check=True)
    return model
