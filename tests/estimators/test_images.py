"""Images: what X may be, what stays in memory, what the fitted attributes hold."""

import pickle
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch import nn

from sktarget import TargetSpaceClassifier
from tests.estimators.image_support import SMALL, digits
from tests.estimators.support import (
    Array,
    SeesData,
    assert_same_weights,
    fit_quietly,
    for_both,
    weights_differ,
)

for_spaces = pytest.mark.parametrize("space", ["targets", "weights"])


def outputs(estimator: Any, X: Array) -> Array:
    return getattr(estimator, "decision_function", estimator.predict)(X)


# --- What X may be --------------------------------------------------------------------


@for_both
@for_spaces
def test_images_and_flattened_rows_are_the_same(kind: type, space: str) -> None:
    X, y = digits()
    flat = X.reshape(len(X), -1)
    settings = SMALL | {"parameterization": space}
    with_axes = fit_quietly(kind(**settings), X, y)
    with_both = fit_quietly(kind(**settings, image_shape=(1, 8, 8)), X, y)
    flattened = fit_quietly(kind(**settings, image_shape=[1, 8, 8]), flat, y)
    for other in (with_both, flattened):
        assert_same_weights(other, with_axes)
    for estimator in (with_axes, with_both, flattened):
        assert estimator.n_features_in_ == 64
        np.testing.assert_array_equal(outputs(estimator, X), outputs(with_axes, flat))
    assert with_axes.score(X, y) == flattened.score(flat, y)


@for_both
def test_bytes_are_scaled_to_one(kind: type) -> None:
    X, y = digits()
    of_bytes = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    scaled = (X / 255).astype(np.float32)
    given = {"fixed_batch": of_bytes.fixed_batch_}
    of_floats = fit_quietly(kind(**SMALL | given), scaled, y)
    assert of_bytes.fixed_batch_.max() <= 1
    assert_same_weights(of_bytes, of_floats, atol=1e-5)
    np.testing.assert_allclose(
        outputs(of_bytes, X), outputs(of_bytes, scaled), atol=1e-5
    )
    assert of_bytes.coefs_[0].dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "computed"), [("f4", "f4"), ("f8", "f8"), ("i8", "f8"), ("u1", "f4")]
)
def test_arithmetic(dtype: str, computed: str) -> None:
    X, y = digits()
    seen = SeesData()
    estimator = TargetSpaceClassifier(**SMALL, callbacks=[seen], warm_start=True)
    warns = nullcontext() if dtype == "u1" else pytest.warns(match="images have values")
    with warns:
        fit_quietly(estimator, X.astype(dtype), y)
    arrays = [*estimator.coefs_, *estimator.targets_, estimator.fixed_batch_]
    assert {a.dtype for a in arrays} == {np.dtype(computed)}
    assert estimator.decision_function(X.astype(dtype)).dtype == computed
    if dtype == "i8":  # Only bytes are taken for brightness.
        assert seen.train.x.max() > 1


@for_both
def test_lists_and_read_only_arrays(kind: type) -> None:
    X, y = digits(60)
    X = X / 255
    expected = fit_quietly(kind(**SMALL), X, y)
    frozen = X.copy()
    frozen.flags.writeable = False
    for given in (X.tolist(), frozen, np.asfortranarray(X)):
        assert_same_weights(fit_quietly(kind(**SMALL), given, y), expected)


def test_a_table_of_bytes_is_a_table() -> None:
    X, y = digits()
    X = X.reshape(len(X), -1)
    settings = SMALL | {"conv_layers": None}
    table = fit_quietly(TargetSpaceClassifier(**settings), X, y)
    floats = fit_quietly(TargetSpaceClassifier(**settings), X.astype(float), y)
    assert_same_weights(table, floats)
    assert table.coefs_[0].dtype == np.float64


# --- Memory ---------------------------------------------------------------------------


class WatchesBatches(Callback):
    """Remembers dtypes and sizes of what is stored and of what is handed out."""

    def __init__(self) -> None:
        self.batches: list[torch.Tensor] = []

    def on_batch_begin(self, net: Any, batch: Any, **_: Any) -> None:
        self.batches.append(batch[0])

    def on_epoch_end(self, net: Any, dataset_train: Any, **_: Any) -> None:
        self.stored = dataset_train.x


