"""Oracle: the run folder's contract, read back after the real command line on real MNIST."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.metrics import confusion_matrix

from conftest import (
    ROOT,
    SCRIPT,
    USUAL,
    RunCommand,
    RunScript,
    board_of,
    ended_at_scoring,
    mostly_slow,
    ran,
    record_of,
    refused,
    rows_of,
    session_of,
    start,
    start_fresh,
    wait_for,
    without_seconds,
)
from forks import Command
from handgrad.comparison.cells import settings_of
from handgrad.runs.checkpoint import read_checkpoint

CONTRACT = {".hydra", "checkpoints", "confusion_test.csv", "confusion_test.png", "confusion_train.csv", "curves.png"}
CONTRACT |= {"history.csv", "metrics.json", "predictions.csv", "predictions.png", "tensorboard"}
SHORT = ["trainer.max_epochs=1", "+trainer.limit_train_batches=20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one run of two epochs over all of MNIST, with its output in `printed`."""
    home = tmp_path_factory.mktemp("finished")
    (home / "data").symlink_to(ROOT / "data")
    arguments = ["trainer.max_epochs=2", "regularizer=l2", "seed=3"]
    status, out, err = Command(SCRIPT, arguments, home, USUAL).end()
    assert status == 0, err
    assert {path.name for path in home.iterdir()} == {"data", "outputs"}
    (folder,) = (home / "outputs" / "runs").iterdir()
    (home / "printed").write_text(out + err)
    return folder


def test_run_leaves_exactly_its_contract(folder: Path) -> None:
    assert folder.name.endswith("_relu-manual-l2-s3")
    assert {path.name for path in folder.iterdir()} == CONTRACT
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]


def test_metrics_agree_with_the_confusion_matrices(folder: Path) -> None:
    run = record_of(folder)
    assert (run["status"], run["reason"], run["seed"], run["epochs"]) == ("completed", None, 3, 2)
    assert run["choices"]["regularizer"] == "l2"
    assert 0 < run["seconds_per_epoch"] < run["seconds"]
    assert 300 < run["peak_memory_mb"] < 3000
    for name, images in (("train", 60_000), ("test", 10_000)):
        counts = np.loadtxt(folder / f"confusion_{name}.csv", delimiter=",", dtype=int)
        assert counts.shape == (10, 10)
        assert counts.sum() == images
        assert run["metrics"][f"{name}/accuracy"] == counts.trace() / images
    rows_are_true_classes = np.loadtxt(folder / "confusion_test.csv", delimiter=",", dtype=int).sum(axis=1)
    assert rows_are_true_classes.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert run["metrics"]["test/accuracy"] > 0.93


def test_history_has_a_row_per_epoch(folder: Path) -> None:
    rows = rows_of(folder)
    assert list(rows[0]) == ["epoch", "train/loss", "test/loss", "test/accuracy", "lr", "seconds", "batches"]
    assert [row["batches"] for row in rows] == ["938", "938"]
    assert [row["epoch"] for row in rows] == ["0", "1"]
    final = record_of(folder)["metrics"]
    assert float(rows[-1]["test/accuracy"]) == final["test/accuracy"]
    assert float(rows[-1]["test/loss"]) == final["test/loss"]
    assert float(rows[-1]["lr"]) == pytest.approx(0.01)


def test_console_shows_epochs_and_the_final_table(folder: Path) -> None:
    printed = (folder.parents[2] / "printed").read_text()
    assert "epoch 1/2  train/loss 0." in printed
    assert f"{record_of(folder)['metrics']['test/accuracy']:.2%}" in printed
    assert folder.name in printed
    assert "\r" not in printed
    assert "warn" not in printed.lower()


def test_figures_are_pictures(folder: Path) -> None:
    for name in ("curves", "predictions", "confusion_test"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(2**24)) > 20  # type: ignore[arg-type]


