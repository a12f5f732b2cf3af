"""Strategies for data and parameters that try to break a fit."""

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
from scipy import sparse

from tests.estimators.support import Array


@dataclass(frozen=True)
class Case:
    """What a fit is given; small enough to be read when it fails."""

    kind: str
    n_rows: int
    n_columns: int
    shape: str
    magnitude: float
    dtype: str
    layout: str
    labels: str
    weights: str
    seed: int
    parameters: tuple[tuple[str, Any], ...]

    def X(self) -> Any:  # noqa: N802
        rng = np.random.default_rng(self.seed)
        X = rng.normal(size=(self.n_rows, self.n_columns))
        if self.shape == "constant":
            X[:] = 1.0
        elif self.shape == "zero":
            X[:] = 0.0
        elif self.shape == "one constant column":
            X[:, :1] = 3.0
        elif self.shape == "equal columns":
            X[:] = X[:, :1]
        elif self.shape == "collinear" and self.n_columns > 2:
            X[:, 0] = X[:, 1:].sum(axis=1)
        elif self.shape == "equal rows":
            X[:] = X[:1]
        elif self.shape == "far apart":
            X[: self.n_rows // 2] *= 1e-20
        elif self.shape == "mixed columns":
            X[:, ::2] *= 1e-12
        with np.errstate(over="ignore", invalid="ignore"):
            X = (X * self.magnitude).astype(self.dtype)
        if self.kind == "images":
            X = np.repeat(X[:, None, :, None], 4, axis=3)
        elif self.kind.startswith(("series", "inverted steps")):
            X = np.repeat(X[:, None], 2, axis=1)
        return _lay_out(X, self.layout)

    def y(self) -> Array:
        rng = np.random.default_rng(self.seed + 1)
        n = self.n_rows
        if self.labels == "rare":
            return (np.arange(n) == 0).astype(int)
        if self.labels == "all different":
            return np.arange(n)
        if self.labels == "one row more than classes":
            return np.maximum(np.arange(n) - 1, 0)
        if self.labels == "equal":
            return np.zeros(n, dtype=int)
        if self.labels == "strings":
            return rng.choice(["a", "b", ""], n)
        if "regressor" not in self.kind and self.labels in ("huge", "tiny"):
            return rng.integers(-(2**62), 2**62, n) // 2**61
        if self.labels == "huge":
            return rng.normal(size=n) * 1e30
        if self.labels == "tiny":
            return rng.normal(size=n) * 1e-30
        if self.labels == "several":
            return rng.integers(0, 2, (n, 3))
        return rng.integers(0, 2, n)

    def sample_weight(self) -> Array | None:
        rng = np.random.default_rng(self.seed + 2)
        if self.weights == "none":
            return None
        if self.weights == "zero":
            return np.zeros(self.n_rows)
        if self.weights == "one":
            return (np.arange(self.n_rows) == 0).astype(float)
        if self.weights == "uneven":
            return 10.0 ** rng.uniform(-30, 30, self.n_rows)
        weight = rng.uniform(size=self.n_rows) * {"tiny": 1e-310, "huge": 1e308}.get(
            self.weights, 1.0
        )
        if self.weights == "some":
            weight[::2] = 0.0
        return weight


def _lay_out(X: Array, layout: str) -> Any:
    if layout == "fortran":
        return np.asfortranarray(X)
    if layout == "strided":
        return np.repeat(X, 2, axis=0)[::2]
    if layout == "reversed":
        return X[::-1, ..., ::-1]
    if layout == "read-only":
        X.setflags(write=False)
    if layout == "sparse" and X.ndim == 2:
        return sparse.csr_array(X.astype(float))
    if layout == "object":
        return X.astype(object)
    if layout == "list":
        return X.tolist()
    return X


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(np.log10(low), np.log10(high)).map(lambda x: float(10.0**x))


_RATE = log_uniform(1e-30, 1e30)
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "hidden_layer_sizes": st.lists(st.integers(1, 30), max_size=4).map(tuple)
    | st.integers(1, 200),
    "activation": st.sampled_from(["identity", "logistic", "tanh", "relu"])
    | st.just("leaky_relu"),
    "lam": st.just(0.0) | log_uniform(1e-30, 1e12) | st.just(1e12),
    "fixed_batch_size": st.none() | st.integers(1, 40),
    "fixed_batch": st.sampled_from(["sample", "noise"]),
    "untangling": st.sampled_from(["scu", "ocu"]),
    "target_init": st.sampled_from(["weights", "normal"]),
    "target_scale": _RATE,
    "project_targets": st.booleans(),
    "parameterization": st.sampled_from(["targets", "weights"]),
    "shortcuts": st.booleans(),
    "dropout": st.floats(0, 1, exclude_max=True),
    "batch_norm": st.booleans(),
    "solver": st.sampled_from(["adam", "sgd", "lbfgs"]),
    "alpha": st.just(0.0) | _RATE,
    "batch_size": st.integers(1, 40),
    "learning_rate": st.sampled_from(["constant", "invscaling", "adaptive"]),
    "learning_rate_init": _RATE,
    "power_t": st.floats(0, 1e3),
    "shuffle": st.booleans(),
    "tol": st.just(0.0) | _RATE,
    "momentum": st.floats(0, 1),
    "nesterovs_momentum": st.booleans(),
    "early_stopping": st.booleans(),
    "validation_fraction": st.floats(0, 1, exclude_min=True, exclude_max=True),
    "beta_1": st.floats(0, 1, exclude_max=True),
    "beta_2": st.floats(0, 1, exclude_max=True),
    "epsilon": log_uniform(1e-300, 1e30),
    "n_iter_no_change": st.integers(1, 5) | st.just(np.inf),
    "max_iter": st.sampled_from([1, 2, 9]),
    "max_fun": st.integers(1, 20),
    "warm_start": st.booleans(),
}

