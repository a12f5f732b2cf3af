"""What callbacks get that ask a net for predictions of rows of their own."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from skorch.callbacks import Callback, EpochScoring

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from tests.estimators.support import (
    SHORT,
    Keeps,
    class_data,
    fit_quietly,
    for_both,
    problem,
)


class Predicts(Callback):
    """Predicts for rows of the user's own, whatever their dtype."""

    def __init__(self, X: Any) -> None:
        self.X = X

    def on_train_end(self, net: Any, **_: Any) -> None:
        self.found = net.predict(self.X)


@for_both
def test_own_rows_are_taken_in_any_dtype(kind: type) -> None:
    X, y = problem(kind)
    predicts = Predicts(X.astype(np.float64))
    estimator = fit_quietly(
        kind(**SHORT, early_stopping=False, callbacks=[predicts]),
        X.astype(np.float32),
        y,
    )
    expected = estimator.predict(X.astype(np.float32))
    np.testing.assert_allclose(np.ravel(predicts.found), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_own_rows_of_integers_are_read_as_the_tables_are(dtype: Any) -> None:
    X = np.random.default_rng(0).integers(0, 255, size=(60, 4)).astype(dtype)
    predicts = Predicts(X)
    model = TargetSpaceRegressor(
        (4,), max_iter=3, random_state=0, early_stopping=False, callbacks=[predicts]
    )
    fit_quietly(model, X, X[:, 0] / 9)
    np.testing.assert_allclose(np.ravel(predicts.found), model.predict(X), rtol=1e-5)


@pytest.mark.parametrize(
    "form", [pd.DataFrame, sparse.csr_array, lambda X: X[::-1], lambda X: X.tolist()]
)
def test_own_rows_are_taken_in_any_form(form: Any) -> None:
    X, y = class_data()
    predicts = Predicts(form(X))
    model = TargetSpaceClassifier(**SHORT, early_stopping=False, callbacks=[predicts])
    fit_quietly(model, X, y)
    np.testing.assert_array_equal(predicts.found, model.predict(form(X)))


def test_own_rows_of_other_columns_are_refused() -> None:
    X, y = class_data()
    model = TargetSpaceClassifier(**SHORT, callbacks=[Predicts(X[:, 1:])])
    with pytest.raises(ValueError, match="features, but TargetSpaceClassifier is"):
        fit_quietly(model, X, y)


IMAGES = np.random.default_rng(0).integers(0, 255, size=(60, 1, 4, 4)).astype(np.uint8)


@pytest.mark.parametrize("own", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("learnt", [np.uint8, np.float32])
@pytest.mark.parametrize("fixed_batch_size", ["auto", None])
def test_own_images_are_read_as_those_learnt(
    own: Any, learnt: Any, fixed_batch_size: Any
) -> None:
    if own is np.int64 and learnt is np.float32:
        pytest.skip("integers are read as bytes only beside bytes")
    scaled = IMAGES / np.float32(255)
    predicts = Predicts(scaled if own is np.float32 else IMAGES.astype(own))
    keeps = Keeps()
    model = TargetSpaceRegressor(
        (4,),
        conv_layers=[(3, 2, 1)],
        max_iter=2,
        random_state=0,
        fixed_batch_size=fixed_batch_size,
        early_stopping=True,
        callbacks=[EpochScoring("r2", lower_is_better=False), predicts, keeps],
    )
    X = scaled if learnt is np.float32 else IMAGES
    y = IMAGES.mean(axis=(1, 2, 3))
    fit_quietly(model, X[:40], y[:40], X_val=IMAGES[40:], y_val=y[40:])
    np.testing.assert_allclose(
        keeps.history[:, "r2"], model.validation_scores_, rtol=1e-3
    )
    # The last epoch is not the best one's: compare what the weights of that give.
    assert predicts.found.shape == (60, 1)
    model.set_params(early_stopping=False, callbacks=[predicts])
    fit_quietly(model, X, y)
    np.testing.assert_allclose(
        np.ravel(predicts.found), model.predict(predicts.X), rtol=1e-4
    )