def test_tensorboard_has_every_metric(folder: Path) -> None:
    board = board_of(folder)
    tags = board.Tags()
    scalars = {"train/loss", "test/loss", "test/accuracy", "lr-FactoredSGD/weights", "lr-FactoredSGD/biases"}
    final = {"final/train_accuracy", "final/test_accuracy"}
    assert scalars | final <= set(tags["scalars"])
    assert "hp_metric" not in tags["scalars"]
    assert set(tags["images"]) == {"confusion/train", "confusion/test", "curves", "predictions"}
    assert [event.step for event in board.Scalars("train/loss")] == [937, 1875]
    assert "custom_scalars__config__" in tags["tensors"]  # both losses in one chart
    session = session_of(board)
    assert session.group_name == f"{folder.parent.name}/{folder.name}"
    start = session.hparams
    assert start["activation"].string_value == "relu"
    assert start["regularizer.strength"].number_value == 1e-5
    assert start["seed"].number_value == 3


def test_sweep_continues_after_a_diverged_cell(run_script: RunScript, tmp_path: Path) -> None:
    reason = "epoch 0, step 1: try a smaller optimizer.lr"
    printed = refused(run_script, reason, "-m", "optimizer.lr=1e30,0.01", "hydra.sweep.dir=sweep", *SHORT)
    first, second = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert (first.name, second.name) == ("0_relu-manual-none-s0", "1_relu-manual-none-s0")
    run = record_of(first)
    assert (run["status"], run["epoch"], run["step"]) == ("diverged", 0, 1)
    assert reason in run["reason"]
    assert run["reason"] in printed
    assert record_of(second)["status"] == "completed"


def test_validation_split_is_watched_and_the_test_set_scored_once(run_script: RunScript) -> None:
    ran(run_script, "engine=autograd", "data.val_size=280", "hydra.run.dir=run", *SHORT)
    (row,) = rows_of("run")
    assert {"val/loss", "val/accuracy"} < set(row)
    assert not {name for name in row if name.startswith("test/")}
    assert {name.split("/")[0] for name in record_of("run")["metrics"]} == {"train", "val", "test"}
    assert np.loadtxt("run/confusion_train.csv", delimiter=",").sum() == 1000


def test_search_continues_after_a_diverged_trial(run_script: RunScript, tmp_path: Path) -> None:
    # Seed 0 draws both rates in three trials; Optuna 2's grid sampler cannot end on a failed trial.
    sampler = ["hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=3"]
    search = ["-m", "hydra/sweeper=search", *sampler, "optimizer.lr=choice(1e30,0.01)"]
    chosen_by = ["optimized_metric=val/loss", "data.val_size=280", "data.score_test=false", "hydra.sweep.dir=sweep"]
    ran(run_script, *search, *chosen_by, *SHORT)
    runs = [record_of(file.parent) for file in (tmp_path / "sweep").glob("*/metrics.json")]
    assert {run["status"] for run in runs} == {"completed", "diverged"}
    found = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    assert found.best_params == {"optimizer.lr": 0.01}
    assert found.best_value in {run["metrics"].get("val/loss") for run in runs}


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra `cluster`")
def test_ray_gives_the_numbers_of_a_plain_run(command: RunCommand, tmp_path: Path) -> None:
    done = command("train.py", "-m", "hydra/launcher=ray", "threads=1", "seed=0,1", "hydra.sweep.dir=sweep", *SHORT)
    assert done.status == 0, done.err
    assert command("train.py", "threads=1", "seed=1", "hydra.run.dir=plain", *SHORT).status == 0
    by_ray = record_of(tmp_path / "sweep" / "1_relu-manual-none-s1")
    assert by_ray["metrics"] == record_of(tmp_path / "plain")["metrics"]


def test_predictions_agree_with_the_confusion_matrix(folder: Path) -> None:
    true, predicted, probability = np.loadtxt(folder / "predictions.csv", delimiter=",", skiprows=1, unpack=True)
    counts = np.loadtxt(folder / "confusion_test.csv", delimiter=",", dtype=int)
    assert (confusion_matrix(true, predicted) == counts).all()
    assert ((probability > 0.1) & (probability <= 1)).all()
    assert probability[true == predicted].mean() > probability[true != predicted].mean()


def test_finished_folder_is_not_run_again(command: RunCommand, folder: Path) -> None:
    before = record_of(folder)
    done = command("train.py", "trainer.max_epochs=2", "regularizer=l2", "seed=3", f"hydra.run.dir={folder}")
    assert done.status == 0
    assert "relu-manual-l2-s3: completed before, skipped" in done.out
    done = command("train.py", f"hydra.run.dir={folder}")
    assert "holds a run with another configuration: choose another folder" in done.err
    assert record_of(folder) == before


