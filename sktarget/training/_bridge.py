"""Bridge from the training loop to scikit-learn's own callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skorch.callbacks import Callback

from sktarget.training._ending import Reason
from sktarget.training._monitor import Monitor

__all__ = ["EpochContext"]


class EpochContext(Callback):
    """Opens a scikit-learn callback context for every epoch.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        Context of the whole fit.
    fitted : callable
        Returns the fitted attributes as if training had stopped now.
    **task : object
        The estimator, X, y and metadata, as the hooks expect them.

    Attributes
    ----------
    monitor : Monitor
        Gets a reason to end if a callback asks to stop.
    """

    monitor: Monitor

    def __init__(
        self, context: Any, fitted: Callable[[], dict[str, Any]], **task: Any
    ) -> None:
        self.context, self.fitted, self.task = context, fitted, task

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the context."""
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(
            **self.task, reconstruction_attributes=self.fitted
        )

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Close the context, and tell the monitor if a callback asks to stop."""
        stop = self.epoch.call_on_fit_task_end(
            **self.task, reconstruction_attributes=self.fitted
        )
        if stop and self.monitor.reason is None:
            self.monitor.reason = Reason.ASKED_TO
