"""Oracle: scikit-learn's own scaler and encoder, autograd in float64, and sentences for every unusable table."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

import handgrad
from conftest import RunScript, ran, record_of, refused
from handgrad.errors import UserError
from handgrad.training.build import data_of
from handgrad.training.table import TableData

TABLE = ["data=table", "data.path=wine.csv", "data.target=cultivar"]
SMALL = ["network.hidden_sizes=[32]", "data.batch_size=16", "logger=none"]
MIXED = pd.DataFrame(
    {
        "age": np.random.default_rng(0).normal(40, 10, 60),
        "rooms": np.tile([1, 2, 3, 4], 15),
        "town": ["Ulm", "Bonn", "Kiel"] * 20,
        "buys": ["no", "yes"] * 30,
    }
)


def wine() -> pd.DataFrame:
    """The wines, with texts as classes in the last column."""
    loaded = load_wine(as_frame=True)
    names = ["Barolo", "Grignolino", "Barbera"]
    return loaded.data.assign(cultivar=[names[number] for number in loaded.target])


@pytest.fixture
def wine_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wine.csv` in the working directory."""
    monkeypatch.chdir(tmp_path)
    wine().to_csv("wine.csv", index=False)


def table(folder: Path, content: pd.DataFrame | str | bytes = MIXED, **options: Any) -> TableData:
    """Write a table and read it as data."""
    path = folder / "table.csv"
    if isinstance(content, pd.DataFrame):
        content.to_csv(path, index=False)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = TableData(str(path), **({"target": "buys"} | options))
    data.setup()
    return data


@pytest.mark.parametrize("val_size", [0, 9])
def test_numbers_are_scaled_and_texts_encoded_by_the_rows_left_for_training(tmp_path: Path, val_size: int) -> None:
    data = table(tmp_path, val_size=val_size)
    assert (data.inputs, data.class_names, data.image_shape) == (5, ["no", "yes"], None)
    sizes = {name: len(rows) for name, rows in data.sets.items()}
    assert sizes == ({"val": 9} if val_size else {}) | {"train": 48 - val_size, "test": 12}
    train = data.sets["train"].rows
    assert train[:, :2].mean(dim=0).abs().max() < 1e-6
    assert (train[:, :2].std(dim=0, correction=0) - 1).abs().max() < 1e-6
    everything = torch.cat([rows.rows for rows in data.sets.values()])
    ages = np.sort(MIXED.age.to_numpy())
    at = np.searchsorted(ages, np.sort(MIXED.age))
    scaled = everything[:, 0].sort().values.double().numpy()[at]
    slope, offset = np.polyfit(ages, scaled, 1)
    assert np.abs(slope * ages + offset - scaled).max() < 1e-5  # one scaler for all sets
    assert set(map(tuple, everything[:, 2:].tolist())) == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_scaling_is_that_of_scikit_learn_and_pairs_rows_with_their_classes(tmp_path: Path) -> None:
    marked = MIXED.assign(test=[0, 0, 1] * 20)
    data = table(tmp_path, marked, test_column="test")
    scaler = StandardScaler().fit(MIXED[["age", "rooms"]][marked.test == 0])
    for name, kept in (("train", marked.test == 0), ("test", marked.test == 1)):
        expected = scaler.transform(MIXED[["age", "rooms"]][kept])
        assert np.abs(data.sets[name].rows[:, :2].numpy() - expected).max() < 1e-6
        assert data.sets[name].targets[:, 1].tolist() == (MIXED.buys[kept] == "yes").astype(float).tolist()


def test_test_rows_are_stratified_by_class(tmp_path: Path) -> None:
    rare = MIXED.assign(buys=["yes"] * 10 + ["no"] * 50)
    for split_seed in range(5):
        data = table(tmp_path, rare, split_seed=split_seed)
        assert data.sets["test"].targets.sum(dim=0).tolist() == [10, 2]


def test_test_rows_do_not_depend_on_the_seed_of_the_run(tmp_path: Path) -> None:
    first, second = (table(tmp_path, seed=seed).sets["test"].rows for seed in (0, 1))
    assert first.equal(second)
    assert not first.equal(table(tmp_path, split_seed=1).sets["test"].rows)


def test_empty_cells_are_imputed_by_median_and_most_frequent_text(tmp_path: Path) -> None:
    holes = MIXED.assign(test=["train", "train", "test"] * 20)
    holes.loc[[0, 2], ["age", "town"]] = None
    data = table(tmp_path, holes, missing="impute", test_column="test")
    assert data.inputs == 4  # Kiel is in test rows only: unknown, all zeros
    ages = holes.age[holes.test == "train"]
    filled = ages.fillna(ages.median())
    expected = (ages.median() - filled.mean()) / filled.std(ddof=0)
    assert data.sets["train"].rows[0, 0].item() == pytest.approx(expected, abs=1e-5)
    assert data.sets["test"].rows[0, 0].item() == pytest.approx(expected, abs=1e-5)
    assert data.sets["test"].rows[1, 2:].tolist() == [0, 0]


