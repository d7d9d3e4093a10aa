"""Oracle: the drawn artists, read back, against the numbers of hand-made runs; outliers worked out by hand."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import findfont, get_font

from conftest import mostly_slow
from handgrad.comparison import axes as fitting
from handgrad.comparison import figures, outcomes
from handgrad.comparison.look import Look
from handgrad.comparison.metrics import find_metric
from made_runs import around, everything, leave_cell, leave_run

PAGE = 850  # pixels that the page shows a figure wide
ACCURACY = find_metric("accuracy", "test", ["test/accuracy"])
TITLES = ("colour: activation", "marker: engine", "filling: regularizer")
ACTIVATIONS, ENGINES, REGULARIZERS = ("sigmoid", "tanh", "relu"), ("manual", "autograd"), ("none", "l2")


def leave(folder: Path, accuracy: float, seed: int = 0, lr: float = 0.1, seconds: Any = 2.0, **choices: str) -> None:
    """Write a run with given choices, for example engine="autograd"."""
    usual = {"activation": "relu", "engine": "manual", "regularizer": "none", "data": "mnist", "optimizer": "sgd"}
    config = {"seed": seed, "name": "x", "optimizer": {"lr": lr}}
    metrics = {"train/accuracy": accuracy, "test/accuracy": accuracy, "test/loss": 1 - accuracy}
    folder /= str(len(list(folder.glob("*"))))
    leave_run(
        folder, accuracy, seed, choices=usual | choices, config=config, metrics=metrics, seconds_per_epoch=seconds
    )


def leave_twelve(folder: Path, worst: float = 0.875) -> None:
    """Write 12 cells of two seeds between 87.5 and 91 %, but for sigmoid manual none."""
    for place, (activation, engine, regularizer) in enumerate(product(ACTIVATIONS, ENGINES, REGULARIZERS)):
        for seed in (0, 1):
            accuracy = 0.88 + 0.0025 * place + 0.0001 * seed if place else worst
            choices: Any = {"activation": activation, "engine": engine, "regularizer": regularizer}
            leave(folder, accuracy, seed, seconds=2 + place / 10, **choices)


def drawn(folder: Path, **asked: Any) -> dict[str, tuple[str, Any]]:
    """Return caption and figure by name."""
    comparison, cells, *_ = everything(folder, **asked)
    return {name: (caption, figure) for name, caption, figure in figures.every(comparison, cells)}


def marks(axes: Any) -> list[Any]:
    """Return the markers of an axes' cells."""
    return [line for line in axes.lines if line.get_linestyle() == "None" and len(line.get_xdata()) == 1]


def look_of(mark: Any) -> tuple[str, str, str]:
    """Return a marker's colour, shape and filling."""
    hollow = mark.get_markerfacecolor() == "white"
    return mark.get_color(), mark.get_marker(), "hollow" if hollow else mark.get_fillstyle()


def by_row(figure: Any) -> dict[str, tuple[str, str, str]]:
    """Return the look of each cell of a dot figure by its row's label."""
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    return {labels[int(mark.get_ydata()[0])]: look_of(mark) for mark in marks(figure.axes[0])}


def by_value(axes: Any) -> dict[float, tuple[str, str, str]]:
    """Return the look of each cell by its place on the y axis."""
    return {round(float(mark.get_ydata()[0]), 6): look_of(mark) for mark in marks(axes)}


def test_every_figure_with_data_is_drawn(tmp_path: Path) -> None:
    for lr in (0.0, 0.001, 0.1):
        leave_cell(tmp_path, "relu", around(0.9 + lr / 10), lr=lr)
    assert list(drawn(tmp_path)) == ["accuracy", "curves", "gap", "confusion", "time", "option"]
    assert next(iter(drawn(tmp_path, metric="loss"))) == "test_loss"


def test_unscored_epochs_are_not_drawn(tmp_path: Path) -> None:
    leave_run(tmp_path / "0_relu", 0.97)
    rows = ["epoch,train/loss,test/loss", "0,0.5,", "1,0.3,0.35", "2,0.2,", "3,0.1,0.25"]
    (tmp_path / "0_relu" / "history.csv").write_text("\r\n".join(rows) + "\r\n", newline="")
    train, test = drawn(tmp_path)["curves"][1].axes[0].lines[:2]
    assert np.asarray(train.get_xydata()).tolist() == [[1, 0.5], [2, 0.3], [3, 0.2], [4, 0.1]]
    assert np.asarray(test.get_xydata()).tolist() == [[2, 0.35], [4, 0.25]]


