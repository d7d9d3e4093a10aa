"""Oracle: the meaning of every option, read back from the files that the real command leaves."""

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from conftest import (
    ROOT,
    RunScript,
    board_of,
    compose,
    ended_at_scoring,
    mostly_slow,
    ran,
    record_of,
    refused,
    rows_of,
    session_of,
    words,
)

RUN = ["hydra.run.dir=run", "trainer.max_epochs=1"]


def test_epoch_cut_by_max_steps_has_no_scores_of_another_epoch(run_script: RunScript) -> None:
    ran(run_script, *RUN, "trainer.max_epochs=2", "+trainer.max_steps=25")
    whole, cut = rows_of("run")
    assert (whole["batches"], cut["batches"]) == ("20", "5")
    assert whole["test/accuracy"]
    assert (cut["test/accuracy"], cut["test/loss"]) == ("", "")
    assert float(cut["train/loss"]) < float(whole["train/loss"])
    run = record_of("run")
    assert (run["epochs"], run["seconds_per_epoch"]) == (2, float(whole["seconds"]))


@pytest.mark.parametrize(
    ("option", "scored_at_the_end"),
    [
        ("+trainer.val_check_interval=5", True),
        ("+trainer.val_check_interval=0.3", False),
        ("+trainer.max_steps=12", False),
    ],
)
def test_mid_epoch_scores_are_not_in_the_history_row(
    run_script: RunScript, option: str, scored_at_the_end: bool
) -> None:
    ran(run_script, *RUN, option)
    (row,), accuracy = rows_of("run"), record_of("run")["metrics"]["test/accuracy"]
    assert 0 < accuracy < 1
    assert row["test/accuracy"] == (str(accuracy) if scored_at_the_end else "")
    assert row["batches"] == ("12" if "max_steps" in option else "20")


COSINE = ["schedule=warmup_cosine", "schedule.warmup_steps=3"]


@pytest.mark.parametrize(
    "options",
    [
        ["+trainer.limit_train_batches=12"],
        ["+trainer.limit_train_batches=0.5"],
        ["+trainer.max_steps=12"],
        ["trainer.max_epochs=2", "+trainer.max_steps=33"],
        ["+trainer.accumulate_grad_batches=3"],
        ["engine=autograd", *COSINE, "+trainer.accumulate_grad_batches=3"],
    ],
    ids=lambda options: " ".join(option.split(".")[-1] for option in options[-1:]),
)
def test_cosine_reaches_zero_at_the_last_step_taken(run_script: RunScript, options: list[str]) -> None:
    ran(run_script, *RUN, *COSINE, *options)
    assert float(rows_of("run")[-1]["lr"]) == pytest.approx(0, abs=1e-12)


def test_explicit_total_steps_are_kept(run_script: RunScript) -> None:
    ran(run_script, *RUN, *COSINE, "schedule.total_steps=37")
    assert float(rows_of("run")[-1]["lr"]) == pytest.approx(0.01 / 2)  # half way: step 20 of 3 to 37


def test_hparams_table_has_a_column_for_every_choice_and_value_and_none_for_a_class(run_script: RunScript) -> None:
    options = ["optimizer=sgd", "optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9,0.5"]
    ran(run_script, "-m", "hydra.sweep.dir=sweep", *RUN[1:], *options, "+optimizer.nesterov=true")
    boards = [board_of(folder) for folder in sorted(Path("sweep").glob("*_relu*"))]
    assert "_hparams_/experiment" not in boards[0].Tags()["tensors"]  # TensorBoard would not list first what differs
    columns = [session_of(board).hparams for board in boards]
    assert [row["optimizer.momentum"].number_value for row in columns] == [0.9, 0.5]
    assert not [name for name in columns[0] if name.endswith("_target_") or name == "name"]
    assert columns[0]["optimizer.nesterov"].string_value == "true"
    assert columns[0]["optimized_metric"].string_value == "null"
    assert columns[0]["activation"].string_value == "relu"


@pytest.mark.parametrize("engine", ["manual", "autograd"])
def test_plateau_schedule_follows_the_training_loss(run_script: RunScript, engine: str) -> None:
    plateau = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0, threshold: 0.9}"
    options = [f"engine={engine}", "optimizer=sgd", "~schedule", f"+schedule={plateau}", "trainer.max_epochs=4"]
    ran(run_script, *RUN, *options)
    rates = [float(row["lr"]) for row in rows_of("run")]
    assert rates == pytest.approx([0.1, 0.01, 0.001, 0.0001])


