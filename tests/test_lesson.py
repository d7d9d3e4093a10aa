"""Oracle: the text of docs/lesson.md; its commands are run, and their numbers compared with its digits."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import ROOT, RunCommand, mostly_slow

LESSON = (ROOT / "docs" / "lesson.md").read_text(encoding="utf-8")
WORDS = " ".join(LESSON.split())
CHECKPOINT = f"checkpoint={ROOT / 'docs' / 'lesson.ckpt'}"
DATA = f"data.root={ROOT / 'data'}"


@pytest.mark.slow
def test_page_in_the_repository_is_the_one_of_the_checkpoint(command: RunCommand, tmp_path: Path) -> None:
    done = command("explain.py", CHECKPOINT, DATA, "output=lesson.html")
    assert done.status == 0, done.err
    made = (tmp_path / "lesson.html").read_text(encoding="utf-8")
    kept = (ROOT / "docs" / "lesson.html").read_text(encoding="utf-8")
    assert made == kept, "out of date: python src/explain.py checkpoint=docs/lesson.ckpt output=docs/lesson.html"
    assert f"{len(kept.encode()) / 1e6:.1f} MB" in WORDS


@pytest.mark.parametrize("bug", mostly_slow([None, "BP2", "BP1", "BP3", "BP4", "phi", "L2"], always=2))
def test_checks_have_the_numbers_of_the_text(command: RunCommand, tmp_path: Path, bug: str | None) -> None:
    done = command("check.py", CHECKPOINT, DATA, "output=there", *([f"inject_bug={bug}"] if bug else []))
    rows = json.loads((tmp_path / "there" / "check.json").read_text(encoding="utf-8"))["rows"]
    wrong = [(row["layer"], row["parameter"]) for row in rows if row["verdict"] == "wrong"]
    if bug is None:
        assert done.status == 0, done.err
        for reference, most, text in (
            ("autograd float64", 2e-15, "agree with autograd to 1e-15"),
            ("differences float64", 1e-8, "finite differences to 1e-8"),
            ("autograd float32", 1e-6, "still agrees to six digits"),
        ):
            assert max(row[reference] for row in rows) < most
            assert text in WORDS
    said = {
        "BP1": ("all eight", [(layer, kind) for layer in (1, 2, 3, 4) for kind in ("weight", "bias")]),
        "BP2": ("layers 1 to 3", [(layer, kind) for layer in (1, 2, 3) for kind in ("weight", "bias")]),
        "BP3": ("the four biases", [(layer, "bias") for layer in (1, 2, 3, 4)]),
        "BP4": ("the weights of layers 2 to 4", [(layer, "weight") for layer in (2, 3, 4)]),
    }
    text, expected = said.get(bug or "", ("none", []))
    assert wrong == expected
    if bug:
        (row,) = re.findall(rf"\| `{bug}` \|.*\| (.*) \|", LESSON)
        assert row.startswith(text)
    if bug == "BP2":
        assert "6 of 8 gradients are wrong, as they should be with BP2 broken" in done.out
        assert "6 of 8 gradients are wrong, as they should be with BP2 broken" in WORDS


def test_page_answers_with_the_numbers_of_the_text(chromium: Any) -> None:
    page = chromium.new_page(reduced_motion="reduce")
    page.goto((ROOT / "docs" / "lesson.html").as_uri())
    verdict = page.locator("#verdict").inner_text()
    ((said, share, loss),) = re.findall(r"says (\d), with ([\d.]+ %); the loss on it is ([\d.]+) nats", verdict)
    right = page.locator("#answers input:checked").get_attribute("value")
    assert f'a {right}, of which it says "{said}, with {share}"; the loss is {loss} nats' in WORDS
    page.get_by_role("button", name="backward").first.click()
    p = page.evaluate(f"probabilities()[{right}]")
    assert f"δ = p − y = {p:.3f} − 1 = −{1 - p:.3f}" in WORDS  # noqa: RUF001

    page.locator("#target").select_option("3")
    for text in ("After the first move the network says", "after the second"):
        page.locator("#move").click()
        moved = page.locator("#moved-said").inner_text()
        ((length, answer),) = re.findall(r"own length is ([\d.]+)\. The network says (\d, with [\d.]+ %)", moved)
        assert f'{text} "{answer}"' in WORDS
        assert f"own length is {length}." in WORDS
    page.locator("#back").click()

    def stepped(rate: str, button: str) -> tuple[str, str]:
        page.locator("#lr").fill(rate)
        page.get_by_role("button", name=button).click()
        count = button.split()[0]
        page.wait_for_function(f"document.getElementById('stepped').innerText.includes('after {count} step')")
        text = page.locator("#stepped").inner_text()
        (loss,), (accuracy,) = re.findall(r"before, (\S+) after", text), re.findall(r"before, ([\d.]+ %) after", text)
        return loss, accuracy

    first = stepped("0.01", "1 step")
    assert f"falls to {first[0]}, and of 200 other images {first[1]} are correct instead of 94.0 %" in WORDS
    assert f"**10 steps** go on: {stepped('0.01', '10 steps')[0]}." in WORDS
    page.get_by_role("button", name="reset").first.click()
    second = stepped("0.1", "1 step")
    assert f"falls to {second[0]}, and only {second[1]} of the other images" in WORDS
    page.close()


@pytest.mark.slow
def test_first_steps_of_the_lesson_are_in_its_ranges(command: RunCommand, tmp_path: Path) -> None:
    done = command("train.py", DATA, "diagnostics=layers", "trainer.max_epochs=1", "hydra.run.dir=outputs/lesson")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "outputs/lesson/metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert 0.95 < metrics["test/accuracy"] < 0.97
    assert "95 to 97 %" in WORDS
    layers = pd.read_csv(tmp_path / "outputs/lesson/layers.csv")
    before, after = layers[layers.epoch == 0], layers[layers.epoch == 1]
    assert before.saturated.dropna().between(0.45, 0.55).all()
    assert 0.75 < after.saturated.iloc[0] < 0.9
    assert 0.005 < after.dead.iloc[0] < 0.12
    assert after.delta_norm.iloc[-1] / before.delta_norm.iloc[-1] == pytest.approx(1 / 3, abs=0.1)
    assert after.log10_update.between(-2.5, -1.8).all()
