"""Oracle: functions written here: right ones for every activation, and wrong ones with the mistake that each makes."""

import csv
import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from conftest import ACTIVATIONS, RunScript, refusal
from handgrad.errors import UserError
from handgrad.inspection import exercise, judging
from handgrad.inspection.exercise import Case, Verdict
from handgrad.nn.activations import Activation, ReLU, Sigmoid, Tanh
from handgrad.nn.mlp import MLP
from handgrad.training import handin
from handgrad.training.data import Examples

RIGHT = {
    "phi": "def phi(z):\n    return z.clamp(min=0)\n",
    "derivative": "def derivative(z, a):\n    return (z > 0).to(z.dtype)\n",
    "output_delta": "def output_delta(p, y):\n    return (p - y) / len(p)\n",
    "hidden_delta": "def hidden_delta(delta_next, weight_next, slope):\n    return delta_next @ weight_next * slope\n",
    "bias_gradient": "def bias_gradient(delta):\n    return delta.sum(dim=0)\n",
    "weight_gradient": "def weight_gradient(delta, a):\n    return delta.T @ a\n",
    "update": "def update(parameter, gradient, lr):\n    return parameter - lr * gradient\n",
}
PHI = {
    "Sigmoid": ("1 / (1 + torch.exp(-z))", "a * (1 - a)"),
    "Tanh": ("torch.tanh(z)", "1 - a**2"),
    "ReLU": ("torch.where(z > 0, z, torch.zeros_like(z))", "(z > 0).to(z)"),
    "LeakyReLU": ("torch.where(z > 0, z, 0.1 * z)", "torch.where(z > 0, torch.ones_like(z), 0.1)"),
    "SiLU": ("z / (1 + torch.exp(-z))", "torch.sigmoid(z) * (1 + z * (1 - torch.sigmoid(z)))"),
    "GELU": (
        "z * (1 + torch.erf(z / 2**0.5)) / 2",
        "(1 + torch.erf(z / 2**0.5)) / 2 + z * torch.exp(-z * z / 2) / (2 * torch.pi) ** 0.5",
    ),
    "Softplus": ("torch.log(1 + torch.exp(z))", "1 / (1 + torch.exp(-z))"),
}
MISTAKES = [  # function, what it returns, what must be said
    ("phi", "torch.tanh(z)", "this is Tanh, another activation"),
    ("phi", "z", "nothing is done: z itself"),
    ("derivative", "(z < 0).to(z)", "1 where z < 0, in place of z > 0"),
    ("derivative", "(z >= 0).to(z)", "phi'(0) is the convention's other value"),
    ("output_delta", "p - y", "not divided by B"),
    ("output_delta", "(y - p) / len(p)", "y - p in place of p - y"),
    ("output_delta", "(p - y) / len(p) ** 2", "divided by B twice"),
    ("output_delta", "(p - y) / p.numel()", "divided by B and by C: the mean over all numbers"),
    ("output_delta", "(p.sum(1) - y.sum(1).reshape(-1, 1)) / len(p)", "broadcast into (B, B)"),
    ("hidden_delta", "delta_next @ weight_next", "phi' left out"),
    ("hidden_delta", "delta_next @ weight_next.T * slope", "W is transposed"),
    ("hidden_delta", "(delta_next @ weight_next * slope).T", "the result is transposed"),
    ("hidden_delta", "-(delta_next @ weight_next) * slope", "the sign is flipped"),
    ("hidden_delta", "delta_next @ weight_next * slope / len(slope)", "divided by B again"),
    ("bias_gradient", "delta.mean(0)", "mean in place of sum"),
    ("bias_gradient", "delta.sum(1)", "summed over the wrong axis"),
    ("bias_gradient", "delta.sum()", "summed over both axes"),
    ("bias_gradient", "delta.sum(0, keepdim=True)", "the axis of the batch is kept"),
    ("bias_gradient", "delta.sum(1) + delta.sum(1, keepdim=True)", "broadcast into (B, B)"),
    ("weight_gradient", "a.T @ delta", "transposed"),
    ("weight_gradient", "delta.T @ a / len(a)", "divided by B again (mean in place of sum)"),
    ("weight_gradient", "delta @ a.T", "summed over the wrong axis"),
    ("weight_gradient", "torch.outer(delta[-1], a[-1])", "only the last example"),
    ("weight_gradient", "3 * delta.T @ a", "every number is 3 times the right one"),
    ("update", "parameter + lr * gradient", "the wrong direction: + in place of -"),
    ("update", "parameter - gradient", "the learning rate left out"),
    ("update", "parameter", "no step: the parameter as it was"),
]
FAULTS = [  # function, what it returns, brief verdict, sentence
    ("update", "parameter - lr * gradient.sign()", "wrong", "In the tiny case (B = 2, I = 3, O = 4, C = 5) the first "),
    ("weight_gradient", "torch.zeros_like(delta.T @ a)", "wrong", "In the tiny case (B = 2, I = 3, O = 4, C = 5) the "),
    ("update", "None", "returns None", "returns nothing (None): is a `return` missing?"),
    ("update", "3.5", "returns float", "returns an object of type float, not a tensor"),
    (
        "phi",
        "z.clamp(min=0).float()",
        "dtype float32",
        "returns float32 for arguments of float64: convert it, .to(z.dtype)",
    ),
    ("derivative", "z > 0", "dtype bool", "returns bool for arguments of float64"),
    (
        "hidden_delta",
        "(delta_next @ weight_next).mul_(slope)[0]",
        "shape (I,)",
        "returns (3,), that is (I,), in place of (B, I)",
    ),
    ("update", "parameter.sub_(lr * gradient)", "overwrites parameter", "overwrites its argument parameter"),
    ("update", "parameter - lr * gradient / 0", "wrong", "is [0, 0]: "),
    ("update", "parameter[99]", "IndexError, line 15", "line 15, `return parameter[99]`: IndexError: index 99"),
    ("update", "quit()", "SystemExit, line 15", "line 15, `return quit()`: SystemExit"),
    ("update", "update(parameter, gradient, lr)", "RecursionError, line 15", "RecursionError: maximum recursion depth"),
]


