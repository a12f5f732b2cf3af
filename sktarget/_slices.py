"""How much to compute at a time."""

from __future__ import annotations

import torch

__all__ = ["slice_size"]

# A GPU has no cache to stay in, and every slice costs it launches.
_ON_GPU = 1 << 28


def slice_size(in_cache: int, device: torch.device) -> int:
    """Return the size of slices of a computation.

    Parameters
    ----------
    in_cache : int
        Size, in any unit, at which a slice stays in the cache of a core.
    device : torch.device
        What computes.

    Returns
    -------
    int
        That size on the CPU; elsewhere at least 2²⁸.

    Examples
    --------
    >>> import torch
    >>> slice_size(1000, torch.device("cpu"))
    1000
    >>> slice_size(1000, torch.device("cuda"))
    268435456
    """
    return in_cache if device.type == "cpu" else max(in_cache, _ON_GPU)
