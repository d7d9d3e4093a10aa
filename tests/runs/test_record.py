"""Oracle: the contract in docs/run-folder.md, read back with the standard library."""

import json
import math
import multiprocessing
import pickle
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from conftest import record_of, rows_of
from handgrad.errors import UserError
from handgrad.runs.folder import METRICS, run_lock, write_history
from handgrad.runs.record import DivergedError, find_existing_run, read_record, summarize, track_status


def test_record_says_running_then_completed(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"), track_status(tmp_path / "run", {"name": "a"}) as record:
        assert record_of(tmp_path / "run")["status"] == "running"
        record["metrics"] = {"test/accuracy": 0.5}
    after = record_of(tmp_path / "run")
    assert (after["status"], after["reason"], after["metrics"]) == ("completed", None, {"test/accuracy": 0.5})


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (DivergedError("train/loss", math.nan, 0, 3), "diverged", "train/loss was nan at epoch 0, step 3: try"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "running", "None"),
        (SystemExit(143), "running", "None"),
    ],
)
def test_record_has_the_final_status(tmp_path: Path, error: BaseException, status: str, reason: str) -> None:
    with pytest.raises(type(error)), track_status(tmp_path, {"name": "a"}):
        raise error
    after = record_of(tmp_path)
    assert after["status"] == status
    assert str(after["reason"]).startswith(reason)
    if status == "diverged":
        assert (after["epoch"], after["step"]) == (0, 3)
    assert ("seconds" in after) == ("peak_memory_mb" in after) == (status != "running")


def leave_run(folder: Path, seed: int, error: Exception | None = None) -> dict[str, Any]:
    """Write a run's record; return its configuration."""
    config = {"seed": seed, "optimizer": {"lr": 0.1}}
    facts = {"name": "a", "seed": seed, "choices": {}, "config": config}
    with suppress(UserError), run_lock(folder), track_status(folder, facts):
        if error:
            raise error
    return config


def test_earlier_run_is_found_by_its_configuration(tmp_path: Path) -> None:
    config = leave_run(tmp_path / "3_a", seed=1)
    leave_run(tmp_path / "4_a", seed=2)
    (tmp_path / "0_damaged").mkdir()
    (tmp_path / "0_damaged" / METRICS).write_text("{")
    found = find_existing_run(tmp_path / "7_a", config, siblings=True)
    assert found[1] is not None
    assert (found[0], found[1]["seed"]) == (tmp_path / "3_a", 1)
    assert find_existing_run(tmp_path / "3_a", config, siblings=False) == found
    assert find_existing_run(tmp_path / "7_a", config, siblings=False) == (tmp_path / "7_a", None)
    assert find_existing_run(tmp_path / "7_a", config | {"seed": 3}, siblings=True) == (tmp_path / "7_a", None)
    beside, none = find_existing_run(tmp_path / "3_a", config | {"seed": 3}, siblings=True)
    assert none is None
    assert re.fullmatch("3_a_[0-9a-f]{8}", beside.name)  # job number 3 belongs to another run
    assert find_existing_run(tmp_path / "3_a", config | {"seed": 4}, siblings=True)[0] != beside


@pytest.mark.parametrize("seed", [2, True, 1.0, "1", None])
def test_two_configurations_never_share_a_folder(tmp_path: Path, seed: object) -> None:
    config = leave_run(tmp_path, seed=1)
    with pytest.raises(UserError, match=r"holds a run with another configuration: choose another folder.*it has seed"):
        find_existing_run(tmp_path, config | {"seed": seed}, siblings=False)


def test_folder_of_a_failed_run_without_checkpoint_is_free(tmp_path: Path) -> None:
    config = leave_run(tmp_path, seed=1, error=UserError("no such column"))
    assert find_existing_run(tmp_path, config | {"seed": 7}, siblings=False) == (tmp_path, None)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(UserError, match="holds a run with another configuration"):
        find_existing_run(tmp_path, config | {"seed": 7}, siblings=False)


def test_two_processes_never_write_one_folder(tmp_path: Path) -> None:
    taken = pytest.raises(UserError, match="being written by another process")
    with FileLock(tmp_path / ".lock"), taken, run_lock(tmp_path):
        raise AssertionError("the folder was claimed twice")
    with run_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ['{"status": "runn', "[]", "3", "{}", '{"status": "completed"}', "\x00"])
def test_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / METRICS).write_text(content)
    with pytest.raises(UserError, match=r"metrics.json is damaged .*: delete .* to run it anew"):
        read_record(tmp_path)


def test_history_reads_back_with_empty_cells_for_an_unscored_epoch(tmp_path: Path) -> None:
    rows = [{"epoch": 0, "seconds": 1.0, "batches": 9}, {"epoch": 1, "test/loss": 0.5, "seconds": 2.0, "batches": 3}]
    write_history(tmp_path, rows)
    found = [{key: float(value) if value else None for key, value in row.items()} for row in rows_of(tmp_path)]
    assert found == [{"test/loss": None} | row for row in rows]
    assert summarize(rows) == {"epochs": 2, "seconds_per_epoch": 1.0}  # the cut epoch does not count
    assert summarize([*rows, rows[0] | {"seconds": 4.0}, rows[0]]) == {"epochs": 4, "seconds_per_epoch": 1.0}
    assert summarize([rows[0], rows[0] | {"seconds": 4.0}]) == {"epochs": 2, "seconds_per_epoch": 2.5}


def test_divergence_error_can_be_pickled() -> None:
    error = DivergedError("train/loss", math.inf, 1, 2)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def enter(folder: Path, times: int) -> None:
    """Take a folder's lock repeatedly; fail if another process holds it at the same time."""
    mark = folder.parent / "inside"
    for _ in range(times):
        try:
            with run_lock(folder):
                mark.touch(exist_ok=False)
                mark.unlink()
        except UserError:
            continue  # another process holds the lock


def test_no_two_processes_are_ever_in_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=enter, args=(tmp_path / "run", 200)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert not list((tmp_path / "run").iterdir())


def test_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    halves = [tmp_path / ".metrics.json.123.part", tmp_path / "checkpoints" / ".last.ckpt.7.part"]
    for half in halves:
        half.write_text("ha")
    (tmp_path / ".own").touch()
    with run_lock(tmp_path):
        assert not [half for half in halves if half.exists()]
    assert (tmp_path / ".own").exists()


@pytest.mark.parametrize(
    "field",
    [{"status": "fine"}, {"seed": "0"}, {"metrics": [0.5]}, {"metrics": {"test/accuracy": "high"}}, {"choices": 3}],
    ids=str,
)
def test_field_of_the_wrong_type_is_named(tmp_path: Path, field: dict[str, Any]) -> None:
    leave_run(tmp_path, seed=1)
    (tmp_path / METRICS).write_text(json.dumps(record_of(tmp_path) | field))
    with pytest.raises(UserError, match=rf"metrics.json is damaged \(invalid value {next(iter(field))}.*\): delete"):
        read_record(tmp_path)


def test_full_disk_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    taken = pytest.raises(UserError, match=r"cannot use .*metrics.json.* \(No space left on device\): free space")
    with run_lock(tmp_path), taken, track_status(tmp_path, {"name": "a"}):
        monkeypatch.setattr(Path, "write_text", refuse)
    assert record_of(tmp_path)["status"] == "running"
