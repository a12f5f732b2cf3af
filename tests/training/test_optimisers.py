"""Optimisers of our own."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sktarget.training._optimisers import CentredRMSprop, FusedAdam, FusedSGD

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


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_fused_adam_is_adam(layout: torch.memory_format, amsgrad: bool) -> None:
    ours, truth = parameters(), parameters()
    fused = FusedAdam(ours, amsgrad=amsgrad, **OPTIONS)
    plain = torch.optim.Adam(truth, amsgrad=amsgrad, **OPTIONS)
    for step in range(4):
        for group, optimiser in ((ours, fused), (truth, plain)):
            give_gradients(group, step, layout)
            optimiser.step()
        if step == 1:
            state = brought_back(fused.state_dict())
            fused = FusedAdam(ours, amsgrad=amsgrad, **OPTIONS)
            fused.load_state_dict(state)
    for a, b in zip(ours, truth, strict=True):
        assert a.stride() == b.stride()
        torch.testing.assert_close(a, b)
    moments = fused.state[ours[0]]["exp_avg"]
    torch.testing.assert_close(moments, plain.state[truth[0]]["exp_avg"])
    assert moments.stride() == ours[0].stride()
    assert ours[3] not in fused.state


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_sgd_is_sgd(layout: torch.memory_format, momentum: float) -> None:
    ours, truth = parameters(), parameters()
    fused = FusedSGD(ours, lr=0.1, momentum=momentum)
    plain = torch.optim.SGD(truth, lr=0.1, momentum=momentum)
    for step in range(3):
        for group, optimiser in ((ours, fused), (truth, plain)):
            give_gradients(group, step, layout)
            optimiser.step()
    for a, b in zip(ours, truth, strict=True):
        assert a.stride() == b.stride()
        torch.testing.assert_close(a, b)


def brought_back(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a file may bring it back, which forgets how numbers lay."""
    state = copy.deepcopy(state)
    for entries in state["state"].values():
        entries.update({name: value.contiguous() for name, value in entries.items()})
    return state


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FusedAdam, {}),
        (FusedSGD, {"momentum": 0.9}),
        (CentredRMSprop, {}),
    ],
)
def test_going_on_is_as_if_there_had_been_no_end(kind: Any, options: Any) -> None:
    ours, truth = parameters(), parameters()
    ended, throughout = (kind(p, lr=0.1, **options) for p in (ours, truth))
    for step in range(3):
        give_gradients(truth, step, torch.channels_last)
        throughout.step()
    for step in range(2):
        give_gradients(ours, step, torch.channels_last)
        ended.step()
    state = brought_back(ended.state_dict())
    before = copy.deepcopy(state)
    again = kind(ours, lr=0.1, **options)
    again.load_state_dict(state)
    give_gradients(ours, 2, torch.channels_last)
    again.step()
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for name, value in before["state"][0].items():
        if value.ndim:  # the state given is left as it was
            assert torch.equal(state["state"][0][name], value)


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
    optimiser = FusedAdam(learnt, 0.1)
    give_gradients(learnt, 0, torch.channels_last)
    with AdamCalls():
        optimiser.step()
    assert len(given) == 4 * 3
    assert all(tensor.is_contiguous() for tensor in given)


def test_centred_rmsprop_follows_its_rule() -> None:
    lr, rho, momentum, eps = 0.1, 0.7, 0.6, 0.02
    rng = np.random.default_rng(0)
    learnt = [nn.Parameter(torch.from_numpy(rng.normal(size=(3, 4)))) for _ in range(2)]
    optimiser = CentredRMSprop(learnt, lr, rho, momentum, eps)
    p = np.stack([part.detach().numpy() for part in learnt])
    m, v, u = np.zeros((3, *p.shape))
    for _ in range(5):
        g = rng.normal(scale=0.3, size=p.shape)
        for part, gradient in zip(learnt, g, strict=True):
            part.grad = torch.from_numpy(gradient)
        optimiser.step()
        m = rho * m + (1 - rho) * g
        v = rho * v + (1 - rho) * g**2
        u = momentum * u - lr * g / np.sqrt(v - m**2 + eps)
        p = p + u
        for part, truth in zip(learnt, p, strict=True):
            np.testing.assert_allclose(part.detach(), truth, rtol=1e-12)


def test_steady_gradients_leave_rmsprop_finite() -> None:
    weight = nn.Parameter(torch.zeros(5000))
    optimiser = CentredRMSprop([weight], lr=0.01)
    weight.grad = torch.logspace(1, 5, 5000)
    for _ in range(600):
        optimiser.step()
    assert weight.isfinite().all()


@pytest.mark.parametrize("kind", [FusedAdam, FusedSGD])
def test_states_of_other_shapes_are_refused(kind: Any) -> None:
    small, large = (torch.nn.Parameter(torch.zeros(n)) for n in (3, 1000))
    options = {"momentum": 0.9} if kind is FusedSGD else {}
    before = kind([small], lr=0.1, **options)
    small.grad = torch.ones(3)
    before.step()
    with pytest.raises(ValueError, match=r"has the shape \(3,\), but .*\(1000,\)"):
        kind([large], lr=0.1, **options).load_state_dict(before.state_dict())
