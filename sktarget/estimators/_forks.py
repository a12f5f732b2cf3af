"""Torch in forked processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["serial_in_forks"]

_IMPORTED_IN = os.getpid()


@contextmanager
def serial_in_forks() -> Iterator[None]:
    """Compute on one thread in a forked process, as in joblib's multiprocessing.

    OpenMP's threads do not survive a fork: if the parent has run a parallel region of
    torch, one in the child would wait for them forever.
    """
    if os.getpid() == _IMPORTED_IN:
        yield
        return
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