@for_both
def test_bytes_stay_bytes_in_memory(kind: type) -> None:
    X, y = digits()
    watch = WatchesBatches()
    fit_quietly(kind(**SMALL, callbacks=[watch]), X, y)
    assert watch.stored.dtype == torch.uint8
    # The very memory of the caller, not a copy.
    assert watch.stored.data_ptr() == X.__array_interface__["data"][0]
    for batch in watch.batches:
        assert batch.dtype == torch.float32
        assert batch.shape == (50, 1, 8, 8)
        assert 0 <= batch.min() <= batch.max() <= 1


def test_prediction_is_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = digits()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    whole = estimator.decision_function(X)
    monkeypatch.setattr("sktarget.training._data._MOST_NUMBERS", 64 * 40)
    sizes: list[int] = []
    hook = estimator.module_.register_forward_hook(
        lambda _, args, __: sizes.append(len(args[0]))
    )
    np.testing.assert_allclose(estimator.decision_function(X), whole, atol=1e-4)
    hook.remove()
    assert sizes == [40, 40, 40, 30]


# --- X̄ --------------------------------------------------------------------------------


def test_sampled_fixed_batch_holds_images_of_x() -> None:
    X, y = digits()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL, warm_start=True), X, y)
    rows = {(image / np.float32(255)).tobytes() for image in X.astype(np.float32)}
    assert estimator.fixed_batch_.shape == (20, 1, 8, 8)
    assert {image.tobytes() for image in estimator.fixed_batch_} <= rows
    shapes = [t.shape for t in estimator.targets_]
    assert shapes == [(20, 4, 8, 8), (20, 6, 8, 8), (20, 10), (20, 10)]


def test_noise_has_the_moments_of_every_pixel() -> None:
    X, y = digits()
    settings = SMALL | {"fixed_batch": "noise", "fixed_batch_size": 2000}
    settings |= {"max_iter": 1, "conv_layers": [(3, 2, 2)]}
    estimator = TargetSpaceClassifier(**settings, warm_start=True)
    fit_quietly(estimator, X, y)
    noise, scaled = estimator.fixed_batch_, X / 255
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise.mean(0), scaled.mean(0), atol=0.05)
    np.testing.assert_allclose(noise.std(0), scaled.std(0), atol=0.05)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i8", "f8"])
def test_given_fixed_batch(flat: bool, dtype: str) -> None:
    X, y = digits()
    given = X[:30] / 255 if dtype == "f8" else X[:30].astype(dtype)
    given = given.reshape(30, -1) if flat else given
    estimator = TargetSpaceClassifier(**SMALL | {"fixed_batch": given}, warm_start=True)
    fit_quietly(estimator, X, y)
    assert estimator.fixed_batch_.dtype == np.float32
    np.testing.assert_allclose(estimator.fixed_batch_, X[:30] / 255, rtol=1e-6)


def test_whole_set_as_fixed_batch_takes_one_pass() -> None:
    X, y = digits(60)
    settings = SMALL | {"fixed_batch_size": None, "batch_size": 60}
    estimator = fit_quietly(TargetSpaceClassifier(**settings, warm_start=True), X, y)
    passes: list[int] = []

    class Counts(Callback):
        def on_train_begin(self, net: Any, **_: Any) -> None:
            first = next(iter(net.module_.target_layers().values()))
            first.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))

    fit_quietly(TargetSpaceClassifier(**settings, callbacks=[Counts()]), X, y)
    assert set(passes) == {60}
    np.testing.assert_allclose(np.sort(estimator.fixed_batch_, 0), np.sort(X / 255, 0))


@for_both
@for_spaces
def test_weights_stand_for_repeats(kind: type, space: str) -> None:
    X, y = digits(60)
    counts = np.arange(60) % 3
    settings = SMALL | {"batch_size": 200, "parameterization": space}
    # The penalty counts rows, of which repeats have more.
    settings |= {"learning_rate_init": 0.01}
    weighted = fit_quietly(kind(**settings), X / 255, y, sample_weight=counts)
    repeated = fit_quietly(
        kind(**settings), np.repeat(X / 255, counts, axis=0), np.repeat(y, counts)
    )
    np.testing.assert_allclose(
        outputs(weighted, X), outputs(repeated, X), rtol=1e-5, atol=1e-6
    )


# --- Fitted attributes ----------------------------------------------------------------


