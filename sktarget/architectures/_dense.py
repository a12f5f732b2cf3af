"""Dense networks; activations, initial weights and dropout for all networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget._blank import make_blank
from sktarget._layered import Layered
from sktarget._linear import Linear
from sktarget._tanh import Tanh

__all__ = [
    "ACTIVATIONS",
    "DenseNetwork",
    "SeededDropout",
    "initialise_",
    "make_activation",
]

_LEAKY_SLOPE = 0.2
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": Tanh,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(_LEAKY_SLOPE),
}
"""Activations by their names in the estimators."""


def make_activation(name: str) -> nn.Module:
    """Make the module of an activation.

    Parameters
    ----------
    name : str
        A key of ``ACTIVATIONS``.

    Returns
    -------
    nn.Module
        The activation.

    Raises
    ------
    ValueError
        If there is no activation of this name.

    Examples
    --------
    >>> make_activation("tanh")
    Tanh()
    """
    if name not in ACTIVATIONS:
        known = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"activation must be one of {known}, got {name!r}")
    return ACTIVATIONS[name]()


class SeededDropout(nn.Dropout):
    """Dropout that draws from its own generator, not from the global one.

    Parameters
    ----------
    p : float
        Probability that an input is dropped.
    generator : torch.Generator, optional
        Source of randomness; None stands for the global generator.  Copies,
        such as that of :class:`~sktarget.nn.TargetSpace`, do not get it: give these
        one of their own.

    Examples
    --------
    >>> import torch
    >>> layer = SeededDropout(0.5, torch.Generator().manual_seed(0))
    >>> sorted(set(layer(torch.ones(100)).tolist()))
    [0.0, 2.0]
    """

    def __init__(self, p: float, generator: torch.Generator | None = None) -> None:
        super().__init__(p)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Drop inputs at random in training mode."""
        if not self.training or self.generator is None:
            return super().forward(x)
        if self.p == 1:
            return x * 0.0
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep.div_(1 - self.p)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the generator out: a copy is for prediction, or gets a new one."""
        return {**self.__dict__, "generator": None}


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
            norms = (nn.BatchNorm1d(n, dtype=dtype) for n in hidden_layer_sizes)
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
        slope = _LEAKY_SLOPE if activation == "leaky_relu" else 0.0
        nn.init.kaiming_uniform_(layer.weight, a=slope, generator=generator)
    elif inner:
        nn.init.orthogonal_(layer.weight, generator=generator)
    else:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
