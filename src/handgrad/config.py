"""Configuration schemas, checked before any heavy import."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, LiteralString, Self, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from handgrad.errors import UserError, describe_invalid
from handgrad.resolvers import best_is  # noqa: F401 - the import registers all resolvers

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0)]


def valid_if(fits: Callable[[Any], bool], otherwise: LiteralString) -> Callable[[Any], Any]:
    """Return a validator that rejects other values with the message `otherwise`."""

    def validate(value: Any) -> Any:
        if not fits(value):
            raise PydanticCustomError("value", otherwise)
        return value

    return validate


some_batches = valid_if(
    lambda value: (type(value) is int and value > 0) or (type(value) is float and 0 < value <= 1),
    "must be 1 or more batches, or a share of them up to 1.0",
)
some_steps = valid_if(lambda value: value > 0 or value == -1, "must be 1 or more steps, or -1 for no limit")
has_target = valid_if(
    lambda node: isinstance(node.get("_target_"), str), "must have a _target_, a class by its full name"
)
Rate = Annotated[float, Field(ge=0, lt=1)]


def some_rates(value: Any) -> Any:
    """Validate a rate from 0 to below 1, or a list of these, as floats."""
    rates = value if isinstance(value, list) else [value]
    if rates and all(type(rate) in (int, float) and 0 <= rate < 1 for rate in rates):
        return [float(rate) for rate in rates] if isinstance(value, list) else float(value)
    raise PydanticCustomError("rates", "must be a rate from 0 to below 1, or a list of these")


Batches = Annotated[Any, PlainValidator(some_batches)]
DATASET = Literal["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"]
BUG = Literal["BP1", "BP2", "BP3", "BP4", "phi", "L2", "dropout", "smoothing", "input"]
MATMUL = Literal["default", "auto", "high", "medium"]
Name = Annotated[
    str, BeforeValidator(lambda name: str(name) if isinstance(name, int | float) else name), Field(min_length=1)
]


class Group(BaseModel):
    """Config group: checks its fields, whose defaults are the target's, and accepts any other argument of its target.

    A default is None if the group's options have different ones.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


Pixels = Annotated[float, Field(ge=0, le=1000)]


class Deform(Group, extra="forbid"):
    """`conf/data/deform/`: strengths of deformations, in pixels and degrees."""

    elastic: Pixels = 0.0
    sigma: Annotated[float, Field(ge=1, le=1000)] = 4.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    shift: Pixels = 0.0

    @model_validator(mode="after")
    def check_sigma(self) -> Self:
        """Validate that there is a field for sigma to smooth."""
        if "sigma" in self.model_fields_set and "elastic" not in self.model_fields_set:
            raise PydanticCustomError("sigma", "has a sigma, but no elastic field for it: data/deform=elastic")
        return self


def no_name(value: Any) -> Any:
    """Refuse an option's name as a value."""
    if isinstance(value, str):
        raise PydanticCustomError("name", f"must be chosen with a slash: data/deform={value}")
    return value


class Batched(Group):
    """Options of every data set."""

    batch_size: Positive
    val_size: Count
    score_test: bool
    deform: Annotated[Deform | None, BeforeValidator(no_name)] = None


class Data(Batched):
    """`conf/data/` of MNIST and its drop-in replacements."""

    dataset: DATASET = "MNIST"
    split: Literal["balanced", "letters", "digits"] | None = None
    root: Annotated[str, Field(min_length=1)] = "data"


class FileData(Batched):
    """`conf/data/table.yaml` and `arrays.yaml`; only the first has target, test_column and missing."""

    path: Name
    sha256: str | None = None
    test_size: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Annotated[int, Field(ge=0, lt=2**32)]
    target: Annotated[Name | None, Field(default=None)]
    test_column: Name | None = None
    missing: Annotated[Literal["refuse", "impute"], Field(default=None)]


def data_of_its_kind(value: Any) -> Batched:
    """Validate against the schema of files if there is a path."""
    return (FileData if isinstance(value, dict) and "path" in value else Data).model_validate(value)


