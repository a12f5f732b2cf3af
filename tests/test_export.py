"""Exported models predict what the estimators predict."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skl2onnx
import torch
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from torch import Tensor, nn

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
    TargetSpaceSequenceRegressor,
)
from sktarget.architectures import DenseNetwork
from sktarget.estimators.base import NetworkEstimator
from sktarget.export import to_onnx, to_torch
from sktarget.persistence import load, save
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
    RegularizedInversionSequenceClassifier,
    RegularizedInversionSequenceRegressor,
)
from tests.estimators.image_support import digits
from tests.estimators.support import (
    ALL_EPOCHS,
    Array,
    class_data,
    curve_data,
    fit_quietly,
    for_both,
    label_data,
    problem,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (6, 5),
    "activation": "tanh",
    "max_iter": 20,
    "random_state": 0,
    **ALL_EPOCHS,
}
ARCHITECTURES: list[dict[str, Any]] = [
    *({"activation": a} for a in ("identity", "logistic", "tanh", "relu")),
    {"activation": "leaky_relu", "shortcuts": True, "dropout": 0.2},
    {"parameterization": "weights", "batch_norm": True, "dropout": 0.2},
    {"parameterization": "weights", "batch_norm": True, "shortcuts": True},
    {"hidden_layer_sizes": ()},
]
for_architectures = pytest.mark.parametrize(
    "settings", ARCHITECTURES, ids=lambda s: ",".join(map(str, s.values()))
)


def residual(n_features: int, n_outputs: int) -> nn.Module:
    return Residual(n_features, n_outputs)


class Residual(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(n_features, n_features)
        self.out = nn.Linear(n_features, n_outputs)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(x + torch.tanh(self.inner(x)))


def run(model: onnx.ModelProto, X: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    (given,) = session.get_inputs()
    return dict(zip(names, session.run(None, {given.name: X}), strict=True))


def assert_predicts(model: onnx.ModelProto, estimator: Any, X: Array) -> None:
    """Compare the outputs, for several rows and for one."""
    tolerance = 1e-10 if X.dtype == np.float64 else 2e-5
    for rows in (X, X[:1], X[:7]):
        label, *probabilities = run(model, rows).values()
        expected = estimator.predict(rows)
        if not probabilities and not isinstance(estimator, NetworkEstimator):
            expected = expected.reshape(len(rows), -1)  # as skl2onnx has it
        assert label.shape == expected.shape
        if probabilities:
            np.testing.assert_array_equal(label, expected)
            wanted = estimator.predict_proba(rows)
            np.testing.assert_allclose(*probabilities, wanted, rtol=0, atol=tolerance)
        else:
            np.testing.assert_allclose(label, expected, rtol=0, atol=tolerance)


# --- ONNX -----------------------------------------------------------------------------


@for_both
@for_architectures
def test_onnx_predicts_the_same(kind: type, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    # onnxruntime has the leaky rectifier in single precision only.
    for dtype in ("float32", "float64")[: 2 - ("leaky_relu" in settings.values())]:
        X = X.astype(dtype)
        estimator = fit_quietly(kind(**(SMALL | settings)), X, y)
        model = to_onnx(estimator, dtype=dtype)
        assert [i.name for i in model.graph.input] == ["X"]
        names = [o.name for o in model.graph.output]
        assert names in (["label", "probabilities"], ["predictions"])
        assert_predicts(model, estimator, X)


def test_onnx_of_doubles_in_single_precision() -> None:
    X, y = class_data(3)
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    before = estimator.predict_proba(X)
    assert_predicts(to_onnx(estimator), estimator, X.astype("f4"))
    np.testing.assert_array_equal(estimator.predict_proba(X), before)
    assert estimator.module_.layers[0].weight.dtype == torch.float64


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "maybe", "yes"],
        np.array(["no", "maybe", "yes"], dtype=object),
        [-7, 0, 300],
        np.array([1, 2, 3], dtype=np.uint8),
        [0.0, 1.0, 2.0],
        [False, True],
    ],
    ids=["str", "object", "int", "uint8", "float", "bool"],
)
def test_onnx_labels(labels: Any) -> None:
    X, y = class_data(len(labels))
    X = X.astype("f4")
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, np.asarray(labels)[y])
    assert_predicts(to_onnx(estimator), estimator, X)


def test_labels_that_onnx_cannot_hold() -> None:
    X, y = class_data()
    large = y.astype(np.uint64) + np.uint64(2**63)
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, large)
    with pytest.raises(ValueError, match=r"cannot hold the labels .* below 2\*\*63"):
        to_onnx(estimator)


def test_onnx_of_several_outputs() -> None:
    X, Y = label_data()
    X = X.astype("f4")
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, Y)
    assert_predicts(to_onnx(estimator), estimator, X)
    X, Y = curve_data(3)
    X = X.astype("f4")
    regressor = fit_quietly(TargetSpaceRegressor(**SMALL), X, Y)
    assert_predicts(to_onnx(regressor), regressor, X)


@for_both
def test_onnx_of_own_module(kind: type) -> None:
    X, y = problem(kind)
    X = X.astype("f4")
    estimator = fit_quietly(kind(**SMALL, module=residual), X, y)
    assert_predicts(to_onnx(estimator), estimator, X)


@pytest.mark.usefixtures("global_state_untouched")
def test_onnx_file_and_its_errors(tmp_path: Path) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(**SMALL)
    with pytest.raises(NotFittedError):
        to_onnx(estimator)
    fit_quietly(estimator, X, y)
    filters = list(warnings.filters)
    model = to_onnx(estimator, tmp_path / "model.onnx")
    assert list(warnings.filters) == filters
    assert onnx.load(tmp_path / "model.onnx") == model
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64'"):
        to_onnx(estimator, dtype="float16")
    with pytest.raises(OSError, match="absent"):
        to_onnx(estimator, tmp_path / "absent" / "model.onnx")


# --- pipelines ------------------------------------------------------------------------


@for_both
@pytest.mark.parametrize("settings", [{}, {"shortcuts": True}, {"module": residual}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pipelines_convert(kind: type, settings: dict[str, Any], dtype: str) -> None:
    X, y = problem(kind)
    X = (3 * X + 2).astype(dtype)
    pipeline = make_pipeline(StandardScaler(), kind(**(SMALL | settings)))
    fit_quietly(pipeline, X, y)
    assert_predicts(to_onnx(pipeline, dtype=dtype), pipeline, X)


def test_skl2onnx_knows_the_estimators() -> None:
    X, y = class_data(3)
    X = X.astype("f4")
    names = np.array(["a", "b", "c"])[y]
    pipeline = make_pipeline(StandardScaler(), TargetSpaceClassifier(**SMALL))
    fit_quietly(pipeline, X, names)
    model = skl2onnx.to_onnx(pipeline, X[:1], options={"zipmap": False})
    assert_predicts(model, pipeline, X)
    as_dicts = run(skl2onnx.to_onnx(pipeline, X[:1]), X)["output_probability"]
    assert set(as_dicts[0]) == {"a", "b", "c"}
    # Two networks in one model do not get in each other's way.
    from sklearn.ensemble import VotingClassifier

    members = [
        ("a", TargetSpaceClassifier(**SMALL)),
        ("b", TargetSpaceClassifier(**(SMALL | {"random_state": 1}))),
        ("c", LogisticRegression()),
    ]
    vote = fit_quietly(
        VotingClassifier(members, voting="soft", flatten_transform=False), X, y
    )
    assert_predicts(to_onnx(vote), vote, X)


@pytest.mark.parametrize(
    "kind",
    [
        DifferenceTargetPropagationClassifier,
        DifferenceTargetPropagationRegressor,
        RegularizedInversionClassifier,
        RegularizedInversionRegressor,
    ],
)
def test_sister_estimators_convert(kind: Any, tmp_path: Path) -> None:
    X, y = class_data()
    X = X.astype("f4")
    pipeline = make_pipeline(StandardScaler(), kind(max_iter=3, random_state=0))
    fit_quietly(pipeline, X, y)
    assert_predicts(to_onnx(pipeline), pipeline, X)
    X = pipeline[0].transform(X)
    assert_predicts(to_onnx(pipeline[-1]), pipeline[-1], X)
    save(pipeline[-1], tmp_path / "model")
    found = load(tmp_path / "model").predict(X)
    np.testing.assert_array_equal(found, pipeline[-1].predict(X))


@pytest.mark.parametrize(
    "kind",
    [RegularizedInversionSequenceClassifier, RegularizedInversionSequenceRegressor],
)
def test_inverted_sequences_convert(kind: Any, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2, 7)).astype("f4")
    y = X[:, 0].sum(axis=1) > 0
    estimator = kind((5,), random_state=0, max_iter=3)
    assert_predicts(to_onnx(fit_quietly(estimator, X, y)), estimator, X)
    save(estimator, tmp_path / "model")
    found = load(tmp_path / "model").predict(X)
    np.testing.assert_array_equal(found, estimator.predict(X))


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_regressors_have_an_axis_of_outputs_in_skl2onnx(n_outputs: int) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    y = X[:, 0] if n_outputs == 1 else X[:, :2]
    pipeline = make_pipeline(StandardScaler(), TargetSpaceRegressor(**SMALL))
    fit_quietly(pipeline, X, y)
    (found,) = run(to_onnx(pipeline), X).values()
    assert found.shape == (100, n_outputs)
    np.testing.assert_allclose(
        found.reshape(y.shape), pipeline.predict(X), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "kind", [TargetSpaceRegressor, DifferenceTargetPropagationRegressor]
)
def test_regressors_are_stacked(kind: Any) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    members = [("a", kind(max_iter=5, random_state=0)), ("b", Ridge())]
    stack = fit_quietly(StackingRegressor(members, cv=2), X, X[:, 0])
    (found,) = run(to_onnx(stack), X).values()
    np.testing.assert_allclose(found[:, 0], stack.predict(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
@pytest.mark.parametrize("transmission", ["identity", "sign", "bernoulli"])
@pytest.mark.parametrize("target_opset", [17, 18, None])
def test_discrete_units_convert_to_several_opsets(
    kind: str, transmission: str, target_opset: int | None
) -> None:
    X, y = class_data(3)
    X = X.astype("f4")
    kinds: dict[str, Any] = {
        "classifier": DifferenceTargetPropagationClassifier,
        "regressor": DifferenceTargetPropagationRegressor,
    }
    estimator = kinds[kind](
        (5, 5), transmission=transmission, max_iter=3, random_state=0
    )
    fit_quietly(estimator, X, y)
    options = {"zipmap": False} if kind == "classifier" else None
    model = skl2onnx.to_onnx(
        make_pipeline(estimator), X[:1], options=options, target_opset=target_opset
    )
    assert_predicts(model, make_pipeline(estimator), X)


@pytest.mark.parametrize("kind", [TargetSpaceClassifier, TargetSpaceRegressor])
@pytest.mark.parametrize("dtype", [np.int64, np.float64, bool])
def test_integers_are_turned_into_numbers(kind: Any, dtype: Any) -> None:
    X = np.random.default_rng(0).integers(0, 2, size=(60, 3)).astype(dtype)
    y = X.sum(axis=1) > 1
    estimator = fit_quietly(kind(**SMALL), X, y)
    options = {"zipmap": False} if is_classifier(estimator) else None
    model = skl2onnx.to_onnx(make_pipeline(estimator), X[:1], options=options)
    label, *probabilities = run(model, X).values()
    if probabilities:
        np.testing.assert_array_equal(label, estimator.predict(X))
        wanted = estimator.predict_proba(X)
        np.testing.assert_allclose(*probabilities, wanted, rtol=0, atol=1e-5)
    else:
        np.testing.assert_allclose(label[:, 0], estimator.predict(X), atol=1e-5)


def test_codes_of_categories_may_be_integers() -> None:
    X = np.random.default_rng(0).integers(0, 5, size=(60, 3)).astype("f4")
    pipeline = make_pipeline(OrdinalEncoder(dtype=int), TargetSpaceRegressor(**SMALL))
    fit_quietly(pipeline, X, X[:, 0] + X[:, 1])
    assert_predicts(to_onnx(pipeline), pipeline, X)


def test_pipelines_that_begin_with_texts_are_for_skl2onnx() -> None:
    texts = ["to be", "or not", "to be", "or"] * 10
    pipeline = make_pipeline(TfidfVectorizer(), TargetSpaceClassifier(**SMALL))
    fit_quietly(pipeline, texts, [0, 1, 0, 1] * 10)
    with pytest.raises(ValueError, match=r"table of numbers.*initial_types"):
        to_onnx(pipeline)


@pytest.mark.parametrize("target_opset", [14, 15, 17, 19])
@pytest.mark.parametrize("which", ["dense", "batch norm", "shortcuts", "images"])
def test_pipelines_convert_to_several_opsets(which: str, target_opset: int) -> None:
    X, y = class_data(3)
    settings: dict[str, Any] = {
        "dense": {},
        "batch norm": {"parameterization": "weights", "batch_norm": True},
        "shortcuts": {"shortcuts": True, "activation": "leaky_relu"},
        "images": {"conv_layers": [(3, 2, 2)], "image_shape": (1, 8, 8)},
    }[which]
    if which == "images":
        X, y = digits(60)
        X = X.reshape(60, -1) / 255
    X = X.astype("f4")
    pipeline = make_pipeline(
        StandardScaler(), TargetSpaceClassifier(**(SMALL | settings))
    )
    fit_quietly(pipeline, X, y)
    options = {"zipmap": False}
    model = skl2onnx.to_onnx(
        pipeline, X[:1], options=options, target_opset=target_opset
    )
    assert_predicts(model, pipeline, X)


def test_older_opsets_are_refused() -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    with pytest.raises(ValueError, match="target_opset must be at least 14"):
        skl2onnx.to_onnx(estimator, X[:1].astype("f4"), target_opset=13)


def test_pipelines_of_images_convert() -> None:
    X, y = digits(60)
    X = (X / 255).astype(np.float32)
    kind = TargetSpaceClassifier((5,), conv_layers=[(3, 2, 2)], max_iter=2)
    pipeline = fit_quietly(make_pipeline(kind), X, y)
    assert_predicts(to_onnx(pipeline), pipeline, X)
    search = GridSearchCV(kind, {"alpha": [1e-4]}, cv=2)
    assert_predicts(to_onnx(fit_quietly(search, X, y)), search, X)


def test_pipelines_of_sequences_are_refused() -> None:
    X, y = series()
    kind = TargetSpaceSequenceClassifier(recurrent_layer_sizes=(3,), max_iter=2)
    with pytest.raises(ValueError, match="give to_onnx the estimator of sequences alo"):
        to_onnx(fit_quietly(make_pipeline(kind), X, y))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_composites_fitted_on_decisions(n_classes: int) -> None:
    X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    y = np.digitize(X[:, 0], [0.0, 0.5][: n_classes - 1])
    inner = TargetSpaceClassifier(**SMALL)
    pipeline = fit_quietly(make_pipeline(StandardScaler(), inner), X, y)
    composites = [CalibratedClassifierCV(inner, cv=2)]
    if n_classes > 2:  # skl2onnx stacks no single columns.
        composites.append(
            StackingClassifier([("a", inner)], stack_method="decision_function", cv=2)
        )
    for composite in composites:
        fit_quietly(composite, X, y)
        assert_predicts(to_onnx(composite), composite, X)
        # Whoever is converted after them still gives probabilities.
        assert_predicts(to_onnx(pipeline), pipeline, X)


# --- PyTorch --------------------------------------------------------------------------


@for_both
@for_architectures
def test_torch_module_gives_the_sums(kind: type, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**(SMALL | settings)), X, y)
    module = to_torch(estimator)
    assert not module.training
    with torch.no_grad():
        sums = module(torch.from_numpy(X))
        torch.testing.assert_close(sums, estimator.module_(torch.from_numpy(X)))
        if kind is TargetSpaceClassifier:
            probabilities = torch.softmax(sums, 1).numpy()
            np.testing.assert_allclose(probabilities, estimator.predict_proba(X))
        # It shares nothing with the estimator.
        before = estimator.predict(X)
        for p in module.parameters():
            p.zero_()
    np.testing.assert_array_equal(estimator.predict(X), before)
    origins = {type(m).__module__.split(".")[0] for m in module.modules()}
    assert origins == {"torch"}


@pytest.mark.parametrize("shortcuts", [False, True])
def test_torch_module_needs_nothing_of_the_package(
    shortcuts: bool, tmp_path: Path
) -> None:
    X, y = class_data()
    settings = SMALL | {"shortcuts": shortcuts, "dropout": 0.2, "activation": "tanh"}
    estimator = fit_quietly(TargetSpaceClassifier(**settings), X, y)
    torch.save(to_torch(estimator), tmp_path / "module.pt")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, numpy as np, torch\n"
        "sys.modules['sktarget'] = None\n"
        "module = torch.load('module.pt', weights_only=False)\n"
        "sums = module(torch.from_numpy(np.load('X.npy')))\n"
        "np.save('found.npy', sums.argmax(1).numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_array_equal(found, estimator.predict(X))


@pytest.mark.parametrize("transmission", ["identity", "sign", "bernoulli"])
def test_torch_module_transmits_what_units_do(transmission: str) -> None:
    X, y = class_data()
    activation = "tanh" if transmission == "sign" else "logistic"
    settings = SMALL | {"activation": activation, "transmission": transmission}
    estimator = fit_quietly(DifferenceTargetPropagationClassifier(**settings), X, y)
    module = to_torch(estimator)
    with torch.no_grad():
        probabilities = torch.softmax(module(torch.from_numpy(X)), 1).numpy()
    np.testing.assert_allclose(probabilities, estimator.predict_proba(X))
    origins = {type(m).__module__.split(".")[0] for m in module.modules()}
    # The mean over many samples is no trace of PyTorch's own.
    assert ("sktarget" in origins) == (transmission == "bernoulli")


def test_torch_module_of_own_module_is_a_copy() -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL, module=residual), X, y)
    module = to_torch(estimator)
    assert type(module) is Residual
    assert module is not estimator.module_
    for other in (LogisticRegression(), None):
        with pytest.raises(TypeError, match="an estimator of sktarget is needed"):
            to_torch(other)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError):
        to_torch(TargetSpaceClassifier())


@pytest.mark.parametrize("export", [to_torch, to_onnx])
def test_modules_are_exported_by_torch(export: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"got the module Linear: .* torch\.onnx"):
        export(nn.Linear(2, 3))


# --- images and sequences -------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_onnx_of_images(flat: bool, own: bool) -> None:
    X = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype("f4")
    y = (X.mean((1, 2, 3)) > 0).astype(int)
    settings: dict[str, Any] = {"conv_layers": [(3, 4, 2), (2, 3, None)]}
    if own:
        settings = {"module": convolution}
    if flat:
        X = X.reshape(40, 64)
        settings["image_shape"] = (1, 8, 8)
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL, **settings), X, y)
    assert_predicts(to_onnx(estimator), estimator, X)


def convolution(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(n_outputs)
    )


def series() -> tuple[Array, Array]:
    X = np.random.default_rng(0).normal(size=(40, 3, 9)).astype("f4")
    return X, (X[:, 0].sum(1) > 0).astype(int)


def padded(X: Array, filler: Any = np.nan) -> Array:
    X = X.copy()
    X[::3, ..., 6:] = filler
    X[::4, ..., 2:] = filler
    return X


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_onnx_of_series(cell: str, bidirectional: bool) -> None:
    X, y = series()
    estimator = TargetSpaceSequenceClassifier(
        **SMALL,
        cell=cell,
        bidirectional=bidirectional,
        recurrent_layer_sizes=(5, 4),
    )
    model = to_onnx(fit_quietly(estimator, X, y))
    # The number of time steps is free, and padding counts as in the estimator.
    for rows in (X, padded(X), X[..., :5], padded(X)[..., :8]):
        assert_predicts(model, estimator, rows)


def test_onnx_of_univariate_series() -> None:
    X, y = series()
    estimator = TargetSpaceSequenceClassifier(**SMALL, recurrent_layer_sizes=(5,))
    fit_quietly(estimator, X[:, 0], y)
    assert_predicts(to_onnx(estimator), estimator, padded(X[:, 0]))


class Recurrent(nn.Module):
    """A network of the user's own for series."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(n_inputs, 6, batch_first=True)
        self.out = nn.Linear(6, n_outputs)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(self.rnn(x)[0][:, -1])


