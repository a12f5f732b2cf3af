"""Gradients of recurrent layers in target space."""

import math

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from sktarget.nn import _scan
from sktarget.nn._scan import linear_scan
from tests.nn.recurrent_networks import (
    Network,
    batch,
    every_kind,
    has_right_gradients,
    wrap,
)


@every_kind
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("n_steps", [3, 4])
def test_gradcheck(kind: str, untangling: str, n_steps: int) -> None:
    module = Network(kind, num_layers=2, bidirectional=True)
    net = wrap(module, batch(3, 4, 2), untangling=untangling)
    assert has_right_gradients(net, batch(2, n_steps, 2))


def _step(kind: str, s: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    if kind in ("tanh", "relu"):
        return getattr(s, kind)(), c
    p, q, u, v = s.chunk(4, 1)
    if kind == "lstm":
        c = q.sigmoid() * c + p.sigmoid() * u.tanh()
        return v.sigmoid() * c.tanh(), c
    n = torch.tanh(u + p.sigmoid() * v)
    return n + q.sigmoid() * (h - n), c


def _loop(kind: str, x: Tensor, matrix: Tensor | None, targets: Tensor) -> Tensor:
    """Run a cell with its matrix, or, without one, as if all targets were met."""
    h = c = x.new_zeros(len(x), 4)
    outputs = []
    for t in range(x.shape[1]):
        if matrix is None:
            s = targets[:, t]
        else:
            s = torch.cat([torch.ones_like(h[:, :1]), x[:, t], h], 1) @ matrix
        h, c = _step(kind, s, h, c)
        outputs.append(h)
    return torch.stack(outputs, 1)


def _ridge(rows: Tensor, targets: Tensor) -> Tensor:
    gram = rows.T @ rows + 0.1 * torch.eye(rows.shape[1], dtype=rows.dtype)
    return torch.linalg.solve(gram, rows.T @ targets)


def _slow_layer(kind: str, x_bar: Tensor, targets: Tensor) -> Tensor:
    h = _loop(kind, x_bar, None, targets)
    context = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    ones = torch.ones_like(h[:, :, :1])
    rows = torch.cat([ones, x_bar, context], 2).flatten(0, 1)
    t = targets.flatten(0, 1)
    if kind != "gru":
        return _ridge(rows, t)
    d = x_bar.shape[2]
    both = _ridge(rows, t[:, :8])
    u, v = (
        _ridge(rows[:, : 1 + d], t[:, 8:12]),
        _ridge(rows[:, [0, *range(1 + d, 5 + d)]], t[:, 12:]),
    )
    u = torch.cat([u, u.new_zeros(4, 4)])
    v = torch.cat([v[:1], v.new_zeros(d, 4), v[1:]])
    return torch.cat([both, u, v], 1)


@every_kind
@pytest.mark.parametrize("n_steps", [5, 6])
def test_gradients_of_plain_autograd_through_loops(kind: str, n_steps: int) -> None:
    x_bar, x = batch(6, 5, 2), batch(3, n_steps, 2)
    net = wrap(Network(kind, num_layers=2), x_bar)
    net(x).square().sum().backward()
    layers = net.target_layers()
    t0, t1, t2 = (m.targets.detach().clone().requires_grad_() for m in layers.values())
    for t in (t0, t1):
        matrix = _slow_layer(kind, x_bar, t)
        x_bar, x = _loop(kind, x_bar, matrix, t), _loop(kind, x, matrix, t)
    ones = torch.ones_like(x_bar[:, :, :1])
    w = _ridge(torch.cat([ones, x_bar], 2).flatten(0, 1), t2.flatten(0, 1))
    (x @ w[1:] + w[0]).square().sum().backward()
    for fast, slow in zip(net.parameters(), (t0, t1, t2), strict=True):
        assert_allclose(fast.grad, slow.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("many", [1, math.inf], ids=["step by step", "doubling"])
def test_linear_scan(many: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scan, "_MANY", many)
    for n_steps in (1, 2, 3, 8, 13):
        decay = torch.rand(2, n_steps, 3, dtype=torch.float64).requires_grad_()
        gain = batch(2, n_steps, 3).requires_grad_()
        c, states = torch.zeros(2, 3, dtype=torch.float64), []
        for t in range(n_steps):
            c = decay[:, t] * c + gain[:, t]
            states.append(c)
        assert_allclose(
            linear_scan(decay, gain).detach(), torch.stack(states, 1).detach()
        )
        assert torch.autograd.gradcheck(linear_scan, (decay, gain))
