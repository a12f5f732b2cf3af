"""Keep the memory that an iteration frees in the process, for the next iteration."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BLOCK = 32 << 20  # more is not allowed
_MOST_KEPT = 256 << 20

_SETTINGS_OF_MALLOC = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)


@cache
def keep_freed_memory() -> None:
    """Make malloc keep up to 256 MiB of freed memory.

    glibc's malloc maps large blocks anew and returns freed memory to the system, so
    every iteration faults in and zeroes the same pages again, for up to a quarter of
    its time.  Blocks of up to 32 MiB now come from the heap, of which 256 MiB may lie
    idle.  Settings from the environment take precedence; without glibc nothing happens.
    """
    if sys.platform != "linux" or any(s in os.environ for s in _SETTINGS_OF_MALLOC):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
