"""What a fit leaves behind: fitted attributes, and what further training needs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sktarget.estimators._fitted import FittedNetwork
from sktarget.estimators._network import ordinary_module, weight_names
from sktarget.estimators._rows import TrainingRows
from sktarget.training import (
    Continuation,
    TrainingLog,
    TrainingSettings,
    state_to_numpy,
    state_to_torch,
)

__all__ = ["ResumableNetwork"]

Array = NDArray[Any]


# The schedule of one of the user's callbacks.
_OWN = "own"
# Characters up to which a value is shown in a message.
_LEGIBLE = 40


class ResumableNetwork(FittedNetwork):
    """A fitted network that `warm_start` and ``partial_fit`` may train further."""

    # Where the epochs of the last call of ``fit`` begin.
    _first_epoch = 0
    # The step size that the rules chose in the first call of ``partial_fit``, and the
    # solver that it is for.
    _first_rate: tuple[str, float] | None = None
    # What callbacks need, to go on in another call of ``partial_fit``.
    _course: Mapping[str, Any] = MappingProxyType({})

    solver: str
    learning_rate_init: float | str
    early_stopping: bool | str

    # Attributes that exist only while training can go on; each class adds its own.
    _resumable: ClassVar[tuple[str, ...]] = (
        "_optimiser_state",
        "_optimiser_name",
        "_optimiser_rates",
        "_optimiser_schedule",
        "_first_rate",
        "_course",
        "_generator_state",
    )

    @property
    def _asks_to_stop_early(self) -> bool:
        """Whether the user, not a rule, wants rows to be held out to stop by."""
        return self.early_stopping not in (False, "auto")

    # -- what a kind of estimator defines --------------------------------------------

    @abstractmethod
    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        """Return what `_build` needs, in plain values."""

    @abstractmethod
    def _restored(self, module: nn.Module, rows: TrainingRows, seed: int) -> nn.Module:
        """Make the network to train out of the fitted ordinary module."""

    @abstractmethod
    def _keep_network(self, network: nn.Module) -> None:
        """Keep what further training needs beyond the realised weights."""

    # -- going on --------------------------------------------------------------------

    def _refuse_other_architecture(self, now: dict[str, Any]) -> None:
        """Refuse to go on with what describes another network."""
        before = self._architecture
        changed = [
            _describe_change(k, before.get(k), now.get(k))
            for k in sorted(now.keys() | before.keys())
            if now.get(k) != before.get(k)
        ]
        if changed:
            raise ValueError(
                f"warm_start and partial_fit cannot change {', '.join(changed)} of a "
                "fitted network: give the old value back, or let fit begin anew, with "
                "warm_start=False or on a clone"
            )

    def _resume(self, rows: TrainingRows, seed: int) -> tuple[nn.Module, TrainingLog]:
        """Rebuild the network of the last fit in the state it was left in."""
        network = self._restored(self._rebuild(), rows, seed)
        log = TrainingLog(
            loss_curve=list(self.loss_curve_),
            validation_losses=list(self.validation_loss_curve_ or []),
            validation_scores=list(self.validation_scores_ or []),
            no_improvement=self._no_improvement,
            n_samples_seen=self.t_,
            first=self._first_epoch,
        )
        network.train()
        return network, log

    # -- fitted state ----------------------------------------------------------------

    def _fitted_attributes(
        self, network: nn.Module, log: TrainingLog
    ) -> dict[str, Any]:
        module = ordinary_module(network)
        names = weight_names(network)
        scores, losses = log.validation_scores, log.validation_losses
        best = log.best_score
        return {
            "_module_state": state_to_numpy(dict(module.state_dict())),
            "_weight_names": names,
            "_module_cache": {},
            "_no_improvement": log.no_improvement,
            "_first_epoch": log.first,
            "n_layers_": len(names) + 1,
            "n_iter_": max(log.epochs_of_run, 1),
            "t_": log.n_samples_seen,
            "loss_": log.loss_curve[-1] if log.loss_curve else np.inf,
            "loss_curve_": list(log.loss_curve),
            "best_loss_": None
            if scores and self._asks_to_stop_early
            else log.best_loss,
            "validation_scores_": list(scores) or None,
            "validation_loss_curve_": list(losses) or None,
            "best_validation_score_": best if math.isfinite(best) else None,
        }

    def _kept_continuation(
        self, resumes: bool, settings: TrainingSettings
    ) -> Continuation | None:
        """Return what the last call has left to go on from, by the present settings."""
        kept = getattr(self, "_optimiser_state", None)
        if not resumes or kept is None or self._optimiser_name != settings.solver:
            return None
        state: dict[str, Any] = state_to_torch(kept)
        groups = state["param_groups"]
        rates = zip(settings.group_rates(), self._optimiser_rates, strict=True)
        # The optimiser's options are the present ones, not those it was saved with.
        options = settings.optimiser()[1]
        before, now = self._optimiser_schedule, _schedule_of(settings)
        # Calls of partial_fit are epochs of one course, unless its step size changes.
        goes_on = self._incremental and before == now
        over = before in ("annealed", _OWN) and not self._incremental
        begins_anew = over or before != now
        for group in groups:
            group.update({name: v for name, v in options.items() if name != "lr"})
        # The default group is always there, and last; others exist only where their
        # parameters do.
        for group, (rate, kept_rate) in zip(
            reversed(groups), reversed(list(rates)), strict=False
        ):
            # A rate that a schedule has lowered must not stay there under another; an
            # annealed one has fallen to zero.
            if rate != kept_rate or begins_anew:
                group["lr"] = rate
                group.pop("initial_lr", None)  # from which torch's schedules start
                goes_on = False
        return Continuation(state, **(self._course if goes_on else {}))

    def _forget_how_to_resume(self) -> None:
        """Drop what the last fit kept for further training.

        X̄ holds rows of the training set, which a model that only predicts must not
        carry along.
        """
        for name in self._resumable:
            self.__dict__.pop(name, None)

    def _keep_for_resuming(
        self,
        network: nn.Module,
        continuation: Continuation | None,
        generator: torch.Generator,
        settings: TrainingSettings,
    ) -> None:
        """Keep targets, X̄ and the optimiser's state, so that training can go on."""
        if continuation is not None:
            kept = dict(vars(continuation))
            self._optimiser_rates = settings.group_rates()
            self._optimiser_state = state_to_numpy(kept.pop("optimiser"))
            self._optimiser_name = settings.solver
            self._optimiser_schedule = _schedule_of(settings)
            self._course = kept
        if self._incremental and isinstance(self.learning_rate_init, str):
            self._first_rate = settings.solver, settings.learning_rate_init
        self._generator_state = state_to_numpy(generator.get_state())
        self._keep_network(network)


def _schedule_of(settings: TrainingSettings) -> str:
    """Name what changes the step size in the course of a fit."""
    return _OWN if settings.has_own_schedule else settings.schedule


def _describe_change(name: str, before: Any, now: Any) -> str:
    """Name a part of an architecture, and its values if these are easy to read."""
    was, is_now = repr(before), repr(now)
    legible = was != is_now and max(len(was), len(is_now)) <= _LEGIBLE
    return f"{name} (was {was}, is {is_now})" if legible else name