@for_both
@for_spaces
def test_coefs_are_columns_of_patches(kind: type, space: str) -> None:
    X, y = digits()
    estimator = fit_quietly(kind(**SMALL, parameterization=space), X / 255, y)
    n_outputs = estimator.n_outputs_
    shapes = [(9, 4), (4 * 9, 6), (6 * 16, 10), (10, n_outputs)]
    assert [c.shape for c in estimator.coefs_] == shapes
    assert [b.shape for b in estimator.intercepts_] == [s[1:] for s in shapes]
    assert estimator.n_layers_ == 5
    # The network, from these arrays alone.
    x = torch.from_numpy(X[:20] / 255)
    layers = list(zip(estimator.coefs_, estimator.intercepts_, strict=True))
    for (coef, intercept), pool in zip(layers[:2], (1, 2), strict=True):
        patches = nn.functional.unfold(x, 3, padding=1).mT.numpy()
        sums = (patches @ coef + intercept).swapaxes(1, 2).reshape(20, -1, 8, 8)
        maps = nn.functional.leaky_relu(torch.from_numpy(sums), 0.2)
        x = nn.functional.max_pool2d(maps, pool)
    rows = x.flatten(1).numpy() @ layers[2][0] + layers[2][1]
    rows = np.where(rows > 0, rows, 0.2 * rows) @ layers[3][0] + layers[3][1]
    found = estimator.predict_proba if hasattr(estimator, "classes_") else None
    expected = softmax(rows, axis=1) if found else rows[:, 0]
    np.testing.assert_allclose(
        (found or estimator.predict)(X[:20] / 255), expected, atol=1e-10
    )
    kernel = estimator.module_.convolutions[1][0].weight.detach().numpy()
    np.testing.assert_array_equal(estimator.coefs_[1].T.reshape(6, 4, 3, 3), kernel)


@for_both
def test_persistence_and_clone(kind: type) -> None:
    X, y = digits()
    estimator = fit_quietly(kind(**SMALL, dropout=0.2), X, y)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(outputs(again, X), outputs(estimator, X))
    assert_same_weights(fit_quietly(clone(estimator), X, y), estimator)
    assert not hasattr(estimator, "fixed_batch_")


@for_both
def test_fit_goes_on(kind: type) -> None:
    X, y = digits()
    settings = SMALL | {"learning_rate": "constant"}
    whole = fit_quietly(kind(**settings | {"max_iter": 4}), X / 255, y)
    parts = kind(**settings, warm_start=True)
    for _ in range(2):
        fit_quietly(parts, X / 255, y)
    assert len(parts.loss_curve_) == 4
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-8)


@for_both
def test_fit_goes_on_in_the_first_precision(kind: type) -> None:
    X, y = digits()
    estimator = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    fit_quietly(estimator, X / 255, y)
    estimator.partial_fit(X.reshape(len(X), -1).astype(np.float32) / 255, y)
    assert {c.dtype for c in estimator.coefs_} == {np.dtype(np.float32)}
    doubled = fit_quietly(kind(**SMALL, warm_start=True), X / 255, y)
    fit_quietly(doubled, X, y)
    assert {c.dtype for c in doubled.coefs_} == {np.dtype(np.float64)}


@pytest.mark.usefixtures("global_state_untouched")
@for_spaces
def test_random_state_alone_decides(space: str) -> None:
    X, y = digits()
    settings = SMALL | {"dropout": 0.3, "parameterization": space}
    first, again = (
        fit_quietly(TargetSpaceClassifier(**settings), X, y) for _ in range(2)
    )
    assert_same_weights(first, again)
    for change in ({"random_state": 1}, {"dropout": 0.0}):
        other = fit_quietly(TargetSpaceClassifier(**settings | change), X, y)
        assert weights_differ(first, other)


def test_dropout_is_drawn_apart_for_fixed_batch_and_mini_batch() -> None:
    X, y = digits(40)
    settings = SMALL | {"dropout": 0.5, "fixed_batch_size": None, "batch_size": 40}
    masks: list[torch.Tensor] = []

    class Looks(Callback):
        def on_train_begin(self, net: Any, **_: Any) -> None:
            dropout = net.module_.module.convolutions[1][-1]
            dropout.register_forward_hook(
                lambda _, args, out: masks.append((out == 0) & (args[0] != 0))
            )

    fit_quietly(TargetSpaceClassifier(**settings, callbacks=[Looks()]), X, y)
    of_training = [mask for mask in masks if len(mask) == 80]
    assert of_training
    for mask in of_training:
        assert (mask[:40] != mask[40:]).any()
        assert 0.4 < mask.float().mean() < 0.6


