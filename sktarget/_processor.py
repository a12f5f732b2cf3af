"""Who made the processor.

PyTorch carries Intel's MKL, for products and factors of matrices and for functions such
as tanh.  On processors made by others it leaves half of the widest vectors idle, and
there other libraries do some of its work faster.
"""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["ON_AMD", "ON_INTEL"]

_ABOUT = Path("/proc/cpuinfo")


def _maker() -> str:
    """Give what the processor calls its maker, or nothing."""
    try:
        with _ABOUT.open() as about:
            text = about.read(256)
    except OSError:
        text = platform.processor()
    return next((m for m in ("AuthenticAMD", "GenuineIntel") if m in text), "")


ON_AMD, ON_INTEL = (_maker() == m for m in ("AuthenticAMD", "GenuineIntel"))
