"""Secret bug to find: chosen at random, recorded as a salted hash, guessed by name."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from handgrad.errors import UserError
from handgrad.runs.folder import CHECK

PLACES = ("checks/*", "runs/*", "sweeps/*/*")  # of check.json, in outputs/


def chosen(bugs: Sequence[str]) -> str:
    """Choose a bug at random; UserError if there is none."""
    if not bugs:
        raise UserError("inject_bug=secret: with this configuration no bug shows: use a larger batch or deeper network")
    return secrets.choice(bugs)


def sealed(bug: str) -> dict[str, str]:
    """Return a salted hash of a bug's name, for check.json."""
    salt = secrets.token_hex(16)
    return {"salt": salt, "sha256": hashlib.sha256(f"{salt}{bug}".encode()).hexdigest()}


def is_it(bug: str, seal: dict[str, str]) -> bool:
    """Tell whether a hash is that of a bug's name."""
    return hashlib.sha256(f"{seal['salt']}{bug}".encode()).hexdigest() == seal["sha256"]


def latest(folder: Path | None) -> tuple[Path, dict[str, str]]:
    """Find the latest check with a secret bug, in one folder or in all of outputs/; return its file and hash."""
    where = folder or Path("outputs")
    files = [folder / CHECK] if folder else [path for place in PLACES for path in where.glob(f"{place}/{CHECK}")]
    for path in sorted(filter(Path.is_file, files), key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):  # damaged, or without a secret
            seal = json.loads(path.read_text(encoding="utf-8"))["secret"]
            return path, {"salt": str(seal["salt"]), "sha256": str(seal["sha256"])}
    raise UserError(f"{where} holds no check with a secret bug: python src/check.py inject_bug=secret makes one")
