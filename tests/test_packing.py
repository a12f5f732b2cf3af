"""Packed sequences, and padded batches."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sktarget._packing import Packing

LENGTHS = torch.tensor([3, 7, 1, 7])


def padded(time: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, time, 3, generator=generator)


def packed(x: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)


def before_padding(time: int) -> Tensor:
    return (torch.arange(time) < LENGTHS[:, None])[..., None]


def test_there_and_back() -> None:
    x = padded(7).requires_grad_()
    inputs = packed(x)
    packing = Packing.of(inputs)
    assert packing.lengths is not None
    assert packing.lengths.tolist() == LENGTHS.tolist()
    rows = packing.pad(inputs)
    torch.testing.assert_close(rows, x * before_padding(7))
    again = packing.pack(2 * rows)
    assert isinstance(again, PackedSequence)
    torch.testing.assert_close(again.data, 2 * inputs.data)
    again.data.sum().backward()
    torch.testing.assert_close(x.grad, 2 * before_padding(7).expand_as(x).to(x))


# No sequence need reach to the end of its batch.
@pytest.mark.parametrize("time", [7, 10])
def test_padded_batches_are_packed_as_torch_packs_them(time: int) -> None:
    x = padded(time)
    packing = Packing.before_padding(x, LENGTHS)
    ours, truth = packing.pack(x), packed(x)
    assert isinstance(ours, PackedSequence)
    for a, b in zip(ours, truth, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(packing.pad(ours), x * before_padding(time))


def test_tensors_pass_as_they_are() -> None:
    x = padded(7)
    packing = Packing.of(x)
    assert packing.lengths is None
    assert packing.pack(x) is x
    assert packing.pad(x) is x
