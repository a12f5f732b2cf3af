"""Fixtures that any test may ask for."""

import os

# The tests' networks are small and pytest-xdist fills the cores: one thread each.
# To be set before torch and NumPy load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

from sktarget.linalg import _products

# The machine may be busy, and a failure should be the same for everyone.
hypothesis.settings.register_profile("strict", deadline=None, derandomize=True)
hypothesis.settings.load_profile("strict")


def _global_state() -> dict[str, Any]:
    # The legacy generator is the global one.
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    return {
        "random generator": random.getstate(),
        "NumPy generator": (name, keys.tolist(), *position),
        "torch generator": torch.get_rng_state().tolist(),
        "torch default dtype": torch.get_default_dtype(),
        "torch threads": torch.get_num_threads(),
        "torch gradient mode": torch.is_grad_enabled(),
        "torch deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


@pytest.fixture
def global_state_untouched() -> Iterator[None]:
    """Fail a test that leaves the process-wide state other than it was."""
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"changed: {', '.join(changed)}"


@pytest.fixture
def onednn_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let products go to oneDNN, faster or not, where it is; record their arguments."""
    made: list[Any] = []
    true = _products._find_onednn()

    def recorded(*args: Any) -> torch.Tensor:
        made.append(args)
        assert true is not None
        return true(*args)

    if true is not None:
        monkeypatch.setattr(_products, "_ONEDNN", recorded)
    return made
