"""Targets as arrays, by which training goes on where it ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sktarget.estimators._arrays import as_tensor
from sktarget.nn import TargetSpace
from sktarget.training import describe_value, state_to_numpy

__all__ = [
    "describe_choice",
    "put_targets_into",
    "refuse_other_anchor",
    "targets_and_anchors",
]

Array = NDArray[Any]


def targets_and_anchors(
    network: TargetSpace,
) -> tuple[list[Array], list[Array | None]]:
    """Copy what the layers of a network learn, and what they are pulled to.

    Parameters
    ----------
    network : TargetSpace
        The network.

    Returns
    -------
    targets : list of ndarray
        Targets of each layer, in the order in which the layers run.
    anchors : list of ndarray or None
        The weights that λ pulls each layer to; None for zero.
    """
    layers = network.target_layers().values()
    targets = [state_to_numpy(layer.targets) for layer in layers]
    anchors = [
        None if layer.anchor is None else state_to_numpy(layer.anchor)
        for layer in layers
    ]
    return targets, anchors


@torch.no_grad()
def put_targets_into(
    network: TargetSpace, targets: Sequence[Array], anchors: Sequence[Array | None]
) -> None:
    """Give a network what :func:`targets_and_anchors` has copied.

    Parameters
    ----------
    network : TargetSpace
        A network of the same layers and the same fixed batch.
    targets, anchors : sequence of ndarray
        One of each for every layer.
    """
    layers = network.target_layers().values()
    for layer, kept, start in zip(layers, targets, anchors, strict=True):
        layer.targets.copy_(as_tensor(kept))
        if layer.anchor is not None and start is not None:
            layer.anchor.copy_(as_tensor(start))


def refuse_other_anchor(network: TargetSpace, anchors: Sequence[Array | None]) -> None:
    """Refuse to go on with targets that belong to layers pulled elsewhere.

    Parameters
    ----------
    network : TargetSpace
        The network to go on with.
    anchors : sequence of ndarray or None
        What λ pulled each layer to before.

    Raises
    ------
    ValueError
        If some layer had an anchor and has none, or the other way round.
    """
    layers = network.target_layers().values()
    anchored = [layer.anchor is not None for layer in layers]
    if anchored != [start is not None for start in anchors]:
        raise ValueError(
            f"warm_start and partial_fit cannot go on with anchor={network.anchor!r}, "
            "as the targets belong to another: set warm_start=False or clone the "
            "estimator"
        )


def describe_choice(parameters: dict[str, Any]) -> dict[str, str]:
    """Describe by what parameters X̄ is chosen.

    Parameters
    ----------
    parameters : dict of str to object
        Parameters by name; an X̄ that is given may have the form of nested lists.

    Returns
    -------
    dict of str to str
        Equal descriptions for equal choices.

    Examples
    --------
    >>> describe_choice({"fixed_batch": "sample", "fixed_batch_size": 20})
    {'fixed_batch': "'sample'", 'fixed_batch_size': '20'}
    """
    given = dict(parameters)
    if not isinstance(given["fixed_batch"], str):
        with suppress(ValueError):  # of lists of unequal lengths
            given["fixed_batch"] = np.asarray(given["fixed_batch"])
    return {name: describe_value(value) for name, value in given.items()}
