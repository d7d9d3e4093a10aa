"""Configuration schemas, checked before any heavy import; instantiation of config groups."""

import inspect
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from handgrad.errors import UserError, describe_invalid
from handgrad.text import targets_in


def file_name(name: object) -> str:
    """Return a run's name for use in a folder name: no path separators, at most 100 characters."""
    return re.sub(r"[^\w.,=+-]", "_", str(name))[:100]


def best_is(metric: object) -> str:
    """Return "max" for an accuracy, "min" for everything else that is logged: losses, seconds, memory."""
    return "max" if str(metric).endswith("accuracy") else "min"


OmegaConf.register_new_resolver("file_name", file_name, replace=True)
OmegaConf.register_new_resolver("best_is", best_is, replace=True)

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0)]


def some_batches(value: Any) -> Any:
    """Validate a number of batches above 0, or a fraction above 0.0 and up to 1.0."""
    if (type(value) is int and value > 0) or (type(value) is float and 0 < value <= 1):
        return value
    raise PydanticCustomError("batches", "must be a number of batches from 1 on or a part of them up to 1.0")


def some_steps(value: int) -> int:
    """Validate a number of steps above 0, or -1 for no limit."""
    if value > 0 or value == -1:
        return value
    raise PydanticCustomError("steps", "must be a number of steps from 1 on, or -1 for no limit")


Batches = Annotated[Any, PlainValidator(some_batches)]
DATASET = Literal["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"]
MATMUL = Literal["default", "auto", "high", "medium"]
Name = Annotated[
    str,
    BeforeValidator(lambda name: str(name) if isinstance(name, int | float) else name),
    Field(min_length=1),
]


