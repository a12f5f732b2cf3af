"""How to train, in the terms of the estimators' parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sktarget.training._given_callbacks import brings_schedule
from sktarget.training._optimisers import CentredRMSprop, FusedAdam, FusedSGD

__all__ = ["TrainingSettings", "supported_schedule"]

# The line search of L-BFGS, which has taken up to 60 evaluations where it ended, may
# go on for ever among numbers whose rounding hides the slope.
_MOST_EVALUATIONS = 100
# Schedules of the solvers that support none, or more than the annealed one.
_SCHEDULES: dict[str, set[str]] = {
    "lbfgs": set(),
    "sgd": {"annealed", "invscaling", "adaptive"},
}


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, in the terms of the estimators' parameters.

    Attributes
    ----------
    solver : {"adam", "sgd", "lbfgs", "rmsprop_centered"}
        Optimiser.
    learning_rate_init, learning_rate, power_t
        Step size and its schedule; ``"annealed"`` for all solvers but ``"lbfgs"``, the
        others for ``"sgd"`` only.
    momentum, nesterovs_momentum, beta_1, beta_2, epsilon
        Parameters of the optimiser.
    alpha : float
        Weight decay on the weights, but not on biases, embeddings and normalisations.
    first_alpha : float
        Weight decay of the first epoch, if larger: it is halved in every twentieth of
        the epochs until it reaches `alpha`.
    alpha_follows_loss : bool
        Whether the weight decay grows from 0 with the square of the share by which the
        loss has fallen since the first epoch, so that it is next to nothing until
        something is learnt.
    batch_size : int
        Rows of a mini-batch.
    shuffle : bool
        Whether mini-batches are drawn anew every epoch.
    max_iter : int
        Epochs, or iterations of ``"lbfgs"``.
    reserved : int
        How many of these to leave for the last epochs, on all rows.
    max_fun : int
        Bound on the evaluations of one ``"lbfgs"`` iteration's line search, which takes
        100 at most.
    tol, n_iter_no_change
        Stopping rule; for losses, `tol` is in units of `loss_unit`.
    may_validate_first : bool
        Whether the pass of a step may evaluate validation rows as well, since the
        module is known to do the same in training as in evaluation, but for dropout.
    overfit_share : float
        A lack of progress counts once the network does clearly better than constant
        outputs, if their error is known, or once the training loss is below this share
        of that of the rows held out.
    verbose : bool
        Print the progress.
    callbacks : sequence
        The user's skorch callbacks.
    describe : str
        The settings to name when training diverges, if any.
    warns_at_end : bool
        Whether to warn if `max_iter` epochs pass without convergence.
    remedy : str
        What to do when training diverges.
    output_units : (Tensor, Tensor) of shape (n_outputs,) each, or None
        Origin and unit of every output of a regression: y is
        ``origin + unit * outputs``.
    loss_unit : float
        Factor by which losses are multiplied before they are reported.
    rates : mapping of str to float
        Step sizes of the parameters whose names match a pattern, where these are not
        `learning_rate_init`.
    """

    solver: str
    learning_rate_init: float
    batch_size: int
    shuffle: bool
    max_iter: int
    tol: float
    n_iter_no_change: float
    verbose: bool
    describe: str
    learning_rate: str = "constant"
    power_t: float = 0.5
    momentum: float = 0.0
    nesterovs_momentum: bool = True
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    alpha: float = 0.0
    first_alpha: float = 0.0
    alpha_follows_loss: bool = False
    may_validate_first: bool = False
    overfit_share: float = 0.0
    max_fun: int = 15000
    reserved: int = 0
    warns_at_end: bool = True
    callbacks: Sequence[Any] = field(default=())
    remedy: str = "Lower learning_rate_init, or standardise X"
    output_units: tuple[Tensor, Tensor] | None = None
    loss_unit: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)

    def group_rates(self) -> list[float]:
        """List the step sizes of the optimiser's groups of parameters."""
        return [*self.rates.values(), self.optimiser()[1]["lr"]]

    def alpha_at(self, done: float, learnt: float) -> float:
        """Return the weight decay of an epoch.

        Parameters
        ----------
        done : float
            Share of the epochs before it, from 0 to 1.
        learnt : float
            Share by which the loss has fallen since the first epoch, from 0 to 1.

        Returns
        -------
        float
            Between `first_alpha` and `alpha`; times the square of `learnt` if it
            follows the loss.
        """
        alpha = max(self.alpha, self.first_alpha * 2 ** (-20 * done))
        return alpha * learnt**2 if self.alpha_follows_loss else alpha

    def for_last(self, epochs: int, alpha: float) -> TrainingSettings:
        """Return the settings for the last epochs, with steps half as large.

        L-BFGS, which searches for the length of each step, goes on as it is.

        Parameters
        ----------
        epochs : int
            Their number.
        alpha : float
            Their weight decay, which is constant.

        Returns
        -------
        TrainingSettings
            These, for a separate run without callbacks, warning or early stop.
        """
        return replace(
            self,
            learning_rate_init=self.learning_rate_init / 2,
            rates={name: rate / 2 for name, rate in self.rates.items()},
            alpha=alpha,
            first_alpha=0.0,
            alpha_follows_loss=False,
            max_iter=epochs,
            reserved=0,
            n_iter_no_change=math.inf,
            callbacks=(),
            warns_at_end=False,
        )

    @property
    def epochs(self) -> int:
        """The most epochs, or iterations, to run."""
        return self.max_iter - self.reserved

    def of_net(self) -> dict[str, Any]:
        """Return what a :class:`TrainingNet` needs of these settings.

        Returns
        -------
        dict
            Arguments by name, some of them skorch's own.
        """
        kind, arguments = self.optimiser()
        return {
            "loss_unit": self.loss_unit,
            "output_units": self.output_units,
            "batch_size": self.batch_size,
            "max_epochs": self.epochs,
            "device": None,  # skorch must not move the network.
            "verbose": int(self.verbose),  # for messages of the user's callbacks
            "optimizer": kind,
            "optimizer__param_groups": [
                (pattern, {"lr": rate}) for pattern, rate in self.rates.items()
            ],
            **{f"optimizer__{name}": value for name, value in arguments.items()},
        }

    @property
    def has_own_schedule(self) -> bool:
        """Whether one of the user's callbacks changes the step size."""
        return brings_schedule(self.callbacks)

    @property
    def schedule(self) -> str:
        """Schedule of the step size, constant if the solver does not support it."""
        return supported_schedule(self.solver, self.learning_rate)

    def optimiser(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Return the class and the arguments of the optimiser."""
        if self.solver == "lbfgs":
            return torch.optim.LBFGS, {
                "lr": 1.0,
                "max_iter": 1,
                "max_eval": min(self.max_fun, _MOST_EVALUATIONS),
                "history_size": 10,
                "line_search_fn": "strong_wolfe",
            }
        if self.solver == "rmsprop_centered":
            return CentredRMSprop, {"lr": self.learning_rate_init}
        if self.solver == "sgd":
            return FusedSGD, {
                "lr": self.learning_rate_init,
                "momentum": self.momentum,
                "nesterov": self.nesterovs_momentum and self.momentum > 0,
            }
        return FusedAdam, {
            "lr": self.learning_rate_init,
            "betas": (self.beta_1, self.beta_2),
            "eps": self.epsilon,
        }


def supported_schedule(solver: str, learning_rate: str) -> str:
    """Return the schedule of the step size that a solver uses.

    Parameters
    ----------
    solver : str
        Name of the solver.
    learning_rate : str
        Name of the schedule that is asked for.

    Returns
    -------
    str
        The same, or ``"constant"`` if the solver does not support it.

    Examples
    --------
    >>> supported_schedule("adam", "annealed"), supported_schedule("lbfgs", "annealed")
    ('annealed', 'constant')
    """
    supported = _SCHEDULES.get(solver, {"annealed"})
    return learning_rate if learning_rate in supported else "constant"