def test_option_typed_replaces_an_experiments_deformation(run_script: RunScript) -> None:
    ran(run_script, *RUN, "experiment=fast", "data/deform=none", "schedule.warmup_steps=2")
    assert record_of("run")["config"]["data"]["deform"] is None
    assert not Path("run", "deformed.png").exists()


def test_lists_of_callbacks_and_loggers_go_together(run_script: RunScript) -> None:
    callbacks = "callbacks=[early_stopping,best_checkpoint]"
    ran(run_script, *RUN, "logger=[csv,tensorboard]", callbacks, "data.val_size=280")
    assert list(Path("run", "csv").iterdir())
    assert list(Path("run", "tensorboard").iterdir())
    assert {path.name for path in Path("run", "checkpoints").iterdir()} > {"last.ckpt"}


def test_users_callbacks_and_loggers_are_added_to_ours(run_script: RunScript) -> None:
    one = "+trainer.callbacks={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: kept}"
    logger = "+trainer.logger=[{_target_: lightning.pytorch.loggers.CSVLogger, save_dir: theirs}]"
    ran(run_script, *RUN, one, logger, "+trainer.max_time={minutes: 5}")
    assert list(Path("kept").glob("*.ckpt"))
    assert list(Path("theirs").rglob("metrics.csv"))
    assert list(Path("run", "tensorboard").iterdir())


