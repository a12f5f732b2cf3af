"""What the processor is, as far as that decides which library is fastest.

PyTorch ships Intel's MKL, for products and factorisations of matrices and for functions
such as tanh.  On other makers' processors MKL uses vectors of 256 bits.  Where a core
has units of 512 bits, as AMD's have from family 26 (Zen 5) on, half of each then lies
idle, and other libraries multiply in half the time.  Family 25 (Zen 4) processes
vectors of 512 bits in two halves, so they gain nothing there.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

__all__ = ["MKL_IDLES", "ON_INTEL"]

_ABOUT = Path("/proc/cpuinfo")
_WITH_WIDE_UNITS = 26


def _maker_and_family() -> tuple[str, int]:
    """Return the processor's maker and family; an empty string and 0 if unknown."""
    try:
        with _ABOUT.open() as about:
            text = about.read(256)
    except OSError:
        text = platform.processor()
    makers = ("AuthenticAMD", "GenuineIntel")
    maker = next((m for m in makers if m in text), "")
    family = re.search(r"family\s*:?\s*(\d+)", text, re.IGNORECASE)
    return maker, int(family[1]) if family else 0


_MAKER, _FAMILY = _maker_and_family()
ON_INTEL = _MAKER == "GenuineIntel"
MKL_IDLES = _MAKER == "AuthenticAMD" and _FAMILY >= _WITH_WIDE_UNITS
