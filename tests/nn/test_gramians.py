"""Gramians of patches, gathered or from the autocorrelation of maps."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sktarget.nn import _autocorrelation, _conv_operator, _spectrum
from sktarget.nn._autocorrelation import same_gramian
from sktarget.nn._conv_operator import ConvOperator
from sktarget.nn._patches import Window, patch_gramian, patches
from sktarget.nn._spectrum import autocorrelation
from tests import reference
from tests.helpers import normal

F64 = torch.float64


def make_maps(*extents: int) -> Tensor:
    return normal(7, 4, *extents) + 0.5


@pytest.mark.parametrize(
    ("extents", "kernel"),
    [
        ((7,), (3,)),
        ((150,), (9,)),
        ((2,), (5,)),
        ((6, 7), (3, 3)),
        ((6, 5), (1, 5)),
        ((1, 1), (3, 3)),
        ((2, 3), (5, 7)),
        ((50, 7), (3, 3)),
        ((45, 90), (5, 3)),
        ((70, 41), (15, 1)),
        ((4, 5, 3), (3, 3, 3)),
        ((4, 5, 6), (3, 1, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("ones", [False, True])
def test_autocorrelation_and_patches_agree(
    extents: tuple[int, ...], kernel: tuple[int, ...], ones: bool
) -> None:
    maps = make_maps(*extents).movedim(1, -1)
    n = len(kernel)
    window = Window(kernel, (1,) * n, tuple(k // 2 for k in kernel), (1,) * n)
    assert window.is_same()
    expected = patch_gramian(maps, window, F64, ones=ones)[0]
    ours = same_gramian(maps, kernel, F64, ones=ones)
    scale = expected.diagonal().max()
    torch.testing.assert_close((ours / scale).tril(), (expected / scale).tril())


@pytest.mark.parametrize(
    ("extents", "kernel", "dilation"),
    [
        ((9,), (3,), (2,)),
        ((10,), (5,), (3,)),
        ((2,), (3,), (2,)),
        ((6, 7), (3, 3), (2, 2)),
        ((8, 9), (3, 5), (4, 1)),
        ((5, 7), (1, 3), (3, 2)),
        ((4, 5, 6), (3, 1, 3), (2, 1, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_gramians_of_dilated_and_grouped_kernels(
    extents: tuple[int, ...],
    kernel: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_conv_operator, "_FEW_CHANNELS", 1)
    padding = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
    window = Window(kernel, (1,) * len(kernel), padding, dilation)
    operator = _conv_operator.ConvOperator(window, groups, bias)
    maps = make_maps(*extents)
    inputs = operator.rows(maps)
    assert operator._has_same_gramian(inputs.movedim(1, -1))
    ours = operator.gramian(inputs, F64)
    expected = patch_gramian(
        inputs.movedim(1, -1), window, F64, ones=bias, groups=groups
    )
    scale = expected.diagonal(dim1=-2, dim2=-1).max()
    torch.testing.assert_close(
        (ours / scale).tril(), (expected.view_as(ours) / scale).tril()
    )


def test_autocorrelation_is_its_definition() -> None:
    maps = make_maps(4, 5).movedim(1, -1)
    lags = autocorrelation(maps, (1, 1), F64)
    assert lags.shape == (5, 5, 4, 4)
    shifted = maps[:, 1:, :3].flatten(0, 2)
    expected = maps[:, :3, 2:].flatten(0, 2).T @ shifted
    torch.testing.assert_close(lags[2 + 1, 2 - 2], expected)


def test_spectra_do_not_depend_on_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = make_maps(6, 5).movedim(1, -1)
    whole = autocorrelation(maps, (1, 1), F64)
    monkeypatch.setattr(_spectrum, "_SLICE", 1)
    for share in (0.0, 0.5):
        monkeypatch.setattr(_spectrum, "_SHARE", share)
        torch.testing.assert_close(autocorrelation(maps, (1, 1), F64), whole)


@pytest.mark.parametrize(("extent", "c"), [(28, 16), (28, 1), (7, 5), (7, 64)])
def test_rounding_of_gramians_of_like_maps(extent: int, c: int) -> None:
    maps = torch.full((100, extent, extent, c), 0.1)  # All errors have one sign.
    ours = same_gramian(maps, (3, 3), torch.float32).tril().double()
    error = ours - same_gramian(maps.double(), (3, 3), F64).tril()
    error = error + error.tril(-1).T
    # The smallest ridge that is added to a Gramian in single precision is 16 ετ.
    allowed = 16 * torch.finfo(torch.float32).eps * ours.trace()
    assert torch.linalg.eigvalsh(error).abs().max() < allowed


@pytest.mark.parametrize(
    ("shape", "kernel", "groups", "stride"),
    [
        ((1000, 1, 300), (3,), 1, (1,)),
        ((1000, 16, 300), (3,), 1, (1,)),
        ((1000, 3, 32, 32), (1, 1), 1, (1, 1)),
        ((1000, 4, 28, 28), (3, 3), 4, (1, 1)),
        ((1000, 4, 28, 28), (3, 3), 4, (2, 2)),
        ((100, 32, 28, 28), (3, 3), 8, (1, 1)),
    ],
)
def test_rounding_of_gramians_of_few_columns(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    groups: int,
    stride: tuple[int, ...],
) -> None:
    once, padding = (1,) * len(kernel), tuple(k // 2 for k in kernel)
    operator = ConvOperator(Window(kernel, stride, padding, once), groups, bias=True)
    rows = operator.rows(torch.full(shape, 0.1))
    ours = operator.gramian(rows, torch.float32).tril().double()
    error = ours - operator.gramian(rows.double(), F64).tril()
    error = error + error.tril(-1).mT
    trace = ours.diagonal(0, -2, -1).sum(-1).max()
    allowed = 16 * torch.finfo(torch.float32).eps * trace
    assert torch.linalg.eigvalsh(error).abs().max() < allowed


def _like_one_another(n: int, *shape: int) -> Tensor:
    torch.manual_seed(0)
    return 3 + torch.rand(shape) + 0.01 * torch.randn(n, *shape)


def _uneven(n: int, *shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(n, *shape) * torch.logspace(-2, 2, shape[-1])


def _brighter_and_darker(n: int, *shape: int) -> Tensor:
    torch.manual_seed(0)
    brightness = torch.rand(n, *(1 for _ in shape))
    return 5 + brightness + 0.01 * torch.randn(n, *shape)


@pytest.mark.parametrize("make", [_like_one_another, _uneven, _brighter_and_darker])
@pytest.mark.parametrize("shape", [(28, 28, 16), (7, 7, 32), (30, 12), (6, 6, 6, 12)])
@pytest.mark.parametrize("ones", [False, True])
def test_rounding_about_the_mean_map_stays_below_the_ridge(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Tensor],
    shape: tuple[int, ...],
    ones: bool,
) -> None:
    maps, kernel = make(50, *shape), (3,) * (len(shape) - 1)
    exact = same_gramian(maps, kernel, F64, ones=ones)
    n_columns = math.prod(kernel)
    about = (maps - maps.mean(0)).double().square().sum().item() * n_columns
    smallest = 4 * torch.finfo(torch.float32).eps * about
    monkeypatch.setattr(_autocorrelation, "_fill", _in_single(_autocorrelation._fill))
    ours = same_gramian(maps, kernel, F64, ones=ones, ridge=1.01 * smallest)
    assert ours.dtype == F64
    error = (ours - exact).tril()
    assert error.abs().max() > 0
    error = error + error.tril(-1).mT
    assert torch.linalg.eigvalsh(error).abs().max() < smallest / 4
    with pytest.raises(AssertionError, match="in double"):
        same_gramian(maps, kernel, F64, ones=ones, ridge=0.99 * smallest)


def _in_single(fill: Callable[..., None]) -> Callable[..., None]:
    def checked(gram: Tensor, *rest: Any) -> None:
        assert gram.dtype == torch.float32, "in double"
        fill(gram, *rest)

    return checked


def test_no_ridge_takes_precision_from_maps_in_double() -> None:
    maps = _like_one_another(7, 6, 5, 12).double()
    exact = same_gramian(maps, (3, 3), F64, ones=True).tril()
    ours = same_gramian(maps, (3, 3), F64, ones=True, ridge=1e9).tril()
    assert torch.equal(ours, exact)


def test_patch_gramian_does_not_depend_on_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = make_maps(6, 5).movedim(1, -1)
    window = Window((3, 2), (2, 1), (1, 0), (1, 2))
    whole = patch_gramian(maps, window, F64, ones=True, groups=2)
    monkeypatch.setattr("sktarget.nn._patches._SLICE", 1)
    sliced = patch_gramian(maps, window, F64, ones=True, groups=2)
    torch.testing.assert_close(whole, sliced)


def test_patches_are_rows_of_the_reference() -> None:
    maps = make_maps(6, 5)
    window = Window((3, 2), (2, 1), (1, 0), (1, 2))
    ours = patches(maps.movedim(1, -1), window)[0].unflatten(1, (6, 4)).mT.flatten(1)
    padding = ((1, 1), (0, 0))
    expected = reference.patches(maps.numpy(), (3, 2), (2, 1), padding, (1, 2))
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("decade", range(-3, 5))
def test_gramian_in_single_precision_keeps_what_lies_at_the_border(
    decade: int,
) -> None:
    # Were border terms lost in the difference, the interior would show it.
    torch.manual_seed(0)
    maps = torch.rand(20, 8, 8, 4)
    maps[:, 0] *= 10.0**decade
    maps[:, :, -1] *= 10.0 ** (decade / 2)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    exact = patch_gramian(maps, window, F64, ones=True)[0]
    ours = same_gramian(maps, (3, 3), torch.float32, ones=True)
    error = (ours - exact).tril().abs().max() / exact.diagonal().sum()
    assert error < 8 * torch.finfo(torch.float32).eps
