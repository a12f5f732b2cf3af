"""The maker and the family of the processor are found wherever systems tell them."""

import platform
from pathlib import Path

import pytest

from sktarget import _processor


@pytest.mark.parametrize(
    ("about", "maker", "family"),
    [
        (
            "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n",
            "AuthenticAMD",
            25,
        ),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", "AuthenticAMD", 26),
        ("Intel64 Family 6 Model 207 Stepping 2, GenuineIntel", "GenuineIntel", 6),
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\n", "AuthenticAMD", 0),
        ("BogoMIPS : 48.00\nCPU architecture: 8\n", "", 0),
    ],
)
def test_makers_of_processors(
    about: str,
    maker: str,
    family: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(_processor, "_ABOUT", told)
    monkeypatch.setattr(platform, "processor", lambda: about)
    assert _processor._maker_and_family() == (maker, family)
    told.write_text(about)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert _processor._maker_and_family() == (maker, family)
