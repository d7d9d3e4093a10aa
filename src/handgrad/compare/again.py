"""The command that adds seeds to a sweep, reconstructed from what Hydra recorded of its start."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from pydantic import BaseModel, ValidationError

from handgrad.errors import UserError, describe_invalid
from handgrad.text import escape_control, shortened

FEW = 5  # seeds: enough for an interval
COMMAND = "python src/train.py -m"
# Options by which a command runs what is neither in conf/ nor in src/: classes, other configuration, Hydra's own keys.
OWN_CODE = re.compile(
    r".*_target_|.*\$\{|--config|[+~]*hydra(?!/launcher=|/sweeper=|\.launcher\.n_jobs=|\.sweep\.dir=)[./]", re.DOTALL
)


class Overrides(BaseModel):
    """What was given on the command line: Hydra's own options, and the project's."""

    hydra: list[str] = []
    task: list[str]


class Source(BaseModel):
    """Where configuration came from."""

    provider: str
    path: str


class Runtime(BaseModel):
    """What Hydra knew at the start."""

    choices: dict[str, Any] = {}
    config_sources: list[Source] = []


class Job(BaseModel):
    """What was run."""

    config_name: str | None = None


class SweepCommand(BaseModel):
    """Of Hydra's account of a start, what it takes to repeat it."""

    overrides: Overrides
    job: Job = Job()
    runtime: Runtime = Runtime()


def command_for_more_seeds(
    sources: Sequence[Path], start: Path | None = None, remarks: list[str] | None = None, seeds: int = FEW
) -> str:
    """The command that runs the same with so many seeds; of several sweeps, a command for each.

    Args:
        sources: the folders that were compared.
        start: the directory in which the command is to be typed; the working directory if left out.
        remarks: gets a sentence for each account of Hydra's that is damaged.
        seeds: from 0 on.

    Returns:
        a line for each command; nothing where there is none, for a search goes its own way or a path cannot be typed.
    """
    commands, known = [], False
    for source in sources:
        try:
            begun = start_of(source, alone=len(sources) == 1)
        except UserError as error:
            if remarks is not None:
                remarks.append(f"Left out: {error}.")
            continue
        if begun is not None:
            known = True
            if searches(begun):
                continue
            typed = words(begun, source, start or Path.cwd(), seeds)
            commands.append(" ".join([COMMAND, *map(shlex.quote, typed)]))
            if remarks is not None and (own := list(filter(OWN_CODE.match, typed))):
                remarks.append(
                    f"The command for more seeds, from {source.name}, may run code that is not handgrad's, by "
                    f"{', '.join(map(shortened, own))}: look at it before you type it."
                )
    if not known:
        return f"{COMMAND} <the options of these runs> {shlex.quote(option(seeds))}"
    typable = [command for command in commands if command == escape_control(command)]
    return "\n".join(typable)


def start_of(source: Path, alone: bool) -> SweepCommand | None:
    """How the runs of a folder were started, None where Hydra has left no account.

    Nothing in it is looked up: it may be a stranger's, and speak of variables of the environment.

    Args:
        source: a sweep's folder, or a single run's.
        alone: it is the only one; of several single runs, none speaks for the others.

    Raises:
        UserError: an account is damaged.
    """
    sweep, single, overrides = (
        source / name for name in ("multirun.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
    )
    path = next((path for path in (sweep, single, overrides) if path.exists()), None)
    if path is None or not (alone or path == sweep):
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        account = {"overrides": {"task": content}} if path == overrides else dict(content)["hydra"]
        return SweepCommand.model_validate(account)
    except ValidationError as error:
        damage = describe_invalid(error)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        damage = type(error).__name__
    raise UserError(f"{path} is damaged ({damage})")


def searches(start: SweepCommand) -> bool:
    """Tell whether the values of a sweep were chosen by a search, which more seeds would lead elsewhere."""
    sweepers = [word.split("=", 1)[1] for word in start.overrides.hydra if re.match(r"\+{0,2}hydra/sweeper=", word)]
    return str([*sweepers, start.runtime.choices.get("hydra/sweeper", "basic")][0]) != "basic"


def option(seeds: int) -> str:
    """Hydra's option for so many seeds from 0 on."""
    return f"seed={','.join(map(str, range(seeds)))}" if seeds <= FEW else f"seed=range(0,{seeds})"


def words(start: SweepCommand, source: Path, here: Path, seeds: int) -> list[str]:
    """The command's words but for the program: into a sweep's own folder, for the seeds that are there are skipped."""
    flags = [("--config-dir", found.path) for found in start.runtime.config_sources if found.provider == "command-line"]
    if start.job.config_name not in (None, "train"):
        flags.append(("--config-name", str(start.job.config_name)))
    options = [word for word in start.overrides.hydra if not re.match(r"[+~]*hydra\.(mode|(sweep|run)\.dir)\b", word)]
    task = [word for word in start.overrides.task if not re.match(r"\+{0,2}(seed|report|dry_run)=", word)]
    folder = source.relative_to(here) if source.is_relative_to(here) else source
    into = [f"hydra.sweep.dir={for_hydra(str(folder))}"] if (source / "multirun.yaml").exists() else []
    return [*(word for flag in flags for word in flag), *options, *task, option(seeds), *into]


def for_hydra(text: str) -> str:
    """A text as Hydra reads it on the command line: in quotes where it would be taken for something else."""
    escaped = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)
    try:
        if OverridesParser.create().parse_override(f"key={escaped}").value() == text:
            return text
    except HydraException:
        pass
    quoted: str = QuotedString(escaped, Quote.single).with_quotes()
    return quoted