# --- Networks of the user's own -------------------------------------------------------


class Residual(nn.Module):
    """A stem, a residual block that halves the map, and a dense output layer."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(n_channels, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.skip = nn.Conv2d(8, 8, 1, stride=2)
        self.head = nn.Linear(8 * 4 * 4, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = self.skip(x) + self.second(torch.relu(self.first(x)))
        return self.head(torch.relu(x).flatten(1))


@pytest.mark.parametrize("flat", [False, True])
def test_residual_network_trains_in_target_space(flat: bool) -> None:
    X, y = digits(1000)
    shape = None
    if flat:
        X, shape = X.reshape(len(X), -1), (1, 8, 8)
    estimator = TargetSpaceClassifier(
        module=Residual,
        image_shape=shape,
        fixed_batch_size=100,
        batch_size=50,
        max_iter=8,
        random_state=0,
        warm_start=True,
    )
    fit_quietly(estimator, X[:800], y[:800])
    assert [t.ndim for t in estimator.targets_] == [4, 4, 4, 4, 2]
    assert estimator.score(X[800:], y[800:]) > 0.85
    assert isinstance(estimator.module_.skip, nn.Conv2d)
    assert [c.shape for c in estimator.coefs_] == [
        (9, 8), (8, 8), (72, 8), (72, 8), (128, 10)
    ]  # fmt: skip


def test_images_fitted_as_bytes_stay_bytes() -> None:
    X, y = load_digits(return_X_y=True)
    X = (X * 15).astype(np.uint8).reshape(-1, 1, 8, 8)[:120]
    estimator = TargetSpaceClassifier(
        (8,), conv_layers=[(3, 4, 2)], max_iter=3, random_state=0
    )
    fit_quietly(estimator, X, y[:120])
    expected = estimator.predict_proba(X)
    integers = X.astype(np.int64)
    for same in (X.tolist(), integers, torch.from_numpy(integers), X / 255):
        np.testing.assert_allclose(estimator.predict_proba(same), expected, rtol=1e-5)
    with pytest.warns(UserWarning, match="fitted on bytes.*values up to 2[0-9][0-9]"):
        estimator.predict_proba(X.astype(float))
    with pytest.warns(UserWarning, match="fitted on bytes"):
        estimator.partial_fit(X - 1.0, y[:120])


def test_bytes_beside_numbers_that_were_not_scaled_are_warned_about() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = (X * 15).astype(np.uint8).reshape(-1, 1, 8, 8)[:120], y[:120]
    model = TargetSpaceClassifier(
        (8,), conv_layers=[(3, 4, 2)], parameterization="weights", max_iter=2
    )
    fit_quietly(model, X.astype(float), y)
    for ask in (model.predict, lambda X: model.partial_fit(X, y)):
        with pytest.warns(UserWarning, match=r"values up to 240.*X is of bytes"):
            ask(X)
    fit_quietly(model, X / 255, y)
    np.testing.assert_allclose(
        model.predict_proba(X), model.predict_proba(X / 255), rtol=1e-4
    )


def test_sparse_integers_are_read_as_bytes_too() -> None:
    X, y = load_digits(return_X_y=True)
    X = sparse.csr_array((X[:120] * 15).astype(np.uint8))
    model = TargetSpaceClassifier(
        (8,), conv_layers=[(3, 4, 2)], image_shape=(1, 8, 8), max_iter=2
    )
    fit_quietly(model, X, y[:120])
    np.testing.assert_allclose(
        model.predict_proba(X.astype(np.int64)), model.predict_proba(X), rtol=1e-5
    )


def test_tables_of_integers_are_read_as_bytes_too() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = load_digits(return_X_y=True)
    X, y = (X[:120] * 15).astype(np.uint8), y[:120]
    columns = [f"pixel {i}" for i in range(64)]
    settings: dict[str, Any] = SMALL | {"image_shape": (1, 8, 8)}
    estimator = TargetSpaceClassifier(**settings)
    fit_quietly(estimator, pandas.DataFrame(X, columns=columns), y)
    expected = estimator.predict_proba(pandas.DataFrame(X, columns=columns))
    found = estimator.predict_proba(
        pandas.DataFrame(X.astype(np.int64), columns=columns)
    )
    np.testing.assert_array_equal(found, expected)
