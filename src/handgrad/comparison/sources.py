"""Source folders of a comparison: those that were named, or the newest sweep."""

from collections.abc import Sequence
from pathlib import Path

from handgrad.errors import UserError
from handgrad.runs.folder import METRICS


def matching(patterns: Sequence[str], sweeps: Path, start: Path) -> list[Path]:
    """Find the folders that patterns name or match; without a pattern, the newest sweep. All are relative to `start`.

    Raises:
        UserError: a pattern matches no folder, or there is no sweep.
    """
    if not patterns:
        return [newest(start / sweeps)]
    found = [folder for pattern in patterns for folder in named_by(pattern, start)]
    return list(dict.fromkeys(found))


def newest(sweeps: Path) -> Path:
    """Find the sweep that was started, or in which a run changed, last; of equally new ones, the last by name."""
    files = [*sweeps.glob("*/multirun.yaml"), *sweeps.glob(f"*/*/{METRICS}")]
    if not files:
        raise UserError(f"there is no sweep in {sweeps}: make one with python src/train.py -m, or name a folder")
    _, name = max((file.stat().st_mtime, file.relative_to(sweeps).parts[0]) for file in files)
    return sweeps / name


def named_by(pattern: str, start: Path) -> list[Path]:
    """Find the folder of that name, or else all that match the name as a glob pattern."""
    path = start / pattern
    try:
        if path.is_dir():
            return [path.resolve() if ".." in path.parts else path]
        if path.exists():
            raise UserError(f"sweep={pattern} is a file, not a folder: {path}")
        relative = Path(pattern)
        base, relative = (Path(path.anchor), path.relative_to(path.anchor)) if relative.anchor else (start, relative)
        folders = sorted(folder for folder in base.glob(str(relative)) if folder.is_dir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"sweep={pattern} cannot be a folder or a pattern of folders ({reason})") from None
    if not folders:
        raise UserError(f"no folder matches sweep={pattern} in {start}")
    return folders
