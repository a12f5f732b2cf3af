"""Products by oneDNN are those of BLAS, alone and within networks."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sktarget.linalg import _products, add_product, gramian, is_for_onednn, product
from sktarget.nn import TargetSpace
from tests.helpers import needs_onednn, normal

EPS = torch.finfo(torch.float32).eps
SHAPES = [
    *((200, 110, 100), (100, 3000, 70), (3000, 90, 10)),  # for oneDNN, if there is one
    *((3, 700, 600), (700, 3, 9)),
    *((5, 5000, 7), (60, 5000, 3)),  # narrow, of a common axis that is cut
]

Layout = Callable[[Tensor], Tensor]
LAYOUTS: dict[str, Layout] = {
    "rows": lambda x: x,
    "columns": lambda x: x.T.contiguous().T,
    "behind a row": lambda x: torch.cat([x[:1], x])[1:],
    "beside a column": lambda x: torch.cat([x[:, :1], x], 1)[:, 1:],
    "columns with gaps": lambda x: torch.cat([x[:1], x]).T.contiguous().T[1:],
    "every second column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
}


def assert_is_product(found: Tensor, left: Tensor, right: Tensor, to: Any = 0) -> None:
    exact = left.double() @ right.double() + to
    scale = left.norm().double() * right.norm()
    assert found.dtype == torch.float32
    assert torch.dist(found.double(), exact) <= 4 * EPS * scale


def biases(m: int) -> list[Tensor]:
    """Make biases whose numbers lie side by side, apart, or are all the same one."""
    columns = normal(m, 7, seed=2, dtype=torch.float32)
    rows = columns.T.contiguous()
    return [rows[0], columns[:, 3], rows[4], columns[:1, 5].expand(m)]


@pytest.fixture(params=["BLAS", pytest.param("oneDNN", marks=needs_onednn)])
def calls(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> list[Any] | None:
    """Let products go to either library, whichever is faster here; None is for BLAS."""
    if request.param == "BLAS":
        monkeypatch.setattr(_products, "_ONEDNN", None)
        return None
    made: list[Any] = request.getfixturevalue("onednn_calls")
    return made


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("of_left", LAYOUTS)
@pytest.mark.parametrize("of_right", LAYOUTS)
def test_layouts(
    shape: tuple[int, int, int], of_left: str, of_right: str, calls: list[Any] | None
) -> None:
    n, k, m = shape
    left = LAYOUTS[of_left](normal(n, k, dtype=torch.float32))
    right = LAYOUTS[of_right](normal(k, m, seed=1, dtype=torch.float32))
    assert_is_product(product(left, right), left, right)
    for bias in biases(m):
        assert_is_product(product(left, right, bias), left, right, bias)
    out = torch.ones(n, m)
    add_product(out, left, right)
    assert_is_product(out, left, right, 1)
    if calls is not None and shape in SHAPES[:3]:
        assert len(calls) >= 6  # the product, with each bias, and added


@needs_onednn
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_products_go_to_onednn(
    layout: str, onednn_calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = LAYOUTS[layout](normal(200, 120, dtype=torch.float32))
    right = normal(120, 110, dtype=torch.float32)
    product(left, right)
    product(right.T, left.T)
    assert len(onednn_calls) == 2
    product(left[:20], right)
    product(left.double(), right.double())
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    product(left, right)
    assert len(onednn_calls) == 2


@needs_onednn
def test_factors_never_have_gaps(onednn_calls: list[Any]) -> None:
    # Between the rows of a factor they cost oneDNN a thousand times the time.
    for of_left in LAYOUTS.values():
        for of_right in LAYOUTS.values():
            left = of_left(normal(300, 100, dtype=torch.float32))
            right = of_right(normal(100, 100, dtype=torch.float32))
            product(left, right)
    assert len(onednn_calls) == len(LAYOUTS) ** 2
    for _, right, *_ in onednn_calls:
        assert right.is_contiguous() or right.T.is_contiguous()


def test_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_products, "_ONEDNN", None)
    left, right = (normal(300, 300, seed=i, dtype=torch.float32) for i in range(2))
    assert not is_for_onednn(left, 300)
    assert_is_product(product(left, right), left, right)
    out = torch.zeros(300, 300)
    add_product(out, left, right)
    assert_is_product(out, left, right)


@needs_onednn
def test_what_is_recorded_stays_with_blas(onednn_calls: list[Any]) -> None:
    left, right = (normal(300, 300, seed=i, dtype=torch.float32) for i in range(2))
    left.requires_grad_()
    product(left, right).sum().backward()
    assert left.grad is not None
    torch.testing.assert_close(left.grad, right.sum(1).expand(300, 300))
    assert not onednn_calls
    with torch.no_grad():
        product(left, right)
    assert onednn_calls


def test_a_product_is_no_view(onednn_calls: list[Any]) -> None:
    # Views that are made within an autograd node cannot be changed in place.
    for layout in LAYOUTS.values():
        for left, right in [
            (normal(300, 100), normal(100, 90)),
            (normal(90, 2000), normal(2000, 80)),
            (normal(400, 300), normal(300, 50)),
        ]:
            assert product(layout(left.float()), right.float())._base is None
            bias = torch.zeros(right.shape[1])
            assert product(layout(left.float()), right.float(), bias)._base is None
    assert onednn_calls or _products._ONEDNN is None


@pytest.mark.parametrize("k", [255, 256, 300, 600])
@pytest.mark.parametrize("n", [20, 256, 700])
@pytest.mark.parametrize("ones", [False, True])
def test_wide_gramians(n: int, k: int, ones: bool, onednn_calls: list[Any]) -> None:
    rows = normal(n, k, dtype=torch.float32)
    exact = torch.cat([torch.ones(n, 1), rows], 1) if ones else rows
    gram = gramian(rows, ones=ones)
    error = (gram.double() - exact.T.double() @ exact.double()).tril()
    assert error.norm() <= 4 * EPS * exact.square().sum()
    wide = k >= 256 and (ones or n >= 256)
    assert bool(onednn_calls) == (wide and _products._ONEDNN is not None)


@pytest.mark.parametrize("n", [1000, 10_000, 40_000])
def test_rounding_of_a_wide_gramian(n: int, calls: list[Any] | None) -> None:
    rows = torch.full((n, 256), 0.1)  # All errors have one sign.
    error = gramian(rows).tril().double() - gramian(rows.double()).tril()
    error = error + error.tril(-1).T
    # The smallest ridge that is added to a Gramian in single precision is 16 ετ.
    trace = rows.double().square().sum()
    assert torch.linalg.eigvalsh(error).abs().max() < 16 * EPS * trace
    assert calls is None or calls


def test_rounding_over_many_rows(calls: list[Any] | None) -> None:
    left, right = torch.full((100_000, 60), 0.1), torch.full((100_000, 50), 0.1)
    exact = (left.T.double() @ right.double())[0, 0]
    for columns in (left.T, left.T.contiguous()):
        assert (product(columns, right) - exact).abs().max() <= 64 * EPS * exact
    assert calls is None or calls


class Recurrent(nn.Module):
    """The outputs of a simple recurrent layer, read by a dense one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.RNN(10, 96, batch_first=True), nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.rnn(x)[0])