def test_onnx_of_a_recurrent_module_of_the_users_own() -> None:
    X, y = series()
    estimator = TargetSpaceSequenceClassifier(**SMALL, module=Recurrent)
    model = to_onnx(fit_quietly(estimator, X, y))
    for rows in (X, X[..., :5]):
        assert_predicts(model, estimator, rows)


def test_onnx_of_tokens() -> None:
    X = np.random.default_rng(0).integers(1, 20, (40, 9))
    y = np.array(["no", "maybe", "yes"])[X[:, 0] % 3]
    estimator = TargetSpaceSequenceClassifier(
        **SMALL,
        cell="lstm",
        vocabulary_size=20,
        embedding_dim=4,
        recurrent_layer_sizes=(5,),
    )
    model = to_onnx(fit_quietly(estimator, padded(X, 0), y))
    for rows in (X, padded(X, 0), X[:, :4]):
        assert_predicts(model, estimator, rows)


class OfTokens(nn.Module):
    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.recurrent = nn.RNN(4, 6, batch_first=True)
        self.out = nn.Linear(6, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if x.is_floating_point() else self.embedding(x)
        out: torch.Tensor = self.out(self.recurrent(x)[0][:, -1])
        return out


def test_onnx_of_a_module_of_tokens() -> None:
    X = np.random.default_rng(0).integers(1, 9, (40, 6))
    estimator = TargetSpaceSequenceClassifier(
        **SMALL, module=OfTokens, vocabulary_size=9, embedding_dim=4
    )
    model = to_onnx(fit_quietly(estimator, X, X[:, 0] % 2))
    for rows in (X, X[:, :4]):
        assert_predicts(model, estimator, rows)


def test_onnx_of_labels_at_every_step() -> None:
    X, _ = series()
    y = (np.cumsum(X[:, 0], axis=1) > 0).astype(int)
    estimator = TargetSpaceSequenceClassifier(
        **SMALL, cell="gru", return_sequences=True, recurrent_layer_sizes=(5,)
    )
    model = to_onnx(fit_quietly(estimator, X, y))
    assert_predicts(model, estimator, X[..., :5])
    rows = padded(X)
    label, probabilities = run(model, rows).values()
    wanted = estimator.predict_proba(rows)
    steps = ~np.isnan(wanted[..., 0])
    np.testing.assert_allclose(probabilities[steps], wanted[steps], atol=2e-5)
    np.testing.assert_array_equal(label[steps], estimator.predict(rows)[steps])


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("per_step", [False, True])
def test_onnx_of_numbers(per_step: bool, outputs: int) -> None:
    X, _ = series()
    y = X[:, :outputs].cumsum(axis=2) if per_step else X[:, :outputs].mean(axis=2)
    estimator = TargetSpaceSequenceRegressor(
        **SMALL, cell="lstm", return_sequences=per_step, recurrent_layer_sizes=(5,)
    )
    model = to_onnx(fit_quietly(estimator, X, y if outputs > 1 else y[:, 0]))
    for rows in (X, X[..., :5]):
        assert_predicts(model, estimator, rows)
    (found,) = run(model, padded(X)).values()
    wanted = estimator.predict(padded(X))
    steps = ~np.isnan(wanted)
    np.testing.assert_allclose(found[steps], wanted[steps], rtol=0, atol=2e-5)


class Centred(DenseNetwork):
    """A dense network that does more than its layers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / 10)


def test_networks_of_classes_of_the_users_are_copied_to_torch() -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(
        module=lambda n, k: Centred(n, (4,), k, "tanh"), max_iter=3, random_state=0
    )
    module = to_torch(fit_quietly(estimator, X, y))
    found = module(torch.as_tensor(X)).softmax(1).detach()
    np.testing.assert_allclose(found, estimator.predict_proba(X), rtol=1e-6)


def test_recurrent_networks_are_copied_to_torch() -> None:
    X, y = series()
    estimator = TargetSpaceSequenceClassifier(
        **SMALL, recurrent_layer_sizes=(5,), dropout=0.2
    )
    module = to_torch(fit_quietly(estimator, X, y))
    with torch.no_grad():
        sums = module(torch.from_numpy(padded(X).transpose(0, 2, 1).copy()))
    wanted = estimator.predict_proba(padded(X))
    found = torch.softmax(sums, 1) if sums.shape[1] > 1 else torch.sigmoid(sums)
    np.testing.assert_allclose(found[:, -1], wanted[:, -1], atol=1e-6)


def test_steps_that_skl2onnx_leaves_out_are_missed() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3)).astype("f4")
    y = X[:, 0].copy()
    X[::4, 1] = np.nan
    pipeline = make_pipeline(
        SimpleImputer(add_indicator=True), TargetSpaceRegressor(**SMALL)
    )
    fit_quietly(pipeline, X, y)
    with pytest.raises(ValueError, match=r"fitted with 4 columns.*give 3.*indicator"):
        to_onnx(pipeline)


def test_transformed_targets_are_undone_by_hand() -> None:
    X, y = curve_data()
    model = TransformedTargetRegressor(
        TargetSpaceRegressor(**SMALL), func=np.exp, inverse_func=np.log
    )
    fit_quietly(model, X, y)
    with pytest.raises(ValueError, match="give to_onnx its regressor_"):
        to_onnx(model)
    to_onnx(model.regressor_)
