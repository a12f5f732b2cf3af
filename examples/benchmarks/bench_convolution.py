"""What an iteration of a convolutional network costs in target space.

The network of the paper for MNIST: six 3 by 3 "same" convolutions of 16 to 64 channels,
pooling after every second, and two dense layers.  Target space keeps channels last.

    python examples/benchmarks/bench_convolution.py [--quick] [--threads 1]
"""

from __future__ import annotations

from functools import partial

import torch
from measuring import Problem, Problems, compare_all, main
from memory import compare_memory
from torch import nn

from sktarget.nn import TargetSpace


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


def problem(
    n_fixed: int,
    n_batch: int,
    lam: float | None = 0.1,
    *,
    fused: bool = False,
) -> Problem:
    """Make the paper's network; λ is the paper's, or if None that of estimators."""
    torch.manual_seed(0)
    x, y = torch.rand(n_batch, 1, 28, 28), torch.randint(10, (n_batch,))
    network, fixed = paper_network(), torch.rand(n_fixed, 1, 28, 28)
    lams = TargetSpace(network, fixed).choose_lam().lam if lam is None else lam
    about = {"n̄_b": n_fixed, "n_b": n_batch}
    return Problem(network, fixed, x, y, lams, fused=fused, about=about)


def channels_last(n_fixed: int, n_batch: int) -> Problem:
    """Give weight space, too, the layout that target space chooses by itself."""
    made = problem(n_fixed, n_batch)
    x = made.x.to(memory_format=torch.channels_last)
    network = made.network.to(memory_format=torch.channels_last)
    return Problem(network, made.fixed, x, made.y, made.lam, about=made.about)


CASES: Problems = {
    "MNIST network": partial(problem, 100, 100),
    "MNIST network, λ by default": partial(problem, 100, 100, None),
    "MNIST network, λ and Adam of estimators": partial(
        problem, 100, 100, None, fused=True
    ),
    "MNIST network, channels last in both": partial(channels_last, 100, 100),
    "MNIST network, n_b = 500": partial(problem, 100, 500),
    "MNIST network, n̄_b = 400": partial(problem, 400, 100),
}
QUICK = dict(list(CASES.items())[:1])

PARTS = {
    "convolution": lambda s: compare_all(s.few(QUICK, CASES), s, quick=3, full=20),
    "convolution, memory": lambda s: compare_memory(__file__, s.few(QUICK, CASES), s),
}

if __name__ == "__main__":
    main(__doc__, PARTS)