def written(**changed: str) -> bytes:
    """Return a student's file with some functions of it changed."""
    return ("import torch\n" + "".join((RIGHT | changed).values())).encode()


def returning(name: str, expression: str) -> str:
    """Return a function that returns an expression."""
    head, _ = RIGHT[name].split("\n", 1)
    return f"{head}\n    return {expression}\n"


@pytest.fixture(scope="module")
def cases(images_640: Examples) -> list[Case]:
    """Cases for relu."""
    torch.manual_seed(0)
    return exercise.all_cases(ReLU(), MLP(), images_640.rows[:64] / 255, images_640.targets[:64])


def judged(source: bytes, cases: list[Case], phi: Activation = ReLU()) -> dict[str, Verdict]:  # noqa: B008
    module = handin.execute(source)
    return {name: exercise.judge(name, module, source, phi, cases) for name in handin.FUNCTIONS}


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_right_functions_are_right_for_every_activation(images_640: Examples, phi: Activation) -> None:
    function, derivative = PHI[type(phi).__name__]
    torch.manual_seed(0)
    cases = exercise.all_cases(phi, MLP(), images_640.rows[:64] / 255, images_640.targets[:64])
    source = written(phi=returning("phi", function), derivative=returning("derivative", derivative))
    assert [verdict.brief for verdict in judged(source, cases, phi).values()] == ["right"] * 7
    for case in cases:  # a wrong axis must not fit by accident
        assert case.name == "square shapes" or len(set(case.sizes.values())) == 4


@pytest.mark.parametrize(("name", "expression", "told"), MISTAKES, ids=lambda value: str(value))
def test_mistake_is_called_by_its_name_and_leaves_other_functions_right(
    cases: list[Case], name: str, expression: str, told: str
) -> None:
    verdicts = judged(written(**{name: returning(name, expression)}), cases)
    verdict = verdicts.pop(name)
    assert (verdict.right, verdict.brief) == (False, told)
    assert f"It looks like this mistake: {told}." in verdict.full
    assert all(other.right for other in verdicts.values())


