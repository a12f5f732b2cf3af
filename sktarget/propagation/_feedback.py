"""Feedback maps: how a target is passed down to the layers below."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sktarget._blank import make_blank
from sktarget.architectures import ACTIVATIONS
from sktarget.propagation._network import (
    sign,
)

__all__ = ["FeedbackMap", "propagate_targets"]


class FeedbackMap(nn.Module):
    """Approximate inverse of a layer, ``g(v) = t(V q'(v) + c)``.

    Parameters
    ----------
    n_in, n_out : int
        Widths of the layer above, whose values are the input, and of the one below.
    activation : str
        t, a key of ``ACTIVATIONS``.
    signs : bool, default=False
        Whether to take the signs of the input: q'.
    dtype : torch.dtype, optional
        Dtype of the weights.

    Examples
    --------
    >>> import torch
    >>> FeedbackMap(3, 5, "tanh")(torch.zeros(4, 3)).shape
    torch.Size([4, 5])
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: str,
        *,
        signs: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.linear = make_blank(nn.Linear, n_in, n_out, device="cpu", dtype=dtype)
        nn.init.zeros_(self.linear.bias)
        self.activation = ACTIVATIONS[activation]()
        self.signs = signs

    def forward(self, v: Tensor) -> Tensor:
        """Map values or targets (n_b, n_in) of a layer to the layer below."""
        below: Tensor = self.activation(self.linear(sign(v) if self.signs else v))
        return below


def propagate_targets(
    states: Sequence[Tensor],
    top: Tensor,
    feedback: Sequence[Callable[[Tensor], Tensor]],
    *,
    difference: bool = True,
) -> list[Tensor]:
    """Pass a target down through feedback maps.

    Parameters
    ----------
    states : sequence of k Tensors of shape (n_b, n_i)
        Values of successive layers, from below.
    top : Tensor of shape (n_b, n_k)
        Target of the last of them.
    feedback : sequence of k - 1 callables
        Each maps values of ``states[i + 1]`` to values of ``states[i]``.
    difference : bool, default=True
        Correct for the error of the feedback map; if not, ``ĥ_{i-1} = g_i(ĥ_i)``.

    Returns
    -------
    list of k Tensors
        The targets, each of the shape of its state.

    Examples
    --------
    >>> import torch
    >>> below, above = torch.zeros(1), torch.ones(1)
    >>> propagate_targets([below, above], above - 0.5, [lambda v: 2 * v + 7])
    [tensor([-1.]), tensor([0.5000])]
    """
    targets = [top]
    for i in range(len(states) - 1, 0, -1):
        undo = feedback[i - 1]
        target = undo(targets[-1])
        if difference:
            # The bracket first, so that equal arguments leave the state exactly as is.
            target = states[i - 1] + (target - undo(states[i]))
        targets.append(target)
    return targets[::-1]
