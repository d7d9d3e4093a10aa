"""Execute the notebooks from the first cell to the last, and keep their outputs: python notebooks/execute.py."""

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def executed(path: Path, folder: Path = HERE) -> Any:
    """Execute a notebook in a folder.

    Args:
        path: the notebook.
        folder: working directory of its kernel.

    Returns:
        the notebook with its new outputs, without paths of this machine.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder)}}, coalesce_streams=True, record_timing=False
    ).execute()
    text = nbformat.writes(notebook).replace(str(HERE.parent), "handgrad")
    return nbformat.reads(text, as_version=4)


if __name__ == "__main__":
    for path in sorted(HERE.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        sys.stdout.write(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB\n")