def dense(width: int) -> nn.Module:
    hidden = [nn.Linear(20, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def convolutional() -> nn.Module:
    # Of rectifiers and maxima the gradient jumps where rounding turns a sign.
    maps = nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)
    more = nn.Conv2d(16, 32, 3, padding=1), nn.Tanh(), nn.Flatten()
    return nn.Sequential(*maps, *more, nn.Linear(32 * 49, 50), nn.Linear(50, 4))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: dense(100), (400, 20)),
        (lambda: dense(300), (300, 20)),
        (lambda: dense(100), (1100, 20)),
        (convolutional, (60, 1, 14, 14)),
        (Recurrent, (150, 6, 10)),
    ],
    ids=["100 units", "300 units", "large outputs", "maps", "steps"],
)
def test_networks_in_single_precision(
    make: Callable[[], nn.Module], shape: tuple[int, ...], onednn_calls: list[Any]
) -> None:
    torch.manual_seed(0)
    fixed, x = normal(*shape), normal(*shape, seed=1)
    network, found = make(), []
    for dtype in (torch.float32, torch.float64):
        made = copy.deepcopy(network).to(dtype)
        net = TargetSpace(made, fixed.to(dtype), lam=10.0)
        out = net(x.to(dtype))
        gradients = torch.autograd.grad(out.square().mean(), list(net.parameters()))
        found.append([out, *gradients])
        assert onednn_calls or _products._ONEDNN is None
    for single, double in zip(*found, strict=True):
        assert torch.dist(single, double) <= 1e-4 * double.norm()


@pytest.mark.parametrize("k", [95, 96, 255, 511, 513, 1100])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("ones", [False, True])
def test_stripes_of_gramians(k: int, layout: str, ones: bool) -> None:
    rows = LAYOUTS[layout](normal(400, k))
    whole = torch.cat([torch.ones(400, int(ones)), rows], 1)
    found = gramian(rows, ones=ones).tril()
    torch.testing.assert_close(found, (whole.T @ whole).tril())
