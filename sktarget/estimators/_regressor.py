"""Regression in target space."""

from __future__ import annotations

from sktarget.estimators._base import BaseTargetSpace
from sktarget.estimators._parameters import document_parameters
from sktarget.estimators._regression import NetworkRegressor

__all__ = ["TargetSpaceRegressor"]


@document_parameters()
class TargetSpaceRegressor(NetworkRegressor, BaseTargetSpace):
    """A neural network regressor trained in target space.

    It minimises the squared error, with each of several outputs in units of its own
    deviation unless another `target_init` is chosen.  See
    :class:`TargetSpaceClassifier` for the method.

    {parameters}

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Realised weights (n_in, n_out) and biases (n_out,) of each layer; with
        `shortcuts` the input comes first, then the earlier layers in order.  A
        convolution's n_in is channels × height × width of its kernel, the channel
        varying slowest.
    lam_ : float or tuple of float
        The λ used; one per layer where they differ.
    loss_, best_loss_ : float
        Training loss of the last and of the best epoch, penalties included;
        `best_loss_` is None with ``early_stopping=True``, as in scikit-learn.
    loss_curve_, validation_loss_curve_, validation_scores_ : list of float
        Record of all epochs; the latter two are None without `early_stopping`, and end
        before the epochs in which held-out rows are learnt.
    best_validation_score_ : float or None
        The best validation score.
    module_ : torch.nn.Module
        The fitted network, an ordinary module.
    n_features_in_ : int
        Number of columns of X, after flattening if X holds images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X had names.
    n_iter_ : int
        Epochs of the last call of ``fit``.
    n_layers_, n_outputs_ : int
        Number of layers, input and output included, and of outputs.
    out_activation_ : str
        ``"identity"``.
    t_ : int
        Rows seen so far; equal ones that were merged count once.
    targets_ : list of ndarray of shape (n̄_b, n_out)
        Targets of each layer, of shape (n̄_b, channels, height, width) for convolutions;
        only with `warm_start` or after ``partial_fit``.
    fixed_batch_ : ndarray of shape (n̄_b, `n_features_in_`)
        X̄, of shape (n̄_b, channels, height, width) for images; kept as `targets_` are.

    See Also
    --------
    TargetSpaceClassifier : The same for classes.
    sklearn.neural_network.MLPRegressor : Training in weight space.

    References
    ----------
    M. Fairbank, S. Samothrakis, L. Citi, "Deep Learning in Target Space", JMLR 23
    (2022).

    Examples
    --------
    >>> import numpy as np
    >>> from sktarget import TargetSpaceRegressor
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> y = np.sin(4 * X[:, 0])
    >>> reg = TargetSpaceRegressor(
    ...     (20,), learning_rate_init=0.1, tol=1e-3, max_iter=2000, random_state=0
    ... )
    >>> reg.fit(X, y).score(X, y) > 0.95
    True
    """

    @property
    def _learns_in_units(self) -> bool:
        return self._starts_from_labels
