"""Checkpoints as data: read without running anything, whole or refused, held against the run's configuration."""

import logging
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from handgrad.errors import UserError
from handgrad.identity import normalize
from handgrad.text import differences, join_names, texts_in

log = logging.getLogger(__name__)


def read_checkpoint(path: Path) -> tuple[Any, dict[str, Any] | None]:
    """Read a file of weights without running anything that is in it.

    Args:
        path: of what `torch.save` wrote.

    Returns:
        its content, and the configuration of its run, Lightning's `hyper_parameters`, None without any.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or holds more than numbers and texts.
    """
    try:
        if zipfile.is_zipfile(path):  # else in torch's older format
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():  # torch.load checks no checksum
                    raise ValueError(f"the checksum of {damaged} does not fit")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive can fail in every way there is
        reason = "it holds objects or code" if "weights_only" in str(error) else str(error).partition("\n")[0]
        raise UserError(
            f"{path} is no sound file of weights ({reason}): nothing in it was run; "
            "torch.save(model.state_dict(), ...) writes one that can be read"
        ) from error
    config = content.get("hyper_parameters") if isinstance(content, dict) else None
    return content, config if isinstance(config, dict) else None


def resumable(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the checkpoint that a run can go on from; a damaged one is named, and the run begins anew.

    Args:
        path: of the checkpoint; it need not exist.
        config: of the run.

    Returns:
        the checkpoint's content, None where there is none or a damaged one.

    Raises:
        UserError: the checkpoint is whole, but of another configuration; says where they differ.
    """
    content: dict[str, Any] | None
    try:
        content, belongs_to = read_checkpoint(path)
    except FileNotFoundError:
        return None
    except UserError:
        belongs_to = None
    if belongs_to is None:
        log.warning("%s is damaged, or not of this project: the run begins anew", path)
        return None
    if differ := differences(normalize(belongs_to), normalize(config)):
        raise UserError(
            f"{path} belongs to a run with another configuration: delete {path.parent} to begin anew, or choose "
            f"another folder; it has {join_names(differ)}"
        )
    states = content.get("callbacks") if isinstance(content, Mapping) else None
    for text in texts_in(states):
        if leads_outside(text, path.parent):
            raise UserError(
                f"{path} has a callback whose file is {text}: move {path.parent} away to begin anew; "
                "going on might delete what is there"
            )
    return content


def leads_outside(text: str, folder: Path) -> bool:
    """Whether a text is a path that Lightning might take for one in a folder, and is not.

    `ModelCheckpoint` deletes the paths in its state: any on another file system, and those that begin with its own
    folder, also where `..` leads out of that again.
    """
    if ".." not in Path(text).parts:
        return "://" in text
    return not Path(os.path.abspath(text)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100 - it resolves `..`


def logged_step(content: Mapping[str, Any]) -> int:
    """The step that a logger is at when a run goes on from a checkpoint.

    Raises:
        ValueError: Lightning's counts are no counts.
    """
    check_counts(content["loops"])
    return int(content["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])


def check_counts(loops: Mapping[str, Any]) -> None:
    """Check the counts in the state of Lightning's loops.

    Raises:
        ValueError: one is no number.
    """
    for name, value in loops.items():
        if name in ("ready", "started", "processed", "completed") and type(value) is not int:
            raise ValueError(f"a count of its loops is {type(value).__name__}")
        if isinstance(value, Mapping):
            check_counts(value)


@contextmanager
def resume_errors(path: Path, passed: Callable[[], Any]) -> Iterator[None]:
    """Turn a failure to go on from a checkpoint into one sentence.

    Args:
        path: of the checkpoint.
        passed: tells whether the run has since saved another, after which a failure is not this one's.

    Raises:
        UserError: instead of whatever a state raises that does not fit.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if passed():
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"cannot go on from {path} ({reason}): if it does not belong to this run, move {path.parent} away to begin "
            "anew; HYDRA_FULL_ERROR=1 shows where it failed"
        ) from error