@pytest.mark.parametrize(("classes", "names"), [([10, 9, 100], ["9", "10", "100"]), ([1.0, 0.0], ["0", "1"])])
def test_classes_are_sorted_as_numbers(tmp_path: Path, classes: list[float], names: list[str]) -> None:
    assert table(tmp_path, MIXED.assign(buys=classes * (60 // len(classes)))).class_names == names


@pytest.mark.parametrize(
    ("changed", "options", "sentence"),
    [
        ({}, {"target": "buy"}, "data.target=buy is not a column of the table: did you mean buys?"),
        ({}, {"target": None}, "data.target=... must name a column; it has age, rooms, town, buys"),
        ({}, {"test_column": "x"}, "data.test_column=x is not a column of the table"),
        ({"age": 1, "rooms": 1, "town": "Ulm"}, {}, "every column is constant in the training rows"),
        ({"buys": "no"}, {}, "data.target=buys has one class, no"),
        ({"buys": range(60)}, {}, "60 different values in 60 rows, too many for classes: if it is a quantity"),
        ({"buys": MIXED.age}, {}, "such as 41.2573.*: regression is not supported"),
        ({"buys": ["x"] + ["no", "yes"] * 29 + ["no"]}, {}, "class x has one row"),
        ({"buys": [None] + ["no"] * 59}, {}, "data.target=buys is empty in 1 rows"),
        ({"age": [None] + [1.0] * 59, "town": [None] * 2 + ["Ulm"] * 58}, {}, r"empty cells in column age \(1\), town"),
        ({"age": None}, {"missing": "impute"}, "column age is empty: remove it"),
        ({"age": np.inf}, {}, "column age has infinite numbers"),
        ({"mark": "a"}, {"test_column": "mark"}, "data.test_column=mark has a: it must be true or false"),
        ({"mark": 1}, {"test_column": "mark"}, "makes all rows test rows"),
        ({"mark": MIXED.buys}, {"test_column": "mark"}, "class yes has test rows only"),
        ({}, {"test_size": 0.01}, "makes 1 of 60 rows the test set"),
    ],
)
def test_unusable_columns_are_named_in_one_sentence(
    tmp_path: Path, changed: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        table(tmp_path, MIXED.assign(**changed), **options)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "table.csv is empty"),
        ("a,buys\n", "table.csv has no rows"),
        ("a,a,buys\n1,2,x\n", "two columns named a: rename one"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "table.csv is not a csv file"),
        ('[\n{"a": 1, "b": 2}]', "table.csv is not a csv file"),
        ("a,buys\n1,2,3\n4,5,6\n", "table.csv is not a csv file"),
        ("buys\nx\ny\n", "has no columns besides data.target=buys"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        table(tmp_path, content)


def test_column_of_many_texts_ten_thousand_classes_and_other_formats_are_refused(tmp_path: Path) -> None:
    many = pd.DataFrame({"id": [f"n{number}" for number in range(20000)], "c": ["a", "b"] * 10000})
    with pytest.raises(UserError, match="column id has 20,000 different strings"):
        table(tmp_path, many, target="c")
    with pytest.raises(UserError, match="10,000 different values in 20,000 rows"):
        table(tmp_path, many.assign(id=1, c=list(range(10000)) * 2), target="c")
    (tmp_path / "x.pkl").write_bytes(b"")
    with pytest.raises(UserError, match=r"x.pkl must be a .csv or a .parquet file"):
        TableData(str(tmp_path / "x.pkl"), "c").setup()
    with pytest.raises(UserError, match="there is no such file"):
        TableData(str(tmp_path / "x.csv"), "c").setup()


def test_constant_column_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table(tmp_path, MIXED.assign(rooms=3))
    assert "column rooms is constant in the training rows" in caplog.text


def test_parquet_gives_the_rows_of_the_csv(tmp_path: Path) -> None:
    if find_spec("pyarrow") is None:
        (tmp_path / "table.parquet").write_bytes(b"PAR1")
        with pytest.raises(UserError, match=r"Parquet needs pyarrow: pip install 'handgrad\[parquet\]'"):
            TableData(str(tmp_path / "table.parquet"), "buys").setup()
        return
    MIXED.to_parquet(tmp_path / "table.parquet")
    data = TableData(str(tmp_path / "table.parquet"), "buys")
    data.setup()
    assert data.sets["train"].rows.equal(table(tmp_path).sets["train"].rows)


@pytest.mark.parametrize("engine", ["manual", "autograd"])
def test_both_engines_learn_wine_and_evaluate_gives_the_recorded_numbers(
    run_script: RunScript, wine_csv: None, engine: str
) -> None:
    options = [*TABLE, *SMALL, f"engine={engine}", "trainer.max_epochs=12", "hydra.run.dir=run", "diagnostics=layers"]
    ran(run_script, *options)
    record = record_of(Path("run"))
    assert record["metrics"]["test/accuracy"] >= 0.95
    assert (record["classes"], len(record["config"]["data"]["sha256"])) == (3, 64)
    assert {"layers.csv", "confusion_test.csv", "predictions.csv"} <= {path.name for path in Path("run").iterdir()}
    assert " another " not in ran(run_script, "run=run", script="evaluate.py")
    ran(run_script, "run=run", script="export.py")


def test_gradients_on_a_table_are_checked(run_script: RunScript, wine_csv: None) -> None:
    ran(run_script, *TABLE, "batch=16", "fd_entries=2", "output=there", script="check.py")
    rows = json.loads(Path("there/check.json").read_text())["rows"]
    assert max(row["autograd float64"] for row in rows) < 1e-10


def test_changed_file_is_another_run_and_is_refused_on_opening(run_script: RunScript, wine_csv: None) -> None:
    options = [*TABLE, *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run"]
    ran(run_script, *options)
    assert "skipped" in ran(run_script, *options)
    Path("moved.csv").write_bytes(Path("wine.csv").read_bytes())
    wine().iloc[1:].to_csv("wine.csv", index=False)
    refused(run_script, "data.sha256", *options)
    changed = "wine.csv has changed since training"
    for script, more in (("evaluate.py", []), ("predict.py", ["rows=moved.csv"]), ("check.py", ["batch=8"])):
        refused(run_script, changed, "run=run", *more, script=script)
    refused(run_script, changed, "run=run", *TABLE, script="evaluate.py")  # nor with its present hash
    assert " another " not in ran(run_script, "run=run", "data.path=moved.csv", script="evaluate.py")


def test_new_rows_are_classified_as_the_network_does(run_script: RunScript, wine_csv: None) -> None:
    MIXED.to_csv("mixed.csv", index=False)
    options = ["data=table", "data.path=mixed.csv", "data.target=buys", *SMALL, "trainer.max_epochs=1"]
    ran(run_script, *options, "hydra.run.dir=run")
    new = MIXED.head(5)[["town", "rooms", "age"]].assign(town=["Ulm", "Bonn", "Kiel", "Rome", "Ulm"])
    new.to_csv("new.csv", index=False)
    printed = ran(run_script, "run=run", "rows=new.csv", "output=there", script="predict.py")
    assert "column town: Rome was not in the training rows" in printed
    found = pd.read_csv("there/predictions.csv")
    assert found.columns.tolist() == ["row", "class", "probability"]
    scaler = data_of(OmegaConf.create(record_of(Path("run"))["config"])).transformer  # type: ignore[attr-defined]
    x = torch.tensor(scaler.transform(new[["age", "rooms", "town"]]), dtype=torch.float32)
    module = handgrad.load("run")
    with torch.no_grad():
        probabilities, classes = torch.softmax(module(x), dim=1).max(dim=1)
    assert found["class"].tolist() == [["no", "yes"][number] for number in classes]
    assert np.abs(found.probability - probabilities.numpy()).max() < 1e-5
    for frame, sentence in (
        (new.drop(columns="age"), "rows=new.csv lacks the column age"),
        (new.assign(sex=1), "has the column sex, which mixed.csv lacks"),
        (new.assign(age="old"), "column age has strings where the network was trained on numbers"),
        (new.assign(age=None), "empty cells in column age (5)"),
        (new.head(0), "rows=new.csv has no rows"),
    ):
        frame.to_csv("new.csv", index=False)
        refused(run_script, sentence, "run=run", "rows=new.csv", script="predict.py")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["data=table"], "data=table needs data.path=my.csv and data.target=column"),
        (["data=arrays"], "data=arrays needs data.path=my.npz"),
        (["data=table", "data.path=nothing.csv"], "cannot use nothing.csv (No such file or directory)"),
        ([*TABLE, "data.test_size=1.5"], "invalid value data.test_size=1.5: must be < 1"),
        ([*TABLE, "data.missing=drop"], "invalid value data.missing=drop: must be 'refuse' or 'impute'"),
        ([*TABLE, "data.target=cultivr"], "did you mean cultivar?"),
    ],
)
def test_commands_refuse_in_one_sentence(
    run_script: RunScript, wine_csv: None, options: list[str], sentence: str
) -> None:
    refused(run_script, sentence, *options, *SMALL)
