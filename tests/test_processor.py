"""The maker of the processor is found wherever systems tell it."""

import platform
from pathlib import Path

import pytest

from sktarget import _processor


@pytest.mark.parametrize(
    ("about", "maker"),
    [
        ("processor : 0\nvendor_id : AuthenticAMD\n", "AuthenticAMD"),
        ("Intel64 Family 6 Model 207 Stepping 2, GenuineIntel", "GenuineIntel"),
        ("BogoMIPS : 48.00\nCPU architecture: 8\n", ""),
    ],
)
def test_makers_of_processors(
    about: str, maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(_processor, "_ABOUT", told)
    monkeypatch.setattr(platform, "processor", lambda: about)
    assert _processor._maker() == maker
    told.write_text(about)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert _processor._maker() == maker
