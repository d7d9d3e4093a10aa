"""Oracle: the shell: exit statuses, signals, encodings and closed streams of the real command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import SCRIPT, RunScript, mostly_slow, record_of, refused, start, start_fresh, wait_for
from handgrad import process
from handgrad.comparison.load import load_runs
from handgrad.errors import UserError
from handgrad.runs.folder import is_locked


def living(group: int) -> list[str]:
    """Return the states of a group's live processes; zombies do not count."""
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [state for number, state in rows if int(number) == group and not state.startswith("Z")]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_ends_a_run_with_its_status_and_the_record_stays_running(
    tmp_path: Path, tiny_mnist: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, tiny_mnist, "hydra.run.dir=run", "trainer.max_epochs=5000")
    wait_for(tmp_path, "run/history.csv")
    for _ in range(3):  # Python drops an exception that a signal raises in a destructor: send it again
        process.send_signal(number)
        if process.ended_within(20):
            break
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert f"interrupted ({number.name})" in errors
    assert "Traceback" not in errors
    run = record_of(tmp_path / "run")
    assert run["status"] == "running"
    assert not is_locked(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_signal_ends_a_parallel_sweep_and_all_its_workers(
    tmp_path: Path, tiny_mnist: Path, number: signal.Signals
) -> None:
    """SIGINT goes to the whole group, as by Ctrl-C; the other signals go to the parent only."""
    options = ["hydra/launcher=parallel", "hydra.sweep.dir=sweep", "trainer.max_epochs=5000", "seed=0,1,2"]
    # At a rate of 0.01, relu may diverge on so few images, depending on rounding.
    process = start(tmp_path, tiny_mnist, "-m", *options, "optimizer.lr=0.001")
    wait_for(tmp_path, "sweep/*/history.csv", count=2)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert errors.strip().splitlines()[-1].startswith(f"interrupted ({number.name})")
        assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while living(process.pid):
        assert time.monotonic() < deadline, "workers are left"
        time.sleep(0.1)
    runs = [record_of(file.parent) for file in tmp_path.glob("sweep/*/metrics.json")]
    assert [run["status"] for run in runs] == ["running"] * len(runs)
    table = load_runs([tmp_path / "sweep"]).table
    assert set(table.reason) == {"interrupted"}


@pytest.mark.slow
def test_unencodable_characters_are_printed_as_question_marks(tmp_path: Path, tiny_mnist: Path) -> None:
    arguments = ["hydra.run.dir=run", "trainer.max_epochs=1", 'name="größe ± [b]x[/b]"']
    process = start_fresh(tmp_path, tiny_mnist, *arguments, PYTHONIOENCODING="ascii")
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "gr??e ? [b]x[/b]" in printed
    assert record_of(tmp_path / "run")["name"] == "größe ± [b]x[/b]"
    assert "größe" in (tmp_path / "run" / ".hydra" / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_closed_pipe_does_not_fail_the_run(tmp_path: Path, tiny_mnist: Path) -> None:
    process = start_fresh(tmp_path, tiny_mnist, "hydra.run.dir=run", "trainer.max_epochs=2")
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Error" not in errors
    assert record_of(tmp_path / "run")["status"] == "completed"


@pytest.mark.slow
def test_closed_stdout_does_not_fail_the_run(tmp_path: Path, tiny_mnist: Path) -> None:
    line = f"exec {sys.executable} {SCRIPT} hydra.run.dir=run trainer.max_epochs=1 data.root={tiny_mnist} >&-"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert record_of(tmp_path / "run")["status"] == "completed"


@pytest.mark.slow
def test_two_sweeps_in_one_folder_share_the_cells(tmp_path: Path, tiny_mnist: Path) -> None:
    options = ["hydra.sweep.dir=sweep", "trainer.max_epochs=3", "seed=0,1"]
    processes = [start(tmp_path, tiny_mnist, "-m", *options) for _ in range(2)]
    ended = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    runs = [record_of(file.parent) for file in tmp_path.glob("sweep/*/metrics.json")]
    assert sorted((run["seed"], run["status"]) for run in runs) == [(0, "completed"), (1, "completed")]
    assert sum(printed.count("seconds per epoch") for printed, _ in ended) == 2  # each cell was run once


@pytest.mark.parametrize(
    "words",
    [
        ["check.py", "batch=0"],
        ["check.py", "mine=nothing.py"],
        ["check.py", "guess=BP1"],
        ["check.py", "-m", "batch=0,-1"],
        ["train.py", "seed=-1"],
        ["train.py", "-m", "seed=-1,-2"],
        ["train.py", "optimizer.lr=1e20", "trainer.max_epochs=1"],
        ["train.py", "-m", "optimizer.lr=1e20", "trainer.max_epochs=1", "seed=0,1"],
        ["train.py", "engine=mine"],
        ["evaluate.py", "run=nothing"],
        ["predict.py", "images=nothing", "run=nothing"],
        ["explain.py", "run=nothing"],
        ["export.py", "run=nothing"],
        ["compare.py", "sweep=nothing"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("everything", mostly_slow(["1", "0"], always=1))
def test_hydras_line_about_a_failed_job_appears_nowhere(
    run_script: RunScript,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    everything: str,
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", everything)
    script, *arguments = words
    if everything == "1":  # asks for the traceback
        with pytest.raises(UserError):
            run_script(*arguments, script=script)
        printed = "".join(capfd.readouterr())
        assert "Traceback" not in printed
    else:
        printed = refused(run_script, "", *arguments, script=script)
        assert printed.strip()
    assert "Error executing job" not in printed


@pytest.mark.parametrize(("script", "resumes"), [("src/train.py", True), ("src/evaluate.py", False)])
def test_only_training_says_that_the_command_resumes(
    script: str, resumes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    process.say_interrupted("SIGINT")
    said = capsys.readouterr().err
    assert said.startswith("interrupted (SIGINT)")
    assert ("resumes from here" in said) == resumes
