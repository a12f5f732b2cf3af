"""Fitted estimators in files that hold nothing but data, without pickle.

The file is a NumPy ``.npz`` file of arrays with a JSON header and a checksum; the page
"Deploying" of the documentation describes it.  Loading a file runs no code from it,
whoever wrote it.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sktarget import _archive
from sktarget._version import __version__
from sktarget.estimators.base import NetworkEstimator

__all__ = ["load", "save"]

_KIND = "estimator"
# scikit-learn's callbacks and metadata requests: objects that only `fit` uses.
_ONLY_FOR_FIT = ("_skl_callbacks", "_metadata_request")


def save(estimator: NetworkEstimator, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a file without pickle.

    The file is written completely or not at all.  It holds what a pickle would hold,
    except for parameters that are objects or code (`module`, `callbacks`, a generator
    as `random_state`), which must be given to :func:`load`, and for what scikit-learn
    keeps only for `fit`: its own callbacks and the requests set by ``set_fit_request``.
    Ranges and tables among the parameters come back as arrays.

    Parameters
    ----------
    estimator : estimator of this package
        A fitted one.
    path : path-like
        Where to write it.

    Raises
    ------
    TypeError
        If it is not an estimator of this package; pipelines cannot be written, see the
        page "Deploying".
    NotFittedError
        If it is not fitted.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from sktarget import TargetSpaceRegressor
    >>> from sktarget.persistence import load, save
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> reg = TargetSpaceRegressor((5,), tol=0.1, n_iter_no_change=5, random_state=0)
    >>> reg = reg.fit(X, X[:, 0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(reg, f"{folder}/model.npz")
    ...     again = load(f"{folder}/model.npz")
    >>> bool((again.predict(X) == reg.predict(X)).all())
    True
    """
    kind = type(estimator)
    if not isinstance(estimator, NetworkEstimator) or not _is_ours(kind.__module__):
        raise TypeError(
            f"save takes a fitted estimator of sktarget, got {kind.__name__}: for "
            "pipelines and classes of your own use skops or joblib, for modules "
            "torch.save"
        )
    check_is_fitted(estimator)
    state = estimator.__getstate__()
    state = {k: v for k, v in state.items() if k not in _ONLY_FOR_FIT}
    parameters = {name: state.pop(name) for name in estimator.get_params(deep=False)}
    for name, value in parameters.items():
        if isinstance(value, os.PathLike):
            parameters[name] = os.fspath(value)
        elif isinstance(value, range) or hasattr(value, "to_numpy"):
            parameters[name] = np.asarray(value)  # also of tables, without names
    left_out = [name for name, v in parameters.items() if not _archive.is_plain(v)]
    if "module" in state["_architecture"]:
        state["_architecture"] = {**state["_architecture"], "module": None}
    content = {
        "class": _public_name(kind),
        "version": __version__,
        "parameters": {n: v for n, v in parameters.items() if n not in left_out},
        "left_out": left_out,
        "state": state,
    }
    _archive.write(path, _KIND, content)


def load(path: str | os.PathLike[str], **parameters: Any) -> Any:
    """Read an estimator that :func:`save` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    **parameters : object
        Parameters to set, among them those that the file could not hold.

    Returns
    -------
    estimator
        The fitted estimator; it predicts on any machine, with or without a GPU.

    Raises
    ------
    ValueError
        If the file is damaged, foreign, written in a later format, or lacks a parameter
        that is not given either.
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If another version of the package wrote the file.

    Examples
    --------
    Parameters that the file could not hold, here a callback, must be given:

    >>> import tempfile, numpy as np
    >>> from skorch.callbacks import Callback
    >>> from sktarget import TargetSpaceRegressor
    >>> from sktarget.persistence import load, save
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> reg = TargetSpaceRegressor((5,), tol=0.1, callbacks=[Callback()])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(reg.fit(X, X[:, 0]), f"{folder}/model.npz")
    ...     again = load(f"{folder}/model.npz", callbacks=None)
    >>> again.predict(X).shape
    (50,)
    """
    entries = "class", "version", "parameters", "left_out", "state"
    content = _archive.read(path, _KIND, entries)
    with _archive.refusing(path):
        missing = sorted(set(content["left_out"]) - parameters.keys())
        names = ", ".join(missing)
    if missing:
        hint = ", ".join(f"{name}=..." for name in missing)
        raise ValueError(
            f"{os.fspath(path)!r} could not hold the parameters {names}, which are "
            f"objects or code: give them, as in load(path, {hint})"
        )
    try:
        kind = _find_class(content["class"])
        _check_names(kind, parameters)
        estimator = kind(**(content["parameters"] | parameters))
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r}, written by sktarget {content['version']}, does not "
            f"fit version {__version__}: {error}"
        ) from error
    with _archive.refusing(path):
        state = content["state"]
        if state.keys() & set(kind._get_param_names()):
            raise ValueError("its state holds parameters")
        has_module = "module" in state["_architecture"]
        if has_module:
            state["_architecture"]["module"] = estimator.module
        estimator.__setstate__(estimator.__getstate__() | state)
    if has_module != (estimator.module is not None):
        known = "a module of the user's" if has_module else "no module"
        raise ValueError(
            f"module={estimator.module!r} does not fit {os.fspath(path)!r}, whose "
            f"network was made by {known}: "
            + ("give the same one" if has_module else "leave it out")
        )
    if has_module:
        _try_module(estimator)
    return estimator


def _public_name(kind: type) -> str:
    """Return the name by which users import a class: private modules may move."""
    package, _, _ = kind.__module__.partition("._")
    return f"{package}.{kind.__name__}"


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "sktarget"


def _find_class(path: str) -> type[NetworkEstimator]:
    """Find a class of this package by name; nothing else is ever imported."""
    module, _, name = path.rpartition(".")
    if not _is_ours(module):
        raise ImportError(f"{path} is not an estimator of sktarget")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, NetworkEstimator)):
        raise TypeError(f"{path} is not an estimator of sktarget")
    return kind


def _check_names(kind: type[NetworkEstimator], parameters: dict[str, Any]) -> None:
    unknown = sorted(parameters.keys() - set(kind._get_param_names()))
    if unknown:
        raise ValueError(
            f"{kind.__name__}, which the file holds, has no parameter "
            f"{', '.join(unknown)}: leave it out"
        )


def _try_module(estimator: NetworkEstimator) -> None:
    """Build the user's own network now, so that a wrong one does not go unnoticed."""
    try:
        _ = estimator.module_
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"module makes a different network from the one whose weights are stored: "
            f"{error}"
        ) from error
