"""Oracle: the sweep itself: it does what its dry run predicts and is as far as its report says."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import RunScript, ran, start, wait_for
from handgrad.comparison import progress

FEW = ["trainer.max_epochs=1", "network.hidden_sizes=[10]", "logger=none"]


def test_dry_run_reports_what_the_sweep_does_and_starts_nothing(run_script: RunScript, tmp_path: Path) -> None:
    sweep = ["-m", "activation=relu,tanh", "hydra.sweep.dir=sweep", *FEW]
    said = ran(run_script, *sweep, "seed=0,1", "dry_run=true")
    assert "2 cells, 4 runs: 0 are done already, 4 to run." in said
    assert "No earlier run in outputs/ allows a time estimate." in said
    assert not list(tmp_path.iterdir())
    assert run_script(*sweep, "seed=0")[0] == 0
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "sweeps").symlink_to(tmp_path)
    said = run_script(*sweep, "seed=0,1", "dry_run=true")[1]
    assert "2 cells, 4 runs: 2 are done already, 2 to run.\nDone: 0_relu-manual-none-s0, 1_tanh-manual-none-s0." in said
    assert "Estimated from 2 earlier runs: about " in said
    (tmp_path / "sweep" / "0_relu-manual-none-s0").rename(tmp_path / "sweep" / "0_\x1b[2J")
    assert "Done: 0_\\x1b[2J, 1_tanh-manual-none-s0." in run_script(*sweep, "seed=0,1", "dry_run=true")[1]
    assert "\x1b" not in run_script(*sweep, "seed=0")[1]
    path = tmp_path / "sweep" / "1_tanh-manual-none-s0" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    assert "2 cells, 4 runs: 1 are done already, 3 to run.\n" in run_script(*sweep, "seed=0,1", "dry_run=true")[1]
    (tmp_path / "sweep" / "damaged").mkdir()
    (tmp_path / "sweep" / "damaged" / "metrics.json").write_text("{")
    assert "2 cells, 4 runs: 1 are done already, 3 to run.\n" in run_script(*sweep, "seed=0,1", "dry_run=true")[1]
    before = sorted((tmp_path / "sweep").iterdir())
    assert run_script(*sweep, "seed=0,1")[0] == 0
    assert len(set((tmp_path / "sweep").glob("*/metrics.json")) - {path / "metrics.json" for path in before}) == 2


def test_estimate_uses_the_most_similar_runs() -> None:
    def ran(engine: str, sizes: list[int], per_epoch: float) -> dict[str, Any]:
        config = {"network": {"hidden_sizes": sizes}, "data": {"batch_size": 64}, "trainer": {"max_epochs": 2}}
        times = {"seconds": 2 * per_epoch + 3, "epochs": 2, "seconds_per_epoch": per_epoch}
        return {"config": config, "choices": {"engine": engine, "activation": "relu"}} | times

    known = [ran("manual", [500], 1.0), ran("manual", [500], 1.2), ran("manual", [9], 0.1), ran("autograd", [500], 2.0)]
    wanted = known[0]["config"] | {"trainer": {"max_epochs": 10}}
    estimate = progress.seconds_of(wanted, {"engine": "manual", "activation": "relu"}, known)
    assert estimate == pytest.approx(10 * 1.1 + 3)
    assert progress.seconds_of(wanted, {"engine": "other"}, known) is None


def test_durations_are_readable() -> None:
    said = [progress.in_time(seconds) for seconds in (4.4, 59, 61, 3300, 3900)]
    assert said == ["4 s", "59 s", "1 min", "55 min", "1 h 05 min"]


def test_sweep_ends_with_a_report_even_if_a_run_diverges(run_script: RunScript, tmp_path: Path) -> None:
    sweep = ["-m", "optimizer.lr=0.1,1e20", "schedule=constant", "hydra.sweep.dir=sweep", *FEW]
    status, said = run_script(*sweep, "report=true")
    assert status == 1
    assert "The test accuracy of lr=0.1 is" in said
    assert f"report: {tmp_path / 'sweep' / 'comparison' / 'report.html'}" in said
    assert "Diverged, excluded from all means: 1 of 2 runs" in " ".join(said.split())
    assert said.count("report: ") == 1


def test_failed_report_does_not_fail_the_sweep(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "comparison").touch()  # where a folder should be
    said = ran(run_script, "-m", "seed=0,1", "hydra.sweep.dir=sweep", *FEW, "report=true")
    assert "no report: cannot use" in said
    assert "Traceback" not in said


def test_sweep_only_options_change_no_run(run_script: RunScript) -> None:
    assert run_script("report=false", "hydra.run.dir=run", *FEW)[0] == 0
    assert "completed before, skipped" in ran(run_script, "report=true", "hydra.run.dir=run", *FEW)


def test_report_can_be_turned_off(run_script: RunScript, tmp_path: Path) -> None:
    assert run_script("-m", "seed=0,1", "hydra.sweep.dir=sweep", *FEW, "report=false")[0] == 0
    assert not (tmp_path / "sweep" / "comparison").exists()


def wait_for_words(page: Path, words: str) -> None:
    """Wait until a refreshed page contains these words."""
    deadline = time.monotonic() + 90
    while not page.exists() or words not in page.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_watch_shows_a_running_sweep_and_its_death(tiny_mnist: Path, tmp_path: Path) -> None:
    sweep = start(tmp_path, tiny_mnist, "-m", "trainer.max_epochs=1,100000", "hydra.sweep.dir=sweep", "logger=none")
    wait_for(tmp_path, "sweep/1_*/metrics.json")
    watching = start(tmp_path, tiny_mnist, "sweep=sweep", "refresh_seconds=1", script="compare.py")
    page = tmp_path / "sweep" / "comparison" / "report.html"
    wait_for_words(page, "1 of 2 runs done, 1 running, 0 to go, about ")
    assert '<meta http-equiv="refresh" content="1">' in page.read_text(encoding="utf-8")
    sweep.kill()
    sweep.communicate()
    wait_for_words(page, "1 of 2 runs done, 0 running, 1 to go, about ")
    watching.terminate()
    watching.communicate()
    assert watching.returncode == 128 + signal.SIGTERM


def test_remaining_time_counts_unfinished_runs_divided_by_workers(
    run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = "optimizer.lr=1e30,0.01,0.02,0.03"  # the first diverges
    assert run_script("-m", rates, "hydra.sweep.dir=sweep", *FEW)[0] == 1
    for place in (2, 3):
        shutil.rmtree(tmp_path / "sweep" / f"{place}_relu-manual-none-s0")
    for path in tmp_path.glob("sweep/*/metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 7200.0}))
    said = run_script("sweep=sweep", script="compare.py")[1]
    assert "2 of 4 runs done, 0 running, 2 to go, about 4 h 00 min." in said
    start = tmp_path / "sweep" / "multirun.yaml"
    start.write_text(start.read_text().replace("hydra/launcher: basic", "hydra/launcher: parallel"))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert "2 to go, about 30 min." in run_script("sweep=sweep", script="compare.py")[1]


def test_watch_ends_with_the_sweep(run_script: RunScript, tmp_path: Path) -> None:
    assert run_script("-m", "seed=0,1", "hydra.sweep.dir=sweep", *FEW)[0] == 0
    assert " running, " not in ran(run_script, "sweep=sweep", "refresh_seconds=1", script="compare.py")
    assert 'http-equiv="refresh"' not in (tmp_path / "sweep" / "comparison" / "report.html").read_text(encoding="utf-8")