def test_curves_are_means_over_runs_with_bands_in_the_order_of_epochs(tmp_path: Path) -> None:
    for seed, rows in enumerate(("0,0.5\n2,0.1\n", "0,0.7\n1,0.4\n2,0.3\n")):
        leave_run(tmp_path / str(seed), 0.97, seed)
        (tmp_path / str(seed) / "history.csv").write_text(f"epoch,train/loss\n{rows}")
    (axes,) = drawn(tmp_path)["curves"][1].axes
    (line,) = axes.lines
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[1, 0.6], [2, 0.4], [3, 0.2]])
    band = axes.collections[0].get_paths()[0].vertices
    assert {(1, 0.5), (1, 0.7), (3, 0.1), (3, 0.3)} <= {(float(x), float(y)) for x, y in band}


def test_figures_show_mean_counts_and_dots_in_the_metrics_unit(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.97, 0.972)):
        leave_run(tmp_path / str(seed), accuracy, seed)
    comparison, cells, *_ = everything(tmp_path)
    matrix = figures.mean_confusion(comparison, cells.iloc[0])
    assert matrix is not None
    np.testing.assert_array_equal(matrix, np.eye(10) * 990 + 1)  # equal in both runs
    axes = drawn(tmp_path)["accuracy"][1].axes[0]
    np.testing.assert_allclose(np.asarray(axes.collections[0].get_offsets())[:, 0], [97, 97.2])
    assert marks(axes)[0].get_xdata()[0] == pytest.approx(97.1)


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_nothing_is_drawn_beyond_what_a_metric_can_be(tmp_path: Path, metric: str) -> None:
    for lr, seed in product((0.1, 0.2), (0, 1)):
        leave(tmp_path, 0.985 + 0.01 * seed + lr / 40, seed, lr, seconds=0.1 + seed)
    _, cells, *_ = everything(tmp_path, metric=metric)
    least, most = (0.0, 100.0) if metric == "accuracy" else (0.0, np.inf)
    end = cells["test/accuracy.high"] if metric == "accuracy" else cells["test/loss.low"]
    assert (end == (1 if metric == "accuracy" else 0)).all()
    found = drawn(tmp_path, metric=metric)
    for figure, along in ((next(iter(found.values()))[1], "x"), (found["option"][1], "y")):
        values = np.concatenate([getattr(line, f"get_{along}data")() for line in figure.axes[0].lines])
        limits = getattr(figure.axes[0], f"get_{along}lim")()
        for numbers in (values, limits):
            assert least <= np.nanmin(numbers) < np.nanmax(numbers) <= most
        assert (most if metric == "accuracy" else least) in values  # the interval is cut, not left out
    axes = found["time"][1].axes[0]
    assert max(*axes.get_ylim(), *(np.nanmax(line.get_ydata()) for line in axes.lines)) <= 100
    assert min(*axes.get_xlim(), *(np.nanmin(line.get_xdata()) for line in axes.lines)) == 0


def test_far_cell_is_at_the_edge_of_its_row_with_its_number(tmp_path: Path) -> None:
    leave_twelve(tmp_path / "runs", worst=0.229)
    rows = "sigmoid,manual,none,0.2287\nrelu,manual,none,0.9\n"
    (tmp_path / "paper.csv").write_text(f"activation,engine,regularizer,test/accuracy\n{rows}")
    caption, figure = drawn(tmp_path / "runs", reference=tmp_path / "paper.csv")["accuracy"]
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert 87 < low < 88.25
    assert 90.76 < high < 92
    *others, last = marks(axes)
    assert (last.get_xdata()[0], last.get_ydata()[0]) == (low, 11)
    (text,) = axes.texts
    assert (text.get_text(), *text.xy) == ("◂ 22.90 (paper 22.87)", low, 11)
    font = get_font(findfont("DejaVu Sans"))
    assert all(font.get_char_index(ord(arrow)) for arrow in "◂▸▾▴")
    means = [88 + 0.25 * place + 0.005 for place in range(11, 0, -1)]
    assert [mark.get_xdata()[0] for mark in others] == pytest.approx(means)
    assert caption.endswith(" interval. Far off, at the edge with an arrow: sigmoid manual none.")
    assert "Far off" not in drawn(tmp_path / "runs")["gap"][0]


