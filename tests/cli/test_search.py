"""Oracle: the study that Optuna reads back from its file, and the runs' folders."""

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
from omegaconf import OmegaConf

from conftest import RunScript, ran, record_of, refused

SEARCH = ["-m", "hydra/sweeper=search", "hydra.sweep.dir=sweep", "optimized_metric=test/loss"]
SHORT = ["trainer.max_epochs=1", "+trainer.limit_train_batches=5"]
RATE = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


def trials() -> list[list[optuna.trial.FrozenTrial]]:
    """Return the trials of every study in the file."""
    url = "sqlite:///sweep/study.db"
    with closing(sqlite3.connect("sweep/study.db")) as file:
        names = [name for (name,) in file.execute("select study_name from studies order by study_id")]
    return [optuna.load_study(study_name=name, storage=url).trials for name in names]


def test_search_resumes_its_study_and_every_trial_has_a_run(run_script: RunScript) -> None:
    for n_trials in (2, 1):
        ran(run_script, *SEARCH, *SHORT, RATE, f"hydra.sweeper.n_trials={n_trials}")
    (study,) = trials()
    assert [trial.state.name for trial in study] == ["COMPLETE"] * 3
    runs = [record_of(path.parent) for path in Path("sweep").glob("*/metrics.json")]
    made = {run["config"]["optimizer"]["lr"]: run["metrics"]["test/loss"] for run in runs}
    assert made == {trial.params["optimizer.lr"]: trial.value for trial in study}
    assert len(made) == 3
    assert OmegaConf.load("sweep/optimization_results.yaml").best_value == min(made.values())


def test_other_search_gets_its_own_study_and_a_damaged_file_is_refused(run_script: RunScript) -> None:
    one = "hydra.sweeper.n_trials=1"
    for seed in (0, 1):
        assert run_script(*SEARCH, *SHORT, RATE, f"seed={seed}", one)[0] == 0
    assert [len(study) for study in trials()] == [1, 1]
    Path("sweep", "study.db").write_text("no database, but long enough to be asked what it is" * 50)
    printed = refused(run_script, "hydra.sweeper.storage", *SEARCH, *SHORT, RATE, one)
    assert "hydra.sweeper.storage" in printed.splitlines()[-1]
    assert len(list(Path("sweep").glob("*/metrics.json"))) == 2


def test_search_without_a_completed_trial_ends_in_one_sentence(run_script: RunScript) -> None:
    failing = ["optimizer.lr=choice(1e30)", *SHORT, "hydra.sweeper.n_trials=2"]
    assert "the search has no result" in refused(run_script, "", *SEARCH, *failing).splitlines()[-1]


def test_search_for_an_accuracy_maximises_it(run_script: RunScript) -> None:
    search = [word.replace("test/loss", "test/accuracy") for word in SEARCH]
    rates = "optimizer.lr=tag(log,interval(1e-5,5e-2))"
    status, printed = run_script(*search, "trainer.max_epochs=1", rates, "hydra.sweeper.n_trials=3")
    assert status in (0, 1), printed  # 1 if a rate is so high that its run diverges
    with closing(sqlite3.connect("sweep/study.db")) as file:
        assert file.execute("select direction from study_directions").fetchall() == [("MAXIMIZE",)]
    values = [trial.value for (study,) in [trials()] for trial in study if trial.value is not None]
    assert OmegaConf.load("sweep/optimization_results.yaml").best_value == max(values)
