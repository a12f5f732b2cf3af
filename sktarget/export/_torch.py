"""Fitted networks as modules of PyTorch's own layers."""

from __future__ import annotations

import contextlib
import copy
from itertools import zip_longest
from typing import Any

from sklearn.utils.validation import check_is_fitted
from torch import fx, nn

from sktarget._linear import Linear
from sktarget._tanh import Tanh
from sktarget.architectures import DenseNetwork, SeededDropout
from sktarget.estimators.base import NetworkEstimator
from sktarget.nn.base import replace_layer

__all__ = ["check_exportable", "refuse_modules", "to_torch"]


def check_exportable(estimator: Any) -> None:
    """Raise unless given a fitted estimator of this package.

    Parameters
    ----------
    estimator : object
        What was given.

    Raises
    ------
    TypeError
        If it is not an estimator of this package.
    NotFittedError
        If it is not fitted.
    """
    refuse_modules(estimator)
    if not isinstance(estimator, NetworkEstimator):
        raise TypeError(
            "an estimator of sktarget is needed, got "
            f"{type(estimator).__name__}: of a pipeline, pass the last step, "
            "pipeline[-1]"
        )
    check_is_fitted(estimator)


def refuse_modules(estimator: Any) -> None:
    """Raise if given a module, which torch itself can export.

    Parameters
    ----------
    estimator : object
        What was given.

    Raises
    ------
    TypeError
        If it is a module.
    """
    if isinstance(estimator, nn.Module):
        raise TypeError(
            f"an estimator is needed, got the module {type(estimator).__name__}: "
            "export what its realise() returns, or the module if it has no such "
            "method, by torch.onnx.export or torch.save"
        )


def to_torch(estimator: NetworkEstimator) -> nn.Module:
    """Return the fitted network as a module of PyTorch's own layers.

    Parameters
    ----------
    estimator : estimator of this package
        A fitted one.

    Returns
    -------
    nn.Module
        A copy in evaluation mode on the CPU, which shares nothing with the estimator.
        It maps inputs, of the dtype that the network was fitted in, to the sums of the
        last layer, which softmax or the logistic function turns into probabilities,
        and with ``loss="poisson"`` the exponential into predictions.
        Images have the axes (n, channels, height, width), with bytes divided by 255;
        series (n, time, channels), with NaN after their ends; token ids (n, time).  A
        dense network becomes an ``nn.Sequential``; one with shortcuts or convolutions,
        or whose units transmit signs, is traced; recurrent networks, those whose units
        transmit samples, and modules of your own are copied as they are.

    Raises
    ------
    NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from sktarget import TargetSpaceRegressor
    >>> from sktarget.export import to_torch
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> reg = TargetSpaceRegressor((5,), tol=0.1, n_iter_no_change=5, random_state=0)
    >>> to_torch(reg.fit(X, X[:, 0]))
    Sequential(
      (0): Linear(in_features=1, out_features=5, bias=True)
      (1): LeakyReLU(negative_slope=0.2)
      (2): Linear(in_features=5, out_features=1, bias=True)
    )
    """
    check_exportable(estimator)
    module = copy.deepcopy(estimator.module_)
    for name, part in list(module.named_modules()):
        if isinstance(part, SeededDropout):
            module = replace_layer(module, name, nn.Dropout(part.p))
        elif isinstance(part, Tanh):
            module = replace_layer(module, name, nn.Tanh())
        elif isinstance(part, Linear):
            part.__class__ = nn.Linear  # type: ignore[assignment]
    # Networks of the sister algorithms may transmit what no activation computes.
    transmits = getattr(module, "transmission", "identity")
    is_own = type(module).__module__.startswith("sktarget.")
    if (
        is_own
        and isinstance(module, DenseNetwork)
        and not module.shortcuts
        and transmits == "identity"
    ):
        module = _as_sequential(module)
    # Predictions from samples are means over many passes, too many for a trace.
    elif is_own and transmits != "bernoulli":
        # How sequences are run depends on their lengths, which a trace cannot.
        with contextlib.suppress(fx.proxy.TraceError, TypeError):
            module = _trace(module)
    module.eval()  # A module's own `train` need not return it.
    return module


def _as_sequential(module: DenseNetwork) -> nn.Sequential:
    *hidden, last = module.layers
    parts: list[nn.Module | None] = []
    for layer, norm in zip_longest(hidden, module.norms or ()):
        parts += [layer, norm, copy.deepcopy(module.activation), module.dropout]
    given = (p for p in (*parts, last) if p is not None)
    return nn.Sequential(*(p for p in given if not isinstance(p, nn.Identity)))


def _trace(module: nn.Module) -> nn.Module:
    traced = fx.symbolic_trace(module)
    for node in traced.graph.nodes:
        node.type = None  # an annotation, here a string, which no file can hold
    traced.recompile()
    return traced
