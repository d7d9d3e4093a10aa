"""Backpropagation derived by hand, proved correct, and benchmarked against autograd.

The Python interface; docs/api.md explains it. Everything is imported when it is first used: torch takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handgrad.api import Run as Run
    from handgrad.api import check as check
    from handgrad.api import judge as judge
    from handgrad.api import load as load
    from handgrad.api import train as train
    from handgrad.comparison.report import compare as compare
    from handgrad.errors import UserError as UserError
    from handgrad.nn import activations as activations
    from handgrad.nn.backprop import backward as backward
    from handgrad.nn.backprop import forward as forward
    from handgrad.nn.backprop import input_gradient as input_gradient
    from handgrad.nn.losses import cross_entropy as cross_entropy
    from handgrad.nn.losses import cross_entropy_delta as cross_entropy_delta
    from handgrad.nn.losses import log_softmax as log_softmax
    from handgrad.nn.mlp import MLP as MLP

HOMES = {
    "handgrad.api": ("Run", "check", "judge", "load", "train"),
    "handgrad.comparison.report": ("compare",),
    "handgrad.errors": ("UserError",),
    "handgrad.nn.backprop": ("backward", "forward", "input_gradient"),
    "handgrad.nn.losses": ("cross_entropy", "cross_entropy_delta", "log_softmax"),
    "handgrad.nn.mlp": ("MLP",),
}
__all__ = ["activations", *(name for names in HOMES.values() for name in names)]


def __getattr__(name: str) -> Any:
    if name == "activations":
        return import_module("handgrad.nn.activations")
    if name == "__version__":
        return import_module("importlib.metadata").version("handgrad")
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
