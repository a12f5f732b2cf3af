"""Dense layers by the faster product are those of torch, in every setting."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from sktarget import _linear
from sktarget._linear import Linear, affine
from sktarget.linalg import _products
from tests.helpers import assert_all_close, needs_onednn, normal

pytestmark = needs_onednn


@pytest.fixture
def calls(onednn_calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record what goes to oneDNN: all products, as if none were too small."""
    for module, name in [
        (_products, "_ONEDNN_LEAST"),
        (_products, "_COPY_LEAST"),
        (_products, "_COPY_USES"),
        (_linear, "_MANY_IN_GRAPH"),
    ]:
        monkeypatch.setattr(module, name, 0)
    return onednn_calls


def tensors(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = normal(*shape), normal(7, shape[-1], seed=1)
    return x.float(), weight.float(), normal(7, seed=2).float()


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (1, 1), (0, 4)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values(shape: tuple[int, ...], with_bias: bool, calls: list[Any]) -> None:
    x, weight, bias = tensors(*shape)
    b = bias if with_bias else None
    for inputs in (x, x.mT.contiguous().mT):
        assert_all_close([affine(inputs, weight, b)], [F.linear(x, weight, b)], 1e-5)
    assert len(calls) == 2


def test_vectors_are_left_to_torch(calls: list[Any]) -> None:
    x, weight, bias = tensors(4)
    assert affine(x, weight, bias).shape == (7,)
    assert not calls


Function = Callable[..., Tensor]


def gradients(
    function: Function, given: tuple[Tensor, ...], wanted: list[int]
) -> list[Tensor]:
    """First derivatives, and those of the sum of their squares."""
    own = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(given)]
    out = function(*own)
    leaves = [own[i] for i in wanted]
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    total = torch.stack([g.square().sum() for g in first]).sum()
    return [*first, *torch.autograd.grad(total, leaves, allow_unused=True)]


@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 1], [0, 1, 2]])
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4)])
def test_gradients(wanted: list[int], shape: tuple[int, ...], calls: list[Any]) -> None:
    given = tensors(*shape)
    found = gradients(affine, given, wanted)
    assert calls
    assert_all_close(found, gradients(F.linear, given, wanted), 1e-4)


def test_outputs_may_be_changed_in_place(calls: list[Any]) -> None:
    x, weight, bias = tensors(9, 4)
    for inputs in (x, x.T.contiguous().T):
        leaf = inputs.requires_grad_()
        F.relu(affine(leaf, weight, bias), inplace=True).sum().backward()
        assert leaf.grad is not None
    assert calls


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_are_left_to_torch(calls: list[Any]) -> None:
    x, weight, bias = tensors(5, 4)
    expected = F.linear(x, weight, bias)
    found = torch.func.vmap(lambda row: affine(row[None], weight, bias)[0])(x)
    slopes = torch.func.grad(lambda w: affine(x, w, bias).sum())(weight)
    of_bias = torch.func.grad(lambda b: affine(x, weight, b).sum())(bias)
    leaf = x.clone().requires_grad_()  # nothing to do with the transform
    other = torch.func.grad(lambda s: (s * affine(leaf, weight, bias)).sum())
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(affine(dual, weight, bias)).tangent
    assert_all_close(
        [found, slopes[0], tangent[0]], [expected, x.sum(0), weight.sum(1)], 1e-5
    )
    assert_all_close(
        [of_bias, other(torch.tensor(2.0))],
        [torch.full_like(bias, len(x)), expected.sum()],
        1e-4,
    )
    layer = Linear(4, 7)
    for run in (
        torch.jit.trace(layer, torch.zeros(2, 4), check_trace=False),
        torch.fx.symbolic_trace(layer),
        torch.compile(layer, backend="eager", fullgraph=True),
        torch.export.export(layer, (x,)).module(),
    ):
        assert_all_close([run(x)], [F.linear(x, layer.weight, layer.bias)], 1e-5)
    assert not calls


def test_other_arithmetic_is_left_to_torch(calls: list[Any]) -> None:
    x, weight, bias = tensors(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert affine(x, weight, bias).dtype == torch.bfloat16
    assert affine(x.double(), weight.double(), bias.double()).dtype == torch.float64
    with pytest.raises(RuntimeError, match="same dtype"):
        affine(x, weight.double(), bias)
    assert affine(x.to("meta"), weight.to("meta")).shape == (5, 7)
    assert not calls


def test_wrong_shapes_raise(calls: list[Any]) -> None:
    x, weight, bias = tensors(5, 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        affine(x[:, :3], weight, bias)


def test_small_products_stay_with_torch(onednn_calls: list[Any]) -> None:
    x, weight = torch.zeros(200, 100), torch.zeros(100, 100)
    affine(x[:100], weight)
    affine(x.clone().requires_grad_(), weight).sum().backward()
    assert not onednn_calls
    affine(x, weight)
    assert onednn_calls


def test_layer_is_like_that_of_torch() -> None:
    layer = Linear(3, 2, bias=False)
    assert isinstance(layer, nn.Linear)
    assert repr(layer) == repr(nn.Linear(3, 2, bias=False))
