"""The Python blocks of the README and of the pages run as they are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("index", "user_guide", "images", "sequences", "torch")
PAGES = [f"docs/{name}.md" for name in NAMES]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def run_all(page: str) -> None:
    """Run the blocks of a page one after the other, with the names of those before."""
    known: dict[str, Any] = {}
    for block in blocks(page):
        exec(compile(block, page, "exec"), known)


def test_every_page_with_blocks_is_run() -> None:
    pages = ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
    assert {page for page in pages if blocks(page)} == {
        "README.md",
        "docs/deploying.md",
        *PAGES,
    }


@pytest.mark.slow
def test_blocks_on_deploying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skops")
    pytest.importorskip("skl2onnx")
    monkeypatch.chdir(tmp_path)
    run_all("docs/deploying.md")
    written = {path.name for path in tmp_path.iterdir()}
    models = {"model.npz", "model.skops", "model.onnx", "pipeline.onnx"}
    assert written == {*models, "run.npz"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_blocks_of_other_pages(page: str) -> None:
    run_all(page)
