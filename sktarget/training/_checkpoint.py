"""A training run saved to a file, to be resumed after it was killed.

Like skorch's own checkpoint, but complete, and in one file, which is replaced
atomically: a resumed run ends as an uninterrupted one, bit for bit.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from sktarget import _archive, _files
from sktarget._version import __version__
from sktarget.training._bridge import EpochContext
from sktarget.training._callback_state import callback_states, pack, unpack
from sktarget.training._continuation import freeze, restore_with_rates
from sktarget.training._monitor import Monitor, Stopper
from sktarget.training._schedule import Schedule
from sktarget.training._state import state_to_numpy, state_to_torch

__all__ = ["Checkpoint", "is_of_user", "users_callbacks"]

_KIND = "checkpoint"
_NAMES = (
    "version",
    "problem",
    "random_state",
    "is_finished",
    "log",
    "module",
    "optimiser",
    "monitor",
    "generators",
    "callbacks",
    "history",
    "frozen",
)
_FILE = "checkpoint.npz"  # within a folder
# What is neither a parameter nor a buffer may change its form.
_EXTRA_STATE = "_extra_state"
# Known only by digests: a message cannot show what changed in them.
_DIGESTS = {"training set", "validation set", "state before fit"}


class Checkpoint(Callback):
    """Saves the state of a run after every epoch, and resumes from it.

    Parameters
    ----------
    path : path-like
        The file; missing folders above it are made.  If it is an existing folder, the
        file is ``checkpoint.npz`` in it.
    problem : dict of str to str
        Describes what is learnt and from what, by the names of parameters, ``"training
        set"``, ``"validation set"`` and ``"state before fit"``: the file of another
        problem is refused.
    random_state : numpy.random.RandomState
        What the run begins with.
    begins_anew : bool, default=False
        Ignore a file whose run has ended.
    uses_global_generator : bool, default=False
        Whether torch's global generator is part of the state.

    Attributes
    ----------
    random_state : numpy.random.RandomState
        What the run began with: as given, or read from the file of a killed run.

    Raises
    ------
    ValueError
        If the file is damaged or holds another problem.
    OSError
        If the file exists but cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        problem: dict[str, str],
        random_state: np.random.RandomState,
        *,
        begins_anew: bool = False,
        uses_global_generator: bool = False,
    ) -> None:
        path = Path(path)
        self.path = path / _FILE if path.is_dir() else path
        self.problem = problem
        self.uses_global_generator = uses_global_generator
        self._kept = self._read(begins_anew)
        if self._kept is None:
            self.random_state = random_state
            self._began_with = random_state.get_state(legacy=False)
        else:
            self._began_with = self._kept["random_state"]
            self.random_state = np.random.RandomState()
            self.random_state.set_state(self._began_with)
        self._has_warned = False
        self._is_unfinished = self._kept is not None and not self._kept["is_finished"]

    # -- resuming --------------------------------------------------------------------

    def _read(self, begins_anew: bool) -> dict[str, Any] | None:
        try:
            kept = _archive.read(self.path, _KIND, _NAMES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise ValueError(f"checkpoint: {error}. Remove it to begin anew") from None
        if begins_anew and kept["is_finished"]:
            return None
        self._compare(kept["problem"])
        if kept["version"] != __version__:
            warnings.warn(
                f"checkpoint={os.fspath(self.path)!r} was written by sktarget "
                f"{kept['version']}; {__version__} resumes from it, and may not end "
                "where that version would have",
                stacklevel=2,
            )
        return kept

    def _compare(self, kept: dict[str, str]) -> None:
        # Parameters that an earlier version lacked are at their defaults.
        changed = {
            name: f"{name} was {kept[name]} and is {value}"
            for name, value in self.problem.items()
            if name in kept and kept[name] != value
        }
        for name in _DIGESTS & changed.keys():
            changed[name] = f"another {name}"
        if changed:
            raise self._of_another(f"fit: {'; '.join(changed.values())}")

    def _compare_network(self, kept: dict[str, Any], module: nn.Module) -> None:
        shapes, others = (
            {k: tuple(np.shape(v)) for k, v in state.items() if _EXTRA_STATE not in k}
            for state in (kept, module.state_dict())
        )
        changed = [
            f"{name} had the shape {shapes.get(name)} and has {others.get(name)}"
            for name in dict.fromkeys([*shapes, *others])
            if shapes.get(name) != others.get(name)
        ]
        if changed:
            raise self._of_another(f"network: {changed[0]}")

    def _of_another(self, what: str) -> ValueError:
        return ValueError(
            f"checkpoint={os.fspath(self.path)!r} belongs to another {what}. Remove "
            "the file to begin anew, or give another path"
        )

    def attach(
        self, module: nn.Module, monitor: Monitor, generator: torch.Generator | None
    ) -> dict[str, Any] | None:
        """Attach to a run: restore its log, and return its optimiser's state.

        Parameters
        ----------
        module : nn.Module
            The network.
        monitor : Monitor
            Judges the epochs; its log is continued in place.
        generator : torch.Generator or None
            Shuffles the mini-batches.

        Returns
        -------
        dict or None
            State of the optimiser, or None if there is no run to resume.

        Raises
        ------
        ValueError
            If the file holds another network, which modules of the same name may be; or
            if the network has a state that a file cannot hold.
        """
        self._refuse_other_than_plain(module)
        self.monitor, self.generator = monitor, generator
        if self._kept is None:
            return None
        self._compare_network(self._kept["module"], module)
        for name, value in self._kept["log"].items():
            is_list = isinstance(value, np.ndarray)
            setattr(monitor.log, name, value.tolist() if is_list else value)
        optimiser: dict[str, Any] = state_to_torch(self._kept["optimiser"])
        return optimiser

    def _refuse_other_than_plain(self, module: nn.Module) -> None:
        for name, value in module.state_dict().items():
            if _EXTRA_STATE in name and not _archive.is_plain(state_to_numpy(value)):
                raise ValueError(
                    f"checkpoint={os.fspath(self.path)!r} cannot hold {name!r} of the "
                    f"network, {value!r}: let get_extra_state() return tensors, "
                    "numbers and texts, or lists, tuples and dicts of these"
                )

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Restore everything else from the file."""
        self._prepare_folder()
        if self._kept is None:
            return
        kept = state_to_torch(
            {n: self._kept[n] for n in ("module", "monitor", "generators")}
        )
        with torch.no_grad():
            net.module_.load_state_dict(kept["module"])
            self.monitor.load_state(kept["monitor"])
        sources = self._generators(net.module_)
        for source, state in zip(sources, kept["generators"], strict=False):
            # The state of a generator does not fit another device: draws begin anew.
            if state.shape == source.get_state().shape:
                source.set_state(state)
        freeze(net.module_, self._kept["frozen"])
        net.history.extend(unpack(self._kept["history"]))
        restore_with_rates(
            net,
            users_callbacks(net),
            self._kept["callbacks"],
            state_to_torch(self._kept["optimiser"]["param_groups"]),
            f"checkpoint={os.fspath(self.path)!r}",
        )

    def _generators(self, module: nn.Module) -> list[torch.Generator]:
        """List all generators that are drawn from, in an order that does not change."""
        held = [v for m in module.modules() for v in vars(m).values()]
        found = [v for v in [self.generator, *held] if isinstance(v, torch.Generator)]
        if self.uses_global_generator:
            found.append(torch.default_generator)
            found.extend(
                torch.cuda.default_generators[device]
                for device in sorted({p.get_device() for p in module.parameters()})
                if device >= 0
            )
        return list({id(source): source for source in found}.values())

    # -- saving ----------------------------------------------------------------------

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Write the file."""
        log = self.monitor.log
        state = {
            "module": net.module_.state_dict(),
            "optimiser": net.optimizer_.state_dict(),
            "monitor": self.monitor.state(),
            "generators": [s.get_state() for s in self._generators(net.module_)],
        }
        content = {
            "version": __version__,
            "problem": self.problem,
            "random_state": self._began_with,
            "is_finished": self.monitor.reason is not None
            or log.epochs_of_run >= net.max_epochs,
            "log": {
                k: np.array(v) if type(v) is list else v for k, v in vars(log).items()
            },
            **state_to_numpy(state),
            **self._for_callbacks(net),
        }
        self._write(content)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Note in the file that the run is over, if it was ended within an epoch.

        A warm start goes on from the estimator then, not from the file.
        """
        if not self._is_unfinished:
            return
        try:
            content = _archive.read(self.path, _KIND, _NAMES)
        except (OSError, ValueError):  # Someone has removed or replaced the file.
            return
        self._write({**content, "is_finished": True})

    def _write(self, content: dict[str, Any]) -> None:
        try:
            _archive.write(self.path, _KIND, content)
        except OSError as error:
            self._warn(error)
        else:
            self._is_unfinished = not content["is_finished"]

    def _for_callbacks(self, net: Any) -> dict[str, Any]:
        """Return what only the user's callbacks read or change."""
        callbacks = users_callbacks(net)
        parameters = net.module_.named_parameters()
        return {
            "callbacks": callback_states(callbacks),
            "history": [_record(row) for row in net.history] if callbacks else [],
            "frozen": [name for name, p in parameters if not p.requires_grad],
        }

    def _prepare_folder(self) -> None:
        """Clear up, and tell at once what would come up after the first epoch."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _files.remove_leftovers(self.path)
            _files.try_to_write(self.path)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"checkpoint={os.fspath(self.path)!r} cannot be written: {error}. Training "
            "goes on without it; if it is killed, what it has learnt since the file "
            "was last written is lost",
            stacklevel=2,
        )


def is_of_user(callback: Callback) -> bool:
    """Return whether a callback of a net is the user's, not one of this package."""
    own = Monitor | Schedule | EpochContext | Checkpoint | Stopper
    return not isinstance(callback, own)


def users_callbacks(net: Any) -> list[tuple[str, Callback]]:
    """List the callbacks of a net that are the user's, with their names."""
    return [(name, c) for name, c in net.callbacks_ if is_of_user(c)]


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """Return the plain part of an epoch's record, without its mini-batches."""
    packed = {name: pack(value) for name, value in row.items() if name != "batches"}
    plain = {name: v for name, v in packed.items() if _archive.is_plain(v)}
    return {"dict": {**plain, "batches": []}}
