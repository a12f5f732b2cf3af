"""Recurrent networks trained by regularised inversion.

Plain torch, without scikit-learn.  States ``h_t = σ(W h_{t-1} + U x_t + b)`` with
``h_0 = 0`` are displaced, from the last step on, by

    d_t = direct_t + F(h_{t+1} + d_{t+1}) − F(h_{t+1}),

or by the linear part of that, where ``direct_t`` is a step down the loss of the output
read from ``h_t`` itself.  The weights then learn in one of two ways.

- ``"local"``: every step descends ``½‖σ(W h_{t-1} + U x_t + b) − (h_t + d_t)‖²``, all
  else being constant.  Only displacements travel back in time.
- ``"through_time"``: the same sum, but ``h_t`` depends on the weights through all
  earlier steps too.  This is the update of the implementation that the authors
  released; it contains back-propagation through time.

With ``Wᵀ`` in place of ``M`` and σ' in place of 1/σ', the local update *is*
back-propagation through time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget.architectures import RecurrentNetwork
from sktarget.propagation._inversion import (
    Inversion,
    InversionNetwork,
    inverse_matrix,
    set_gradient,
)
from sktarget.propagation._losses import BatchLoss

__all__ = ["RecurrentInversionNetwork", "displace", "step_errors"]

PullBack = Callable[[int, Tensor], Tensor]
# The loss, outputs, displacements of states by the output layer, and weights of rows.
_Top = tuple[Tensor, Tensor, Tensor, Tensor | None]


def displace(direct: Tensor, pull_back: PullBack) -> Tensor:
    """Find the displacements of all states, from the last step on.

    Parameters
    ----------
    direct : Tensor of shape (time, n_b, width)
        Displacements due to the output read from each state itself.
    pull_back : callable
        Maps a step t and its displacements (n_b, width) to those of step t - 1.

    Returns
    -------
    Tensor of shape (time, n_b, width)
        The displacements.

    Examples
    --------
    >>> import torch
    >>> direct = torch.tensor([0.0, 0.0, 8.0]).reshape(3, 1, 1)
    >>> displace(direct, lambda t, d: d / 2).flatten()
    tensor([2., 4., 8.])
    """
    negligible = _negligible(direct)
    found = [direct[-1]]
    for t in range(len(direct) - 1, 0, -1):
        d = direct[t - 1] + pull_back(t, found[-1])
        found.append(F.hardshrink(d, negligible))
    return torch.stack(found[::-1])


def step_errors(
    displacements: Tensor, slopes: Tensor, recurrent: Tensor | None
) -> Tensor:
    """Turn displacements into errors of the sums ``W h_{t-1} + U x_t + b``.

    Parameters
    ----------
    displacements : Tensor of shape (time, n_b, width)
        The ``d_t``.
    slopes : Tensor of shape (time, n_b, width)
        σ' at each sum.
    recurrent : Tensor of shape (width, width) or None
        W, through which errors also travel back in time; None for the local update.

    Returns
    -------
    Tensor of shape (time, n_b, width)
        Gradients of ``½ Σ ‖h_t − (h_t + d_t)‖²`` with respect to the sums.
    """
    if recurrent is None:
        return -slopes * displacements
    negligible = _negligible(displacements)
    errors = [-slopes[-1] * displacements[-1]]
    for t in range(len(slopes) - 2, -1, -1):
        e = slopes[t] * (errors[-1] @ recurrent - displacements[t])
        errors.append(F.hardshrink(e, negligible))
    return torch.stack(errors[::-1])


def _negligible(like: Tensor) -> float:
    """Return the size below which numbers are about to become denormal.

    Displacements fade from step to step, and denormal numbers are slow on a CPU.
    """
    limits = torch.finfo(like.dtype)
    return limits.tiny / limits.eps


class RecurrentInversionNetwork(InversionNetwork):
    """A recurrent network that finds gradients of its weights by inversion.

    Parameters
    ----------
    network : RecurrentNetwork
        One recurrent layer of tanh units and an output layer; the second bias of the
        cell keeps its value, since only the sum of the two matters.
    inversion : Inversion
        How displacements are passed back in time.
    target_lr : float
        γ: step, down the gradient of the mean loss, of states that outputs are read
        from.
    update : {"local", "through_time"}
        How the weights learn from the displacements.
    n_rows : float, optional
        How many sequences a mini-batch stands for; by default as many as it has.

    Attributes
    ----------
    displacement_norms : Tensor of shape (time,)
        Norms of ``d_t`` in the last mini-batch, from the first step on.
    saturation_fraction : Tensor of shape ()
        Share of state values that were clipped in that mini-batch.

    Examples
    --------
    >>> import torch
    >>> network = RecurrentNetwork(2, (6,), (), 3, cell="rnn", activation="tanh")
    >>> inversion = Inversion(ridge=0.3, clip=0.3, linearize=False)
    >>> net = RecurrentInversionNetwork(network, inversion, 0.1, "local")
    >>> x, y = torch.ones(7, 4, 2), torch.zeros(7, 3)
    >>> loss, outputs = net.set_gradients(x, lambda out, _: (out - y).square().mean())
    >>> net.displacement_norms.shape
    torch.Size([4])
    """

    network: RecurrentNetwork

    def __init__(
        self,
        network: RecurrentNetwork,
        inversion: Inversion,
        target_lr: float,
        update: str,
        n_rows: float | None = None,
    ) -> None:
        super().__init__(network, inversion, target_lr, n_rows)
        self.update = update

    def set_gradients(
        self, x: Tensor, loss: BatchLoss, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of all parameters, those of the cell by inversion.

        They take the place of any earlier ones.

        Parameters
        ----------
        x : Tensor of shape (n_b, time, n_inputs)
            Sequences, with NaN after the ends of shorter ones.
        loss : callable
            Maps (outputs, weights or None) to the loss, averaged over sequences or
            steps.
        weight : Tensor of shape (n_b,) or (n_b, time), optional
            Weights of sequences, with mean 1, or of steps.  The mean weight of a
            sequence scales what is learnt from it; how the weights of its steps differ
            from that scales the displacements of its states.

        Returns
        -------
        loss : Tensor of shape ()
            The loss before the step.
        outputs : Tensor of shape (n_b, n_outputs) or (n_b, time, n_outputs)
            Outputs of the network.

        Raises
        ------
        FactorisationError
            If weights are no longer finite.
        """
        n_steps, real = x.shape[1], ~x[..., 0].isnan()
        lengths = real.sum(1)
        # Steps that are padding in all these sequences take time for nothing.
        longest = int(lengths.max())
        x, real = x[:, :longest].nan_to_num(0.0), real[:, :longest]
        with torch.no_grad():
            states = self.network.recurrent[0](x)[0]
        if self.network.return_sequences:
            top = self._read_steps(states, n_steps, loss, weight)
        else:
            top = self._read_ends(states, lengths - 1, loss, weight)
        value, outputs, direct, row_weight = top
        states, shares = states.detach(), self.shares(len(x), row_weight)
        self._set_cell_gradients(x, states, direct, shares, n_steps)
        self.saturation_fraction = self.inversion.saturated(states[real])
        return value, outputs

    def _read_ends(
        self, states: Tensor, ends: Tensor, loss: BatchLoss, weight: Tensor | None
    ) -> _Top:
        """Learn outputs read from the last state of each sequence."""
        rows = torch.arange(len(states), device=states.device)
        end = states[rows, ends].requires_grad_()
        outputs = self.network.exit(end)
        value, displaced = self.displace_top(loss, outputs, end, weight)
        direct = torch.zeros_like(states)
        direct[rows, ends] = displaced
        return value, outputs.detach(), direct, weight

    def _read_steps(
        self, states: Tensor, n_steps: int, loss: BatchLoss, weight: Tensor | None
    ) -> _Top:
        """Learn outputs read from the states of all steps."""
        read = states.requires_grad_()
        outputs = self.network.exit(read.flatten(0, 1)).unflatten(0, states.shape[:2])
        outputs = F.pad(outputs, (0, 0, 0, n_steps - outputs.shape[1]))
        of_rows = within = None
        if weight is not None:
            of_rows = weight.sum(1) / (weight > 0).sum(1).clamp(min=1)
            # Those of weight zero have no steps to compare.
            within = weight / torch.where(of_rows > 0, of_rows, 1.0)[:, None]
        value, direct = self.displace_top(loss, outputs, read, weight, within)
        return value, outputs.detach(), direct, of_rows

    @torch.no_grad()
    def _set_cell_gradients(
        self,
        x: Tensor,
        states: Tensor,
        direct: Tensor,
        shares: Tensor | float,
        n_steps: int,
    ) -> None:
        cell = self.network.recurrent[0]
        assert isinstance(cell, nn.RNN)
        recurrent = cell.weight_hh_l0
        assert isinstance(recurrent, Tensor)
        # Time first, so that each step is contiguous in memory.
        h = states.transpose(0, 1).contiguous()
        matrix = inverse_matrix(recurrent, self.inversion.ridge)

        def pull_back(t: int, d: Tensor) -> Tensor:
            return self.inversion.pull_back(matrix, h[t], d)

        d = displace(direct.transpose(0, 1), pull_back)
        through = recurrent if self.update == "through_time" else None
        errors = step_errors(d, self.inversion.slope(h), through)
        errors = errors * shares
        flat = errors.flatten(0, 1)
        set_gradient(cell.weight_ih_l0, flat.T @ x.transpose(0, 1).flatten(0, 1))
        # The state before the first step is zero.
        of_states = errors[1:].flatten(0, 1).T @ h[:-1].flatten(0, 1)
        set_gradient(cell.weight_hh_l0, of_states)
        set_gradient(cell.bias_ih_l0, flat.sum(0))
        norms = torch.linalg.vector_norm(d, dim=(1, 2))
        self.displacement_norms = F.pad(norms, (0, n_steps - len(norms)))
