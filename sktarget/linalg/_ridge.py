"""Ridge least squares, in its primal and its dual form.

For inputs ``A`` (one row per pattern) and targets ``T`` the ridge solution is

    W = (AᵀA + λI)⁻¹ Aᵀ T          primal form, Eq. 7
      = Aᵀ (AAᵀ + λI)⁻¹ T          dual form (Woodbury), Eq. 23

of Fairbank, Samothrakis and Citi, "Deep Learning in Target Space", JMLR 23
(2022).  The primal matrix has one row per column of ``A``, the dual one has one
row per row of ``A``; the smaller of the two is factorised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sktarget.linalg._factor import factorise
from sktarget.linalg._plan import at_least_float32, plan_solve
from sktarget.linalg._products import gramian, product

__all__ = ["prefers_dual", "ridge_solve"]


def prefers_dual(n_rows: int, n_columns: int) -> bool:
    """Return whether the dual form has the smaller system.

    Parameters
    ----------
    n_rows, n_columns : int
        Shape of the inputs.

    Returns
    -------
    bool
        True if there are fewer rows than columns.

    Examples
    --------
    >>> prefers_dual(10, 100)
    True
    """
    return n_rows < n_columns


def ridge_solve(rows: Tensor, targets: Tensor, lam: float) -> Tensor:
    """Solve one ridge problem, ``argmin ‖AW − T‖² + λ‖W‖²``.

    Parameters
    ----------
    rows : Tensor of shape (n, k)
        Inputs A, of a floating dtype.
    targets : Tensor of shape (n, m)
        Targets T.
    lam : float
        λ ≥ 0; with λ = 0 and dependent columns the solution is that of the floor
        described in :func:`plan_solve`, close to the one of least norm.

    Returns
    -------
    Tensor of shape (k, m)
        The weights W.

    Raises
    ------
    ValueError
        If `lam` is negative or not finite in the dtype of the inputs, if one of the
        others does not have two axes, or if `rows` is not floating point.
    FactorisationError
        If the inputs are not finite.

    Notes
    -----
    Eq. 7 where ``n >= k``, else Eq. 23.

    Examples
    --------
    >>> import torch
    >>> ridge_solve(torch.eye(2), torch.tensor([[2.0], [4.0]]), lam=1.0)
    tensor([[1.],
            [2.]])
    """
    _check_problem(rows, targets, lam)
    trace = rows.to(at_least_float32(rows.dtype)).square().sum()
    dual = prefers_dual(*rows.shape)
    plan = plan_solve(trace, lam, rows.dtype, dual=dual)
    a, t = rows.to(plan.work_dtype), targets.to(plan.work_dtype)
    if dual:
        factor = factorise(gramian(a.T, plan.gram_dtype), plan.ridge)
        weights = product(a.T, factor.solve(t))
    else:
        factor = factorise(gramian(a, plan.gram_dtype), plan.ridge)
        weights = factor.solve(product(a.T, t))
    if not rows.is_cpu:
        factor.check()
    return weights.to(rows.dtype)


def _check_problem(rows: Tensor, targets: Tensor, lam: float) -> None:
    """Refuse what is no ridge problem."""
    for name, value in (("rows", rows), ("targets", targets)):
        if value.ndim != 2:
            raise ValueError(
                f"{name} must have two axes, got shape {tuple(value.shape)}: "
                f"{name}[:, None] makes a column of a vector"
            )
    if len(rows) != len(targets):
        raise ValueError(
            f"rows and targets must be as many, got {len(rows)} and {len(targets)}: "
            "give a row of targets for each row"
        )
    if not rows.is_floating_point():
        raise ValueError(
            f"rows must be floating point, got {rows.dtype}: rows.float() makes it so"
        )
    largest = torch.finfo(at_least_float32(rows.dtype)).max
    if not 0 <= lam <= largest:
        raise ValueError(
            f"lam must be finite and at least 0, got {lam!r}: give a number of at most "
            f"{largest:.2g}, the largest of the dtype of the rows"
        )
