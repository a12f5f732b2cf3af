"""What tensors are to autograd and its transforms."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["has_memory", "is_recorded"]


def is_recorded(*tensors: Tensor | None) -> bool:
    """Return whether operations on tensors are recorded for gradients.

    Parameters
    ----------
    *tensors : Tensor or None
        The tensors.

    Returns
    -------
    bool
        Whether one of them needs a gradient, and recording is on.

    Examples
    --------
    >>> is_recorded(torch.ones(2)), is_recorded(torch.ones(2, requires_grad=True))
    (False, True)
    """
    return torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )


def has_memory(*tensors: Tensor) -> bool:
    """Return whether tensors hold their numbers, unlike those within ``vmap``.

    Parameters
    ----------
    *tensors : Tensor
        The tensors.

    Returns
    -------
    bool
        Whether functions other than torch's can read all of them.

    Examples
    --------
    >>> has_memory(torch.ones(2))
    True
    """
    try:
        for tensor in tensors:
            tensor.data_ptr()
    except RuntimeError:
        return False
    return True
