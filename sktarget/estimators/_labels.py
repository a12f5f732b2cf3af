"""Classes, the loss that they call for, and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, softmax

__all__ = ["ClassLabels"]

Array = NDArray[Any]


class ClassLabels:
    """What classifiers share between their labels and the sums of their networks.

    Two classes have one output and the logistic function, more have one output each
    and softmax.
    """

    classes_: Array
    n_outputs_: int
    out_activation_: str
    _loss: str

    def _learn_classes(self, present: Array, first: bool, classes: Any) -> None:
        """Take up the classes at the first fit; see to it that no others follow."""
        if first:
            self.classes_ = present if classes is None else np.unique(classes)
            if len(self.classes_) < 2:
                raise ValueError(
                    "y must hold at least two classes, but without the rows that "
                    "sample_weight or class_weight set to zero it holds 1 class: "
                    f"{self.classes_.tolist()}"
                )
            n_classes = len(self.classes_)
            if n_classes == 2:
                self._set_loss("logistic", 1)
            else:
                self._set_loss("cross_entropy", n_classes)
        elif classes is not None and set(np.unique(classes)) != set(self.classes_):
            raise ValueError(
                f"classes={classes!r} is not what the first call of partial_fit was "
                f"given, {self.classes_.tolist()}: leave it out, or clone the estimator"
            )
        unknown = np.setdiff1d(present, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y holds the classes {unknown.tolist()}, which are not among the "
                f"classes of the first fit, {self.classes_.tolist()}: name all classes "
                "in the first call of partial_fit, or set warm_start=False"
            )

    def _set_loss(self, loss: str, n_outputs: int) -> None:
        self._loss = loss
        self.n_outputs_ = n_outputs
        self.out_activation_ = "softmax" if loss == "cross_entropy" else "logistic"

    def _encode(self, y: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Give the indices of labels, and the outputs as the loss wants them."""
        indices = np.searchsorted(self.classes_, y)
        if self._loss == "logistic":
            return indices, indices.astype(dtype)[:, None]
        return indices, indices.astype(np.int64)

    def _indices(self, sums: Array) -> Array:
        """Decide by sums (..., n_outputs): on classes (...,), or on each output."""
        if self._loss == "cross_entropy":
            return np.asarray(sums.argmax(axis=-1))
        return (sums > 0).astype(np.int64)

    def _probabilities(self, sums: Array) -> Array:
        """Turn sums (..., n_outputs) into probabilities (..., n_classes)."""
        if self._loss == "cross_entropy":
            return np.asarray(softmax(sums, axis=-1))
        return np.concatenate([expit(-sums), expit(sums)], axis=-1)

    def _log_probabilities(self, sums: Array) -> Array:
        """Give their logarithms, accurate where they vanish."""
        if self._loss == "cross_entropy":
            return np.asarray(log_softmax(sums, axis=-1))
        return np.concatenate([log_expit(-sums), log_expit(sums)], axis=-1)
