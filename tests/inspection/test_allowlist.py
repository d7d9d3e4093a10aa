"""Oracle: a mark file that a foreign class creates when instantiated, and the numbers a run recorded."""

import gc
import inspect
import json
import math
import pickle
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import yaml  # type: ignore[import-untyped]

from conftest import ROOT, RunScript, ended_at_scoring, mostly_slow, ran, record_of, refusal
from forks import Harm
from handgrad.errors import UserError
from handgrad.hydra_version import TRUSTED_NODE
from handgrad.inspection.allowlist import ALLOWED, allowed_parts
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.training.data import ClassificationData

LAST = Path("run", "checkpoints", "last.ckpt")
SMALL = ["network.hidden_sizes=[16]", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run"]
TWO = [*SMALL, "trainer.max_epochs=2"]
STATEMENT = "open('mark', 'w')"
EVIL: dict[str, dict[str, Any]] = {
    "activation": {"_target_": "numpy.testing.runstring", "astr": STATEMENT, "dict": {}},
    "engine": {"_target_": "shutil.copy", "src": "evil.py", "dst": "mark"},
    "network": {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "x", "source": "local"},
    "data": {"_target_": "joblib.load", "filename": "evil.pkl"},
    "regularizer": {"_target_": "pip._internal.cli.main.main", "args": ["--log", "mark", "list"]},
    "trainer": {"_target_": "pandas.read_pickle", "filepath_or_buffer": "evil.pkl"},
}
OPENING = {
    "evaluate.py": [],
    "predict.py": [f"images={ROOT / 'docs' / 'images'}"],
    "explain.py": [],
    "export.py": [],
    "check.py": ["batch=8", "fd_entries=1"],
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run that all tests open, trained once."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def run(run_script: RunScript, kept: Path) -> dict[str, Any]:
    """Record of a trained network in the folder `run`, next to files that create `mark` if executed."""
    if not kept.exists():
        ran(run_script, *SMALL)
        shutil.move("run", kept)
    shutil.copytree(kept, "run")
    for name in ("evil.py", "hubconf.py"):
        Path(name).write_text(STATEMENT)
    Path("evil.pkl").write_bytes(pickle.dumps(Harm()))
    return record_of(Path("run"))


def recorded(**changes: Any) -> None:
    """Change the configuration recorded in the run and its checkpoint."""
    record = record_of(Path("run"))
    record["config"] |= changes
    Path("run", "metrics.json").write_text(json.dumps(record))
    content, _ = read_checkpoint(LAST)
    torch.save(content | {"hyper_parameters": record["config"]}, LAST)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_payloads_leave_a_mark_when_built(run: dict[str, Any]) -> None:
    for node in EVIL.values():
        with suppress(SystemExit, Exception):  # errors after the mark do not matter
            hydra.utils.instantiate(node, _convert_="all", **TRUSTED_NODE)
        assert Path("mark").exists(), node
        Path("mark").unlink()
    gc.collect()  # some leave their file open


@pytest.mark.parametrize("file", ["run=run", f"checkpoint={LAST}"])
@pytest.mark.parametrize("script", OPENING)
def test_no_command_builds_a_class_named_by_a_file(
    run_script: RunScript, run: dict[str, Any], script: str, file: str
) -> None:
    for part in ("engine", "activation") if script == "evaluate.py" else ("activation",):
        recorded(**{"activation": run["config"]["activation"], part: EVIL[part]})
        sentence = refusal(run_script, file, *OPENING[script], script=script).splitlines()[-1]
        assert f"{part}._target_={EVIL[part]['_target_']}" in sentence
        assert "add trust=true if you" in sentence
        assert not Path("mark").exists()


@pytest.mark.parametrize("part", EVIL)
def test_class_is_not_built_anywhere_inside_a_part(run: dict[str, Any], part: str) -> None:
    own, evil = run["config"][part], EVIL[part]
    hidden = [own | {"x": [evil]}, own | {"_args_": [evil]}]
    if part == "trainer":  # whose other settings are not read
        for node in hidden:
            kept = allowed_parts(run["config"] | {part: node}, "file", False)["trainer"]
            assert kept.keys() <= {"_target_", "accelerator", "precision"}
        hidden = []
    for node in (evil, own | evil, {"_target_": [evil["_target_"]]}, *hidden):
        with pytest.raises(UserError, match=f"file has a class of its own, {part}|file: {part} has no _target_"):
            allowed_parts(run["config"] | {part: node}, "file", False)


def test_parts_that_a_trained_network_does_not_need_are_not_built(run_script: RunScript, run: dict[str, Any]) -> None:
    evil = EVIL["activation"]
    recorded(
        **dict.fromkeys(("optimizer", "schedule", "diagnostics", "x"), evil),
        **{name: {"x": evil} for name in ("logger", "callbacks")},
        trainer=run["config"]["trainer"] | dict.fromkeys(("profiler", "plugins", "callbacks", "strategy"), evil),
    )
    assert ran(run_script, "run=run", script="evaluate.py").count("the same") == 4
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": {"_target_": "handgrad.nn.activations.ReLU", "x": 1}}, ", activation: invalid value x=1"),
        (
            {"activation": {"_target_": "handgrad.nn.activations.LeakyReLU", "negative_slope": "a"}},
            "invalid value negative_slope=a",
        ),
        ({"activation": {}}, "activation has no _target_"),
        (
            {"activation": {"_target_": "handgrad.nn.activations.torch.save"}},
            "handgrad.nn.activations.torch.save: building it",
        ),
        (
            {"network": {"_target_": "handgrad.runs.folder.write_text"}},
            "network._target_=handgrad.runs.folder.write_text",
        ),
        ({"seed": "${oc.env:SECRET}"}, "invalid value seed=${oc.env:SECRET}"),
        ({"threads": 10**6}, "invalid value threads=1000000"),
        ({"trainer": {"_target_": "lightning.Trainer", "precision": "${oc.env:SECRET}"}}, "an interpolation, ${oc.env"),
        ({"trainer": {"_target_": "lightning.Trainer", "accelerator": {"_target_": "x"}}}, "accelerator={"),
    ],
)
def test_invalid_value_is_refused_in_one_sentence(
    run_script: RunScript, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    recorded(**changes)
    record = record_of(Path("run")) | {"threads": None}
    Path("run", "metrics.json").write_text(json.dumps(record))
    printed = refusal(run_script, "run=run", script="evaluate.py")
    assert words in printed.splitlines()[-1]
    assert "hunter2" not in printed


def test_trust_allows_no_interpolation(run: dict[str, Any]) -> None:
    evil = {"_target_": "x", "y": [{"z": "${oc.create:{_target_: builtins.open}}"}]}
    with pytest.raises(UserError, match="interpolations in files are not resolved"):
        allowed_parts(run["config"] | {"activation": evil}, "file", True)


def test_no_data_is_downloaded_to_a_recorded_path(run_script: RunScript, run: dict[str, Any]) -> None:
    recorded(data=run["config"]["data"] | {"root": "elsewhere"})
    printed = refusal(run_script, "run=run", script="evaluate.py")
    assert "data.root=elsewhere, recorded in" in printed
    assert "is not a folder here: add data.root=" in printed
    assert not Path("elsewhere").exists()
    ran(run_script, "run=run", f"data.root={run['config']['data']['root']}", script="evaluate.py")


def options(group: str) -> dict[str, dict[str, Any]]:
    """Return every option of a config group that has a `_target_`."""
    files = {path.stem: yaml.safe_load(path.read_text()) or {} for path in (ROOT / "conf" / group).glob("*.yaml")}
    return {name: content for name, content in files.items() if "_target_" in content}


@pytest.mark.parametrize("part", ["activation", "network", "data", "regularizer", "trainer"])
def test_allowlist_has_every_option_with_the_arguments_of_its_class(part: str) -> None:
    assert {content["_target_"] for content in options(part).values()} <= set(ALLOWED[part])
    for name, schema in ALLOWED[part].items() if part != "trainer" else ():
        kind = hydra.utils.get_object(name)
        classes = [kind]
        if part == "data":  # it passes the others on
            classes = kind.__mro__[: kind.__mro__.index(ClassificationData) + 1]
        taken = {argument for each in classes for argument in inspect.signature(each).parameters}
        known = {"hidden_sizes": "sizes"}  # `build_network` adds inputs and classes
        assert {known.get(field, field) for field in schema.model_fields} == taken - {"seed", "shared"}


@pytest.mark.parametrize("number", mostly_slow(range(len(options("activation"))), always=2))
def test_run_and_checkpoint_of_every_option_open(run_script: RunScript, number: int) -> None:
    activation = sorted(options("activation"))[number]
    optimizer = ["adam", "factored_sgd", "grouped_sgd", "notebook_sgd", "sgd"][number % 5]
    engine = "manual" if number % 2 or optimizer in ("factored_sgd", "notebook_sgd") else "autograd"
    schedule = ["constant", "warmup", "warmup_cosine"][number % 3]
    short = ["schedule.warmup_steps=5"] if schedule == "warmup_cosine" else []
    chosen = [f"activation={activation}", f"engine={engine}", f"optimizer={optimizer}", f"schedule={schedule}", *short]
    chosen += [f"regularizer={['none', 'l2'][number % 2]}", "callbacks=early_stopping", "data.val_size=100"]
    ran(run_script, *SMALL, *chosen)
    assert ran(run_script, "run=run", script="evaluate.py").count("the same") == 6
    found = ran(run_script, f"checkpoint={LAST}", script="evaluate.py")
    assert all(repr(value) in found for value in record_of(Path("run"))["metrics"].values())


@pytest.fixture
def swish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Custom activation, importable as `my.Swish`."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "my.py").write_text("from handgrad.nn.activations import SiLU as Swish\n")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    monkeypatch.delitem(sys.modules, "my", raising=False)


@pytest.mark.usefixtures("swish")
def test_custom_activation_trains_resumes_and_opens_only_with_trust(run_script: RunScript) -> None:
    typed = ["activation._target_=my.Swish", "optimizer._target_=torch.optim.SGD", "~optimizer.weight_reduction"]
    with ended_at_scoring(1):
        assert run_script(*TWO, *typed)[0] == 143
    ran(run_script, *TWO, *typed)
    for file in ("run=run", f"checkpoint={LAST}"):
        recorded(trust=True)  # trust claimed by the file itself does not count
        printed = refusal(run_script, file, script="evaluate.py")
        assert "activation._target_=my.Swish: building it can run arbitrary code; add trust=true" in printed
        printed = ran(run_script, file, "trust=true", script="evaluate.py")
        assert repr(record_of(Path("run"))["metrics"]["test/loss"]) in printed


def test_rerun_pickle_is_not_read(run_script: RunScript, run: dict[str, Any]) -> None:
    for flag in ("--experimental-rerun", "--exp"):
        status, printed = run_script(flag, "evil.pkl", script="evaluate.py")
        assert status == 2
        assert "reads a pickle, which can run arbitrary code" in printed
    assert not Path("mark").exists()


def interrupted(change: Callable[[dict[str, Any]], Any]) -> None:
    """Mark a run as killed and change the content of its checkpoint."""
    record = record_of(Path("run")) | {"status": "running"}
    Path("run", "metrics.json").write_text(json.dumps(record))
    content, _ = read_checkpoint(LAST)
    change(content)
    torch.save(content, LAST)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_resumed_run_deletes_nothing_outside_its_folder(run_script: RunScript) -> None:
    typed = [*TWO, "callbacks=best_checkpoint", "data.val_size=100"]
    with ended_at_scoring(2):
        assert run_script(*typed)[0] == 143
    Path("victim").mkdir()
    Path("victim", "letter").touch()
    for path in (f"{LAST.parent.absolute()}/../../victim", "memory://victim"):

        def elsewhere(content: dict[str, Any], path: str = path) -> None:
            (state,) = (value for value in content["callbacks"].values() if value.get("monitor") == "val/loss")
            state |= {"kth_best_model_path": path, "best_model_path": path, "kth_value": torch.tensor(1e9)}
            state["best_k_models"] = {path: torch.tensor(1e9)}

        shutil.copytree("run", "whole")
        interrupted(elsewhere)
        printed = refusal(run_script, *typed)
        assert Path("victim", "letter").exists()
        assert f"has a callback whose file is {path}: move" in printed
        shutil.rmtree("run")
        Path("whole").rename("run")
    printed = ran(run_script, *typed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loops", {}),
        ("loops", 3),
        ("loops", {"fit_loop": {"epoch_progress": {"total": {"completed": {}}}}}),
        ("optimizer_states", [3]),
        ("lr_schedulers", "x"),
        ("state_dict", {}),
        ("callbacks", {"History": {"rows": [{"epoch": 0}]}}),
        (
            "callbacks",
            {"History": {"rows": [{"epoch": 0, "train/loss": 1.0, "lr": 0.1, "seconds": 1.0, "batches": math.nan}]}},
        ),
    ],
)
def test_invalid_checkpoint_state_is_refused_in_one_sentence(run_script: RunScript, key: str, value: Any) -> None:
    with ended_at_scoring(2):
        assert run_script(*TWO)[0] == 143
    interrupted(lambda content: content.update({key: value}))
    printed = refusal(run_script, *TWO)
    assert f"cannot resume from {LAST.absolute()} (" in printed
    assert f"move {LAST.parent.absolute()} away to start from scratch" in printed
    LAST.parent.rename("away")
    ran(run_script, *TWO)


def test_state_of_the_last_checkpoint_callback_is_not_read(run_script: RunScript) -> None:
    with ended_at_scoring(2):
        assert run_script(*TWO)[0] == 143
    interrupted(lambda content: content["callbacks"].update(LastCheckpoint={"best_model_path": {"a": "b"}}))
    ran(run_script, *TWO)
