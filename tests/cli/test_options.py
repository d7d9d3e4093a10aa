"""Oracle: the meaning of every option, read back from the files that the real command leaves."""

import csv
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import hydra
import pandas as pd
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from conftest import ROOT, RunScript, ended_at_scoring, record_of
from handgrad.hydra_version import BASE

RUN = ["hydra.run.dir=run", "trainer.max_epochs=1"]
BY_ACCURACY = ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/accuracy"]


def well(run_script: RunScript, *options: str) -> str:
    """Run the command, assert status 0, and return its output."""
    status, printed = run_script(*options)
    assert status == 0, printed
    return printed


def history(folder: Path = Path("run")) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "history.csv").read_text(encoding="utf-8").splitlines()))


def test_epoch_cut_by_max_steps_has_no_scores_of_another_epoch(run_script: RunScript) -> None:
    well(run_script, *RUN, "trainer.max_epochs=2", "+trainer.max_steps=25")
    whole, cut = history()
    assert (whole["batches"], cut["batches"]) == ("20", "5")
    assert whole["test/accuracy"]
    assert (cut["test/accuracy"], cut["test/loss"]) == ("", "")
    assert float(cut["train/loss"]) < float(whole["train/loss"])
    run = record_of(Path("run"))
    assert (run["epochs"], run["seconds_per_epoch"]) == (2, float(whole["seconds"]))


@pytest.mark.parametrize(("interval", "scored_at_the_end"), [("5", True), ("0.3", False)])
def test_mid_epoch_scores_are_not_in_the_history_row(
    run_script: RunScript, interval: str, scored_at_the_end: bool
) -> None:
    well(run_script, *RUN, f"+trainer.val_check_interval={interval}")
    (row,) = history()
    if scored_at_the_end:
        assert float(row["test/accuracy"]) == record_of(Path("run"))["metrics"]["test/accuracy"]
    else:
        assert row["test/accuracy"] == ""


def test_run_that_ends_inside_its_first_epoch_is_scored_and_recorded(run_script: RunScript) -> None:
    well(run_script, *RUN, "+trainer.max_steps=12")
    (row,) = history()
    assert (row["batches"], row["test/loss"]) == ("12", "")
    assert 0 < record_of(Path("run"))["metrics"]["test/accuracy"] < 1


COSINE = ["schedule=warmup_cosine", "schedule.warmup_steps=3"]


@pytest.mark.parametrize(
    "options",
    [
        ["+trainer.limit_train_batches=12"],
        ["+trainer.limit_train_batches=0.5"],
        ["+trainer.max_steps=12"],
        ["trainer.max_epochs=2", "+trainer.max_steps=33"],
        ["engine=autograd", *COSINE, "+trainer.accumulate_grad_batches=3"],
    ],
    ids=lambda options: " ".join(option.split(".")[-1] for option in options[-1:]),
)
def test_cosine_reaches_zero_at_the_last_step_taken(run_script: RunScript, options: list[str]) -> None:
    well(run_script, *RUN, *COSINE, *options)
    assert float(history()[-1]["lr"]) == pytest.approx(0, abs=1e-12)


def test_explicit_total_steps_are_kept_or_refused(run_script: RunScript) -> None:
    well(run_script, *RUN, *COSINE, "schedule.total_steps=37")
    assert float(history()[-1]["lr"]) == pytest.approx(0.01 / 2)  # half way: step 20 of 3 to 37
    status, printed = run_script(*RUN, *COSINE, "schedule.total_steps=10", "hydra.run.dir=refused")
    assert status == 1
    assert "schedule.total_steps=10 is less than the 20 steps of this run: leave it null" in printed


def test_hparams_table_has_a_column_for_every_choice_and_value_and_none_for_a_class(run_script: RunScript) -> None:
    options = ["optimizer=sgd", "optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9,0.5"]
    well(run_script, "-m", "hydra.sweep.dir=sweep", *RUN[1:], *options, "+optimizer.nesterov=true")
    columns = []
    for folder in sorted(Path("sweep").glob("*_relu*")):
        board = EventAccumulator(str(folder / "tensorboard"))
        board.Reload()
        start = HParamsPluginData.FromString(
            board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        ).session_start_info.hparams
        columns.append(dict(start))
    assert [row["optimizer.momentum"].number_value for row in columns] == [0.9, 0.5]
    assert not [name for name in columns[0] if name.endswith("_target_")]
    assert columns[0]["optimizer.nesterov"].string_value == "true"
    assert columns[0]["optimized_metric"].string_value == "null"
    assert columns[0]["activation"].string_value == "relu"


