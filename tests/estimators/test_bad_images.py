"""Images, convolutions and their parameters that do not fit together."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sktarget import TargetSpaceClassifier
from tests.estimators.support import Array, fit_quietly, for_both
from tests.estimators.test_bad_input import assert_refused

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (5,),
    "fixed_batch_size": 10,
    "random_state": 0,
    "max_iter": 1,
}


def problem(channels: int = 2) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (30, channels, 8, 6), dtype=np.uint8)
    return X, np.arange(30) % 2


# conv_layers, what the message must say.
MALFORMED: list[tuple[Any, str]] = [
    ("deep", "'conv_layers'.*Got 'deep'"),
    (3, "'conv_layers'.*Got 3"),
    ([], r"conv_layers=\[\].*None for a dense network"),
    ([(3, 16)], r"conv_layers\[0\].*\(kernel, channels, pool\).*got \(3, 16\)"),
    ([(3, 4, 1), (3, 4, 1, 1)], r"conv_layers\[1\].*got \(3, 4, 1, 1\)"),
    ((3, 16, 2), r"conv_layers\[0\].*got 3"),
    ([(0, 16, 2)], r"conv_layers\[0\].*positive.*got \(0, 16, 2\)"),
    ([(3, -4, 2)], r"conv_layers\[0\].*got \(3, -4, 2\)"),
    ([(3, 4.5, 2)], r"conv_layers\[0\].*got \(3, 4.5, 2\)"),
    ([(3, 4, -1)], r"conv_layers\[0\].*got \(3, 4, -1\)"),
    ([(3, 4, True)], r"conv_layers\[0\].*got \(3, 4, True\)"),
    ([("3", 4, 1)], r"conv_layers\[0\].*got \('3', 4, 1\)"),
    ([((3, 3, 3), 4, 1)], r"conv_layers\[0\].*got \(\(3, 3, 3\), 4, 1\)"),
    ([(3, None, 1)], r"conv_layers\[0\].*got \(3, None, 1\)"),
    ([None], r"conv_layers\[0\].*got None"),
    ([(7, 4, 1)], r"conv_layers\[0\].*8 x 6.*kernel of 7 x 7.*\(2, 8, 6\)"),
    ([(3, 4, 3), (3, 4, 1)], r"conv_layers\[1\].*2 x 2.*kernel of 3 x 3.*pool less"),
    ([(3, 4, 7)], r"conv_layers\[0\].*8 x 6.*pooling by 7.*nothing.*at most 6"),
    ([(3, 4, 2), (3, 4, 4)], r"conv_layers\[1\].*4 x 3.*pooling by 4.*nothing"),
]


@for_both
@pytest.mark.parametrize(
    ("value", "match"), MALFORMED, ids=[str(value) for value, _ in MALFORMED]
)
def test_conv_layers(kind: type, value: Any, match: str) -> None:
    X, y = problem()
    estimator = kind(**SMALL, conv_layers=value)
    assert_refused(estimator, X, y, match)
    fitted = fit_quietly(kind(**SMALL, conv_layers=[(3, 4, 2)]), X, y)
    assert_refused(fitted.set_params(conv_layers=value), X, y, match)


@for_both
@pytest.mark.parametrize(
    ("value", "flat", "match"),
    [
        ((2, 8), False, r"image_shape.*\(channels, height, width\).*got \(2, 8\)"),
        ((2, 8, 0), False, r"image_shape.*positive.*got \(2, 8, 0\)"),
        ((2, 8.0, 6), True, r"image_shape.*got \(2, 8.0, 6\)"),
        (96, True, "'image_shape'.*Got 96"),
        ((8, 6, 2), False, r"image_shape=\(8, 6, 2\).*\(2, 8, 6\).*leave it out"),
        ((1, 8, 6), True, r"image_shape=\(1, 8, 6\).*48 columns, but X has 96"),
        (None, True, r"conv_layers needs images.*\(30, 96\).*image_shape="),
    ],
    ids=str,
)
def test_image_shape(kind: type, value: Any, flat: bool, match: str) -> None:
    X, y = problem()
    X = X.reshape(30, -1) if flat else X
    estimator = kind(**SMALL, conv_layers=[(3, 4, 2)], image_shape=value)
    assert_refused(estimator, X, y, match)


@for_both
def test_images_without_convolutions(kind: type) -> None:
    X, y = problem()
    match = r"4 axes.*\(30, 2, 8, 6\).*conv_layers=None.*conv_layers or module.*reshape"
    assert_refused(kind(**SMALL), X, y, match)
    assert_refused(kind(**SMALL, image_shape=(2, 8, 6)), X, y, match)


@for_both
def test_images_that_are_none(kind: type) -> None:
    X, y = problem()
    conv = {"conv_layers": [(3, 4, 2)]}
    flat = X.reshape(len(X), -1)
    with pytest.raises(ValueError, match="makes 100 columns, but X has 96"):
        kind(**SMALL, image_shape=(1, 10, 10)).fit(flat, y)
    # So that searches may try networks with and without convolutions.
    fit_quietly(kind(**SMALL, image_shape=(2, 8, 6)), flat, y)
    with pytest.raises(ValueError, match=r"\(30, 8, 6\).*image_shape="):
        kind(**SMALL, **conv).fit(X[:, 0], y)
    with pytest.raises(ValueError, match="dim 3"):
        kind(**SMALL, **conv, image_shape=(2, 8, 6)).fit(X[:, 0], y)
    assert_refused(kind(**SMALL, **conv), X[:0], y[:0], r"0 sample\(s\)")
    spoilt = X / 255
    spoilt[3, 1, 2, 2] = np.nan
    assert_refused(kind(**SMALL, **conv), spoilt, y, "Input X contains NaN")


@for_both
def test_other_images_at_predict(kind: type) -> None:
    X, y = problem()
    estimator = fit_quietly(kind(**SMALL, conv_layers=[(3, 4, 2)]), X, y)
    more = problem(3)[0]
    for given, match in [
        (more, r"3 channels and 8 x 6 pixels.*2 channels and 8 x 6.*\(n, 2, 8, 6\)"),
        (X[..., :5], "2 channels and 8 x 5 pixels"),
        (more.reshape(30, -1), "144 features, but .* is expecting 96 features"),
        (X[:, 0], "dim 3"),
    ]:
        with pytest.raises(ValueError, match=match):
            estimator.predict(given)
        with pytest.raises(ValueError, match=match):
            estimator.score(given, y)
    table = fit_quietly(kind(**SMALL), X.reshape(30, -1), y)
    with pytest.raises(ValueError, match=r"4 axes.*rows of a table"):
        table.predict(X)


@for_both
def test_given_fixed_batch_of_another_shape(kind: type) -> None:
    X, y = problem()
    conv = {"conv_layers": [(3, 4, 2)]}
    for shape in [(10, 1, 8, 6), (10, 95), (2, 8, 6)]:
        estimator = kind(**SMALL, **conv, fixed_batch=np.zeros(shape))
        assert_refused(estimator, X, y, r"fixed_batch has shape.*\(2, 8, 6\)")


@for_both
def test_going_on_with_another_network(kind: type) -> None:
    X, y = problem()
    kept = SMALL | {"conv_layers": [(3, 4, 2)], "warm_start": True}
    for change, match in [
        ({"conv_layers": [(3, 4, 1)]}, "conv_layers.*warm_start=False"),
        ({"image_shape": (2, 6, 8)}, "image_shape.*warm_start=False"),
    ]:
        estimator = fit_quietly(kind(**kept), X, y).set_params(**change)
        assert_refused(estimator, X, y, match)
    estimator = fit_quietly(kind(**kept), X, y)
    more = problem(3)[0]
    assert_refused(estimator, more, y, "3 channels")
    assert_refused(estimator, more, y, "3 channels", method="partial_fit")


def _too_large(n_channels: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_channels, 2, 9), nn.Flatten(), nn.Linear(2, 1))


def _other_channels(n_channels: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_channels + 1, 2, 3), nn.Flatten())


@pytest.mark.parametrize("module", [_too_large, _other_channels])
def test_module_that_does_not_take_the_images(module: Any) -> None:
    X, y = problem()
    estimator = TargetSpaceClassifier(**SMALL, module=module)
    assert_refused(estimator, X, y, r"module cannot take.*\(2, 2, 8, 6\)")


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_brightness_that_nobody_scaled(dtype: Any) -> None:
    X, y = problem()
    estimator = TargetSpaceClassifier(**SMALL, conv_layers=[(3, 4, 2)])
    with pytest.warns(UserWarning, match="images have values from 0 to 255.*uint8"):
        estimator.fit(X.astype(dtype), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        for scaled in (X, X / 255.0, (X - X.mean()) / X.std()):
            estimator.fit(scaled, y)
        control = estimator.set_params(parameterization="weights")
        control.fit(X.astype(dtype), y)


def test_axes_of_colours_that_come_last_are_asked_about() -> None:
    X = np.random.default_rng(0).uniform(size=(20, 12, 12, 3))
    y = np.arange(20) % 2
    estimator = TargetSpaceClassifier(conv_layers=[(3, 2, 2)], max_iter=1)
    with pytest.warns(UserWarning, match=r"\(12, 12, 3\).*transpose\(0, 3, 1, 2\)"):
        fit_quietly(estimator, X, y)
    fit_quietly(estimator, X.transpose(0, 3, 1, 2), y)
