"""Command that adds seeds to a sweep, reconstructed from the configuration that Hydra saved."""

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

FEW = 5  # seeds; enough for a confidence interval
COMMAND = "python src/train.py -m"
# Overrides that may run code from outside conf/ and src/: targets, interpolations, config files, Hydra's own keys.
OWN_CODE = re.compile(
    r".*_target_|.*\$\{|--config|[+~]*hydra(?!/launcher=|/sweeper=|\.launcher\.n_jobs=|\.sweep\.dir=)[./]", re.DOTALL
)
SEED = re.compile(r"\+{0,2}(seed|report|dry_run)=")


class Overrides(BaseModel):
    """Command-line overrides: Hydra's own, and the project's."""

    hydra: list[str] = []
    task: list[str]


class Source(BaseModel):
    """Entry of Hydra's config search path."""

    provider: str
    path: str


class Runtime(BaseModel):
    """Config-group choices and config sources, from `hydra.runtime`."""

    choices: dict[str, Any] = {}
    config_sources: list[Source] = []


class Job(BaseModel):
    """Name of the primary configuration, from `hydra.job`."""

    config_name: str | None = None


class SweepCommand(BaseModel):
    """Parts of Hydra's saved configuration that are needed to repeat a command."""

    overrides: Overrides
    job: Job = Job()
    runtime: Runtime = Runtime()


def command_for_more_seeds(
    sources: Sequence[Path], start: Path | None = None, remarks: list[str] | None = None, seeds: int = FEW
) -> str:
    """Return the command that repeats a sweep with `seeds` seeds; for several sweeps, one command each.

    Args:
        sources: the compared folders.
        start: the directory in which the command will be typed; the working directory if None.
        remarks: gets a sentence for each damaged Hydra file and for each command that may run foreign code.
        seeds: number of seeds, counted from 0.

    Returns:
        one line per command; empty for a search, which more seeds would change, or if a path cannot be typed.
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
            commands.append(typed(begun, source, start or Path.cwd(), seeds, remarks))
    if not known:
        return f"{COMMAND} <the options of these runs> {shlex.quote(option(seeds))}"
    typable = [command for command in commands if command == escape_control(command)]
    return "\n".join(typable)


def typed(start: SweepCommand, source: Path, here: Path, seeds: int, remarks: list[str] | None) -> str:
    """Return the command for a shell; add a remark if it may run code from outside the project."""
    arguments = words(start, source, here, seeds)
    if remarks is not None and (own := list(filter(OWN_CODE.match, arguments))):
        remarks.append(
            f"The command for more seeds, from {source.name}, may run code that is not handgrad's, by "
            f"{', '.join(map(shortened, own))}: look at it before you type it."
        )
    return " ".join([COMMAND, *map(shlex.quote, arguments)])


def commands_for_cells(
    runs: Sequence[Path], start: Path | None = None, remarks: list[str] | None = None, seeds: int = FEW
) -> str:
    """Return the commands that give some cells `seeds` seeds, as few as possible; empty if they are not known.

    Args:
        runs: the folder of one run of each cell.
        start: the directory in which the command will be typed; the working directory if None.
        remarks: as of `command_for_more_seeds`.
        seeds: number of seeds, counted from 0; finished ones are skipped.
    """
    commands, here = [], start or Path.cwd()
    for sweep in dict.fromkeys(run.parent for run in runs):
        try:
            begun = start_of(sweep, alone=True)
            jobs = [start_of(run, alone=True) for run in runs if run.parent == sweep]
        except UserError:
            return ""
        if begun is None or searches(begun) or None in jobs:
            return ""
        tasks = [[word for word in job.overrides.task if not SEED.match(word)] for job in jobs if job]
        for options in merge(tasks):
            task = begun.overrides.model_copy(update={"task": options})
            commands.append(typed(begun.model_copy(update={"overrides": task}), sweep, here, seeds, remarks))
    return "\n".join(commands) if all(command == escape_control(command) for command in commands) else ""


def merge(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Merge jobs that differ in the value of one override into sweeps, key by key: a=1 and a=2 become a=1,2."""
    left = [{word.partition("=")[0]: word for word in job} for job in jobs]
    for key in dict.fromkeys(key for job in left for key in job):
        groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for job in left:
            groups.setdefault(tuple(word for name, word in job.items() if name != key or "=" not in word), []).append(
                job
            )
        left = []
        for alike in groups.values():
            values = dict.fromkeys(job[key].partition("=")[2] for job in alike if key in job)
            merged = {key: f"{key}={','.join(sorted(values))}"} if len(values) > 1 else {}
            left.append(alike[0] | merged)
    return [list(job.values()) for job in left]


def start_of(source: Path, alone: bool) -> SweepCommand | None:
    """Read how the runs of a folder were started; None if Hydra saved no configuration there.

    Interpolations stay unresolved: the file may come from a stranger and refer to environment variables.

    Args:
        source: the folder of a sweep or of a single run.
        alone: whether it is the only source; one of several single runs does not represent the others.

    Raises:
        UserError: Hydra's file is damaged.
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
    """Tell whether a search chose the values of a sweep; more seeds would change its course."""
    sweepers = [word.split("=", 1)[1] for word in start.overrides.hydra if re.match(r"\+{0,2}hydra/sweeper=", word)]
    return str([*sweepers, start.runtime.choices.get("hydra/sweeper", "basic")][0]) != "basic"


def option(seeds: int) -> str:
    """Return the override for seeds 0 to `seeds` - 1."""
    return f"seed={','.join(map(str, range(seeds)))}" if seeds <= FEW else f"seed=range(0,{seeds})"


def words(start: SweepCommand, source: Path, here: Path, seeds: int) -> list[str]:
    """Return the command's arguments. A sweep goes to its own folder again, where finished seeds are skipped."""
    flags = [("--config-dir", found.path) for found in start.runtime.config_sources if found.provider == "command-line"]
    if start.job.config_name not in (None, "train"):
        flags.append(("--config-name", str(start.job.config_name)))
    options = [word for word in start.overrides.hydra if not re.match(r"[+~]*hydra\.(mode|(sweep|run)\.dir)\b", word)]
    task = [word for word in start.overrides.task if not SEED.match(word)]
    folder = source.relative_to(here) if source.is_relative_to(here) else source
    into = [f"hydra.sweep.dir={for_hydra(str(folder))}"] if (source / "multirun.yaml").exists() else []
    return [*(word for flag in flags for word in flag), *options, *task, option(seeds), *into]


def for_hydra(text: str) -> str:
    """Escape a text for Hydra's command line; quote it if Hydra would parse it as something else."""
    escaped = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)
    try:
        if OverridesParser.create().parse_override(f"key={escaped}").value() == text:
            return text
    except HydraException:
        pass
    quoted: str = QuotedString(escaped, Quote.single).with_quotes()
    return quoted
