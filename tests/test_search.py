"""Oracle: the study that Optuna reads back from its file, and the runs' folders, after the real command was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
from omegaconf import OmegaConf

from conftest import ROOT, Here, record_of

SEARCH = ["-m", "hydra/sweeper=search", "optimized_metric=test/loss", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{(folder / 'study.db').absolute().as_uri()}?uri=true"
    return optuna.load_study(study_name="search", storage=url).trials


def values(folder: Path) -> list[float]:
    return [trial.params["optimizer.lr"] for trial in trials(folder)]


def test_search_that_was_killed_goes_on_with_its_study(here: Here, small: Path, tmp_path: Path) -> None:
    folder = Path("new", "a b?{c}#%41é")  # signs that would mean something in a URL
    ours = [*SEARCH, f"hydra.sweep.dir='{folder}'", "trainer.max_epochs=10", "hydra.sweeper.n_trials=2"]
    given = [f"data.root={small}", "+trainer.log_every_n_steps=5", "+trainer.limit_val_batches=1"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "src" / "train.py", *ours, *given],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    second = folder / "1_relu-manual-none-s0"
    while not (second / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = values(folder)
    assert [trial.state.name for trial in trials(folder)] == ["COMPLETE", "RUNNING"]
    assert record_of(second)["status"] == "running"

    ours[-1] = "hydra.sweeper.n_trials=3"
    status, printed = here(*ours, *given)
    assert status == 0, printed
    assert f"goes on with the study in {folder.absolute()}: 1 of 3 trials have ended" in printed
    assert f"goes on from {second.absolute() / 'checkpoints' / 'last.ckpt'}" in printed
    assert [trial.state.name for trial in trials(folder)] == ["COMPLETE"] * 3
    assert values(folder)[:2] == begun
    runs = {path.parent.name: record_of(path.parent) for path in folder.glob("*/metrics.json")}
    assert sorted(runs) == [f"{number}_relu-manual-none-s0" for number in range(3)]
    for trial in trials(folder):
        run = runs[f"{trial.number}_relu-manual-none-s0"]
        assert (run["config"]["optimizer"]["lr"], run["metrics"]["test/loss"]) == (
            trial.params["optimizer.lr"],
            trial.value,
        )
    assert OmegaConf.load(folder / "optimization_results.yaml").best_value == min(
        run["metrics"]["test/loss"] for run in runs.values()
    )


def test_search_with_a_seed_of_its_own_draws_no_value_twice(here: Here) -> None:
    ours = [*SEARCH, "hydra.sweep.dir=sweep", "trainer.max_epochs=1", "+trainer.limit_train_batches=5"]
    seeded = ["hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0"]
    for n_trials in (1, 2):
        status, printed = here(*ours, *seeded, f"hydra.sweeper.n_trials={n_trials}")
        assert status == 0, printed
    assert len(set(values(Path("sweep")))) == 2


def test_folder_of_another_search_is_refused_and_a_damaged_study_is_one_sentence(here: Here) -> None:
    ours = [*SEARCH, "hydra.sweep.dir=sweep", "trainer.max_epochs=1", "+trainer.limit_train_batches=5"]
    one = "hydra.sweeper.n_trials=1"
    assert here(*ours, one)[0] == 0
    status, printed = here(*ours, "seed=1")
    assert status == 1
    assert f"{Path('sweep').absolute()} holds another search, +trainer.limit_train_batches=5 " in printed
    status, printed = here(*ours, one)  # all its trials have ended: it says the best
    assert status == 0, printed
    assert "Best value" in printed
    Path("sweep", "study.db").write_text("no database, but long enough to be asked what it is" * 50)
    status, printed = here(*ours, one)
    assert status == 1
    assert "Traceback" not in printed
    assert "the study in" in printed.splitlines()[-1]
    assert len(list(Path("sweep").glob("*/metrics.json"))) == 1


def test_search_of_which_no_trial_is_completed_is_one_sentence(here: Here) -> None:
    diverging = ["optimizer.lr=choice(1e30)", "trainer.max_epochs=1", "hydra.sweeper.n_trials=2"]
    status, printed = here(
        "-m", "hydra/sweeper=search", "hydra.sweep.dir=sweep", "optimized_metric=test/loss", *diverging
    )
    assert status == 1
    assert "Traceback" not in printed
    assert "no trial of the search in" in printed.splitlines()[-1]
