"""Input that is legal, though few would think of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.utils.validation import validate_data
from torch import Tensor, nn

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
    TargetSpaceSequenceRegressor,
)
from sktarget.estimators import _fitted, _hooks, _rows
from sktarget.estimators._arrays import as_array
from sktarget.estimators._output_units import moments_of_outputs
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
)
from sktarget.training import describe_value
from tests.estimators.support import (
    assert_same_weights,
    class_data,
    curve_data,
    fit_quietly,
    for_both,
    problem,
)

SMALL: dict[str, Any] = {"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 5}


@pytest.mark.parametrize(
    "kind",
    [
        TargetSpaceClassifier,
        DifferenceTargetPropagationClassifier,
        RegularizedInversionClassifier,
    ],
)
def test_arrays_read_backwards(kind: type) -> None:
    X, y = class_data()
    estimator = fit_quietly(kind(random_state=0, max_iter=3), X[::-1], y[::-1])
    assert estimator.predict(X[::-1][:1]) == estimator.predict(X[-1:])
    one_column = fit_quietly(kind(random_state=0, max_iter=3), X[:, :1][:, ::-1], y)
    assert len(one_column.predict(X[:, :1][:, ::-1])) == len(X)


@for_both
def test_tensors_are_arrays(kind: type) -> None:
    X, y = problem(kind)
    X = X.astype(np.float32)
    a, b = (fit_quietly(kind(**SMALL), x, y) for x in (X, torch.from_numpy(X)))
    assert_same_weights(a, b)
    assert b.coefs_[0].dtype == np.float32


@pytest.mark.parametrize(
    "kind",
    [
        TargetSpaceClassifier,
        TargetSpaceRegressor,
        DifferenceTargetPropagationRegressor,
        RegularizedInversionClassifier,
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sparse_rows_are_written_out(kind: type, dtype: str) -> None:
    X, y = curve_data() if kind.__name__.endswith("Regressor") else class_data()
    X = np.where(np.abs(X) > 0.5, X, 0).astype(dtype)
    settings = SMALL | {"hidden_layer_sizes": (5, 4)}
    dense = fit_quietly(kind(**settings), X, y)
    for made in (sparse.csr_array(X), sparse.coo_matrix(X), sparse.lil_array(X)):
        other = fit_quietly(kind(**settings), made, y)
        assert other.coefs_[0].dtype == X.dtype
        assert_same_weights(dense, other)
        np.testing.assert_array_equal(other.predict(made), dense.predict(X))


def test_sparse_images() -> None:
    X = np.arange(6 * 16, dtype=np.uint8).reshape(6, 16) // 3
    settings = {"conv_layers": [(2, 3, 1)], "image_shape": (1, 4, 4), **SMALL}
    dense, other = (
        fit_quietly(TargetSpaceClassifier(**settings), rows, [0, 1] * 3)
        for rows in (X, sparse.csr_array(X))
    )
    assert other.coefs_[0].dtype == np.float32
    assert_same_weights(dense, other)


def test_bytes_in_tensors_are_images() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (60, 1, 6, 6), dtype=np.uint8)
    y = (X.mean((1, 2, 3)) > 127).astype(int)
    estimator = TargetSpaceClassifier(conv_layers=[(3, 2, 2)], **SMALL)
    fit_quietly(estimator, X, y)
    expected = estimator.predict_proba(X)
    assert (estimator.predict_proba(torch.from_numpy(X)) == expected).all()


@for_both
def test_fits_in_inference_mode(kind: type) -> None:
    X, y = problem(kind)
    expected = fit_quietly(kind(**SMALL), X, y)
    with torch.inference_mode():
        assert_same_weights(fit_quietly(kind(**SMALL), X, y), expected)


def test_pandas_mark_of_what_is_missing() -> None:
    pandas = pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(30, 4))
    labels = pandas.DataFrame(X > 0).astype("Int64").mask(X > 1)
    known = np.where(X > 1, -1, X > 0)
    settings = {"recurrent_layer_sizes": 3, "max_iter": 2, "random_state": 0}
    a, b = (
        fit_quietly(
            TargetSpaceSequenceClassifier(return_sequences=True, **settings), X, y
        )
        for y in (labels, known)
    )
    assert a.loss_ == b.loss_


def test_unit_of_tiny_outputs() -> None:
    y = curve_data()[1].astype(np.float32)
    _, unit = moments_of_outputs(y[:, None], None)
    _, tiny = moments_of_outputs(y[:, None] * np.float32(1e-24), None)
    assert tiny == pytest.approx(1e-24 * unit)


def test_recurrent_layers_of_a_module_have_no_coefs() -> None:
    class Recurrent(nn.Module):
        def __init__(self, n_inputs: int, n_outputs: int) -> None:
            super().__init__()
            self.recurrent = nn.GRU(1, 4, batch_first=True)
            self.exit = nn.Linear(4, n_outputs)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.exit(self.recurrent(x[..., None])[0][:, -1])
            return out

    X, y = class_data()
    estimator = TargetSpaceClassifier(module=Recurrent, max_iter=2, random_state=0)
    fit_quietly(estimator, X, y)
    assert [coef.shape for coef in estimator.coefs_] == [(4, 2)]
    assert len(estimator.intercepts_) == 1


class Lazy(nn.Module):
    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.LazyLinear(5), nn.LazyLinear(n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.inner(x).tanh())
        return out


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("warm_start", [False, True])
def test_lazy_layers_go_on(warm_start: bool) -> None:
    X, y = class_data()
    estimator = TargetSpaceClassifier(
        module=Lazy, max_iter=3, random_state=0, warm_start=warm_start
    )
    fit_quietly(estimator, X, y)
    if warm_start:
        fit_quietly(estimator, X, y)
    else:
        estimator.partial_fit(X, y)
    assert [coef.shape for coef in estimator.coefs_] == [(X.shape[1], 5), (5, 2)]
    assert len(estimator.targets_) == 2


def test_words_for_arrays_of_any_kind() -> None:
    pandas = pytest.importorskip("pandas")
    array = np.arange(6.0).reshape(3, 2)
    for make in (np.asarray, pandas.DataFrame, torch.from_numpy):
        assert describe_value(make(array)) == describe_value(make(array.copy()))
        assert describe_value(make(array)) != describe_value(make(array + 1))
    assert describe_value(range(3)) == "(0, 1, 2)"
    assert describe_value({"b": 1, "a": 2}) == describe_value({"a": 2, "b": 1})
    assert describe_value(np.ndarray) == "ndarray"
    names = np.array(["a", "b"], dtype=object)
    assert describe_value(names) == describe_value(names.copy())


@pytest.mark.parametrize("form", ["csr", "csc", "coo array"])
def test_sparse_rows_are_written_out_some_at_a_time(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = class_data()
    X[np.abs(X) < 1] = 0
    make = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
    given = make.get(form, sparse.coo_array)(X)
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), given, y)
    expected = estimator.predict_proba(X)
    monkeypatch.setattr(_fitted, "_MOST_DENSE", 28)  # seven rows
    monkeypatch.setattr(_rows, "_MOST_NUMBERS", 28)
    np.testing.assert_allclose(estimator.predict_proba(given), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="features"):
        estimator.predict(given.tocsr()[:, :2])


class Frame:
    """A table of another kind: its columns have names, and perhaps dtypes."""

    def __init__(self, X: Any, dtypes: Any = None) -> None:
        self.X, self.columns = X, list("abcd")
        if dtypes is not None:
            self.dtypes = dtypes

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.X, dtype)


class Date:
    @classmethod
    def is_temporal(cls) -> bool:
        return True


def test_tables_of_other_kinds() -> None:
    X, _ = class_data()
    frame = Frame(X)
    assert as_array(frame) is frame
    assert as_array(Frame(X, [np.dtype(float)] * 4)).columns == list("abcd")
    with pytest.raises(ValueError, match="such as days since the first date"):
        as_array(Frame(X, [np.dtype(float), Date]))


@pytest.mark.parametrize("deviation", [50.0, 5.0, 1e-3])
@pytest.mark.parametrize("of_steps", [False, True])
def test_digits_that_float32_lacks_are_missed(deviation: float, of_steps: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 1, 4) if of_steps else (60, 4)).astype(np.float32)
    y = 1e9 + deviation * rng.normal(size=(60, 4) if of_steps else 60)
    kind: Any = TargetSpaceRegressor
    settings: dict[str, Any] = SMALL
    if of_steps:
        kind, settings = TargetSpaceSequenceRegressor, {"return_sequences": True}
    estimator = kind(**(settings | {"max_iter": 2}))
    with pytest.warns(UserWarning, match="hardly resolves.*subtract a constant"):
        fit_quietly(estimator, X, y)


# --- rows that scikit-learn's validation need not see ---------------------------------


def backwards(row: Any) -> Any:
    return row.astype(row.dtype.newbyteorder())


@pytest.mark.parametrize(
    ("change", "is_spared"),
    [
        (lambda row: row, True),
        (lambda row: row.astype(np.float32), True),
        (lambda row: np.repeat(row, 9, axis=0)[::2], True),
        (lambda row: row.astype(np.float16), False),
        (lambda row: row.astype(int), False),
        (lambda row: row.tolist(), False),
        (lambda row: np.ma.masked_array(row), False),
        (lambda row: sparse.csr_array(row), False),
        (backwards, False),
        (lambda row: np.repeat(row, 10_000, axis=0), False),
    ],
)
def test_only_clean_rows_are_spared_validation(
    monkeypatch: pytest.MonkeyPatch, change: Any, is_spared: bool
) -> None:
    validated = []

    def validate(*args: Any, **kwargs: Any) -> Any:
        validated.append(args)
        return validate_data(*args, **kwargs)

    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    monkeypatch.setattr(_hooks, "validate_data", validate)
    row = np.round(X[:1])
    found = estimator.predict_proba(change(row))
    assert len(validated) == (not is_spared)
    np.testing.assert_allclose(found[0], estimator.predict_proba(row)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row[0], "2D array"),
        (lambda row: row[:0], "0 sample"),
        (lambda row: row[:, 1:], "features"),
        (lambda row: row * np.nan, "NaN"),
        (lambda row: np.where(row == row[0, 0], np.inf, row), "infinity"),
        (lambda row: row * 1j, "[Cc]omplex"),
        (lambda row: row.astype("m8[s]"), "dates|days"),
    ],
)
def test_bad_rows_are_refused_one_by_one(spoil: Any, message: str) -> None:
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    with pytest.raises(ValueError, match=message):
        estimator.predict(spoil(X[:1]))


def test_rows_without_the_names_of_their_columns_are_warned_about() -> None:
    X, y = class_data()
    named = pd.DataFrame(X, columns=[f"column {j}" for j in range(X.shape[1])])
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), named, y)
    with pytest.warns(UserWarning, match="feature names"):
        estimator.predict(X[:1])