class Group(BaseModel):
    """Config group: checks its fields, and accepts any other argument of its target.

    A field's default is the target's; None if the group's options have different defaults.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Data(Group):
    """`conf/data/`."""

    dataset: DATASET = "MNIST"
    split: Literal["balanced", "letters", "digits"] | None = None
    root: Annotated[str, Field(min_length=1)] = "data"
    batch_size: Positive
    val_size: Count
    score_test: bool


class Network(Group):
    """`conf/network/`."""

    hidden_sizes: list[Positive]
    init: Literal["xavier_uniform", "pytorch"]


class Optimizer(Group):
    """`conf/optimizer/`."""

    lr: Annotated[float, Field(gt=0, le=1e30)]  # higher rates overflow before the first step
    weight_reduction: Literal["mean", "sum"] = "mean"
    fused: bool | None = None


class Schedule(Group):
    """`conf/schedule/`."""

    start_factor: Annotated[float, Field(default=None, gt=0, le=1)]
    total_iters: Annotated[Positive, Field(default=None)]
    warmup_steps: Annotated[Positive, Field(default=None)]
    total_steps: Positive | None = None


class Regularizer(Group):
    """`conf/regularizer/`."""

    strength: Annotated[float, Field(default=None, ge=0, le=1e30)]


class Trainer(Group):
    """`conf/trainer/`."""

    max_epochs: Positive
    max_steps: Annotated[int, AfterValidator(some_steps)] = -1
    devices: int | str | list[int]
    num_nodes: Literal[1] = 1  # there is no multi-node launcher
    limit_train_batches: Batches = 1.0
    limit_test_batches: Batches = 1.0
    check_val_every_n_epoch: Positive | None = 1
    num_sanity_val_steps: Annotated[int, Field(default=None, ge=-1)]
    gradient_clip_val: Annotated[float, Field(ge=0)] | None = None
    accumulate_grad_batches: Positive = 1
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    fast_dev_run: bool | Count = False
    enable_checkpointing: Literal[True] = True  # scoring and resuming need the checkpoint


class Diagnostics(Group):
    """`conf/diagnostics/`."""

    examples: Positive = 256


def require_target(node: dict[str, Any]) -> dict[str, Any]:
    """Validate that a node names its class."""
    if isinstance(node.get("_target_"), str):
        return node
    raise PydanticCustomError("target", "must have a _target_, a class by its full name")


class Targets(Group):
    """`conf/logger/`, `conf/callbacks/`: any names, each with a target."""

    __pydantic_extra__: dict[str, Annotated[dict[str, Any], AfterValidator(require_target)]]


class RunConfig(Group):
    """Configuration of a run, as in `conf/train.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    name: Name
    optimized_metric: str | None
    threads: Positive | None
    matmul: MATMUL = "default"
    activation: Group
    engine: Group
    data: Data
    network: Network
    optimizer: Optimizer
    schedule: Schedule
    regularizer: Regularizer
    trainer: Trainer
    diagnostics: Diagnostics | None = None
    logger: Targets | None = None
    callbacks: Targets | None = None


def some_names(value: Any) -> Any:
    """Validate names or glob patterns of files or folders: one, several, or None."""
    several = value if isinstance(value, list) else [value]
    if value is not None and not (several and all(type(name) in (str, int, float) and name != "" for name in several)):
        raise PydanticCustomError("names", "must be a name, a pattern of names, or a list of these")
    return value


class TrainConfig(RunConfig):
    """The whole of `conf/train.yaml`: a run's configuration, and settings of its sweep."""

    report: bool
    dry_run: bool
    mine: Name | None = None


class CompareConfig(Group):
    """The whole of `conf/compare.yaml`."""

    sweep: Annotated[Any, AfterValidator(some_names)]
    metric: Name | None
    margin: Annotated[float, Field(gt=0, le=1e30)] | None
    baseline: Name | None
    reference: Name | None
    table: Name | None
    seed: Name | None
    better: Literal["lower", "higher"] | None
    unit: Name | None
    where: Name | None
    group: Annotated[list[Name], Field(min_length=1)] | None
    refresh_seconds: Positive | None
    output: Annotated[str, Field(min_length=1)] | None


def a_normalization(value: Any) -> Any:
    """None, "normalized", or a mean and a deviation above 0."""
    pair = isinstance(value, list) and len(value) == 2 and all(type(number) in (int, float) for number in value)
    if value in (None, "normalized") or (pair and math.isfinite(value[0]) and 0 < value[1] < math.inf):
        return value
    raise PydanticCustomError("inputs", "must be normalized, or [mean,deviation] with a deviation above 0")


class OtherData(Group):
    """Data options that replace a run's own."""

    dataset: DATASET | None
    root: Annotated[str, Field(min_length=1)] | None


class OpenConfig(Group):
    """Settings of every command that opens a trained network, from `conf/trained.yaml`."""

    activation: Group | None = None
    data: OtherData
    run: Name | None
    checkpoint: Name | None
    inputs: Annotated[Any, AfterValidator(a_normalization)]
    trust: bool


class ExportConfig(OpenConfig):
    """The whole of `conf/export.yaml`."""

    format: Literal["state_dict", "notebook", "onnx"]
    output: Name | None


class ExplainConfig(OpenConfig):
    """The whole of `conf/explain.yaml`."""

    open: bool
    output: Name | None


class PredictConfig(OpenConfig):
    """The whole of `conf/predict.yaml`."""

    images: Annotated[Any, AfterValidator(some_names)]
    output: Name | None


class CheckConfig(Group):
    """The whole of `conf/check.yaml`."""

    run: Name | None
    checkpoint: Name | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    batch: Positive
    fd_entries: Positive
    trust: bool
    inject_bug: Literal["BP1", "BP2", "BP3", "BP4", "phi", "L2", "secret"] | None
    guess: Literal["BP1", "BP2", "BP3", "BP4", "phi", "L2"] | None
    mine: Name | None
    output: Name | None
    activation: Group
    data: Data
    network: Network
    regularizer: Regularizer


def to_dict(cfg: DictConfig) -> dict[str, Any]:
    """Convert a configuration to plain values, with interpolations resolved.

    Raises:
        UserError: an interpolation cannot be resolved.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0].removeprefix("UserError raised while resolving interpolation: ")
        hint = " (handgrad.train sets it; or give name=... a text)" if "HydraConfig" in said else ""
        raise UserError(said + hint) from None


def check(config: dict[str, Any], schema: type[Group]) -> None:
    """Check the types and ranges of a configuration's values.

    Raises:
        UserError: names each invalid value and says what it must be.
    """
    try:
        schema.model_validate(config)
    except ValidationError as error:
        raise UserError(describe_invalid(error)) from None


def monitors(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key and the node of every callback that monitors a metric."""
    theirs = config["trainer"].get("callbacks") or []
    nodes = [(f"callbacks.{name}", node) for name, node in (config.get("callbacks") or {}).items()]
    nodes += [("trainer.callbacks", node) for node in (theirs if isinstance(theirs, list) else [theirs])]
    yield from ((key, node) for key, node in nodes if isinstance(node, dict) and node.get("monitor"))


def check_direction(key: str, value: Any, metric: object) -> None:
    """Check that a direction is the metric's: "max" or "maximize" for accuracies, "min" or "minimize" for losses.

    Raises:
        UserError: it is the other one.
    """
    if isinstance(value, str) and value[:3] in ("min", "max") and value[:3] != best_is(metric):
        raise UserError(f"{key}={value} would choose the worst: {metric} is best at its {best_is(metric)}imum")


def check_monitored(config: dict[str, Any]) -> None:
    """Check that callbacks and schedule choose by a set that is scored, is not the test set, and in its direction.

    Raises:
        UserError: names the option and says what to set instead.
    """
    if str(config["schedule"].get("_target_")).endswith("ReduceLROnPlateau"):
        check_direction("schedule.mode", config["schedule"].get("mode"), "its loss")
    for key, callback in monitors(config):
        monitor = str(callback["monitor"])
        check_direction(f"{key}.mode", callback.get("mode"), monitor)
        for name in ("stopping_threshold", "divergence_threshold"):
            if best_is(monitor) == "max" and not 0 <= (callback.get(name) or 0) <= 1:
                raise UserError(f"invalid value {key}.{name}={callback[name]}: an accuracy is between 0 and 1")
        if monitor.startswith("test/"):
            raise UserError(
                f"{key}.monitor={monitor} would choose by the test set, whose accuracy then is no estimate "
                f"any more: monitor {monitor.replace('test/', 'val/')} and hold images out with data.val_size=6000"
            )
        if monitor.startswith("val/") and not config["data"]["val_size"]:
            raise UserError(f"{key}.monitor={monitor} needs images held out: data.val_size=6000")


def build(node: DictConfig, **objects: Any) -> Any:
    """Instantiate a config group; `objects` are arguments that YAML cannot express.

    Raises:
        UserError: the target rejects the group's values; says which group and why.
    """
    # Hydra 1.4 instantiates only listed targets; those from files were checked against the allow list before.
    if "_execution_whitelist_" in inspect.signature(hydra.utils.instantiate).parameters:
        objects["_execution_whitelist_"] = list(targets_in(OmegaConf.to_container(node, resolve=True)))
    try:
        return hydra.utils.instantiate(node, _convert_="all", **objects)
    except InstantiationException as error:
        raise UserError(f"{node._get_full_key(None)}: {error.__cause__ or error}") from error
