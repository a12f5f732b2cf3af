"""Neural networks trained in target space, for scikit-learn and PyTorch."""

from typing import TYPE_CHECKING, Any

from sktarget._version import __version__

if TYPE_CHECKING:
    from sktarget.estimators import (
        TargetSpaceClassifier,
        TargetSpaceRegressor,
        TargetSpaceSequenceClassifier,
        TargetSpaceSequenceRegressor,
    )

__all__ = [
    "TargetSpaceClassifier",
    "TargetSpaceRegressor",
    "TargetSpaceSequenceClassifier",
    "TargetSpaceSequenceRegressor",
    "__version__",
]


# The estimators load on first use: `import sktarget.nn` must not import
# scikit-learn, nor `import sktarget` torch.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sktarget import estimators

    return getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
