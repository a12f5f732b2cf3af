"""Recurrent layers in target space: layouts of batches, lengths, last states."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sktarget.nn import TargetSpace
from tests import reference_recurrent
from tests.nn.recurrent_networks import (
    batch,
    every_kind,
    grouped,
    leaves,
    recurrent,
    wrap,
)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_time_first(kind: str, bidirectional: bool) -> None:
    fixed, x = batch(6, 7, 2), batch(5, 7, 2)
    options = {"num_layers": 2, "bidirectional": bidirectional}
    net = wrap(recurrent(kind, 2, 4, **options), fixed)
    turned = recurrent(kind, 2, 4, batch_first=False, **options)
    other = TargetSpace(turned, fixed.transpose(0, 1), 0.1)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert a.shape == b.shape
        b.data.copy_(a)
    for ours, theirs in ((net, other), (net.eval(), other.eval())):
        for i, (a, b) in enumerate(
            zip(leaves(ours(x)), leaves(theirs(x.transpose(0, 1))), strict=True)
        ):
            b = b.transpose(0, 1) if i == 0 else b
            assert_allclose(a.detach(), b.detach(), atol=1e-12)


@every_kind
@pytest.mark.parametrize("n_fixed", [2, 6])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_last_states_are_those_of_x(kind: str, n_fixed: int, untangling: str) -> None:
    # With two rows of X̄, h_n of two layers has as many rows as X̄: a coincidence.
    module = recurrent(kind, 2, 4, num_layers=2)
    net = wrap(module, batch(n_fixed, 7, 2), untangling=untangling)
    x = batch(5, 7, 2)
    for a, b in zip(leaves(net(x)), leaves(net.realise()(x)), strict=True):
        assert a.shape == b.shape
        assert_allclose(a.detach(), b.detach(), atol=1e-12)


class Packed(nn.Module):
    """Sequences of unequal lengths, by a last feature that is nan on padding."""

    def __init__(self, kind: str, sort: bool, **options: Any) -> None:
        super().__init__()
        self.rnn = recurrent(kind, 2, 4, **options)
        self.sort = sort

    def forward(self, x: Tensor) -> Tensor:
        lengths = (~x[:, :, 0].isnan()).sum(1)
        packed = pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=self.sort
        )
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


def padded(lengths: list[int]) -> Tensor:
    x = batch(len(lengths), max(lengths), 2)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = torch.nan
    return x


@every_kind
@pytest.mark.parametrize("lengths", [[5, 4, 2, 1], [3, 1, 5, 3]])
@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_packed_sequences(kind: str, lengths: list[int], untangling: str) -> None:
    sort = lengths == sorted(lengths, reverse=True)
    fixed, x = padded(lengths), padded([6, 4, 1])
    module = Packed(kind, sort, num_layers=2, bidirectional=True)
    net = wrap(module, fixed, untangling=untangling)
    targets = grouped(net, 2)
    zeros = np.nan_to_num(fixed.numpy())
    weights, _, _ = reference_recurrent.realise(
        kind, targets, zeros, 0.1, untangling=untangling, lengths=lengths
    )
    realised = net.realise()
    wanted = reference_recurrent.to_torch(kind, weights[1][1], 8, True)
    for a, b in zip(realised.rnn.all_weights[3], wanted, strict=True):
        assert_allclose(a.detach(), b, atol=1e-10)
    out = net(x)
    assert_allclose(out.detach(), realised(x).detach(), atol=1e-12)
    out.sum().backward()
    for layer in net.target_layers().values():
        for row, length in zip(layer.targets.grad, lengths, strict=True):
            assert (row[length:] == 0).all()
            assert (row[:length] != 0).any()
