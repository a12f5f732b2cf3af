"""A module that stands in the place of an ordinary layer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from sktarget.nn._target_map import TargetMap

__all__ = ["StandIn"]


class StandIn(nn.Module):
    """A module in place of a layer of a registered kind, with one map or several.

    Attributes
    ----------
    stacks : bool
        Whether X̄ and X may run as one batch, X̄ on top, as patterns lie along
        the first axis of the inputs.
    is_random : bool
        Whether the layer draws random numbers in its present mode.
    given : dict
        Attributes that a user has given to the ordinary layer.
    shown : frozenset of str
        Names of those that are attributes here, too, as the names are free.
    """

    stacks: bool = True
    is_random: bool = False
    given: Mapping[str, Any] = MappingProxyType({})
    shown: frozenset[str] = frozenset()

    def target_maps(self) -> dict[str, TargetMap]:
        """Return the maps by their names in the wrapped module, in running order."""
        raise NotImplementedError

    def realise(self) -> nn.Module:
        """Make the ordinary layer with the cached weights as its parameters."""
        raise NotImplementedError

    def refuse_to_learn_nothing(self) -> None:
        """Refuse to run outside of a pass in training mode.

        No gradient would reach the targets, and even without gradients the weights
        would be old ones.
        """
        if self.training:
            raise RuntimeError(
                "a layer in target space ran in training mode, but not within a pass "
                "of its TargetSpace, so that nothing would be learnt, and its weights "
                "may be old: call the TargetSpace, not its module. Checkpointing of a "
                "part of the module runs that part again in the backward pass: "
                "checkpoint the whole or nothing"
            )

    def use_plain_layout(self) -> bool:
        """Lay out outputs as torch's layers do; return whether that is a change."""
        return False
