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
from pydantic import AliasPath, BaseModel, Field, ValidationError

from handgrad.errors import UserError, describe_invalid
from handgrad.text import escape_control, shortened

FEW = 5  # seeds; enough for a confidence interval
COMMAND = "python src/train.py -m"
# Overrides that may run code from outside conf/ and src/: targets, interpolations, config files, Hydra's own keys.
OWN_CODE = re.compile(
    r".*_target_|.*\$\{|--config|[+~]*hydra(?!/launcher=|/sweeper=|\.launcher\.n_jobs=|\.sweep\.dir=)[./]", re.DOTALL
)
SEED = re.compile(r"\+{0,2}(seed|report|dry_run)=")


class SweepCommand(BaseModel):
    """Parts of Hydra's saved configuration that are needed to repeat a command.

    hydra, task: command-line overrides, Hydra's own and the project's.
    config: name of the primary configuration.
    choices: options of the config groups.
    sources: Hydra's config search path.
    """

    hydra: list[str] = Field([], validation_alias=AliasPath("overrides", "hydra"))
    task: list[str] = Field(validation_alias=AliasPath("overrides", "task"))
    config: str | None = Field(None, validation_alias=AliasPath("job", "config_name"))
    choices: dict[str, Any] = Field({}, validation_alias=AliasPath("runtime", "choices"))
    sources: list[dict[str, Any]] = Field([], validation_alias=AliasPath("runtime", "config_sources"))

    @property
    def launcher(self) -> str:
        """The launcher; "basic" runs one job after the other."""
        return str(self.choices.get("hydra/launcher", "basic"))

    @property
    def searches(self) -> bool:
        """Whether a search chose the values of the sweep; more seeds would change its course."""
        sweepers = [word.split("=", 1)[1] for word in self.hydra if re.match(r"\+{0,2}hydra/sweeper=", word)]
        return str([*sweepers, self.choices.get("hydra/sweeper", "basic")][0]) != "basic"


def command_for_more_seeds(sources: Sequence[Path], here: Path, remarks: list[str], seeds: int) -> str:
    """Return the command, to be typed `here`, that repeats a sweep with `seeds` seeds; for several sweeps, a line each.

    Empty for a search, which more seeds would change, or if a path cannot be typed. `remarks` gets a sentence for each
    damaged Hydra file and for each command that may run foreign code.
    """
    commands, known = [], False
    for source in sources:
        try:  # one of several single runs does not represent the others
            begun = start_of(source) if len(sources) == 1 or (source / "multirun.yaml").exists() else None
        except UserError as error:
            remarks.append(f"Left out: {error}.")
            continue
        known |= begun is not None
        if begun and not begun.searches:
            commands.append(typed(begun, source, here, seeds, remarks))
    if not known:
        return f"{COMMAND} <the options of these runs> {shlex.quote(option(seeds))}"
    return "\n".join(command for command in commands if command == escape_control(command))


def typed(start: SweepCommand, source: Path, here: Path, seeds: int, remarks: list[str]) -> str:
    """Return the command for a shell; add a remark if it may run code from outside the project."""
    arguments = words(start, source, here, seeds)
    if own := list(filter(OWN_CODE.match, arguments)):
        remarks.append(
            f"The command for more seeds, from {source.name}, may run code that is not handgrad's, by "
            f"{', '.join(map(shortened, own))}: look at it before you type it."
        )
    return " ".join([COMMAND, *map(shlex.quote, arguments)])


def commands_for_cells(runs: Sequence[Path], here: Path, remarks: list[str], seeds: int) -> str:
    """Return the commands that give some cells `seeds` seeds, as few as possible; empty if they are not known.

    `runs` are the folders of one run of each cell; the rest is as in `command_for_more_seeds`.
    """
    commands = []
    for sweep in dict.fromkeys(run.parent for run in runs):
        try:
            begun = start_of(sweep)
            jobs = [start_of(run) for run in runs if run.parent == sweep]
        except UserError:
            return ""
        if begun is None or begun.searches or None in jobs:
            return ""
        tasks = [[word for word in job.task if not SEED.match(word)] for job in jobs if job]
        starts = [begun.model_copy(update={"task": task}) for task in merge(tasks)]
        commands += [typed(start, sweep, here, seeds, remarks) for start in starts]
    return "\n".join(commands) if all(command == escape_control(command) for command in commands) else ""


def merge(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Merge jobs that differ in the value of one override into sweeps, key by key: a=1 and a=2 become a=1,2."""
    left = [{word.partition("=")[0]: word for word in job} for job in jobs]
    for key in dict.fromkeys(key for job in left for key in job):
        groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for job in left:
            rest = tuple(word for name, word in job.items() if name != key or "=" not in word)
            groups.setdefault(rest, []).append(job)
        left = []
        for alike in groups.values():
            values = dict.fromkeys(job[key].partition("=")[2] for job in alike if key in job)
            merged = {key: f"{key}={','.join(sorted(values))}"} if len(values) > 1 else {}
            left.append(alike[0] | merged)
    return [list(job.values()) for job in left]


def start_of(source: Path) -> SweepCommand | None:
    """Read the configuration that Hydra saved in the folder of a sweep or a single run; None if there is none.

    Interpolations stay unresolved: the file may come from a stranger and refer to environment variables.

    Raises:
        UserError: Hydra's file is damaged.
    """
    names = ("multirun.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
    path = next((source / name for name in names if (source / name).exists()), None)
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        account = {"overrides": {"task": content}} if path.name == "overrides.yaml" else dict(content)["hydra"]
        return SweepCommand.model_validate(account)
    except ValidationError as error:
        damage = describe_invalid(error)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        damage = type(error).__name__
    raise UserError(f"{path} is damaged ({damage})")


def option(seeds: int) -> str:
    """Return the override for seeds 0 to `seeds` - 1."""
    return f"seed={','.join(map(str, range(seeds)))}" if seeds <= FEW else f"seed=range(0,{seeds})"


def words(start: SweepCommand, source: Path, here: Path, seeds: int) -> list[str]:
    """Return the command's arguments. A sweep goes to its own folder again, where finished seeds are skipped."""
    own = [found for found in start.sources if found.get("provider") == "command-line"]
    flags = [word for found in own for word in ("--config-dir", str(found.get("path")))]
    if start.config not in (None, "train"):
        flags += ["--config-name", str(start.config)]
    options = [word for word in start.hydra if not re.match(r"[+~]*hydra\.(mode|(sweep|run)\.dir)\b", word)]
    task = [word for word in start.task if not SEED.match(word)]
    folder = source.relative_to(here) if source.is_relative_to(here) else source
    into = [f"hydra.sweep.dir={for_hydra(str(folder))}"] if (source / "multirun.yaml").exists() else []
    return [*flags, *options, *task, option(seeds), *into]


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
