"""What a configuration may hold, checked before anything heavy is imported; and errors that are one sentence."""

import difflib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, cast

import hydra
from hydra.errors import CompactHydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from handgrad.settings import plain, shown


class UserError(CompactHydraException):
    """Something the user can mend: its message, one sentence, is printed without a traceback."""

    def __str__(self) -> str:
        return plain(super().__str__())


Positive = Annotated[int, Field(gt=0)]


class Group(BaseModel):
    """A config group: the values checked here, and whatever else its target takes."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Data(Group):
    """`conf/data/`."""

    root: Annotated[str, Field(min_length=1)]
    batch_size: Positive
    val_size: Annotated[int, Field(ge=0)]
    score_test: bool


class Network(Group):
    """`conf/network/`."""

    hidden_sizes: list[Positive]
    init: Literal["xavier_uniform", "pytorch"]


class Optimizer(Group):
    """`conf/optimizer/`."""

    lr: Annotated[float, Field(gt=0)]


class Regularizer(Group):
    """`conf/regularizer/`."""

    strength: Annotated[float, Field(ge=0)] = 0.0


class Trainer(Group):
    """`conf/trainer/`."""

    max_epochs: Positive
    # Gradients written by hand are not reduced across processes by Lightning's wrappers: replicas would drift apart.
    devices: Literal[1]


class Training(Group):
    """The whole of `conf/train.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    objective: str | None
    threads: Positive | None
    data: Data
    network: Network
    optimizer: Optimizer
    regularizer: Regularizer
    trainer: Trainer


def _folders(value: Any) -> Any:
    several = value if isinstance(value, list) else [value]
    if value is not None and not (several and all(type(name) in (str, int, float) and name != "" for name in several)):
        raise PydanticCustomError("folders", "it should be a folder, a pattern of folders, or a list of these")
    return value


class Comparing(Group):
    """The whole of `conf/compare.yaml`."""

    sweep: Annotated[Any, AfterValidator(_folders)]
    output: Annotated[str, Field(min_length=1)] | None


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, nothing left to look up.

    Raises:
        UserError: it refers to something that is not there.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(str(error)) from None


def check(config: dict[str, Any], schema: type[Group]) -> None:
    """Check the types and ranges of a configuration's values.

    Raises:
        UserError: names each value that cannot be, and says what it must be.
    """
    try:
        schema.model_validate(config)
    except ValidationError as error:
        raise UserError(in_a_sentence(error)) from None


def in_a_sentence(error: ValidationError) -> str:
    """Say of every value that cannot be what it must be."""
    return "; ".join(map(_about, error.errors()))


def _about(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"])) or "all of it"
    if problem["type"] == "missing":
        return f"{key} is missing"
    value = shown(problem["input"]) if problem["input"] != "" else ""
    must = problem["msg"].replace("Input", "it", 1)
    if isinstance(problem["input"], str) and problem["type"] in (
        "int_type",
        "float_type",
        "literal_error",
        "bool_type",
    ):
        must += ", not a text"
    return f"{key}={value} cannot be: {must}"


@contextmanager
def explained(group: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a library's complaint about a config group's values into one sentence.

    Raises:
        UserError: instead of an exception of one of the kinds; names the group and repeats the complaint.
    """
    try:
        yield
    except kinds as error:
        raise UserError(f"{group}: {error}") from error


def build(node: DictConfig, **objects: Any) -> Any:
    """Instantiate a config group, passing what it cannot say itself as objects.

    Raises:
        UserError: the target does not take the group's values; says which group and why.
    """
    try:
        return hydra.utils.instantiate(node, **objects)
    except InstantiationException as error:
        raise UserError(f"{node._get_full_key(None)}: {error.__cause__ or error}") from error


def run(command: Callable[[], None]) -> None:
    """Run a Hydra command; after Hydra's complaint about an argument, say which keys there are or how to write it."""
    try:
        command()
    except SystemExit as stop:
        shown = stop.__context__  # what Hydra printed before it left
        if isinstance(shown, OverrideParseException):
            print(
                f"Write {shown.override!r} as key=value (--help lists the keys); "
                """a value with signs in it goes in quotes of its own: 'key="value"'.""",
                file=sys.stderr,
            )
        error = shown.__cause__ if shown else None
        if isinstance(error, OmegaConfBaseException) and isinstance(error.parent_node, DictConfig):
            known = [str(key) for key in error.parent_node if not str(key).startswith("_")]
            close = difflib.get_close_matches(str(error.key), known, n=1)
            hint = f"Did you mean {close[0]}? " if close else ""
            print(f"{hint}Known here: {', '.join(sorted(known))}", file=sys.stderr)
        raise
