"""Layers made without drawing weights."""

import pytest
import torch
from torch import nn

from sktarget._blank import make_blank


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (nn.Linear, {"in_features": 2, "out_features": 3, "bias": False}),
        (nn.Conv2d, {"in_channels": 2, "out_channels": 4, "kernel_size": 3}),
        (nn.RNN, {"input_size": 2, "hidden_size": 3, "num_layers": 2}),
        (nn.LSTM, {"input_size": 2, "hidden_size": 3, "bidirectional": True}),
        (nn.GRU, {"input_size": 2, "hidden_size": 3}),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_they_are_the_layers_but_for_their_values(
    kind: type[nn.Module], arguments: dict[str, int], device: str
) -> None:
    usual = kind(**arguments)
    state = torch.get_rng_state()
    blank = make_blank(kind, **arguments, device=device, dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(blank) is kind
    assert repr(blank) == repr(usual)
    assert vars(blank).keys() == vars(usual).keys()
    shapes = {name: p.shape for name, p in usual.named_parameters()}
    assert {name: p.shape for name, p in blank.named_parameters()} == shapes
    assert all(p.dtype == torch.float64 for p in blank.parameters())
    blank = blank.to_empty(device="cpu")
    blank.load_state_dict(usual.state_dict())
    blank.reset_parameters()
    assert not torch.equal(torch.get_rng_state(), state)
