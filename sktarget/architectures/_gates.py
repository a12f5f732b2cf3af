"""Biases of gates with which a network remembers from the start."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["chrono_"]


@torch.no_grad()
def chrono_(
    network: nn.Module, memory: float, generator: torch.Generator | None = None
) -> None:
    """Draw the biases of gates such that states fade over 2 to `memory` steps.

    A gate that keeps a state forgets it over 1 / (1 − σ(b)) steps.  That is 1 + τ for a
    bias b = log τ, and every hidden unit gets its own τ, uniform on [1, memory − 1].
    Input gates of LSTMs, which take in what the forget gates give up, get −b.  [1]_

    Parameters
    ----------
    network : nn.Module
        Network whose LSTM and GRU layers to set, in all directions; other layers, and
        those without biases, are left as they are.
    memory : float
        Time in steps, at least 2, over which the longest memories fade.  Of torch's two
        biases of a gate the second becomes zero.
    generator : torch.Generator, optional
        Source of randomness.

    Raises
    ------
    ValueError
        If `memory` is less than 2.

    References
    ----------
    .. [1] C. Tallec, Y. Ollivier, "Can recurrent neural networks warp time?", ICLR
       (2018), Sec. 2: "chrono initialization".

    Examples
    --------
    >>> lstm = nn.LSTM(1, 3)
    >>> chrono_(lstm, 50, torch.Generator().manual_seed(0))
    >>> input_gate, forget_gate, _, _ = lstm.bias_ih_l0.detach().chunk(4)
    >>> forget_gate
    tensor([3.2117, 3.6343, 1.6576])
    >>> bool((input_gate == -forget_gate).all())
    True
    """
    if not memory >= 2:
        raise ValueError(f"memory must be at least 2 steps, got {memory!r}")
    for layer in network.modules():
        if not isinstance(layer, nn.LSTM | nn.GRU):
            continue
        for name, bias in layer.named_parameters():
            if not name.startswith("bias"):
                continue
            kept = torch.zeros(layer.hidden_size, dtype=bias.dtype, device="cpu")
            if name.startswith("bias_ih"):
                kept.uniform_(1, memory - 1, generator=generator).log_()
            if isinstance(layer, nn.LSTM):
                bias[: len(kept)] = -kept
            # The second block is an LSTM's forget gate, and a GRU's gate that keeps.
            bias[len(kept) : 2 * len(kept)] = kept
