"""Generators of synthetic data, in the manner of :mod:`sklearn.datasets`."""

from sktarget.datasets._long_memory import make_adding, make_temporal_order
from sktarget.datasets._spirals import make_two_spirals
from sktarget.datasets._streams import make_delayed_addition, make_delayed_recall

__all__ = [
    "make_adding",
    "make_delayed_addition",
    "make_delayed_recall",
    "make_temporal_order",
    "make_two_spirals",
]
