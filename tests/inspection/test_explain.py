"""Oracle: the package's forward and backward pass in float64, with weights rounded to 16 bits as on the page.

Needs Chromium on the PATH, which `.ci/run` installs; skipped without.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ACTIVATIONS, RunScript, record_of
from handgrad.inspection import explain
from handgrad.inspection.weights import layers_of
from handgrad.nn import backprop
from handgrad.nn.activations import Activation, LeakyReLU, Tanh
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.training.mnist import MNISTDataModule

Page = Any
RIGHT = 1e-4  # tolerance, relative to the largest number
LR = 0.05


@pytest.fixture
def opened(chromium: Any, run_script: RunScript) -> Iterator[Callable[..., Page]]:
    """Train a small network and open its page; it may log nothing to the console and request no other file."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(*options: str, **how: Any) -> Page:
        usual = ["network.hidden_sizes=[20,12]", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run"]
        assert run_script(*usual, *options)[0] == 0
        status, printed = run_script("run=run", script="explain.py")
        assert status == 0, printed
        assert re.search(r"no probability moves by more than \S+, and [\d.]+% are right", printed)
        context = chromium.new_context(**{"reduced_motion": "reduce"} | how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(Path("run", "explain.html").absolute().as_uri())
        page.wait_for_timeout(100)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.endswith("explain.html")] == []


def rounded(run: Path) -> list[tuple[Tensor, Tensor]]:
    """Return the run's weights, rounded to 16-bit floats, as float64."""
    layers = layers_of(read_checkpoint(run / "checkpoints" / "last.ckpt")[0], run)
    return [(weight.half().double(), bias.half().double()) for weight, bias in layers]


def examples_of(tiny_mnist: Path) -> tuple[Tensor, Tensor]:
    data = MNISTDataModule(root=str(tiny_mnist))
    data.prepare_data()
    data.setup()
    test = data.sets["test"]
    return test.rows.double() / 255, test.targets.double()


# Returned as text: the browser's driver transfers numbers one by one.
COMPUTED = """(lr) => JSON.stringify(digits.map(({ x, label }) => {
  const layers = trained(), passed = forward(layers, phi, x), deltas = backward(layers, phi, passed, label);
  const gradients = deltas.map((delta, l) => Array.from(weightGradient(delta, passed.activations[l])));
  const before = crossEntropy(passed.logits, label);
  descend(layers, deltas, passed.activations, lr);
  const after = crossEntropy(forward(layers, phi, x).logits, label), [logits, ...others] = [passed.logits, ...deltas];
  return { x: Array.from(x), label, logits: Array.from(logits), deltas: others.map((delta) => Array.from(delta)),
    gradients, before, after };
}))"""


def near(found: Any, expected: Tensor) -> bool:
    """Check equality up to 1e-4 of the largest number."""
    numbers = torch.tensor(found, dtype=torch.float64).view_as(expected)
    return float((numbers - expected).abs().max()) <= RIGHT * float(expected.abs().max()) + 1e-12


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_page_computes_what_the_package_computes(opened: Callable[..., Page], phi: Activation) -> None:
    names = {"LeakyReLU": "leaky_relu", "SiLU": "silu", "GELU": "gelu"}
    name = names.get(type(phi).__name__, type(phi).__name__.lower())
    slope = [f"+activation.negative_slope={phi.negative_slope}"] if isinstance(phi, LeakyReLU) else []
    found = json.loads(opened(f"activation={name}", *slope).evaluate(COMPUTED, LR))
    assert len(found) == 20
    layers = rounded(Path("run"))
    for each in found:
        weights, biases = (list(part) for part in zip(*layers, strict=True))
        x = torch.tensor([each["x"]], dtype=torch.float64)
        y = torch.nn.functional.one_hot(torch.tensor([each["label"]]), 10).double()
        before, passed, gradients = backprop.loss_and_gradients(x, y, weights, biases, phi)
        assert near(each["logits"], passed.logits)
        assert each["before"] == pytest.approx(float(before), rel=RIGHT, abs=1e-12)
        for delta, theirs, gradient in zip(each["deltas"], each["gradients"], gradients, strict=True):
            assert near(delta, gradient.delta)
            assert near(theirs, gradient.weight())
        weights = [weight - LR * gradient.weight() for weight, gradient in zip(weights, gradients, strict=True)]
        biases = [bias - LR * gradient.bias() for bias, gradient in zip(biases, gradients, strict=True)]
        after = backprop.loss_and_gradients(x, y, weights, biases, phi).loss
        assert each["after"] == pytest.approx(float(after), rel=RIGHT, abs=1e-12)


def test_buttons_step_through_the_page(opened: Callable[..., Page], tiny_mnist: Path) -> None:
    page = opened("activation=tanh", viewport={"width": 1200, "height": 900})
    x, y = examples_of(tiny_mnist)
    weights, biases = (list(part) for part in zip(*rounded(Path("run")), strict=True))
    sample = backprop.forward(x[-200:], weights, biases, Tanh()).logits.argmax(dim=1)
    accuracy = float((sample == y[-200:].argmax(dim=1)).double().mean())
    page.get_by_role("button", name="test image 1: 7").click()
    assert page.get_by_role("button", name="test image 1: 7").get_attribute("aria-pressed") == "true"
    assert page.locator("#answers input:checked").get_attribute("value") == "7"
    assert page.get_by_role("button", name="step").is_disabled()
    before = float(page.evaluate("crossEntropy(state.passed.logits, 7)"))
    page.get_by_role("button", name="backward").click()
    assert "from" in str(page.locator("#delta-1").get_attribute("aria-label"))
    page.get_by_label("look at unit").nth(1).fill("11")
    written = page.locator("#unit").inner_text()
    assert "Unit 11 of layer 2" in written
    assert f"= {page.evaluate('number(state.deltas[1][11])')} (6, BP2), term by term" in written
    page.get_by_role("button", name="step").click()
    said = page.locator("#stepped").inner_text()
    assert "Loss on this digit" in said
    assert f"Accuracy on 200 test images: {100 * accuracy:.1f} % before" in said
    assert float(page.evaluate("crossEntropy(state.passed.logits, 7)")) < before
    page.get_by_role("button", name="reset").click()
    assert float(page.evaluate("crossEntropy(state.passed.logits, 7)")) == before
    page.locator("#lr").fill("-1")
    page.get_by_role("button", name="backward").click()
    page.get_by_role("button", name="step").click()
    assert "should be a number above 0" in page.locator("#stepped").inner_text()


def test_clicking_during_the_animation_shows_every_layer(opened: Callable[..., Page]) -> None:
    page = opened(reduced_motion="no-preference")
    page.locator("#digits button").first.click()
    page.get_by_role("button", name="backward").click()  # during the layer-by-layer animation
    page.wait_for_function("!document.querySelector('.waiting')", timeout=5000)


def test_drawn_digit_is_preprocessed_like_mnist(opened: Callable[..., Page]) -> None:
    page = opened(viewport={"width": 390, "height": 800}, color_scheme="dark", has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 30, steps=5)
    page.mouse.move(box["x"] + 50, box["y"] + 150, steps=5)
    page.mouse.up()
    seen = torch.tensor(page.evaluate("Array.from(state.x)")).view(28, 28)
    assert seen.max() == 1
    assert max(int(seen.any(dim=axis).sum()) for axis in (0, 1)) == 20
    where = torch.arange(28.0)
    for axis in (0, 1):
        assert abs(float((seen.sum(dim=axis) * where).sum() / seen.sum()) - 14) <= 0.51
    assert page.get_by_role("button", name="backward").is_disabled()
    page.get_by_label("4", exact=True).check()
    assert page.get_by_role("button", name="backward").is_enabled()


def test_page_preprocesses_a_drawing_like_predict(opened: Callable[..., Page]) -> None:
    from handgrad.inspection.digits import centred, fit_to_box

    page = opened()
    ink = torch.zeros(280, 280, dtype=torch.float64)
    ink[60:210, 100:125] = ink[60:85, 100:190] = 1
    theirs = page.evaluate("(ink) => Array.from(prepared(Float64Array.from(ink), 280, 280))", ink.flatten().tolist())
    ours = centred(fit_to_box(ink[60:210, 100:190].numpy())).flatten()
    assert float((torch.tensor(theirs) - ours).abs().mean()) < 0.01


def test_run_that_does_not_fit_on_a_page_is_refused(run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ["network.hidden_sizes=[30]", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run"]
    assert run_script(*usual, "data.val_size=100", "data.score_test=false")[0] == 0
    status, printed = run_script("run=run", script="explain.py")
    assert (status, "a page needs 20 test images" in printed) == (1, True)
    assert run_script(*usual, "hydra.run.dir=other")[0] == 0
    monkeypatch.setattr(explain, "LARGEST", 70_000)
    status, printed = run_script("run=other", script="explain.py")
    assert (status, "23,860 weights make a page of 0 MB" in printed) == (1, True)


def test_no_text_in_a_page_ends_its_script() -> None:
    page = explain.embedded({"classes": ["</script><script>alert(1)"]})
    assert "<" not in page
    assert json.loads(page) == {"classes": ["</script><script>alert(1)"]}


def test_page_of_the_full_network_is_small_and_its_name_is_text(run_script: RunScript) -> None:
    name = "</script><script>alert(1)</script>"
    status, printed = run_script("trainer.max_epochs=1", "logger=none", f"name='{name}'", "hydra.run.dir=run")
    assert status == 0, printed
    assert record_of(Path("run"))["name"] == name
    assert run_script("run=run", "output=page.html", script="explain.py")[0] == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert len(page) < 4_000_000
    assert "alert(1)</script>" not in page
    assert "http" not in re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
