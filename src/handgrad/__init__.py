"""Backpropagation derived by hand, proved correct, and benchmarked against autograd."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import `compare` when it is first used: its libraries take a second."""
    if name == "compare":
        from handgrad.comparison.report import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
