"""Oracle: the notebook's table, and the recipes of its two halves as stated in its README."""

import csv
import math
import re

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import TypeAdapter, ValidationError

import conftest
from conftest import ROOT
from handgrad.config import Name, RunConfig, check, to_dict
from handgrad.errors import UserError
from handgrad.runs.record import DivergedError

ROWS = list(csv.DictReader((ROOT / "studies" / "notebook" / "notebook.csv").read_text().splitlines()))


def compose(*overrides: str) -> DictConfig:
    cfg = conftest.compose(*overrides, whole=True)
    HydraConfig.instance().set_config(cfg)
    check(to_dict(cfg), RunConfig)
    return cfg


def part(cfg: DictConfig, key: str) -> str:
    """Return the class name of a group's `_target_`."""
    return str(cfg[key]["_target_"]).split(".")[-1]


def test_engine_selects_its_half_of_the_notebook() -> None:
    manual, autograd = compose("engine=manual"), compose("engine=autograd")
    by_hand = (part(manual, "optimizer"), manual.network.init, manual.optimizer.lr)
    assert by_hand == ("FactoredSGD", "xavier_uniform", 0.01)
    assert (part(autograd, "optimizer"), autograd.network.init, autograd.optimizer.lr) == ("Adam", "pytorch", 0.01)
    assert (manual.optimizer.weight_reduction, manual.schedule.total_iters) == ("sum", 100)
    assert part(autograd, "schedule") == "constant"


def test_command_line_wins_over_the_recipe() -> None:
    cfg = compose("engine=manual", "optimizer=adam", "network.init=pytorch", "optimizer.lr=0.1", "schedule=constant")
    assert (part(cfg, "optimizer"), cfg.network.init, cfg.optimizer.lr) == ("Adam", "pytorch", 0.1)
    assert part(cfg, "schedule") == "constant"
    cfg = compose("experiment=notebook_manual-relu-none", "optimizer=adam", "trainer.max_epochs=3")
    assert (part(cfg, "optimizer"), cfg.trainer.max_epochs) == ("Adam", 3)
    assert compose("trainer.profiler=simple").trainer.profiler == "simple"


def named(row: dict[str, str]) -> str:
    """Return a row's name, as in its experiment's file name."""
    return "-".join(row[key] for key in ("engine", "activation", "regularizer"))


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_experiment_is_the_notebooks_row(row: dict[str, str]) -> None:
    cfg = compose(f"experiment=notebook_{named(row)}")
    assert cfg.name == f"{row['activation']}-{row['engine']}-{row['regularizer']}-s0"
    assert cfg.trainer.max_epochs == int(row["trainer.max_epochs"])
    warmed_up = part(cfg, "schedule") == "LinearLR"
    assert warmed_up == (named(row) == "manual-tanh-none")  # the only row that needs it to learn at all


def test_every_row_of_the_notebook_has_its_experiment() -> None:
    files = {path.stem for path in (ROOT / "conf" / "experiment").glob("notebook_*")}
    assert files == {f"notebook_{named(row)}" for row in ROWS}


@pytest.mark.parametrize("engine", ["manual", "autograd"])
def test_controlled_experiments_differ_only_in_the_engine(engine: str) -> None:
    cfg, other = compose("experiment=controlled", f"engine={engine}"), compose("experiment=controlled")
    for key in ("optimizer", "network", "schedule", "data", "trainer", "regularizer", "seed"):
        assert cfg[key] == other[key]
    assert part(cfg, "engine").lower() == f"{engine}module"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.batch_size=0", "invalid value data.batch_size=0: must be > 0"),
        ("data.batch_size=abc", "invalid value data.batch_size=abc: must be a valid integer"),
        ("data.batch_size=1.5", "invalid value data.batch_size=1.5: must be a valid integer"),
        ("data.val_size=-1", "invalid value data.val_size=-1: must be >= 0"),
        ("data.root=''", "invalid value data.root=: must not be empty"),
        ("optimizer.lr=-1", "invalid value optimizer.lr=-1: must be > 0"),
        ("optimizer.lr=nan", "invalid value optimizer.lr=nan: must be"),
        ("+regularizer.strength=-1e-5", "invalid value regularizer.strength=-1e-05: must be >="),
        ("network.hidden_sizes=[500,0]", "invalid value network.hidden_sizes.1=0: must be > 0"),
        ("network.init=zeros", "invalid value network.init=zeros: must be 'xavier_uniform' or 'pytorch'"),
        ("trainer.max_epochs=0", "invalid value trainer.max_epochs=0: must be > 0"),
        ("seed=-1", "invalid value seed=-1: must be >= 0"),
    ],
)
def test_invalid_value_is_refused_in_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(override)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_fashion_has_its_own_manual_recipe_and_can_be_overridden() -> None:
    cfg = compose("experiment=fashion")
    assert (cfg.data.dataset, cfg.trainer.max_epochs, cfg.name) == ("FashionMNIST", 5, "relu-manual-none-s0")
    parts = (part(cfg, "engine"), part(cfg, "optimizer"), cfg.network.init)
    assert parts == ("ManualModule", "FactoredSGD", "xavier_uniform")
    assert "weight_reduction" not in cfg.optimizer  # the mean: 0.2 here is 0.003 in the notebook's sums
    assert (cfg.optimizer.lr, part(cfg, "schedule")) == (0.2, "warmup_cosine")
    alike = compose("experiment=fashion", "engine=autograd", "optimizer=sgd", "network.init=xavier_uniform")
    assert (part(alike, "engine"), part(alike, "optimizer"), alike.optimizer.lr) == ("AutogradModule", "SGD", 0.2)


def test_recipes_suggested_after_divergence_exist() -> None:
    named = re.findall(r"experiment=(\w+)", str(DivergedError("train/loss", math.nan, 0, 3)))
    assert named == ["plain", "fashion"]
    for name in named:
        compose(f"experiment={name}")


def test_names_may_be_numbers() -> None:
    names = TypeAdapter(Name)
    assert [names.validate_python(value) for value in (2026, 1.5, "a")] == ["2026", "1.5", "a"]
    for value in ("", None, [1]):
        with pytest.raises(ValidationError):
            names.validate_python(value)
