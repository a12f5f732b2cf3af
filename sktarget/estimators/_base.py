"""Estimators in target space: their parameters, images, and networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sktarget.estimators import _rules
from sktarget.estimators._fixed_targets import FixedTargets
from sktarget.estimators._images import (
    as_rows,
    parse_conv_layers,
    parse_image_shape,
    shape_of_images,
)
from sktarget.estimators._pixels import (
    as_bytes,
    warn_of_large_pixels,
    warn_of_other_pixels,
)
from sktarget.estimators._sizes import parse_layer_sizes

__all__ = ["BaseTargetSpace"]

Array = NDArray[Any]


class BaseTargetSpace(FixedTargets):
    """Base of all estimators in target space."""

    activation: str
    shortcuts: bool
    dropout: float
    # Not parameters of those that read no images.
    conv_layers: Sequence[tuple[int, int, int]] | None = None
    image_shape: tuple[int, int, int] | None = None

    # Whether images were fitted as bytes, and the largest of their pixels.
    _of_bytes = False
    _largest_pixel = 0.0

    def __init__(self, **parameters: Any) -> None:
        # scikit-learn reads names and defaults from the signatures of subclasses.
        for name, value in parameters.items():
            setattr(self, name, value)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        parse_layer_sizes(self.hidden_layer_sizes)
        if self._normalises and self.parameterization == "targets":
            raise ValueError(
                "batch_norm=True needs parameterization='weights': targets already fix "
                "the statistics that it normalises"
            )
        if self._incremental and self.learning_rate == "annealed":
            raise ValueError(
                "partial_fit does not support learning_rate='annealed', as it cannot "
                "know the number of calls: use 'auto', 'constant' or an LRScheduler "
                "among the callbacks"
            )
        if self._incremental and self.solver == "lbfgs":
            raise ValueError(
                "partial_fit needs mini-batches, which solver='lbfgs' does not take: "
                "use solver='adam' or solver='sgd'"
            )

    def _validate(self, X: Any, *y: Any, reset: bool, **kwargs: Any) -> Any:
        """Validate the data; images, flattened or not, come out with four axes."""
        if reset:
            self._images = shape_of_images(
                X, self.conv_layers, self.image_shape, self.module is not None
            )
        flat, shape = as_rows(X, self._images), self._images
        if shape is None:
            return super()._validate(flat, *y, reset=reset, **kwargs)
        kwargs["dtype"] = (np.float64, np.float32, np.uint8)
        if not reset and self._of_bytes:
            flat = as_bytes(flat)
        checked = super()._validate(flat, *y, reset=reset, **kwargs)
        pixels = checked[0] if y else checked
        if reset:
            self._of_bytes = pixels.dtype == np.uint8
            self._largest_pixel = float(pixels.max())
        else:
            warn_of_other_pixels(pixels, self._of_bytes, self._largest_pixel)
        if not y:
            return checked.reshape(-1, *shape)
        if reset and self.parameterization == "targets":
            warn_of_large_pixels(checked[0])
        return checked[0].reshape(-1, *shape), *checked[1:]

    def _describe_architecture(self, X: Array) -> dict[str, Any]:
        if self.module is not None:
            return {
                "module": self.module,
                "n_inputs": X.shape[1],
                "n_outputs": self.n_outputs_,
            }
        return {
            **self._describe_inputs(X),
            "hidden_layer_sizes": parse_layer_sizes(self.hidden_layer_sizes),
            "n_outputs": self.n_outputs_,
            "activation": self._activation(),
            "shortcuts": bool(self.shortcuts),
            "dropout": float(self.dropout),
            "batch_norm": bool(self.batch_norm),
        }

    def _activation(self) -> str:
        if self.activation != "auto":
            return self.activation
        return _rules.auto_activation(
            len(parse_layer_sizes(self.hidden_layer_sizes)),
            of_numbers=self._learns_numbers,
            images=self._images is not None,
            bounded=self._is_bounded or self.out_activation_ == "exp",
        )

    def _describe_inputs(self, X: Array) -> dict[str, Any]:
        if self.conv_layers is None:
            return {"n_inputs": X.shape[1]}
        given = self.image_shape
        return {
            # Plain tuples: the description is stored with the fitted state.
            "conv_layers": tuple(map(tuple, parse_conv_layers(self.conv_layers))),
            "image_shape": X.shape[1:] if given is None else parse_image_shape(given),
        }

    def _output_shape(self, X: Array) -> tuple[int, ...]:
        """Return the shape that the outputs for some rows must have."""
        return len(X), self.n_outputs_