@pytest.mark.parametrize(
    ("phi", "expression", "told"),
    [
        (Sigmoid(), "torch.sigmoid(a) * (1 - torch.sigmoid(a))", "phi' at a in place of z"),
        (Sigmoid(), "z * (1 - z)", "z in place of a in the formula"),
        (Tanh(), "1 - torch.tanh(a) ** 2", "phi' at a in place of z"),
        (Tanh(), "1 - z**2", "z in place of a in the formula"),
        (Tanh(), "torch.ones_like(z)", "1 everywhere: phi' left out"),
        (Tanh(), "a", "phi in place of phi'"),
        (Tanh(), "a - a**2", "wrong"),
    ],
    ids=str,
)
def test_wrong_derivative_is_recognized(images_640: Examples, phi: Activation, expression: str, told: str) -> None:
    cases = exercise.all_cases(phi, MLP([784, 9, 8, 7, 10]), images_640.rows[:5] / 255, images_640.targets[:5])
    source = written(derivative=returning("derivative", expression))
    assert judged(source, cases, phi)["derivative"].brief == told


@pytest.mark.parametrize(("name", "expression", "brief", "told"), FAULTS, ids=str)
def test_other_faults_are_told_in_a_sentence_without_a_guess(
    cases: list[Case], name: str, expression: str, brief: str, told: str
) -> None:
    verdict = judged(written(**{name: returning(name, expression)}), cases)[name]
    assert (verdict.right, verdict.brief) == (False, brief)
    assert told in verdict.full
    assert "looks like" not in verdict.full


def test_first_wrong_number_is_given_with_its_index_and_the_case_in_full(cases: list[Case]) -> None:
    changed = "delta = delta.clone()\n    delta[1, 2] += 0.5\n    return delta.sum(0)"
    source = written(bias_gradient=f"def bias_gradient(delta):\n    {changed}\n")
    full = judged(source, cases[:1], ReLU())["bias_gradient"].full
    assert "the first wrong entry is [2]: got 0.75, expected 0.25." in full
    assert "  delta = [[" in full
    assert re.search(r"^  right = \[.*\]$", full, re.MULTILINE)
    assert re.search(r"^  yours = \[.*\]$", full, re.MULTILINE)


def test_fault_that_shows_on_mnist_alone_is_found(cases: list[Case]) -> None:
    verdict = judged(written(phi=returning("phi", "z.clamp(min=0) if len(z) < 50 else z")), cases)["phi"]
    assert verdict.brief == "wrong"
    assert "In MNIST (B = 64, I = 250, O = 100, C = 10)" in verdict.full
    assert "yours" not in verdict.full  # 16,000 numbers
    one = judged(written(bias_gradient=returning("bias_gradient", "delta.squeeze().sum(0)")), cases)["bias_gradient"]
    assert one.brief == "shape ()"  # B = 1


@pytest.mark.parametrize(
    "body", ["...", "pass", '"""Docstring."""', "raise NotImplementedError", "raise NotImplementedError('todo')"]
)
def test_blank_function_is_not_written_yet(cases: list[Case], body: str) -> None:
    verdict = judged(written(update=f"def update(parameter, gradient, lr):\n    {body}\n"), cases)["update"]
    assert verdict == ("update", False, "not written yet", "not written yet")


def test_missing_function_and_wrong_parameters_are_told(cases: list[Case]) -> None:
    assert judged(written(update=""), cases)["update"].full == "def update(...) is missing from the file"
    assert judged(written(update="update = 3\n"), cases)["update"].brief == "missing"
    full = judged(written(update="def update(parameter):\n    return parameter\n"), cases)["update"].full
    assert "`def update(parameter):`: TypeError" in full


HOSTILE = {
    "import": ("while True: pass\n", "endless, line 1"),
    "syntax": ("def phi(z:\n    return z\n", "SyntaxError, line 1"),
    "raises": ("import torch\n1 / 0\n", "ZeroDivisionError, line 2"),
    "exits": ("import os\nos._exit(0)\n", "ended the process"),
}


@pytest.fixture
def saved(tmp_path: Path, cases: list[Case]) -> Path:
    torch.save((ReLU(), cases), tmp_path / "cases.pt")
    return tmp_path / "cases.pt"


