"""Ordinary torch modules built from hyper-parameters.

A network that the estimators build is plain PyTorch, and runs without targets: the
very same module trains in target space or, as the control, in weight space.  A few
attributes (`treats_rows_alone`, `input_units`) are hints to target space.
"""

from sktarget.architectures._activations import ACTIVATIONS
from sktarget.architectures._convolutional import (
    ConvLayer,
    ConvolutionalNetwork,
    map_sizes,
)
from sktarget.architectures._dense import DenseNetwork
from sktarget.architectures._dropout import SeededDropout
from sktarget.architectures._initialisation import chrono_, initialise_
from sktarget.architectures._recurrent import CELLS, RecurrentNetwork

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "ConvLayer",
    "ConvolutionalNetwork",
    "DenseNetwork",
    "RecurrentNetwork",
    "SeededDropout",
    "chrono_",
    "initialise_",
    "map_sizes",
]
