"""
Bits remembered for many steps
==============================

The bit-stream tasks of Fairbank, Samothrakis and Citi (Sec. 5.3, Figs. 8 and 9): recall
the bit of `delay` steps before, or add the stream to its delayed self.  A plain
PyTorch loop trains the network of the paper, 1-(N+3)-2 for recall and 1-(N+5)-2 for
addition, in target space or in weight space, until 99 % of the test bits are right.

``python examples/paper/delayed_recall.py --quick`` takes less than a minute.
"""

import argparse
import time

import torch
from torch import Tensor, nn

from sktarget.datasets import make_delayed_addition, make_delayed_recall
from sktarget.nn import TargetSpace

TASKS = {"recall": (make_delayed_recall, 3), "addition": (make_delayed_addition, 5)}
CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Network(nn.Module):
    """A recurrent hidden layer and a dense output layer, at every step."""

    def __init__(self, cell: str, n_hidden: int) -> None:
        super().__init__()
        self.hidden = CELLS[cell](1, n_hidden, batch_first=True)
        self.exit = nn.Linear(n_hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map bits (n, time, 1) to sums (n, time, 2)."""
        return self.exit(self.hidden(x)[0])


def streams(task: str, n: int, delay: int, seed: int) -> tuple[Tensor, Tensor]:
    """Give bits (n, time, 1) and labels (n, time)."""
    X, y = TASKS[task][0](n, delay, random_state=seed)
    return torch.from_numpy(X).float().transpose(1, 2).contiguous(), torch.from_numpy(y)


def build(method: str, task: str, delay: int, seed: int, cell: str) -> nn.Module:
    """Make the network of the paper, to be learnt in the space that `method` names."""
    torch.manual_seed(seed)
    network = Network(cell, delay + TASKS[task][1])
    if method == "weights":
        return network
    fixed, _ = streams(task, 100, delay, seed + 1)
    return TargetSpace(network, fixed, lam=0.1, untangling=method).reset_targets(1.0)


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the fraction of the bits that count which are right."""
    network.eval()
    right = (network(x).argmax(-1) == y)[y >= 0]
    network.train()
    return right.float().mean().item()


def train(
    network: nn.Module, task: str, delay: int, n_iterations: int, check: int, seed: int
) -> tuple[int | None, float]:
    """Train until solved; return the iterations it took, and the best accuracy."""
    x, y = streams(task, 8000, delay, seed + 2)
    x_test, y_test = streams(task, 1000, delay, seed + 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    loss = nn.CrossEntropyLoss(ignore_index=-1)
    best = 0.0
    for iteration in range(1, n_iterations + 1):
        rows = torch.randint(len(x), (100,))
        optimizer.zero_grad()
        loss(network(x[rows]).flatten(0, 1), y[rows].flatten()).backward()
        optimizer.step()
        if iteration % check == 0:
            best = max(best, accuracy(network, x_test, y_test))
            if best > 0.99:
                return iteration, best
    return None, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="recall of N = 10 only")
    parser.add_argument("--tasks", nargs="+", default=["recall"])
    parser.add_argument("--methods", nargs="+", default=["scu", "ocu", "weights"])
    parser.add_argument("--delays", nargs="+", type=int, default=[10, 20, 40])
    parser.add_argument("--cell", choices=CELLS, default="rnn")
    parser.add_argument("--iterations", type=int, default=50_000)
    parser.add_argument("--check", type=int, default=250, help="iterations per test")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.delays, arguments.methods = [10], ["scu", "weights"]
        arguments.iterations, arguments.check = 1000, 50
    # Gradients fade over many steps, and denormal numbers are slow.
    torch.set_flush_denormal(True)
    for task in arguments.tasks:
        for delay in arguments.delays:
            for method in arguments.methods:
                start = time.perf_counter()
                network = build(method, task, delay, arguments.seed, arguments.cell)
                solved, best = train(
                    network,
                    task,
                    delay,
                    arguments.iterations,
                    arguments.check,
                    arguments.seed,
                )
                seconds = time.perf_counter() - start
                outcome = f"solved after {solved}" if solved else "not solved"
                print(
                    f"{task} N={delay} {arguments.cell} {method}: {outcome} iterations,"
                    f" best accuracy {best:.4f}, {seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
