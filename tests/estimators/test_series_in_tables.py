"""Sequences in tables and arrays of objects, and what is told of axes."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from sktarget import TargetSpaceSequenceClassifier, TargetSpaceSequenceRegressor
from sktarget.preprocessing import TokenSequencer

Array = np.ndarray[Any, Any]


def classifier(**settings: Any) -> TargetSpaceSequenceClassifier:
    options = {"recurrent_layer_sizes": 4, "max_iter": 2, "random_state": 0}
    return TargetSpaceSequenceClassifier(**(options | settings))


def series(*lengths: int) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=n) for n in lengths]


def as_objects(items: list[Array]) -> Array:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


LABELS = np.arange(12) % 2


@pytest.mark.parametrize("kind", [as_objects, lambda items: pd.Series(items)])
def test_arrays_of_series_of_one_length_are_like_others(kind: Any) -> None:
    X = kind(series(*[7] * 12))
    model = classifier().fit(X, LABELS)
    assert model.n_features_in_ == 1
    stacked = np.stack(list(X))[:, None]
    np.testing.assert_array_equal(
        model.predict_proba(X),
        classifier().fit(stacked, LABELS).predict_proba(stacked),
    )
    assert len(model.predict(kind(series(5, 9, 3)))) == 3
    table = classifier().fit(stacked[:, 0], LABELS)
    with pytest.raises(ValueError, match=r"fitted with X of shape \(n, time\)"):
        table.predict(X)


def test_a_row_for_each_step_is_warned_of() -> None:
    index = pd.MultiIndex.from_product([range(12), range(5)])
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), index=index)
    with pytest.warns(UserWarning, match="2 levels, .* a sequence of 3 steps"):
        classifier().fit(X, np.repeat(LABELS, 5))
    of_arrays = pd.Series([x.to_numpy().T for _, x in X.groupby(level=0)])
    of_arrays.index = pd.MultiIndex.from_product([range(3), range(4)])
    assert classifier().fit(of_arrays, LABELS).n_features_in_ == 3
    recipe = [x.to_numpy().T for _, x in X.groupby(level=0)]
    assert classifier().fit(recipe, LABELS).n_features_in_ == 3


def test_cells_that_hold_series_are_refused() -> None:
    X = np.empty((12, 2), dtype=object)
    for i in range(12):
        X[i, 0], X[i, 1] = series(6, 6)
    for given in (X, pd.DataFrame(X)):
        with pytest.raises(ValueError, match="the cells of X hold sequences"):
            classifier().fit(given, LABELS)
    recipe = [np.stack(row) for row in X]
    assert classifier().fit(recipe, LABELS).n_features_in_ == 2
    ragged = pd.DataFrame({"a": [[[1.0], [2.0, 3.0]]] * 12})
    with pytest.raises(ValueError, match="the cells of X hold sequences"):
        classifier().fit(ragged, LABELS)
    names = pd.DataFrame({"a": ["x", "y"] * 6})
    with pytest.raises(ValueError, match="could not convert string"):
        classifier().fit(names, LABELS)


def test_tables_whose_rows_are_steps() -> None:
    rng = np.random.default_rng(0)
    tables = [pd.DataFrame(rng.normal(size=(5, 2))) for _ in range(12)]
    with pytest.warns(UserWarning, match="5 rows and 2 columns, and is taken for 5"):
        classifier().fit(tables, LABELS)
    wide = [table.T for table in tables]
    assert classifier().fit(wide, LABELS).n_features_in_ == 2
    uneven = [table.to_numpy() for table in tables[1:]] + [rng.normal(size=(6, 2))]
    with pytest.raises(ValueError, match=r"\[5, 6\]\. Their axes are .* transpose"):
        classifier().fit(uneven, LABELS)


def test_steps_of_y_that_are_channels_of_x() -> None:
    X = np.random.default_rng(0).normal(size=(12, 5, 2))
    reg = TargetSpaceSequenceRegressor(return_sequences=True)
    with pytest.raises(ValueError, match="and as many channels: transpose X"):
        reg.fit(X, X[:, :, 0])


def test_another_number_of_steps_in_a_table() -> None:
    X = np.stack(series(*[7] * 12))
    model = classifier().fit(X, LABELS)
    with pytest.raises(ValueError, match=r"5 features.* expecting 7 .* time steps"):
        model.predict(X[:, :5])


def test_dates_are_no_numbers() -> None:
    X = np.datetime64("2020-01-01") + np.arange(84).reshape(12, 7)
    for given in (X, X - X[0, 0], pd.DataFrame(X)):
        with pytest.raises(ValueError, match="such as days since the first date"):
            classifier().fit(given, LABELS)


def test_texts_in_a_table() -> None:
    table = pd.DataFrame({"text": ["a b c", "b c d"]})
    sequencer = TokenSequencer(token_pattern=r"\w")
    for method in (sequencer.fit, sequencer.fit_transform):
        with pytest.raises(ValueError, match=r"columns \['text'\]: give one column"):
            method(table)
    ids = sequencer.fit_transform(table["text"])
    assert ids.shape == (2, 3)
    with pytest.raises(ValueError, match="got a table"):
        sequencer.transform(table)
