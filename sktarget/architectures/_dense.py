"""Dense networks, with or without shortcuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget._blank import make_blank
from sktarget._layered import Layered
from sktarget._linear import Linear
from sktarget.architectures._activations import make_activation
from sktarget.architectures._dropout import SeededDropout
from sktarget.architectures._initialisation import initialise_

__all__ = ["DenseNetwork"]


class DenseNetwork(Layered):
    """A feed-forward network of dense layers, with or without all shortcuts.

    Parameters
    ----------
    n_inputs : int
        Number of input features.
    hidden_layer_sizes : sequence of int
        Widths of the hidden layers.
    n_outputs : int
        Number of outputs; they are the bare sums of the last layer.
    activation : str
        A key of ``ACTIVATIONS``.
    shortcuts : bool, default=False
        Feed every layer with the input and the outputs of all earlier layers, side by
        side in this order (Sec. 5.1).
    dropout : float, default=0.0
        Probability with which outputs of hidden layers are dropped in training.
    batch_norm : bool, default=False
        Normalise the sums of hidden layers over the mini-batch; for training in
        weight space.
    generator : torch.Generator, optional
        Source of randomness for the initial weights and for dropout.
    dtype : torch.dtype, optional
        Type of the weights; torch's default if None.

    Examples
    --------
    >>> import torch
    >>> net = DenseNetwork(2, (5, 5), 3, "tanh", shortcuts=True)
    >>> [layer.in_features for layer in net.layers]
    [2, 7, 12]
    >>> net(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    # X̄ and a mini-batch may run as one: no output depends on another row.
    treats_rows_alone = True

    def __init__(
        self,
        n_inputs: int,
        hidden_layer_sizes: Sequence[int],
        n_outputs: int,
        activation: str,
        *,
        shortcuts: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shortcuts = shortcuts
        widths = [n_inputs, *hidden_layer_sizes]
        self.layers = nn.ModuleList()
        for j, n_out in enumerate([*hidden_layer_sizes, n_outputs]):
            n_in = sum(widths[: j + 1]) if shortcuts else widths[j]
            layer = make_blank(Linear, n_in, n_out, device="cpu", dtype=dtype)
            inner = 0 < j < len(hidden_layer_sizes) and not shortcuts
            self.layers.append(initialise_(layer, activation, generator, inner))
        self.norms = None
        if batch_norm:
            norms = (
                nn.BatchNorm1d(n, device="cpu", dtype=dtype) for n in hidden_layer_sizes
            )
            self.norms = nn.ModuleList(norms)
        self.activation = make_activation(activation)
        self.dropout = SeededDropout(dropout, generator) if dropout > 0 else None

    @property
    def reading(self) -> list[Any]:
        """The layers that read the inputs, alone or next to outputs of other layers."""
        return list(self.layers if self.shortcuts else self.layers[:1])

    def measure_inputs(self, origin: Tensor, unit: Tensor) -> None:
        """Set the units of the inputs in which layers that read them are solved for.

        Parameters
        ----------
        origin, unit : Tensor of shape (n_inputs,)
            What is subtracted from each input, and what the difference is divided by.
            They matter in target space, where λ weighs less the smaller the unit is.
        """
        for layer in self.reading:
            more = layer.in_features - len(unit)  # Outputs of layers have none.
            padded = F.pad(origin, (0, more)), F.pad(unit, (0, more), value=1.0)
            layer.input_units = padded

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (n, n_inputs) to the sums of the last layer (n, n_outputs)."""
        *layers, last = self.layers
        hidden = []
        for j, layer in enumerate(layers):
            norm = None if self.norms is None else self.norms[j]
            parts = (layer, norm, self.activation, self.dropout)
            hidden.append([m for m in parts if m is not None])
        return self.run_layers(hidden, last, x, self.shortcuts)
