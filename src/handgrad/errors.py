"""Errors that the user can fix, each worded as one sentence."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from handgrad.text import escape_control, format_value, shortened

RENAMED = {  # former or common name: present key
    "against": "baseline",
    "break": "inject_bug",
    "entries": "fd_entries",
    "learning_rate": "lr",
    "objective": "optimized_metric",
    "watch": "refresh_seconds",
    "weight_decay": "l2",
}
INSTALLED = Path(__file__).parent / "conf"  # in a wheel
CONF = INSTALLED if INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"


class UserError(CompactHydraException):
    """Error that the user can fix; its message, one sentence, is printed without a traceback."""

    def __str__(self) -> str:
        return shortened(escape_control(super().__str__()), 2000)

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows in place of a traceback."""
        return [str(self)]


COMPARISONS = {  # pydantic's words
    "greater than or equal to": ">=",
    "less than or equal to": "<=",
    "greater than": ">",
    "less than": "<",
}


def describe_invalid(error: ValidationError, missing: str = "is missing") -> str:
    """Name every invalid value and say what it must be."""
    return "; ".join(_about(problem, missing) for problem in error.errors())


def _about(problem: Any, missing: str) -> str:
    key = ".".join(map(str, problem["loc"])) or "all of it"
    if problem["type"] == "missing":
        return f"{key} {missing}"
    value = format_value(problem["input"]) if problem["input"] != "" else ""
    if problem["type"] == "string_too_short":
        return f"invalid value {key}={value}: must not be empty"
    must = re.sub(r"^(Input|String) should", "must", problem["msg"])
    for words, sign in COMPARISONS.items():
        must = must.replace(words, sign)
    if value.startswith('"'):  # e.g. a number from an environment variable
        must += ", not a string (${oc.decode:...} converts it)"
    return f"invalid value {key}={value}: {must}"


def describe_os_error(error: OSError, otherwise: object = "a file") -> str:
    """Say which file could not be used and why: "cannot use /a/b (No space left on device)"."""
    name = error.filename
    where = os.fsdecode(name) if isinstance(name, str | bytes) else otherwise
    return f"cannot use {where} ({error.strerror or error})"


@contextmanager
def output_errors(place: Path, kind: str = "folder") -> Iterator[None]:
    """Create a command's output folder; turn an OSError about it, or about a "file", into a UserError."""
    try:
        if kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{describe_os_error(error, place)}: name another {kind} with output=...") from error


@contextmanager
def as_user_error(group: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a library's exceptions of these kinds into a UserError that names the config group."""
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise UserError(f"{group}: {error}") from error


def is_peer_failure(error: Exception) -> bool:
    """Tell whether an error says that another process of a distributed training has ended."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("by peer", "NCCL"))


def describe_error(error: Exception) -> str | None:
    """Describe an error: what is wrong and what to do; None if the user cannot fix it."""
    if isinstance(error, OverrideParseException):
        return (
            f"{error}\nWrite {error.override!r} as key=value (--help lists the keys); "
            """a value with special characters needs its own quotes: 'key="value"'."""
        )
    if is_peer_failure(error):
        return (
            "a process of the distributed training has ended (its error is above): "
            "the same command with its folder resumes from the last checkpoint"
        )
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return escape_control(f"{describe_os_error(error)}: make room there, or choose another folder")
    if not isinstance(error, HydraException | OmegaConfBaseException):
        raised_in = raising_package(error)
        if raised_in == "optuna":
            return f"the search has no result ({error}): see above why its trials failed"
        if raised_in == "sqlalchemy":
            return f"cannot use the study in hydra.sweeper.storage: {str(error).splitlines()[0]}"
        return blame_null(error) if raised_in in ("hydra", "hydra_plugins", "omegaconf") else None
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"unknown option {group}={option}: {choices(option, error.options)}"
    if found := re.search(r"Could not override '((?!hydra/)\w+)/(\w+)'", str(error)):
        group, inner = found.groups()
        return (
            f"{group}/{inner}=...: this command, or the chosen {group}, has no such option: leave it out, or the "
            f"experiment that sets it (to allow it in a YAML file of your own, add the line defaults: [{inner}: none])"
        )
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and is_unknown_key(cause):
        return f"unknown key {cause.full_key}: {about_unknown_key(cause)}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{error}: {str(cause).splitlines()[0]}"
    if isinstance(error, OmegaConfBaseException):
        return str(error).splitlines()[0]
    return str(error)


def raising_package(error: Exception) -> str:
    """Return the package that raised an error: one from Hydra concerns the overrides, not the run."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def blame_null(error: Exception) -> str:
    """Return Hydra's message; if something was set to null, name that as the likeliest cause."""
    nulls = [word for word in sys.argv[1:] if word.endswith("=null")]
    if not nulls:
        return str(error)
    return f"{error}: leave out {', '.join(nulls)}, or choose an option, none where there is one (--help lists them)"


def is_unknown_key(error: OmegaConfBaseException) -> bool:
    """Tell whether an error is about a key that its group does not have."""
    return isinstance(error.parent_node, DictConfig) and error.key not in error.parent_node


def known_keys(error: OmegaConfBaseException) -> list[str]:
    """Return the keys of the group that an unknown key was looked up in."""
    return [str(key) for key in error.parent_node or () if not str(key).startswith("_")]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Ask whether the closest known word was meant; "" if none is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}? " if close else ""


def about_unknown_key(error: OmegaConfBaseException) -> str:
    """Say where an unknown key may belong: to another option of its group, to its class, or to a group or option."""
    group, known, key = str(error.full_key).rpartition(".")[0], known_keys(error), str(error.key)
    if group:
        folder = group.replace(".", "/")
        files = sorted((CONF / folder).glob("*.yaml"))
        has_key = re.compile(f"^{re.escape(key)}:", re.MULTILINE)
        options = [file.stem for file in files if has_key.search(file.read_text(encoding="utf-8"))]
        if options:
            return f"it is a key of {folder}={', '.join(options)}"
        return f"{choices(key, known)}; add +{error.full_key}=... to pass another argument to its class"
    name = RENAMED.get(key, key)
    if options := [file.parent.name for file in CONF.glob(f"*/{name}.yaml") if file.parent.name in known]:
        return f"did you mean {options[0]}={name}?"
    groups = error.parent_node.items_ex(resolve=False) if isinstance(error.parent_node, DictConfig) else ()
    within = {
        str(inner): f"{name!s}.{inner!s}" for name, node in groups if isinstance(node, DictConfig) for inner in node
    }
    close = difflib.get_close_matches(name, within, n=1, cutoff=0.75)
    return f"did you mean {within[close[0]]}?" if close and not did_you_mean(key, known) else choices(key, known)


def choices(word: str, known: Sequence[str]) -> str:
    """Suggest the closest known word, and list all."""
    hint = f"did you mean {RENAMED[word]}? " if RENAMED.get(word) in known else did_you_mean(word, known)
    return f"{hint}there {'is none' if not known else 'are ' + ', '.join(sorted(known))}"
