"""Linear algebra: products of matrices, Gramians, and ridge least squares.

Everything here is plain tensor arithmetic that knows nothing about networks.
"""

from sktarget.linalg._factor import FactorisationError, RidgeFactor, factorise
from sktarget.linalg._plan import SolvePlan, at_least_float32, plan_solve, read_trace
from sktarget.linalg._products import (
    FEW_COLUMNS,
    add_product,
    column_products,
    dtype_of_sums,
    gramian,
    is_for_onednn,
    product,
)
from sktarget.linalg._ridge import prefers_dual, ridge_solve

__all__ = [
    "FEW_COLUMNS",
    "FactorisationError",
    "RidgeFactor",
    "SolvePlan",
    "add_product",
    "at_least_float32",
    "column_products",
    "dtype_of_sums",
    "factorise",
    "gramian",
    "is_for_onednn",
    "plan_solve",
    "prefers_dual",
    "product",
    "read_trace",
    "ridge_solve",
]
