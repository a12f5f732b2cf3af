"""tanh by NumPy is that of torch, in every setting that torch's own works in."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sktarget import _tanh
from sktarget._tanh import Tanh, tanh, tanh_
from tests.helpers import normal

Calls = list[tuple[int, ...]]


@pytest.fixture
def by_numpy(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Record the shapes that NumPy computes, from the first number on, anywhere."""
    calls: Calls = []
    true_tanh = np.tanh

    def counted(x: np.ndarray, **kwargs: np.ndarray) -> np.ndarray:
        calls.append(x.shape)
        return true_tanh(x, **kwargs)

    monkeypatch.setattr(_tanh.np, "tanh", counted)
    monkeypatch.setattr(_tanh, "ON_INTEL", False)
    monkeypatch.setattr(_tanh, "_FEW", 0)
    monkeypatch.setattr(_tanh, "_FEW_IN_GRAPH", 0)
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apply", [tanh, Tanh(), lambda x: tanh_(x.clone())])
def test_values(
    apply: Callable[[Tensor], Tensor], dtype: torch.dtype, by_numpy: Calls
) -> None:
    x = torch.cat([normal(50, 3) * 10.0**k for k in (-6, 0, 2)]).to(dtype)
    x[0] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        apply(x), torch.tanh(x), rtol=4 * eps, atol=0, equal_nan=True
    )
    assert by_numpy == [x.shape]


def test_gradients(by_numpy: Calls) -> None:
    x = normal(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(tanh, x)
    assert torch.autograd.gradgradcheck(tanh, x)
    assert by_numpy


def test_parameters_and_views(by_numpy: Calls) -> None:
    x = nn.Parameter(normal(6, 4))
    for part in (x, x.T, x[:, 1:3]):
        assert part.requires_grad
        torch.testing.assert_close(tanh(part), torch.tanh(part))
    with torch.no_grad():
        torch.testing.assert_close(tanh(x.T), torch.tanh(x.T))
        whole = x.clone()
        tanh_(whole[:, 1:3])
        torch.testing.assert_close(whole[:, 1:3], torch.tanh(x[:, 1:3]))
        torch.testing.assert_close(whole[:, 3:], x[:, 3:])
    assert len(by_numpy) == 5


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_are_left_to_torch(by_numpy: Calls) -> None:
    x = normal(5, 3)
    torch.testing.assert_close(torch.func.vmap(tanh)(x), torch.tanh(x))
    slope = torch.func.vmap(torch.func.grad(lambda row: tanh(row).sum()))(x)
    torch.testing.assert_close(slope, 1 - torch.tanh(x) ** 2)
    leaf = x.clone().requires_grad_()  # nothing to do with the transform
    slope = torch.func.grad(lambda s: (s * tanh(leaf)).sum())(x[0, 0])
    torch.testing.assert_close(slope, torch.tanh(x).sum())
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(tanh(dual)).tangent
    torch.testing.assert_close(tangent, 1 - torch.tanh(x) ** 2)
    negated = torch.complex(x, x).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(tanh(negated), -torch.tanh(x))
    assert not by_numpy


def test_what_numpy_is_not_for(
    by_numpy: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for x in (normal(4).bfloat16(), torch.empty(4, device="meta")):
        assert tanh(x).dtype == tanh_(x.clone()).dtype == x.dtype
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    tanh(normal(4))
    assert not by_numpy


def test_few_numbers_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tanh.np, "tanh", None)
    monkeypatch.setattr(_tanh, "ON_INTEL", False)
    tanh(normal(511))
    tanh(normal(8191).requires_grad_())
