"""A fitted estimator: arrays, a module built from them, and its predictions."""

from __future__ import annotations

import copy
import inspect
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktarget._version import __version__
from sktarget.estimators._arrays import Units, as_tensor, torch_dtype
from sktarget.estimators._forks import serial_in_forks
from sktarget.estimators._random import seeded_globally
from sktarget.training import as_inputs, rows_at_a_time, state_to_torch

__all__ = ["FittedNetwork", "read_only"]

Array = NDArray[Any]

# So many numbers of a sparse matrix are written out at a time.
_MOST_DENSE = 1 << 24
# Added to the state of copies and files: the version that wrote them.
_STAMP = "_sktarget_version"


class FittedNetwork(BaseEstimator, ABC):
    """An estimator whose fitted state is a torch module, kept as NumPy arrays."""

    _architecture: dict[str, Any]
    _module_state: dict[str, Array]
    _module_cache: dict[str, nn.Module]
    _weight_names: list[str]
    # In regression, of every output: the number from which the network learns the
    # differences, such as the mean of y, and the unit in which it learns them.
    _output_units: Units | None = None

    @abstractmethod
    def _build(
        self,
        architecture: dict[str, Any],
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> nn.Module:
        """Build the ordinary network that a description stands for, on the CPU."""

    @abstractmethod
    def _validate(self, X: Any, *y: Any, reset: bool, **kwargs: Any) -> Any:
        """Validate X, or X and y, as scikit-learn does."""

    # -- fitted state ----------------------------------------------------------------

    @property
    def _has_network(self) -> bool:
        """Whether there is a network; a fit that failed may leave the rest."""
        return hasattr(self, "_module_state")

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether ``fit`` has succeeded."""
        return self._has_network

    def _rebuild(self) -> nn.Module:
        """Build the ordinary module with the weights as learnt, on the CPU."""
        custom = "module" in self._architecture
        with seeded_globally(custom, 0, torch.device("cpu")):
            module = self._build(
                self._architecture, torch_dtype(self._dtype), torch.Generator()
            )
        module.load_state_dict(state_to_torch(self._module_state))
        module.eval()  # A module's own `train` need not return it.
        return module

    def _rebuild_to_predict(self) -> nn.Module:
        """Build the module that gives y itself: its last layer undoes the units."""
        module = self._rebuild()
        if self._output_units is not None:
            last: Any = module.get_submodule(self._weight_names[-1])
            origin, unit = map(as_tensor, self._output_units)
            with torch.no_grad():
                last.weight *= unit[:, None]
                torch.addcmul(origin, last.bias, unit, out=last.bias)
        return module

    @property
    def _dtype(self) -> Any:
        """The dtype in which the network was fitted."""
        # A module of the user's may keep a state of any other kind as well.
        dtypes = (getattr(a, "dtype", None) for a in self._module_state.values())
        return next(d for d in dtypes if d is not None and d.kind == "f")

    @property
    def module_(self) -> nn.Module:
        """The fitted network as an ordinary torch module, on the CPU."""
        check_is_fitted(self)
        return self._module()

    def _module(self) -> nn.Module:
        # A dict, so that predicting sets no attribute.
        module: nn.Module | None = self._module_cache.get("module")
        if module is None:
            # Built in a caller's inference mode, it could never be trained.
            with torch.inference_mode(False):
                built = self._rebuild_to_predict()
            # If several threads build the module at once, all get that of one.
            module = self._module_cache.setdefault("module", built)
        return module

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer in the order of the cascade, (n_in, n_out) each.

        Those of a convolution are multiplied by its patches: n_in = channels × height ×
        width of the kernel, the channel varying slowest, so that
        ``coef.T.reshape(n_out, channels, height, width)`` is torch's kernel.  The
        recurrent layers of a `module` are left out.
        """
        check_is_fitted(self)
        keys = [_key(name, "weight") for name in self._weight_names]
        kernels = (self._module_state[key] for key in keys if key in self._module_state)
        coefs = [kernel.reshape(len(kernel), -1).T for kernel in kernels]
        if self._output_units is not None:
            _, unit = self._output_units
            coefs[-1] = coefs[-1] * unit
        return [read_only(coef) for coef in coefs]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer that has them, of shape (n_out,)."""
        check_is_fitted(self)
        keys = [_key(name, "bias") for name in self._weight_names]
        biases = [self._module_state[key] for key in keys if key in self._module_state]
        if self._output_units is not None:
            origin, unit = self._output_units
            biases[-1] = origin + biases[-1] * unit
        return [read_only(bias) for bias in biases]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the torch module out: it is rebuilt from arrays on demand."""
        state: dict[str, Any] = super().__getstate__()
        if "_module_cache" in state:
            state = {**state, "_module_cache": {}}
        if state.get("callbacks"):
            kept = map(_without_network, state["callbacks"])
            state = {**state, "callbacks": type(state["callbacks"])(kept)}
        return {**state, _STAMP: __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state, and warn if another version of the package wrote it."""
        written_by = state.get(_STAMP, "of unknown version")
        if written_by != __version__:
            warnings.warn(
                f"this {type(self).__name__} was stored by sktarget {written_by} and "
                f"is loaded by {__version__}: compare some predictions with those made "
                "before, or fit it again",
                stacklevel=2,
            )
        state = {k: v for k, v in state.items() if k != _STAMP}
        # Parameters that did not exist yet.
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        super().__setstate__(defaults | state)

    # -- prediction ------------------------------------------------------------------

    def _sums(self, X: Any) -> Array:
        """Return the outputs of the network, (n, n_outputs), before any softmax."""
        check_is_fitted(self)
        if sparse.issparse(X) and X.ndim == 2:
            n_rows = max(1, _MOST_DENSE // max(1, X.shape[1]))
            if X.shape[0] > n_rows:
                X = X.tocsr()
                starts = range(0, X.shape[0], n_rows)
                return np.concatenate([self._sums(X[i : i + n_rows]) for i in starts])
        return self._run(self._validate(X, reset=False))

    def _run(self, X: Array, counts: Array | None = None) -> Array:
        """Run the fitted network on validated inputs.

        Outputs that do not count, if any, may be anything.
        """
        module = self._module()
        if module.training:  # `module_` is the same object.
            module.eval()
        x, dtype = as_tensor(X), torch_dtype(self._dtype)
        if "module" in self._architecture:  # It may work in place.
            x = x.clone()
        n_rows = rows_at_a_time(x)
        with torch.inference_mode(), serial_in_forks():
            # For a single row, the overhead of every call counts.
            parts = [x] if len(x) <= n_rows else torch.split(x, n_rows)
            sums = [module(as_inputs(part, dtype)).numpy() for part in parts]
        stacked = sums[0] if len(sums) == 1 else np.concatenate(sums)
        are_finite = np.isfinite(stacked).all()
        if counts is not None and not are_finite:
            stacked = np.where(counts[..., None], stacked, 0)
            are_finite = np.isfinite(stacked).all()
        if not are_finite:
            raise ValueError(
                "X is too large for this network: its outputs overflow. Scale X as the "
                "training data were scaled; if X is these data, fit again with a lower "
                "learning_rate_init"
            )
        return stacked


def _without_network(callback: Any) -> Any:
    """Copy a callback without what holds the network's targets, and so training data.

    That is what skorch's schedules and its early stopping keep after training.  The
    callback may be one of a pair with its name.
    """
    if isinstance(callback, tuple):
        name, part = callback
        return name, _without_network(part)
    of_training = torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler
    dropped = [
        name
        for name, value in getattr(callback, "__dict__", {}).items()
        if isinstance(value, of_training) or name == "best_model_weights_"
    ]
    if dropped:
        callback = copy.copy(callback)
        for name in dropped:
            delattr(callback, name)
    return callback


def read_only(array: Array) -> Array:
    """Return a view that cannot be written to: predictions would not follow.

    Parameters
    ----------
    array : ndarray
        Weights or biases.

    Returns
    -------
    ndarray
        The view.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def _key(name: str, kind: str) -> str:
    return f"{name}.{kind}" if name else kind
