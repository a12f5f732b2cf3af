"""Design matrices: what a layer does with its inputs.

A :class:`DesignOperator` stands for the matrix ``A`` whose rows are ``[1, inputs]``.
It is defined only by the products that the method needs, so that a convolution need
never build its patch matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from sktarget.linalg import (
    RidgeFactor,
    add_product,
    gramian,
    prefers_dual,
    product,
)
from sktarget.nn._skipping import head

__all__ = [
    "AugmentedOperator",
    "DenseOperator",
    "DesignOperator",
    "MeasuredOperator",
]


def _as_matrix(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else x.flatten(0, -2)


@lru_cache(maxsize=4)
def _ones(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the column that biases are multiplied by, the same in every pass."""
    with torch.inference_mode(False):
        return torch.ones(n, 1, dtype=dtype, device=device)


class DesignOperator(Protocol):
    """Products with the design matrix A of a layer.

    `rows` is whatever stands for A (for a dense layer A itself), with the patterns
    along its first axis, X̄ first; sums have one row for each of its rows or patterns.
    """

    def rows(self, inputs: Tensor) -> Tensor:
        """Turn the inputs of the layer into what stands for A."""

    def design(self, rows: Tensor, n: int) -> tuple[DesignOperator, Tensor]:
        """Return the products with A on X̄, the first n rows, and what stands for A."""

    def sums(self, outputs: Tensor) -> Tensor:
        """Bring targets, or a gradient of the outputs, into the shape of AW."""

    def is_dual(self, rows: Tensor) -> bool:
        """Return whether the dual system is to be factorised."""

    def gramian(self, rows: Tensor, dtype: torch.dtype, ridge: float) -> Tensor:
        """Form the lower triangle of AᵀA, or of AAᵀ in the dual form.

        Errors far below the `ridge` that will be added to it are allowed.
        """

    def solve_dual(self, factor: RidgeFactor, sums: Tensor) -> Tensor:
        """Form (AAᵀ + λI)⁻¹S, in the shape of S."""

    def apply(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Form AW, in the shape of the layer's output."""

    def apply_transposed(self, rows: Tensor, sums: Tensor) -> Tensor:
        """Form AᵀS, of shape (columns, outputs)."""

    def transposed_weights(self, weights: Tensor) -> Tensor:
        """Turn W into what stands for Wᵀ, without its column for the ones."""

    def input_gradient(self, sums: Tensor, transposed: Tensor, rows: Tensor) -> Tensor:
        """Form SWᵀ, in the shape of the rows: a gradient of the inputs."""

    def add_input_gradient(
        self, to: Tensor, sums: Tensor, transposed: Tensor, rows: Tensor
    ) -> None:
        """Add SWᵀ to a tensor in place."""


@dataclass(frozen=True)
class DenseOperator:
    """The design matrix of a dense layer: its inputs, after a column of ones.

    Attributes
    ----------
    bias : bool
        Whether there is a column of ones.
    """

    bias: bool

    def rows(self, inputs: Tensor) -> Tensor:
        return _as_matrix(inputs)

    def design(self, rows: Tensor, n: int) -> tuple[DenseOperator, Tensor]:
        return self, head(rows, n)

    def sums(self, outputs: Tensor) -> Tensor:
        return _as_matrix(outputs)

    def is_dual(self, rows: Tensor) -> bool:
        return prefers_dual(rows.shape[0], rows.shape[1] + self.bias)

    def gramian(self, rows: Tensor, dtype: torch.dtype, ridge: float = 0.0) -> Tensor:
        if not self.is_dual(rows):
            return gramian(rows, dtype, ones=self.bias)
        gram = gramian(rows.T, dtype)
        return gram.add_(1) if self.bias else gram

    def solve_dual(self, factor: RidgeFactor, sums: Tensor) -> Tensor:
        return factor.solve(sums)

    def apply(self, rows: Tensor, weights: Tensor) -> Tensor:
        if self.bias:
            return product(rows, weights[1:], weights[0])
        return product(rows, weights)

    def apply_transposed(self, rows: Tensor, sums: Tensor) -> Tensor:
        products = product(rows.T, sums)
        if not self.bias:
            return products
        return torch.cat([sums.sum(0, keepdim=True), products])

    def transposed_weights(self, weights: Tensor) -> Tensor:
        return (weights[1:] if self.bias else weights).T

    def input_gradient(self, sums: Tensor, transposed: Tensor, rows: Tensor) -> Tensor:
        return product(sums, transposed)

    def add_input_gradient(
        self, to: Tensor, sums: Tensor, transposed: Tensor, rows: Tensor
    ) -> None:
        add_product(to, sums, transposed)


@dataclass(frozen=True)
class AugmentedOperator(DenseOperator):
    """The design matrix of a dense layer, with the ones of X̄ written out.

    Where products are fast, a column of ones is cheaper than a separate bias operation
    for each.  Rows other than those of X̄ enter few products and get no such column.
    """

    bias: bool = True

    def design(self, rows: Tensor, n: int) -> tuple[DenseOperator, Tensor]:
        ones = _ones(n, rows.dtype, rows.device)
        return _WRITTEN_OUT, torch.cat([ones, head(rows, n)], 1)


@dataclass(frozen=True, eq=False)
class MeasuredOperator(DenseOperator):
    """The design matrix of a dense layer that measures its inputs in other units.

    Attributes
    ----------
    origin, unit : Tensor of shape (k,)
        What is subtracted from each input, and what the difference is divided by.
    """

    origin: Tensor
    unit: Tensor

    def rows(self, inputs: Tensor) -> Tensor:
        return (_as_matrix(inputs) - self.origin).div_(self.unit)

    def transposed_weights(self, weights: Tensor) -> Tensor:
        return super().transposed_weights(weights) / self.unit


class _WrittenOut(DenseOperator):
    """A design matrix that already holds its column of ones."""

    def transposed_weights(self, weights: Tensor) -> Tensor:
        return weights[1:].T


_WRITTEN_OUT = _WrittenOut(bias=False)
