"""Oracle: textbook formulas in NumPy, Fisher's tea tasting, simulated sweeps, and runs with known differences."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from conftest import RunCommand
from handgrad.comparison import page, planning, statistics
from handgrad.comparison.cells import NOT_A_CELL, find_factors
from handgrad.comparison.metrics import Metric
from handgrad.comparison.model import Contrast, Model
from handgrad.errors import UserError
from made_runs import NOISE, around, everything, leave_cell, leave_configured, leave_run, written

TEN = [-9, 7, 3, -4, 2, 5, -6, 1, 4, -3]  # noise of seeds 0 to 9 in hundredths of a point; the mean is zero


def leave_history(folder: Path, accuracies: list[float]) -> None:
    """Write a `history.csv` of test accuracies, one per epoch."""
    rows = "".join(f"{epoch},{accuracy}\n" for epoch, accuracy in enumerate(accuracies))
    (folder / "history.csv").write_text("epoch,test/accuracy\n" + rows)


def test_difference_is_over_shared_seeds_even_if_the_means_disagree(tmp_path: Path) -> None:
    steady = [0.97 + noise / 1e4 for noise in TEN]
    leave_cell(tmp_path, "relu", [value + 0.005 for value in steady[:5]])
    leave_cell(tmp_path, "tanh", [value + 0.0001 * (n % 2) for n, value in enumerate(steady[:5])] + [0.99] * 5)
    _, cells, pairs, said = everything(tmp_path)
    assert cells.label.tolist() == ["tanh", "relu"]  # ordered by the mean over all seeds
    row = pairs.iloc[0]
    assert (row.a, row.b, row.n, row.n_a, row.n_b) == ("relu", "tanh", 5, 5, 10)
    assert row.low < row.difference < row.high
    assert row.difference == pytest.approx(0.00496)
    assert "relu beats tanh by 0.50 points" in said
    assert "the 5 seeds that both have" in said
    assert "by -" not in said


def test_equal_seed_by_seed_requires_the_same_seeds(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", [0.97, 0.971, 0.972])
    leave_cell(tmp_path, "tanh", [0.97, 0.971, 0.972], seeds=[5, 6, 7])
    assert "equal, seed by seed" not in everything(tmp_path)[-1]


def test_effects_that_cancel_are_not_called_equal(tmp_path: Path) -> None:
    for engine, sign in (("manual", 1), ("autograd", -1)):
        leave_cell(tmp_path, "relu", around(0.97 + 0.005 * sign), engine=engine)
        leave_cell(tmp_path, "tanh", around(0.97 - 0.005 * sign), engine=engine)
    _, _, tests, said = everything(tmp_path)
    average = tests[(tests.kind == "values") & (tests.key == "activation")].iloc[0]
    assert (average.difference, average.verdict) == (pytest.approx(0, abs=1e-9), "undecided")
    assert "activation" in "".join(tests.key[(tests.kind == "interaction")])
    assert "On average relu and tanh are equal, with no interval, averaged over 2 cells, from -1.00 in" in said
    assert "seed by seed" not in said


def test_values_without_a_common_cell_are_reported(tmp_path: Path) -> None:
    for strength, accuracy in ((None, 0.98), (1e-5, 0.97), (1e-4, 0.96)):
        choices = {"activation": "relu", "engine": "manual", "regularizer": "l2" if strength else "none"}
        config = {"regularizer": {"strength": strength}} if strength else {}
        leave_cell(tmp_path, "relu", around(accuracy, 1 if strength else -1), choices=choices, config=config)
    *_, tests, said = everything(tmp_path)
    assert (tests.kind == "cells").sum() == 3
    assert re.search(r"Not averaged: (none and l2|l2 and none) have no cell in common in which all else is alike", said)


def test_cell_scored_on_another_set_gets_a_remark_and_no_number(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", [0.97, 0.98])
    leave_cell(tmp_path, "tanh", [0.97, 0.98], metrics={"train/accuracy": 0.9, "val/accuracy": 0.9, "val/loss": 0.3})
    comparison, *_, said = everything(tmp_path)
    assert "nan" not in said
    for remark in comparison.remarks[:2]:
        assert remark.endswith("metrics.json is of a completed run but has no test/accuracy, test/loss.")


def test_welchs_test_reports_both_numbers_of_seeds(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", [0.985, 0.9851])
    leave_cell(tmp_path, "tanh", [0.960, 0.967, 0.962, 0.965, 0.961, 0.963], seeds=[10, 11, 12, 13, 14, 15])
    assert "2 and 6 seeds, fewer than two in common" in everything(tmp_path)[-1]


def test_outcome_of_a_run_follows_from_its_history(tmp_path: Path) -> None:
    courses = {"at chance": [0.1, 0.105, 0.098], "hardly learned": [0.1, 0.12, 0.15], "collapsed": [0.9, 0.97, 0.098]}
    for seed, accuracies in enumerate(courses.values()):
        leave_run(tmp_path / str(seed), accuracies[-1], seed)
        leave_history(tmp_path / str(seed), accuracies)
    leave_run(tmp_path / "3", 0.97, 3)
    comparison, cells, *_, said = everything(tmp_path)
    assert comparison.table.outcome.tolist() == [*courses, "learned"]
    assert cells.loc[0, ["learned", *courses]].tolist() == [1, 1, 1, 1]
    assert "1 at chance, 1 hardly learned, 1 collapsed." in said
    assert "1 of 4 runs collapsed (accuracy below 54%, once above): 2." in comparison.remarks
    summary = (written(tmp_path) / "summary.md").read_text(encoding="utf-8")
    assert "| 1 at chance, 1 hardly learned, 1 collapsed |" in summary


def test_links_escape_special_characters() -> None:
    assert page.link(Path("/a/b c#1/50%.png"), Path("/a/comparison")) == "../b%20c%231/50%25.png"


def test_interval_beyond_100_percent_accuracy_is_not_printed(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", [0.98, 0.92])
    assert "The test accuracy of relu manual none is 95.00, 56.88 to 100.00 %." in everything(tmp_path)[-1]


def test_three_verdicts(tmp_path: Path) -> None:
    steady = [0.97 + noise / 1e4 for noise in TEN]
    leave_cell(tmp_path, "relu", steady)
    leave_cell(tmp_path, "tanh", [value + 0.0001 * (-1) ** n for n, value in enumerate(steady)])
    leave_cell(tmp_path, "sigmoid", [value - 0.01 - 0.0001 * (-1) ** n for n, value in enumerate(steady)])
    leave_cell(tmp_path, "gelu", [value + 0.005 * (-1) ** n for n, value in enumerate(steady)])
    _, _, pairs, said = everything(tmp_path)
    verdicts = {frozenset((row.a, row.b)): row.verdict for row in pairs.itertuples()}
    assert verdicts[frozenset(("relu", "tanh"))] == "equal"
    assert verdicts[frozenset(("relu", "sigmoid"))] == "differ"
    assert verdicts[frozenset(("relu", "gelu"))] == "undecided"
    assert re.search(r"(relu|tanh) and (relu|tanh) are equal within 0\.2 points \(0\.00 points, 95 % interval", said)
    assert re.search(r"Neither a difference nor equality is shown by \d comparisons of cells\.", said)
    assert "are equal within" not in everything(tmp_path, margin=0.001)[-1]


def test_holms_correction_is_stepwise(tmp_path: Path) -> None:
    p = pd.Series([0.04, np.nan, 0.01, 0.03])  # an untestable comparison is not in the family
    found = statistics.holm(p, 4)
    assert found.dropna().tolist() == pytest.approx([0.06, 0.03, 0.06])  # 3 x 0.01, 2 x 0.03, and never decreasing
    assert statistics.holm(p, 6).dropna().tolist() == pytest.approx([0.12, 0.05, 0.12])  # two more tests, not made


def test_shares_use_fishers_test_and_means_only_runs_that_learned(tmp_path: Path) -> None:
    tea = statistics.fisher_test((3, 4), (1, 4))
    assert tea["p"] == pytest.approx(34 / 70)  # Fisher, 1935: (16 + 1) of 70 ways in each tail
    assert tea["difference"] == 0.5
    leave_cell(tmp_path, "relu", [0.97 + noise / 1e4 for noise in TEN])
    leave_cell(tmp_path, "tanh", [0.96 + noise / 2e4 for noise in TEN[:4]] + [0.098] * 6)
    _, cells, table, said = everything(tmp_path)
    assert table.test.tolist() == ["paired t", "Fisher"]
    assert table.p[1] == pytest.approx(2 * 210 / 38_760)  # both tails: C(10, 6) of C(20, 6) ways each
    assert (table.difference[0], table.n[0]) == (pytest.approx(0.01 + np.mean(TEN[:4]) / 2e4), 4)
    assert "relu learns more often than tanh (10 of 10 runs against 4 of 10; Fisher's exact test, corrected p" in said
    assert "relu beats tanh by 1.00 points" in said
    assert cells["test/accuracy.low"].notna().tolist() == [True, False]


def test_diverged_runs_count_as_not_learned(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", [0.97 + noise / 1e4 for noise in TEN[:4]])
    leave_cell(tmp_path, "tanh", [0.96, 0.961])
    leave_cell(tmp_path, "tanh", [0, 0], seeds=[2, 3], status="diverged")
    table = everything(tmp_path)[2]
    assert table.loc[1, ["test", "learned_a", "n_a", "learned_b", "n_b"]].tolist() == ["Fisher", 4, 4, 2, 4]


def test_gap_order_and_scored_set_are_those_of_the_runs(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([0.95, 0.951, 0.952]):
        metrics = {"train/accuracy": accuracy + 0.01 + seed / 100, "val/accuracy": accuracy, "val/loss": 0.1}
        leave_run(tmp_path / f"{2 * 5**seed}_x", accuracy, seed, metrics=metrics)
    comparison, cells, *_, said = everything(tmp_path, metric="gap")
    assert comparison.scored == "val"
    assert comparison.table.run.tolist() == ["2_x", "10_x", "50_x"]
    assert cells["gap"][0] == pytest.approx(0.02)
    assert "The lowest" not in said
    assert "The gap (train minus val accuracy) of relu manual none is 2.00 ± 2.48 points." in said  # 4.303 / 3^0.5


def test_planned_seeds_have_a_power_of_80_percent() -> None:
    random = np.random.default_rng(0)
    limits = {(30, 1): 2.0452, (10, 5): 3.2498, (5, 5): 4.6041, (3, 50): 31.599}  # from a table of Student's t
    for (seeds, comparisons), limit in limits.items():
        size = planning.detectable(2.0, seeds - 1, seeds, seeds, comparisons)
        each = random.normal(size, 2.0, (20_000, seeds))
        t = each.mean(axis=1) / (each.std(axis=1, ddof=1) / seeds**0.5)
        assert (abs(t) > limit).mean() == pytest.approx(0.8, abs=0.03)


def test_welchs_tests_of_unequal_samples_match_the_formulas() -> None:
    """Degrees of freedom by Welch and Satterthwaite, as in any textbook."""
    a, b = np.array([0.9700, 0.9703, 0.9698]), np.array([0.9650, 0.9722, 0.9701, 0.9611, 0.9689, 0.9735, 0.9640])
    values = np.full((10, 2), np.nan)
    values[:3, 0], values[3:, 1] = a, b
    found = Model(values).test([Contrast("cells", "a", "b", (0,), (1,))], margin=0.01).iloc[0]
    parts = np.array([a.var(ddof=1) / 3, b.var(ddof=1) / 7])
    error, mean = parts.sum() ** 0.5, a.mean() - b.mean()
    limits = stats.t(parts.sum() ** 2 / (parts**2 / [2, 6]).sum())
    assert found["p"] == pytest.approx(2 * limits.sf(abs(mean) / error))
    assert found["p_equal"] == pytest.approx(limits.sf((0.01 - abs(mean)) / error))
    assert (found["low"], found["high"]) == pytest.approx(mean + limits.ppf([0.025, 0.975]) * error)
    assert (found["test"], found["n"]) == ("Welch t", 3)


def test_lower_is_better_for_loss_and_time(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", around(0.98))
    leave_cell(tmp_path, "tanh", around(0.97, 0.9))
    for metric in ("loss", "test/loss"):
        _, cells, pairs, said = everything(tmp_path, metric=metric)
        assert cells.label.tolist() == ["relu", "tanh"]
        assert (pairs.a[0], pairs.difference[0]) == ("relu", pytest.approx(0.01))
        assert "The lowest test loss is that of relu: 0.0200 ± 0.0009 nats." in said
        assert "relu beats tanh by 0.0100 nats" in said
    for seed in range(3):  # make the better cell the slower one
        path = tmp_path / f"relu{seed}{seed}" / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds_per_epoch": 3.0 + seed / 10}))
    said = everything(tmp_path, metric="seconds_per_epoch", margin=0.5)[-1]
    assert "The lowest training time per epoch is that of tanh: 2.00 s." in said
    assert "tanh beats relu by 1.10 s (" in said


def test_every_other_cell_is_compared_with_the_baseline(tmp_path: Path) -> None:
    for number, activation in enumerate(["relu", "tanh", "sigmoid", "gelu"]):
        leave_cell(tmp_path, activation, around(0.97 - number / 100, number + 1))
    for baseline in ("tanh", "activation=tanh", "activation=tanh engine=manual"):
        _, _, pairs, said = everything(tmp_path, baseline=baseline)
        assert len(pairs) == 3
        assert all("tanh" in (row.a, row.b) for row in pairs.itertuples())
        assert set(pairs.n_comparisons) == {3}
        assert set(pairs.kind) == {"cells"}
        assert said.count("tanh") >= 3
    for baseline in ("softplus", "activation=softplus", "engine=manual", "nonsense=1", "'"):
        answer = r"^baseline=.* names \S+ of the cells: (did you mean .*)?they are relu, tanh, sigmoid, gelu$"
        with pytest.raises(UserError, match=answer):
            everything(tmp_path, baseline=baseline)


def test_where_filters_runs_and_keys_are_recomputed(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        leave_cell(tmp_path, "relu", around(0.97 + lr / 100), lr=lr)
        leave_cell(tmp_path, "tanh", around(0.96), lr=lr)
    comparison, cells, *_ = everything(tmp_path, where='`optimizer.lr` > 0.15 and seed != 1 and engine == "manual"')
    assert comparison.varying == ["activation"]
    assert cells.completed.tolist() == [2, 2]
    assert "chose 4 of 12 runs." in comparison.remarks[0]
    for wrong in ("nonsense > 1", "seed", "seed <", "seed = 1", "activation > 1", "seed > 99", "1", "__import__('os')"):
        with pytest.raises(UserError, match=r"where=.* (\(|holds for none)"):
            everything(tmp_path, where=wrong)


def test_group_pools_the_other_keys_by_seed(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        leave_cell(tmp_path, "relu", around(0.97 + lr / 100), lr=lr)
        leave_cell(tmp_path, "tanh", around(0.96, 2), lr=lr)
    comparison, cells, pairs, _ = everything(tmp_path, group=["activation"])
    assert cells.label.tolist() == ["relu", "tanh"]
    assert (cells.completed.tolist(), pairs.n[0]) == ([6, 6], 3)
    assert pairs.difference[0] == pytest.approx(0.0115)
    half = 4.302653 * np.std(NOISE, ddof=1) / 3**0.5
    assert cells["test/accuracy.high"][0] - cells["test/accuracy"][0] == pytest.approx(half, rel=1e-5)
    assert "Pooled over optimizer.lr: of a cell's runs with one seed, the mean counts." in comparison.remarks
    assert everything(tmp_path, group=["lr", "activation"])[1].label.tolist()[0] == "lr=0.2 relu"
    with pytest.raises(UserError, match=r"^invalid value group=nonsense: these settings differ: activation, engine"):
        everything(tmp_path, group=["nonsense"])
    with pytest.raises(UserError, match=r"^invalid value metric=val/loss: did you mean loss. these runs have gap"):
        everything(tmp_path, metric="val/loss")


def test_latex_table_is_escaped(tmp_path: Path) -> None:
    leave_cell(tmp_path, "my_relu & 5%", [0.97, 0.971])
    table = (written(tmp_path) / "summary.tex").read_text(encoding="utf-8")
    assert r"my\_relu \& 5\%" in table
    assert r"\toprule" in table
    assert r"test \%" in table
    assert "97.05 ±" in table


def test_every_option_works_on_the_command_line(command: RunCommand, tmp_path: Path) -> None:
    for number, activation in enumerate(["relu", "tanh", "gelu"]):
        leave_cell(tmp_path / "s", activation, around(0.97 - number / 1000, number + 1))
    baseline = "activation=tanh engine=manual regularizer=none"
    options = ["metric=loss", "margin=0.0001", f"baseline={baseline}", "group=[activation,engine,regularizer]"]
    done = command("compare.py", "sweep=s", "where=activation != 'gelu' or seed < 2", *options)
    assert done.status == 0, done.err
    assert "Neither a difference nor equality is shown by 2 comparisons of cells." in " ".join(done.out.split())
    assert "chose 8 of 9 runs" in done.out
    (folder,) = (tmp_path / "s").glob("comparison_metric=loss_margin=0.0001_*")  # named after the question
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert f"Every other cell against {baseline}" in html
    assert "What would settle the rest" in html
    assert (folder / "test_loss.png").exists()
    for wrong in ("margin=-1", "margin=a", "metric=", "group=[]", "baseline=nobody", "where=nothing == 1"):
        done = command("compare.py", "sweep=s", wrong)
        assert done.status == 1
        assert wrong.split("=")[0] in done.err
        assert "Traceback" not in done.err


@pytest.mark.slow
def test_page_can_be_sorted_filtered_and_linked_to(chromium: Any, tmp_path: Path) -> None:
    sweep = tmp_path / "a b#1"
    for number, activation in enumerate(["relu", "tanh", "gelu"]):
        leave_cell(sweep, activation, around(0.09 + 0.4 * number))
    (sweep / "tanh03" / "curves.png").touch()
    said: list[str] = []
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(f"{(written(sweep, drawn=True) / 'report.html').as_uri()}#tanh")
    page.wait_for_selector("input[type=search]")
    assert page.evaluate("[...document.querySelectorAll('details[open] summary')].map((one) => one.innerText)")[
        -1:
    ] == ["tanh: 3 runs"]
    first = page.locator("table.cells tbody tr")
    assert first.first.inner_text().startswith("gelu")
    page.set_viewport_size({"width": 1200, "height": 800})
    page.locator("table.cells th", has_text="test %").first.click()
    page.wait_for_selector("th[aria-sort=ascending]")
    assert first.first.inner_text().startswith("relu")  # sorted as numbers: 9 before 49
    page.locator("input[type=search]").first.fill("tan")
    page.wait_for_function("document.querySelectorAll('table.cells tbody tr').length == 1")
    for width in (1200, 390):  # nothing is cut, and every number is visible without scrolling sideways
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = "[...document.querySelectorAll('.wide:has(table)')]"
        assert page.evaluate(f"{wide}.filter((one) => one.scrollWidth > one.clientWidth).length") == 0
    with page.expect_navigation():
        page.get_by_role("link", name="curves").click()
    assert page.url.endswith("/a%20b%231/tanh03/curves.png")
    page.close()
    plain = chromium.new_context(java_script_enabled=False).new_page()
    plain.goto((sweep / "comparison" / "report.html").as_uri())
    assert plain.locator("table.cells tbody tr").count() == 3
    plain.context.close()
    assert said == []


@pytest.mark.parametrize("name", sorted(NOT_A_CELL))
def test_setting_that_changes_nothing_computed_makes_no_cell(tmp_path: Path, name: str) -> None:
    values: dict[str, Any] = {"logger": {"csv": {"version": 1}}, "diagnostics": {"examples": 5}, "seed": 1}
    for number in (0, 1):
        config: dict[str, Any] = {"seed": 0, "name": "x"}
        choices = {"activation": "relu", "engine": "manual", "regularizer": "none", "data": "mnist"}
        if number and name in ("experiment", "debug"):
            choices |= {name: "another"}
        elif number:
            config |= {name: values.get(name, "another")}
        leave_run(tmp_path / str(number), 0.9, config["seed"], config=config, choices=choices)
    comparison = everything(tmp_path)[0]
    assert comparison.varying == []


def test_mean_median_and_extremes_are_told_apart(tmp_path: Path) -> None:
    accuracies = [0.90, 0.91, 0.97, 0.99]  # mean 0.9425, median 0.94
    for seed, accuracy in enumerate(accuracies):
        leave_run(tmp_path / str(seed), accuracy, seed, metrics={
            "train/accuracy": 1 - accuracy / 2, "test/accuracy": accuracy, "test/loss": accuracy / 3
        })  # fmt: skip
    (row,) = everything(tmp_path)[1].to_dict("records")
    for column, values in (
        ("test/accuracy", accuracies),
        ("train/accuracy", [1 - accuracy / 2 for accuracy in accuracies]),
        ("test/loss", [accuracy / 3 for accuracy in accuracies]),
    ):
        found = [row[column], *(row[f"{column}.{name}"] for name in ("median", "least", "most"))]
        assert found == pytest.approx([np.mean(values), np.median(values), min(values), max(values)])
        low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
        high = min(high, 1) if "accuracy" in column else high
        assert (row[f"{column}.low"], row[f"{column}.high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("name", ["accuracy", "loss", "gap", "seconds_per_epoch", "seconds", "peak_memory_mb"])
def test_first_cell_is_the_one_with_the_better_metric(tmp_path: Path, name: str) -> None:
    """Three cells whose order is another one for every metric."""
    values = {
        "accuracy": (0.97, 0.98, 0.96), "loss": (0.3, 0.2, 0.1), "gap": (0.02, 0.015, 0.01),
        "seconds_per_epoch": (1.0, 3.0, 2.0), "seconds": (30.0, 10.0, 20.0), "peak_memory_mb": (700.0, 900.0, 500.0),
    }  # fmt: skip
    for number, activation in enumerate(("relu", "tanh", "gelu")):
        each = {key: column[number] for key, column in values.items()}
        metrics = {"train/accuracy": each["accuracy"] + each["gap"], "test/accuracy": each["accuracy"]}
        metrics["test/loss"] = each["loss"]
        times: dict[str, Any] = {key: each[key] for key in ("seconds_per_epoch", "seconds", "peak_memory_mb")}
        leave_run(tmp_path / activation, 0.9, 0, activation, metrics=metrics, **times)
    found = everything(tmp_path, metric=name)[1]
    column = {"accuracy": "test/accuracy", "loss": "test/loss"}.get(name, name)
    assert found[column].iloc[0] == pytest.approx((max if name == "accuracy" else min)(values[name]))


@pytest.mark.parametrize("seeds", [1, 2])
def test_setting_confounded_with_several_keys_is_named(tmp_path: Path, seeds: int) -> None:
    """Batches are decided by two keys together; epochs by three and by no two of them."""
    grid = product(("relu", "tanh"), (0.1, 0.2), (10, 20), range(seeds))
    for number, (activation, lr, size, seed) in enumerate(grid):
        odd = (activation == "tanh") ^ (lr == 0.2)
        config: dict[str, Any] = {"optimizer": {"lr": lr}, "network": {"hidden_sizes": [size]}}
        config |= {"trainer": {"max_epochs": 5 if odd ^ (size == 20) else 3}, "data": {"batch_size": 1 + odd}}
        leave_configured(tmp_path / str(number), 0.9 + number / 1000, seed, activation, **config)
    comparison, *_, said = everything(tmp_path)
    assert comparison.follows == {
        ("activation", "optimizer.lr"): ["data.batch_size"],
        ("activation", "optimizer.lr", "network.hidden_sizes"): ["trainer.max_epochs"],
    }
    assert "activation and optimizer.lr together are confounded with data.batch_size" in said


def test_class_of_a_network_is_told_by_the_column_of_activations() -> None:
    columns = {"activation": ["CNN", "relu"], "engine": ["autograd"] * 2, "regularizer": ["none"] * 2}
    assert find_factors(columns | {"network._target_": ["my.CNN", "MLP"]}) == ([*columns], {})
    assert find_factors(columns | {"network._target_": ["my.CNN", "MLP"]}, always=())[1] != {}
    assert find_factors(columns | {"optimizer.lr": ["0.1", "0.2"]})[1] == {("activation",): ["optimizer.lr"]}
    two = {"activation": ["CNN", "CNN"], "engine": ["autograd"] * 2, "regularizer": ["none"] * 2}
    two["network._target_"] = ["my.CNN", "other.CNN"]
    assert find_factors(two)[0] == [*two]
    assert find_factors({"optimizer.lr": ["0.1", "0.2"]} | two)[1] == {("optimizer.lr",): ["network._target_"]}


def test_verdicts_are_by_corrected_p_values() -> None:
    table = pd.DataFrame({"kind": "cells", "p": [0.9, 0.02, 0.9], "p_equal": [0.03, 0.9, 0.9], "identical": False})
    found = statistics.with_verdicts(table)
    assert found.p_corrected.tolist() == pytest.approx([1.0, 0.06, 1.0])
    assert found.p_equal_corrected.tolist() == pytest.approx([0.09, 1.0, 1.0])
    assert found.verdict.tolist() == ["undecided"] * 3
    alone = statistics.with_verdicts(table.assign(p=[0.9, 0.01, 0.9], p_equal=[0.01, 0.9, 0.9]))
    assert alone.verdict.tolist() == ["equal", "differ", "undecided"]


def test_best_of_many_cells_is_probably_an_overestimate(tmp_path: Path) -> None:
    for activation, accuracy in (("relu", 0.97), ("tanh", 0.96)):
        leave_cell(tmp_path, activation, around(accuracy))
    assert "overestimate" not in everything(tmp_path)[-1]
    leave_cell(tmp_path, "sigmoid", around(0.95))
    assert "; the highest of 3 cells, so probably an overestimate." in everything(tmp_path)[-1]
    assert "; the lowest of 3 cells, so probably an underestimate." in everything(tmp_path, metric="loss")[-1]


def test_interaction_below_the_margin_is_averaged_over(tmp_path: Path) -> None:
    means = {
        ("relu", "manual"): 0.95,
        ("relu", "autograd"): 0.953,
        ("tanh", "manual"): 0.95,
        ("tanh", "autograd"): 0.947,
    }
    for number, ((activation, engine), mean) in enumerate(means.items()):
        leave_cell(tmp_path, activation, around(mean, 1 if number % 2 else -1), engine=engine)
    assert "The effect of engine depends on activation" in everything(tmp_path, margin=0.1)[-1]
    assert "depends on" not in everything(tmp_path, margin=1)[-1]


def test_single_run_has_no_range() -> None:
    metric = Metric("loss", "loss", "nats", " nats", digits=3)
    values = {"loss.least": 0.1, "loss.most": 0.2}
    assert [page.span({"completed": runs} | values, metric) for runs in (1, 2)] == ["", "0.100 to 0.200"]
