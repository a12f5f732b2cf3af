"""What an iteration of a recurrent network costs in target space.

Two shapes of the paper: recall of bits delayed by 40 steps (Sec. 5.3), where X̄ is as
long as X, and IMDB (Sec. 5.4), where X̄ is noise of 60 steps and X has 500; and how the
cost grows with the length of the sequences.

    python examples/benchmarks/bench_recurrent.py [--quick] [--threads 1]
"""

from __future__ import annotations

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
from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Optionally an embedding, a recurrent layer, a dense one on all or last steps."""

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


def recall(cell: str, delay: int = 40) -> Problem:
    """1-(N + 3)-2 on 100 sequences of 50 + N steps, and as many in X̄."""
    torch.manual_seed(0)
    network = Recurrent(cell, (1, delay + 3, 2), 0, last=False)
    fixed, x = torch.randint(2, (2, 100, delay + 50, 1)).float()
    y = torch.randint(2, (100, delay + 50))
    return Problem(network, fixed, x, y, 0.1, about={"cell": cell})


def imdb(cell: str) -> Problem:
    """5,000 words, 32-100-2, the last step."""
    torch.manual_seed(0)
    network = Recurrent(cell, (32, 100, 2), 5000, last=True)
    fixed, x = torch.rand(40, 60, 32) * 2 - 1, torch.randint(5000, (40, 500))
    y = torch.randint(2, (40,))
    return Problem(network, fixed, x, y, 1e-3, about={"cell": cell})


def length(cell: str, n_steps: int) -> Problem:
    torch.manual_seed(0)
    network = Recurrent(cell, (8, 40, 2), 0, last=False)
    fixed, x = torch.randn(2, 50, n_steps, 8)
    y = torch.randint(2, (50, n_steps))
    return Problem(network, fixed, x, y, 0.1, about={"cell": cell, "steps": n_steps})


CASES: Problems = {
    **{f"recall, N = 40, {cell}": partial(recall, cell) for cell in CELLS},
    **{f"IMDB, {cell}": partial(imdb, cell) for cell in CELLS},
}
QUICK = {n: c for n, c in CASES.items() if n.endswith("rnn")}


def over_length(settings: Settings) -> list[Row]:
    steps = settings.few([10, 80], [10, 20, 40, 80, 160, 320])
    cells = settings.few(["rnn"], ["rnn", "lstm"])
    problems = {f"{t} steps, {c}": partial(length, c, t) for c in cells for t in steps}
    return compare_all(problems, settings, quick=0.8, full=4)


PARTS = {
    "recurrent": lambda s: compare_all(s.few(QUICK, CASES), s, quick=2, full=12),
    "recurrent over length": over_length,
    "recurrent, memory": lambda s: compare_memory(__file__, s.few(QUICK, CASES), s),
}

if __name__ == "__main__":
    main(__doc__, PARTS)
