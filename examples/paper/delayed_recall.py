"""
Bits remembered for many steps
==============================

The bit-stream tasks of Fairbank, Samothrakis and Citi (Sec. 5.3, Figs. 8 and 9): recall
the bit that came `delay` steps before, or add the stream to a delayed copy of itself.
A plain PyTorch loop trains the network of the paper, 1-(N+3)-2 for recall and 1-(N+5)-2
for addition, in target space or in weight space, until 99 % of the test bits are right.
Two methods are not in the paper.  In "anchored", λ is as large as the number of bits in
X̄ and pulls the weights of the hidden layer to those that it starts from, which are
orthogonal between states; "orthogonal" trains in weight space from the same weights.

``python examples/paper/delayed_recall.py --quick`` takes less than a minute.  For both
figures use ``--tasks recall addition --delays 10 20 40 60 80 100 --trials 5 --plot
FILE``, and for the LSTM's part add ``--cell lstm --methods scu weights``.
"""

import argparse
import itertools
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
    """Return bits (n, time, 1) and labels (n, time)."""
    X, y = TASKS[task][0](n, delay, random_state=seed)
    return torch.from_numpy(X).float().transpose(1, 2).contiguous(), torch.from_numpy(y)


def build(
    method: str, task: str, delay: int, seed: int, cell: str, lam: float
) -> nn.Module:
    """Make the network of the paper, in the space that `method` names."""
    torch.manual_seed(seed)
    network = Network(cell, delay + TASKS[task][1])
    if method in ("anchored", "orthogonal"):
        nn.init.orthogonal_(network.hidden.weight_hh_l0)
    if method in ("weights", "orthogonal"):
        return network
    fixed, _ = streams(task, 100, delay, seed + 1)
    if method == "anchored":
        lams = [float(fixed.numel()), lam]  # one for each bit of X̄, and of the exit
        return TargetSpace(network, fixed, lams, anchor="weights")
    return TargetSpace(network, fixed, lam, untangling=method).reset_targets(1.0)


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the fraction of right answers among the bits that count."""
    network.eval()
    right = (network(x).argmax(-1) == y)[y >= 0]
    network.train()
    return right.float().mean().item()


def train(
    network: nn.Module, task: str, delay: int, seed: int, arguments: argparse.Namespace
) -> tuple[int | None, float]:
    """Train until solved; return the number of iterations, and the best accuracy."""
    x, y = streams(task, 8000, delay, seed + 2)
    x_test, y_test = streams(task, 1000, delay, seed + 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=arguments.rate)
    loss = nn.CrossEntropyLoss(ignore_index=-1)
    best = 0.0
    for iteration in range(1, arguments.iterations + 1):
        rows = torch.randint(len(x), (100,))
        optimizer.zero_grad()
        loss(network(x[rows]).flatten(0, 1), y[rows].flatten()).backward()
        optimizer.step()
        if iteration % arguments.check == 0:
            best = max(best, accuracy(network, x_test, y_test))
            if best > 0.99:
                return iteration, best
    return None, best


def plot(results: dict[tuple[str, str, int], list[int | None]], path: str) -> None:
    """Draw Figs. 8 and 9: trials solved, and iterations that these took, by delay."""
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(task for task, _, _ in results))
    figure, axes = plt.subplots(
        2, len(tasks), sharex="col", squeeze=False, layout="constrained"
    )
    for (above, below), task in zip(axes.T, tasks, strict=True):
        for method in dict.fromkeys(m for t, m, _ in results if t == task):
            own = {d: v for (t, m, d), v in results.items() if (t, m) == (task, method)}
            ratios = [sum(n is not None for n in v) / len(v) for v in own.values()]
            above.plot(list(own), ratios, marker="o", label=method)
            took = {d: [n for n in v if n is not None] for d, v in own.items()}
            took = {d: v for d, v in took.items() if v}
            means = [sum(v) / len(v) for v in took.values()]
            below.plot(list(took), means, marker="o", label=method)
        above.set(title=task, ylabel="success ratio", ylim=(-0.05, 1.05))
        below.set(xlabel="delay", ylabel="iterations to success")
        above.legend()
    figure.savefig(path)
    print(f"plot: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="recall of N = 10 only")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["recall"])
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=["scu", "ocu", "weights", "anchored", "orthogonal"],
        default=["scu", "ocu", "weights"],
    )
    parser.add_argument("--delays", nargs="+", type=int, default=[10, 20, 40])
    parser.add_argument("--cell", choices=CELLS, default="rnn")
    parser.add_argument("--iterations", type=int, default=50_000)
    parser.add_argument("--check", type=int, default=250, help="iterations per test")
    parser.add_argument("--lam", type=float, default=0.1)
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=1, help="seeds for each delay")
    parser.add_argument("--plot", metavar="FILE", help="where to draw Figs. 8 and 9")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.delays, arguments.methods = [10], ["scu", "weights"]
        arguments.iterations, arguments.check = 1000, 50
    # Gradients fade over many steps, and denormal numbers are slow.
    torch.set_flush_denormal(True)
    results: dict[tuple[str, str, int], list[int | None]] = {}
    seeds = range(arguments.seed, arguments.seed + arguments.trials)
    runs = itertools.product(
        arguments.tasks, arguments.delays, arguments.methods, seeds
    )
    for task, delay, method, seed in runs:
        start = time.perf_counter()
        network = build(method, task, delay, seed, arguments.cell, arguments.lam)
        solved, best = train(network, task, delay, seed, arguments)
        results.setdefault((task, method, delay), []).append(solved)
        after = f"after {solved}" if solved else f"not in {arguments.iterations}"
        print(
            f"{task} N={delay} {arguments.cell} {method} seed {seed}: solved {after} "
            f"iterations, best {best:.4f}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
