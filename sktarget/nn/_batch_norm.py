"""Batch normalisation on X̄, whose statistics are its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["batch_norms", "by_own_statistics"]


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List the batch normalisations of a module."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


@contextmanager
def by_own_statistics(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let what runs be normalised by its own statistics, without a trace of them.

    The running statistics are for evaluation, and so of the batches that are learnt.
    X̄ is passed through the network beside each of these, and may be distributed
    otherwise.

    Parameters
    ----------
    norms : iterable of nn.BatchNorm1d or similar
        The normalisations to switch.
    """
    modes = [(norm, norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm, _, _ in modes:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, training, tracks in modes:
            norm.training, norm.track_running_stats = training, tracks