@pytest.mark.slow
def test_endless_loop_names_its_line_and_the_other_functions_are_judged(tmp_path: Path, saved: Path) -> None:
    loop = "try:\n            delta = delta + 1\n        except BaseException:\n            pass"
    body = f"def bias_gradient(delta):\n    while True:\n        {loop}\n"
    (tmp_path / "mine.py").write_bytes(written(bias_gradient=body, update="def update(p, g, lr):\n    quit()\n"))
    verdicts = {verdict.function: verdict for verdict in judging.judge_file(tmp_path / "mine.py", saved, True, 2.0)}
    endless = verdicts.pop("bias_gradient")
    assert re.fullmatch(r"endless, line 1\d", endless.brief)
    assert re.fullmatch(r"still running after 2 s, in line 1\d, `.*`\.", endless.full)
    assert verdicts.pop("update").brief.startswith("SystemExit")
    assert all(verdict.right for verdict in verdicts.values())


@pytest.mark.slow
@pytest.mark.parametrize(("source", "brief"), HOSTILE.values(), ids=HOSTILE)
def test_file_that_cannot_be_executed_is_told_with_its_line(
    tmp_path: Path, saved: Path, source: str, brief: str
) -> None:
    (tmp_path / "mine.py").write_text(source)
    verdicts = judging.judge_file(tmp_path / "mine.py", saved, True, 2.0)
    assert [verdict.brief for verdict in verdicts] == [brief] * 7


def test_crash_costs_one_function(tmp_path: Path, saved: Path) -> None:
    body = "def weight_gradient(delta, a):\n    import os\n    os.kill(os.getpid(), 9)\n"
    (tmp_path / "mine.py").write_bytes(written(weight_gradient=body))
    briefs = [verdict.brief for verdict in judging.judge_file(tmp_path / "mine.py", saved, True)]
    assert briefs == ["right"] * 5 + ["ended the process", "right"]


def checked(run_script: RunScript, tiny_mnist: Path, *words: str) -> tuple[int, str]:
    """Run the command on the small data."""
    return run_script(*words, f"data.root={tiny_mnist}", script="check.py")


def class_table() -> dict[str, dict[str, str]]:
    """Read the table of the hand-ins, by who."""
    text = Path("handins", "verdicts.csv").read_text(encoding="utf-8")
    return {row["who"]: row for row in csv.DictReader(text.splitlines())}


def test_command_writes_a_file_to_fill_in_and_judges_it(run_script: RunScript, tiny_mnist: Path) -> None:
    assert run_script("mine=new", "activation=tanh", script="check.py")[0] == 0
    text = Path("my_backprop.py").read_text(encoding="utf-8")
    assert all(f"\ndef {name}(" in text for name in handin.FUNCTIONS)
    assert "a = tanh(z)        (12)" in text
    assert "1 - a^2" not in text  # the derivative is for the student to find
    assert "my_backprop.py exists already" in refusal(run_script, "mine=new", script="check.py")
    status, printed = checked(run_script, tiny_mnist, "mine=my_backprop.py", "activation=tanh")
    assert (status, printed.count("not written yet")) == (1, 7)
    assert printed.rstrip().endswith("0 of 7 functions are right")
    wrong = written(weight_gradient=returning("weight_gradient", "a.T @ delta"))
    for source, expected, words in ((wrong, 1, "It looks like this mistake: transposed."), (written(), 0, "7 of 7")):
        Path("my_backprop.py").write_bytes(source)
        status, printed = checked(run_script, tiny_mnist, "mine=my_backprop.py")
        assert (status, words in printed) == (expected, True)
        assert printed.rstrip().endswith(f"{7 - expected} of 7 functions are right")
    assert "nothing.py is missing" in checked(run_script, tiny_mnist, "mine=nothing.py")[1]


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_template_is_a_program_that_names_its_activation(tmp_path: Path, phi: Activation) -> None:
    option = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(phi).__name__).lower()
    source = exercise.write_template(tmp_path, phi, option).read_bytes()
    module = handin.execute(source)
    for name in handin.FUNCTIONS:
        assert handin.is_blank(source, name)
        assert re.search(r"\((BP\d, )?\d+\)", str(getattr(module, name).__doc__))
        assert not re.search(r"\$|phi' =", str(getattr(module, name).__doc__))
    assert f"Activation: {option}." in str(module.phi.__doc__)
    assert "a = " in str(module.phi.__doc__)
    assert max(map(len, handin.lines_of(source))) <= 130
    with pytest.raises(UserError, match=r"nowhere/my_backprop.py"):
        exercise.write_template(tmp_path / "nowhere", phi, option)


