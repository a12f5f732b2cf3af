"""State of modules and optimisers, as tensors and as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["state_to_numpy", "state_to_torch"]


def state_to_numpy(state: Any) -> Any:
    """Turn the tensors in nested dicts and lists into arrays of their own.

    Parameters
    ----------
    state : object
        Tensors, and dicts, lists and tuples of such; anything else stays as it is.

    Returns
    -------
    object
        The same with copies of the tensors as arrays; nothing is shared.
    """
    if isinstance(state, torch.Tensor):
        return state.detach().cpu().numpy().copy()
    if isinstance(state, dict):
        return {key: state_to_numpy(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(state_to_numpy(value) for value in state)
    return state


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
    if isinstance(state, dict):
        return {key: state_to_torch(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(state_to_torch(value) for value in state)
    return state
