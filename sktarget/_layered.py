"""Networks whose layers target space may run in its own way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Layered"]


class Layered(nn.Module):
    """A module that runs hidden layers and a last one with :meth:`run_layers`.

    Target space replaces that method by one that may run several layers at once.

    Examples
    --------
    >>> hidden = [[nn.Identity(), nn.ReLU()]]
    >>> Layered().run_layers(hidden, nn.Identity(), torch.tensor([[-1.0, 1.0]]), True)
    tensor([[-1.,  1.,  0.,  1.]])
    """

    @staticmethod
    def run_layers(
        hidden: list[list[nn.Module]], last: nn.Module, x: Tensor, shortcuts: bool
    ) -> Tensor:
        """Run hidden layers, each with what follows it, and the last one.

        Parameters
        ----------
        hidden : list of list of nn.Module
            The hidden layers, each along with its activation and the like.
        last : nn.Module
            The output layer.
        x : Tensor of shape (n, inputs)
            Inputs.
        shortcuts : bool
            Whether each layer passes on its input, concatenated with its output.

        Returns
        -------
        Tensor of shape (n, outputs)
            Output of the last one.
        """
        for modules in hidden:
            out = x
            for module in modules:
                out = module(out)
            x = torch.cat([x, out], dim=1) if shortcuts else out
        result: Tensor = last(x)
        return result
