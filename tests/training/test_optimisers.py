"""Optimisers of our own."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sktarget.training._optimisers import CentredRMSprop, FusedAdam

OPTIONS: dict[str, Any] = {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-15}


def maps(seed: int, layout: torch.memory_format = torch.channels_last) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 5, 6, generator=generator).contiguous(memory_format=layout)


def parameters() -> list[nn.Parameter]:
    """Maps with their channels last, a vector, a number, and one never learnt."""
    values = [maps(0), torch.ones(7), torch.ones(()), maps(1)]
    return [nn.Parameter(value) for value in values]


def give_gradients(to: list[nn.Parameter], step: int, layout: Any) -> None:
    to[0].grad = maps(10 + step, layout)
    to[1].grad = torch.full((7,), float(step - 1))
    to[2].grad = torch.tensor(0.5)


# Gradients that lie otherwise than their parameters are left to torch.
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_fused_adam_is_that_of_torch(
    layout: torch.memory_format, amsgrad: bool
) -> None:
    ours, truth = parameters(), parameters()
    fused = FusedAdam(ours, amsgrad=amsgrad, **OPTIONS)
    plain = torch.optim.Adam(truth, amsgrad=amsgrad, **OPTIONS)
    for step in range(4):
        for group, optimiser in ((ours, fused), (truth, plain)):
            give_gradients(group, step, layout)
            optimiser.step()
        if step == 1:  # as a file would bring the state back
            state = copy.deepcopy(fused.state_dict())
            fused = FusedAdam(ours, amsgrad=amsgrad, **OPTIONS)
            fused.load_state_dict(state)
    for a, b in zip(ours, truth, strict=True):
        assert a.stride() == b.stride()
        torch.testing.assert_close(a, b)
    moments = fused.state[ours[0]]["exp_avg"]
    torch.testing.assert_close(moments, plain.state[truth[0]]["exp_avg"])
    assert moments.stride() == ours[0].stride()
    assert ours[3] not in fused.state


def test_fused_adam_reads_maps_as_they_lie() -> None:
    class AdamCalls(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten._fused_adam_.default:
                given.extend(tensor for tensors in args[:4] for tensor in tensors)
            return func(*args, **(kwargs or {}))

    given: list[Tensor] = []
    learnt = parameters()
    optimiser = FusedAdam(learnt, **OPTIONS)
    give_gradients(learnt, 0, torch.channels_last)
    with AdamCalls():
        optimiser.step()
    assert len(given) == 4 * 3
    assert all(tensor.is_contiguous() for tensor in given)


def test_steady_gradients_leave_rmsprop_finite() -> None:
    weight = nn.Parameter(torch.zeros(5000))
    optimiser = CentredRMSprop([weight], lr=0.01)
    weight.grad = torch.logspace(1, 5, 5000)
    for _ in range(600):
        optimiser.step()
    assert weight.isfinite().all()
