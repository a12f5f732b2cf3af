"""How well networks predict rows held out, output by output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from sktarget.training import Criterion, TensorData, over_steps

__all__ = ["Errors", "measure_errors", "share_of_errors"]

# Errors below this share of the error of a constant count as none.
_NEXT_TO_NOTHING = 1e-3


class Errors(NamedTuple):
    """Errors of all outputs, and those of the best constants."""

    of_network: Tensor
    of_constant: Tensor


def measure_errors(
    network: nn.Module,
    held_out: TensorData,
    criterion: Criterion,
    output_units: tuple[Tensor, Tensor] | None,
) -> Errors:
    """Measure what a network makes of rows held out.

    Parameters
    ----------
    network : nn.Module
        The network, left in training mode.
    held_out : TensorData
        The rows.
    criterion : Criterion
        Judges outputs.
    output_units : (Tensor, Tensor) of shape (n_outputs,) each, or None
        Origin and unit in which the network learns every output.

    Returns
    -------
    Errors
        Tensors of shape (n_outputs,).
    """
    network.eval()
    sums = held_out.outputs_of(network).double()
    network.train()
    if output_units is not None:
        origin, unit = (t.to(sums) for t in output_units)
        sums = origin + unit * sums
    y = held_out.y.double() if held_out.y.is_floating_point() else held_out.y
    measure: Callable[[Tensor, Tensor, Tensor | None], Errors]
    measure = partial(_with_constant, criterion)
    if sums.ndim == 3:  # of the steps of sequences, not all of which count
        measure = over_steps(measure)
    return measure(sums, y, held_out.weight)


def _with_constant(
    criterion: Criterion, sums: Tensor, y: Tensor, weight: Tensor | None
) -> Errors:
    constant = criterion.best_constant(y, weight, sums.shape[1])
    return Errors(
        criterion.errors_of_outputs(sums, y, weight),
        criterion.errors_of_outputs(constant, y, weight),
    )


def share_of_errors(errors: Errors, before: Errors) -> float:
    """Return the mean ratio of errors to those of another network.

    The mean is one over outputs: in the mean error, outputs that nothing predicts would
    outweigh what is lost on others.  Outputs that do not vary do not count, and next to
    nothing is as good as nothing.

    Parameters
    ----------
    errors, before : Errors
        Errors of either network on the same rows.

    Returns
    -------
    float
        Below 1 if the errors are smaller than those before; NaN if no output varies.

    Examples
    --------
    >>> import torch
    >>> constant = torch.tensor([1.0, 4.0])
    >>> before = Errors(torch.tensor([0.5, 2.0]), constant)
    >>> share = share_of_errors(Errors(torch.tensor([0.25, 2.0]), constant), before)
    >>> round(share, 2)
    0.75
    """
    floor = _NEXT_TO_NOTHING * errors.of_constant
    shares = (errors.of_network + floor) / (before.of_network + floor)
    return float(shares[errors.of_constant > 0].mean())
