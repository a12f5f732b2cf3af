"""
Time of one iteration with recurrent layers
===========================================

Target space against weight space, at two shapes of the paper: recall of bits delayed
by 40 steps (Sec. 5.3), where X̄ is as long as X, and IMDB (Sec. 5.4), where X̄ is noise
of 60 steps and X has 500.  One iteration is zero_grad, forward, loss, backward and a
step of Adam.  The two sides take turns, and medians are compared, so that a machine
busy with other things does no harm.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sktarget.nn import TargetSpace

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Maybe an embedding, a recurrent layer, and a dense one on all or last steps."""

    def __init__(
        self, cell: str, sizes: tuple[int, int, int], n_tokens: int, last: bool
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, sizes[0]) if n_tokens else None
        self.recurrent = CELLS[cell](sizes[0], sizes[1], batch_first=True)
        self.exit = nn.Linear(sizes[1], sizes[2])
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, time, inputs), or tokens (n, time), to sums of the last layer."""
        if self.embedding is not None and not x.is_floating_point():
            x = self.embedding(x)
        h = self.recurrent(x)[0]
        return self.exit(h[:, -1] if self.last else h)


def recall(cell: str) -> tuple[nn.Module, Tensor, Tensor, Tensor, float]:
    """Recall of N = 40: 1-43-2, all steps."""
    module = Recurrent(cell, (1, 43, 2), 0, last=False)
    fixed, x = torch.randint(2, (2, 100, 90, 1)).float()
    return module, fixed, x, torch.randint(2, (100, 90)), 0.1


def imdb(cell: str) -> tuple[nn.Module, Tensor, Tensor, Tensor, float]:
    """IMDB: 5,000 words, 32-100-2, the last step."""
    module = Recurrent(cell, (32, 100, 2), 5000, last=True)
    fixed, x = torch.rand(40, 60, 32) * 2 - 1, torch.randint(5000, (40, 500))
    return module, fixed, x, torch.randint(2, (40,)), 1e-3


def iteration(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Make the function that trains `net` for one step."""
    optimizer = torch.optim.Adam(net.parameters())
    loss = nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        loss(net(x).flatten(0, -2), y.flatten()).backward()
        optimizer.step()

    return step


def ratio(task: Callable[[str], tuple], cell: str, n: int) -> tuple[float, float]:
    """Return the median seconds of an iteration in weight and in target space."""
    torch.manual_seed(0)
    module, fixed, x, y, lam = task(cell)
    targets = TargetSpace(module, fixed, lam)
    steps = iteration(module, x, y), iteration(targets, x, y)
    times: tuple[list[float], list[float]] = [], []
    for i in range(n + 2):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if i >= 2:
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--cells", nargs="+", default=["rnn", "lstm", "gru"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    n = 10 if arguments.quick else 40
    print(f"{'task':8} {'cell':5} {'weights':>9} {'targets':>9} {'ratio':>6}")
    for task in (recall, imdb):
        for cell in arguments.cells:
            weights, targets = ratio(task, cell, n)
            times = f"{1e3 * weights:6.1f} ms {1e3 * targets:6.1f} ms"
            print(f"{task.__name__:8} {cell:5} {times} {targets / weights:6.2f}")


if __name__ == "__main__":
    main()
