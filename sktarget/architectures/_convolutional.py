"""Convolutional networks with a dense head, as in Table 1 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sktarget._blank import make_blank
from sktarget.architectures._activations import make_activation
from sktarget.architectures._dense import DenseNetwork
from sktarget.architectures._dropout import SeededDropout
from sktarget.architectures._initialisation import initialise_

__all__ = ["ConvLayer", "ConvolutionalNetwork", "map_sizes"]


class ConvLayer(NamedTuple):
    """One convolution and the pooling after it.

    Attributes
    ----------
    kernel : tuple of int
        Height and width of the kernel.
    channels : int
        Number of output channels of the convolution.
    pool : int
        Edge and stride of the max-pooling window; 1 for none.
    """

    kernel: tuple[int, int]
    channels: int
    pool: int


def map_sizes(
    conv_layers: Sequence[ConvLayer], size: tuple[int, int]
) -> list[tuple[int, int]]:
    """Follow the size of the maps through a stack of convolutions.

    Parameters
    ----------
    conv_layers : sequence of ConvLayer
        The stack.
    size : tuple of int
        Height and width of the image in pixels.

    Returns
    -------
    list of tuple of int
        Height and width of each convolution's input map, and last of the output map of
        the stack.

    Raises
    ------
    ValueError
        If a kernel or a pooling window is larger than the map that it meets; the
        message counts the layers from 0.

    Examples
    --------
    >>> map_sizes([ConvLayer((3, 3), 16, 2), ConvLayer((3, 3), 32, 2)], (28, 28))
    [(28, 28), (14, 14), (7, 7)]
    """
    sizes = [size]
    for i, layer in enumerate(conv_layers):
        height, width = sizes[-1]
        meets = f"conv_layers[{i}] meets a map of {height} x {width} pixels"
        if layer.kernel[0] > height or layer.kernel[1] > width:
            raise ValueError(
                f"{meets}, smaller than its kernel of {layer.kernel[0]} x "
                f"{layer.kernel[1]}: make the kernel smaller, or pool less before it"
            )
        if layer.pool > min(height, width):
            raise ValueError(
                f"{meets}, and pooling by {layer.pool} leaves nothing of it: pool by "
                f"at most {min(height, width)} there, or less before it"
            )
        sizes.append((height // layer.pool, width // layer.pool))
    return sizes


class ConvolutionalNetwork(nn.Module):
    """Convolutions with pooling, then a dense network.

    Every convolution keeps the size of its map ("same" padding with zeros); max-pooling
    makes it smaller.

    Parameters
    ----------
    image_shape : tuple of int
        Channels, height and width of an image.
    conv_layers : sequence of ConvLayer
        The convolutions.
    hidden_layer_sizes : sequence of int
        Widths of the hidden dense layers that follow.
    n_outputs : int
        Number of outputs; they are the bare sums of the last layer.
    activation : str
        A key of ``ACTIVATIONS``.
    shortcuts : bool, default=False
        Shortcuts among the dense layers, which take the flattened last map as input.
    dropout : float, default=0.0
        Probability with which outputs of hidden dense layers and of every even-numbered
        convolution, counted from 1, are dropped in training (Sec. 5.2).
    batch_norm : bool, default=False
        Normalise the sums of all but the last layer over the mini-batch; for training
        in weight space.
    generator : torch.Generator, optional
        Source of randomness for the initial weights and for dropout.
    dtype : torch.dtype, optional
        Type of the weights; torch's default if None.

    Examples
    --------
    The paper's network for the two MNISTs:

    >>> import torch
    >>> layers = [ConvLayer((3, 3), c, p) for c in (16, 32, 64) for p in (1, 2)]
    >>> net = ConvolutionalNetwork((1, 28, 28), layers, (128,), 10, "leaky_relu")
    >>> [layer.in_features for layer in net.head.layers]
    [576, 128]
    >>> net(torch.zeros(4, 1, 28, 28)).shape
    torch.Size([4, 10])
    """

    treats_rows_alone = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        conv_layers: Sequence[ConvLayer],
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
        channels, *size = image_shape
        height, width = map_sizes(conv_layers, (size[0], size[1]))[-1]
        blocks = []
        for number, layer in enumerate(conv_layers, start=1):
            parts = _convolution(channels, layer, activation, generator, dtype)
            if batch_norm:
                parts.append(nn.BatchNorm2d(layer.channels, device="cpu", dtype=dtype))
            if layer.pool > 1:
                # Activations never decrease, so pooling may go first, for less work.
                parts.append(nn.MaxPool2d(layer.pool))
            parts.append(make_activation(activation))
            if dropout > 0 and number % 2 == 0:
                parts.append(SeededDropout(dropout, generator))
            blocks.append(nn.Sequential(*parts))
            channels = layer.channels
        self.convolutions = nn.Sequential(*blocks)
        self.head = DenseNetwork(
            channels * height * width,
            hidden_layer_sizes,
            n_outputs,
            activation,
            shortcuts=shortcuts,
            dropout=dropout,
            batch_norm=batch_norm,
            generator=generator,
            dtype=dtype,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to sums (n, n_outputs)."""
        sums: Tensor = self.head(self.convolutions(x).flatten(1))
        return sums


def _convolution(
    n_in: int,
    layer: ConvLayer,
    activation: str,
    generator: torch.Generator | None,
    dtype: torch.dtype | None,
) -> list[nn.Module]:
    """Make a convolution, after padding if needed, that keeps the size of its map."""
    height, width = layer.kernel
    before, after = ((height - 1) // 2, (width - 1) // 2), (height // 2, width // 2)
    conv = make_blank(
        nn.Conv2d,
        n_in,
        layer.channels,
        layer.kernel,
        padding=before if before == after else 0,
        device="cpu",
        dtype=dtype,
    )
    initialise_(conv, activation, generator)
    if before == after:
        return [conv]
    # A kernel of even extent has no centre: its map is padded more at the end.
    return [nn.ZeroPad2d((before[1], after[1], before[0], after[0])), conv]
