"""A cascade that keeps the weights it was last solved for, for evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from sktarget._tensors import same_values
from sktarget.nn._cascade import Cascade
from sktarget.nn._copying import copy_with
from sktarget.nn._fingerprint import Fingerprint
from sktarget.nn._sequential import restore_sequentials
from sktarget.nn._target_map import TargetMap

__all__ = ["RealisedCascade"]


class Realised(NamedTuple):
    """What the weights kept were solved for from."""

    lam: float | tuple[float, ...]
    untangling: str
    sources: Fingerprint


class RealisedCascade(Cascade):
    """A cascade whose weights outlive the pass that found them.

    They hold until anything that they depend on changes: targets, X̄, λ, the kind of
    untangling, parameters learnt in weight space, buffers.
    """

    _realised: Realised | None = None

    def _solve_and_run(self, x: Any) -> tuple[Any, dict[str, Tensor]]:
        # A step may follow, and fused optimisers do not increase tensors' versions.
        # Modules are slow to set attributes.
        if self._realised is not None and torch.is_grad_enabled():
            self._realised = None
        return super()._solve_and_run(x)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; the latter realises the weights.

        Parameters
        ----------
        mode : bool, default=True
            True for training.

        Returns
        -------
        TargetSpace
            The network itself.
        """
        leaving = self.training and not mode
        self._note_modes()
        super().train(mode)
        if leaving:
            # Torch does not see all changes of X̄, such as those through NumPy.
            self._stage.factors.forget()
            self._refresh()
        return self

    def realise(self) -> nn.Module:
        """Make an ordinary module with the present weights.

        Returns
        -------
        nn.Module
            A copy of the given network, with ordinary layers and parameters: no
            targets, no trace of this package.  In evaluation mode.  Where a pass has
            left X̄ as an attribute of a module, the copy has None; other activations
            left there, which may be those on X̄, are copied.  To train the copy in
            target space, wrap it and call ``train()``.
        """
        self._ensure_realised()
        with torch.inference_mode(False):  # The module may be trained further.
            ordinary: dict[nn.Module, nn.Module] = {
                layer: layer.realise() for layer in self._stand_ins.values()
            }
            copied = copy_with(
                self.module, ordinary, self.fixed_batch, self._given_tensors
            )
        copied.eval()  # A module's own `train` need not return it.
        restore_sequentials(copied)
        return copied

    def average_weights(self, n_draws: int = 20) -> None:
        """Switch to evaluation, with the mean of the weights that dropout leads to.

        In training every pass solves on what dropout leaves of X̄.  Evaluation solves
        on all of it, and so arrives at weights that training has never tried; the mean
        over some draws is closer to what was learnt.  It is used, by :meth:`realise`
        too, until targets, X̄ or buffers change or are moved, the network goes back to
        training mode, or a pass with gradients solves anew, as in
        ``forward_with_weights``; it is not part of a ``state_dict``.

        Parameters
        ----------
        n_draws : int, default=20
            Passes over X̄ to take the mean of; ignored without dropout.

        Raises
        ------
        TypeError
            If `n_draws` is no integer.
        ValueError
            If it is not positive.

        Examples
        --------
        >>> import torch
        >>> from sktarget.nn import TargetSpace
        >>> layers = torch.nn.Linear(3, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
        >>> net = TargetSpace(torch.nn.Sequential(*layers), torch.randn(50, 3), lam=0.1)
        >>> net.average_weights()
        >>> net(torch.randn(4, 3)).shape
        torch.Size([4, 1])
        """
        given: Any = n_draws
        if not isinstance(given, Integral):
            raise TypeError(f"n_draws must be an integer of at least 1, got {given!r}")
        if n_draws < 1:
            raise ValueError(f"n_draws must be at least 1, got {n_draws!r}")
        self.eval()
        self._ensure_realised()
        with self._solving_alone():
            for module in self._random_parts:
                module.training = True
            if not self.is_random:
                return
            sums: dict[str, Tensor] = {}
            for _ in range(n_draws):
                for name, matrix in self._solve_on_fixed_batch().items():
                    self._target_maps[name].check(matrix)
                    sums[name] = sums[name] + matrix if name in sums else matrix
            for name, total in sums.items():
                self._target_maps[name].keep(total / n_draws)

    def _ensure_realised(self, stacklevel: int = 4) -> None:
        """Solve anew unless the weights kept are those of the present targets.

        One thread does so while the others wait, and then find it done.  `stacklevel`
        is that of the user's code, for warnings.
        """
        if self._may_be_old():
            with self._stage.lock:
                if self._may_be_old():
                    self._warn_of_idle_targets(stacklevel)
                    self._refresh()

    def _warn_of_idle_targets(self, stacklevel: int) -> None:
        """Warn if training goes on in evaluation mode, without the targets."""
        if self.training or self._realised is None or not torch.is_grad_enabled():
            return
        sources = self._sources()
        before = self._realised.sources
        if len(sources) != len(before):
            return
        maps = self._target_maps.values()
        targets = {id(m.targets) for m in maps}
        changed = before.changed(sources)
        learn = all(t.requires_grad and id(t) not in targets for t in changed)
        if changed and learn and any(m.targets.requires_grad for m in maps):
            warnings.warn(
                "only parameters in weight space have changed since the last pass: in "
                "evaluation mode no gradient reaches the targets. Call net.train() "
                "before training goes on",
                stacklevel=stacklevel,
            )

    def _refresh(self) -> None:
        """Solve once on X̄ and keep the weights."""
        with self._solving_alone():
            for name, matrix in self._solve_on_fixed_batch().items():
                self._target_maps[name].check(matrix)
                self._target_maps[name].keep(matrix)
        self._note_realised()

    @contextmanager
    def _solving_alone(self) -> Iterator[None]:
        """Solve without a graph, for weights that must outlive the caller's modes."""
        self._note_modes()
        with torch.inference_mode(False), torch.no_grad(), self._as_in_evaluation():
            yield

    def _may_be_old(self) -> bool:
        """Return whether to solve anew.

        In training steps may have followed that torch has not noticed: fused optimisers
        do not increase tensors' versions.
        """
        return self.training or not self._is_realised()

    def _is_realised(self) -> bool:
        """Return whether the cached weights are those of the present targets."""
        kept = self._realised
        return (
            kept is not None
            and (kept.lam, kept.untangling) == (self.lam, self.untangling)
            and kept.sources.matches(self._sources())
        )

    def _note_realised(self) -> None:
        sources = Fingerprint(self._sources())
        self._realised = Realised(self.lam, self.untangling, sources)

    def _sources(self) -> list[Tensor]:
        """List all tensors that the weights depend on."""
        buffers = [
            buffer
            for part in self.module.modules()
            if not isinstance(part, TargetMap)
            for buffer in part.buffers(recurse=False)
        ]
        anchors = [m.anchor for m in self._target_maps.values() if m.anchor is not None]
        return [self.fixed_batch, *self.module.parameters(), *buffers, *anchors]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Load X̄ into new memory: the present one may be shared with training data.

        Where nothing changes nothing is written, as that memory may be read-only.
        """
        self._realised = None  # Tensors made in inference mode do not count changes.
        key = f"{prefix}fixed_batch"
        if key in state_dict:
            if same_values(state_dict[key].to(self.fixed_batch), self.fixed_batch):
                state_dict = {**state_dict, key: self.fixed_batch}
            else:
                with torch.inference_mode(False):  # Training may follow.
                    self.fixed_batch = self.fixed_batch.clone()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the identities of tensors: a copy has other tensors."""
        return {**self.__dict__, "_realised": self._is_realised()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and trust the cached weights if they were up to date."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._realised = None
        if state["_realised"]:
            self._note_realised()