@pytest.mark.slow
def test_folder_of_hand_ins_gives_a_table_whatever_is_in_it(
    run_script: RunScript, tiny_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging.judge_file, "__defaults__", (1.0,))
    monkeypatch.setattr(judging, "GRACE", 4.0)
    sleep = "import os, time, faulthandler\nfaulthandler.cancel_dump_traceback_later()\n"
    endings = {
        "anna": b"",
        "ben": b"import sys\nsys.exit(0)\n",
        "cleo": b"while True: print('x' * 1000)\n",
        "dan": b"import os, time\nif os.fork() == 0:\n    time.sleep(1000)\n",
        "eve": f"{sleep}time.sleep(1000)\n".encode(),
        "fay": b"import os\nos.kill(os.getpid(), 9)\n",
        "gus": b"def phi(:\n",
    }
    Path("handins/hal").mkdir(parents=True)
    for who, ending in endings.items():
        Path(f"handins/{who}.py").write_bytes(written() + ending)
    Path("handins/hal/my_backprop.py").write_bytes(written(output_delta=returning("output_delta", "p - y")))
    Path("handins/ida.py").symlink_to("gone")
    status, printed = checked(run_script, tiny_mnist, "mine=handins")
    assert status == 0
    rows, line = class_table(), written().count(b"\n")
    wrong = {
        "ben": f"SystemExit, line {line + 2}",
        "cleo": f"endless, line {line + 1}",
        "eve": "did not end",
        "fay": "ended the process",
        "gus": f"SyntaxError, line {line + 1}",
        "ida": "no file",
    }
    points = {"anna": "7", "dan": "7", "hal": "6"}
    assert {who: row["points"] for who, row in rows.items()} == points | dict.fromkeys(wrong, "0")
    assert {who: rows[who]["phi"] for who in wrong} == wrong
    assert rows["hal"]["output_delta"] == "not divided by B"
    assert "not divided" in printed
    assert "xxx" not in printed
    assert "verdicts.csv" in printed
    Path("empty").mkdir()
    assert "empty holds no hand-ins" in checked(run_script, tiny_mnist, "mine=empty")[1]


def test_processes_of_a_hand_in_are_gone_with_it(tmp_path: Path, saved: Path) -> None:
    fork = f"import os, time\nif os.fork() == 0:\n    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    (tmp_path / "mine.py").write_bytes(written() + f"{fork}    time.sleep(1000)\ntime.sleep(0.3)\n".encode())
    judging.judge_file(tmp_path / "mine.py", saved, True)
    number, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 20
    listed = ["ps", "-o", "stat=", "-p", str(number)]
    while subprocess.run(listed, capture_output=True).stdout.strip() not in (b"", b"Z"):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def test_exercise_needs_two_hidden_layers(run_script: RunScript, tiny_mnist: Path) -> None:
    Path("mine.py").write_bytes(written())
    status, printed = checked(run_script, tiny_mnist, "mine=mine.py", "network.hidden_sizes=[30]")
    assert (status, "needs a network with two hidden layers" in printed) == (1, True)


def test_notebook_is_a_hand_in(run_script: RunScript, tiny_mnist: Path) -> None:
    functions = [*(RIGHT | {"output_delta": "def output_delta(p, y):\n    return p - y\n"}).values()]
    cells = ["import os\n!unzip handgrad.zip\nimport handgrad", *functions, "handgrad.judge(phi)"]
    parts = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    Path("handins").mkdir()
    Path("handins", "ann.ipynb").write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "#"}, *parts]}))
    Path("handins", "bob.ipynb").write_text("{}")
    printed = checked(run_script, tiny_mnist, "mine=handins")[1]
    rows = class_table()
    assert rows["ann"]["points"] == "6", printed
    assert rows["ann"]["output_delta"] == "not divided by B"
    assert rows["bob"]["points"] == "0"
