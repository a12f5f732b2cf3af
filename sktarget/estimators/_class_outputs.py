"""Classes, the loss that suits them, and probabilities."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import column_or_1d
from torch.nn import functional as F

from sktarget.estimators._estimator import NetworkEstimator
from sktarget.estimators._forks import serial_in_forks
from sktarget.estimators._rows import Role, TrainingRows
from sktarget.estimators._weights import multiply_weights
from sktarget.training import Objective

__all__ = ["ClassOutputs"]

Array = NDArray[Any]
# From this many sums on, several simple operations beat one call of softmax.
_MANY = 1 << 13


class ClassOutputs(NetworkEstimator):
    """An estimator of classes: the way between labels and the sums of a network.

    Two classes take two softmax outputs, as in the paper: a single logistic one would
    move at half the rate and need more epochs.
    """

    class_weight: Any
    classes_: Array
    out_activation_: str

    def _learn_classes(self, present: Array, role: Role) -> None:
        """Set the classes at the first fit; refuse any others later."""
        classes = None if role.classes is None else _distinct(role.classes)
        if role.first:
            self.classes_ = present if classes is None else classes
            if len(self.classes_) < 2:
                named = "y must hold" if classes is None else "classes must name"
                if classes is None and self._incremental:
                    named = (
                        "name all classes by classes=... in the first call of "
                        "partial_fit, or give it rows of"
                    )
                found = "1 class" if len(self.classes_) else "0 classes"
                raise ValueError(
                    f"{named} at least two classes, got {found}: "
                    f"{self.classes_.tolist()}; what sample_weight or class_weight "
                    "sets to zero does not count, nor does -1 as the label of a step"
                )
            self._set_loss("cross_entropy", len(self.classes_))
        elif classes is not None and set(classes) != set(self.classes_):
            raise ValueError(
                f"classes={role.classes!r} is not what the first call of partial_fit "
                f"was given, {self.classes_.tolist()}: leave it out, or clone the "
                "estimator"
            )
        unknown = np.setdiff1d(present, self.classes_)
        if len(unknown):
            way = "let y have rows of every class"
            if self._incremental:
                way = "name all classes in the first call of partial_fit"
            elif self.warm_start and self._has_network:
                way = "set warm_start=False"
            raise ValueError(
                f"y holds the classes {unknown.tolist()}, which are not among those "
                f"that are learnt, {self.classes_.tolist()}: leave these rows out, or "
                f"{way}"
            )

    def _with_class_weights(
        self, y: Array, weight: Array | None, role: Role
    ) -> Array | None:
        """Multiply the weights of labels, 1 if None, by those of their classes."""
        if self.class_weight is None:
            return weight
        given = np.ones(len(y)) if weight is None else weight
        return multiply_weights(given, self._weigh_classes(y, given, role))

    def _weigh_classes(self, y: Array, weight: Array, role: Role) -> Array:
        """Return for every label the weight of its class, by `class_weight`.

        For "balanced" a label counts by its weight, as if it were repeated.
        """
        if isinstance(self.class_weight, dict):
            if y.ndim > 1:
                raise ValueError(
                    "class_weight must be 'balanced' or None where y holds indicators "
                    f"of several labels, got {self.class_weight!r}: use sample_weight"
                )
            for label, value in self.class_weight.items():
                if not isinstance(value, Real) or not 0 <= float(value) < np.inf:
                    raise ValueError(
                        "class_weight must be finite and at least 0, got "
                        f"{value!r} for class {label!r}"
                    )
            labels, index = np.unique(y, return_inverse=True)
            named = labels if role.classes is None else _distinct(role.classes)
            known = named.tolist()
            if not role.first:
                known = list(dict.fromkeys([*self.classes_.tolist(), *labels.tolist()]))
            self._check_weighted(known, role.first)
            given = [self.class_weight.get(c, 1.0) for c in labels.tolist()]
            return np.asarray(given, dtype=np.float64)[index]
        columns = y.T if y.ndim > 1 else [y]
        balanced = [_balance(column, weight) for column in columns]
        return np.asarray(np.prod(balanced, axis=0))

    def _check_weighted(self, known: list[Any], first: bool) -> None:
        # A first fit forgets classes whose rows all have weight 0.
        named = [c for c, weight in self.class_weight.items() if first or weight > 0]
        unknown = [c for c in named if c not in known]
        if unknown and not all(c in self.class_weight for c in known):
            raise ValueError(
                f"class_weight names {unknown}, which are not among the classes "
                f"{known}: correct or remove these names"
            )

    def _set_loss(self, loss: str, n_outputs: int) -> None:
        self._loss = loss
        self.n_outputs_ = n_outputs
        self.out_activation_ = "softmax" if loss == "cross_entropy" else "logistic"

    def _encode(self, y: Array) -> Array:
        """Return the indices of labels."""
        return np.searchsorted(self.classes_, y)

    def _as_learnt(self, sums: Array) -> Array:
        """Turn sums (..., n_outputs) into class indices (...,), or into 0 or 1 each."""
        if self._loss == "cross_entropy":
            return np.asarray(sums.argmax(axis=-1))
        return (sums > 0).astype(np.int64)

    def _objective(self, held_out: TrainingRows | None = None) -> Objective:
        def decide(sums: torch.Tensor) -> Array:
            return self._margins(sums.numpy(force=True))

        return replace(super()._objective(held_out), decide=decide)

    def _margins(self, sums: Array) -> Array:
        """Return what ``decision_function`` does: for two classes, one number.

        It says by how much the output of the second exceeds that of the first.
        """
        binary = self._loss == "cross_entropy" and len(self.classes_) == 2
        return sums[..., 1] - sums[..., 0] if binary else sums

    def _score_sums(
        self, sums: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None
    ) -> float:
        truth = y.numpy(force=True)
        weights = None if weight is None else weight.numpy(force=True)
        right = self._as_learnt(sums.numpy(force=True)) == truth
        # On small tables accuracy_score takes as long as a forward pass.
        return float(
            np.average(right if truth.ndim == 1 else right.all(1), weights=weights)
        )

    def _probabilities(self, sums: Array) -> Array:
        """Turn sums (..., n_outputs) into probabilities of the same shape."""
        x = torch.from_numpy(sums)
        with serial_in_forks():
            if self._loss == "cross_entropy":
                return _softmax(x).numpy()
            return torch.sigmoid(x).numpy()

    def _log_probabilities(self, sums: Array) -> Array:
        """Return logarithms of the probabilities, accurate where these vanish."""
        x = torch.from_numpy(sums)
        with serial_in_forks():
            if self._loss == "cross_entropy":
                return torch.log_softmax(x, -1).numpy()
            return F.logsigmoid(x).numpy()


def _distinct(classes: Any) -> Array:
    """Return the labels that ``partial_fit`` was told of, each once and in order."""
    try:
        distinct = np.unique(column_or_1d(classes))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"classes must list all labels, got {classes!r}: {error}"
        ) from None
    if distinct.dtype.kind == "f" and not np.isfinite(distinct).all():
        raise ValueError(
            f"classes holds {distinct[~np.isfinite(distinct)][0]}, which is no label: "
            "leave it out"
        )
    return distinct


def _balance(labels: Array, weight: Array) -> Array:
    """Return for every label a weight by which all classes together weigh the same."""
    _, index = np.unique(labels, return_inverse=True)
    # Steps may all belong to rows without weight.
    counts = np.bincount(index, weight / (weight.max() or 1.0))
    present = counts > 0
    factors = np.zeros(len(counts))
    factors[present] = counts.sum() / (present.sum() * counts[present])
    return np.asarray(factors[index])


def _softmax(x: torch.Tensor) -> torch.Tensor:
    if x.numel() < _MANY:
        return torch.softmax(x, -1)
    # With few classes per row, torch.softmax takes several times as long.
    powers = torch.exp(x - x.amax(-1, keepdim=True))
    return powers.div_(powers.sum(-1, keepdim=True))
