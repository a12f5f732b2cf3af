"""The weights that λ pulls those of recurrent layers to."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sktarget.nn import TargetSpace
from tests import reference, reference_recurrent
from tests.nn.recurrent_networks import (
    Network,
    batch,
    every_kind,
    every_stack,
    grouped,
    has_right_gradients,
    leaves,
    recurrent,
    wrap,
)


def anchors_of(net: TargetSpace) -> list[Any]:
    layers = net.target_layers().values()
    return [m.anchor.numpy() for m in layers if m.anchor is not None]


@every_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("n_fixed", [6, 1])  # 42 rows, or 7, for 11 columns
def test_weights_are_those_of_a_ridge_towards_the_anchor(
    kind: str, bias: bool, untangling: str, n_fixed: int
) -> None:
    module = Network(kind, num_layers=2, bidirectional=True, bias=bias)
    fixed = batch(n_fixed, 7, 2)
    net = wrap(module, fixed, untangling=untangling, anchor="weights")
    weights, _, h = reference_recurrent.realise(
        kind,
        grouped(net, 2),
        fixed.numpy(),
        0.1,
        bias=bias,
        untangling=untangling,
        anchors=anchors_of(net),
    )
    realised = net.realise()
    found, n_inputs = iter(realised.rnn.all_weights), 2
    for layer in weights:
        for matrix in layer:
            wanted = reference_recurrent.to_torch(kind, matrix, n_inputs, bias)
            for a, b in zip(next(found), wanted, strict=True):
                assert_allclose(a.detach(), b, rtol=0, atol=1e-9)
        n_inputs = 8
    # The exit layer is pulled to zero.
    rows = np.hstack([np.ones((7 * n_fixed, 1)), h.reshape(7 * n_fixed, -1)])
    targets = net.target_layers()["exit"].targets.detach().numpy().reshape(-1, 3)
    wanted = reference.ridge(rows, targets, 0.1)
    assert_allclose(realised.exit.weight.detach().numpy(), wanted[1:].T, atol=1e-9)


@every_kind
@every_stack
@pytest.mark.parametrize("lam", [0.0, 1.0, 1e6])
def test_starts_as_the_given_network(
    kind: str, num_layers: int, bidirectional: bool, lam: float
) -> None:
    module = recurrent(kind, 2, 4, num_layers=num_layers, bidirectional=bidirectional)
    net = TargetSpace(module, batch(6, 7, 2), lam, anchor="weights")
    for x in (net.fixed_batch, batch(3, 12, 2)):
        for a, b in zip(leaves(net(x)), leaves(module(x)), strict=True):
            assert_allclose(a.detach(), b.detach(), atol=1e-9)


@every_kind
def test_a_large_lam_holds_to_the_given_weights(kind: str) -> None:
    module = recurrent(kind, 2, 4, bidirectional=True)
    net = wrap(module, batch(6, 7, 2), lam=1e12, anchor="weights")
    x = batch(3, 9, 2)
    for a, b in zip(leaves(net(x)), leaves(module(x)), strict=True):
        assert_allclose(a.detach(), b.detach(), atol=1e-9)


@every_kind
def test_a_vanishing_lam_leaves_no_trace_of_them(kind: str) -> None:
    module = recurrent(kind, 2, 4)
    fixed, x = batch(20, 7, 2), batch(3, 9, 2)
    net = wrap(module, fixed, lam=1e-9, anchor="weights")
    plain = TargetSpace(module, fixed, 1e-9)
    with torch.no_grad():
        for p, q in zip(plain.parameters(), net.parameters(), strict=True):
            p.copy_(q)
    for a, b in zip(leaves(net(x)), leaves(plain(x)), strict=True):
        assert_allclose(a.detach(), b.detach(), atol=1e-6)


@every_kind
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
@pytest.mark.parametrize("n_fixed", [5, 1])
def test_gradcheck(kind: str, untangling: str, n_fixed: int) -> None:
    module = Network(kind, num_layers=2, bidirectional=True)
    net = wrap(module, batch(n_fixed, 4, 2), untangling=untangling, anchor="weights")
    assert has_right_gradients(net, batch(2, 4, 2))


def test_anchors_are_part_of_the_state_and_no_parameters() -> None:
    module, x = Network("gru", num_layers=2), batch(3, 8, 2)
    net = wrap(module, batch(6, 7, 2), anchor="weights")
    assert len(list(net.parameters())) == 3
    out = net(x).detach()
    fresh = TargetSpace(
        Network("gru", num_layers=2), net.fixed_batch, 0.1, anchor="weights"
    )
    fresh.load_state_dict(net.state_dict())
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), fresh):
        assert_allclose(twin(x).detach(), out, atol=1e-12)
        assert_allclose(twin.eval()(x).detach(), out, atol=1e-12)
    single = copy.deepcopy(net).float()
    assert_allclose(single(x.float()).detach(), out, atol=1e-4)
    with pytest.raises(RuntimeError, match="anchor"):
        wrap(module, net.fixed_batch).load_state_dict(net.state_dict())


def test_the_given_module_may_change_later() -> None:
    module, x = recurrent("tanh", 2, 4), batch(3, 8, 2)
    net = TargetSpace(module, batch(6, 7, 2), 1.0, anchor="weights")
    before = net(x)[0].detach()
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    assert_allclose(net(x)[0].detach(), before, atol=1e-12)


def test_a_changed_anchor_changes_the_weights() -> None:
    net = TargetSpace(recurrent("gru", 2, 4), batch(6, 7, 2), 1.0, anchor="weights")
    x = batch(3, 8, 2)
    before = net.eval()(x)[0].detach()
    net.target_layers()["l0"].anchor.add_(1.0)
    after = net(x)[0].detach()
    assert (after - before).abs().max() > 0.01
    assert_allclose(net.train()(x)[0].detach(), after, atol=1e-12)


def test_other_layers_are_pulled_to_zero() -> None:
    module = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    fixed = batch(9, 2)
    with pytest.warns(UserWarning, match="anchor='weights' is for recurrent layers"):
        net = TargetSpace(module, fixed, 1.0, anchor="weights")
    plain = TargetSpace(module, fixed, 1.0)
    assert net.anchor == "zero"
    assert torch.equal(net(fixed), plain(fixed))
    assert net.state_dict().keys() == plain.state_dict().keys()


def test_repr_and_errors() -> None:
    module, fixed = recurrent("tanh", 2, 4), batch(6, 7, 2)
    assert "anchor='weights'" in repr(TargetSpace(module, fixed, anchor="weights"))
    net = TargetSpace(module, fixed)
    assert "anchor" not in repr(net)
    with pytest.raises(AttributeError, match="anchor"):
        net.anchor = "weights"
    with pytest.raises(ValueError, match="'zero' or 'weights', got 'start'"):
        TargetSpace(module, fixed, anchor="start")
