"""Curves of training, as displays."""

import sys
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_array_equal
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from sktarget.plotting import TrainingCurveDisplay
from tests.estimators.support import class_data, fit_quietly

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


def classifier(**params: Any) -> TargetSpaceClassifier:
    given = {"max_iter": 4, "tol": 0.0, "random_state": 0} | params
    return TargetSpaceClassifier((4,), n_iter_no_change=100, **given)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


@pytest.fixture
def fitted() -> TargetSpaceClassifier:
    return classifier(early_stopping=True).fit(X, Y)


def test_both_losses_by_epoch(fitted: TargetSpaceClassifier) -> None:
    display = TrainingCurveDisplay.from_estimator(fitted, alpha=0.5)
    training, held_out = display.lines_
    assert_array_equal(training.get_xdata(), np.arange(len(fitted.loss_curve_)) + 1)
    assert_array_equal(training.get_ydata(), fitted.loss_curve_)
    assert_array_equal(held_out.get_ydata(), fitted.validation_loss_curve_)
    assert training.get_color() == held_out.get_color()
    assert training.get_alpha() == held_out.get_alpha() == 0.5
    assert held_out.get_label() == "TargetSpaceClassifier, held out"
    assert display.ax_.get_ylabel() == "Loss"
    assert display.figure_ is display.ax_.get_figure()


def test_scores_by_epoch(fitted: TargetSpaceClassifier) -> None:
    display = TrainingCurveDisplay.from_estimator(fitted, response="score", name="A")
    (line,) = display.lines_
    assert_array_equal(line.get_ydata(), fitted.validation_scores_)
    assert line.get_label() == "A, held out"


def test_beside_another_on_one_axes(fitted: TargetSpaceClassifier) -> None:
    first = TrainingCurveDisplay.from_estimator(fitted)
    other = MLPClassifier((4,), max_iter=3, random_state=0).fit(X, Y)
    second = TrainingCurveDisplay.from_estimator(other, ax=first.ax_)
    assert second.ax_ is first.ax_
    assert_array_equal(second.lines_[0].get_ydata(), other.loss_curve_)
    assert second.lines_[0].get_color() != first.lines_[0].get_color()
    assert len(first.ax_.get_legend().get_texts()) == 3


def test_within_others() -> None:
    pipeline = make_pipeline(StandardScaler(), classifier())
    search = GridSearchCV(pipeline, {"targetspaceclassifier__lam": [1.0]}, cv=2)
    search.fit(X, Y)
    regressor = TargetSpaceRegressor((4,), max_iter=3, random_state=0)
    around = TransformedTargetRegressor(regressor).fit(X, X[:, 0])
    model = search.best_estimator_[-1]
    line = TrainingCurveDisplay.from_estimator(search).lines_[0]
    assert_array_equal(line.get_ydata(), model.loss_curve_)
    line = TrainingCurveDisplay.from_estimator(around).lines_[0]
    assert_array_equal(line.get_ydata(), around.regressor_.loss_curve_)
    line = TrainingCurveDisplay.from_estimator(FrozenEstimator(model)).lines_[0]
    assert line.get_label() == "TargetSpaceClassifier, training"


def test_curves_may_be_arrays() -> None:
    display = TrainingCurveDisplay(np.array([0.5, 0.4]), np.array([])).plot()
    assert len(display.lines_) == 1
    assert_array_equal(display.lines_[0].get_ydata(), [0.5, 0.4])
    with pytest.raises(ValueError, match="nothing to plot"):
        TrainingCurveDisplay(np.array([]))


def test_styles_may_have_their_short_names() -> None:
    curves = [3.0, 2.0, 1.0], [3.0, 2.5, 2.0]
    for short in ({"c": "red", "ls": ":"}, {"color": "red", "linestyle": ":"}):
        lines = TrainingCurveDisplay(*curves).plot(**short).lines_
        assert [line.get_color() for line in lines] == ["red", "red"]
        assert [line.get_linestyle() for line in lines] == [":", ":"]


def test_what_cannot_be_drawn(fitted: TargetSpaceClassifier) -> None:
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(classifier())
    with pytest.raises(ValueError, match="LogisticRegression has no loss by epoch"):
        TrainingCurveDisplay.from_estimator(LogisticRegression().fit(X, Y))
    with pytest.raises(ValueError, match="response must be 'loss' or 'score'"):
        TrainingCurveDisplay.from_estimator(fitted, response="accuracy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to plot"):
        TrainingCurveDisplay([])
    without = classifier(early_stopping=False).fit(X, Y)
    with pytest.raises(ValueError, match="set early_stopping=True"):
        TrainingCurveDisplay.from_estimator(without, response="score")


def test_without_matplotlib(
    fitted: TargetSpaceClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="extra 'plot'"):
        TrainingCurveDisplay.from_estimator(fitted)


def test_what_chooses_thresholds_is_looked_into() -> None:
    X, y = class_data()
    model = FixedThresholdClassifier(TargetSpaceClassifier((3,), max_iter=3))
    display = TrainingCurveDisplay.from_estimator(fit_quietly(model, X, y))
    assert display.estimator_name == "TargetSpaceClassifier"


def test_what_ensembles_copy_is_not_what_was_trained() -> None:
    X, y = class_data()
    model = fit_quietly(
        BaggingClassifier(TargetSpaceClassifier((3,), max_iter=3)), X, y
    )
    with pytest.raises(ValueError, match="this BaggingClassifier has no loss by epoch"):
        TrainingCurveDisplay.from_estimator(model)