BEST, STOPPING = (f"callbacks={name} callbacks.{name}" for name in ("best_checkpoint", "early_stopping"))
REFUSALS = {  # options as typed: what is said
    "regularizer=[l2,dropout]": "regularizer=[...]: choose one option, and add the other's key",
    "regularizer=dropout +regularizer=smoothing": "regularizer=[...]: choose one option",
    "experiment=fast regularizer=none": "regularizer=none, but an experiment or a + sets",
    "+data.deform.rotation=5": "data/deform=none, but an experiment or a + sets data.deform.rotation",
    "data.deform=elastic": "must be chosen with a slash: data/deform=elastic",
    "data/deform=[affine,elastic]": "data/deform=[...]: choose one option",
    "data/deform=affine +data.deform.sigma=6": "has a sigma, but no elastic field for it: data/deform=elastic",
    "regularizer=adversarial trainer.precision=16-true": "rounds small gradients of the inputs to zero",
    "regularizer.dropout=0.2": "unknown key regularizer.dropout: it is a key of regularizer=dropout, l2",
    "regularizer=dropout network.hidden_sizes=[]": "regularizer: dropout drops nothing",
    "regularizer=dropout regularizer.dropout=1": "dropout=1: must be a rate from 0 to below 1, or a list",
    "regularizer=smoothing skip=0.1": "skip=0.1: with regularizer.smoothing no example is learned so well",
    "+trainer.max_time=00:00:00:00": "trainer: training ended before its first step, by max_time or a callback",
    "seed=${oc.env:HANDGRAD_SEED}": 'invalid value seed="3": must be a valid integer, not a string',
    "~optimizer": "optimizer is missing: give it a value or, for a group, an option",
    "~schedule": "schedule is missing",
    "schedule=null": "leave out schedule=null, or choose an option, none where there is one (--help lists them)",
    "+trainer.max_steps=0": "invalid value trainer.max_steps=0: must be 1 or more steps, or -1",
    "trainer.num_sanity_val_steps=-5": "invalid value trainer.num_sanity_val_steps=-5: must be >=",
    "+trainer.gradient_clip_val=-1": "invalid value trainer.gradient_clip_val=-1: must be >=",
    "optimizer.weight_reduction=foo": "invalid value optimizer.weight_reduction=foo: must be 'mean' or 'sum'",
    "schedule.total_iters=1.5": "invalid value schedule.total_iters=1.5: must be a valid integer",
    "data.dataset=CIFAR10": (
        "invalid value data.dataset=CIFAR10: must be 'MNIST', 'FashionMNIST', 'KMNIST', 'QMNIST' or 'EMNIST'"
    ),
    "data.batch_size=1000000000000000000000": "invalid value data.batch_size=1000000000000000000000: must be <",
    "name=''": "invalid value name=: ",
    "name={a: 1}": 'invalid value name={"a": 1}: must be a valid string',
    "seed=${nope}": "Interpolation key 'nope' not found",
    "hydra.run.dir=file": "cannot use file (File exists): make room there, or choose another folder",
    "hydra.run.dir=/proc/nowhere": "cannot use /proc/nowhere (No such file or directory)",
    # by a library, or after the imports
    "activation=tahn": "unknown option activation=tahn: did you mean tanh? there are gelu, leaky_relu, relu",
    "-m optimizer=sgd,adam optimizer.betas=[0.9,0.99]": "unknown key optimizer.betas: ",
    "break=BP2": "unknown key break: there are activation",
    "optimizer.lrr=1": "unknown key optimizer.lrr: did you mean lr? there are lr, weight_reduction; add",
    "data.path=x.csv": "unknown key data.path: it is a key of data=arrays, table",
    "data.deform.sigma=3 data/deform=none": "unknown key data.deform.sigma: it is a key of data/deform=elastic",
    "batch_size=32": "unknown key batch_size: did you mean data.batch_size?",
    "epochs=3": "unknown key epochs: did you mean trainer.max_epochs?",
    "learning_rate=0.1": "unknown key learning_rate: did you mean optimizer.lr?",
    "weight_decay=0.1": "unknown key weight_decay: did you mean regularizer=l2?",
    "dropout=0.5": "unknown key dropout: did you mean regularizer=dropout?",
    "momentum=0.9": "unknown key momentum: there are activation",
    "actvation=relu": "unknown key actvation: did you mean activation? there are activation, callbacks, data",
    "outputs/runs/1": "Write 'outputs/runs/1' as key=value (--help lists the keys)",
    "+optimizer.dampening=0.9": "optimizer: FactoredSGD.__init__() got an unexpected keyword argument 'dampening'",
    "engine=autograd optimizer=notebook_sgd": "with autograd use optimizer=sgd",
    "data.val_size=1275": "data.val_size must be 0 or between 10 and 1270",
    "data.score_test=false": "hold examples out with data.val_size=6000",
    "schedule=warmup_cosine schedule.warmup_steps=99999": "warmup_steps=99999 must be at least 1 and below",
    "schedule=warmup_cosine schedule.warmup_steps=3 schedule.total_steps=10": (
        "schedule.total_steps=10 is less than the 20 steps of this run: leave it null"
    ),
    "matmul=fast": "invalid value matmul=fast: must be 'default', 'auto', 'high' or 'medium'",
    "data=table data.path=my.csv data.target=y data/deform=elastic": (
        "data/deform=...: this command, or the chosen data, has no such option: leave it out"
    ),
    "data/deform=elastc": "unknown option data/deform=elastc: did you mean elastic?",
    "data/deform=elastic data.deform.sigma=0.5": "invalid value data.deform.sigma=0.5: must be >= 1",
    "data/deform=affine data.deform.shear=90": "invalid value data.deform.shear=90: must be < 90",
    "data/deform=affine +data.deform.zoom=1": "data.deform.zoom",
    # monitored metrics
    f"{STOPPING}.monitor=test/loss": "monitor val/loss and hold images out with data.val_size=6000",
    f"{BEST}.monitor=val/loss": "needs a validation set: data.val_size=6000",
    f"{BEST}.mode=max data.val_size=100": (
        "callbacks.best_checkpoint.mode=max would select the worst: val/loss is best at its minimum"
    ),
    f"{STOPPING}.monitor=val/accuracy +callbacks.early_stopping.mode=min data.val_size=100": (
        "callbacks.early_stopping.mode=min would select the worst: val/accuracy is best at its maximum"
    ),
    f"{STOPPING}.monitor=val/accuracy +callbacks.early_stopping.stopping_threshold=98 data.val_size=100": (
        "callbacks.early_stopping.stopping_threshold=98: an accuracy is between 0 and 1"
    ),
    "~schedule +schedule={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, mode: max} data.val_size=100": (
        "schedule.mode=max would select the worst: its loss is best at its minimum"
    ),
    "-m hydra/sweeper=search optimized_metric=val/accuracy hydra.sweeper.direction=minimize data.val_size=100": (
        "hydra.sweeper.direction=minimize would select the worst: val/accuracy is best at its maximum"
    ),
    # several processes, dry runs
    "-m trainer.devices=2": "would start the whole sweep again",
    "trainer.devices=2 +trainer.strategy=ddp_spawn": "trainer.strategy=ddp_spawn shards or moves",
    "trainer.devices=2 hydra.run.dir='a\"b'": "a character that cannot be passed on",
    "-m activation=relu,tanh seed=-1 dry_run=true": "dry_run=true: invalid value seed=-1",
    "-m hydra/sweeper=search optimizer.lr=interval(0.1,1) dry_run=true": "dry_run=true: a search chooses its jobs",
    "activation=relu dry_run=true": "dry_run=true only works with -m",
}


