"""Dense networks trained by regularised inversion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sktarget.propagation._inversion import (
    Inversion,
    InversionNetwork,
    inverse_matrix,
    set_gradient,
)
from sktarget.propagation._losses import BatchLoss
from sktarget.propagation._network import TransmittingNetwork

__all__ = ["DenseInversionNetwork"]


class DenseInversionNetwork(InversionNetwork):
    """A dense network that finds the gradients of its layers by inverting them.

    Starting from ``d``, the displacement of the last hidden layer down the loss,

    - ``d_{i-1} = F_i(h_i + d_i) − F_i(h_i)``, or its linear part, with the inverse of
      each layer recomputed for each mini-batch;
    - layer i descends ``½‖f_i(h_{i-1}) − (h_i + d_i)‖²``, all else being constant;
    - the output layer learns by the gradient of the loss.

    Parameters
    ----------
    network : TransmittingNetwork
        The network to train, whose units transmit their values.
    inversion : Inversion
        How displacements are passed down.
    target_lr : float
        γ: step of the last hidden layer down the gradient of the mean loss.
    n_rows : float, optional
        How many rows a mini-batch stands for; by default as many as it has.

    Attributes
    ----------
    displacement_norms : Tensor of shape (n_hidden,)
        Norms of ``d_i`` in the last mini-batch, from the lowest layer up.
    saturation_fraction : Tensor of shape ()
        Share of hidden values that were clipped in that mini-batch.

    Examples
    --------
    >>> import torch
    >>> net = DenseInversionNetwork(
    ...     TransmittingNetwork(2, (6, 5), 3, "tanh"),
    ...     Inversion(ridge=0.3, clip=0.3, linearize=False),
    ...     target_lr=1.0,
    ... )
    >>> x, y = torch.ones(7, 2), torch.zeros(7, 3)
    >>> loss, outputs = net.set_gradients(x, lambda out, _: (out - y).square().mean())
    >>> net.displacement_norms.shape
    torch.Size([2])
    """

    network: TransmittingNetwork

    def __init__(
        self,
        network: TransmittingNetwork,
        inversion: Inversion,
        target_lr: float,
        n_rows: float | None = None,
    ) -> None:
        super().__init__(network, inversion, target_lr, n_rows)
        self.displacement_norms = torch.zeros(len(network.layers) - 1, device="cpu")

    def set_gradients(
        self, x: Tensor, loss: BatchLoss, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of all parameters, those of hidden layers by inversion.

        They take the place of any earlier ones.

        Parameters
        ----------
        x : Tensor of shape (n_b, n_inputs)
            Inputs.
        loss : callable
            Maps (outputs, weights of the rows or None) to the loss, averaged over rows.
        weight : Tensor of shape (n_b,), optional
            Weights of the rows, with mean 1.  They scale a row's share in what the
            layers learn, not its displacement: a weight acts like repeats.

        Returns
        -------
        loss : Tensor of shape ()
            The loss before the step.
        outputs : Tensor of shape (n_b, n_outputs)
            Outputs of the network.

        Raises
        ------
        FactorisationError
            If weights are no longer finite.
        """
        n_layers = len(self.network.layers)
        states = [x]
        with torch.no_grad():
            for i in range(1, n_layers):
                states.append(self.network.apply_layer(states[-1], i))
        top = states[-1].detach().requires_grad_()
        outputs = self.network.apply_layer(top, n_layers)
        value, d = self.displace_top(loss, outputs, top, weight)
        if n_layers > 1:
            self._set_hidden_gradients(states, d, self.shares(len(x), weight))
        return value, outputs.detach()

    @torch.no_grad()
    def _set_hidden_gradients(
        self, states: list[Tensor], d: Tensor, shares: Tensor | float
    ) -> None:
        norms = []
        for i in range(len(states) - 1, 0, -1):
            layer = self.network.layers[i - 1]
            assert isinstance(layer, nn.Linear)
            error = -self.inversion.slope(states[i]) * d
            error *= shares
            set_gradient(layer.weight, error.T @ states[i - 1])
            set_gradient(layer.bias, error.sum(0))
            norms.append(d.norm())
            if i > 1:  # The input needs no target.
                matrix = inverse_matrix(layer.weight, self.inversion.ridge)
                d = self.inversion.pull_back(matrix, states[i], d)
        self.displacement_norms = torch.stack(norms[::-1])
        hidden = torch.cat([h.flatten() for h in states[1:]])
        self.saturation_fraction = self.inversion.saturated(hidden)