AnyData = Annotated[Any, PlainValidator(data_of_its_kind)]


class Network(Group):
    """`conf/network/`."""

    hidden_sizes: list[Positive]
    init: Literal["xavier_uniform", "pytorch"]


class Optimizer(Group):
    """`conf/optimizer/`."""

    lr: Annotated[float, Field(gt=0, le=1e30)]  # higher rates overflow before the first step
    weight_reduction: Literal["mean", "sum"] = "mean"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    fused: bool | None = None


class Schedule(Group):
    """`conf/schedule/`."""

    start_factor: Annotated[float, Field(default=None, gt=0, le=1)]
    total_iters: Annotated[Positive, Field(default=None)]
    warmup_steps: Annotated[Positive, Field(default=None)]
    total_steps: Positive | None = None


class Regularizer(Group):
    """`conf/regularizer/`."""

    strength: Annotated[float, Field(ge=0, le=1e30)] = 0.0
    dropout: Annotated[Any, PlainValidator(some_rates)] = 0.0
    smoothing: Rate = 0.0
    adversarial: Annotated[float, Field(ge=0, le=1e30)] = 0.0


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


class Targets(Group):
    """`conf/logger/`, `conf/callbacks/`: any names, each with a target."""

    __pydantic_extra__: dict[str, Annotated[dict[str, Any], AfterValidator(has_target)]]


class RunConfig(Group):
    """Configuration of a run, as in `conf/train.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    name: Name
    optimized_metric: str | None
    threads: Positive | None
    matmul: MATMUL = "default"
    skip: Rate = 0.0
    activation: Group
    engine: Group
    data: AnyData
    network: Network
    optimizer: Optimizer
    schedule: Schedule
    regularizer: Regularizer
    trainer: Trainer
    diagnostics: Diagnostics | None = None
    logger: Targets | None = None
    callbacks: Targets | None = None


def are_names(value: Any) -> bool:
    """Tell whether a value is names or glob patterns of files or folders: one, several, or None."""
    several = value if isinstance(value, list) else [value]
    return value is None or bool(several and all(type(name) in (str, int, float) and name != "" for name in several))


some_names = valid_if(are_names, "must be a name, a pattern of names, or a list of these")


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


def is_normalization(value: Any) -> bool:
    """Tell whether a value is None, "normalized", or a mean and a deviation above 0."""
    pair = isinstance(value, list) and len(value) == 2 and all(type(number) in (int, float) for number in value)
    return value in (None, "normalized") or (pair and math.isfinite(value[0]) and 0 < value[1] < math.inf)


a_normalization = valid_if(is_normalization, "must be normalized, or [mean,deviation] with a deviation above 0")


class OtherData(Group):
    """Data options that replace a run's own."""

    dataset: DATASET | None
    root: Annotated[str, Field(min_length=1)] | None
    path: Name | None = None


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
    rows: Name | None
    output: Name | None


class CheckConfig(Group):
    """The whole of `conf/check.yaml`."""

    run: Name | None
    checkpoint: Name | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    batch: Positive
    fd_entries: Positive
    trust: bool
    inject_bug: Literal[BUG, "secret"] | None
    guess: BUG | None
    mine: Name | None
    output: Name | None
    activation: Group
    data: AnyData
    network: Network
    regularizer: Regularizer


def to_dict(cfg: DictConfig) -> dict[str, Any]:
    """Convert a configuration to plain values; UserError if an interpolation cannot be resolved."""
    try:
        return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0].removeprefix("UserError raised while resolving interpolation: ")
        hint = " (handgrad.train sets it; or give name=... a text)" if "HydraConfig" in said else ""
        raise UserError(said + hint) from None


def check(config: dict[str, Any], schema: type[Group]) -> None:
    """Check types and ranges of a configuration's values; UserError names each invalid one and what it must be."""
    try:
        schema.model_validate(config)
    except ValidationError as error:
        raise UserError(
            describe_invalid(error, "is missing: give it a value or, for a group, an option (--help lists them)")
        ) from None
