"""What the estimators share: validation, training, fitted state, prediction."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from sktarget.estimators import _rules
from sktarget.estimators._compat import HAS_CALLBACKS, CallbackSupportMixin
from sktarget.estimators._network import (
    as_tensor,
    build_module,
    ordinary_module,
    resolve_device,
    seed_dropout,
    seeded_globally,
    state_to_numpy,
    state_to_torch,
    weight_names,
)
from sktarget.estimators._parameters import CONSTRAINTS
from sktarget.estimators._preparation import (
    TrainingRows,
    choose_fixed_batch,
    hidden_sizes,
    hold_out,
)
from sktarget.nn import TargetSpace
from sktarget.training import (
    LOSSES,
    DivergenceError,
    EpochContext,
    TensorData,
    TrainingLog,
    TrainingSettings,
    train,
)

__all__ = ["BaseTargetSpace", "keeps_fitted_state"]

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")
Self_ = TypeVar("Self_", bound="BaseTargetSpace")

# Rows that predict sends through the network at a time.
_CHUNK = 8192


def keeps_fitted_state(
    method: Callable[Concatenate[Self_, P], R],
) -> Callable[Concatenate[Self_, P], R]:
    """Leave the estimator as it was if the method fails."""

    @functools.wraps(method)
    def guarded(self: Self_, *args: P.args, **kwargs: P.kwargs) -> R:
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return guarded


class BaseTargetSpace(CallbackSupportMixin, BaseEstimator, ABC):
    """Base of all estimators in target space."""

    _parameter_constraints = CONSTRAINTS

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100,),
        *,
        activation: str = "tanh",
        lam: float | str = "auto",
        fixed_batch_size: int | str | None = "auto",
        fixed_batch: str | ArrayLike = "sample",
        untangling: str = "scu",
        target_init: str = "weights",
        target_scale: float = 1.0,
        project_targets: bool = True,
        parameterization: str = "targets",
        shortcuts: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        module: Callable[[int, int], nn.Module] | None = None,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float | str = "auto",
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int | str = "auto",
        max_fun: int = 15000,
        device: str = "auto",
        callbacks: list[Any] | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.lam = lam
        self.fixed_batch_size = fixed_batch_size
        self.fixed_batch = fixed_batch
        self.untangling = untangling
        self.target_init = target_init
        self.target_scale = target_scale
        self.project_targets = project_targets
        self.parameterization = parameterization
        self.shortcuts = shortcuts
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.module = module
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.callbacks = callbacks

    # -- what a kind of estimator defines --------------------------------------------

    @abstractmethod
    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Any = None
    ) -> TrainingRows:
        """Validate the data; on the first call set `_loss` and what y decides."""

    @abstractmethod
    def _score_sums(self, sums: torch.Tensor, data: TensorData) -> float:
        """Score the outputs on validation rows."""

    @abstractmethod
    def _decode(self, sums: Array) -> Array:
        """Turn the outputs of the network into predictions."""

    # -- fitting ---------------------------------------------------------------------

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        incremental: bool = False,
        classes: Any = None,
    ) -> Self:
        resumes = hasattr(self, "_module_state") and (incremental or self.warm_start)
        self._check_parameters(incremental)
        device = resolve_device(self.device)
        rows = self._check_rows(
            X, y, sample_weight, first=not resumes, classes=classes
        )
        random = check_random_state(self.random_state)
        held_out = None
        if self.early_stopping:
            rows, held_out = hold_out(rows, self.validation_fraction, random)
        seed = int(random.randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        if resumes and hasattr(self, "_generator_state"):
            generator.set_state(state_to_torch(self._generator_state))
        with seeded_globally(self.module is not None, seed, device):
            if resumes:
                network, log = self._resume(rows, seed)
            else:
                network, log = self._start(rows, generator, seed), TrainingLog()
            network.to(device)
            seed_dropout(network, seed, device)
            data = rows.to_tensors(device)
            if isinstance(network, TargetSpace) and self._fixed_batch_is_all:
                # The very tensor of X̄, so that one pass can serve both.
                data.x = network.fixed_batch
            self._train(
                network,
                data,
                None if held_out is None else held_out.to_tensors(device),
                log,
                generator,
                incremental=incremental,
                task={"X": X, "y": y, "metadata": {"sample_weight": sample_weight}},
            )
        return self

    def _check_parameters(self, incremental: bool) -> None:
        """Check what concerns several parameters at once."""
        hidden_sizes(self.hidden_layer_sizes)
        if self.batch_norm and self.parameterization == "targets":
            raise ValueError(
                "batch_norm=True goes with parameterization='weights' only: targets "
                "fix the statistics that it normalises"
            )
        if not incremental:
            return
        if self.solver == "lbfgs":
            raise ValueError(
                "partial_fit needs mini-batches, which solver='lbfgs' does not take: "
                "use solver='adam' or solver='sgd'"
            )
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")

    def _start(
        self, rows: TrainingRows, generator: torch.Generator, seed: int
    ) -> nn.Module:
        """Build the network, and X̄ and targets for it."""
        self._architecture = self._describe_architecture(rows.X)
        dtype = as_tensor(rows.X[:0]).dtype
        module = build_module(self._architecture, dtype, generator)
        self._check_outputs(module, rows.X)
        self._fixed_batch_is_all = False
        if self.parameterization == "weights":
            return module
        network = self._to_targets(module, rows, seed)
        if self.target_init == "normal":
            network.reset_targets(
                self.target_scale, project=self.project_targets, generator=generator
            )
        return network

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        if self.module is not None:
            return {
                "module": self.module,
                "n_inputs": X.shape[1],
                "n_outputs": self.n_outputs_,
            }
        return {
            "n_inputs": X.shape[1],
            "hidden_layer_sizes": hidden_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": self.activation,
            "shortcuts": bool(self.shortcuts),
            "dropout": float(self.dropout),
            "batch_norm": bool(self.batch_norm),
        }

    def _check_outputs(self, module: nn.Module, X: Array) -> None:
        """Try a module of the user's own before any training."""
        if self.module is None:
            return
        mode = module.training
        with torch.no_grad():
            shape = tuple(module.eval()(as_tensor(X[:2])).shape)
        module.train(mode)
        if shape != (len(X[:2]), self.n_outputs_):
            raise ValueError(
                f"module gives outputs of shape {shape} for {len(X[:2])} rows; "
                f"{(len(X[:2]), self.n_outputs_)} is needed"
            )

    def _to_targets(
        self, module: nn.Module, rows: TrainingRows, seed: int
    ) -> TargetSpace:
        """Choose X̄ and λ; take the sums of the given weights as targets."""
        widths = [m.in_features for m in module.modules() if isinstance(m, nn.Linear)]
        widest = 1 + max(widths, default=0)
        fixed = choose_fixed_batch(
            rows, self.fixed_batch, self.fixed_batch_size, widest, seed
        )
        self._fixed_batch_is_all = fixed is rows.X
        lam = self.lam
        self.lam_ = float(
            _rules.auto_lam(len(fixed), max(1, len(widths))) if lam == "auto" else lam
        )
        return TargetSpace(module, as_tensor(fixed), self.lam_, self.untangling)

    def _back_to_targets(
        self, module: nn.Module, rows: TrainingRows, seed: int
    ) -> TargetSpace:
        """Go on from the targets of the last fit, or else from its weights."""
        if not hasattr(self, "targets_"):
            return self._to_targets(module, rows, seed)
        fixed = self.fixed_batch_
        network = TargetSpace(module, as_tensor(fixed), self.lam_, self.untangling)
        with torch.no_grad():
            layers = network.target_layers().values()
            for layer, kept in zip(layers, self.targets_, strict=True):
                layer.targets.copy_(as_tensor(kept))
        self._fixed_batch_is_all = np.array_equal(rows.X, fixed)
        return network

    def _resume(self, rows: TrainingRows, seed: int) -> tuple[nn.Module, TrainingLog]:
        """Rebuild the network of the last fit in the state it was left in."""
        now = self._describe_architecture(rows.X)
        if now != self._architecture:
            changed = sorted(k for k in now if now[k] != self._architecture.get(k))
            raise ValueError(
                f"warm_start and partial_fit cannot change {', '.join(changed)} of a "
                "fitted network: set warm_start=False or clone the estimator"
            )
        network = self._rebuild()
        if self.parameterization == "targets":
            network = self._back_to_targets(network, rows, seed)
        log = TrainingLog(
            loss_curve=list(self.loss_curve_),
            validation_losses=list(self.validation_loss_curve_ or []),
            validation_scores=list(self.validation_scores_ or []),
            no_improvement=self._no_improvement,
            n_samples_seen=self.t_,
        )
        return network.train(), log

    def _train(
        self,
        network: nn.Module,
        data: TensorData,
        held_out: TensorData | None,
        log: TrainingLog,
        generator: torch.Generator,
        *,
        incremental: bool,
        task: dict[str, Any],
    ) -> None:
        already = len(log.loss_curve)
        if not incremental:
            log.no_improvement = 0
        settings = self._settings(len(data), incremental)

        def fitted() -> dict[str, Any]:
            return self._fitted_attributes(network, log, len(log.loss_curve) - already)

        bridge = None
        if HAS_CALLBACKS and not incremental:
            context = self._init_callback_context(max_subtasks=self.max_iter)
            context.call_on_fit_task_begin(estimator=self, **task)
            if getattr(self, "_skl_callbacks", None):
                bridge = EpochContext(context, fitted, estimator=self, **task)
        try:
            optimiser_state = train(
                network,
                data,
                held_out,
                settings,
                loss=LOSSES[self._loss],
                score=self._score_sums,
                log=log,
                generator=generator,
                optimiser_state=self._kept_optimiser_state(already > 0),
                decode=lambda sums: self._decode(sums.numpy(force=True)),
                bridge=bridge,
            )
        except DivergenceError as error:
            raise ValueError(str(error)) from None
        vars(self).update(fitted())
        self._keep_for_resuming(network, optimiser_state, generator, incremental)
        if HAS_CALLBACKS and not incremental:
            context.call_on_fit_task_end(
                estimator=self, **task, reconstruction_attributes=dict
            )

    def _settings(self, n_samples: int, incremental: bool) -> TrainingSettings:
        if self.solver == "lbfgs":
            batch_size = n_samples
        elif self.batch_size == "auto":
            batch_size = _rules.auto_batch_size(n_samples)
        else:
            batch_size = min(int(self.batch_size), n_samples)
        rate = self.learning_rate_init
        if rate == "auto":
            rate = _rules.auto_rate(self.solver, self.parameterization)
        patience = self.n_iter_no_change
        if patience == "auto":
            patience = _rules.auto_patience(-(-n_samples // batch_size))
        described = [f"learning_rate_init={rate:g}"]
        if self.parameterization == "targets":
            described.insert(0, f"lam={self.lam_:g}")
        return TrainingSettings(
            solver=self.solver,
            learning_rate_init=float(rate),
            learning_rate=self.learning_rate,
            power_t=self.power_t,
            momentum=self.momentum,
            nesterovs_momentum=bool(self.nesterovs_momentum),
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            alpha=self.alpha,
            batch_size=batch_size,
            shuffle=bool(self.shuffle),
            max_iter=1 if incremental else self.max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            n_iter_no_change=float(patience),
            verbose=bool(self.verbose),
            describe=", ".join(described),
            incremental=incremental,
            callbacks=tuple(self.callbacks or ()),
        )

    # -- fitted state ----------------------------------------------------------------

    def _fitted_attributes(
        self, network: nn.Module, log: TrainingLog, n_iter: int
    ) -> dict[str, Any]:
        module = ordinary_module(network)
        names = weight_names(network)
        scores, losses = log.validation_scores, log.validation_losses
        return {
            "_module_state": state_to_numpy(dict(module.state_dict())),
            "_weight_names": names,
            "_module_cache": {},
            "_no_improvement": log.no_improvement,
            "n_layers_": len(names) + 1,
            "n_iter_": max(n_iter, 1),
            "t_": log.n_samples_seen,
            "loss_": log.loss_curve[-1] if log.loss_curve else np.inf,
            "loss_curve_": list(log.loss_curve),
            "best_loss_": None if scores else log.best_loss,
            "validation_scores_": list(scores) or None,
            "validation_loss_curve_": list(losses) or None,
            "best_validation_score_": max(scores) if scores else None,
        }

    def _kept_optimiser_state(self, resumes: bool) -> dict[str, Any] | None:
        kept = getattr(self, "_optimiser_state", None)
        if not resumes or kept is None or self._optimiser_name != self.solver:
            return None
        state: dict[str, Any] = state_to_torch(kept)
        return state

    def _keep_for_resuming(
        self,
        network: nn.Module,
        optimiser_state: dict[str, Any],
        generator: torch.Generator,
        incremental: bool,
    ) -> None:
        """Keep targets, X̄ and optimiser only where training may go on.

        X̄ holds rows of the training set: a model that is only to predict must not
        carry them about.
        """
        for name in ("targets_", "fixed_batch_", "_optimiser_state", "_generator_state"):
            vars(self).pop(name, None)
        if not (incremental or self.warm_start):
            return
        self._optimiser_state = state_to_numpy(optimiser_state)
        self._optimiser_name = self.solver
        self._generator_state = state_to_numpy(generator.get_state())
        if isinstance(network, TargetSpace):
            self.targets_ = [
                state_to_numpy(layer.targets)
                for layer in network.target_layers().values()
            ]
            self.fixed_batch_ = state_to_numpy(network.fixed_batch)

    def _rebuild(self) -> nn.Module:
        """Build the ordinary module with the fitted weights, on the CPU."""
        first = next(iter(self._module_state.values()))
        with seeded_globally(True, 0, torch.device("cpu")):
            module = build_module(self._architecture, as_tensor(first[:0]).dtype)
        module.load_state_dict(state_to_torch(self._module_state))
        return module.eval()

    @property
    def module_(self) -> nn.Module:
        """The fitted network as an ordinary torch module, on the CPU."""
        check_is_fitted(self, "n_iter_")
        # A dict, so that predicting leaves the attributes themselves as they are.
        if "module" not in self._module_cache:
            self._module_cache["module"] = self._rebuild()
        module: nn.Module = self._module_cache["module"]
        return module

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer in the order of the cascade, (n_in, n_out) each."""
        check_is_fitted(self, "n_iter_")
        return [self._module_state[_key(n, "weight")].T for n in self._weight_names]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer that has them, of shape (n_out,)."""
        check_is_fitted(self, "n_iter_")
        keys = [_key(name, "bias") for name in self._weight_names]
        return [self._module_state[key] for key in keys if key in self._module_state]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the torch module out: it is rebuilt from arrays on demand."""
        state: dict[str, Any] = super().__getstate__()
        if "_module_cache" in state:
            state = {**state, "_module_cache": {}}
        return state

    # -- prediction ------------------------------------------------------------------

    def _sums(self, X: Any) -> Array:
        """Give the outputs of the network, (n, n_outputs), before any softmax."""
        check_is_fitted(self, "n_iter_")
        X = self._check_features(X)
        module = self.module_
        dtype = next(iter(self._module_state.values())).dtype
        x = as_tensor(X.astype(dtype, copy=False))
        with torch.inference_mode():
            if len(x) <= _CHUNK:
                return module(x).numpy()
            return np.concatenate([module(part).numpy() for part in x.split(_CHUNK)])

    def _check_features(self, X: Any) -> Array:
        """Validate the inputs of ``predict``."""
        checked: Array = validate_data(
            self, X, reset=False, dtype=(np.float64, np.float32)
        )
        return checked


def _key(name: str, kind: str) -> str:
    return f"{name}.{kind}" if name else kind
