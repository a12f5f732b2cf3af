"""What a network minimises, and how its outputs are judged on other rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sktarget.training._losses import Loss, common_unit, mean_over_rows

__all__ = [
    "CRITERIA",
    "NUMBER_CRITERIA",
    "Criterion",
    "NumberCriterion",
    "quantile_criterion",
]

Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# As good as -inf, but 0 if multiplied by 0.
_LOG_OF_ZERO = -1e4


@dataclass(frozen=True)
class Criterion:
    """What a network minimises, and how its outputs are judged on other rows.

    All but the last map outputs of the network (n, k), y, and weights of the rows or
    None.  Weights have mean 1 over the training set.

    Attributes
    ----------
    loss : callable
        Returns the loss to minimise.
    error : callable
        Returns the error by which rows that were held out decide.
    errors_of_outputs : callable
        Returns the error of every output (k,), or of classes together (1,).
    best_constant : callable
        Maps y, weights or None, and k to the outputs that fit y best of all that do not
        depend on the inputs, the same for every row (n, k), in double precision.

    Examples
    --------
    >>> import torch
    >>> y = torch.tensor([0, 0, 0, 1])
    >>> CRITERIA["cross_entropy"].best_constant(y, None, 2)[:1].softmax(1)
    tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """

    loss: Loss
    error: Loss
    errors_of_outputs: Loss
    best_constant: Callable[[Tensor, Tensor | None, int], Tensor]


@dataclass(frozen=True)
class NumberCriterion(Criterion):
    """A criterion of numbers: a loss that is averaged over outputs, and is the error.

    Attributes
    ----------
    measure : callable
        Maps outputs and numbers, of shape (n, k), and scales of the outputs, of shape
        (k,) or None, to the losses (n, k).
    degree : int
        How often the unit of y is a factor of the loss.
    is_log : bool
        Whether outputs are logarithms of the predictions.

    Examples
    --------
    >>> import torch
    >>> y = torch.tensor([[1.0], [2.0], [6.0]])
    >>> for name, criterion in NUMBER_CRITERIA.items():
    ...     best = criterion.best_constant(y, None, 1)[0]
    ...     print(name, (best.exp() if criterion.is_log else best).item())
    squared_error 3.0
    absolute_error 2.0
    poisson 3.0
    """

    measure: Measure
    degree: int
    is_log: bool

    def loss_in(self, scales: Tensor) -> Loss:
        """Make a loss that measures every output on a scale of its own.

        Parameters
        ----------
        scales : Tensor of shape (k,)
            The scales, on the device of the outputs.

        Returns
        -------
        callable
            A loss of outputs, y and the weights of the rows.
        """
        return _averaged(self.measure, scales)

    def unit_of_loss(self, scales: Tensor) -> float:
        """Return what turns a loss on these scales into one of y itself.

        Parameters
        ----------
        scales : Tensor of shape (k,)
            The scales of the outputs; several count by the mean of their squares.

        Returns
        -------
        float
            The unit.
        """
        return common_unit(scales) ** self.degree


# --- Classes: the error is Brier's, the square of what probabilities miss -------------
# Longer training always adds a few confident mistakes.  The losses penalise them
# without bound, this error each by a bounded amount.


def _cross_entropy(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return F.cross_entropy(sums, y)
    return mean_over_rows(F.cross_entropy(sums, y, reduction="none"), weight)


def _brier(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    truth = F.one_hot(y, sums.shape[-1])
    return mean_over_rows((sums.softmax(-1) - truth).square().sum(1), weight)


def _brier_alone(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    return _brier(sums, y, weight).reshape(1)


def _log_shares(y: Tensor, weight: Tensor | None, k: int) -> Tensor:
    return _weighted_mean(F.one_hot(y, k), weight).log().expand(len(y), k)


def _logistic(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(sums, y, reduction="none")
    return mean_over_rows(losses.sum(1), weight)


def _brier_of_labels(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    return mean_over_rows((sums.sigmoid() - y).square().sum(1), weight)


def _brier_of_each(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    return _mean_errors((sums.sigmoid() - y).square(), weight)


def _logits_of_shares(y: Tensor, weight: Tensor | None, k: int) -> Tensor:
    return _weighted_mean(y, weight).clamp(0, 1).logit().expand(len(y), k)


# --- Numbers --------------------------------------------------------------------------


def _half_squares(sums: Tensor, y: Tensor, scales: Tensor | None) -> Tensor:
    missed = sums - y if scales is None else (sums - y) / scales
    return 0.5 * missed.square()


def _absolutes(sums: Tensor, y: Tensor, scales: Tensor | None) -> Tensor:
    missed = (sums - y).abs()
    return missed if scales is None else missed / scales


def _half_deviances(sums: Tensor, y: Tensor, scales: Tensor | None) -> Tensor:
    # Zero for the best prediction, so that a share of the error of another says much.
    deviances: Tensor = sums.exp() - y * sums + (torch.special.xlogy(y, y) - y)
    return deviances if scales is None else deviances / scales


def _pinball_losses(
    sums: Tensor, y: Tensor, scales: Tensor | None, quantile: float
) -> Tensor:
    missed = y - sums if scales is None else (y - sums) / scales
    # Nothing is to be learnt from what is exact: there both have no slope.
    return quantile * missed.relu() + (1 - quantile) * (-missed).relu()


def _quantiles(y: Tensor, weight: Tensor | None, quantile: float = 0.5) -> Tensor:
    ordered, order = y.double().sort(dim=0)
    # Repeats and weights must lead to the same, however sums are rounded.
    shares = _shares(y, weight).expand_as(y).gather(0, order)
    reached = shares.cumsum(0) >= quantile - 1e-9
    found: Tensor = ordered.gather(0, reached.int().argmax(0, keepdim=True))[0]
    return found


def _averaged(measure: Measure, scales: Tensor | None = None) -> Loss:
    def loss(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        return mean_over_rows(measure(sums, y, scales).mean(1), weight)

    return loss


def _of_numbers(
    measure: Measure,
    constant: Callable[[Tensor, Tensor | None], Tensor],
    *,
    degree: int = 1,
    is_log: bool = False,
) -> NumberCriterion:
    def errors_of_outputs(sums: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        return _mean_errors(measure(sums, y, None), weight)

    def best_constant(y: Tensor, weight: Tensor | None, k: int) -> Tensor:
        best = constant(y, weight)
        if is_log:
            best = torch.where(best > 0, best.log(), _LOG_OF_ZERO)
        return best.expand(len(y), k)

    loss = _averaged(measure)
    return NumberCriterion(
        loss, loss, errors_of_outputs, best_constant, measure, degree, is_log
    )


def _shares(y: Tensor, weight: Tensor | None) -> Tensor:
    """Return weights of the rows, as a column, that add up to 1."""
    shares = torch.ones_like(y[:, 0]) if weight is None else weight
    return (shares.double() / shares.double().sum())[:, None]


def _weighted_mean(y: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean row of y, in double precision, as a best constant should be."""
    return (y * _shares(y, weight)).sum(0)


