"""scikit-learn's validation of arguments, with types."""

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from sklearn.utils._param_validation import validate_params

__all__ = ["validated"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def validated(
    constraints: Mapping[str, list[object]],
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate with scikit-learn's validation, which is untyped, and keep the types."""
    decorator: Callable[[Callable[_P, _R]], Callable[_P, _R]] = validate_params(
        constraints, prefer_skip_nested_validation=True
    )
    return decorator
