"""The estimators as parts of scikit-learn's compositions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from tests.estimators.support import (
    ALL_EPOCHS,
    assert_same_weights,
    class_data,
    curve_data,
    fit_quietly,
    for_both,
    label_data,
    problem,
    weights_differ,
)

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (5,),
    "lam": 1e-2,
    "learning_rate_init": 0.1,
    "max_iter": 30,
    "random_state": 0,
    **ALL_EPOCHS,
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@for_both
def test_grid_search_in_two_processes(kind: type) -> None:
    X, y = problem(kind)
    model = make_pipeline(StandardScaler(), kind(**SMALL))
    step = model.steps[-1][0]
    grid = {
        f"{step}__lam": [1e-3, 1e3],
        f"{step}__hidden_layer_sizes": [6, (4, 3)],
    }
    searches = [
        fit_quietly(GridSearchCV(model, grid, cv=2, n_jobs=n), X, y) for n in (1, 2)
    ]
    scores = [s.cv_results_["mean_test_score"] for s in searches]
    np.testing.assert_array_equal(*scores)
    assert searches[1].best_params_[f"{step}__lam"] == 1e-3
    assert searches[1].best_score_ > scores[1].min()
    assert searches[1].score(X, y) > 0.8


@for_both
def test_cross_val_score(kind: type) -> None:
    X, y = problem(kind)
    scores = cross_val_score(kind(**SMALL), X, y, cv=3)
    assert scores.min() > 0.7
    found = cross_validate(kind(**SMALL), X, y, cv=3, n_jobs=2)
    np.testing.assert_array_equal(found["test_score"], scores)


def test_voting() -> None:
    X, y = class_data(3)
    members = [
        ("targets", TargetSpaceClassifier(**SMALL)),
        ("linear", LogisticRegression()),
    ]
    vote = VotingClassifier(members, voting="soft").fit(X, y)
    mean = np.mean([m.predict_proba(X) for m in vote.estimators_], axis=0)
    np.testing.assert_allclose(vote.predict_proba(X), mean)
    assert vote.score(X, y) > 0.9


def test_bagging() -> None:
    X, y = class_data(3)
    bag = BaggingClassifier(
        TargetSpaceClassifier(**SMALL), n_estimators=3, random_state=0
    )
    bag.fit(X, y, sample_weight=np.ones(len(y)))
    assert bag.score(X, y) > 0.9
    assert weights_differ(*bag.estimators_[:2])
    X, y = curve_data()
    bag = BaggingRegressor(
        TargetSpaceRegressor(**SMALL), n_estimators=3, random_state=0
    )
    assert bag.fit(X, y).score(X, y) > 0.7


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration(method: str) -> None:
    X, y = class_data(3)
    model = CalibratedClassifierCV(TargetSpaceClassifier(**SMALL), method=method, cv=3)
    model.fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.score(X, y) > 0.9


def test_one_model_for_each_output() -> None:
    X, y = label_data()
    model = MultiOutputClassifier(TargetSpaceClassifier(**SMALL)).fit(X, y)
    assert [len(e.classes_) for e in model.estimators_] == [2, 2, 2]
    assert (model.predict(X) == y).mean() > 0.8
    X, y = curve_data(2)
    model = MultiOutputRegressor(TargetSpaceRegressor(**SMALL)).fit(X, y)
    assert model.score(X, y) > 0.8
    joint = TransformedTargetRegressor(
        TargetSpaceRegressor(**SMALL), transformer=StandardScaler()
    )
    assert joint.fit(X, y).score(X, y) > 0.8


@for_both
def test_sample_weight_is_routed(kind: type) -> None:
    X, y = problem(kind)
    weight = np.random.default_rng(0).uniform(0.1, 5, len(y))
    direct = fit_quietly(kind(**SMALL), X, y, sample_weight=weight)
    plain = fit_quietly(kind(**SMALL), X, y)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = kind(**SMALL).set_fit_request(sample_weight=True)
        scaler = StandardScaler(with_mean=False, with_std=False)
        scaler.set_fit_request(sample_weight=False)
        model = make_pipeline(scaler, estimator)
        assert_same_weights(model.fit(X, y, sample_weight=weight)[-1], direct)
        # Asked for under another name, or not at all.
        estimator.set_fit_request(sample_weight="importance")
        assert_same_weights(model.fit(X, y, importance=weight)[-1], direct)
        assert_same_weights(model.fit(X, y)[-1], plain)
        estimator.set_fit_request(sample_weight=False)
        with pytest.raises(TypeError, match="sample_weight"):
            model.fit(X, y, sample_weight=weight)
    assert weights_differ(direct, plain)


def test_classes_are_routed_to_partial_fit() -> None:
    request = TargetSpaceClassifier().get_metadata_routing().partial_fit.requests
    assert set(request) == {"classes", "sample_weight"}


def mixed_frame() -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, 120).astype(float),
            "hours": rng.normal(40, 10, 120),
            "work": rng.choice(["private", "state", "none"], 120),
        }
    )
    paid = (frame["age"] > 45) ^ (frame["work"] == "state")
    frame.loc[::9, "age"] = np.nan
    frame.loc[::11, "work"] = None
    return frame, paid.map({True: ">50K", False: "<=50K"})


def columns(sparse: bool = False) -> ColumnTransformer:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    names = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=sparse),
    )
    return ColumnTransformer(
        [("numbers", numbers, ["age", "hours"]), ("names", names, ["work"])],
        verbose_feature_names_out=False,
        sparse_threshold=float(sparse),
    )


@pytest.mark.parametrize("form", ["arrays", "frames", "sparse matrices"])
def test_mixed_table(form: str) -> None:
    X, y = mixed_frame()
    preparation, frames = columns(form == "sparse matrices"), form == "frames"
    if frames:
        preparation.set_output(transform="pandas")
    model = make_pipeline(preparation, TargetSpaceClassifier(**SMALL))
    fit_quietly(model, X, y)
    assert model.score(X, y) > 0.8
    assert model.classes_.tolist() == ["<=50K", ">50K"]
    assert hasattr(model[-1], "feature_names_in_") == frames
    if frames:
        assert model[-1].feature_names_in_.tolist()[:2] == ["age", "hours"]
    assert set(model.predict(X)) == set(y)
