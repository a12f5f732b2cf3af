"""Random starting points for targets (Sec. 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["truncated_normal_"]


def truncated_normal_(
    tensor: Tensor, scale: float, generator: torch.Generator | None = None
) -> Tensor:
    """Fill a tensor with normal numbers of mean 0, cut off at two deviations.

    Parameters
    ----------
    tensor : Tensor
        The tensor to fill, in place.
    scale : float
        Standard deviation σ of the normal distribution before the cut.
    generator : torch.Generator, optional
        Source of randomness; by default torch's global generator.

    Returns
    -------
    Tensor
        The tensor given.

    Examples
    --------
    >>> import torch
    >>> bool(truncated_normal_(torch.empty(1000), scale=0.5).abs().max() <= 1.0)
    True
    """
    with torch.no_grad():
        torch.nn.init.trunc_normal_(
            tensor, std=scale, a=-2 * scale, b=2 * scale, generator=generator
        )
    return tensor
