"""Activations by their names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sktarget._tanh import Tanh

__all__ = ["ACTIVATIONS", "LEAKY_SLOPE", "make_activation"]

LEAKY_SLOPE = 0.2
"""What leaky rectifiers multiply negative sums by."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": Tanh,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
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
