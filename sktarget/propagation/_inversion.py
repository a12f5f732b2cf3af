"""Regularised inversion: one layer undone in closed form.

Plain torch, without scikit-learn.  A layer ``h = σ(W h' + fed)``, ``fed`` being all its
other input, is undone by finding the state below that best explains a target v,

    F(v) = argmin_h' ½‖W h' + fed − σ⁻¹(clip(v))‖² + r/2 ‖h'‖²
         = M (σ⁻¹(clip(v)) − fed),     M = (WᵀW + r I)⁻¹ Wᵀ

A displacement d of h is passed down as ``F(h + d) − F(h)``, in which ``fed`` cancels,
or as the linear part of that.

References
----------
V. Roulet, Z. Harchaoui, "Target Propagation via Regularized Inversion", arXiv
2112.01453; TMLR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sktarget.linalg import ridge_solve
from sktarget.propagation._losses import BatchLoss, loss_and_slope

__all__ = ["Inversion", "InversionNetwork", "inverse_matrix", "set_gradient"]


def set_gradient(parameter: Any, gradient: Tensor) -> None:
    """Set the gradient of a parameter, unless a callback has frozen it.

    Parameters
    ----------
    parameter : Tensor
        A leaf.
    gradient : Tensor of the same shape
        Its gradient, in place of any earlier one.

    Examples
    --------
    >>> weight = torch.zeros(2, requires_grad=True)
    >>> set_gradient(weight, torch.ones(2))
    >>> weight.grad
    tensor([1., 1.])
    """
    if parameter.requires_grad:
        parameter.grad = gradient


def inverse_matrix(weight: Tensor, ridge: float) -> Tensor:
    """Compute ``M = (WᵀW + r I)⁻¹ Wᵀ``, of norm at most ``1 / 2√r``.

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in)
        W.
    ridge : float
        r ≥ 0.

    Returns
    -------
    Tensor of shape (n_in, n_out)
        M.

    Raises
    ------
    FactorisationError
        If W is not finite.

    Examples
    --------
    >>> import torch
    >>> inverse_matrix(2 * torch.eye(2), ridge=1.0)
    tensor([[0.4000, 0.0000],
            [0.0000, 0.4000]])
    """
    unit = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    return ridge_solve(weight, unit, ridge)


@dataclass(frozen=True)
class Inversion:
    """How displacements are passed down through a layer.

    Attributes
    ----------
    ridge : float
        r ≥ 0.
    clip : float
        ε: values are clipped to ±(1 − ε) before tanh is inverted.
    linearize : bool
        Pass on the linear part of ``F(h + d) − F(h)`` instead of the difference.
    activation : {"tanh", "identity"}
        σ; nothing is clipped for ``"identity"``.

    Examples
    --------
    >>> import torch
    >>> inversion = Inversion(ridge=0.0, clip=0.1, linearize=True)
    >>> h = torch.tensor([[0.0, 0.95]])  # the second is clipped to 0.9
    >>> inversion.pull_back(torch.eye(2), h, torch.ones(1, 2))
    tensor([[1.0000, 5.2632]])
    """

    ridge: float
    clip: float
    linearize: bool
    activation: str = "tanh"

    def clipped(self, v: Tensor) -> Tensor:
        """Clip values to the range in which the activation is inverted."""
        if self.activation == "identity":
            return v
        return v.clamp(self.clip - 1, 1 - self.clip)

    def undo(self, v: Tensor) -> Tensor:
        """Compute ``σ⁻¹(clip(v))``."""
        return v if self.activation == "identity" else self.clipped(v).atanh()

    def slope(self, h: Tensor) -> Tensor:
        """Compute ``σ'(a)`` from the value ``h = σ(a)``, which is not clipped."""
        return torch.ones_like(h) if self.activation == "identity" else 1 - h.square()

    def pull_back(self, matrix: Tensor, h: Tensor, d: Tensor) -> Tensor:
        """Pass displacements on to the layer below; zero stays exactly zero.

        Parameters
        ----------
        matrix : Tensor of shape (n_in, n_out)
            M.
        h : Tensor of shape (n_b, n_out)
            Values of the layer.
        d : Tensor of shape (n_b, n_out)
            Their displacements.

        Returns
        -------
        Tensor of shape (n_b, n_in)
            Displacements of the values below.
        """
        if self.linearize:
            return (d / self.slope(self.clipped(h))) @ matrix.T
        # Undo one layer at a time: the position of a value in memory may change its
        # last bit, and equal values must cancel exactly.
        return (self.undo(h + d) - self.undo(h)) @ matrix.T

    def saturated(self, h: Tensor) -> Tensor:
        """Return the share of values beyond ±(1 − ε)."""
        if self.activation == "identity":
            return h.new_zeros(())
        return (h.abs() > 1 - self.clip).to(h.dtype).mean()


