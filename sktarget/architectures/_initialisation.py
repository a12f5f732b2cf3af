"""Initial weights of layers and of recurrent cells."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from sktarget.architectures._activations import LEAKY_SLOPE

__all__ = ["chrono_", "initialise_", "initialise_cell_"]

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def initialise_(
    layer: Layer,
    activation: str,
    generator: torch.Generator | None,
    inner: bool = False,
) -> Layer:
    """Draw the weights of a layer to suit an activation; zero its bias.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        The layer, changed in place.
    activation : str
        A key of ``ACTIVATIONS``: the rectifiers get He's uniform distribution, the
        others Glorot's.
    generator : torch.Generator or None
        Source of randomness; None stands for the global generator.
    inner : bool, default=False
        Whether the layer leads from one hidden layer to the next: except for
        rectifiers it then gets an orthogonal matrix, which preserves the signal in
        deep networks.

    Returns
    -------
    nn.Linear or nn.Conv2d
        The layer given.
    """
    if activation in ("relu", "leaky_relu"):
        slope = LEAKY_SLOPE if activation == "leaky_relu" else 0.0
        nn.init.kaiming_uniform_(layer.weight, a=slope, generator=generator)
    elif inner:
        nn.init.orthogonal_(layer.weight, generator=generator)
    else:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def initialise_cell_(
    layer: nn.RNNBase, generator: torch.Generator | None
) -> nn.RNNBase:
    """Draw the weights of a recurrent module, gate by gate; zero its biases.

    Weights of inputs get Glorot's uniform distribution, those of states an orthogonal
    matrix, and the forget gate of an LSTM a bias of 1, so that it remembers at first.

    Parameters
    ----------
    layer : nn.RNN, nn.LSTM or nn.GRU
        The module, changed in place.
    generator : torch.Generator or None
        Source of randomness; None stands for the global generator.

    Returns
    -------
    nn.RNN, nn.LSTM or nn.GRU
        The module given.
    """
    for name, weight in layer.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(weight)
            if isinstance(layer, nn.LSTM) and name.startswith("bias_ih"):
                nn.init.ones_(weight.detach().chunk(4)[1])
            continue
        for gate in torch.split(weight.detach(), layer.hidden_size):
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(gate, generator=generator)
            else:
                nn.init.orthogonal_(gate, generator=generator)
    layer.flatten_parameters()
    return layer


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
        Network whose LSTM and GRU layers to set, in all directions, before it is given
        to :class:`~sktarget.nn.TargetSpace`; other layers, and those without biases,
        are left as they are.
    memory : float
        Time in steps, at least 2, over which the longest memories fade.  Of torch's two
        biases of a gate the second becomes zero.
    generator : torch.Generator, optional
        Source of randomness.

    Raises
    ------
    ValueError
        If `memory` is less than 2, or there is no such layer.

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
    layers = [m for m in network.modules() if isinstance(m, nn.LSTM | nn.GRU)]
    if not any(layer.bias for layer in layers):
        raise ValueError(
            f"{type(network).__name__} has no LSTM or GRU layer with biases. Layers of "
            "a TargetSpace have none: call chrono_ on the module before wrapping it"
        )
    for layer in layers:
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
