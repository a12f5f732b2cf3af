"""Converters for skl2onnx, and pipelines converted by it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sktarget.estimators import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.estimators.base import NetworkEstimator, SequenceNetwork
from sktarget.export._head import SUMS, has_text_labels, tensor_type
from sktarget.export._network import INPUT, OPSET, image_row_shape, network_model
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["pipeline_model", "register_converters"]


# The oldest in which all that networks consist of is written as in ``OPSET``, and the
# one from which on axes of reductions are inputs.
_OLDEST_OPSET, _OPSET_OF_AXES = 14, 18
# The estimators that take tables, as the steps of a pipeline do.
_KINDS: list[type[NetworkEstimator]] = [
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
]


def register_converters() -> None:
    """Register the estimators with skl2onnx; importing ``sktarget.export`` does so.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.
    """
    from skl2onnx import update_registered_converter

    # The options of skl2onnx's classifiers that concern the nodes it appends.
    options = {
        "zipmap": [True, False, "columns"],
        "nocl": [True, False],
        "raw_scores": [True, False],
    }
    for kind in _KINDS:
        update_registered_converter(
            kind,
            f"Sktarget{kind.__name__}",
            _declare_outputs,
            _convert,
            options=options if issubclass(kind, ClassifierMixin) else None,
        )


def _declare_outputs(operator: Any) -> None:
    """Declare to skl2onnx the types and shapes of the outputs of :func:`_convert`."""
    from skl2onnx.common.data_types import (
        DoubleTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
    )

    estimator, given = operator.raw_operator, operator.inputs[0].type
    _refuse_other_columns(estimator, given.shape)
    n = given.shape[0]
    real = DoubleTensorType if isinstance(given, DoubleTensorType) else FloatTensorType
    if not is_classifier(estimator):
        # Of two axes in any case, which is what meta-estimators put together.
        operator.outputs[0].type = real([n, estimator.n_outputs_])
        return
    is_text = has_text_labels(estimator.classes_)
    multilabel = getattr(estimator, "_multilabel", False)
    shape = [n, estimator.n_outputs_] if multilabel else [n]
    operator.outputs[0].type = (StringTensorType if is_text else Int64TensorType)(shape)
    operator.outputs[1].type = real([n, len(estimator.classes_)])


def _refuse_other_columns(estimator: NetworkEstimator, shape: list[Any]) -> None:
    """Refuse inputs that lack columns, as where skl2onnx leaves some out of a step."""
    known = len(shape) == 2 and isinstance(shape[1], int)
    if known and shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"{type(estimator).__name__} was fitted with {estimator.n_features_in_} "
            f"columns, but the steps before give {shape[1]} as skl2onnx has converted "
            "them: it may ignore an option, such as add_indicator of SimpleImputer"
        )


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Insert the model of the estimator into that of a pipeline."""
    from onnx import compose, helper
    from skl2onnx.common.data_types import DoubleTensorType

    target = container.target_opset
    if target < _OLDEST_OPSET:
        raise ValueError(
            f"target_opset must be at least {_OLDEST_OPSET} for estimators of "
            f"sktarget, got {target}"
        )
    given = operator.inputs[0]
    dtype = "float64" if isinstance(given.type, DoubleTensorType) else "float32"
    prefix = scope.get_unique_operator_name("sktarget") + "_"
    opset = OPSET if target < _OPSET_OF_AXES else _OPSET_OF_AXES
    model = network_model(operator.raw_operator, dtype, opset)
    outputs = [output.name for output in model.graph.output]
    graph = compose.add_prefix(model, prefix).graph
    container.initializers.extend(graph.initializer)
    # Steps before may give integers, or truth values.
    cast = {"to": tensor_type(dtype)}
    container.add_node("Cast", [given.full_name], [prefix + INPUT], **cast)
    for node in graph.node:
        container.add_node(
            node.op_type,
            list(node.input),
            list(node.output),
            op_domain=node.domain,
            op_version=min(opset, target),
            name=node.name or scope.get_unique_operator_name(prefix + node.op_type),
            **{a.name: helper.get_attribute_value(a) for a in node.attribute},
        )
    estimator = operator.raw_operator
    if not is_classifier(estimator):
        outputs = [_add_axis(container, estimator, prefix)]
    elif _asks_for_scores(container, estimator):
        outputs[1] = _add_scores(container, estimator, prefix, np.dtype(dtype))
    for name, variable in zip(outputs, operator.outputs, strict=True):
        label = name == "label" and not has_text_labels(estimator.classes_)
        to = {"to": tensor_type(np.int64)} if label else {}
        container.add_node(
            "Cast" if label else "Identity", [prefix + name], [variable.full_name], **to
        )


