"""Dense layers that measure their inputs in units of these."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from sktarget._linear import Linear
from sktarget.architectures import DenseNetwork
from sktarget.nn import TargetSpace
from tests.helpers import assert_all_close, normal

F64 = torch.float64
ORIGIN = torch.tensor([3.0, -200.0, 0.0, 1e4], dtype=F64)
UNIT = torch.tensor([0.01, 30.0, 1.0, 500.0], dtype=F64)


def as_they_come(z: Tensor) -> Tensor:
    """Return what the standardised inputs were before."""
    return ORIGIN + UNIT * z


def pair(
    n_fixed: int, shortcuts: bool, **options: Any
) -> tuple[TargetSpace, TargetSpace]:
    """Make networks of equal targets, on inputs in units and as they come."""
    nets = []
    for measures in (False, True):
        generator = torch.Generator().manual_seed(0)
        module = DenseNetwork(
            4, (5, 6), 2, "tanh", shortcuts=shortcuts, generator=generator, dtype=F64
        )
        z = normal(n_fixed, 4)
        if measures:
            module.measure_inputs(ORIGIN, UNIT)
        x = as_they_come(z) if measures else z
        nets.append(TargetSpace(module, x, lam=0.3, **options).train())
    plain, measured = nets
    with torch.no_grad():
        for p, q in zip(plain.parameters(), measured.parameters(), strict=True):
            q.copy_(p)
    return plain, measured


@pytest.mark.parametrize("n_fixed", [3, 30], ids=["dual", "primal"])
@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_as_if_inputs_came_in_units(
    n_fixed: int, shortcuts: bool, untangling: str
) -> None:
    plain, measured = pair(n_fixed, shortcuts, untangling=untangling)
    z = normal(7, 4, seed=1).requires_grad_()
    x = as_they_come(z.detach()).requires_grad_()
    found = []
    for net, inputs in ((plain, z), (measured, x)):
        outputs, weights = net.forward_with_weights(inputs)
        loss = outputs.exp().sum() + sum(w.square().sum() for w in weights)
        found.append([outputs, *torch.autograd.grad(loss, [inputs, *net.parameters()])])
    (expected, by_z, *by_targets), (outputs, by_x, *others) = found
    assert_all_close(
        [outputs, by_x * UNIT, *others], [expected, by_z, *by_targets], 1e-10
    )
    assert_all_close([measured.eval()(x)], [expected], 1e-10)
    realised = measured.realise()
    assert_all_close([realised(x)], [expected], 1e-10)
    again: Any = copy.deepcopy(measured).train()
    assert_all_close([again(x)], [expected], 1e-10)


def test_sums_are_those_of_the_weights_given() -> None:
    x = as_they_come(normal(30, 4))
    module = DenseNetwork(4, (5,), 2, "tanh", dtype=F64)
    with torch.no_grad():
        module.layers[0].weight.div_(UNIT)
        module.layers[0].bias.sub_(module.layers[0].weight @ ORIGIN)
    before = module(x)
    module.measure_inputs(ORIGIN, UNIT)
    assert_all_close([module(x)], [before], 1e-10)
    net = TargetSpace(module, x, lam=0.3, keep_weights=True).eval()
    assert_all_close([net(x)], [before], 1e-8)
    others = as_they_come(normal(5, 4, seed=2))
    assert_all_close([net(others)], [module(others)], 1e-8)


def test_without_a_bias_there_is_no_origin() -> None:
    layer = Linear(4, 3, bias=False).double()
    z = normal(20, 4)
    plain = TargetSpace(layer, z, lam=0.3)
    layer.input_units = (ORIGIN, UNIT)
    measured = TargetSpace(layer, UNIT * z, lam=0.3)
    with torch.no_grad():
        measured.module.targets.copy_(plain.module.targets)
    assert_all_close([measured(UNIT * z)], [plain(z)], 1e-10)


def test_units_follow_to_another_arithmetic() -> None:
    _, measured = pair(30, False)
    x = as_they_come(normal(6, 4))
    narrow = copy.deepcopy(measured).float()
    assert narrow(x.float()).dtype == torch.float32
    torch.testing.assert_close(
        narrow(x.float()).double(), measured(x), rtol=0, atol=1e-3
    )
