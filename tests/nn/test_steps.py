"""Recurrent layers, step by step, are what torch's kernels compute."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sktarget.nn._cells import cell_of
from sktarget.nn._kernels import run_kernel
from sktarget.nn._steps import may_run_steps, run_steps
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


def stack(kind: str, **options: bool) -> nn.RNNBase:
    sizes: dict[str, Any] = {"input_size": 3, "hidden_size": 4, "num_layers": 2}
    options |= {"batch_first": True}
    if kind == "gru":
        return nn.GRU(**sizes, dtype=torch.float64, **options)
    return nn.RNN(**sizes, nonlinearity=kind, dtype=torch.float64, **options)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("kind", ["tanh", "relu", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients(
    lengths: list[int] | None, kind: str, bidirectional: bool, bias: bool
) -> None:
    layer = stack(kind, bidirectional=bidirectional, bias=bias)
    cells = [cell_of(layer, flat[0].shape[1]) for flat in layer.all_weights]
    assert may_run_steps(cells[0], torch.device("cpu"))
    values, found = batch(5, 7, 3), []
    for run in (run_steps, run_kernel):
        x = values.clone().requires_grad_()
        matrices = [
            cell.to_matrix(flat).detach().requires_grad_()
            for cell, flat in zip(cells, layer.all_weights, strict=True)
        ]
        torch.manual_seed(1)
        results = leaves(run(cells, matrices, as_given(x, lengths), 0.0, bidirectional))
        tensors = [r.data if isinstance(r, PackedSequence) else r for r in results]
        sum((r * torch.randn(r.shape, dtype=r.dtype)).sum() for r in tensors).backward()
        found.append([*tensors, x.grad, *(m.grad for m in matrices)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["tanh", "gru"])
def test_dropout_stands_between_the_layers(kind: str) -> None:
    layer = stack(kind)
    cells = [cell_of(layer, flat[0].shape[1]) for flat in layer.all_weights]
    matrices = [c.to_matrix(f) for c, f in zip(cells, layer.all_weights, strict=True)]
    x = batch(4, 5, 3)
    outputs, _ = run_steps(cells, matrices, x, 1 - 1e-12, False)
    first, _ = run_steps(cells[:1], matrices[:1], x, 0.0, False)
    silent, _ = run_steps(cells[1:], matrices[1:], 0 * first, 0.0, False)
    torch.testing.assert_close(outputs, silent)