def _mean_errors(errors: Tensor, weight: Tensor | None) -> Tensor:
    """Average the errors of every output; weights have mean 1 over the training set."""
    return (errors if weight is None else errors * weight[:, None]).mean(0)


NUMBER_CRITERIA: dict[str, NumberCriterion] = {
    "squared_error": _of_numbers(_half_squares, _weighted_mean, degree=2),
    "absolute_error": _of_numbers(_absolutes, _quantiles),
    "poisson": _of_numbers(_half_deviances, _weighted_mean, is_log=True),
}
"""Criteria of regressions by name.

Half the squared error leads to the mean; the absolute error to the median; half the
deviance of Poisson's distribution to the mean, of which outputs are the logarithm.
"""


@lru_cache(maxsize=64)
def quantile_criterion(quantile: float) -> NumberCriterion:
    """Make the criterion that leads to a quantile: the pinball loss.

    Parameters
    ----------
    quantile : float
        Between 0 and 1: the share of y that is to lie below the predictions.

    Returns
    -------
    NumberCriterion
        The same for the same quantile.

    References
    ----------
    R. Koenker, G. Bassett, "Regression Quantiles", Econometrica 46 (1978).

    Examples
    --------
    >>> import torch
    >>> y = torch.arange(1.0, 11.0)[:, None]
    >>> quantile_criterion(0.8).best_constant(y, None, 1)[0]
    tensor([8.], dtype=torch.float64)
    """
    return _of_numbers(
        partial(_pinball_losses, quantile=quantile),
        partial(_quantiles, quantile=quantile),
    )


CRITERIA: dict[str, Criterion] = {
    "cross_entropy": Criterion(_cross_entropy, _brier, _brier_alone, _log_shares),
    "logistic": Criterion(
        _logistic, _brier_of_labels, _brier_of_each, _logits_of_shares
    ),
    **NUMBER_CRITERIA,
}
"""All criteria by name: of classes, of labels that are 0 or 1, of numbers."""
