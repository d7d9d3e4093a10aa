"""Oracle: the text of docs/own-data.md; its commands are run as they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT, RunCommand, record_of

TEXT = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = [line for line in TEXT.splitlines() if line.startswith("python ")]


def run_all(command: RunCommand, folder: Path, name: str) -> str:
    """Run the commands of a section, in order; return what they print."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (text,) = [each for each in section if each.startswith(name)]
    printed = ""
    for line in COMMANDS:
        if line not in text:
            continue
        _, script, *arguments = shlex.split(line)
        if script == "-c":
            subprocess.run([sys.executable, "-c", *arguments], cwd=folder, check=True)
            continue
        report = ["report=false"] if "-m" in arguments else []  # compare.py follows
        done = command(Path(script).name, *arguments, *report)
        assert done.status == 0, f"{line}\n{done.out}{done.err}"
        printed += done.out
    return printed


@pytest.mark.slow
def test_commands_for_a_table_run_and_reach_what_is_said(command: RunCommand, tmp_path: Path) -> None:
    printed = run_all(command, tmp_path, "A table")
    assert record_of(tmp_path / "outputs/wine")["metrics"]["test/accuracy"] > 0.95
    assert "above 95 %" in TEXT
    assert "autograd" in printed
    assert len(pd.read_csv(tmp_path / "outputs/new/predictions.csv")) == 5


@pytest.mark.slow
def test_commands_for_arrays_run(command: RunCommand, tmp_path: Path) -> None:
    run_all(command, tmp_path, "Arrays")
    assert record_of(tmp_path / "outputs/digits")["metrics"]["test/accuracy"] > 0.9
    assert len(pd.read_csv(tmp_path / "outputs/again/predictions.csv")) == 1797
