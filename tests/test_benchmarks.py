"""The benchmarks run, and the documentation shows what was measured."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "examples" / "benchmarks"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("run_all")


# In a process of its own: it sets threads and the treatment of tiny numbers.
def test_quickest_part(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run_all.py"), "--quick"]
    command += ["--out", str(tmp_path), "--only"]
    for part in ("import", "dense over depth"):
        done = subprocess.run([*command, part], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert content["environment"]["threads"] == 1
    assert list(content["results"]) == ["dense over depth", "import"]
    rows = content["results"]["dense over depth"]
    assert [row["depth"] for row in rows] == [1, 4, 16]
    assert all(row["ratio"] > 0 for row in rows)
    assert "| depth 16 | 16 |" in (tmp_path / "tables.md").read_text("utf-8")


def test_other_results_stay_if_measured_alike(
    suite: ModuleType, tmp_path: Path
) -> None:
    measuring = importlib.import_module("measuring")
    assert suite.others(tmp_path, {"threads": 1}) == {}
    rows = {"dense": [{"case": "any", "ratio": 2.0}]}
    measuring.write_json(tmp_path / "results.json", {"threads": 1}, rows)
    assert suite.others(tmp_path, {"threads": 1}) == rows
    with pytest.raises(SystemExit, match="another folder"):
        suite.others(tmp_path, {"threads": 2})


def test_live_tensors_are_counted(suite: ModuleType) -> None:
    memory = importlib.import_module("memory")
    given = torch.zeros(1 << 18)  # 1 MiB
    with memory.LiveTensors([given]) as live:
        first = given + 1
        view = first.view(2, -1)
        del first
        second = view * 2
        assert live.now == 3 << 20
        del view
        assert live.now == 2 << 20
        second.add_(1)
    assert live.peak == 3 << 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="of Linux alone")
def test_memory_beside_weight_space(suite: ModuleType) -> None:
    memory = importlib.import_module("memory")
    settings = memory.Settings(quick=True)
    script = str(FOLDER / "bench_dense.py")
    (row,) = memory.compare_memory(script, ["5 × 100, n̄_b = 200"], settings)
    assert 0 < row["weights, MiB"] < row["targets, MiB"] < 10
    assert row["ratio"] == row["targets, MiB"] / row["weights, MiB"]
    assert 0.8 < row["ratio of processes"] < 2


def test_unknown_part_is_named(suite: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no part dance; there are dense, dense over"):
        suite.run_parts(suite.PARTS, None, ["dance"])


def test_tables_of_the_study_show_its_results(suite: ModuleType) -> None:
    tables = importlib.import_module("defaults_tables")
    found = json.loads((FOLDER / "defaults.json").read_text("utf-8"))
    assert tables.as_markdown(found) == (FOLDER / "defaults.md").read_text("utf-8")


def test_tables_of_sequences_show_their_results(suite: ModuleType) -> None:
    study = importlib.import_module("study_sequences")
    found = json.loads((FOLDER / "sequences.json").read_text("utf-8"))
    assert study.as_markdown(found) == (FOLDER / "sequences.md").read_text("utf-8")


def test_tables_of_numbers_for_sequences_show_their_results(suite: ModuleType) -> None:
    study = importlib.import_module("study_sequence_regression")
    found = json.loads((FOLDER / "sequence_numbers.json").read_text("utf-8"))
    assert study.as_markdown(found) == (FOLDER / "sequence_numbers.md").read_text(
        "utf-8"
    )


def test_tables_of_small_tables_show_their_results(suite: ModuleType) -> None:
    study = importlib.import_module("study_small_tables")
    found = json.loads((FOLDER / "small.json").read_text("utf-8"))
    assert study.as_markdown(found) == (FOLDER / "small.md").read_text("utf-8")


def test_tables_show_the_results_that_are_kept(suite: ModuleType) -> None:
    content = json.loads((FOLDER / "results.json").read_text("utf-8"))
    assert suite.tables(content) == (FOLDER / "tables.md").read_text("utf-8")
