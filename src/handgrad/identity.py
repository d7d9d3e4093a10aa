"""Run identity: configurations that are equal after normalization describe the same run."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from handgrad.config import RunConfig

RETIRED = ("block",)  # removed keys of `data`, which never changed a result
MOVED = {  # former name of a class or function: present name
    **{
        f"handgrad.activation.{name}": f"handgrad.nn.activations.{name}"
        for name in ("GELU", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Softplus", "Tanh")
    },
    **{
        f"handgrad.{name}": "handgrad.nn.regularizers.Regularizer"
        for name in ("regularizer.L2", "regularizer.no_penalty", "nn.losses.L2", "nn.losses.no_penalty")
    },
    "handgrad.network.MLP": "handgrad.nn.mlp.MLP",
    "handgrad.optim.FactoredSGD": "handgrad.nn.optimizers.FactoredSGD",
    "handgrad.optim.grouped_sgd": "handgrad.nn.optimizers.grouped_sgd",
    "handgrad.optim.constant": "handgrad.training.schedules.constant",
    "handgrad.optim.warmup_cosine": "handgrad.training.schedules.warmup_cosine",
    "handgrad.data.MNISTDataModule": "handgrad.training.mnist.MNISTDataModule",
    "handgrad.training.data.MNISTDataModule": "handgrad.training.mnist.MNISTDataModule",
    "handgrad.modules.ManualModule": "handgrad.training.manual.ManualModule",
    "handgrad.modules.AutogradModule": "handgrad.training.modules.AutogradModule",
    "handgrad.callbacks.NoProfiler": "handgrad.training.callbacks.NoProfiler",
    "handgrad.inside.layers.LayerDiagnostics": "handgrad.training.layer_stats.LayerDiagnostics",
}


def normalize(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the schema's defaults and convert every number to its field's type.

    Two configurations describe the same run if they are equal after this: keys added later get their defaults, removed
    keys are dropped, classes get their present names, and 0 becomes 0.0 where a float is expected. A configuration that
    does not fit the schema, e.g. a foreign run's, only gets the present names.
    """
    config = in_todays_names(config)
    try:
        return RunConfig.model_validate(config).model_dump()
    except ValidationError:
        return config


def in_todays_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rename a recorded configuration's keys and classes to their present names; drop removed keys."""
    found: dict[str, Any] = renamed(config)
    if "objective" in found:
        found["optimized_metric"] = found.pop("objective")
    if found.get("matmul") == "fastest":
        found["matmul"] = "auto"
    data = found.get("data")
    if isinstance(data, dict):
        found["data"] = {key: value for key, value in data.items() if key not in RETIRED}
    return found


def renamed(value: Any) -> Any:
    """Rename every `_target_` in a nested value to its present name."""
    if isinstance(value, Mapping):
        moved = {key: renamed(each) for key, each in value.items()}
        target = moved.get("_target_")
        return moved | {"_target_": MOVED.get(target, target)} if isinstance(target, str) else moved
    return [renamed(each) for each in value] if isinstance(value, list) else value