def test_far_cell_is_named_at_the_edges_of_time(tmp_path: Path) -> None:
    for place in range(9):
        leave(tmp_path, 0.9 + place / 1000, lr=0.1 * (place + 1), seconds=2 + place / 100)
    leave(tmp_path, 0.1, lr=7.0, seconds=60.0)
    caption, figure = drawn(tmp_path)["time"]
    (axes,) = figure.axes
    (_, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    assert right < 3
    assert bottom > 89
    (text,) = axes.texts
    assert (text.get_text(), *text.xy) == ("lr=7.0 ▾ 10.00 ▸ 60.00", right, bottom)
    assert caption.endswith(" Far off, at the edge with an arrow: lr=7.0.")


def test_far_cells_are_at_the_edge_of_each_panel_of_the_option(tmp_path: Path) -> None:
    for lr, optimizer in product((0.001, 0.01, 0.1), ("sgd", "adam")):
        accuracy = {0.001: 0.96, 0.01: 0.97, 0.1: 0.98}[lr] + (optimizer == "adam") / 250
        leave(tmp_path, 0.1 if (lr, optimizer) == (0.1, "adam") else accuracy, lr=lr, optimizer=optimizer)
    caption, figure = drawn(tmp_path)["option"]
    above, below = figure.axes
    assert [text.get_text() for text in above.texts] == ["adam lr=0.1 ▾ 10.00"]
    assert [text.get_text() for text in below.texts] == ["adam lr=0.1 ▴ 0.9000"]
    assert (0.1, above.get_ylim()[0]) in [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks(above)]
    assert (0.1, below.get_ylim()[1]) in [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks(below)]
    assert caption.endswith(" Far off, at the edge with an arrow: adam lr=0.1.")


@pytest.mark.parametrize(
    ("values", "far"),
    [
        ([1, 2, 3, 4, 5, 11.2], 0),  # MAD 1.5: 0.6745 * 7.7 / 1.5 = 3.46
        ([1, 2, 3, 4, 5, 11.4], 1),  # 0.6745 * 7.9 / 1.5 = 3.55
        ([5, 5, 5, 5, 5, 5, 5, 5, 6], 1),  # MAD zero: 1 / (1.253314 / 9) = 7.2
        ([5, 5, 6], 0),  # MAD zero: 1 / (1.253314 / 3) = 2.4
        ([0.1 + 0.2, 0.3, 0.6], 0),  # a rounding error is no spread
        ([1, 2, 3, 4, 500, 600], 2),  # exactly a third
        ([1, 2, 3, 4, 5, 100, 200, 300], 0),  # three of eight are far: more than a third
        ([1, 2, 3, 4, 5, 6, 100, 200], 2),
        ([1, 2, 3, 4, 5, np.nan, 100], 1),
        ([np.nan, 1], 0),
    ],
)
def test_far_values_are_those_of_the_modified_z_score(values: list[float], far: int) -> None:
    found = outcomes.is_far(np.array(values, dtype=float))
    assert found.sum() == far
    assert not far or found[-far:].all()


@pytest.mark.parametrize(
    ("means", "low"),
    [
        ([0.81, 0.82, 0.83, 0.84, 0.85, 0.744], 74.4),  # far, but 10.6 points are less than three times 4
        ([0.81, 0.82, 0.83, 0.84, 0.85, 0.730], 81.0),  # exactly three times
        ([0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.715, 0.2], 71.5),  # each far cell for itself
    ],
)
def test_axis_shows_far_cells_unless_they_would_triple_its_span(means: list[float], low: float) -> None:
    limits = fitting.fitted(ACCURACY, [np.array([100 * mean]) for mean in means])
    assert limits[0] < low < limits[0] + 3
    assert 85 < limits[1] < 87


def test_axis_has_a_span_and_the_intervals_of_all_means_in_it() -> None:
    means = [np.array([mean]) for mean in (81.0, 82.0, 83.0, 84.0, 85.0)]
    assert fitting.fitted(ACCURACY, [*means, np.array([74.4, 20.0, 99.0])])[0] < 20
    assert fitting.fitted(ACCURACY, [np.array([97.0])] * 3) == pytest.approx((96.95, 97.05))
    low, high = fitting.fitted(ACCURACY, [np.array([np.nan])] * 3)
    assert low < high


def test_colour_marker_and_filling_are_the_values_of_three_keys_in_every_figure(tmp_path: Path) -> None:
    leave_twelve(tmp_path)
    found = drawn(tmp_path)
    looks = by_row(found["accuracy"][1])
    assert len(set(looks.values())) == 12
    for part, values in ((0, ACTIVATIONS), (1, ENGINES), (2, REGULARIZERS)):
        signs = [{look[part] for label, look in looks.items() if value in label.split()} for value in values]
        assert [len(sign) for sign in signs] == [1] * len(values)
        assert len(set.union(*signs)) == len(values)
    assert by_row(found["gap"][1]) == looks
    assert list(by_value(found["time"][1].axes[0]).values()) == list(looks.values())  # both best first
    for label, axes in zip(looks, found["curves"][1].axes, strict=True):
        assert {line.get_color() for line in axes.lines} == {looks[label][0]}


def test_look_of_an_option_is_that_of_the_other_figures(tmp_path: Path) -> None:
    for place, (lr, optimizer) in enumerate(product((0.1, 0.2, 0.3), ("sgd", "adam"))):
        leave(tmp_path, 0.9 + place / 1000, lr=lr, optimizer=optimizer)
    found = drawn(tmp_path)
    axes = found["option"][1].axes[0]
    assert by_value(axes) == by_value(found["time"][1].axes[0])
    lines = [line.get_color() for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(set(lines)) == 2
    assert set(lines) == {look[0] for look in by_value(axes).values()}


def test_line_of_many_values_has_one_look(tmp_path: Path) -> None:
    for place, optimizer in product(range(25), ("sgd", "adam")):
        leave(tmp_path, 0.9 + place / 1000, lr=0.1 * (place + 1), optimizer=optimizer)
    for axes in drawn(tmp_path)["option"][1].axes:
        assert len(marks(axes)) == 50
        assert len({look_of(mark) for mark in marks(axes)}) == 2


def test_look_stays_when_cells_are_added_or_left_out(tmp_path: Path) -> None:
    leave_twelve(tmp_path)
    before = by_row(drawn(tmp_path)["accuracy"][1])
    for activation, engine, regularizer in (("gelu", "jax", "dropout"), ("a_new_one", "manual", "none")):
        leave(tmp_path, 0.9, activation=activation, engine=engine, regularizer=regularizer)
    after = by_row(drawn(tmp_path)["accuracy"][1])
    assert {label: after[label] for label in before} == before
    assert len(set(after.values())) == 14
    fewer = by_row(drawn(tmp_path, where="activation not in ('sigmoid', 'a_new_one')")["accuracy"][1])
    assert fewer == {label: after[label] for label in fewer}


@pytest.mark.parametrize("keys", mostly_slow([(3, 2, 2, 3, 2), (24, 1, 1, 1, 1), (12, 2, 8, 1, 1)], always=1))
def test_every_cell_of_many_keys_looks_different(tmp_path: Path, keys: tuple[int, ...]) -> None:
    names = ["activation", "engine", "regularizer", "optimizer", "schedule"]
    for place, values in enumerate(product(*map(range, keys))):
        choices = {name: f"{name}{value}" for name, value in zip(names, values, strict=True)}
        leave_run(tmp_path / str(place), 0.9, choices={"data": "mnist", **choices}, config={"seed": 0, "name": "x"})
    comparison, cells, *_ = everything(tmp_path)
    look = Look(comparison)
    assert len({str(look(row)) for row in cells.to_dict("records")}) == len(cells) == np.prod(keys)


def test_legend_explains_the_keys_once_per_figure(tmp_path: Path) -> None:
    leave_twelve(tmp_path)
    found = drawn(tmp_path)
    cells = by_row(found["accuracy"][1])
    for name in ("accuracy", "gap", "time"):
        (legend,) = found[name][1].legends
        texts = [text.get_text().strip() for text in legend.get_texts()]
        assert sorted(texts)[-10:] == sorted([*TITLES, *ACTIVATIONS, *ENGINES, *REGULARIZERS])
        looks = dict(zip(texts, map(look_of, legend.legend_handles), strict=True))
        assert looks["tanh"][0] == cells["tanh manual l2"][0]
        assert looks["autograd"][1] == cells["relu autograd l2"][1]
        assert looks["l2"][2] == cells["relu autograd l2"][2] == "hollow"


def test_rows_need_no_legend_if_one_key_varies_and_names_stand_where_signs_run_out(tmp_path: Path) -> None:
    for place in range(20):
        leave(tmp_path, 0.9 + place / 1000, lr=0.1 * (place + 1))
    found = drawn(tmp_path)
    assert not found["accuracy"][1].legends
    assert not found["option"][1].legends
    (legend,) = found["time"][1].legends
    assert {"lr=0.1", "lr=1.3"} <= {text.get_text().strip() for text in legend.get_texts()}


@pytest.mark.parametrize("worst", mostly_slow([0.229, 0.88], always=1))
def test_no_text_is_cut_and_no_legend_covers_data(tmp_path: Path, worst: float) -> None:
    leave_twelve(tmp_path, worst)
    for _, figure in drawn(tmp_path).values():
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        for axes in figure.axes:
            box = axes.get_tightbbox(renderer)
            assert box is not None
            assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) > -1
            assert not any(legend.get_window_extent(renderer).overlaps(box) for legend in figure.legends)


def test_digits_of_the_confusion_matrices_are_readable_on_the_page(tmp_path: Path) -> None:
    for number, activation in enumerate(("relu", "tanh")):
        leave(tmp_path, 0.9 + number / 100, activation=activation)
        matrix = np.full((10, 10), 1234)
        np.savetxt(tmp_path / str(number) / "confusion_test.csv", matrix * (1 + number), fmt="%d", delimiter=",")
    figure = drawn(tmp_path)["confusion"][1]
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        square = axes.get_window_extent().width / 10
        assert len(axes.texts) == 90  # the diagonal is left out
        for text in axes.texts:
            assert text.get_fontsize() / 72 / figure.get_figwidth() * PAGE >= 11
            assert text.get_window_extent().width < square


def test_reference_stands_only_beside_cells_that_have_one(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        leave(tmp_path / "runs", 0.97 - lr / 100, lr=lr)
    (tmp_path / "paper.csv").write_text("optimizer.lr,test/accuracy\n0.1,0.95\n")
    figure = drawn(tmp_path / "runs", reference=tmp_path / "paper.csv")["accuracy"][1]
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "paper")
    assert [tuple(point) for point in np.asarray(line.get_xydata()) if np.isfinite(point).all()] == [(95.0, 0)]
    assert "paper" in {text.get_text().strip() for text in figure.legends[0].get_texts()}
    (tmp_path / "paper.csv").write_text("optimizer.lr,test/accuracy\n0.7,0.95\n")
    figure = drawn(tmp_path / "runs", reference=tmp_path / "paper.csv")["accuracy"][1]
    assert not figure.legends
    assert "paper" not in {line.get_label() for line in figure.axes[0].lines}


def test_runs_without_times_or_losses_have_no_figures_of_them(tmp_path: Path) -> None:
    for number in (0, 1):
        leave(tmp_path, 0.9 + number / 10, lr=0.1 * (number + 1), seconds=None)
        (tmp_path / str(number) / "history.csv").write_text("epoch,test/accuracy\n0,0.9\n")
    assert list(drawn(tmp_path)) == ["accuracy", "gap", "confusion", "option"]


def test_runs_of_another_project_are_drawn_by_the_metric_asked_for(tmp_path: Path) -> None:
    """Neither accuracies nor a gap: only the loss that was asked for."""
    for number in (0, 1):
        leave(tmp_path, 0.9 + number / 20, lr=0.1 * (number + 1))
        (tmp_path / str(number) / "history.csv").unlink()
        (tmp_path / str(number) / "confusion_test.csv").unlink()
    comparison, cells, *_ = everything(tmp_path, metric="loss")

    def without(table: pd.DataFrame) -> pd.DataFrame:
        return table.drop(columns=[name for name in table if "accuracy" in name or name.startswith("gap")])

    vars(comparison)["completed"] = without(comparison.completed)
    vars(comparison).pop("by_cell", None)
    found = {name: (caption, figure) for name, caption, figure in figures.every(comparison, without(cells))}
    assert list(found) == ["test_loss", "time", "option"]
    assert found["time"][0].startswith("What does test loss cost?")
    assert found["time"][1].axes[0].get_ylabel() == "test loss (nats)"
    assert [axes.get_ylabel() for axes in found["option"][1].axes] == ["test loss (nats)"]
