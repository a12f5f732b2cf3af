"""The version of the package, in the one place that all others read."""

__all__ = ["__version__"]

__version__ = "0.1.0"