@pytest.mark.parametrize(("options", "sentence"), REFUSALS.items(), ids=list(REFUSALS))
def test_invalid_option_is_refused_in_one_sentence(
    run_script: RunScript, options: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDGRAD_SEED", "3")
    Path("file").touch()
    usual = [word for word in RUN if word.partition("=")[0] not in options]
    refused(run_script, sentence, *words(options), *usual)
    assert not [*Path().rglob("history.csv"), *Path().rglob("checkpoints/*")]


def every_key(node: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        keys.append(prefix + key)
        if OmegaConf.is_dict(child := node._get_node(key)):
            keys += every_key(child, f"{prefix}{key}.")
    return keys


@pytest.mark.slow
def test_null_for_any_key_works_or_is_refused(run_script: RunScript) -> None:
    keys = every_key(compose())
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
    reason = record_of("run")["reason"]
    assert reason in first[1]
    assert f"{reason} (delete {Path('run').absolute()} to try again)" in second[1]


@pytest.mark.parametrize("name", mostly_slow(["../../x", "x" * 300, "[b]<i>$x$ ±", "/abs", "a/b", "..", "5"], always=3))
def test_name_cannot_leave_the_dated_folder(run_script: RunScript, name: str, tmp_path: Path) -> None:
    printed = ran(run_script, *RUN[1:], f"name='{name}'")
    (folder,) = Path("outputs", "runs").iterdir()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert record_of(folder)["name"] == name
    assert name[:60] in printed


def test_paths_are_relative_to_the_working_directory(run_script: RunScript, tiny_mnist: Path, tmp_path: Path) -> None:
    Path("data").symlink_to(tiny_mnist)
    printed = ran(run_script, "hydra.job.chdir=true", "hydra.run.dir=a/run", *RUN[1:], "data.root=data")
    assert str(tmp_path / "a" / "run") in printed
    assert {path.name for path in tmp_path.iterdir()} == {"a", "data"}


def test_run_in_a_folder_of_another_configuration_names_the_keys(run_script: RunScript) -> None:
    ran(run_script, *RUN)
    differ = "seed (0, not 1), name (relu-manual-none-s0, not relu-manual-none-s1), optimizer.lr (0.01, not 0.1)"
    refused(run_script, f"it has {differ}", *RUN, "seed=1", "optimizer.lr=0.1")


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
    sentence = f"cannot use {Path('run').absolute()}"
    printed = refused(run_script, sentence, *RUN, "trainer.max_epochs=3", vandal)
    assert sentence in printed.strip().splitlines()[-1]
    if deed == "move":
        assert len(rows_of("moved")) == 1


@pytest.mark.parametrize("name", ["tensorboard", "checkpoints", "metrics.json"])
def test_blocked_path_is_reported_before_training(run_script: RunScript, name: str) -> None:
    target = Path("run", name)
    target.parent.mkdir()
    target.mkdir() if name == "metrics.json" else target.touch()
    assert "epoch 1/1" not in refused(run_script, str(target.absolute()), *RUN)


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
    assert "resuming from" in ran(run_script, *options)
    board = board_of("run")
    for tag in ("train/loss", "lr-FactoredSGD/weights", "test/accuracy"):
        steps = [event.step for event in board.Scalars(tag)]
        assert len(steps) == len(set(steps)), tag
    assert [event.step for event in board.Scalars("train/loss")] == [19, 39, 59]
    assert [row["epoch"] for row in rows_of("run")] == ["0", "1", "2"]


def test_fast_dev_run_leaves_no_files(run_script: RunScript, tmp_path: Path) -> None:
    printed = ran(run_script, *RUN, "+trainer.fast_dev_run=true", "diagnostics=layers")
    last = printed.strip().splitlines()[-1]
    assert last.startswith("fast_dev_run: 1 batch(es) each of training, validation and test")
    assert not list(tmp_path.iterdir())


def test_early_stopping_ends_a_run_that_no_longer_improves(run_script: RunScript) -> None:
    options = [*words(f"{STOPPING}.patience=1"), "+callbacks.early_stopping.min_delta=9"]
    ran(run_script, *RUN, "trainer.max_epochs=9", "data.val_size=100", *options)
    assert len(rows_of("run")) == 2


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", min), ("val/accuracy", max)])
def test_best_checkpoint_follows_the_direction_of_its_metric(
    run_script: RunScript, monitor: str, best: Callable[[list[float]], float]
) -> None:
    """A rate that rises and then falls gives an epoch that is neither first nor last."""
    options = ["callbacks=best_checkpoint", "data.val_size=200", "trainer.max_epochs=4", "seed=2"]
    ran(run_script, *RUN, *options, f"callbacks.best_checkpoint.monitor={monitor}")
    values = [float(row[monitor]) for row in rows_of("run")]
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
    ran(run_script, *RUN, "trainer.max_epochs=4", *options, "optimizer.lr=0.001")
    values = [float(row["val/accuracy"]) for row in rows_of("run")]
    assert len(values) == 4
    assert values == sorted(values)


@pytest.mark.parametrize("logger", ["csv", "many"])
def test_csv_logger_of_a_run_that_goes_on_has_every_row_once(run_script: RunScript, logger: str) -> None:
    options = [f"logger={logger}", "trainer.max_epochs=3", "network.hidden_sizes=[16]", "+trainer.log_every_n_steps=1"]
    with ended_at_scoring(3):
        assert run_script(*options, "hydra.run.dir=run")[0] == 143
    ran(run_script, *options, "hydra.run.dir=run")
    printed = ran(run_script, *options, "hydra.run.dir=whole")
    for name, value in record_of(Path("whole"))["metrics"].items():
        said = f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4f} nats"
        assert re.search(rf"{name}\W+{re.escape(said)}", printed)
    resumed, whole = (pd.read_csv(Path(folder, "csv", "metrics.csv")) for folder in ("run", "whole"))
    assert len(whole) > 12
    pd.testing.assert_frame_equal(resumed, whole)


def state_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return content and time of every file in a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "options",
    mostly_slow(
        [["debug=fast"], ["activation=tanh", "seed=7"], RUN, ["seed=-1"], ["trainer.devices=0"], ["dry_run=true"]],
        always=3,
    ),
    ids=" ".join,
)
def test_folder_of_a_finished_run_is_left_as_it_is(run_script: RunScript, options: list[str]) -> None:
    ran(run_script, *RUN)
    before = state_of(Path("run"))
    assert Path("run", ".hydra", "config.yaml") in before
    run_script("hydra.run.dir=run", *[option for option in options if "run.dir" not in option])
    assert state_of(Path("run")) == before