def test_repeated_sweep_runs_only_what_is_missing(run_script: RunScript, tmp_path: Path) -> None:
    sweep = ["-m", "hydra.sweep.dir=sweep", "activation=relu,tanh", *SHORT]
    assert run_script(*sweep, "optimizer.lr=0.01")[0] == 0
    damaged = tmp_path / "sweep" / "1_tanh-manual-none-s0" / "metrics.json"
    damaged.write_text(json.dumps(json.loads(damaged.read_text()) | {"status": "failed", "metrics": {}}))
    printed = ran(run_script, *sweep, "optimizer.lr=0.01", "seed=0,1")  # renumbers the jobs
    assert f"relu-manual-none-s0: completed before, skipped ({tmp_path}/sweep/0_relu-manual-none-s0)" in printed
    assert f"tanh-manual-none-s0: resuming from {tmp_path}/sweep/1_tanh-manual-none-s0/checkpoints/last.ckpt" in printed
    runs = {path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()}
    assert runs == {"0_relu-manual-none-s0", "1_tanh-manual-none-s0", "1_relu-manual-none-s1", "3_tanh-manual-none-s1"}
    assert all(record_of(tmp_path / "sweep" / name)["status"] == "completed" for name in runs)


REGULARIZED = ["regularizer=dropout", "regularizer.adversarial=0.5"]


@pytest.mark.parametrize(
    "options",
    mostly_slow(
        [
            ["engine=autograd", "schedule=warmup"],
            ["optimizer=factored_sgd", "optimizer.momentum=0.9", "optimizer.nesterov=true", *REGULARIZED],
            ["optimizer=adam", "optimizer.lr=0.001"],
            ["engine=autograd", "optimizer=sgd", *REGULARIZED],
        ],
        always=2,
    ),
    ids=["autograd", "regularized by hand", "by hand", "regularized"],
)
def test_killed_run_resumes_to_the_same_result(
    run_script: RunScript, tiny_mnist: Path, tmp_path: Path, options: list[str]
) -> None:
    arguments = ["trainer.max_epochs=6", "network.hidden_sizes=[30]", *options]
    arguments += ["trainer.precision=64-true", "+trainer.log_every_n_steps=5"]
    process = start(tmp_path, tiny_mnist, "hydra.run.dir=killed", *arguments)
    wait_for(tmp_path, "killed/checkpoints/last.ckpt")
    process.kill()
    process.communicate()
    assert record_of(tmp_path / "killed")["status"] == "running"
    saved = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["epoch"] < 5  # in the middle, not at the end
    status, printed = run_script("hydra.run.dir=killed", *arguments)
    assert (status, "epoch 1/6" in printed) == (0, False)
    assert run_script("hydra.run.dir=whole", *arguments)[0] == 0
    assert record_of("killed")["metrics"] == record_of("whole")["metrics"]
    assert without_seconds("killed") == without_seconds("whole")
    assert len(rows_of("whole")) == 6


@pytest.mark.usefixtures("drawn")
def test_search_gets_its_objective_without_the_test_set(run_script: RunScript, tmp_path: Path) -> None:
    arguments = ["data.val_size=280", "data.score_test=false", "hydra.run.dir=run", *SHORT]
    printed = run_script("optimized_metric=test/loss", *arguments)[1]
    assert "optimized_metric=test/loss is not among this run's metrics: val/loss" in printed
    run = record_of(tmp_path / "run")
    assert {name.split("/")[0] for name in run["metrics"]} == {"train", "val"}
    assert "confusion_val.png" in {path.name for path in (tmp_path / "run").iterdir()}
    assert not (tmp_path / "run" / "predictions.csv").exists()


def test_help_imports_nothing_heavy() -> None:
    script = [sys.executable, "-X", "importtime", str(ROOT / "src" / "train.py"), "--help"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "activation: gelu, leaky_relu, relu, sigmoid, silu, softplus, tanh" in done.stdout
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "torchvision", "matplotlib", "numpy"}


