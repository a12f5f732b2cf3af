"""Price of target space for dense networks, side by side with weight space.

Prints, for each network, the median time of one iteration (zero_grad, forward, loss,
backward, Adam step) in weight space and in target space, measured in turns within one
process, and their ratio beside the floor that counting multiplications gives,
1 + 2.17 n̄_b / n_b, or 2.17 where X is X̄.  Then the time of the estimator's ``fit``
beside the bare torch loop that does the same.

    python examples/benchmarks/bench_dense.py [--quick] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch.nn import functional as F

from sktarget import TargetSpaceClassifier
from sktarget.architectures import DenseNetwork
from sktarget.nn import TargetSpace

# name, inputs, hidden widths, outputs, shortcuts, n̄_b, n_b, λ
CASES: list[tuple[str, int, tuple[int, ...], int, bool, int, int, float]] = [
    ("two spirals, full batch", 2, (5, 5, 5), 2, True, 194, 194, 1e-3),
    ("5 x 100, full batch", 20, (100,) * 5, 10, False, 1000, 1000, 1.0),
    ("5 x 100, full batch, small λ", 20, (100,) * 5, 10, False, 1000, 1000, 1e-3),
    ("5 x 100, n̄_b = 200", 20, (100,) * 5, 10, False, 200, 1000, 1.0),
    ("5 x 256, n̄_b = n_b", 20, (256,) * 5, 10, False, 1000, -1000, 1.0),
]


def in_turns(steps: list[Callable[[], Any]], repetitions: int) -> list[float]:
    """Time several functions in turns; return the median of each, in milliseconds."""
    times: list[list[float]] = [[] for _ in steps]
    for repetition in range(repetitions + 5):
        for step, record in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if repetition >= 5:  # the first ones warm up caches and allocators
                record.append(time.perf_counter() - start)
    return [1e3 * statistics.median(record) for record in times]


def iteration(
    network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor
) -> Callable[[], Any]:
    """One iteration of training."""
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def per_iteration(repetitions: int) -> list[dict[str, Any]]:
    """Measure all cases in float32."""
    results = []
    for name, n_in, hidden, n_out, shortcuts, n_fixed, n_batch, lam in CASES:
        shared = n_fixed == n_batch
        n_batch = abs(n_batch)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(n_batch, n_in, generator=generator)
        y = torch.randint(n_out, (n_batch,), generator=generator)
        fixed = x if shared else torch.randn(n_fixed, n_in, generator=generator)
        network = DenseNetwork(
            n_in, hidden, n_out, "tanh", shortcuts=shortcuts, generator=generator
        )
        target = TargetSpace(network, fixed, lam)
        weight_ms, target_ms = in_turns(
            [iteration(network, x, y), iteration(target, x, y)], repetitions
        )
        floor = 2.17 if shared else 1 + 2.17 * n_fixed / n_batch
        results.append(
            {
                "case": name,
                "weight_ms": weight_ms,
                "target_ms": target_ms,
                "ratio": target_ms / weight_ms,
                "floor": floor,
            }
        )
    return results


def fit_overhead(epochs: int, repetitions: int) -> list[dict[str, Any]]:
    """Compare ``fit`` with a bare loop over the same network, batches and optimiser."""
    results = []
    for name, n_samples, batch_size in [
        ("5 x 100, full batch", 1000, 1000),
        ("5 x 100, batches of 200", 2000, 200),
    ]:
        random = np.random.RandomState(0)
        X = random.standard_normal((n_samples, 20)).astype(np.float32)
        y = random.randint(10, size=n_samples)
        estimator = TargetSpaceClassifier(
            (100,) * 5,
            fixed_batch_size=None if batch_size == n_samples else 500,
            lam=1.0,
            batch_size=batch_size,
            max_iter=epochs,
            n_iter_no_change=epochs,
            learning_rate_init=1e-3,
            alpha=0.0,
            tol=0.0,
            random_state=0,
        )
        x, labels = torch.from_numpy(X), torch.from_numpy(y)
        fixed = x if batch_size == n_samples else x[:500]
        network = DenseNetwork(20, (100,) * 5, 10, "tanh")
        target = TargetSpace(network, fixed, 1.0)
        optimizer = torch.optim.Adam(target.parameters(), lr=1e-3, fused=True)

        def bare(
            x: torch.Tensor = x,
            labels: torch.Tensor = labels,
            batch_size: int = batch_size,
            target: TargetSpace = target,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> None:
            for _ in range(epochs):
                whole = len(x) == batch_size
                order = torch.randperm(len(x)).split(batch_size)
                for index in order:
                    inputs, truth = (x, labels) if whole else (x[index], labels[index])
                    optimizer.zero_grad()
                    F.cross_entropy(target(inputs), truth).backward()
                    optimizer.step()

        def fit(
            estimator: TargetSpaceClassifier = estimator,
            X: np.ndarray = X,
            y: np.ndarray = y,
        ) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                estimator.fit(X, y)

        bare_ms, fit_ms = in_turns([bare, fit], repetitions)
        results.append(
            {
                "case": name,
                "bare_ms": bare_ms,
                "fit_ms": fit_ms,
                "ratio": fit_ms / bare_ms,
            }
        )
    return results


def show(title: str, results: list[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"\n{title}")
    columns = list(results[0])
    print(f"{'':30s}" + "".join(f"{name:>12s}" for name in columns[1:]))
    for row in results:
        values = "".join(f"{row[name]:12.2f}" for name in columns[1:])
        print(f"{row['case']:30s}{values}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the results to a file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    iterations = per_iteration(20 if arguments.quick else 150)
    overhead = fit_overhead(20, 2 if arguments.quick else 7)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), float32, medians")
    show("One iteration", iterations)
    show("fit beside the bare loop, 20 epochs", overhead)
    if arguments.json:
        results = {"iterations": iterations, "fit": overhead}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