class InversionNetwork(nn.Module):
    """Base of the networks that find gradients by inverting layers or time steps.

    Parameters
    ----------
    network : nn.Module
        The network to train.
    inversion : Inversion
        How displacements are passed on.
    target_lr : float
        γ: step of the first target down the gradient of the mean loss.
    n_rows : float, optional
        How many rows a mini-batch stands for: the gradient of a row is divided by this
        in a mean loss.  By default as many as it has.  An incomplete mini-batch then
        displaces its rows by more, and weights that make one row stand for several do
        not displace it by less.

    Raises
    ------
    ValueError
        If the ridge penalty is not finite in the dtype of the network.

    Attributes
    ----------
    displacement_norms : Tensor
        Norms of the displacements in the last mini-batch, in which the weights of rows
        do not count.
    saturation_fraction : Tensor of shape ()
        Share of hidden values that were clipped in that mini-batch.
    """

    def __init__(
        self,
        network: nn.Module,
        inversion: Inversion,
        target_lr: float,
        n_rows: float | None = None,
    ) -> None:
        super().__init__()
        _refuse_infinite(inversion.ridge, network)
        self.network = network
        self.inversion = inversion
        self.target_lr = target_lr
        self.n_rows = n_rows
        self.displacement_norms = torch.zeros(0, device="cpu")
        self.saturation_fraction = torch.zeros((), device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (n, ...) to the outputs of the network (n, ..., n_outputs)."""
        outputs: Tensor = self.network(x)
        return outputs

    def realise(self) -> nn.Module:
        """Return the network itself."""
        return self.network

    def displace_top(
        self,
        loss: BatchLoss,
        outputs: Tensor,
        at: Tensor,
        weight: Tensor | None,
        within: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of the output layer, and find the first displacements.

        Any earlier gradients of the network are dropped.

        Parameters
        ----------
        loss, outputs, at, weight, within
            As for :func:`~sktarget.propagation._losses.loss_and_slope`; `at` is what
            the output layer reads.

        Returns
        -------
        loss : Tensor of shape ()
            The loss.
        displacements : Tensor of the shape of `at`
            A step of each row down the mean loss of `n_rows` rows.
        """
        top_loss, slope = loss_and_slope(loss, outputs, at, weight, within)
        self.network.zero_grad()
        top_loss.backward()  # type: ignore[no-untyped-call]
        n_rows = self.n_rows or len(outputs)
        return top_loss.detach(), slope * (-self.target_lr / n_rows)

    def shares(self, n: int, weight: Tensor | None) -> Tensor | float:
        """Return by how much each row of a mini-batch counts in what layers learn.

        Displacements are divided by `n_rows`, and what layers learn is a sum over rows,
        which makes this a mean again.

        Parameters
        ----------
        n : int
            Number of rows.
        weight : Tensor of shape (n,) or None
            Their weights.

        Returns
        -------
        Tensor of shape (n, 1), or float
            The factors.
        """
        stand_for = 1.0 if self.n_rows is None else self.n_rows / n
        return stand_for if weight is None else weight[:, None] * stand_for

    def get_extra_state(self) -> tuple[Tensor, Tensor]:
        """Return the statistics of the last mini-batch, as a part of the state."""
        return self.displacement_norms, self.saturation_fraction

    def set_extra_state(self, state: tuple[Tensor, Tensor]) -> None:
        """Restore the statistics of the last mini-batch."""
        self.displacement_norms, self.saturation_fraction = state


def _refuse_infinite(ridge: float, network: nn.Module) -> None:
    dtype = next(network.parameters()).dtype
    if ridge > torch.finfo(dtype).max:
        raise ValueError(
            f"ridge must be finite in {dtype}, got {ridge:g}: give less of it, or data "
            "in float64"
        )
