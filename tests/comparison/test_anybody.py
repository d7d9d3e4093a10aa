"""Oracle: tables and folders of other projects in tests/comparison/foreign, and means worked out with pandas."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import handgrad
from conftest import ROOT, RunCommand
from handgrad.comparison import load, report
from handgrad.comparison.metrics import Metric, higher_is_better
from handgrad.comparison.table import CompareOptions
from handgrad.errors import UserError
from made_runs import around, everything, leave_cell, leave_run, written

FOREIGN = ROOT / "tests" / "comparison" / "foreign"


def table_of_losses() -> pd.DataFrame:
    """Return runs of two settings, three seeds each, and a metric per run."""
    rows = []
    for lr, opt, seed in product((0.1, 0.2, 0.3), ("sgd", "adam"), range(3)):
        loss = 3 * lr + 0.1 * (opt == "adam") + 0.0002 * ((7 * seed + round(30 * lr) * (seed + (opt == "sgd"))) % 5)
        rows.append({"lr": lr, "opt": opt, "seed": seed, "test_loss": loss})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table=wandb_export.csv", "metric=val_accuracy"], "architecture=cnn beats architecture=mlp"),
        (["table=mlflow_runs.csv", "metric=train_loss"], "The lowest train_loss is that of weight_decay=null lr=0.01"),
        (["table=scikit_grid_search.csv", "metric=test_score"], "max_depth=3 beats max_depth=1 by 0.293"),
        (["sweep=hydra_lightning", "metric=val/loss", "unit=nats"], "that of lr=0.1 width=8: 0.201 ± 0.169 nats"),
        (["sweep=tensorboard", "metric=val/loss"], "width=8 is 0.0315 better than width=4, with no interval."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_runs_of_other_projects_are_compared(
    command: RunCommand, tmp_path: Path, arguments: list[str], said: str
) -> None:
    option, _, name = arguments[0].partition("=")
    done = command("compare.py", f"{option}={FOREIGN / name}", *arguments[1:], "output=there")
    assert done.status == 0, done.err
    assert said in " ".join(done.out.split())
    page = (tmp_path / "there" / "report.html").read_text(encoding="utf-8")
    for word in ("activation", "hardly learned", "damaged", "delete"):
        assert word not in page.split("<script")[0]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["table=runs.csv"], "name the metric to compare by: metric=..., one of a_loss, b_loss"),
        (["table=runs.csv", "metric=c"], "metric=c is not a column of numbers"),
        (["table=runs.csv", "metric=size"], "metric=size does not tell which values are better: add better=higher or"),
        (["table=nothing.csv"], "cannot be read"),
        (["table=runs.csv", "sweep=x"], "table= and sweep= cannot both be given"),
        (["table=same.csv", "metric=a_loss"], "no setting differs between 2 runs"),
        (["table=runs.csv", "metric=a_loss", "better=more"], "invalid value better=more"),
    ],
    ids=str,
)
def test_table_that_cannot_be_compared_is_refused(
    command: RunCommand, tmp_path: Path, arguments: list[str], answer: str
) -> None:
    rows = [f"{lr},{seed},{1.5 + lr + seed},{2.25 + lr},{3.75 + lr * seed}" for lr in (1, 2) for seed in (0, 1)]
    (tmp_path / "runs.csv").write_text("\n".join(["lr,seed,a_loss,b_loss,size", *rows]) + "\n")
    (tmp_path / "same.csv").write_text("lr,seed,a_loss\n1,0,0.5\n1,1,0.6\n")
    done = command("compare.py", *arguments)
    assert done.status == 1
    assert answer in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_data_frame_is_compared_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pandas, handgrad; report = handgrad.compare(pandas.read_csv(sys.argv[1]), seed='seed');"
        "print(report.sentences[1]); print({'torch', 'lightning'} & set(sys.modules))"
    )
    table_of_losses().to_csv(tmp_path / "t.csv", index=False)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "t.csv"], capture_output=True, text=True, check=True)
    assert "The lowest test_loss is that of lr=0.1 opt=sgd" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_library_gives_data_frames_and_a_page(tmp_path: Path) -> None:
    frame = table_of_losses()
    found = handgrad.compare(frame, metric="test_loss", output=tmp_path / "page")
    means = frame.groupby(["lr", "opt"]).test_loss.mean().sort_values()
    assert found.cells["test_loss"].tolist() == pytest.approx(means.tolist())
    row = found.tests[(found.tests.kind == "values") & (found.tests.key == "opt")].iloc[0]
    each = frame.groupby("opt").test_loss.mean()
    assert (row.a, row.b, row.verdict) == ("sgd", "adam", "differ")
    assert row.difference == pytest.approx(each["adam"] - each["sgd"])
    assert (tmp_path / "page" / "report.html").exists()
    with pytest.raises(AttributeError, match="has no attribute 'comparison_of'"):
        _ = handgrad.comparison_of


def test_direction_and_unit_can_be_asked_for() -> None:
    frame = table_of_losses().rename(columns={"test_loss": "minutes"})
    found = handgrad.compare(frame, "minutes", better="higher", unit="min")
    assert "The highest minutes is that of lr=0.3 opt=adam" in found.sentences[1]
    assert " min" in found.sentences[1]
    assert [Metric("m", "minutes", unit, f" {unit}").label for unit in ("", "min")] == ["minutes", "minutes (min)"]


def test_metric_named_like_a_column_is_a_metric() -> None:
    frame = table_of_losses().rename(columns={"test_loss": "seconds"})
    comparison = load.load_runs([], CompareOptions(table=frame, metric="seconds"))
    assert comparison.metric.column == "metric.seconds"
    assert comparison.table["metric.seconds"].tolist() == pytest.approx(frame.seconds.tolist())


@pytest.mark.parametrize("seeds", [None, range(18)], ids=["none", "one each"])
def test_runs_without_common_seeds_are_not_paired(seeds: range | None) -> None:
    frame = table_of_losses().drop(columns="seed")
    found = handgrad.compare(frame if seeds is None else frame.assign(seed=seeds), "test_loss")
    assert set(found.tests[found.tests.kind == "cells"].test) == {"Welch t"}
    assert not any("nan" in sentence for sentence in found.sentences)


def test_foreign_records_among_own_ones_are_counted_once(tmp_path: Path) -> None:
    leave_run(tmp_path / "0_a", 0.97)
    for number in (1, 2, 3):
        (tmp_path / f"{number}_b").mkdir()
        (tmp_path / f"{number}_b" / "metrics.json").write_text(json.dumps({"mse": 0.1 * number}))
    remarks = load.load_runs([tmp_path]).remarks
    assert remarks == ["Left out: 3 runs of another project, by their metrics.json."]


def test_times_of_parallel_runs_are_left_out(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", around(0.97))
    start = {"hydra": {"overrides": {"task": []}, "runtime": {"choices": {"hydra/launcher": "parallel"}}}}
    (tmp_path / "multirun.yaml").write_text(json.dumps(start))
    comparison = load.load_runs([tmp_path])
    assert "Times per epoch are left out: runs that train side by side slow each other." in comparison.remarks
    folder = written(tmp_path, drawn=True)
    assert not (folder / "time.png").exists()
    assert "s/epoch" not in (folder / "summary.md").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="invalid value metric=seconds_per_epoch"):
        load.load_runs([tmp_path], CompareOptions(metric="seconds_per_epoch"))


def test_report_says_when_how_and_of_what(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", around(0.97))
    about = report.build_report([tmp_path], CompareOptions(), tmp_path).about
    assert (about["data"], about["seeds"], about["versions"]) == ("mnist", "0, 1, 2", "torch 2.14")
    assert {"compared", "command", "machine"} <= set(about)


@pytest.mark.slow
def test_second_question_keeps_the_first_answer(command: RunCommand, tmp_path: Path) -> None:
    leave_cell(tmp_path / "s", "relu", around(0.97))
    leave_cell(tmp_path / "s", "tanh", around(0.96, -1))
    for question in ([], ["metric=loss"], ["where=seed < 2"], ["where=seed > 2 or seed < 2"]):
        assert command("compare.py", "sweep=s", *question).status == 0
    names = sorted(path.name for path in (tmp_path / "s").iterdir() if path.name.startswith("comparison"))
    assert names[:2] == ["comparison", "comparison_metric=loss"]
    assert len(names) == 4
    assert names[2].startswith("comparison_where=seed-2-")  # signs that no folder can have are told apart by a hash


def test_cells_without_any_value_are_no_error() -> None:
    frame = table_of_losses()
    frame.loc[frame.lr == 0.3, "test_loss"] = np.nan
    cells = handgrad.compare(frame, "test_loss", seed="seed").cells
    assert cells.completed.tolist() == [3, 3, 3, 3, 0, 0]


@pytest.mark.parametrize(
    ("names", "higher"),
    [
        ("test_neg_log_loss neg_mean_squared_error test_score valAccuracy val/acc_top1 fluency↑ loss↑", True),
        ("brier_score RMSE fluency↓ accuracy↓", False),
        ("accidents uptime sentiment accuracy_loss", None),
        ("davies_bouldin_score brier_skill_score survival_time mse_improvement reward_std", None),
    ],
)
def test_direction_of_a_metric_is_told_by_whole_words(names: str, higher: bool | None) -> None:
    assert {higher_is_better(name) for name in names.split()} == {higher}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"better": "max"}, "invalid value better=max"),
        ({"margin": -1.0}, "invalid value margin=-1"),
        ({"colour": 3}, "colour"),
    ],
    ids=str,
)
def test_options_of_the_library_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        handgrad.compare(table_of_losses(), "test_loss", **options)


def test_leaderboard_is_told_what_to_do() -> None:
    frame = pd.DataFrame({"model": ["a", "b", "c"], "acc": [0.91, 0.88, 0.93]})
    with pytest.raises(UserError, match=r"no setting differs between 3 runs: name the columns .* group="):
        handgrad.compare(frame, "acc")
    assert "that of model=c" in handgrad.compare(frame, "acc", group="model").sentences[1]


def test_runs_that_a_left_out_column_tells_apart_are_not_averaged_silently() -> None:
    frame = pd.DataFrame({"model": [*"abcd"], "lr": [0.1, 0.2] * 2, "seed": 0, "loss": [0.3, 0.2, 0.1, 0.4]})
    remarks = handgrad.compare(frame, "loss").comparison.remarks
    assert any("2 of 4 runs repeat another run" in remark for remark in remarks)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_digits_show_the_spread(scale: float) -> None:
    frame = table_of_losses().assign(test_loss=lambda runs: runs.test_loss * scale)
    sentence = handgrad.compare(frame, "test_loss").sentences[1]
    number = sentence.split("opt=sgd: ")[1].split(" ")[0]
    assert float(number) == pytest.approx(0.3 * scale, rel=0.01)


def test_values_without_a_number_do_not_count_as_runs() -> None:
    frame = table_of_losses()
    frame.loc[0, "test_loss"] = np.nan
    lines = handgrad.compare(frame.assign(other=1.5 + np.arange(18) / 7), "test_loss").lines
    (line,) = (line for line in lines if line[:2] == ["0.1", "sgd"])
    assert line[2] == "2"
    assert line[-1] == "1 without value"


def test_collapsed_run_widens_no_other_interval(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for activation in ("relu", "tanh", "gelu", "silu", "elu", "sigmoid"):
        for seed in (0, 1):
            accuracy = 0.12 if (activation, seed) == ("sigmoid", 1) else 0.95 + random.normal() / 1e3
            leave_run(tmp_path / f"{activation}{seed}", accuracy, seed, activation)
    _, cells, _, said = everything(tmp_path)
    good = cells[cells.label != "sigmoid"]
    assert (good["test/accuracy.high"] - good["test/accuracy.low"]).max() < 0.02
    assert "1 of 2 runs of sigmoid learned" in said
