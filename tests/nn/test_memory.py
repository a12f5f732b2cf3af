"""Memory that an iteration frees is there for the next one."""

import mmap
import os
import platform
import subprocess
import sys

import pytest

from sktarget.nn._memory import _SETTINGS_OF_MALLOC

FRESH_PAGES = """
import ctypes
import resource

# PR_SET_THP_DISABLE: one huge page would stand for many.
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)

import torch
from sktarget.nn._memory import keep_freed_memory

def iterate():
    blocks = [torch.zeros(7 << 19) for _ in range(12)]  # of 14 MiB

def count():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_freed_memory()
for _ in range(5):
    iterate()
before = count()
for _ in range(3):
    iterate()
print(count() - before)
"""


def fresh_pages(**environment: str) -> int:
    # In a process of its own: what others have freed would count as well.
    ours = {k: v for k, v in os.environ.items() if k not in _SETTINGS_OF_MALLOC}
    run = subprocess.run(
        [sys.executable, "-c", FRESH_PAGES],
        capture_output=True,
        text=True,
        check=True,
        env=ours | environment,
    )
    return int(run.stdout)


# What three iterations ask for: with pages of 4 KiB, 129,000 of them.
ALL_PAGES = 3 * 12 * (14 << 20) // mmap.PAGESIZE
glibc = platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not glibc, reason="of glibc's malloc alone")
def test_freed_blocks_are_used_again() -> None:
    assert fresh_pages() < 0.01 * ALL_PAGES


@pytest.mark.skipif(not glibc, reason="of glibc's malloc alone")
def test_who_sets_malloc_up_is_not_overruled() -> None:
    assert fresh_pages(MALLOC_MMAP_THRESHOLD_="131072") > 0.75 * ALL_PAGES
