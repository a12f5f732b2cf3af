"""scikit-learn's multi-layer perceptron exchanged for an estimator in target space."""

from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

from sktarget import TargetSpaceClassifier, TargetSpaceRegressor
from tests.estimators.support import fit_quietly, problem

PAIRS = [(TargetSpaceClassifier, MLPClassifier), (TargetSpaceRegressor, MLPRegressor)]
for_pairs = pytest.mark.parametrize(("ours", "theirs"), PAIRS)

# Of the parameters, those that only the regressor has.
OF_NUMBERS = {MLPClassifier: set(), MLPRegressor: {"loss"}}

# At least one value of each parameter that is not the default.
VALUES: dict[str, list[Any]] = {
    "hidden_layer_sizes": [4, (4,), [4, 3]],
    "activation": ["identity", "logistic", "tanh", "relu"],
    "solver": ["lbfgs", "sgd", "adam"],
    "alpha": [0.0, 1, 1e-3],
    "batch_size": ["auto", 7],
    "learning_rate": ["constant", "invscaling", "adaptive"],
    "learning_rate_init": [1e-3, 1],
    "power_t": [0.0, 0.3],
    "max_iter": [1, 3],
    "shuffle": [True, False],
    "random_state": [None, 3, np.random.RandomState(3)],
    "tol": [0.0, 1e-3],
    "verbose": [False],
    "warm_start": [True, False],
    "momentum": [0.0, 0.5, 1.0],
    "nesterovs_momentum": [True, False],
    "early_stopping": [True, False],
    "validation_fraction": [0.2],
    "beta_1": [0.0, 0.5],
    "beta_2": [0.0, 0.5],
    "epsilon": [1e-6],
    "n_iter_no_change": [2, np.inf],
    "max_fun": [1, 5],
}


@for_pairs
def test_every_parameter_of_the_mlp_exists(ours: type, theirs: type) -> None:
    wanted = set(theirs().get_params())
    assert wanted <= set(ours().get_params())
    assert wanted == set(VALUES) | OF_NUMBERS[theirs]


@for_pairs
def test_defaults_of_the_mlp_are_taken(ours: type, theirs: type) -> None:
    given = theirs(max_iter=2).get_params()
    common = {k: given[k] for k in given if k in ours().get_params()}
    estimator = fit_quietly(ours(**common), *problem(ours))
    assert estimator.n_iter_ == 2


@for_pairs
@pytest.mark.parametrize("name", VALUES)
def test_values_of_the_mlp_are_taken(ours: type, theirs: type, name: str) -> None:
    X, y = problem(ours)
    for value in VALUES[name]:
        settings = {"hidden_layer_sizes": (4,), "max_iter": 2, name: value}
        for kind in (ours, theirs):
            assert np.isfinite(fit_quietly(kind(**settings), X, y).predict(X)).all()


@for_pairs
@pytest.mark.parametrize("name", sorted(set(VALUES) - {"random_state"}))
def test_values_that_the_mlp_refuses_are_refused(
    ours: type, theirs: type, name: str
) -> None:
    X, y = problem(ours)
    for value in (-1.5, "nonsense"):
        for kind in (ours, theirs):
            if kind is theirs and name == "tol" and value == -1.5:
                continue
            with pytest.raises(ValueError, match=f"'{name}' parameter"):
                kind(**{name: value}).fit(X, y)


@for_pairs
def test_parameters_are_keyword_only_after_the_first(ours: type, theirs: type) -> None:
    assert ours((3,)).hidden_layer_sizes == (3,)
    with pytest.raises(TypeError, match="positional arguments but 3 were given"):
        ours((3,), "relu")
