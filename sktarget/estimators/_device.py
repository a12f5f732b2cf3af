"""Where a network is trained."""

from __future__ import annotations

import torch

__all__ = ["resolve_device"]


def resolve_device(name: str) -> torch.device:
    """Find the device that the parameter `device` names, and try it.

    Parameters
    ----------
    name : str
        ``"auto"`` or a torch device.

    Returns
    -------
    torch.device
        A device that works.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Solves need double precision, which not every device has.
        torch.empty(1, dtype=torch.float64, device=device).add_(1).cpu()
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={name!r} cannot be used here: {reason}. Use device='auto' or "
            "device='cpu'."
        ) from None
    return device
