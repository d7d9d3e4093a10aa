"""Allow list: the classes that a configuration read from disk may instantiate.

A run's folder or a checkpoint may come from a stranger. Only the parts below are read from its configuration, because
a trained network needs no others; each must name a class on this list, and its arguments must fit that class's schema.
The rest (optimizer, schedule, loggers, callbacks, plugins, profiler) is ignored.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from handgrad.config import MATMUL, Batched, Batches, Data, Network, Positive, Regularizer
from handgrad.errors import UserError, describe_invalid
from handgrad.identity import in_todays_names
from handgrad.text import format_value, targets_in, texts_in


class Arguments(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    """Arguments of a class on the list; this base schema allows none."""


class NegativeSlope(Arguments):
    """Arguments of leaky ReLU."""

    negative_slope: float = 0.01


class Partial(Arguments):
    """Arguments of an engine, which gets all others as objects."""

    partial: Literal[True] = Field(alias="_partial_")


class FileOfFunctions(Partial):
    """Arguments of the engine with a student's functions, whose file is read only for training."""

    file: str
    sha256: str


class NetworkArguments(Network, extra="forbid"):
    """Arguments of the perceptron."""


class DataArguments(Data, extra="forbid"):
    """Arguments of the data module."""


class FileArguments(Batched, extra="forbid"):
    """Arguments of data from a file, which is read without executing anything."""

    path: str
    sha256: str | None = None
    test_size: float = Field(0.2, gt=0, lt=1)
    split_seed: int = Field(0, ge=0, lt=2**32)


class TableArguments(FileArguments):
    """Arguments of a table."""

    target: str
    test_column: str | None = None
    missing: Literal["refuse", "impute"] = "refuse"


class RegularizerArguments(Regularizer, extra="forbid"):
    """Arguments of the regularization."""


class Scoring(BaseModel):
    """Settings of a recorded Trainer that affect scoring."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    target: Any = Field("lightning.Trainer", alias="_target_")
    accelerator: str = "auto"
    precision: str | int | None = None
    limit_test_batches: Batches = 1.0
    deterministic: bool | Literal["warn"] | None = None
    inference_mode: bool = True


WITHOUT_ARGUMENTS = ("GELU", "ReLU", "SiLU", "Sigmoid", "Softplus", "Tanh")
ALLOWED: dict[str, dict[str, type[BaseModel]]] = {
    "activation": {
        **dict.fromkeys((f"handgrad.nn.activations.{name}" for name in WITHOUT_ARGUMENTS), Arguments),
        "handgrad.nn.activations.LeakyReLU": NegativeSlope,
    },
    "engine": {
        "handgrad.training.modules.AutogradModule": Partial,
        "handgrad.training.manual.ManualModule": Partial,
        "handgrad.training.mine.MineModule": FileOfFunctions,
    },
    "network": {"handgrad.nn.mlp.MLP": NetworkArguments},
    "data": {
        "handgrad.training.arrays.ArrayData": FileArguments,
        "handgrad.training.mnist.MNISTDataModule": DataArguments,
        "handgrad.training.table.TableData": TableArguments,
    },
    "regularizer": {"handgrad.nn.regularizers.Regularizer": RegularizerArguments},
    "trainer": {"lightning.Trainer": Scoring, "lightning.pytorch.Trainer": Scoring},
}


class Recorded(BaseModel):
    """Parts of a recorded configuration that its network is rebuilt from."""

    model_config = ConfigDict(strict=True)

    seed: int = Field(ge=0, lt=2**32)
    threads: Positive | None = Field(None, le=1024)
    matmul: MATMUL = "default"
    activation: dict[str, Any]
    engine: dict[str, Any]
    network: dict[str, Any]
    data: dict[str, Any]
    regularizer: dict[str, Any]
    trainer: Scoring


def allowed_parts(recorded: Mapping[str, Any], source: object, trust: bool) -> dict[str, Any]:
    """Extract the parts of a recorded configuration that a trained network is rebuilt from.

    Args:
        recorded: the whole configuration, as it was read.
        source: the configuration's file, for messages.
        trust: whether to accept classes that are not on the list, with any arguments.

    Raises:
        UserError: names the class that is not on the list, the interpolation, or each invalid value.
    """
    try:
        parts = Recorded.model_validate(in_todays_names(recorded)).model_dump(by_alias=True, exclude_unset=True)
    except ValidationError as error:
        raise UserError(f"{source}: {describe_invalid(error)}") from None
    if text := next((text for text in texts_in(parts) if "${" in text), None):
        raise UserError(f"{source} has an interpolation, {text}: interpolations in files are not resolved")
    for name in ALLOWED:
        if not isinstance(parts[name].get("_target_"), str):
            raise UserError(f"{source}: {name} has no _target_, a class by its full name")
        if not trust:
            check_part(name, parts[name], source)
    return parts


def check_part(name: str, part: Mapping[str, Any], source: object) -> None:
    """Check a part's classes, nested ones too, and its arguments against the list."""
    classes = ALLOWED[name]
    for each in targets_in(part):
        if not isinstance(each, str) or each not in classes:
            raise UserError(
                f"{source} has a class of its own, {name}._target_={format_value(each)}: building it can run "
                "arbitrary code; add trust=true if you know who made this file and trust them"
            )
    try:
        classes[part["_target_"]].model_validate({key: value for key, value in part.items() if key != "_target_"})
    except ValidationError as error:
        raise UserError(f"{source}, {name}: {describe_invalid(error)}") from None
