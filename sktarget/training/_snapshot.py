"""Copies of a network's state, to return to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sktarget.nn import TargetSpace

__all__ = ["Snapshot"]


@dataclass
class Snapshot:
    """A copy of a network's parameters and buffers, which is overwritten repeatedly.

    Attributes
    ----------
    live : list of Tensor
        The parameters and buffers themselves.
    tensors : list of Tensor
        Their copies.
    """

    live: list[Tensor]
    tensors: list[Tensor]

    @classmethod
    def of(cls, module: torch.nn.Module) -> Snapshot:
        """Copy the state that a module is in."""
        live = _state(module)
        return cls(live, [t.detach().clone() for t in live])

    @torch.no_grad()
    def take(self) -> None:
        """Copy the state that the module is in now."""
        for kept, now in zip(self.tensors, self.live, strict=True):
            kept.copy_(now)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring the module back to the state that was copied."""
        for kept, now in zip(self.tensors, self.live, strict=True):
            now.copy_(kept)


def _state(module: torch.nn.Module) -> list[Tensor]:
    # Running statistics belong to the state.  Cached weights, which are not persistent,
    # follow from the rest, and X̄ never changes.
    buffers = [
        buffer
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name not in part._non_persistent_buffers_set
        and not isinstance(part, TargetSpace)
    ]
    return [*module.parameters(), *buffers]
