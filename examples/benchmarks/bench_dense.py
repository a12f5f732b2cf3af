"""What an iteration of a dense network costs in target space.

Compares an iteration in target space with one in weight space, over width, depth and
the sizes of the two batches.  The floor is what counting multiplications gives:
1 + 2.17 n̄_b / n_b, or 2.17 where X is X̄; solves and the calls themselves come on top.

    python examples/benchmarks/bench_dense.py [--quick] [--threads 1] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from measuring import (
    Problem,
    Problems,
    Row,
    Settings,
    compare_all,
    main,
)
from memory import compare_memory
from torch import nn

from sktarget.architectures import DenseNetwork


def problem(
    n_in: int,
    hidden: tuple[int, ...],
    n_out: int,
    n_fixed: int | None,
    n_batch: int,
    *,
    lam: float = 1.0,
    shortcuts: bool = False,
    plain: bool = True,
    about: Row | None = None,
) -> Problem:
    """Make a network of tanh units and random data; X̄ is X itself if n_fixed is None.

    Layers, activations and Adam are plain PyTorch's if `plain`, otherwise those of the
    estimators, which take less time in either space.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_batch, n_in, generator=generator)
    y = torch.randint(n_out, (n_batch,), generator=generator)
    fixed = x if n_fixed is None else torch.randn(n_fixed, n_in, generator=generator)
    network = DenseNetwork(
        n_in, hidden, n_out, "tanh", shortcuts=shortcuts, generator=generator
    )
    if plain:
        network.activation = nn.Tanh()
        for layer in network.layers:
            layer.__class__ = nn.Linear
    floor = 2.17 if n_fixed is None else 1 + 2.17 * n_fixed / n_batch
    return Problem(network, fixed, x, y, lam, floor, not plain, about or {})


CASES: Problems = {
    "two spirals, full batch": partial(
        problem, 2, (5, 5, 5), 2, None, 194, lam=1e-3, shortcuts=True
    ),
    "5 × 100, full batch": partial(problem, 20, (100,) * 5, 10, None, 1000),
    "5 × 100, full batch, λ = 0.001": partial(
        problem, 20, (100,) * 5, 10, None, 1000, lam=1e-3
    ),
    "5 × 100, n̄_b = 200": partial(problem, 20, (100,) * 5, 10, 200, 1000),
    "5 × 256, n̄_b = n_b": partial(problem, 20, (256,) * 5, 10, 1000, 1000),
    "5 × 100, full batch, as estimators train": partial(
        problem, 20, (100,) * 5, 10, None, 1000, plain=False
    ),
    "5 × 100, n̄_b = 200, as estimators train": partial(
        problem, 20, (100,) * 5, 10, 200, 1000, plain=False
    ),
    "5 × 256, n̄_b = n_b, as estimators train": partial(
        problem, 20, (256,) * 5, 10, 1000, 1000, plain=False
    ),
}


def over(
    name: str, values: list[int], make: Callable[[int], Problem]
) -> Callable[[Settings], list[Row]]:
    """Make a part that varies one number; the quick run takes every second value."""

    def measure(settings: Settings) -> list[Row]:
        chosen = settings.few(values[::2], values)
        problems = {f"{name} {v}": partial(make, v) for v in chosen}
        return compare_all(problems, settings, quick=0.6, full=4)

    return measure


def width(d: int) -> Problem:
    return problem(20, (d,) * 3, 10, None, 1000, about={"width": d})


def depth(n_layers: int) -> Problem:
    return problem(20, (50,) * n_layers, 10, None, 1000, about={"depth": n_layers})


def fixed_rows(n_fixed: int) -> Problem:
    return problem(20, (100,) * 3, 10, n_fixed, 1000, about={"n̄_b": n_fixed})


PARTS = {
    "dense": lambda s: compare_all(CASES, s, quick=1.5, full=15),
    "dense over width": over("width", [8, 16, 32, 64, 128, 256, 512], width),
    "dense over depth": over("depth", [1, 2, 4, 8, 16], depth),
    "dense over n̄_b": over("n̄_b =", [25, 50, 100, 250, 500, 1000, 2000], fixed_rows),
    "dense, memory": lambda s: compare_memory(
        __file__, list(CASES)[1 : s.few(2, None)], s
    ),
}

if __name__ == "__main__":
    main(__doc__, PARTS)
