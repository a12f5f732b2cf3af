"""Plots of how training went, in the manner of scikit-learn's displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

__all__ = ["TrainingCurveDisplay"]

# Where estimators that wrap others keep the one that was trained.
_WITHIN = ("best_estimator_", "estimator_", "regressor_", "_final_estimator")
_LABELS = {"loss": "Loss", "score": "Score of the rows held out"}
_CURVES = {
    "loss": ("loss_curve_", "validation_loss_curve_"),
    "score": (None, "validation_scores_"),
}


class TrainingCurveDisplay:
    """Loss or score, epoch by epoch.

    Make it with :meth:`from_estimator`, which also takes scikit-learn's
    ``MLPClassifier`` and ``MLPRegressor``, for comparison.

    Parameters
    ----------
    training : sequence of float or None
        One value for each epoch.
    held_out : sequence of float or None
        Likewise, for the rows held out; the last epochs of a fit, which train on all
        rows, have no such value.
    response : {"loss", "score"}, default="loss"
        What the values are.
    estimator_name : str, default=None
        Name for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the curves.
    figure_ : matplotlib Figure
        The figure with the axes.
    lines_ : list of matplotlib Line2D
        The curves.

    Examples
    --------
    >>> from sktarget.plotting import TrainingCurveDisplay
    >>> display = TrainingCurveDisplay([0.7, 0.4, 0.2], [0.8, 0.5, 0.4])
    >>> display.plot().ax_.get_xlabel()
    'Epoch'
    """

    ax_: Axes
    figure_: Figure | SubFigure
    lines_: list[Line2D]

    def __init__(
        self,
        training: Sequence[float] | None,
        held_out: Sequence[float] | None = None,
        *,
        response: Literal["loss", "score"] = "loss",
        estimator_name: str | None = None,
    ) -> None:
        _check_response(response)
        if not _has_values(training) and not _has_values(held_out):
            raise ValueError(
                "training and held_out are empty: there is nothing to plot"
            )
        self.training = training
        self.held_out = held_out
        self.response = response
        self.estimator_name = estimator_name

    def plot(
        self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        name : str, default=None
            Name for the legend, in place of `estimator_name`.
        **kwargs : dict
            Passed on to ``Axes.plot``, for both curves.

        Returns
        -------
        TrainingCurveDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        try:
            from matplotlib import cbook
            from matplotlib import pyplot as plt
            from matplotlib.lines import Line2D
        except ImportError as error:
            raise ImportError(
                "plots need matplotlib: install sktarget with its extra 'plot'"
            ) from error
        if ax is None:
            _, ax = plt.subplots()
        kwargs = cbook.normalize_kwargs(kwargs, Line2D)  # "ls" is "linestyle"
        name = self.estimator_name if name is None else name
        prefix = "" if name is None else f"{name}, "
        self.lines_ = []
        curves = (("training", self.training, "-"), ("held out", self.held_out, "--"))
        for label, values, style in curves:
            if values is not None and _has_values(values):
                options: dict[str, Any] = {"linestyle": style, "label": prefix + label}
                if self.lines_:
                    options["color"] = self.lines_[0].get_color()
                epochs = range(1, len(values) + 1)
                self.lines_ += ax.plot(epochs, list(values), **(options | kwargs))
        ax.set(xlabel="Epoch", ylabel=_LABELS[self.response])
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        response: Literal["loss", "score"] = "loss",
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw how an estimator was trained.

        Parameters
        ----------
        estimator : estimator
            A fitted one, or a pipeline, a search, a ``TransformedTargetRegressor`` or
            another of scikit-learn's estimators that holds a single fitted one.
        response : {"loss", "score"}, default="loss"
            Whether to draw ``loss_curve_`` and ``validation_loss_curve_``, or
            ``validation_scores_``, which ``early_stopping`` leaves.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        name : str, default=None
            Name for the legend; by default that of the class.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        TrainingCurveDisplay
            What was drawn.

        Raises
        ------
        ValueError
            If the estimator has no such curve.
        sklearn.exceptions.NotFittedError
            If it has not been fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sktarget import TargetSpaceClassifier
        >>> from sktarget.plotting import TrainingCurveDisplay
        >>> X, y = load_iris(return_X_y=True)
        >>> model = TargetSpaceClassifier(random_state=0).fit(X, y)
        >>> display = TrainingCurveDisplay.from_estimator(model)
        >>> [line.get_label() for line in display.lines_]
        ['TargetSpaceClassifier, training', 'TargetSpaceClassifier, held out']
        """
        check_is_fitted(estimator)
        model = _trained(estimator)
        _check_response(response)
        training, held_out = (
            None if curve is None else getattr(model, curve, None)
            for curve in _CURVES[response]
        )
        kind = type(model).__name__
        if not _has_values(training) and not _has_values(held_out):
            hint = ": set early_stopping=True" if response == "score" else ""
            raise ValueError(f"this {kind} has no {response} by epoch{hint}")
        display = cls(
            training,
            held_out,
            response=response,
            estimator_name=kind if name is None else name,
        )
        return display.plot(ax, **kwargs)


def _has_values(curve: Sequence[float] | None) -> bool:
    """Return whether a list or an array holds anything."""
    return curve is not None and len(curve) > 0


def _check_response(response: str) -> None:
    if response not in _CURVES:
        raise ValueError(f"response must be 'loss' or 'score', got {response!r}")


def _is_fitted(estimator: Any) -> bool:
    """Return whether it is; ensembles keep what they copy, which is not."""
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def _trained(estimator: Any) -> Any:
    """Return the innermost estimator, which others are wrapped around."""
    if isinstance(estimator, FrozenEstimator):
        return _trained(estimator.estimator)
    for name in _WITHIN:
        within = getattr(estimator, name, None)
        if within is not None and _is_fitted(within):
            return _trained(within)
    return estimator
