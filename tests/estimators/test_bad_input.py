"""What bad input gets: an error that names the culprit, and nothing is changed."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.estimators._device import resolve_device
from tests.estimators.support import (
    Array,
    NoTraining,
    class_data,
    curve_data,
    fit_quietly,
    for_both,
    label_data,
    problem,
)

SMALL: dict[str, Any] = {"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 5}


def state(estimator: Any) -> dict[str, Any]:
    """Take a copy of the attributes that can be compared."""
    return {
        name: [a.copy() for a in value] if name == "targets_" else value
        for name, value in vars(estimator).items()
        if not name.startswith("_")
    }


def assert_refused(
    estimator: Any,
    X: Any,
    y: Any,
    match: str,
    error: Any = ValueError,
    method: str = "fit",
    **kwargs: Any,
) -> None:
    """Assert that a method fails before training and leaves all as it was."""
    if method == "fit" and estimator.callbacks is None:
        estimator.set_params(callbacks=[NoTraining()])
    before = state(estimator)
    fitted = hasattr(estimator, "n_features_in_")
    rows = (
        np.random.default_rng(0).normal(size=(9, estimator.n_features_in_))
        if (fitted)
        else None
    )
    predicted = estimator.predict(rows) if fitted else None
    with pytest.raises(error, match=match):
        getattr(estimator, method)(X, y, **kwargs)
    after = state(estimator)
    assert after.keys() == before.keys()
    for name, value in before.items():
        if name == "targets_":
            assert all(map(np.array_equal, after[name], value))
        else:
            assert after[name] is value, name
    if fitted:
        np.testing.assert_array_equal(estimator.predict(rows), predicted)


def _returns_number(n_features: int, n_outputs: int) -> Any:
    return 3


def _too_many_outputs(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Linear(n_features, n_outputs + 1)


def _wants_other_inputs(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Linear(n_features + 1, n_outputs)


class _GivesTwo(nn.Linear):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


def _gives_two(n_features: int, n_outputs: int) -> nn.Module:
    return _GivesTwo(n_features, n_outputs)


def _no_weights(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool1d(n_outputs), nn.Flatten())


# Parameter, value, what the message must say.
PARAMETERS: list[tuple[str, Any, str]] = [
    ("lam", -1.0, r"'lam'.*'auto'.*\[0.0, inf\).*Got -1.0"),
    ("lam", np.nan, "'lam'.*Got nan"),
    ("lam", np.inf, "'lam'.*Got inf"),
    ("lam", "large", "'lam'.*'auto'.*Got 'large'"),
    ("lam", [1.0, -1.0, 1.0], r"lam.*at least 0.*\[1.0, -1.0, 1.0\]"),
    ("lam", ["a", "b"], "lam.*give one number, or one for each"),
    ("lam", [], "lam gives 0 values"),
    ("fixed_batch_size", 0, r"'fixed_batch_size'.*\[1, inf\).*Got 0"),
    ("fixed_batch_size", -3, "'fixed_batch_size'.*Got -3"),
    ("fixed_batch_size", 2.5, "'fixed_batch_size'.*Got 2.5"),
    ("fixed_batch_size", 91, "fixed_batch_size=91.*90.*None.*noise"),
    ("fixed_batch", "middle", "'fixed_batch'.*'(sample|noise)'.*Got 'middle'"),
    ("fixed_batch", np.zeros((3, 7)), r"fixed_batch.*\(3, 7\).*row of X"),
    ("fixed_batch", np.zeros(4), "fixed_batch"),
    ("fixed_batch", np.zeros((3, 4, 1)), r"fixed_batch.*\(3, 4, 1\)"),
    ("fixed_batch", np.full((3, 4), np.nan), "fixed_batch.*NaN"),
    ("fixed_batch", np.full((3, 4), np.inf), "fixed_batch.*infinity"),
    ("fixed_batch", np.zeros((0, 4)), "fixed_batch"),
    ("fixed_batch", [["a"] * 4], "fixed_batch"),
    ("activation", "sine", "'activation'.*'tanh'.*Got 'sine'"),
    ("untangling", "both", "'untangling'.*'ocu'.*Got 'both'"),
    ("target_init", "zeros", "'target_init'.*'normal'.*Got 'zeros'"),
    ("target_scale", 0.0, "'target_scale'.*Got 0.0"),
    ("project_targets", "yes", "'project_targets'.*Got 'yes'"),
    ("parameterization", "both", "'parameterization'.*'weights'.*Got 'both'"),
    ("hidden_layer_sizes", 0, "'hidden_layer_sizes'.*Got 0"),
    ("hidden_layer_sizes", (5, 0), r"hidden_layer_sizes.*positive.*\(5, 0\)"),
    ("hidden_layer_sizes", (5, 2.5), r"hidden_layer_sizes.*\(5, 2.5\)"),
    ("hidden_layer_sizes", (5, np.inf), r"hidden_layer_sizes.*\(5, inf\)"),
    ("hidden_layer_sizes", ((5,), (3,)), "hidden_layer_sizes"),
    ("hidden_layer_sizes", "ten", "'hidden_layer_sizes'.*Got 'ten'"),
    ("dropout", 1.0, r"'dropout'.*\[0.0, 1.0\).*Got 1.0"),
    ("batch_norm", True, "batch_norm=True.*parameterization='weights'"),
    ("module", 3, "'module'.*callable.*Got 3"),
    ("module", _too_many_outputs, r"module.*\(2, (2|3)\).*\(2, (1|2)\)"),
    ("module", _wants_other_inputs, "module"),
    ("module", _gives_two, "module gives a tuple .* tensor of shape"),
    ("module", _no_weights, "module.*no layer"),
    ("device", "abacus", "device='abacus'.*device='cpu'"),
    ("device", "cuda:99", "device='cuda:99'.*device='cpu'"),
    ("device", "meta", "device='meta'.*device='cpu'"),
    ("solver", "newton", "'solver'.*'adam'.*Got 'newton'"),
    ("alpha", -1.0, "'alpha'.*Got -1.0"),
    ("batch_size", 0, "'batch_size'.*Got 0"),
    ("learning_rate", "fast", "'learning_rate'.*'adaptive'.*Got 'fast'"),
    ("learning_rate_init", 0.0, "'learning_rate_init'.*Got 0.0"),
    ("learning_rate_init", np.nan, "'learning_rate_init'.*Got nan"),
    ("max_iter", 0, "'max_iter'.*Got 0"),
    ("tol", -1.0, "'tol'.*Got -1.0"),
    ("momentum", 1.5, "'momentum'.*Got 1.5"),
    ("validation_fraction", 1.0, "'validation_fraction'.*Got 1.0"),
    ("n_iter_no_change", 0, "'n_iter_no_change'.*Got 0"),
    ("random_state", "dice", "'random_state'.*Got 'dice'"),
    ("callbacks", 3, "'callbacks'.*Got 3"),
    ("callbacks", [3], "callbacks"),
]


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "match"),
    PARAMETERS,
    ids=[f"{name}-{i}" for i, (name, *_) in enumerate(PARAMETERS)],
)
@for_both
def test_parameter(kind: type, name: str, value: Any, match: str, fitted: bool) -> None:
    X, y = class_data() if kind is TargetSpaceClassifier else curve_data()
    X = np.pad(X, ((0, 0), (0, 4 - X.shape[1])))
    estimator = kind(**SMALL)
    if fitted:
        fit_quietly(estimator, X, y)
    estimator.set_params(**{name: value})
    error = TypeError if name == "callbacks" else ValueError
    assert_refused(estimator, X, y, match, (error, ValueError))


def test_module_that_makes_none() -> None:
    estimator = TargetSpaceClassifier(**SMALL, module=_returns_number)
    assert_refused(estimator, *class_data(), "module.*nn.Module.*int", TypeError)
    estimator.set_params(module=nn.Linear(3, 3))
    made = r"module must make a network, got one \(Linear\)"
    assert_refused(estimator, *class_data(), made, TypeError)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("heavy", "'class_weight'.*'balanced'.*Got 'heavy'"),
        ([1, 2], "'class_weight'"),
        ({0: -1.0}, r"class_weight must be finite.*got -1.0 for class 0"),
        ({0: np.nan}, "class_weight must be finite.*got nan for class 0"),
        ({0: "a"}, "class_weight must be finite.*got 'a' for class 0"),
        ({7: 1.0}, "class_weight"),
    ],
)
def test_class_weight(value: Any, match: str) -> None:
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), *class_data())
    estimator.set_params(class_weight=value)
    assert_refused(estimator, *class_data(), match)


def test_class_weight_of_several_labels() -> None:
    X, y = label_data()
    estimator = TargetSpaceClassifier(**SMALL, class_weight={0: 1, 1: 2})
    assert_refused(estimator, X, y, "class_weight must be 'balanced' or None")


def spoil(a: Array, value: float) -> Array:
    a = a.astype(float)
    a[3, ...] = value
    return a


@for_both
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["X", "y"])
def test_not_finite(kind: type, which: str, value: float) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    bad = (spoil(X, value), y) if which == "X" else (X, spoil(y, value))
    what = "NaN" if np.isnan(value) else "infinity"
    assert_refused(estimator, *bad, f"Input {which} contains {what}")
    if which == "X":
        assert_refused(estimator, *bad, "Input X contains", method="partial_fit")
        with pytest.raises(ValueError, match="Input X contains"):
            estimator.predict(bad[0])


@for_both
def test_shapes(kind: type) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    refusals: list[tuple[Any, Any, str]] = [
        (X[:10], y, "inconsistent numbers of samples"),
        (X[:, 0], y, "Expected 2D array"),
        (X[:0], y[:0], r"0 sample\(s\)"),
        (X[:, :0], y, r"0 feature\(s\)"),
        (X[None], y, "dim 3"),
        (X + 1j, y, "Complex"),
    ]
    for bad_X, bad_y, match in refusals:
        assert_refused(estimator, bad_X, bad_y, match)
    vast = sparse.csr_array((len(X), 1 << 29))
    assert_refused(estimator, vast, y, r"\(\d+, 536870912\).* GiB.*TruncatedSVD")
    for method in ("predict", "score"):
        rest = (y,) if method == "score" else ()
        with pytest.raises(ValueError, match="features, but"):
            getattr(estimator, method)(X[:, :2], *rest)


@for_both
@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (-np.ones(90), "(?i)negative.*`sample_weight`"),
        (np.zeros(90), "(?i)sample.weight"),
        (np.ones(5), r"sample_weight.*\(5,\).*\(90,\)"),
        (np.full(90, np.nan), "sample_weight.*NaN"),
        (np.ones((90, 2)), "(?i)sample.weight"),
    ],
)
def test_sample_weight(kind: type, weight: Array, match: str) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    assert_refused(estimator, X, y, match, sample_weight=weight)


@for_both
@pytest.mark.parametrize("n", [1, 2, 8])
def test_too_few_rows_for_validation(kind: type, n: int) -> None:
    X, y = problem(kind)
    X, y = np.vstack([X, X[:n]]), np.concatenate([y, y[:n]])
    few = np.r_[np.flatnonzero(y <= 0)[: n // 2], np.flatnonzero(y > 0)[: n - n // 2]]
    estimator = fit_quietly(kind(**SMALL), X, y).set_params(early_stopping=True)
    match = (
        "classes"
        if n == 1 and kind is TargetSpaceClassifier
        else (f"validation_fraction.*{n} rows.*early_stopping=False")
    )
    assert_refused(estimator, X[few], y[few], match)


# --- y --------------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
def test_one_class(early_stopping: bool) -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    estimator.set_params(early_stopping=early_stopping)
    assert_refused(
        estimator, X, np.zeros(90, int), r"y must hold.*two classes.*1 class.*0"
    )
    weight = (y == 1).astype(float)
    assert_refused(
        estimator, X, y, "two classes.*sample_weight.*zero", sample_weight=weight
    )
    nothing = TargetSpaceClassifier(**SMALL, class_weight=dict.fromkeys(set(y), 0.0))
    assert_refused(nothing, X, y, "every row has weight 0, by .* or class_weight")
    fresh = TargetSpaceClassifier(**SMALL)
    named = "classes must name at least two classes"
    assert_refused(fresh, X, y, named, method="partial_fit", classes=[1])
    one = np.zeros(90, int)
    named = "name all classes by classes=.* partial_fit, or .*two classes, got 1 class"
    assert_refused(fresh, X, one, named, method="partial_fit")
    assert_refused(fresh, X, y, r"let y have rows of every", X_val=X, y_val=y + 7)


def test_y_that_is_no_class() -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    assert_refused(estimator, X, X[:, 0], "Unknown label type: continuous")
    assert_refused(estimator, X, np.c_[y, y + 1], "columns of classes.*indicators")
    assert_refused(estimator, X, None, "y")


def test_y_that_is_no_number() -> None:
    X, y = curve_data()
    estimator = fit_quietly(TargetSpaceRegressor(**SMALL), X, y)
    assert_refused(estimator, X, np.array(list("abc") * 30), "dtype <U1, but a regress")
    assert_refused(estimator, X, None, "y")
    huge = y * 1e300
    assert_refused(estimator, X.astype("f4"), huge, "y.*float32")


# --- Later calls ----------------------------------------------------------------------


@for_both
def test_not_fitted(kind: type) -> None:
    X, y = problem(kind)
    estimator = kind()
    for call in (estimator.predict, lambda X: estimator.score(X, y)):
        with pytest.raises(NotFittedError, match=r"not fitted yet\. Call 'fit'"):
            call(X)
    for name in ("coefs_", "intercepts_", "module_", "targets_", "n_iter_"):
        assert not hasattr(estimator, name)
    if kind is TargetSpaceClassifier:
        for name in ("predict_proba", "predict_log_proba", "decision_function"):
            with pytest.raises(NotFittedError):
                getattr(estimator, name)(X)


@for_both
def test_partial_fit_refuses(kind: type) -> None:
    X, y = problem(kind)
    refused = {"solver": "lbfgs", "early_stopping": True, "learning_rate": "annealed"}
    for name, value in refused.items():
        estimator = fit_quietly(kind(**SMALL), X, y).set_params(**{name: value})
        match = f"partial_fit.*{name}='?{value}"
        assert_refused(estimator, X, y, match, method="partial_fit")
    estimator.set_params(learning_rate="auto", early_stopping=np.True_)
    assert_refused(estimator, X, y, "early_stopping=True", method="partial_fit")
    estimator = fit_quietly(kind(**SMALL), X, y)
    assert_refused(estimator, X[:, :2], y, "2 features", method="partial_fit")
    two = np.c_[y, y]
    assert_refused(
        estimator, X, two, "2 (outputs.*1|labels.*2 classes)", method="partial_fit"
    )


def test_classes_must_stay() -> None:
    X, y = class_data(3)
    estimator = TargetSpaceClassifier(**SMALL).partial_fit(X[y < 2], y[y < 2])
    match = r"\[2\].*\[0, 1\].*first call of partial_fit"
    assert_refused(estimator, X, y, match, method="partial_fit")
    estimator = TargetSpaceClassifier(**SMALL).partial_fit(X, y, classes=[0, 1, 2])
    assert_refused(
        estimator, X, y, "classes", method="partial_fit", classes=[0, 1, 2, 3]
    )
    fresh = TargetSpaceClassifier(**SMALL)
    assert_refused(fresh, X, y, r"\[2\]", method="partial_fit", classes=[0, 1])
    labels = TargetSpaceClassifier(**SMALL).partial_fit(*label_data())
    assert_refused(labels, label_data()[0], y, "label|column", method="partial_fit")


@for_both
def test_warm_start_cannot_change_the_network(kind: type) -> None:
    X, y = problem(kind)
    for name, value in {
        "hidden_layer_sizes": (6,),
        "activation": "relu",
        "shortcuts": True,
    }.items():
        estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
        estimator.set_params(**{name: value})
        assert_refused(estimator, X, y, f"{name}.*warm_start=False")


@pytest.mark.parametrize("values", [(-1, 1), (1, 2), (0, 2)])
def test_labels_in_columns_are_had_or_not(values: tuple[int, int]) -> None:
    X, Y = label_data()
    estimator = TargetSpaceClassifier(**SMALL, callbacks=[NoTraining()])
    with pytest.raises(
        ValueError, match=r"has a label \(1\) or not \(0\); got the values"
    ):
        estimator.fit(X, np.where(Y > 0, values[1], values[0]))


@for_both
def test_columns_of_the_fixed_batch_are_those_of_x(kind: type) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = problem(kind)
    frame = pandas.DataFrame(X).rename(columns=str)
    mixed = frame[frame.columns[::-1]]
    with pytest.raises(ValueError, match="fixed_batch has the columns"):
        kind(**SMALL, fixed_batch=mixed, callbacks=[NoTraining()]).fit(frame, y)


def test_devices_without_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def refuses(*size: Any, dtype: torch.dtype, **kwargs: Any) -> torch.Tensor:
        if dtype == torch.float64:
            raise TypeError("there is no float64 here")
        return empty(*size, dtype=dtype, **kwargs)

    monkeypatch.setattr(torch, "empty", refuses)
    with pytest.raises(ValueError, match="'cpu' cannot be used here: there is no"):
        resolve_device("cpu")
