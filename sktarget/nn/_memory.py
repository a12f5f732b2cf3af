"""Memory that an iteration frees stays with the process for the next one."""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["keep_freed_memory"]

# The largest block after which glibc's malloc still moves its thresholds is 32 MiB.
_BLOCK = 31 << 20


@cache
def keep_freed_memory() -> None:
    """Teach malloc that blocks of megabytes come and go.

    For large blocks glibc's malloc asks the system, and what is freed at the top of
    its heap it gives back: then every iteration pays anew for pages that the system
    first has to fill with zeros, up to a quarter of its time.  Malloc learns: once a
    block of some size has been freed, blocks up to that size stay in the heap, with
    twice as much of it kept.  Most programs get there by themselves, with the first
    large array that they drop.  Here one is dropped on purpose, never written to, which
    takes microseconds and no memory.  Elsewhere than with glibc nothing happens.
    """
    torch.empty(_BLOCK, dtype=torch.uint8, device="cpu")