@pytest.mark.slow
@pytest.mark.parametrize(("logger", "folders"), [("csv", {"csv"}), ("many", {"csv", "tensorboard"}), ("none", set())])
@pytest.mark.usefixtures("drawn")
def test_results_do_not_depend_on_the_logger(run_script: RunScript, logger: str, folders: set[str]) -> None:
    ran(run_script, *RUN, f"logger={logger}")
    assert {path.name for path in Path("run").iterdir()} & {"csv", "tensorboard"} == folders
    assert len(rows_of("run")) == 1
    assert {path.name for path in Path("run").glob("*.png")} == {"curves.png", "predictions.png", "confusion_test.png"}


@pytest.mark.parametrize("debug", ["fast", "overfit", "limit", "profile"])
def test_debug_runs_stay_out_of_the_results(debug: str) -> None:
    cfg = compose(f"debug={debug}", whole=True)
    assert str(cfg.hydra.run._get_node("dir")).startswith("outputs/debug/")
    assert str(cfg.hydra.sweep._get_node("dir")).startswith("outputs/debug/")


def test_mlflow_run_has_metrics_and_figures_and_is_resumed(run_script: RunScript) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    ours = ["logger=mlflow", *RUN]
    assert run_script(*ours)[0] == 0
    known = Path("run", "mlflow_run_id.txt").read_text()
    Path("run", "metrics.json").unlink()
    Path("run", "checkpoints", "last.ckpt").unlink()
    assert run_script(*ours)[0] == 0
    client = mlflow.MlflowClient("sqlite:///outputs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("handgrad").experiment_id])
    assert (run.info.run_id, run.info.status) == (known, "FINISHED")
    assert run.data.metrics["final/test_accuracy"] == record_of("run")["metrics"]["test/accuracy"]
    logged = {artifact.path for artifact in client.list_artifacts(known)}
    assert logged == {"confusion", "curves.png", "predictions.png"}


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="mlflow is installed")
def test_mlflow_without_its_extra_is_refused_in_one_sentence(run_script: RunScript) -> None:
    refused(run_script, "logger.mlflow: Requirement 'mlflow", "logger=mlflow")
