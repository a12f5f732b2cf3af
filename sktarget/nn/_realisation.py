"""A cascade that keeps the weights it was last solved for, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sktarget._tensors import same_values
from sktarget.nn._cascade import Cascade
from sktarget.nn._fingerprint import Fingerprint
from sktarget.nn._maps import TargetMap

__all__ = ["RealisedCascade"]


class RealisedCascade(Cascade):
    """A cascade whose weights outlive the pass that found them.

    They hold until anything that they depend on changes: targets, X̄, λ, the kind of
    untangling, parameters learnt in weight space, buffers.
    """

    # λ, untangling and sources of the weights kept, if these are up to date.
    _realised: tuple[Any, str, Fingerprint] | None = None

    def _solve_and_run(self, x: Any) -> tuple[Any, dict[str, Tensor]]:
        # A step may follow, and fused optimisers do not increase tensors' versions.
        # Modules are slow to set attributes.
        if self._realised is not None and torch.is_grad_enabled():
            self._realised = None
        return super()._solve_and_run(x)

    def _ensure_realised(self) -> None:
        """Solve anew unless the weights kept are those of the present targets.

        One thread does so while the others wait, and then find it done.
        """
        if self._may_be_old():
            with self._stage.lock:
                if self._may_be_old():
                    self._refresh()

    def _refresh(self) -> None:
        """Solve once on X̄ and keep the weights."""
        with self._solving_alone():
            for name, matrix in self._solve_on_fixed_batch().items():
                self._maps[name].check(matrix)
                self._maps[name].keep(matrix)
        self._note_realised()

    @contextmanager
    def _solving_alone(self) -> Iterator[None]:
        """Solve without a graph, for weights that must outlive the caller's modes."""
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
        return (
            self._realised is not None
            and self._realised[:2] == (self.lam, self.untangling)
            and self._realised[2].matches(self._sources())
        )

    def _note_realised(self) -> None:
        state = Fingerprint(self._sources())
        self._realised = (self.lam, self.untangling, state)

    def _sources(self) -> list[Tensor]:
        """List all tensors that the weights depend on."""
        buffers = [
            buffer
            for part in self.module.modules()
            if not isinstance(part, TargetMap)
            for buffer in part.buffers(recurse=False)
        ]
        anchors = [m.anchor for m in self._maps.values() if m.anchor is not None]
        return [self.fixed_batch, *self.module.parameters(), *buffers, *anchors]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Load X̄ into new memory: the present one may be shared with training data.

        Where nothing changes nothing is written, as that memory may be read-only.
        """
        key = f"{prefix}fixed_batch"
        if key in state_dict:
            if same_values(state_dict[key].to(self.fixed_batch), self.fixed_batch):
                state_dict = {**state_dict, key: self.fixed_batch}
            else:
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
