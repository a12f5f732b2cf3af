"""The parameters `conv_layers` and `image_shape`, and X as images."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sktarget.architectures import ConvLayer, map_sizes

__all__ = [
    "as_rows",
    "parse_conv_layers",
    "parse_image_shape",
    "shape_of_images",
]

Array = NDArray[Any]
ImageShape = tuple[int, int, int]


def parse_conv_layers(conv_layers: Any) -> tuple[ConvLayer, ...]:
    """Parse the parameter `conv_layers`.

    Parameters
    ----------
    conv_layers : sequence of (kernel, channels, pool)
        The parameter as given.

    Returns
    -------
    tuple of ConvLayer
        Its layers.

    Raises
    ------
    ValueError
        If it holds no layer, or anything other than layers.
    """
    layers = list(conv_layers)
    if not layers:
        raise ValueError(
            "conv_layers=[] holds no layer: give (kernel, channels, pool) for each "
            "convolution, or None for a dense network"
        )
    return tuple(_parse_layer(i, layer) for i, layer in enumerate(layers))


def _parse_layer(i: int, layer: Any) -> ConvLayer:
    try:
        kernel, channels, pool = layer
    except (TypeError, ValueError):
        kernel, channels, pool = None, None, None
    edges = (kernel, kernel) if np.ndim(kernel) == 0 else tuple(kernel)
    pool = 1 if pool is None and channels is not None else pool
    if len(edges) != 2 or not all(map(_is_positive, (*edges, channels, pool))):
        raise ValueError(
            f"conv_layers[{i}] must be (kernel, channels, pool): the edge of the "
            "kernel or its height and width, the number of channels, and the edge of "
            "the pooling window (1 or None for no pooling), all positive integers, as "
            f"in (3, 16, 2); got {layer!r}"
        )
    return ConvLayer((int(edges[0]), int(edges[1])), int(channels), int(pool))


def parse_image_shape(image_shape: Any) -> ImageShape:
    """Parse the parameter `image_shape`.

    Parameters
    ----------
    image_shape : sequence of int
        The parameter as given.

    Returns
    -------
    tuple of int
        Channels, height and width.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    values = list(image_shape)
    if len(values) != 3 or not all(map(_is_positive, values)):
        raise ValueError(
            "image_shape must be (channels, height, width), three positive integers, "
            f"got {image_shape!r}"
        )
    return int(values[0]), int(values[1]), int(values[2])


def _is_positive(value: Any) -> bool:
    return (
        isinstance(value, int | np.integer)
        and not isinstance(value, bool)
        and int(value) > 0
    )


def shape_of_images(
    X: Any, conv_layers: Any, image_shape: Any, has_module: bool
) -> ImageShape | None:
    """Return the shape of the images in X, or None if X is a table.

    Parameters
    ----------
    X : array-like
        Inputs of ``fit``, before validation.
    conv_layers, image_shape
        The parameters as given.
    has_module : bool
        Whether the user supplies a network, which then replaces `conv_layers`.

    Returns
    -------
    tuple of int or None
        Channels, height and width; None for a table.

    Raises
    ------
    ValueError
        If X, the two parameters and the network they describe do not fit together.
    """
    given_shape = _shape(X)
    has_maps = len(given_shape) == 4
    if conv_layers is None and not has_module:
        if has_maps:
            raise ValueError(
                f"X has 4 axes, as images have, {given_shape}, but conv_layers=None "
                "makes a dense network: set conv_layers or module, or flatten the "
                "images with X.reshape(len(X), -1)"
            )
        if image_shape is not None:
            _shape_of_rows(given_shape, parse_image_shape(image_shape))
        return None
    layers = None if has_module else parse_conv_layers(conv_layers)
    given = None if image_shape is None else parse_image_shape(image_shape)
    if has_maps:
        shape = _shape_of_maps(given_shape, given)
    elif given is not None:
        shape = _shape_of_rows(given_shape, given)
    elif layers is None:
        return None
    else:
        raise ValueError(
            "conv_layers needs images, but X has the shape "
            f"{given_shape}: set image_shape=(channels, height, width) to say how to "
            "read a row, or give X with the axes (n, channels, height, width)"
        )
    if has_maps and shape[2] in (1, 3, 4) and min(shape[:2]) > 4:
        warnings.warn(
            f"images have the axes (channels, height, width), and those of X have the "
            f"shape {shape}: if the last axis holds colours, give X.transpose(0, 3, 1, "
            "2)",
            stacklevel=2,
        )
    if layers is not None:
        try:
            map_sizes(layers, shape[1:])
        except ValueError as error:
            raise ValueError(f"{error} (images of the shape {shape})") from None
    return shape


def _shape_of_maps(found: tuple[int, ...], given: ImageShape | None) -> ImageShape:
    """Return the shape of images with four axes, which must be that given, if any."""
    _, channels, height, width = found
    shape = channels, height, width
    if given not in (None, shape):
        raise ValueError(
            f"image_shape={given} (channels, height, width) does not match the images "
            f"in X, {shape}: correct it or leave it out"
        )
    return shape


def _shape_of_rows(found: tuple[int, ...], given: ImageShape) -> ImageShape:
    """Return the shape given, which must make as many columns as there are."""
    columns, needed = found[1:], math.prod(given)
    if len(columns) == 1 and columns[0] != needed:
        raise ValueError(
            f"image_shape={given} (channels, height, width) makes {needed} columns, "
            f"but X has {columns[0]}: correct image_shape, or give X with the axes (n, "
            "channels, height, width)"
        )
    return given


def as_rows(X: Any, shape: ImageShape | None) -> Any:
    """Flatten images to rows, which scikit-learn can validate.

    Parameters
    ----------
    X : array-like
        Inputs, before validation.
    shape : tuple of int or None
        Shape of the images that the network takes; None where it takes a table.

    Returns
    -------
    array-like
        X itself unless it has 4 axes; then (n, channels × height × width).

    Raises
    ------
    ValueError
        If images have a shape other than `shape`.
    """
    given = _shape(X)
    if len(given) != 4:
        return X
    found = given[1:]
    if shape is None:
        raise ValueError(
            f"X has 4 axes, as images have, {given}, but the estimator was "
            "fitted on rows of a table: give X with 2 axes"
        )
    if found != shape:
        raise ValueError(
            f"X holds images of {found[0]} channels and {found[1]} x {found[2]} "
            f"pixels, but the estimator was fitted on {shape[0]} channels and "
            f"{shape[1]} x {shape[2]} pixels: give X of the shape (n, "
            f"{shape[0]}, {shape[1]}, {shape[2]}), or fit again"
        )
    X = X if hasattr(X, "reshape") else np.asarray(X)
    return X.reshape(len(X), math.prod(shape))


def _shape(X: Any) -> tuple[int, ...]:
    try:
        shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
        return tuple(map(int, shape))
    except ValueError:  # Ragged lists, which validation reports.
        return ()
