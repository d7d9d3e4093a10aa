"""Oracle: the contract in docs/run-folder.md, read back with the standard library."""

import csv
import json
import math
import pickle
from pathlib import Path

import pytest

from handgrad import results
from handgrad.config import UserError


def read(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / results.METRICS).read_text())
    return loaded


def test_record_says_running_then_completed(tmp_path: Path) -> None:
    with results.recorded(tmp_path / "run", {"name": "a"}) as record:
        assert read(tmp_path / "run")["status"] == "running"
        record["metrics"] = {"test/accuracy": 0.5}
    after = read(tmp_path / "run")
    assert (after["status"], after["reason"], after["metrics"]) == ("completed", None, {"test/accuracy": 0.5})


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (results.DivergedError("train/loss", math.nan, 0, 3), "diverged", "train/loss was nan at epoch 0, step 3: try"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "failed", "interrupted"),
        (SystemExit(1), "failed", "interrupted"),
    ],
)
def test_record_says_what_became_of_the_run(tmp_path: Path, error: BaseException, status: str, reason: str) -> None:
    with pytest.raises(type(error)), results.recorded(tmp_path, {"name": "a"}):
        raise error
    after = read(tmp_path)
    assert after["status"] == status
    assert str(after["reason"]).startswith(reason)
    if status == "diverged":
        assert (after["epoch"], after["step"]) == (0, 3)


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    with results.recorded(tmp_path, {"name": "a"}):
        pass
    with pytest.raises(UserError, match=r"already holds a run: choose another folder"), results.recorded(tmp_path, {}):
        raise AssertionError("the folder was claimed twice")
    assert read(tmp_path)["name"] == "a"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail_in_the_middle() -> None:
        with results.replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        fail_in_the_middle()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_history_and_confusion_read_back(tmp_path: Path) -> None:
    rows = [{"epoch": 0, "train/loss": 0.5, "seconds": 2.0}, {"epoch": 1, "train/loss": 0.25, "seconds": 4.0}]
    results.write_history(tmp_path, rows)
    read_rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [{key: float(value) for key, value in row.items()} for row in read_rows] == rows
    assert results.summarize(rows) == {"epochs": 2, "seconds_per_epoch": 3.0}
    results.write_confusion(tmp_path, "test", [[3, 1], [0, 4]])
    assert list(csv.reader((tmp_path / "confusion_test.csv").read_text().splitlines())) == [["3", "1"], ["0", "4"]]


def test_error_of_a_worker_can_be_sent_to_its_parent() -> None:
    error = results.DivergedError("train/loss", math.inf, 1, 2)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
