"""Checkpoint reading without code execution, with integrity checks and a comparison of configurations."""

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
    """Read a file of `torch.save` without executing code from it, and the run's configuration, None if there is none.

    FileNotFoundError if it does not exist; UserError if it is damaged, or `weights_only=True` rejects its content.
    """
    try:
        if zipfile.is_zipfile(path):  # torch's older format is not a zip archive
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():  # torch.load does not verify checksums
                    raise ValueError(f"checksum mismatch in {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a file of weights: a run's folder is named by run=...") from None
    except Exception as error:  # a damaged archive can raise anything
        reason = "it holds objects or code" if "weights_only" in str(error) else str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a readable file of weights ({reason}): nothing in it was run; "
            "torch.save(model.state_dict(), ...) writes one that can be read"
        ) from error
    config = content.get("hyper_parameters") if isinstance(content, dict) else None
    return content, config if isinstance(config, dict) else None


def resumable(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the checkpoint to resume from; None if it is missing or, with a warning, damaged.

    UserError if the configurations differ (names the differences), or a callback has a path outside the folder.
    """
    content: dict[str, Any] | None
    try:
        content, belongs_to = read_checkpoint(path)
    except FileNotFoundError:
        return None
    except UserError:
        belongs_to = None
    if belongs_to is None:
        log.warning("%s is damaged or from another project: training starts from scratch", path)
        return None
    if differ := differences(normalize(belongs_to), normalize(config)):
        raise UserError(
            f"{path} belongs to a run with another configuration: delete {path.parent} to start from scratch, or "
            f"choose another folder; it has {join_names(differ)}"
        )
    states = content.get("callbacks") if isinstance(content, Mapping) else None
    for text in texts_in(states):
        if leads_outside(text, path.parent):
            raise UserError(
                f"{path} has a callback whose file is {text}: move {path.parent} away to start from scratch; "
                "resuming might delete it"
            )
    return content


def leads_outside(text: str, folder: Path) -> bool:
    """Tell whether a string is a path outside a folder that Lightning might take for one inside it.

    `ModelCheckpoint` deletes the paths in its state if they are on another file system or start with its own folder,
    even if `..` leads out of that folder.
    """
    if ".." not in Path(text).parts:
        return "://" in text
    return not Path(os.path.abspath(text)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100 - it resolves `..`


def logged_step(content: Mapping[str, Any]) -> int:
    """Return the logger's step at which a checkpoint's run resumes; ValueError if a count is not an integer."""
    check_counts(content["loops"])
    return int(content["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])


def check_counts(loops: Mapping[str, Any]) -> None:
    """Check that the counts in the state of Lightning's loops are integers; else ValueError."""
    for name, value in loops.items():
        if name in ("ready", "started", "processed", "completed") and type(value) is not int:
            raise ValueError(f"a count of its loops is {type(value).__name__}")
        if isinstance(value, Mapping):
            check_counts(value)


@contextmanager
def resume_errors(path: Path, passed: Callable[[], Any]) -> Iterator[None]:
    """Convert an error from resuming a checkpoint to UserError, unless the run has `passed` it with a new one."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if passed():
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"cannot resume from {path} ({reason}): if it belongs to another run, move {path.parent} away to start "
            "from scratch; HYDRA_FULL_ERROR=1 shows where it failed"
        ) from error
