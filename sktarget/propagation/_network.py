"""The dense network that difference target propagation and inversion train."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.architectures import DenseNetwork

__all__ = ["INITIALISATIONS", "TransmittingNetwork", "initialise_layers_"]

INITIALISATIONS: dict[str, Callable[..., Tensor]] = {
    "orthogonal": nn.init.orthogonal_,
    "uniform": nn.init.xavier_uniform_,
}
"""Initial weights by name: singular values 1, or uniform ±√(6 / (n_in + n_out))."""


def initialise_layers_(
    layers: nn.ModuleList, name: str, generator: torch.Generator | None
) -> None:
    """Redraw the weights of dense layers, but not the biases.

    Parameters
    ----------
    layers : nn.ModuleList
        The layers, changed in place.
    name : str
        A key of ``INITIALISATIONS``.
    generator : torch.Generator or None
        Source of randomness; None stands for the global generator.
    """
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        INITIALISATIONS[name](layer.weight, generator=generator)


class TransmittingNetwork(DenseNetwork):
    """A dense network whose hidden units may transmit signs or samples.

    Layer i computes ``f_i(v) = s_i(W_i q(v) + b_i)``, where q is what the units of the
    layer below transmit of their values v:

    - ``"identity"``: the values;
    - ``"sign"``: +1 where the value is positive, else -1, between hidden layers; the
      output layer sees the values;
    - ``"bernoulli"``: 1 with the value as probability, else 0, in all hidden layers.

    Parameters
    ----------
    n_inputs : int
        Number of input features.
    hidden_layer_sizes : sequence of int
        Widths of the hidden layers.
    n_outputs : int
        Number of outputs, which are the bare sums of the last layer.
    activation : str
        A key of ``ACTIVATIONS``; ``"logistic"`` for ``transmission="bernoulli"``.
    transmission : {"identity", "sign", "bernoulli"}
        What hidden units transmit.
    weight_init : str
        A key of ``INITIALISATIONS``.
    out_activation : {"softmax", "logistic", "identity"}
        What follows the sums; decides how passes with samples are averaged.
    n_passes : int
        Number of passes with samples that a prediction averages over.
    generator : torch.Generator, optional
        Source of randomness for the initial weights and for the samples.
    dtype : torch.dtype, optional
        Dtype of the weights; torch's default if None.

    Notes
    -----
    Predictions with samples average over `n_passes` sets of thresholds, drawn once and
    the same for all rows, so each prediction depends on its row alone.

    Examples
    --------
    >>> import torch
    >>> net = TransmittingNetwork(2, (5, 5), 3, "tanh", transmission="sign")
    >>> net(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    thresholds: Tensor

    def __init__(
        self,
        n_inputs: int,
        hidden_layer_sizes: Sequence[int],
        n_outputs: int,
        activation: str,
        *,
        transmission: str = "identity",
        weight_init: str = "orthogonal",
        out_activation: str = "identity",
        n_passes: int = 100,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            n_inputs,
            hidden_layer_sizes,
            n_outputs,
            activation,
            generator=generator,
            dtype=dtype,
        )
        initialise_layers_(self.layers, weight_init, generator)
        self.transmission = transmission
        self.out_activation = out_activation
        self.widths = [n_inputs, *hidden_layer_sizes, n_outputs]
        if transmission == "bernoulli":
            shape = (n_passes, sum(hidden_layer_sizes))
            drawn = torch.rand(shape, generator=generator, dtype=dtype, device="cpu")
            self.register_buffer("thresholds", drawn)

    def transmit(
        self, v: Tensor, i: int, uniform: Callable[[int], Tensor] | None = None
    ) -> Tensor:
        """Return what the units of layer i - 1 transmit to layer i.

        Parameters
        ----------
        v : Tensor of shape (n_b, n_in)
            Values of layer i - 1; layer 0 is the input.
        i : int
            Number of the layer that receives, from 1.
        uniform : callable, optional
            Maps a width to uniform numbers with which to compare the values.

        Returns
        -------
        Tensor of shape (n_b, n_in)
            What is transmitted.
        """
        if i == 1 or self.transmission == "identity":
            return v
        if self.transmission == "sign":
            return sign(v) if i < len(self.layers) else v
        assert uniform is not None
        return (uniform(v.shape[1]) < v).to(v.dtype)

    def apply_layer(self, received: Tensor, i: int) -> Tensor:
        """Compute ``s_i(W_i received + b_i)`` for layer i, from 1.

        Parameters
        ----------
        received : Tensor of shape (n_b, n_in)
            What the layer below transmits.
        i : int
            Number of the layer.

        Returns
        -------
        Tensor of shape (n_b, n_out)
            Values of layer i; bare sums for the last one.
        """
        sums: Tensor = self.layers[i - 1](received)
        if i == len(self.layers):
            return sums
        values: Tensor = self.activation(sums)
        return values

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (n, n_inputs) to the sums of the last layer (n, n_outputs)."""
        if self.transmission != "bernoulli":
            return self._run(x)
        # One pass at a time: all at once would need the memory of n_passes batches.
        passes = [self._run(x, thresholds) for thresholds in self.thresholds]
        return _AVERAGES[self.out_activation](torch.stack(passes))

    def _run(self, x: Tensor, thresholds: Tensor | None = None) -> Tensor:
        parts = iter(
            () if thresholds is None else torch.split(thresholds, self.widths[1:-1])
        )
        for i in range(1, len(self.layers) + 1):
            x = self.apply_layer(self.transmit(x, i, lambda _: next(parts)), i)
        return x


def sign(v: Tensor) -> Tensor:
    """Return +1 where `v` is positive, else -1; unlike ``torch.sign`` never 0."""
    return torch.where(v > 0, 1.0, -1.0).to(v.dtype)


def _mean_softmax(sums: Tensor) -> Tensor:
    """Return the logarithm of the mean probabilities."""
    return sums.log_softmax(-1).logsumexp(0) - math.log(len(sums))


def _mean_logistic(sums: Tensor) -> Tensor:
    """Return the logits of the mean probabilities."""
    return F.logsigmoid(sums).logsumexp(0) - F.logsigmoid(-sums).logsumexp(0)


_AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": _mean_softmax,
    "logistic": _mean_logistic,
    "identity": lambda sums: sums.mean(0),
}