def _asks_for_scores(container: Any, estimator: NetworkEstimator) -> bool:
    # skl2onnx writes to the dict of what is assumed, so it must be a new one.
    return bool(container.get_options(estimator, {"raw_scores": False})["raw_scores"])


def _add_scores(
    container: Any, estimator: NetworkEstimator, prefix: str, dtype: np.dtype[Any]
) -> str:
    """Add what ``decision_function`` returns, of two classes for either; name it.

    Meta-estimators that calibrate or stack may have been fitted on it.
    """
    if estimator.out_activation_ != "softmax" or len(estimator.classes_) != 2:
        return SUMS
    from onnx import numpy_helper

    differences = np.array([[1, -1], [-1, 1]], dtype)
    names = [prefix + SUMS, prefix + "differences"]
    container.initializers.append(numpy_helper.from_array(differences, names[1]))
    container.add_node("MatMul", names, [prefix + "scores"])
    return "scores"


def _add_axis(container: Any, estimator: NetworkEstimator, prefix: str) -> str:
    """Give predictions of a single output the axis that others have; name them."""
    from onnx import numpy_helper

    shape = np.array([-1, estimator.n_outputs_], dtype=np.int64)
    names = [prefix + "predictions", prefix + "shape"]
    container.initializers.append(numpy_helper.from_array(shape, names[1]))
    container.add_node("Reshape", names, [prefix + "columns"])
    return "columns"


def pipeline_model(estimator: Any, dtype: str) -> onnx.ModelProto:
    """Let skl2onnx convert a pipeline.

    Parameters
    ----------
    estimator : estimator
        A fitted pipeline, or anything else that skl2onnx can convert.
    dtype : {"float32", "float64"}
        Type of the input.

    Returns
    -------
    onnx.ModelProto
        The model.

    Raises
    ------
    ValueError
        If it does not begin with a table or with images.

    Warns
    -----
    UserWarning
        If ONNX finds fault with the model.
    """
    import onnx
    import skl2onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    check_is_fitted(estimator)
    kind = FloatTensorType if dtype == "float32" else DoubleTensorType
    model: onnx.ModelProto = skl2onnx.to_onnx(
        estimator,
        initial_types=[(INPUT, kind([None, *_shape_of_row(estimator)]))],
        options={"zipmap": False} if is_classifier(estimator) else None,
        target_opset=OPSET,
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        warnings.warn(
            f"the model that skl2onnx has made of {type(estimator).__name__} may not "
            f"run: {error}",
            stacklevel=3,
        )
    return model


def _shape_of_row(estimator: Any) -> tuple[int, ...]:
    """Return the shape of what a fitted pipeline takes for each row."""
    if hasattr(estimator, "regressor_"):
        raise ValueError(
            f"skl2onnx does not convert {type(estimator).__name__}: give to_onnx its "
            "regressor_, and undo the transformation of y after it"
        )
    last = estimator
    while not isinstance(last, NetworkEstimator):
        inner = getattr(last, "best_estimator_", None)
        if inner is None and isinstance(last, Pipeline):
            inner = last[-1]
        if inner is None:
            break
        last = inner
    if isinstance(last, SequenceNetwork):
        raise ValueError(
            "skl2onnx converts estimators of tables and images only: give to_onnx the "
            "estimator of sequences alone, and do before it what the pipeline does"
        )
    n_columns = getattr(estimator, "n_features_in_", None)
    if n_columns is None:
        raise ValueError(
            f"{type(estimator).__name__} does not begin with a table of numbers: "
            "convert it by skl2onnx.to_onnx, which takes initial_types"
        )
    return image_row_shape(last) or (n_columns,)
