"""Oracle: the gradients that each equation affects, read off docs/derivation.md; autograd for correct equations."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ACTIVATIONS, ROOT, RunScript, Trained, ran, refusal
from handgrad.errors import UserError
from handgrad.inspection import secret
from handgrad.nn import gradcheck
from handgrad.nn.activations import Activation, LeakyReLU, ReLU, Sigmoid, Tanh
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer
from handgrad.training.data import Examples

WEIGHTS, BIASES = {(n, "weight") for n in (1, 2, 3)}, {(n, "bias") for n in (1, 2, 3)}
BELOW = {(n, name) for n in (1, 2) for name in ("weight", "bias")}
# The gradients of three layers that a bug in an equation affects; for relu, phi' is the same at z and at a.
ENTERS = [
    (None, Sigmoid(), set()),
    ("BP1", Sigmoid(), WEIGHTS | BIASES),
    ("BP2", Sigmoid(), BELOW),
    ("BP2", ReLU(), BELOW),
    ("BP3", ReLU(), BIASES),
    ("BP4", ReLU(), WEIGHTS - {(1, "weight")}),
    ("phi", Sigmoid(), BELOW),
    ("phi", ReLU(), set()),
    ("L2", Sigmoid(), WEIGHTS),
]


def wrong(rows: list[gradcheck.Row], reference: str, precision: str) -> set[tuple[int, str]]:
    return {(row.layer, row.parameter) for row in rows if not row.right((reference, precision))}


@pytest.mark.parametrize(
    ("broken", "phi", "entered"), ENTERS, ids=lambda value: "" if isinstance(value, set) else str(value)
)
def test_injected_bug_shows_in_exactly_the_gradients_it_affects(
    images_640: Examples, broken: str | None, phi: Activation, entered: set[tuple[int, str]]
) -> None:
    torch.manual_seed(0)
    x, y = images_640.first(64)
    rows = gradcheck.check(MLP([784, 30, 20, 10]), phi, Regularizer(1e-2), x, y, 20, broken)
    assert wrong(rows, "autograd", "float64") == wrong(rows, "autograd", "float32") == entered
    assert wrong(rows, "differences", "float64") == entered
    assert {(row.layer, row.parameter) for row in rows if row.verdict == "wrong"} == entered


@pytest.mark.parametrize("hidden", [[], [40], [30, 30, 30, 30, 30]], ids=str)
@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_correct_gradients_keep_the_readmes_promise(images_640: Examples, phi: Activation, hidden: list[int]) -> None:
    """README: all agree with autograd to 1e-9 in float64; a looser tolerance fails here."""
    promised = re.search(r"agree with autograd to (\S+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert promised
    assert gradcheck.TOLERANCES["autograd", "float64"] == float(promised[1])
    for size, init, strength in ((1, "pytorch", 1e-3), (64, "xavier_uniform", 1e-3), (64, "xavier_uniform", 0.0)):
        torch.manual_seed(size)
        network = MLP([784, *hidden, 10], init)
        rows = gradcheck.check(network, phi, Regularizer(strength), *images_640.first(size), 5)
        assert {row.verdict for row in rows} == {"right"}
        assert [row.shape for row in rows] == [tuple(parameter.shape) for parameter in network.parameters()]
        assert max(row.apart["autograd", "float64"] for row in rows) < 1e-3 * float(promised[1])


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_broken_gradient_is_far_beyond_every_tolerance(images_640: Examples, phi: Activation) -> None:
    for bug in ("BP1", "BP2", "BP3", "BP4"):
        rows = gradcheck.check(MLP([784, 30, 20, 10]), phi, Regularizer(), *images_640.first(64), 5, bug)
        worst = max(row.apart["autograd", "float64"] for row in rows)
        assert worst > 1e6 * gradcheck.TOLERANCES["autograd", "float64"], bug


def test_non_finite_gradient_is_wrong(images_640: Examples) -> None:
    network = MLP([784, 5, 10])
    with torch.no_grad():
        network.weights[0][0, 0] = torch.nan
    rows = gradcheck.check(network, ReLU(), Regularizer(0.0), *images_640.first(9), 2)
    assert rows[0].verdict == "wrong"


def test_error_is_relative_to_the_largest_entry() -> None:
    assert gradcheck.relative_error(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, 4.0])) == 2 / 4
    assert gradcheck.relative_error(torch.tensor([3.0]), torch.tensor([0.0])) == 3


def checked(run_script: RunScript, tiny_mnist: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    status, printed = run_script(*arguments, f"data.root={tiny_mnist}", "output=found", script="check.py")
    return status, printed, json.loads(Path("found", "check.json").read_text(encoding="utf-8"))


def test_command_prints_its_report_and_exits_with_the_verdict(run_script: RunScript, tiny_mnist: Path) -> None:
    options = ["network.hidden_sizes=[30,20]", "activation=tanh", "regularizer=l2", "batch=32", "fd_entries=5"]
    status, printed, report = checked(run_script, tiny_mnist, *options)
    assert (status, report["broken"]) == (0, None)
    assert [row["verdict"] for row in report["rows"]] == ["right"] * 6
    status, printed, report = checked(run_script, tiny_mnist, *options, "inject_bug=BP2")
    assert (status, report["broken"]) == (0, "BP2")
    assert printed.rstrip().endswith("4 of 6 gradients are wrong, as they should be with BP2 broken")
    assert "BP2 is broken on purpose: delta_l without the factor phi'(z_l)" in printed
    assert [row["verdict"] for row in report["rows"]] == ["wrong"] * 4 + ["right"] * 2
    for row in report["rows"]:
        share = f"{row['autograd float64']:.1e}"
        assert re.search(rf"│ {row['layer']} +│ {row['parameter']} .*{re.escape(share)}.*{row['verdict']}", printed)


def test_command_checks_a_trained_network_with_its_own_penalty(
    run_script: RunScript, trained: Trained, tiny_mnist: Path
) -> None:
    trained("activation=silu", "regularizer=l2", "regularizer.strength=0.01")
    assert checked(run_script, tiny_mnist, "run=run", "fd_entries=5")[0] == 0
    status, _, report = checked(run_script, tiny_mnist, "run=run", "fd_entries=5", "inject_bug=L2")
    assert status == 0
    assert {row["parameter"] for row in report["rows"] if row["verdict"] == "wrong"} == {"weight"}
    unseen = checked(run_script, tiny_mnist, "run=run", "fd_entries=5", "inject_bug=L2", "regularizer=none")
    assert unseen[0] == 1
    assert "no gradient is wrong: with this configuration a broken L2 has no effect" in unseen[1]
    assert run_script("run=run", "fd_entries=2", script="check.py")[0] == 0
    assert Path("run", "check.json").exists()
    printed = refusal(run_script, "run=run", "activation=tanh", script="check.py")
    assert "activation: the opened network determines that" in printed


def test_gradients_wrong_without_a_bug_or_beyond_it_are_an_error(
    run_script: RunScript, tiny_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = gradcheck.by_hand
    monkeypatch.setattr(gradcheck, "by_hand", lambda *arguments: [*right(*arguments)[:-1], torch.ones(10)])
    options = ["network.hidden_sizes=[9]", "batch=8", "fd_entries=2"]
    status, printed, _ = checked(run_script, tiny_mnist, *options)
    assert (status, "1 of 4 gradients by hand are wrong" in printed) == (1, True)
    status, printed, _ = checked(run_script, tiny_mnist, *options, "inject_bug=BP2")
    assert (status, "3 of 4 gradients are wrong, but not exactly those that BP2 affects" in printed) == (1, True)


@pytest.mark.parametrize(
    ("options", "candidates"),
    [
        (["activation=tanh", "regularizer=l2"], {"BP1", "BP2", "BP3", "BP4", "phi", "L2"}),
        (["batch=1"], {"BP2", "BP4"}),
        pytest.param(["activation=relu"], {"BP1", "BP2", "BP3", "BP4"}, marks=pytest.mark.slow),
        pytest.param(["network.hidden_sizes=[]"], {"BP1", "BP3"}, marks=pytest.mark.slow),
    ],
    ids=["tanh", "one image", "relu", "no hidden layer"],
)
def test_secret_bug_is_one_that_shows_and_is_found_by_guessing(
    run_script: RunScript,
    tiny_mnist: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    candidates: set[str],
) -> None:
    offered: list[str] = []

    def last(bugs: list[str]) -> str:
        offered.extend(bugs)
        return bugs[-1]

    monkeypatch.setattr("secrets.choice", last)
    usual = ["network.hidden_sizes=[9]", "batch=8", "fd_entries=2"]
    usual = [word for word in usual if not any(word.split("=")[0] in option for option in options)]
    printed = ran(run_script, *usual, *options, "inject_bug=secret", f"data.root={tiny_mnist}", script="check.py")
    assert set(offered) == candidates
    assert "one term is broken" in printed
    (file,) = Path("outputs/checks").glob("*/check.json")
    report = file.read_text(encoding="utf-8")
    assert not any(re.search(rf"\b{bug}\b", printed.split("guess=")[0] + report) for bug in gradcheck.BROKEN)
    answers = {bug: run_script(f"guess={bug}", script="check.py") for bug in gradcheck.BROKEN}
    assert [bug for bug, (status, _) in answers.items() if status == 0] == [offered[-1]]
    assert f"yes, {offered[-1]} was broken: {gradcheck.BROKEN[offered[-1]]}" in answers[offered[-1]][1]
    assert f"no, {offered[0]} is not what is broken in" in answers[offered[0]][1]


def test_guess_is_about_the_latest_secret_check_or_the_folder_named(run_script: RunScript, tiny_mnist: Path) -> None:
    assert "outputs holds no check with a secret bug" in run_script("guess=BP1", script="check.py")[1]
    for number, bug in enumerate(("BP1", "BP3")):
        folder = Path(f"outputs/checks/{number}")
        folder.mkdir(parents=True)
        (folder / "check.json").write_text(json.dumps({"secret": secret.sealed(bug)}), encoding="utf-8")
        os.utime(folder / "check.json", (number, number))
    Path("outputs/checks/2").mkdir()
    Path("outputs/checks/2/check.json").write_text("{}", encoding="utf-8")
    assert run_script("guess=BP3", script="check.py")[0] == 0
    assert run_script("guess=BP1", script="check.py")[0] == 1
    assert run_script("guess=BP1", "output=outputs/checks/0", script="check.py")[0] == 0
    seals = {json.dumps(secret.sealed("BP1")) for _ in range(3)}
    assert len(seals) == 3  # salted
    with pytest.raises(UserError, match="no bug shows"):
        secret.chosen([])


def test_separate_checks_are_not_mixed(run_script: RunScript) -> None:
    for options in (["guess=BP1", "inject_bug=BP1"], ["mine=a.py", "inject_bug=secret"], ["mine=a.py", "run=b"]):
        assert "are separate checks: name one of them" in refusal(run_script, *options, script="check.py")


def test_other_options_that_do_not_fit_are_refused(run_script: RunScript, tiny_mnist: Path) -> None:
    for typed, words in (
        (["batch=1281", f"data.root={tiny_mnist}"], "batch=1281 is more than the 1280 training examples"),
        (["data/deform=elastic"], "the gradients are checked on images as they are"),
        (["inject_bug=BP5"], "invalid value inject_bug=BP5: must be 'BP1', 'BP2'"),
    ):
        assert words in refusal(run_script, *typed, script="check.py")


@pytest.mark.parametrize("phi", [ReLU(), LeakyReLU(0.1)], ids=["relu", "leaky_relu"])
def test_kink_of_the_activation_is_no_wrong_gradient(phi: Activation) -> None:
    """XOR from zero biases: on the image (0, 0) every z is 0, where finite differences give half of the slope."""
    x, y = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), torch.eye(2)[[0, 1, 1, 0]]
    for seed in range(5):
        torch.manual_seed(seed)
        assert {row.verdict for row in gradcheck.check(MLP([2, 3, 2]), phi, Regularizer(0.0), x, y)} == {"right"}
        broken = gradcheck.check(MLP([2, 3, 2]), phi, Regularizer(0.0), x, y, 20, "BP1")
        assert {row.verdict for row in broken} == {"wrong"}


def test_soft_targets_are_checked_and_others_refused() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(6, 2), torch.rand(6, 5).softmax(dim=1)
    assert {row.verdict for row in gradcheck.check(MLP([2, 3, 5]), Tanh(), Regularizer(0.0), x, y)} == {"right"}
    for wrong, entries in ((3 * y, 5), (y, 0)):
        with pytest.raises(ValueError, match=r"must sum to 1|one entry"):
            gradcheck.check(MLP([2, 3, 5]), Tanh(), Regularizer(0.0), x, wrong, entries)
    with pytest.raises(ValueError, match="needs one example"):
        gradcheck.check(MLP([2, 3, 5]), Tanh(), Regularizer(0.0), x[:0], y[:0])
