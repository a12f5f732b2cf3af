"""What the benchmarks share: timing in turns, tables, and the command line.

Times are medians, in milliseconds, of calls that take turns within one process, so that
other load on the machine affects all sides alike.  On one thread they are processor
times, which do not include waiting for the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from sktarget import __version__
from sktarget.nn import TargetSpace
from sktarget.training import FusedAdam

Row = dict[str, Any]
Step = Callable[[], Any]
SPACES = ("weights", "targets")
_NUMBERS = {"family": "cpu family", "model": "model"}  # as Linux names them


@dataclass(frozen=True)
class Settings:
    """How thoroughly to measure, and on what."""

    quick: bool = False
    threads: int = 1
    device: str = "cpu"
    data: Path | None = None

    def few(self, quick: Any, full: Any) -> Any:
        """Return the value for the quick run, or that for the full one."""
        return quick if self.quick else full

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self.device.startswith("cuda")

    def clock(self) -> float:
        """Read the clock, in seconds."""
        one_core = self.threads == 1 and not self.on_gpu
        return time.process_time() if one_core else time.perf_counter()


@dataclass(frozen=True)
class Problem:
    """A network and a batch to train it on, in either space."""

    network: nn.Module
    fixed: Tensor
    x: Tensor
    y: Tensor
    lam: float | Sequence[float]
    floor: float | None = None
    fused: bool = False  # Adam in one call, as in the estimators
    about: Row = field(default_factory=dict)

    def step(self, space: str, device: str = "cpu") -> Step:
        """Make one iteration: zero_grad, forward, loss, backward, a step of Adam."""
        x, y = self.x.to(device), self.y.to(device)
        network: nn.Module = self.network
        if space == "targets":
            fixed = x if self.fixed is self.x else self.fixed.to(device)
            network = TargetSpace(network.to(device), fixed, self.lam)
        network.to(device)
        kind = FusedAdam if self.fused else torch.optim.Adam
        optimizer = kind(network.parameters())

        def step() -> None:
            optimizer.zero_grad()
            sums = network(x)
            F.cross_entropy(sums.flatten(0, -2), y.flatten()).backward()
            optimizer.step()

        return step


Problems = dict[str, Callable[[], Problem]]


# --- Time -----------------------------------------------------------------------------


def in_turns(
    calls: Mapping[str, Step],
    settings: Settings,
    seconds: float,
    *,
    warm_up: int = 3,
    least: int = 5,
) -> dict[str, float]:
    """Time several functions in turns, for about `seconds`; return medians in ms."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    start, rounds = settings.clock(), 0
    while rounds < warm_up + least or settings.clock() - start < seconds:
        for name, call in calls.items():
            before = settings.clock()
            call()
            if settings.on_gpu:
                torch.cuda.synchronize()
            if rounds >= warm_up:  # the first ones fill caches and allocators
                times[name].append(settings.clock() - before)
        rounds += 1
    return {name: 1e3 * statistics.median(taken) for name, taken in times.items()}


def compare(name: str, problem: Problem, settings: Settings, seconds: float) -> Row:
    """Compare an iteration in target space with one in weight space."""
    steps = {space: problem.step(space, settings.device) for space in SPACES}
    taken = in_turns(steps, settings, seconds)
    ratio = taken["targets"] / taken["weights"]
    row: Row = {"case": name, **problem.about}
    row |= {"weights, ms": taken["weights"], "targets, ms": taken["targets"]}
    row |= {"ratio": ratio}
    if problem.floor is not None:
        row |= {"floor": problem.floor, "share of floor": problem.floor / ratio}
    return row


def compare_all(
    problems: Problems, settings: Settings, *, quick: float, full: float
) -> list[Row]:
    """Compare both spaces on each problem, for `quick` or `full` seconds."""
    seconds = settings.few(quick, full)
    return [compare(n, make(), settings, seconds) for n, make in problems.items()]


# --- Results --------------------------------------------------------------------------


def processor() -> str:
    """Return the processor's name, family and model: processors may share a name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    numbers = [f"{n} {fields[f]}" for n, f in _NUMBERS.items() if f in fields]
    return ", ".join([fields["model name"], *numbers])


def environment(settings: Settings) -> Row:
    """Return where, and with what versions, the figures are measured."""
    return {
        "device": torch.cuda.get_device_name() if settings.on_gpu else processor(),
        "threads": settings.threads,
        "cores": os.cpu_count(),
        "quick": settings.quick,
        "sktarget": __version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def shown(value: Any) -> str:
    """Return a value as text, rounded for a table."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def columns_of(rows: list[Row]) -> list[str]:
    """List the names of all columns, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def markdown(rows: list[Row]) -> str:
    """Render rows as a table."""
    columns = columns_of(rows)
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
    lines += [[shown(row.get(name)) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(title: str, rows: list[Row]) -> None:
    """Print a table."""
    columns = columns_of(rows)
    table = [columns, *([shown(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for line in table:
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells), flush=True)


# --- The command line -----------------------------------------------------------------

Parts = Mapping[str, Callable[[Settings], list[Row]]]


def options(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of the options that all benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases, less exact")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--data", type=Path, help="folder with mnist.npz")
    parser.add_argument("--only", nargs="+", metavar="PART", help="only these parts")
    return parser


def limit_threads(n: int) -> None:
    """Let every library compute on so many threads: torch, and NumPy's BLAS, too."""
    torch.set_num_threads(n)
    threadpool_limits(n)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Read the settings, and prepare torch accordingly."""
    limit_threads(arguments.threads)
    # Denormal numbers take the processor a hundred times as long.
    torch.set_flush_denormal(True)
    return Settings(
        arguments.quick, arguments.threads, arguments.device, arguments.data
    )


def run_parts(
    parts: Parts,
    settings: Settings,
    only: list[str] | None,
    keep: Callable[[dict[str, list[Row]]], None] = lambda results: None,
) -> None:
    """Measure each part, print its table, and keep the results so far."""
    unknown = set(only or ()) - set(parts)
    if unknown:
        names = ", ".join(parts)
        raise SystemExit(f"no part {', '.join(sorted(unknown))}; there are {names}")
    results: dict[str, list[Row]] = {}
    for name, measure in parts.items():
        if only is None or name in only:
            start = time.perf_counter()
            rows = measure(settings)
            if rows:
                results[name] = rows
                show(f"{name} ({time.perf_counter() - start:.0f} s)", rows)
                keep(results)


def main(description: str | None, parts: Parts) -> None:
    """Run one benchmark from the command line."""
    parser = options(description)
    parser.add_argument("--json", type=Path, help="write the results to a file")
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    where = environment(settings)
    print(", ".join(f"{name} {shown(value)}" for name, value in where.items()))
    path = arguments.json
    keep = partial(write_json, path, where) if path else lambda results: None
    run_parts(parts, settings, arguments.only, keep)


def write_json(path: Path, where: Row, results: Mapping[str, list[Row]]) -> None:
    """Write results, floats to five digits."""

    def rounded(value: Any) -> Any:
        return float(f"{value:.5g}") if isinstance(value, float) else value

    tidy = {
        name: [{key: rounded(value) for key, value in row.items()} for row in rows]
        for name, rows in results.items()
    }
    content = {"environment": where, "results": tidy}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
