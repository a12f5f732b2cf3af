"""What all estimators share: the course of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import nn

from sktarget.estimators._arrays import torch_dtype
from sktarget.estimators._checkpointing import open_checkpoint
from sktarget.estimators._compat import HAS_CALLBACKS
from sktarget.estimators._device import resolve_device
from sktarget.estimators._forks import serial_in_forks
from sktarget.estimators._guards import as_value_errors
from sktarget.estimators._holding_out import hold_out
from sktarget.estimators._hooks import FitHooks
from sktarget.estimators._random import combine_seeds, seeded_globally
from sktarget.estimators._rows import Role, TrainingRows
from sktarget.estimators._runs import (
    Run,
    learn_all,
    run,
    settings_of_run,
    try_again,
)
from sktarget.estimators._task import Task
from sktarget.estimators._validation_set import (
    ValidationSet,
    check_validation_rows,
    naming_the_validation_set,
)
from sktarget.nn import TargetSpace
from sktarget.training import (
    EpochContext,
    TensorData,
    TrainingLog,
    refuse_to_watch_nothing,
    state_to_torch,
)

__all__ = ["NetworkEstimator"]

Array = NDArray[Any]


class NetworkEstimator(FitHooks):
    """An estimator that trains a torch module.

    A subclass defines what :class:`~sktarget.estimators._hooks.FitHooks` asks for.
    """

    # -- fitting ---------------------------------------------------------------------

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation: ValidationSet | None = None,
        incremental: bool = False,
        classes: Any = None,
    ) -> Self:
        resumes = self._has_network and (incremental or self.warm_start)
        self._incremental = incremental
        self._check_parameters()
        if resumes:
            self._check_what_stays()
        else:
            self._output_units = None  # Those of an earlier fit mean nothing here.
        role = Role(first=not resumes, classes=classes)
        rows = self._read_rows(X, y, sample_weight, role)
        held_out = None
        if validation is not None:
            held_out = self._check_held_out(validation, rows)
        task = self._open_task(rows, held_out, resumes)
        with (
            as_value_errors(),
            torch.inference_mode(False),
            torch.enable_grad(),
            serial_in_forks(),
            seeded_globally(self.module is not None, task.dropout_seed, task.device),
        ):
            network, log = self._take_up(task) if resumes else self._begin(task)
            arguments = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
            self._train(network, log, task, arguments)
        return self

    def _begin(self, task: Task) -> tuple[nn.Module, TrainingLog]:
        """Choose from the data what is chosen once, and make a new network."""
        task.rows = self._arrange(task.rows, task.seed)
        self._output_units = self._measure_outputs(task)
        self._note_inputs(task)  # on which the activation depends
        self._read_in_units(task)
        self._architecture = self._describe_architecture(task.rows.X)
        self._other_rules = {}
        return self._new_network(task), TrainingLog()

    def _take_up(self, task: Task) -> tuple[nn.Module, TrainingLog]:
        """Rebuild the network of an earlier fit, to go on with these rows."""
        self._refuse_other_architecture(self._describe_architecture(task.rows.X))
        if not (self._incremental or self._may_go_by_lbfgs(task.rows)):
            self._other_rules = {**self._other_rules, "by_lbfgs": False}
        self._read_in_units(task)
        self._arrange_again(task)
        return self._resume(task.rows, task.seed)

    def _new_network(self, task: Task) -> nn.Module:
        """Build the network, and choose where its training starts."""
        dtype = torch_dtype(task.rows.dtype)
        module = self._build(self._architecture, dtype, task.generator)
        return self._trainable(module, task)

    def _check_held_out(
        self, validation: ValidationSet, rows: TrainingRows
    ) -> TrainingRows:
        """Validate what the user gives to stop by."""
        if not self.early_stopping:
            raise ValueError(
                "early_stopping=False makes no use of X_val and y_val: leave them out, "
                "or set early_stopping=True"
            )
        with naming_the_validation_set():
            held_out = self._read_rows(*validation, Role(first=False, training=rows))
            check_validation_rows(held_out, rows)
        return held_out

    def _open_task(
        self, rows: TrainingRows, held_out: TrainingRows | None, resumes: bool
    ) -> Task:
        """Hold rows out, unless some are given, and set up what draws at random."""
        device = resolve_device(self.device)
        random, checkpoint = check_random_state(self.random_state), None
        plan = self._plan_holding_out(rows) if held_out is None else None
        if self.checkpoint is not None and not self._incremental:
            checkpoint = open_checkpoint(
                self, rows, held_out, plan, random, resumes=resumes
            )
            random = checkpoint.random_state
        all_rows = rows
        if plan is not None:
            rows, held_out = hold_out(rows, plan, self.validation_fraction, random)
        rows.has_validation = held_out is not None
        if held_out is None:
            refuse_to_watch_nothing(self.callbacks or ())
        seed = int(random.randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        if resumes and hasattr(self, "_generator_state"):
            generator.set_state(state_to_torch(self._generator_state))
        # A later call must not repeat the dropout of an earlier one.
        dropout_seed = combine_seeds(seed, self.t_) if resumes else seed
        return Task(
            rows=rows,
            all_rows=all_rows,
            held_out=held_out,
            learns_all=plan is not None and plan.learns_all,
            may_retry=plan.learns_all if plan is not None else self._may_run_again,
            device=device,
            resumes=resumes,
            seed=seed,
            dropout_seed=dropout_seed,
            generator=generator,
            checkpoint=checkpoint,
        )

    def _train(
        self,
        network: nn.Module,
        log: TrainingLog,
        task: Task,
        arguments: dict[str, Any],
    ) -> None:
        """Train a network, perhaps others too, and keep the results.

        `arguments` is what ``fit`` was called with.
        """
        has_learnt_before = bool(log.loss_curve)
        if not self._incremental:
            log.begin_fit()
        settings = settings_of_run(self, task)
        objective = self._objective(task.held_out if task.may_retry else None)

        def fitted_so_far() -> dict[str, Any]:
            return self._fitted_attributes(network, log)

        with self._notifying_callbacks(fitted_so_far, arguments) as bridge:
            best = run(
                self,
                task,
                network,
                log,
                settings,
                objective,
                before=self._kept_continuation(has_learnt_before, settings),
                bridge=bridge,
                checkpoint=task.checkpoint,
                resumable=self._is_resumable,
            )
            # Another network would not be the one that is to be trained further.
            retries = [] if task.resumes else self._retries(best.ending, task)
            for retry in retries:
                best = try_again(self, task, objective, best, retry)
            ending, final = best.ending, best.network
            ending.warn()
            if ending.is_natural:
                self._advise(ending, task)
            if task.learns_all and ending.is_natural:
                final = learn_all(self, task, best)
            if not self._incremental:
                self._average_weights(final)
            self._keep_results(final, best, task)

    def _keep_results(self, network: nn.Module, of: Run, task: Task) -> None:
        """Set the fitted attributes, and what further training needs."""
        self.__dict__.update(self._fitted_attributes(network, of.log))
        self._forget_how_to_resume()
        if self._is_resumable:
            left = of.ending.continuation
            self._keep_for_resuming(network, left, task.generator, of.settings)

    @property
    def _is_resumable(self) -> bool:
        """Whether training may go on after this fit."""
        return self._incremental or self.warm_start

    def _to_tensors(
        self, rows: TrainingRows, network: nn.Module, task: Task
    ) -> TensorData:
        """Convert rows to tensors for a network."""
        dtype = torch_dtype(self._dtype if task.resumes else task.rows.dtype)
        data = rows.to_tensors(task.device, dtype)
        # A module of the user's may work in place, which would change the rows.
        data.copies = self.module is not None and not isinstance(network, TargetSpace)
        return data

    @contextmanager
    def _notifying_callbacks(
        self, fitted: Callable[[], dict[str, Any]], arguments: dict[str, Any]
    ) -> Iterator[EpochContext | None]:
        """Notify scikit-learn's callbacks of a fit; yield what does so of epochs."""
        if not HAS_CALLBACKS or self._incremental:
            yield None
            return
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(estimator=self, **arguments)
        bridge = None
        if getattr(self, "_skl_callbacks", None):
            bridge = EpochContext(context, fitted, estimator=self, **arguments)
        yield bridge
        context.call_on_fit_task_end(
            estimator=self, **arguments, reconstruction_attributes=dict
        )
