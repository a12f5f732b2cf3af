"""Packed sequences run some steps at a time, as if they ran at once."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sktarget.nn import TargetSpace, _kernels
from tests.nn.recurrent_networks import batch, every_kind, leaves, recurrent

LENGTHS = torch.tensor([3, 50, 1, 16, 33, 32, 17, 50])


def packed(x: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)


class Packs(nn.Module):
    """A recurrent module on packed sequences; gives all that it gives."""

    def __init__(self, kind: str, **options: bool) -> None:
        super().__init__()
        self.rnn = recurrent(kind, 2, 4, **options)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs, *last = leaves(self.rnn(packed(x)))
        return [outputs.data, *last]


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_blocks_of_steps_are_one_run(
    kind: str, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Packs(kind, bidirectional=bidirectional)
    fixed, x = batch(8, 50, 2), batch(8, 50, 2)
    found = []
    for block in (16, 1, 1000):
        monkeypatch.setattr(_kernels, "_BLOCK", block)
        net = TargetSpace(module, fixed, 0.1)
        outputs = net(x)
        sum(out.square().sum() for out in outputs).backward()
        gradients = [p.grad for p in net.parameters()]
        found.append([*outputs, *gradients, *net.realise()(x)])
        for out, plain in zip(outputs, net.realise()(x), strict=True):
            torch.testing.assert_close(out, plain, rtol=0, atol=1e-10)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
