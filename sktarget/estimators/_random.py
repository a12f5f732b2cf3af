"""Seeds, and who draws from which generator."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from sktarget.architectures import SeededDropout

__all__ = ["combine_seeds", "seed_dropout", "seeded_globally"]

_global_generator = threading.RLock()


def _free_global_generator() -> None:
    global _global_generator
    _global_generator = threading.RLock()


# Whichever thread of the parent holds the lock is not there in a forked process.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_global_generator)


@contextmanager
def seeded_globally(needed: bool, seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator for a while, and restore it.

    A module of the user's own draws its weights and its dropout from it; networks built
    by this package have generators of their own.  Only one thread at a time may do so,
    or one would restore the generator while another draws from it.
    """
    if not needed:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with _global_generator, torch.random.fork_rng(devices=devices):
        # torch.manual_seed would seed the generators of all other devices, too.
        torch.default_generator.manual_seed(seed)
        for used in devices:
            with torch.cuda.device(used):
                torch.cuda.manual_seed(seed)
        yield


def seed_dropout(module: nn.Module, seed: int, device: torch.device) -> None:
    """Give all dropout layers one generator, on the device where they run."""
    layers = [m for m in module.modules() if isinstance(m, SeededDropout)]
    if layers:
        generator = torch.Generator(device=device).manual_seed(seed)
        for layer in layers:
            layer.generator = generator


def combine_seeds(*seeds: int) -> int:
    """Combine several seeds into one."""
    return int(np.random.SeedSequence([int(s) for s in seeds]).generate_state(1)[0])