_LOSS = {
    "loss": st.sampled_from(["squared_error", "absolute_error", "quantile", "poisson"])
}
_CLASS_WEIGHT = {"class_weight": st.sampled_from([None, "balanced"])}
_WIDTHS = st.lists(st.integers(1, 9), min_size=1, max_size=2).map(tuple)
_CONVOLUTION = st.tuples(
    st.integers(1, 5), st.integers(1, 4), st.none() | st.integers(1, 3)
)
_AS_IN_TARGET_SPACE = (
    "hidden_layer_sizes learning_rate_init batch_size shuffle tol momentum warm_start "
    "early_stopping validation_fraction n_iter_no_change"
)
_SISTERS = {name: PARAMETERS[name] for name in _AS_IN_TARGET_SPACE.split()} | {
    "weight_init": st.sampled_from(["orthogonal", "uniform"]),
    "target_lr": st.just(0.0) | _RATE,
    "solver": st.sampled_from(["adam", "sgd", "rmsprop_centered"]),
}
_DIFFERENCE = _SISTERS | {
    "activation": PARAMETERS["activation"],
    "feedback_activation": PARAMETERS["activation"],
    "transmission": st.sampled_from(["identity", "sign", "bernoulli"]),
    "top_target": st.sampled_from(["penultimate", "output"]),
    "noise": st.just(0.0) | _RATE,
    "noise_decay": st.none() | _RATE,
    "input_noise": st.just(0.0) | _RATE,
    "feedback_steps": st.integers(1, 3),
    "feedback_order": st.sampled_from(["batch", "epoch"]),
    "difference": st.booleans(),
    "learn_feedback": st.booleans(),
    "feedback_learning_rate_init": _RATE,
    "n_samples_predict": st.integers(1, 5),
}
_INVERSION = _SISTERS | {
    "ridge": _RATE,
    "clip": st.floats(0, 1, exclude_min=True, exclude_max=True),
    "linearize": st.booleans(),
}
_LAYERS = _INVERSION | {"activation": st.sampled_from(["tanh", "identity"])}
_STEPS = {k: v for k, v in _INVERSION.items() if k != "hidden_layer_sizes"} | {
    "recurrent_layer_sizes": st.integers(1, 20),
    "update": st.sampled_from(["local", "through_time"]),
}
_RECURRENT = {
    "cell": st.sampled_from(["rnn", "lstm", "gru"]),
    "recurrent_layer_sizes": _WIDTHS,
    "bidirectional": st.booleans(),
    "fixed_sequence_length": st.none() | st.integers(1, 9),
    "initial_memory": st.none() | st.floats(2, 50),
    "anchor": st.sampled_from(["zero", "weights"]),
}
BY_KIND: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "classifier": PARAMETERS | _CLASS_WEIGHT,
    "regressor": PARAMETERS | _LOSS,
    "images": PARAMETERS
    | _CLASS_WEIGHT
    | {"conv_layers": st.lists(_CONVOLUTION, min_size=1, max_size=3)},
    "series": PARAMETERS | _CLASS_WEIGHT | _RECURRENT,
    "series regressor": PARAMETERS | _LOSS | _RECURRENT,
    "difference": _DIFFERENCE | _CLASS_WEIGHT,
    "difference regressor": _DIFFERENCE,
    "inverted layers": _LAYERS | _CLASS_WEIGHT,
    "inverted layers regressor": _LAYERS,
    "inverted steps": _STEPS | _CLASS_WEIGHT,
    "inverted steps regressor": _STEPS,
}


def _chosen(kind: str) -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    """Choose some parameters and values for them."""

    def values(names: set[str]) -> st.SearchStrategy[dict[str, Any]]:
        chosen = {name: BY_KIND[kind][name] for name in sorted(names)}
        if "batch_norm" in names:  # goes with weights only
            chosen["parameterization"] = st.just("weights")
        return st.fixed_dictionaries(chosen)

    names = st.sets(st.sampled_from(sorted(BY_KIND[kind])), max_size=10)
    return names.flatmap(values).map(lambda chosen: tuple(chosen.items()))


_DATA: dict[str, st.SearchStrategy[Any]] = {
    "n_rows": st.integers(5, 60) | st.integers(0, 30),
    "n_columns": st.integers(1, 5) | st.integers(0, 5),
    "shape": st.sampled_from(
        ["normal", "constant", "zero", "one constant column", "equal columns"]
    )
    | st.sampled_from(["collinear", "equal rows", "far apart", "mixed columns"]),
    "magnitude": st.just(1.0) | log_uniform(1e-30, 1e30),
    "dtype": st.sampled_from(["f8", "f8", "f4", "f4", "f2", "i8", "i1", "u1", "?"]),
    "layout": st.sampled_from(
        ["plain"] * 9 + ["fortran", "strided", "reversed", "read-only", "sparse"]
    )
    | st.sampled_from(["object", "list"]),
    "labels": st.sampled_from(
        ["two"] * 9 + ["rare", "all different", "equal", "strings", "several"]
    )
    | st.sampled_from(["huge", "tiny", "one row more than classes"]),
    "weights": st.sampled_from(
        ["none"] * 9 + ["zero", "one", "some", "uneven", "tiny", "huge"]
    ),
    "seed": st.integers(0, 9),
}
CASES = st.sampled_from([*BY_KIND]).flatmap(
    lambda kind: st.builds(Case, kind=st.just(kind), parameters=_chosen(kind), **_DATA)
)
