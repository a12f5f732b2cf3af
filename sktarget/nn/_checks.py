"""What a network in target space is made of: the module, X̄ and λ, once checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sktarget.linalg import at_least_float32

__all__ = ["check_given", "read_lam"]


def check_given(module: Any, fixed_batch: Any) -> None:
    """Refuse what cannot be a network, or cannot be X̄.

    Parameters
    ----------
    module : object
        What was given as the network.
    fixed_batch : object
        What was given as X̄.

    Raises
    ------
    TypeError
        If `module` is not a module.
    ValueError
        If `fixed_batch` is not a dense floating tensor with rows.
    """
    if not isinstance(module, nn.Module):
        kind = "a class" if isinstance(module, type) else type(module).__name__
        raise TypeError(
            f"module must be an nn.Module, such as nn.Linear(2, 3); got {kind}"
        )
    if isinstance(fixed_batch, PackedSequence):
        raise ValueError(
            "fixed_batch must be a tensor, got a PackedSequence: give it padded, and "
            "let the module pack it; or give sequences of one length"
        )
    if not isinstance(fixed_batch, Tensor) or fixed_batch.ndim < 2:
        got = (
            f"shape {tuple(fixed_batch.shape)}: x[:, None] has a row for each pattern"
            if isinstance(fixed_batch, Tensor)
            else f"{type(fixed_batch).__name__}: torch.as_tensor converts an array, "
            "and several inputs have to be one, which the module takes apart"
        )
        raise ValueError(
            f"fixed_batch must be a tensor of at least two axes, got {got}"
        )
    if fixed_batch.layout != torch.strided or fixed_batch.is_meta:
        raise ValueError(
            "fixed_batch must be a dense tensor that holds numbers, got one of layout "
            f"{fixed_batch.layout} on {fixed_batch.device}: to_dense() makes it dense"
        )
    if len(fixed_batch) < 1 or not fixed_batch.is_floating_point():
        raise ValueError(
            "fixed_batch must be floating point and have at least one row, got "
            f"{fixed_batch.dtype} of shape {tuple(fixed_batch.shape)}. A network that "
            "embeds integers has to take floating-point inputs as already embedded"
        )


def read_lam(lam: float | Sequence[float], dtype: torch.dtype) -> Tensor:
    """Return λ, once checked, as a tensor.

    Parameters
    ----------
    lam : float or sequence of float
        One for all layers, or one for each.
    dtype : torch.dtype
        That of X̄.

    Returns
    -------
    Tensor of shape () or (n_layers,)
        In double precision, on the CPU.

    Raises
    ------
    ValueError
        If one is negative, not finite in this dtype, or requires gradients.
    """
    values = lam if isinstance(lam, (list, tuple)) else [lam]
    if any(isinstance(value, bool) for value in values):
        raise ValueError(f"lam must be a number, or one for each layer, got {lam!r}")
    if any(isinstance(value, Tensor) and value.requires_grad for value in values):
        raise ValueError(
            f"lam must not require gradients, as none would reach it, got {lam!r}: "
            "give lam.detach(), or let choose_lam() find it"
        )
    try:
        lams = torch.as_tensor(lam, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        lams = torch.tensor(torch.nan, device="cpu")
    largest = torch.finfo(at_least_float32(dtype)).max
    if lams.ndim > 1 or not ((lams >= 0) & (lams <= largest)).all():
        raise ValueError(
            f"lam must be finite and at least 0, got {lam!r}: give one number, or one "
            f"for each target layer, of at most {largest:.2g}"
        )
    return lams
