"""The last epochs of a fit, in which held-out rows are learnt as well."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from sktarget.estimators import _rules
from sktarget.estimators._arrays import torch_dtype
from sktarget.estimators._hooks import FitHooks
from sktarget.estimators._random import seed_dropout
from sktarget.estimators._rows import TrainingRows
from sktarget.training import TrainingLog, TrainingSettings, train

__all__ = ["learn_all", "reserve"]


def reserve(settings: TrainingSettings) -> TrainingSettings:
    """Reserve epochs for the end.

    Parameters
    ----------
    settings : TrainingSettings
        Those of the whole fit.

    Returns
    -------
    TrainingSettings
        Those for the part that uses held-out rows to stop.
    """
    return replace(settings, reserved=_rules.epochs_to_reserve(settings.max_iter))


def learn_all(
    estimator: FitHooks,
    rows: TrainingRows,
    seed: int,
    device: torch.device,
    network: nn.Module,
    log: TrainingLog,
    settings: TrainingSettings,
) -> nn.Module:
    """Train on all rows, from the best state without those held out.

    Parameters
    ----------
    estimator : FitHooks
        Defines how to train.
    rows : TrainingRows
        All rows, including those held out.
    seed : int
        Decides their order, and what is dropped out.
    device : torch.device
        Where to train.
    network : nn.Module
        The network in its best state.
    log : TrainingLog
        Log of the epochs so far, to which the new ones are added.
    settings : TrainingSettings
        Those of the epochs so far.

    Returns
    -------
    nn.Module
        Another network, trained further.
    """
    left = settings.max_iter - len(log.loss_curve)
    falls = settings.first_alpha > settings.alpha
    epochs = _rules.auto_last_epochs(log.best_epoch, left, falls)
    when = _rules.auto_last_alpha_at(log.best_epoch / settings.epochs)
    if settings.verbose:
        print(f"Going on with all {len(rows)} rows, those held out among them.")
    rows = estimator._arrange(rows, seed)
    network = estimator._start_from(network, rows, seed).to(device)
    seed_dropout(network, seed, device)
    data = rows.to_tensors(device, torch_dtype(rows.dtype))
    data.x = network.fixed_batch  # type: ignore[assignment]
    last = TrainingLog(epochs_before=len(log.loss_curve))
    ending = train(
        network,
        data,
        None,
        estimator._settings(rows).for_last(epochs, settings.alpha_at(when)),
        estimator._objective(),
        log=last,
        generator=None,
    )
    ending.warn()
    log.loss_curve += last.loss_curve
    log.n_samples_seen += last.n_samples_seen
    return network
