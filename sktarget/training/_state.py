"""States as NumPy arrays, and as tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["state_to_numpy", "state_to_torch"]


def state_to_numpy(state: Any) -> Any:
    """Copy the tensors in nested dicts and lists to arrays.

    Parameters
    ----------
    state : object
        Tensors, and dicts, lists and tuples of such; anything else stays as it is.

    Returns
    -------
    object
        The same with copies of the tensors as arrays; nothing is shared.  Those of
        bfloat16, which NumPy lacks, become float32.
    """
    if isinstance(state, torch.Tensor):
        known = state.float() if state.dtype is torch.bfloat16 else state
        return known.detach().cpu().numpy().copy()
    return _map(state_to_numpy, state)


def state_to_torch(state: Any) -> Any:
    """Undo :func:`state_to_numpy`, copying the arrays.

    Parameters
    ----------
    state : object
        Arrays, and dicts, lists and tuples of such; anything else stays as it is.

    Returns
    -------
    object
        The same with copies of the arrays as tensors on the CPU.
    """
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state.copy())
    return _map(state_to_torch, state)


def _map(convert: Callable[[Any], Any], state: Any) -> Any:
    """Convert the values of a dict, or the items of a list or tuple."""
    if isinstance(state, dict):
        return {key: convert(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        items = [convert(value) for value in state]
        return type(state)(*items) if hasattr(state, "_fields") else type(state)(items)
    return state
