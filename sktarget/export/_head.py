"""From the sums of a network to labels, probabilities or predictions, in ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators.base import NetworkEstimator

if TYPE_CHECKING:
    import onnx

__all__ = ["SUMS", "Head", "has_text_labels", "tensor_type"]

Array = NDArray[Any]

SUMS = "sums"


class Head:
    """Turns sums into predictions, in a model whose only output is the sums.

    Parameters
    ----------
    model : onnx.ModelProto
        The model, changed in place.
    estimator : NetworkEstimator
        Determines what the sums stand for.
    dtype : numpy.dtype
        Arithmetic of the model.
    """

    def __init__(
        self, model: onnx.ModelProto, estimator: NetworkEstimator, dtype: np.dtype[Any]
    ) -> None:
        self.graph, self.estimator, self.dtype = model.graph, estimator, dtype

    def attach(self) -> None:
        """Add the nodes, and make their results the outputs."""
        dims = [
            d.dim_param or d.dim_value
            for d in self.graph.output[0].type.tensor_type.shape.dim
        ]
        del self.graph.output[:]
        activation = self.estimator.out_activation_
        if activation in ("identity", "exp"):
            self._predictions(dims, activation)
        elif activation == "softmax":
            self._node("Softmax", [SUMS], "probabilities", axis=-1)
            self._output("probabilities", self.dtype, dims)
            self._node("ArgMax", [SUMS], "index", axis=-1, keepdims=0)
            self._labels(dims[:-1])
        else:
            self._logistic(dims)

    def _predictions(self, dims: list[Any], activation: str) -> None:
        numbers = SUMS
        if activation == "exp":
            numbers = "numbers"
            self._node("Exp", [SUMS], numbers)
        if getattr(self.estimator, "_y_is_1d", False):
            axis = self._constant("last_axis", np.array([-1]))
            self._node("Squeeze", [numbers, axis], "predictions")
            dims = dims[:-1]
        elif len(dims) == 3:  # Outputs come before time, as channels do.
            self._node("Transpose", [numbers], "predictions", perm=[0, 2, 1])
            dims = [dims[0], dims[2], dims[1]]
        else:
            self._node("Identity", [numbers], "predictions")
        self._output("predictions", self.dtype, dims)

    def _logistic(self, dims: list[Any]) -> None:
        zero = self._constant("zero", np.zeros(1, self.dtype))
        self._node("Greater", [SUMS, zero], "is_positive")
        self._node("Cast", ["is_positive"], "positive", to=tensor_type(np.int64))
        self._node("Sigmoid", [SUMS], "probabilities")
        self._output("probabilities", self.dtype, dims)
        self._node("Identity", ["positive"], "label")
        self._output("label", np.dtype(np.int64), dims, first=True)

    def _labels(self, dims: list[Any]) -> None:
        """Look up the labels by their indices."""
        classes = self.estimator.classes_
        if has_text_labels(classes):
            if not all(isinstance(label, str) for label in classes.tolist()):
                raise _unknown_labels(classes)
            classes = classes.astype(object)
        elif classes.dtype.kind in "iu":
            if classes[-1] > np.iinfo(np.int64).max:
                raise _unknown_labels(classes)
            classes = classes.astype(np.int64)
        elif classes.dtype.kind not in "bf":
            raise _unknown_labels(classes)
        table = self._constant("classes", classes)
        self._node("Gather", [table, "index"], "label")
        self._output("label", classes.dtype, dims, first=True)

    def _node(self, kind: str, inputs: list[str], output: str, **options: Any) -> None:
        from onnx import helper

        self.graph.node.append(helper.make_node(kind, inputs, [output], **options))

    def _constant(self, name: str, value: Array) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _output(
        self, name: str, dtype: np.dtype[Any], dims: list[Any], *, first: bool = False
    ) -> None:
        from onnx import helper

        info = helper.make_tensor_value_info(name, tensor_type(dtype), dims)
        self.graph.output.insert(0 if first else len(self.graph.output), info)


def has_text_labels(classes: Array) -> bool:
    """Return whether labels are text; those of dtype object count as text.

    Parameters
    ----------
    classes : ndarray
        The labels.

    Returns
    -------
    bool
        Whether ONNX is to hold them as strings.

    Examples
    --------
    >>> has_text_labels(np.array(["a", "b"], dtype=object))
    True
    """
    return classes.dtype.kind in "USO"


def _unknown_labels(classes: Array) -> ValueError:
    return ValueError(
        f"ONNX cannot hold the labels {classes.tolist()}: use strings, integers below "
        "2**63, floats or booleans"
    )


def tensor_type(dtype: Any) -> int:
    """Translate a NumPy dtype into ONNX's number for it; objects count as strings.

    Parameters
    ----------
    dtype : dtype-like
        A NumPy dtype.

    Returns
    -------
    int
        A ``TensorProto.DataType``.
    """
    from onnx import TensorProto, helper

    dtype = np.dtype(dtype)
    if dtype.hasobject:
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(dtype))