@pytest.mark.slow
def test_parallel_sweep_gives_the_numbers_of_the_serial_one(
    run_script: RunScript, tiny_mnist: Path, tmp_path: Path
) -> None:
    """In a fresh interpreter: joblib's end is the interpreter's business."""
    sweep = ["-m", "optimizer.lr=1e30,0.01", "+trainer.log_every_n_steps=5", "report=false", *SHORT]
    parallel = start_fresh(tmp_path, tiny_mnist, *sweep, "hydra/launcher=parallel", "hydra.sweep.dir=parallel")
    out, err = parallel.communicate(timeout=100)
    assert parallel.returncode == 1
    assert "Done   2 out of   2" in err
    assert "epoch 1/1" not in out
    assert "step 1: try a smaller optimizer.lr" in err
    run_script(*sweep, "threads=1", "hydra.sweep.dir=serial")
    for cell, status in (("0_relu-manual-none-s0", "diverged"), ("1_relu-manual-none-s0", "completed")):
        one, other = record_of(tmp_path / "parallel" / cell), record_of(tmp_path / "serial" / cell)
        assert one["status"] == other["status"] == status
        assert one["metrics"] == other["metrics"]
    train, test = (one["metrics"][f"{name}/accuracy"] for name in ("train", "test"))
    assert f"relu-manual-none-s0: train/accuracy {train:.2%}, test/accuracy {test:.2%}" in out + err


def test_later_default_and_integer_do_not_change_the_configuration(run_script: RunScript) -> None:
    typed = ["trainer.max_epochs=2", "logger=none", "engine=manual", "network.hidden_sizes=[16]", "schedule=constant"]
    with ended_at_scoring(2):
        assert run_script(*typed, "optimizer.lr=1", "hydra.run.dir=sweep/0_a")[0] == 143
    folder = Path("sweep", "0_a")
    last = folder / "checkpoints" / "last.ckpt"

    def recorded(data: dict[str, Any]) -> None:
        """Change the data configuration recorded in the run and its checkpoint."""
        record = record_of(folder)
        older = record["config"] | {"data": data}
        (folder / "metrics.json").write_text(json.dumps(record | {"config": older}))
        torch.save(read_checkpoint(last)[0] | {"hyper_parameters": older}, last)

    data = record_of(folder)["config"]["data"]
    recorded({key: value for key, value in data.items() if key != "score_test"})
    missing = "data.score_test (missing, not true)"  # which has no default
    refused(run_script, missing, *typed, "optimizer.lr=1.0", "hydra.run.dir=sweep/0_a")

    older = {key: value for key, value in data.items() if key != "dataset"} | {"block": None}
    recorded(older)
    assert "resuming from" in ran(run_script, *typed, "optimizer.lr=1.0", "hydra.run.dir=sweep/0_a")
    recorded(older)
    sweep = ["-m", *typed, "seed=0,1", "optimizer.lr=1.0", "hydra.sweep.dir=sweep"]
    assert "completed before, skipped" in ran(run_script, *sweep)
    settings = [settings_of(record_of(path.parent)) for path in Path("sweep").glob("*/metrics.json")]
    assert len(settings) == 2
    assert settings[0] == settings[1]
    refused(run_script, "it has optimizer.lr (1.0, not 1.5)", *typed, "optimizer.lr=1.5", "hydra.run.dir=sweep/0_a")


@pytest.mark.parametrize("engine", ["manual", "autograd"])
def test_loss_of_every_nth_batch_is_logged(run_script: RunScript, engine: str) -> None:
    """The mean over all batches is the epoch's train/loss; logging every fifth step keeps those batches' losses."""
    typed = [f"engine={engine}", "trainer.max_epochs=1", "network.hidden_sizes=[16]", "trainer.precision=64-true"]
    found = []
    for every in (1, 5):
        folder = f"run{every}"
        assert run_script(*typed, f"+trainer.log_every_n_steps={every}", f"hydra.run.dir={folder}")[0] == 0
        found.append({event.step: event.value for event in board_of(folder).Scalars("train/step_loss")})
    everywhere, some = found
    assert list(everywhere) == list(range(20))
    assert some == {step: everywhere[step] for step in (4, 9, 14, 19)}
    (row,) = rows_of("run1")
    assert np.mean(list(everywhere.values())) == pytest.approx(float(row["train/loss"]), rel=1e-6)
