"""Whether tensors are recorded by autograd, readable outside of torch, or equal."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["is_readable", "is_recorded", "same_values"]


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


def same_values(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same, NaN in the same places included.

    Parameters
    ----------
    one, other : Tensor
        The tensors, on the same device.

    Returns
    -------
    bool
        Whether shapes, dtypes and numbers are equal; to ``torch.equal`` NaN is not.
        False for tensors without numbers, on the device ``"meta"``.

    Examples
    --------
    >>> a = torch.tensor([1.0, torch.nan])
    >>> same_values(a, a.clone()), torch.equal(a, a.clone())
    (True, False)
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_meta or other.is_meta:
        return False
    return torch.equal(one, other) or bool(
        (one.eq(other) | (one.isnan() & other.isnan())).all()
    )


def is_readable(*tensors: Tensor) -> bool:
    """Return whether functions other than torch's can read the numbers of tensors.

    They cannot within the transforms of ``torch.func``, such as ``vmap``, nor where a
    sign is still to be applied.

    Parameters
    ----------
    *tensors : Tensor
        The tensors.

    Returns
    -------
    bool
        Whether they can.

    Examples
    --------
    >>> is_readable(torch.ones(2))
    True
    """
    return not (
        torch._C._are_functorch_transforms_active()
        or any(tensor.is_neg() for tensor in tensors)
    )
