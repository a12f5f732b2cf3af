"""What training in target space holds in memory, compared with weight space.

There are two figures: the tensors alive at the peak, which depend only on the program,
and the memory that the process gets from the system for them, measured in a separate
process.  The latter is larger: an allocator leaves gaps, and libraries keep buffers.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import statistics
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from measuring import SPACES, Problem, Row, Settings, options, settings_of
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode


class LiveTensors(TorchDispatchMode):
    """Tracks how many bytes tensors hold: given ones, and all new ones.

    Parameters
    ----------
    given : iterable of Tensor
        The tensors that exist at the start.

    Attributes
    ----------
    now, peak : int
        Bytes now, and the most so far.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()
        for tensor in given:
            self._note(tensor)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in _pytree.tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        self.peak = max(self.peak, self.now)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.remove(key)
        self.now -= size


def tensors_at_peak(make: Callable[[], Problem], space: str, device: str) -> float:
    """Run some iterations; return the peak size of live tensors in MiB.

    They include the network, the batch and, in target space, X̄.
    """
    problem = make()
    batches = [problem.x, problem.y, *([problem.fixed] if space == "targets" else [])]
    live = LiveTensors([*problem.network.state_dict().values(), *batches])
    with live:
        step = problem.step(space, device)
        for _ in range(3):
            step()
    return live.peak / 2**20


def resident_memory(entry: str) -> float:
    """Return VmRSS (now) or VmHWM (the largest so far) of this process in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(entry))
    return int(line.split()[1]) / 1024


def hand_back_memory() -> None:
    """Hand freed memory back to the system, and reset the peak of this process."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def small_problem() -> Problem:
    """Make a problem that brings all libraries into use."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    x, y = torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long)
    return Problem(network, x.clone(), x, y, lam=0.1)


def process_at_peak(
    make: Callable[[], Problem], space: str, device: str
) -> tuple[float, float]:
    """Run some iterations; return their peak memory in MiB.

    First comes what they add to libraries, data and the network with its weights:
    targets, optimiser, and all that an iteration holds; then the whole process.
    """
    small_problem().step("targets", device)()
    problem = make()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        hand_back_memory()
        before = resident_memory("VmRSS")
    step = problem.step(space, device)
    for _ in range(5):
        step()
    if device.startswith("cuda"):
        whole = torch.cuda.max_memory_allocated() / 2**20
    else:
        whole = resident_memory("VmHWM")
    return whole - before, whole


def compare_memory(script: str, cases: Iterable[str], settings: Settings) -> list[Row]:
    """Compare peaks in target space with those in weight space, on Linux only.

    Peaks of processes are medians.
    """
    if not Path("/proc/self/status").exists():
        return []
    benchmark = Path(script).stem
    problems = importlib.import_module(benchmark).CASES
    rows = []
    for case in cases:
        row: Row = {"case": case}
        own, whole = {}, {}
        for space in SPACES:
            row[f"{space}, MiB"] = tensors_at_peak(
                problems[case], space, settings.device
            )
            command = [sys.executable, __file__, benchmark, case, space]
            command += ["--device", settings.device, "--threads", str(settings.threads)]
            runs = [
                subprocess.run(command, check=True, capture_output=True, text=True)
                for _ in range(settings.few(1, 7))
            ]
            found = [[float(peak) for peak in run.stdout.split()] for run in runs]
            own[space], whole[space] = map(statistics.median, zip(*found, strict=True))
        row["ratio"] = row["targets, MiB"] / max(row["weights, MiB"], 1e-3)
        for space in SPACES:
            row[f"{space} resident, MiB"] = own[space]
        row["ratio of resident"] = own["targets"] / max(own["weights"], 1e-3)
        row["ratio of processes"] = whole["targets"] / whole["weights"]
        rows.append(row)
    return rows


if __name__ == "__main__":
    parser = options(__doc__)
    for argument in ("benchmark", "case", "space"):
        parser.add_argument(argument)
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    cases = importlib.import_module(arguments.benchmark).CASES
    print(*process_at_peak(cases[arguments.case], arguments.space, settings.device))
