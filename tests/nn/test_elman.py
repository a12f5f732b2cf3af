"""Simple recurrent layers, step by step, are what torch's kernels compute."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sktarget.nn._cells import SimpleCell, cell_of
from sktarget.nn._elman import run_steps
from sktarget.nn._kernels import run_kernel
from tests.nn.recurrent_networks import batch, leaves

LENGTHS = {
    "equal": None,
    "unequal": [2, 7, 1, 7, 4],
    "single steps": [1, 1, 1, 1, 1],
}


def as_given(x: Tensor, lengths: list[int] | None) -> Tensor | PackedSequence:
    if lengths is None:
        return x
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients(
    lengths: list[int] | None, nonlinearity: str, bidirectional: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    options = {"bidirectional": bidirectional, "bias": bias, "batch_first": True}
    layer = nn.RNN(3, 4, 2, nonlinearity, dtype=torch.float64, **options)
    cells = [cell_of(layer, flat[0].shape[1]) for flat in layer.all_weights]
    simple = [cell for cell in cells if isinstance(cell, SimpleCell)]
    values, found = batch(5, 7, 3), []
    for run, own in ((run_steps, simple), (run_kernel, cells)):
        x = values.clone().requires_grad_()
        matrices = [
            cell.to_matrix(flat).detach().requires_grad_()
            for cell, flat in zip(cells, layer.all_weights, strict=True)
        ]
        torch.manual_seed(1)
        results = leaves(run(own, matrices, as_given(x, lengths), 0.0, bidirectional))
        tensors = [r.data if isinstance(r, PackedSequence) else r for r in results]
        sum((r * torch.randn(r.shape, dtype=r.dtype)).sum() for r in tensors).backward()
        found.append([*tensors, x.grad, *(m.grad for m in matrices)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_dropout_stands_between_the_layers() -> None:
    layer = nn.RNN(2, 3, 2, dtype=torch.float64)
    cells = [cell_of(layer, flat[0].shape[1]) for flat in layer.all_weights]
    simple = [cell for cell in cells if isinstance(cell, SimpleCell)]
    matrices = [c.to_matrix(f) for c, f in zip(cells, layer.all_weights, strict=True)]
    x = batch(4, 5, 2)
    outputs, _ = run_steps(simple, matrices, x, 1 - 1e-12, False)
    first, _ = run_steps(simple[:1], matrices[:1], x, 0.0, False)
    silent, _ = run_steps(simple[1:], matrices[1:], 0 * first, 0.0, False)
    torch.testing.assert_close(outputs, silent)