@pytest.mark.parametrize("engine", ["manual", "autograd"])
def test_plateau_schedule_follows_the_training_loss(run_script: RunScript, engine: str) -> None:
    plateau = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0, threshold: 0.9}"
    options = [f"engine={engine}", "optimizer=sgd", "~schedule", f"+schedule={plateau}", "trainer.max_epochs=4"]
    well(run_script, *RUN, *options)
    rates = [float(row["lr"]) for row in history()]
    assert rates == pytest.approx([0.1, 0.01, 0.001, 0.0001])


def test_option_typed_replaces_an_experiments_deformation(run_script: RunScript) -> None:
    well(run_script, *RUN, "experiment=fast", "data/deform=none", "schedule.warmup_steps=2")
    assert record_of(Path("run"))["config"]["data"]["deform"] is None
    assert not Path("run", "deformed.png").exists()


def test_lists_of_callbacks_and_loggers_go_together(run_script: RunScript) -> None:
    well(
        run_script,
        *RUN,
        "logger=[csv,tensorboard]",
        "callbacks=[early_stopping,best_checkpoint]",
        "data.val_size=280",
    )
    assert list(Path("run", "csv").iterdir())
    assert list(Path("run", "tensorboard").iterdir())
    assert {path.name for path in Path("run", "checkpoints").iterdir()} > {"last.ckpt"}


