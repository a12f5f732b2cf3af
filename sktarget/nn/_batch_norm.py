"""Batch normalisation on X̄, whose statistics are its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["batch_norms", "by_own_statistics"]


def batch_norms(module: nn.Module) -> list[_NormBase]:
    """List the normalisations of a module whose training leaves running statistics.

    Those of batches are among them even if they keep none, as they mix rows.
    """
    return [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm)
        or (isinstance(part, _InstanceNorm) and part.track_running_stats)
    ]


# What of a normalisation is to be as it was.
_STATE = ("training", "track_running_stats", "running_mean", "running_var")


@contextmanager
def by_own_statistics(norms: Iterable[_NormBase]) -> Iterator[None]:
    """Let what runs be normalised by its own statistics, without a trace of them.

    The running statistics are for evaluation, and so of the batches that are learnt.
    X̄ is passed through the network beside each of these, and may be distributed
    otherwise.

    Parameters
    ----------
    norms : iterable of nn.BatchNorm1d or similar
        The normalisations to switch.
    """
    before = [(norm, {name: getattr(norm, name) for name in _STATE}) for norm in norms]
    try:
        for norm, _ in before:
            norm.training, norm.track_running_stats = True, False
            norm.running_mean = norm.running_var = None
        yield
    finally:
        for norm, state in before:
            for name, value in state.items():
                setattr(norm, name, value)
