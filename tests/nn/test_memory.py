"""Memory that an iteration frees is there for the next one."""

import platform

import pytest
import torch

from sktarget.nn._memory import keep_freed_memory

resource = pytest.importorskip("resource")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc alone")
def test_freed_blocks_are_used_again() -> None:
    keep_freed_memory()

    def iterate() -> None:
        blocks = [torch.zeros(5 << 20) for _ in range(3)]  # of 20 MiB
        del blocks

    for _ in range(5):
        iterate()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        iterate()
    # With pages of 4 KiB these are 46,000, if all are fresh.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000