def test_users_callbacks_and_loggers_are_added_to_ours(run_script: RunScript) -> None:
    one = "+trainer.callbacks={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: kept}"
    logger = "+trainer.logger=[{_target_: lightning.pytorch.loggers.CSVLogger, save_dir: theirs}]"
    well(run_script, *RUN, one, logger, "+trainer.max_time={minutes: 5}")
    assert list(Path("kept").glob("*.ckpt"))
    assert list(Path("theirs").rglob("metrics.csv"))
    assert list(Path("run", "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["+trainer.num_nodes=2"], "invalid value trainer.num_nodes=2: must be 1"),
        (["regularizer=[l2,dropout]"], "regularizer=[...]: choose one option, and add the other's key"),
        (["regularizer=dropout", "+regularizer=smoothing"], "regularizer=[...]: choose one option"),
        (
            ["experiment=fast", "regularizer=none"],
            "regularizer=none, but an experiment or a + sets",
        ),
        (["+data.deform.rotation=5"], "data/deform=none, but an experiment or a + sets data.deform.rotation"),
        (["data.deform=elastic"], "must be chosen with a slash: data/deform=elastic"),
        (["data/deform=[affine,elastic]"], "data/deform=[...]: choose one option"),
        (
            ["data/deform=affine", "+data.deform.sigma=6"],
            "has a sigma, but no elastic field for it: data/deform=elastic",
        ),
        (["regularizer=adversarial", "trainer.precision=16-true"], "rounds small gradients of the inputs to zero"),
        (["regularizer.dropout=0.2"], "unknown key regularizer.dropout: there is none; choose regularizer=l2, dropout"),
        (["regularizer=dropout", "network.hidden_sizes=[]"], "regularizer: dropout drops nothing"),
        (["regularizer=dropout", "regularizer.dropout=1"], "dropout=1: must be a rate from 0 to below 1, or a list"),
        (["regularizer=smoothing", "skip=0.1"], "skip=0.1: with regularizer.smoothing no example is learned so well"),
        (["+trainer.max_time=00:00:00:00"], "trainer: training ended before its first step, by max_time or a callback"),
        (["seed=${oc.env:HANDGRAD_SEED}"], 'invalid value seed="3": must be a valid integer, not a text'),
        (["~optimizer"], "optimizer is missing: give it a value or, a group, one of its options"),
        (["~schedule"], "schedule is missing"),
        (
            ["schedule=null"],
            "leave out schedule=null, or choose an option, none where there is one (--help lists them)",
        ),
        (
            ["optimizer=sgd", "optimizer._target_=torch.optim.SparseAdam", "~optimizer.fused"],
            "optimizer: SparseAdam does",
        ),
        (
            ["engine=autograd", "optimizer._target_=torch.optim.LBFGS", "~optimizer.fused"],
            "optimizer: LBFGS evaluates the closure 2 times within a step, which is not supported",
        ),
        (
            ["+trainer.limit_train_batches=0"],
            "invalid value trainer.limit_train_batches=0: must be a number of batches",
        ),
        (["+trainer.max_steps=0"], "invalid value trainer.max_steps=0: must be a number of steps from 1 on, or -1"),
        (
            ["trainer.num_sanity_val_steps=-5"],
            "invalid value trainer.num_sanity_val_steps=-5: must be >=",
        ),
        (
            ["+trainer.gradient_clip_val=-1"],
            "invalid value trainer.gradient_clip_val=-1: must be >=",
        ),
        (["optimizer.weight_reduction=foo"], "invalid value optimizer.weight_reduction=foo: must be 'mean' or 'sum'"),
        (["schedule.total_iters=1.5"], "invalid value schedule.total_iters=1.5: must be a valid integer"),
        (
            ["data.dataset=CIFAR10"],
            "invalid value data.dataset=CIFAR10: must be 'MNIST', 'FashionMNIST', 'KMNIST', 'QMNIST' or 'EMNIST'",
        ),
        (
            ["data.batch_size=1000000000000000000000"],
            "invalid value data.batch_size=1000000000000000000000: must be <",
        ),
        (["name=''"], "invalid value name=: "),
        (["name={a: 1}"], 'invalid value name={"a": 1}: must be a valid string'),
        (["+trainer.enable_checkpointing=false"], "invalid value trainer.enable_checkpointing=false: must be True"),
        (["seed=${nope}"], "Interpolation key 'nope' not found"),
        (["hydra.run.dir=file"], "cannot use file (File exists): make room there, or choose another folder"),
        (["hydra.run.dir=/proc/nowhere"], "cannot use /proc/nowhere (No such file or directory)"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_invalid_option_is_refused_in_one_sentence(
    run_script: RunScript, options: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDGRAD_SEED", "3")
    Path("file").touch()
    status, printed = run_script(*RUN, *options)
    assert status == 1
    assert sentence in printed
    assert "Traceback" not in printed
    assert not Path("run", "history.csv").exists()


def every_key(node: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        keys.append(prefix + key)
        if OmegaConf.is_dict(child := node._get_node(key)):
            keys += every_key(child, f"{prefix}{key}.")
    return keys


@pytest.mark.slow
def test_null_for_any_key_works_or_is_refused(run_script: RunScript) -> None:
    with hydra.initialize_config_dir(str(ROOT / "conf"), **BASE):
        keys = every_key(hydra.compose("train"))
    groups = [path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra"]
    of_hydra = ["hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.run.dir", "hydra.job", "hydra.runtime"]
    for key in dict.fromkeys([*groups, *keys, *of_hydra]):
        quick = ["+trainer.limit_train_batches=5", *([] if "logger" in key else ["logger=none"])]
        status, printed = run_script(f"hydra.run.dir={key}", *RUN[1:], *quick, f"{key}=null")
        assert "Traceback" not in printed, key
        if status:
            sentence = printed.strip().splitlines()[-1]
            assert len(sentence) > 20, key
        else:
            assert record_of(Path(key))["status"] == "completed"


def test_diverged_run_is_skipped_with_the_same_status(run_script: RunScript) -> None:
    options = [*RUN, "optimizer.lr=1e30"]
    first, second = run_script(*options), run_script(*options)
    assert first[0] == second[0] == 1
    assert "relu-manual-none-s0: diverged before, skipped" in second[1]
    reason = record_of(Path("run"))["reason"]
    assert reason in first[1]
    assert f"{reason} (delete {Path('run').absolute()} to try again)" in second[1]


@pytest.mark.parametrize("name", ["../../x", "/abs", "a/b", "..", "5", "x" * 300, "[b]<i>$x$ ±"])
def test_name_cannot_leave_the_dated_folder(run_script: RunScript, name: str, tmp_path: Path) -> None:
    printed = well(run_script, *RUN[1:], f"name='{name}'")
    (folder,) = Path("outputs", "runs").iterdir()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert record_of(folder)["name"] == name
    assert name[:60] in printed


def test_paths_are_relative_to_the_working_directory(run_script: RunScript, tiny_mnist: Path, tmp_path: Path) -> None:
    Path("data").symlink_to(tiny_mnist)
    printed = well(run_script, "hydra.job.chdir=true", "hydra.run.dir=a/run", *RUN[1:], "data.root=data")
    assert str(tmp_path / "a" / "run") in printed
    assert {path.name for path in tmp_path.iterdir()} == {"a", "data"}


def test_run_in_a_folder_of_another_configuration_names_the_keys(run_script: RunScript) -> None:
    well(run_script, *RUN)
    status, printed = run_script(*RUN, "seed=1", "optimizer.lr=0.1")
    assert status == 1
    assert (
        "it has seed (0, not 1), name (relu-manual-none-s0, not relu-manual-none-s1), optimizer.lr (0.01, not 0.1)"
        in printed
    )


class Vandal(Callback):
    """Callback that damages the run's folder before the second epoch."""

    def __init__(self, deed: str) -> None:
        self.deed = deed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            folder = Path(trainer.default_root_dir)
            if self.deed == "delete":
                shutil.rmtree(folder)
            elif self.deed == "move":
                folder.rename("moved")
            else:
                shutil.rmtree(folder / "checkpoints")
                (folder / "checkpoints").touch()


@pytest.mark.parametrize("deed", ["delete", "move", "file for a folder"])
def test_folder_damaged_during_the_run_is_reported_in_one_sentence(run_script: RunScript, deed: str) -> None:
    vandal = f"+trainer.callbacks={{_target_: test_options.Vandal, deed: {deed}}}"
    status, printed = run_script(*RUN, "trainer.max_epochs=3", vandal)
    assert status == 1
    assert "Traceback" not in printed
    sentence = printed.strip().splitlines()[-1]
    assert f"cannot use {Path('run').absolute()}" in sentence
    if deed == "move":
        assert len(history(Path("moved"))) == 1


@pytest.mark.parametrize("name", ["tensorboard", "checkpoints", "metrics.json"])
def test_blocked_path_is_reported_before_training(run_script: RunScript, name: str) -> None:
    target = Path("run", name)
    target.parent.mkdir()
    target.mkdir() if name == "metrics.json" else target.touch()
    status, printed = run_script(*RUN)
    assert status == 1
    assert str(target.absolute()) in printed
    assert "epoch 1/1" not in printed
    assert "Traceback" not in printed


class Stopper(Callback):
    """Callback that ends the run once, in the middle of its second epoch."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.current_epoch == 1 and trainer.global_step == 35 and Path("stop").exists():
            Path("stop").unlink()
            raise SystemExit(143)


def test_tensorboard_of_a_resumed_run_has_every_step_once(run_script: RunScript) -> None:
    options = [*RUN, "trainer.max_epochs=3", "+trainer.callbacks={_target_: test_options.Stopper}"]
    Path("stop").touch()
    assert run_script(*options)[0] == 143
    assert "goes on from" in well(run_script, *options)
    board = EventAccumulator(str(Path("run", "tensorboard")))
    board.Reload()
    for tag in ("train/loss", "lr-FactoredSGD/weights", "test/accuracy"):
        steps = [event.step for event in board.Scalars(tag)]
        assert len(steps) == len(set(steps)), tag
    assert [event.step for event in board.Scalars("train/loss")] == [19, 39, 59]
    assert [row["epoch"] for row in history()] == ["0", "1", "2"]


class Witness(Callback):
    """Callback that records the pixel sum of every batch, by epoch."""

    seen: ClassVar[list[list[float]]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Witness.seen.append([])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        Witness.seen[-1].append(float(batch[0].sum()))


@pytest.mark.filterwarnings("ignore")  # Lightning warns that it turns off what is off already
def test_overfitting_sees_the_same_batches_in_every_epoch(run_script: RunScript) -> None:
    Witness.seen.clear()
    witness = "+trainer.callbacks={_target_: test_options.Witness}"
    well(run_script, *RUN, "trainer.max_epochs=3", "+trainer.overfit_batches=3", witness)
    first, second, third = Witness.seen
    assert first == second == third
    assert len(first) == 3


def test_fast_dev_run_leaves_no_files(run_script: RunScript, tmp_path: Path) -> None:
    printed = well(run_script, *RUN, "+trainer.fast_dev_run=true")
    assert (
        printed.strip().splitlines()[-1].startswith("fast_dev_run: 1 batch(es) each of training, validation and test")
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("callback", ["early_stopping", "best_checkpoint"])
def test_callbacks_may_not_monitor_the_test_set(run_script: RunScript, callback: str) -> None:
    for monitor, remedy in (
        ("test/loss", "monitor val/loss and hold images out with data.val_size=6000"),
        ("val/loss", "needs images held out: data.val_size=6000"),
    ):
        status, said = run_script(f"callbacks={callback}", f"callbacks.{callback}.monitor={monitor}")
        assert (status, remedy in said) == (1, True)


def test_early_stopping_ends_a_run_that_no_longer_improves(run_script: RunScript) -> None:
    options = [
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "+callbacks.early_stopping.min_delta=9",
    ]
    well(run_script, *RUN, "trainer.max_epochs=9", "data.val_size=100", *options)
    assert len(history()) == 2


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", min), ("val/accuracy", max)])
def test_best_checkpoint_follows_the_direction_of_its_metric(
    run_script: RunScript, monitor: str, best: Callable[[list[float]], float]
) -> None:
    """A rate that rises and then falls gives an epoch that is neither first nor last."""
    options = ["callbacks=best_checkpoint", "data.val_size=200", "trainer.max_epochs=4", "seed=2"]
    well(run_script, *RUN, *options, f"callbacks.best_checkpoint.monitor={monitor}")
    values = [float(row[monitor]) for row in history()]
    saved = torch.load(Path("run", "checkpoints", "best.ckpt"), weights_only=True)
    assert values.index(min(values)) != values.index(max(values))
    assert saved["epoch"] == values.index(best(values))
    assert {path.name for path in Path("run", "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize("given", ["callbacks=early_stopping", "+trainer.callbacks={_target_: X, monitor: train/loss}"])
def test_early_stopping_by_accuracy_goes_on_while_it_rises(run_script: RunScript, given: str) -> None:
    target = "lightning.pytorch.callbacks.EarlyStopping"
    options = [given.replace("X", target).replace("train/loss", "val/accuracy"), "data.val_size=200"]
    if given.startswith("callbacks"):
        options += ["callbacks.early_stopping.monitor=val/accuracy", "callbacks.early_stopping.patience=1"]
    well(run_script, *RUN, "trainer.max_epochs=4", *options, "optimizer.lr=0.001")
    values = [float(row["val/accuracy"]) for row in history()]
    assert len(values) == 4
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (
            ["callbacks=best_checkpoint", "callbacks.best_checkpoint.mode=max"],
            "callbacks.best_checkpoint.mode=max would choose the worst: val/loss is best at its minimum",
        ),
        (
            [*BY_ACCURACY, "+callbacks.early_stopping.mode=min"],
            "callbacks.early_stopping.mode=min would choose the worst: val/accuracy is best at its maximum",
        ),
        (
            [*BY_ACCURACY, "+callbacks.early_stopping.stopping_threshold=98"],
            "callbacks.early_stopping.stopping_threshold=98: an accuracy is between 0 and 1",
        ),
        (
            ["~schedule", "+schedule={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, mode: max}"],
            "schedule.mode=max would choose the worst: its loss is best at its minimum",
        ),
        (
            ["-m", "hydra/sweeper=search", "optimized_metric=val/accuracy", "hydra.sweeper.direction=minimize"],
            "hydra.sweeper.direction=minimize would choose the worst: val/accuracy is best at its maximum",
        ),
    ],
    ids=["checkpoint", "stopping", "threshold", "plateau", "search"],
)
def test_direction_that_contradicts_the_metric_is_refused(
    run_script: RunScript, options: list[str], answer: str, tmp_path: Path
) -> None:
    status, said = run_script(*options, "data.val_size=100", "hydra.run.dir=run", "hydra.sweep.dir=sweep")
    assert status == 1
    assert answer in said
    assert not list(tmp_path.rglob("metrics.json"))


@pytest.mark.parametrize("logger", ["csv", "many"])
def test_csv_logger_of_a_run_that_goes_on_has_every_row_once(run_script: RunScript, logger: str) -> None:
    options = [f"logger={logger}", "trainer.max_epochs=3", "network.hidden_sizes=[16]"]
    with ended_at_scoring(3):
        assert run_script(*options, "hydra.run.dir=run")[0] == 143
    well(run_script, *options, "hydra.run.dir=run")
    well(run_script, *options, "hydra.run.dir=whole")
    resumed, whole = (pd.read_csv(Path(folder, "csv", "metrics.csv")) for folder in ("run", "whole"))
    assert len(whole) > 12
    pd.testing.assert_frame_equal(resumed, whole)


@pytest.mark.parametrize(
    "options",
    [["debug=fast"], ["activation=tanh", "seed=7"], ["seed=-1"], ["trainer.devices=0"], ["dry_run=true"], RUN],
    ids=" ".join,
)
def test_folder_of_a_finished_run_is_left_as_it_is(run_script: RunScript, options: list[str]) -> None:
    well(run_script, *RUN)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("run").rglob("*") if path.is_file()}
    assert Path("run", ".hydra", "config.yaml") in before
    run_script("hydra.run.dir=run", *[option for option in options if "run.dir" not in option])
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("run").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(("logger", "folders"), [("csv", {"csv"}), ("many", {"csv", "tensorboard"}), ("none", set())])
@pytest.mark.usefixtures("drawn")
def test_results_do_not_depend_on_the_logger(run_script: RunScript, logger: str, folders: set[str]) -> None:
    well(run_script, *RUN, f"logger={logger}")
    assert {path.name for path in Path("run").iterdir()} & {"csv", "tensorboard"} == folders
    assert len(history()) == 1
    assert {path.name for path in Path("run").glob("*.png")} == {"curves.png", "predictions.png", "confusion_test.png"}


@pytest.mark.parametrize("debug", ["fast", "overfit", "limit", "profile"])
def test_debug_runs_stay_out_of_the_results(debug: str) -> None:
    with hydra.initialize_config_dir(str(ROOT / "conf"), **BASE):
        cfg = hydra.compose("train", [f"debug={debug}"], return_hydra_config=True)
    assert str(cfg.hydra.run._get_node("dir")).startswith("outputs/debug/")
    assert str(cfg.hydra.sweep._get_node("dir")).startswith("outputs/debug/")


def test_mlflow_run_has_metrics_and_figures_and_is_resumed(run_script: RunScript) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    ours = ["logger=mlflow", "hydra.run.dir=run", "trainer.max_epochs=1"]
    assert run_script(*ours)[0] == 0
    known = Path("run", "mlflow_run_id.txt").read_text()
    Path("run", "metrics.json").unlink()
    Path("run", "checkpoints", "last.ckpt").unlink()
    assert run_script(*ours)[0] == 0
    client = mlflow.MlflowClient("sqlite:///outputs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("handgrad").experiment_id])
    assert (run.info.run_id, run.info.status) == (known, "FINISHED")
    assert run.data.metrics["final/test_accuracy"] == record_of(Path("run"))["metrics"]["test/accuracy"]
    assert {artifact.path for artifact in client.list_artifacts(known)} == {
        "confusion",
        "curves.png",
        "predictions.png",
    }


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="mlflow is installed")
def test_mlflow_without_its_extra_is_refused_in_one_sentence(run_script: RunScript) -> None:
    status, printed = run_script("logger=mlflow")
    assert status == 1
    assert "Traceback" not in printed
    assert "logger.mlflow: Requirement 'mlflow" in printed
