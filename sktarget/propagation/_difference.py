"""Difference target propagation: feedback maps, targets, gradients layer by layer.

Plain torch, without scikit-learn.  With layers 1 to M, ``h_0 = x``, values
``h_i = f_i(h_{i-1})`` and feedback maps ``g_i``, learned approximate inverses of
``f_i``, training on a mini-batch takes three steps:

1. Each ``g_i`` learns to undo ``f_i`` on noisy values: it descends
   ``‖g_i(f_i(n)) - n‖²``, ``n = h_{i-1} + σ ξ``.
2. A target for the top layer is a small step down the loss; the others follow from
   ``ĥ_{i-1} = h_{i-1} + (g_i(ĥ_i) - g_i(h_i))``.
3. Each layer descends its own ``‖f_i(h_{i-1}) - ĥ_i‖²``, with ``h_{i-1}`` and ``ĥ_i``
   constant.

No gradient crosses a layer, except that of the loss through the output layer if the top
target is that of the last hidden layer.

References
----------
D.-H. Lee, S. Zhang, A. Fischer, Y. Bengio, "Difference Target Propagation", ECML/PKDD
2015, arXiv 1412.7525.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sktarget.propagation._feedback import FeedbackMap, propagate_targets
from sktarget.propagation._losses import BatchLoss, loss_and_slope
from sktarget.propagation._network import (
    TransmittingNetwork,
    initialise_layers_,
)
from sktarget.propagation._noise import RowNoise

__all__ = ["DifferenceTargetNetwork"]


class DifferenceTargetNetwork(nn.Module):
    """A network with feedback maps, which finds the gradients of layers from targets.

    Parameters
    ----------
    network : TransmittingNetwork
        The network to train.
    feedback_activation : str, default="tanh"
        Activation of the feedback maps, a key of ``ACTIVATIONS``.
    target_lr : float, default=0.01
        η_s: step of the top target down the gradient of each row's own loss.
    top_target : {"penultimate", "output"}, default="penultimate"
        Layer with the first target: the last hidden layer, in which case the output
        layer learns by the gradient of the loss; or the output layer.
    noise : float, default=0.1
        σ of the noise on which feedback maps are trained.
    input_noise : float, default=0.0
        Standard deviation of the noise on the inputs in training.
    difference : bool, default=True
        Whether targets are corrected, see :func:`propagate_targets`.
    weight_init : str, default="orthogonal"
        How the feedback weights are drawn, a key of ``INITIALISATIONS``.
    generator : torch.Generator, optional
        Draws the feedback weights.
    seed : int, default=0
        Determines the noise, see :meth:`begin_epoch`.

    Attributes
    ----------
    reconstruction_curve : list of list of float
        Reconstruction losses of every map in every epoch, kept by the training loop.

    Examples
    --------
    >>> import torch
    >>> net = DifferenceTargetNetwork(TransmittingNetwork(2, (6, 5, 4), 3, "tanh"))
    >>> [tuple(g.linear.weight.shape) for g in net.feedback]
    [(6, 5), (5, 4)]
    >>> x, y = torch.ones(7, 2), torch.zeros(7, 3)
    >>> loss, outputs = net.set_gradients(x, lambda out, _: (out - y).square().mean())
    >>> [p.grad is not None for _, p in net.network.named_parameters()]
    [True, True, True, True, True, True, True, True]
    """

    def __init__(
        self,
        network: TransmittingNetwork,
        *,
        feedback_activation: str = "tanh",
        target_lr: float = 0.01,
        top_target: str = "penultimate",
        noise: float = 0.1,
        input_noise: float = 0.0,
        difference: bool = True,
        weight_init: str = "orthogonal",
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.target_lr = target_lr
        self.top_target = top_target
        self.noise = noise
        self.input_noise = input_noise
        self.difference = difference
        self.seed = seed
        self.reconstruction_curve: list[list[float]] = []
        self.begin_epoch(1)
        dtype = next(network.parameters()).dtype
        widths = network.widths
        # g_2 to g_{M-1} or to g_M: no map leads to the input.
        last = len(widths) - 1 - (top_target == "penultimate")
        signs = network.transmission == "sign"
        maps = [
            FeedbackMap(
                widths[i],
                widths[i - 1],
                feedback_activation,
                signs=signs and i < len(widths) - 1,
                dtype=dtype,
            )
            for i in range(2, last + 1)
        ]
        self.feedback = nn.ModuleList(maps)
        linear = nn.ModuleList(g.linear for g in maps)
        initialise_layers_(linear, weight_init, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (n, n_inputs) to the outputs of the network (n, n_outputs)."""
        outputs: Tensor = self.network(x)
        return outputs

    def realise(self) -> TransmittingNetwork:
        """Return the network without feedback maps."""
        return self.network

    def get_extra_state(self) -> Tensor:
        """Return the reconstruction curve, as a part of the network's state."""
        shape = len(self.reconstruction_curve), len(self.feedback)
        curve = torch.tensor(
            self.reconstruction_curve, dtype=torch.float64, device="cpu"
        )
        return curve.reshape(shape)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the reconstruction curve."""
        self.reconstruction_curve = state.tolist()

    def begin_epoch(self, epoch: int, scale: float = 1.0) -> None:
        """Choose the noise of an epoch.

        It is determined by the seed and the epoch's number, so that training continues
        after a pause as if there had been none.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 1.
        scale : float, default=1.0
            Factor for σ in this epoch.
        """
        device = next(self.network.parameters()).device
        seed = self.seed + epoch
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._sigma = self.noise * scale

    # -- feedback --------------------------------------------------------------------

    def reconstruction_losses(
        self, x: Tensor, weight: Tensor | None = None
    ) -> list[Tensor]:
        """Measure how well the feedback maps undo their layers on noisy values.

        Parameters
        ----------
        x : Tensor of shape (n_b, n_inputs)
            Inputs.
        weight : Tensor of shape (n_b,), optional
            Weights of the rows, with mean 1.

        Returns
        -------
        list of Tensor of shape ()
            One loss per map, whose gradients reach only the parameters of that map.
        """
        noise = RowNoise(x, self._generator)
        states = self._states(x, noise)
        losses = []
        for i, undo in enumerate(self.feedback, start=2):
            with torch.no_grad():
                h = states[i - 1]
                noisy = h + self._sigma * noise.normal(h.shape[1])
                above = self._layer(noisy, i, noise)
            losses.append(_squares(undo(above) - noisy, weight))
        return losses

    @torch.no_grad()
    def _states(self, x: Tensor, noise: RowNoise) -> list[Tensor]:
        """Compute the values from h_0 up to the last hidden layer."""
        states = [self._noisy_input(x, noise)]
        for i in range(1, len(self.network.layers)):
            states.append(self._layer(states[-1], i, noise))
        return states

    def _layer(self, v: Tensor, i: int, noise: RowNoise) -> Tensor:
        received = self.network.transmit(v, i, noise.uniform)
        return self.network.apply_layer(received, i)

    def _noisy_input(self, x: Tensor, noise: RowNoise) -> Tensor:
        if self.input_noise == 0:
            return x
        return x + self.input_noise * noise.normal(x.shape[1])

    # -- targets and gradients -------------------------------------------------------

    def set_gradients(
        self, x: Tensor, loss: BatchLoss, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of all forward parameters, each by its own layer's loss.

        All come from the same values, targets and weights, and take the place of any
        earlier ones; gradients of the feedback maps are left alone.

        Parameters
        ----------
        x : Tensor of shape (n_b, n_inputs)
            Inputs.
        loss : callable
            Maps (outputs, weights of the rows or None) to the loss, averaged over rows.
        weight : Tensor of shape (n_b,), optional
            Weights of the rows, with mean 1.  They scale a row's share in what the
            layers learn, not the step of its target: a weight acts like repeats.

        Returns
        -------
        loss : Tensor of shape ()
            The loss before the step.
        outputs : Tensor of shape (n_b, n_outputs)
            Outputs of the network.
        """
        self.network.zero_grad()
        noise = RowNoise(x, self._generator)
        n_layers = len(self.network.layers)
        # Values of the hidden layers, each with a graph of its own layer only.
        values: list[Tensor] = []
        state = self._noisy_input(x, noise)
        for i in range(1, n_layers):
            values.append(self._layer(state, i, noise))
            state = values[-1].detach()
        # Without hidden layers this may be the caller's own tensor.
        received = self.network.transmit(state, n_layers, noise.uniform).detach()
        received.requires_grad_()
        outputs = self.network.apply_layer(received, n_layers)
        if self.top_target == "output":
            free = outputs.detach().requires_grad_()
            top_loss, gradient = loss_and_slope(loss, free, free, weight)
            values.append(outputs)
        else:
            top_loss, gradient = loss_and_slope(loss, outputs, received, weight)
            top_loss.backward()  # type: ignore[no-untyped-call]
        if values:
            targets = self._targets([v.detach() for v in values], gradient)
            pairs = zip(values, targets, strict=True)
            local: Tensor = sum(_squares(v - t, weight) for v, t in pairs)  # type: ignore[assignment]
            if local.requires_grad:  # Callbacks may have frozen every layer.
                local.backward()  # type: ignore[no-untyped-call]
        return top_loss.detach(), outputs.detach()

    @torch.no_grad()
    def _targets(self, states: list[Tensor], gradient: Tensor) -> list[Tensor]:
        """Find the targets of the layers up to the one with the first target."""
        top = states[-1] - self.target_lr * gradient
        feedback: list[Callable[[Tensor], Tensor]] = list(self.feedback)
        return propagate_targets(states, top, feedback, difference=self.difference)


def _squares(differences: Tensor, weight: Tensor | None) -> Tensor:
    """Sum squares over units, without a half, and average over rows."""
    squares = differences.square().sum(1)
    return (squares if weight is None else squares * weight).mean()
