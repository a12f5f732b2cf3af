"""What the processor is, as far as it decides which library is fastest.

PyTorch carries Intel's MKL, for products and factors of matrices and for functions such
as tanh.  On processors made by others it uses vectors of 256 bits.  Where a core has
units of 512, as AMD's have from family 26 (Zen 5) on, half of them then lie idle, and
other libraries multiply in half the time.  Family 25 (Zen 4) takes such vectors in two
halves, and they gain nothing.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

__all__ = ["MKL_IDLES", "ON_INTEL"]

_ABOUT = Path("/proc/cpuinfo")
_WITH_WIDE_UNITS = 26


def _maker_and_family() -> tuple[str, int]:
    """Return what the processor calls its maker and its family, or nothing and 0."""
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
