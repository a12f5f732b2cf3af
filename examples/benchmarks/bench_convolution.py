"""
What an iteration of a convolutional network costs in target space
==================================================================

The network of the paper for MNIST: six 3 by 3 "same" convolutions of 16 to 64 channels,
pooling after every second, and two dense layers. An iteration is zero_grad, forward,
cross-entropy, backward and a step of Adam. Times are medians of iterations that
alternate between the two spaces; memory is the peak above what a process of its own
held before the first step (on Linux).

    OMP_NUM_THREADS=1 python examples/benchmarks/bench_convolution.py
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from sktarget.nn import TargetSpace

SPACES = ("weights", "weights, channels last", "targets")


def paper_network() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for i, width in enumerate([16, 16, 32, 32, 64, 64]):
        layers += [nn.Conv2d(channels, width, 3, padding="same"), nn.LeakyReLU(0.2)]
        if i % 2:
            layers.append(nn.MaxPool2d(2))
        channels = width
    dense = [nn.Linear(9 * 64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def make_step(space: str, n_fixed: int, n_batch: int, lam: float) -> Callable[[], None]:
    torch.manual_seed(0)
    x, y = torch.rand(n_batch, 1, 28, 28), torch.randint(10, (n_batch,))
    network: nn.Module = paper_network()
    if space == "weights, channels last":
        # A layout that torch offers and that target space chooses by itself.
        network = network.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    elif space == "targets":
        network = TargetSpace(network, torch.rand(n_fixed, 1, 28, 28), lam=lam)
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def measure_times(
    n_fixed: int, n_batch: int, lam: float, n_steps: int
) -> dict[str, float]:
    steps = {space: make_step(space, n_fixed, n_batch, lam) for space in SPACES}
    times: dict[str, list[float]] = {space: [] for space in SPACES}
    for i in range(n_steps + 2):
        for space, step in steps.items():
            start = time.perf_counter()
            step()
            if i >= 2:
                times[space].append(time.perf_counter() - start)
    return {space: statistics.median(t) for space, t in times.items()}


def resident_memory(field: str) -> float:
    """Return VmRSS (now) or VmHWM (the largest so far) of this process in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def print_own_memory(space: str, setting: tuple[int, int, float]) -> None:
    step = make_step(space, *setting)
    before = resident_memory("VmRSS")
    for _ in range(5):
        step()
    print(resident_memory("VmHWM") - before)


def measure_memory(space: str, setting: tuple[int, int, float]) -> float:
    n_fixed, n_batch, lam = setting
    arguments = [f"--memory-of={space}", f"--fixed={n_fixed}"]
    arguments += [f"--batch={n_batch}", f"--lam={lam}"]
    command = [sys.executable, __file__, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument(
        "--fixed", type=int, default=100, help="rows of the fixed batch"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--lam", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--memory-of", choices=SPACES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        setting = arguments.fixed, arguments.batch[0], arguments.lam
        print_own_memory(arguments.memory_of, setting)
        return
    print(f"torch {torch.__version__}, threads: {torch.get_num_threads()}")
    for n_batch in arguments.batch:
        setting = arguments.fixed, n_batch, arguments.lam
        print("fixed batch {}, mini-batch {}, lam {:g}".format(*setting))
        times = measure_times(*setting, arguments.steps)
        memory = {space: measure_memory(space, setting) for space in SPACES}
        for space in SPACES:
            print(
                f"  {space:24s}{1e3 * times[space]:8.1f} ms an iteration"
                f"{memory[space]:8.1f} MiB at the peak; targets take "
                f"{times['targets'] / times[space]:.2f} times the time, "
                f"{memory['targets'] / memory[space]:.2f} times the memory"
            )


if __name__ == "__main__":
    main()
