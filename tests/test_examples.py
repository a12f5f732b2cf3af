"""The scripts of the examples run to their end, each in its shortest form."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"

# Arguments of the shortest run.
SCRIPTS = {
    "benchmarks/bench_deployment.py": ["--quick"],
    "benchmarks/run_all.py": ["--quick", "--out", "."],
    "benchmarks/study_defaults.py": ["--quick", "--json", "study.json"],
    "benchmarks/study_sequence_regression.py": ["--quick", "--json", "study.json"],
    "benchmarks/study_sequences.py": ["--quick", "--json", "study.json"],
    "paper/delayed_recall.py": ["--quick"],
    "paper/image_sets.py": ["--quick"],
    "paper/imdb.py": ["--quick"],
    "part_of_speech.py": ["--quick"],
    "real_series.py": ["--quick"],
    "real_tables.py": ["--data", ".", "--jobs", "1"],
    "sister_algorithms.py": ["--quick"],
}
RUN_BY_ALL = [
    "bench_accuracy",
    "bench_convolution",
    "bench_dense",
    "bench_estimators",
    "bench_recurrent",
    "memory",
]
# The first is run in part, by a test of its own; the second writes kept results anew.
OF_STUDIES = ["study_small_tables", "defaults_tables"]
GALLERY = sorted(path.name for path in EXAMPLES.glob("plot_*.py"))


def run(script: str, arguments: list[str], folder: Path) -> str:
    """Run a script in a folder, with warnings as errors; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_tables(folder: Path) -> None:
    """Write small tables with the columns and gaps of the two that are downloaded."""
    rng = np.random.default_rng(0)
    age, kind = rng.normal(40.0, 10.0, 400), rng.choice(["a", "b", "?"], 400)
    rich = np.where(age + rng.normal(0.0, 5.0, 400) > 40.0, ">50K", "<=50K")
    adult = pd.DataFrame({"age": age, "kind": kind, "class": rich})
    adult.to_csv(folder / "tab_adult.csv.xz", index=False)
    housing = pd.DataFrame({"age": age, "rooms": age**0.5, "price": age**2})
    housing.to_csv(folder / "tab_california_housing.csv.xz", index=False)


def test_every_script_has_a_shortest_run() -> None:
    scripts = {
        path.relative_to(EXAMPLES).as_posix()
        for path in EXAMPLES.rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text("utf-8")
    }
    others = {f"benchmarks/{name}.py" for name in (*RUN_BY_ALL, *OF_STUDIES)}
    assert scripts == {*SCRIPTS, *others}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: str, tmp_path: Path) -> None:
    write_tables(tmp_path)
    printed = run(script, SCRIPTS[script], tmp_path)
    assert printed
    assert not re.search(r"\bnan\b", printed)


@pytest.mark.slow
@pytest.mark.parametrize("script", GALLERY)
def test_script_of_the_gallery(script: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "benchmarks").symlink_to(EXAMPLES / "benchmarks")
    run(script, [], tmp_path)


@pytest.mark.slow
def test_study_of_small_tables_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    study = importlib.import_module("study_small_tables")
    n_threads = torch.get_num_threads()
    try:
        runs = [
            study.of_rows("iris", 40, "100", None),
            study.of_columns("spirals", "100"),
        ]
    finally:
        torch.set_num_threads(n_threads)
    for found in runs:
        assert set(found) == {"target space", "MLP"}
        scores = np.array([run["scores"] for run in found.values()])
        assert scores.shape == (2, len(study.SPLITS))
        assert np.isfinite(scores).all()
