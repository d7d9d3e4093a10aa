"""Oracle: the package's forward and backward pass in float64, with weights rounded to 16 bits as on the page.

Needs Chromium on the PATH, which `.ci/run` installs; skipped without.
"""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ACTIVATIONS, ROOT, RunScript, Trained, mnist_in, mostly_slow, ran, refusal
from handgrad.inspection import explain
from handgrad.inspection.digits import centred, fit_to_box
from handgrad.inspection.weights import layers_of
from handgrad.nn import backprop, gradcheck
from handgrad.nn.activations import Activation, LeakyReLU, ReLU, Tanh
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer
from handgrad.runs.checkpoint import read_checkpoint

Page = Any
Open = Callable[..., Page]
RIGHT = 1e-4  # tolerance, relative to the largest number
LR = 0.05
both_widths = pytest.mark.parametrize("width", [1200, pytest.param(390, marks=pytest.mark.slow)])
OF_REGULARIZERS = ("L2", "dropout", "smoothing", "input")  # the page has none


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs whose pages are opened; each is trained once."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def opened(chromium: Any, run_script: RunScript, trained: Trained, kept: Path) -> Iterator[Open]:
    """Train a small network and open its page; it may log nothing to the console and request no other file."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(*options: str, **how: Any) -> Page:
        run = kept / " ".join(["run", *options])
        if not run.exists():
            trained(*options, sizes="20,12")
            printed = ran(run_script, "run=run", script="explain.py")
            assert re.search(r"no probability moves by more than \S+, and [\d.]+% are right", printed)
            shutil.move("run", run)
        shutil.copytree(run, "run")
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
    assert [url for url in asked if not url.partition("#")[0].endswith(("explain.html", "about:blank"))] == []


def rounded(run: Path = Path("run")) -> list[list[Tensor]]:
    """Return the run's weights and its biases, rounded to 16-bit floats, as float64."""
    layers = layers_of(read_checkpoint(run / "checkpoints" / "last.ckpt")[0], run)
    return [[each.half().double() for each in part] for part in zip(*layers, strict=True)]


def examples_of(tiny_mnist: Path) -> tuple[Tensor, Tensor]:
    test = mnist_in(tiny_mnist).sets["test"]
    return test.rows.double() / 255, test.targets.double()


# Returned as text: the browser's driver transfers numbers one by one.
COMPUTED = """(lr) => JSON.stringify(digits.map(({ x, label }) => {
  const layers = trained(), passed = forward(layers, phi, x), deltas = backward(layers, phi, passed, label);
  const slopes = gradients(layers, phi, [{ x, label }]), before = crossEntropy(passed.logits, label);
  descend(layers, slopes, lr);
  const after = crossEntropy(forward(layers, phi, x).logits, label);
  return { x: Array.from(x), label, logits: Array.from(passed.logits), deltas: deltas.map((delta) => Array.from(delta)),
    gradients: slopes.map(({ W }) => Array.from(W)), before, after };
}))"""
BATCH = """(broken) => JSON.stringify(gradients(trained(), phi, digits.slice(0, 10), broken)
  .flatMap(({ W, b }) => [Array.from(W), Array.from(b)]))"""

TOWARDS = """JSON.stringify(digits.map(({ x, label }) => {
  const layers = trained(), target = (label + 3) % 10, [delta] = backward(layers, phi, forward(layers, phi, x), target);
  return { x: Array.from(x), target, slopes: Array.from(inputGradient(delta, layers[0])) };
}))"""


def near(found: Any, expected: Tensor) -> bool:
    """Check equality up to 1e-4 of the largest number."""
    numbers = torch.tensor(found, dtype=torch.float64).view_as(expected)
    return float((numbers - expected).abs().max()) <= RIGHT * float(expected.abs().max()) + 1e-12


@pytest.mark.parametrize(
    "phi", mostly_slow(ACTIVATIONS[1:] + ACTIVATIONS[:1], always=2), ids=lambda phi: type(phi).__name__
)
def test_page_computes_what_the_package_computes(opened: Open, phi: Activation) -> None:
    names = {"LeakyReLU": "leaky_relu", "SiLU": "silu", "GELU": "gelu"}
    name = names.get(type(phi).__name__, type(phi).__name__.lower())
    slope = [f"+activation.negative_slope={phi.negative_slope}"] if isinstance(phi, LeakyReLU) else []
    found = json.loads(opened(f"activation={name}", *slope).evaluate(COMPUTED, LR))
    assert len(found) == 20
    for each in found:
        weights, biases = rounded()
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


def test_input_gradient_of_another_class_matches_autograd(opened: Open) -> None:
    found = json.loads(opened("activation=silu").evaluate(TOWARDS))
    x, target, slopes = (torch.tensor([each[key] for each in found]) for key in ("x", "target", "slopes"))
    a = x = x.double().requires_grad_()
    *hidden, (weight, bias) = zip(*rounded(), strict=True)
    for hidden_weight, hidden_bias in hidden:
        a = torch.nn.functional.silu(a @ hidden_weight.T + hidden_bias)
    loss = torch.nn.functional.cross_entropy(a @ weight.T + bias, target, reduction="sum")
    for theirs, ours in zip(slopes, *torch.autograd.grad(loss, x), strict=True):
        assert near(theirs.tolist(), ours)


def test_broken_terms_are_those_of_the_gradient_check(opened: Open, tiny_mnist: Path) -> None:
    page = opened("activation=tanh")
    network = MLP([784, 20, 12, 10]).double()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), chain(*zip(*rounded(), strict=True)), strict=True):
            parameter.copy_(value)
    x, y = (each[:10] for each in examples_of(tiny_mnist))
    objective = gradcheck.Objective(network, Tanh(), Regularizer(strength=0), x, y)
    assert page.evaluate("Object.keys(BROKEN)") == [key for key in gradcheck.BROKEN if key not in OF_REGULARIZERS]
    for broken in (None, "BP1", "BP2", "BP3", "BP4", "phi"):
        found = json.loads(page.evaluate(BATCH, broken))
        for theirs, ours in zip(found, gradcheck.by_hand(objective, broken), strict=True):
            assert near(theirs, ours), broken


def press(page: Page, *ids: str) -> None:
    """Press buttons; each keeps the keyboard's focus."""
    for each in ids:
        page.locator(f"#{each}").focus()
        page.keyboard.press("Enter")
        page.wait_for_function("!state.timer")
        assert page.evaluate("document.activeElement.id") == each


def test_buttons_step_through_the_page(opened: Open, tiny_mnist: Path) -> None:
    page = opened("activation=tanh", viewport={"width": 1200, "height": 900})
    x, y = examples_of(tiny_mnist)
    weights, biases = rounded()
    sample = backprop.forward(x[-200:], weights, biases, Tanh()).logits.argmax(dim=1)
    accuracy = float((sample == y[-200:].argmax(dim=1)).double().mean())
    page.get_by_role("button", name="test image 1: 7").click()
    assert page.get_by_role("button", name="test image 1: 7").get_attribute("aria-pressed") == "true"
    assert page.locator("#answers input:checked").get_attribute("value") == "7"
    assert page.locator("#step").is_disabled()
    assert "press backward first" in page.locator("#why-step").inner_text()
    loss = "loss()"
    before = float(page.evaluate(loss))
    press(page, "backward")
    assert "from" in str(page.locator("#delta-1").get_attribute("aria-label"))
    page.get_by_label("look at unit").nth(1).fill("11")
    written = page.locator("#unit").inner_text()
    assert "Unit 11 of layer 2" in written
    assert f"= {page.evaluate('number(state.deltas[1][11])')} (6, BP2, 12)" in written
    press(page, "step")
    said = page.locator("#stepped").inner_text()
    assert "after 1 step." in said
    assert f"Accuracy on 200 test images: {100 * accuracy:.1f} % before" in said
    after = float(page.evaluate(loss))
    assert after < before
    press(page, "step", "steps")
    assert [len(page.evaluate("state.run")), page.evaluate("state.run[1].loss")] == [12 + 1, after]
    assert "to" in str(page.locator("#delta-1").get_attribute("aria-label"))  # recomputed after each step
    press(page, "reset")
    assert float(page.evaluate(loss)) == before
    assert page.locator("#answers input:checked").get_attribute("value") == "7"
    assert page.locator("#loss-curve .earlier").get_attribute("points").count(",") == 13
    page.locator("#lr").fill("-1")
    press(page, "step")
    assert "should be a number above 0" in page.locator("#stepped").inner_text()


@both_widths
def test_picture_moves_towards_a_chosen_class_and_back(opened: Open, width: int) -> None:
    page = opened(viewport={"width": width, "height": 800})
    picture = "$('push').toDataURL()"
    p, height = "probabilities()[state.target]", "document.documentElement.scrollHeight"
    assert page.locator("#target").input_value() == page.locator("#answers input:checked").get_attribute("value")
    assert page.locator("#move").is_disabled()
    assert "press backward first" in page.locator("#moved-said").inner_text()
    press(page, "backward")
    before, tall, loss = page.evaluate(picture), page.evaluate(height), page.evaluate("loss()")
    page.get_by_label("Which pixels would make it say").select_option("3")
    assert page.evaluate(picture) != before
    at_rest = page.evaluate(p)
    page.locator("#push").click(position={"x": 80, "y": 80})
    asked = "add ink" if page.evaluate("push()[state.unit.number]") > 0 else "remove ink"
    assert f"those of “3”: {asked} here." in page.locator("#unit").inner_text()
    press(page, "move")
    assert page.evaluate(p) > at_rest
    assert page.evaluate("norm(state.x.map((v, i) => v - state.still[i]))") == pytest.approx(1)
    moves = 1
    while page.evaluate("largestOf(probabilities())") != 3:
        press(page, "move")
        moves += 1
    assert "The network says 3, with" in page.locator("#moved-said").inner_text()
    kept, reached = page.url.partition("#")[2], page.evaluate(p)
    assert f"&moved={moves}&" in kept
    assert page.evaluate(height) == tall
    assert page.evaluate("document.documentElement.scrollWidth") == width
    press(page, "back")
    assert (page.evaluate(p), page.evaluate("loss()")) == (at_rest, loss)
    page.goto("about:blank")
    page.goto(Path("run", "explain.html").absolute().as_uri() + "#" + kept)
    assert (page.evaluate(p), page.url.partition("#")[2]) == (reached, kept)


@pytest.mark.slow
def test_play_steps_until_it_is_paused_or_another_digit_is_chosen(opened: Open) -> None:
    page = opened()
    press(page, "backward")
    page.locator("#play").click()
    page.wait_for_function("state.run.length > 3")
    assert page.locator("#play").inner_text() == "pause"
    page.locator("#play").click()
    assert (page.locator("#play").inner_text(), page.evaluate("state.timer")) == ("play", None)
    page.locator("#play").click()
    page.locator("#digits button").nth(2).click()
    assert page.evaluate("[state.timer, state.run.length, state.deltas]") == [None, 0, None]
    assert "reset brings back the trained" in page.locator("#stepped").inner_text()


@pytest.mark.slow
def test_clear_leaves_nothing_of_the_digit(opened: Open) -> None:
    page = opened()
    press(page, "backward", "steps")
    page.locator("#clear").click()
    assert page.locator("#verdict").inner_text() == "No digit yet: draw one, or choose a test image."
    assert page.locator("#answers input:checked, #digits [aria-pressed=true], #bars .best").count() == 0
    assert page.locator("#output-deltas span").all_inner_texts() == ["\u2013"] * 10
    assert page.locator("#backward, #step, #steps, #play").evaluate_all("all => all.every((one) => one.disabled)")
    assert "No digit yet" in page.locator("#why-backward").inner_text()
    assert "No digit yet" in page.locator("#unit").inner_text()
    assert page.locator("#stepped").inner_text() == ""
    press(page, "reset")


@pytest.mark.slow
@both_widths
def test_explanation_stays_in_view_and_nothing_jumps(opened: Open, width: int) -> None:
    page = opened(viewport={"width": width, "height": 800})
    press(page, "backward")
    shape = "[scrollY, document.documentElement.scrollHeight, $('unit').offsetHeight]"
    for layer in (1, 2, 3):
        for kind in ("a", "delta"):
            page.locator(f"#{kind}-{layer}").scroll_into_view_if_needed()
            before = page.evaluate(shape)
            page.locator(f"#{kind}-{layer}").click(position={"x": 3, "y": 3})
            assert page.evaluate(shape) == before
            assert page.locator("#unit h2").inner_text().startswith(f"Unit 0 of layer {layer}")
            box = page.locator("#unit").bounding_box()
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= 800
    page.locator("#backward").scroll_into_view_if_needed()
    top = page.locator("#backward").bounding_box()["y"]
    assert 0 < page.locator("#output-deltas").bounding_box()["y"] - top < 80


def test_terms_lead_to_the_units_below_and_above(opened: Open) -> None:
    page = opened()
    press(page, "backward")
    assert page.locator("#unit h2").inner_text().startswith("Unit")
    page.locator('#unit button[data-layer="2"]').first.click()
    assert "of layer 2" in page.locator("#unit h2").inner_text()
    assert page.evaluate("document.activeElement.id") == "unit"
    page.locator('#unit button[data-layer="3"]').first.click()
    assert "of layer 3" in page.locator("#unit h2").inner_text()
    page.locator("#unit-1").fill("7")
    page.locator('#unit button[data-layer="0"]').first.focus()
    page.keyboard.press("Enter")
    assert re.match(r"Input \d+: row \d+, column \d+", page.locator("#unit h2").inner_text())
    page.locator("#unit-1").fill("20")
    assert page.locator("#wrong-1").inner_text() == "Layer 1 has units 0 to 19."
    page.locator("#unit-0").fill("-1")
    assert page.locator("#wrong-0").inner_text() == "There are inputs 0 to 783."


def test_equation_numbers_lead_to_the_equations(opened: Open) -> None:
    page = opened()
    press(page, "backward")
    page.locator("#unit-2").fill("3")
    hrefs = page.locator('a[href^="#eq-"]').evaluate_all("all => all.map((one) => one.getAttribute('href'))")
    assert {f"#eq-{number}" for number in (1, 2, 3, 5, 6, 7, 8, 13, 26)} - set(hrefs) == {"#eq-3"}  # of output units
    assert [href for href in hrefs if page.locator(href).count() != 1] == []
    address = page.url
    page.locator('#unit a[href="#eq-6"]').click()
    assert page.locator("#eq-6").is_visible()
    assert (page.evaluate("document.activeElement.id"), page.url) == ("eq-6", address)
    shown = set(page.locator(".equations li").evaluate_all("all => all.map((one) => one.id.slice(3))"))
    assert all(re.search(rf"\\tag{{{number}\b|\({number}\) \|", DERIVATION) for number in shown)


def test_broken_term_shows_where_it_can_and_says_where_it_cannot(opened: Open) -> None:
    page = opened("activation=relu")
    wrong = {}
    for broken in ("BP1", "BP2", "BP3", "BP4", "phi"):
        for batch in ("1", "10"):
            page.locator("#batch").select_option(batch)
            page.locator("#broken").select_option(broken)
            press(page, "backward", "step")
            cells = page.locator("#broken-rows td").all_inner_texts()
            wrong[broken, batch] = [n for n, cell in enumerate(cells) if cell != "right"]
            harmless = page.locator("#broken-said").inner_text()
            assert ("relative to the largest" in harmless) == bool(wrong[broken, batch])
    assert wrong == {  # columns of W and b, in turn, from layer 1
        ("BP1", "1"): [],
        ("BP2", "1"): [0, 1, 2, 3],
        ("BP3", "1"): [],
        ("BP4", "1"): [2, 4],
        ("phi", "1"): [],
        ("BP1", "10"): [0, 1, 2, 3, 4, 5],
        ("BP2", "10"): [0, 1, 2, 3],
        ("BP3", "10"): [1, 3, 5],
        ("BP4", "10"): [2, 4],
        ("phi", "10"): [],
    }


@pytest.mark.slow
def test_quiz_judges_every_kind_of_question(opened: Open) -> None:
    page = opened()
    for asked in range(1, 11):
        press(page, "ask")
        assert page.locator("#step").is_disabled()
        options = page.locator("#options button")
        options.first.focus()
        page.keyboard.press("Enter")
        assert page.locator("#options .solution").count() == 1
        assert f"of {asked}." in page.locator("#score").inner_text()
        right = "solution" in str(options.first.get_attribute("class"))
        assert page.locator("#judged").inner_text().startswith("Right:" if right else "No, “")
        options.last.click()  # answered already
        assert f"of {asked}." in page.locator("#score").inner_text()
    press(page, "ask", "backward")  # looked first
    assert page.locator("#options button").count() == 0


DERIVATION = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
EXAMPLE = DERIVATION.partition("## A worked example")[2]


def documented(name: str) -> list[list[float]]:
    """Return a row of the worked example's table in docs/derivation.md, an image's numbers each."""
    row = next(line for line in EXAMPLE.splitlines() if line.startswith(f"| ${name}$"))
    return [[value_of(entry) for entry in pair] for pair in re.findall(r"\$\(([^,]+), ([^,]+)\)\$", row)]


def value_of(entry: str) -> float:
    t = 4 * (1 - math.log(3))
    for sign, value in {"½": 0.5, "¼": 0.25, "¾": 0.75, "⅜": 0.375, "⅛": 0.125}.items():
        entry = entry.replace(sign, str(value))
    factors = re.sub(r"(?<=[\d.]) (?=[t\\])", "*", entry.strip()).replace(r"\ln 3", "log(3)")
    return float(eval(factors, {"log": math.log, "t": t}))


def documented_gradient(name: str) -> list[float]:
    """Return a gradient of the worked example in docs/derivation.md, row by row."""
    after = EXAMPLE.partition(rf"\partial {name}}} = ")[2]
    inside = re.match(r"\\begin{pmatrix}(.*?)\\end|\((.*?)\)", after)
    assert inside
    return [value_of(entry) for entry in re.split(r"&|\\\\|,", inside[1] or inside[2])]


def test_tiny_network_has_the_numbers_of_the_document(opened: Open) -> None:
    page = opened()
    found = page.evaluate("JSON.parse(JSON.stringify(tinyNumbers(), (_, each) => each?.buffer ? [...each] : each))")
    images = found["images"]
    for name, theirs in {
        "z_1": [image["zs"][0] for image in images],
        "a_1": [image["activations"][1] for image in images],
        "z_2": [image["zs"][1] for image in images],
        "p": [image["p"] for image in images],
        "\\delta_2": [image["deltas"][1] for image in images],
        "\\delta_1": [image["deltas"][0] for image in images],
    }.items():
        assert theirs == [pytest.approx(pair, abs=1e-12) for pair in documented(name)], name
    for layer, gradient in enumerate(found["gradients"], start=1):
        assert gradient["W"] == pytest.approx(documented_gradient(f"W_{layer}"), abs=1e-12)
        assert gradient["b"] == pytest.approx(documented_gradient(f"b_{layer}"), abs=1e-12)
    assert found["loss"] == pytest.approx(1.5 * math.log(2))


def test_every_number_of_the_tiny_network_can_be_followed(opened: Open) -> None:
    page = opened()
    said = page.locator("#tiny-said")
    assert page.locator("#tiny-step").is_disabled()
    assert "step needs them" in said.inner_text()
    press(page, "tiny-backward")
    buttons = page.locator("#tiny g[role=button]")
    assert buttons.count() == 6 + 8
    for n in range(14):
        buttons.nth(n).focus()
        page.keyboard.press("Enter")
        assert page.locator("#tiny .chosen").count() == 1
        assert page.evaluate("document.activeElement.classList.contains('chosen')")
        assert page.locator("#unit h2").inner_text().startswith("Tiny network: ")
    page.locator("#tiny-images").get_by_label("image 2").check()
    page.get_by_role("button", name="weight 0, 1 of layer 1").click()
    written = page.locator("#unit").inner_text().replace("\u2212", "-")
    assert "(-0.250) · 2.00 + 0.375 · (-0.394) = -0.648" in written
    assert "= -0.250 - 0.5 · (-0.648) = 0.0740" in written
    press(page, "tiny-step")
    assert "after 1 step" in said.inner_text()
    assert page.evaluate("number(tiny.layers[0].W[1])") == "0.0740"
    assert page.evaluate("tinyNumbers().loss") < 1.5 * math.log(2)
    press(page, "tiny-reset")
    assert "1.04 nats after 0 steps" in said.inner_text()


def test_address_keeps_what_is_shown(opened: Open) -> None:
    page = opened()
    page.locator("#digits button").nth(2).click()
    page.locator("#unit-1").fill("5")
    page.locator("#batch").select_option("10")
    page.locator("#broken").select_option("BP2")
    page.get_by_label("4", exact=True).check()
    page.locator("#lr").fill("0.02")
    press(page, "backward", "step", "step")
    address = page.url.partition("#")[2]
    assert address == "digit=3&answer=4&layer=1&unit=5&broken=BP2&batch=10&lr=0.02&steps=2"
    seen = "[state.run, state.deltas.map((each) => [...each]), $('unit').innerText]"
    before = page.evaluate(seen)
    page.goto("about:blank")
    page.goto(Path("run", "explain.html").absolute().as_uri() + "#" + address)
    page.wait_for_function("!state.timer")
    assert page.evaluate(seen) == before
    assert page.url.partition("#")[2] == address


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    ["digit=21&layer=9&unit=-1&steps=1e9", "&&=&%E0%A4%A", "layer=1&unit=999&broken=toString&lr=x&batch=2", "eq-6"],
)
def test_nonsense_in_the_address_is_ignored(opened: Open, address: str) -> None:
    page = opened()
    before = page.url
    page.evaluate("(address) => { location.hash = address; }", address)
    page.wait_for_timeout(100)
    assert page.url == before


@pytest.mark.parametrize("layer", mostly_slow([1, 0, 3], always=1))
def test_print_is_one_sheet(opened: Open, layer: int) -> None:
    page = opened(color_scheme="dark")
    press(page, "backward")
    page.locator(f"#unit-{layer}").fill("2")
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))) == 1
    assert page.locator("#equations").get_attribute("open") is None


def test_open_starts_the_browser(run_script: RunScript, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    trained()
    started: list[str] = []
    monkeypatch.setattr("webbrowser.open", started.append)  # None: no browser
    assert "No browser" not in run_script("run=run", script="explain.py")[1]
    assert started == []
    printed = ran(run_script, "run=run", "open=true", script="explain.py")
    assert started == [Path("run", "explain.html").absolute().as_uri()]
    assert "No browser could be started: open the file yourself." in printed


@pytest.mark.slow
def test_clicking_during_the_animation_shows_every_layer(opened: Open) -> None:
    page = opened(reduced_motion="no-preference")
    page.locator("#digits button").first.click()
    page.locator("#backward").click()  # during the layer-by-layer animation
    page.wait_for_function("!document.querySelector('.waiting')", timeout=5000)


@pytest.mark.slow
def test_digit_is_drawn_on_a_phone(opened: Open) -> None:
    page = opened(viewport={"width": 390, "height": 800}, color_scheme="dark", has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#pad").evaluate("pad => pad.scrollIntoView()")
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 30, steps=5)
    page.mouse.move(box["x"] + 50, box["y"] + 150, steps=5)
    page.mouse.up()
    assert page.evaluate("Math.max(...state.x)") == 1
    assert page.locator("#backward").is_disabled()
    page.get_by_label("4", exact=True).check()
    assert page.locator("#backward").is_enabled()


def test_page_preprocesses_a_drawing_like_predict(opened: Open) -> None:
    page = opened()
    ink = torch.zeros(280, 280, dtype=torch.float64)
    ink[60:210, 100:125] = ink[60:85, 100:190] = 1
    theirs = page.evaluate("(ink) => Array.from(prepared(Float64Array.from(ink), 280, 280))", ink.flatten().tolist())
    ours = centred(fit_to_box(ink[60:210, 100:190].numpy())).flatten()
    assert float((torch.tensor(theirs) - ours).abs().mean()) < 0.01


def test_run_that_does_not_fit_on_a_page_is_refused(
    run_script: RunScript, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("data.val_size=100", "data.score_test=false")
    assert "a page needs 20 test images" in refusal(run_script, "run=run", script="explain.py")
    trained(sizes="30", folder="other")
    monkeypatch.setattr(explain, "LARGEST", 70_000)
    assert "23,860 weights make a page of 0 MB" in refusal(run_script, "run=other", script="explain.py")


def test_no_text_in_a_page_ends_its_script() -> None:
    page = explain.embedded({"classes": ["</script><script>alert(1)"]})
    assert "<" not in page
    assert json.loads(page) == {"classes": ["</script><script>alert(1)"]}


def test_page_of_the_full_network_is_small_and_its_name_is_text(run_script: RunScript, trained: Trained) -> None:
    name = "</script><script>alert(1)</script>"
    assert trained(f"name='{name}'", sizes="500,250,100")["name"] == name
    ran(run_script, "run=run", "output=page.html", script="explain.py")
    page = Path("page.html").read_text(encoding="utf-8")
    assert len(page) < 4_000_000
    assert "alert(1)</script>" not in page
    assert "http" not in re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)


EIGHT = """
from sklearn.datasets import load_digits
from torch import eye, tensor

from handgrad.training.data import ClassificationData, Examples


class Odd(ClassificationData):
    dataset, inputs, class_names, image_shape = "odd", 48, ["even", "odd", "none"], (8, 6)

    def read(self, name):
        x, y = load_digits(return_X_y=True)
        part = slice(0, 1000) if name == "train" else slice(1000, None)
        pictures = tensor(x[part] / 16).float().view(-1, 8, 8)[:, :, 1:7]
        return Examples(pictures.flatten(1), eye(3)[tensor(y[part] % 2)])


class Plain(Odd):
    image_shape = None
"""


@pytest.mark.slow
def test_page_of_other_pictures_has_their_shape_and_no_pad(
    chromium: Any, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_eight", raising=False)
    (tmp_path / "my_eight.py").write_text(EIGHT)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    for name in ("Odd", "Plain"):
        rest = "batch_size: 64\nval_size: 0\nscore_test: true\n"
        (tmp_path / "conf" / "data" / f"{name}.yaml").write_text(f"_target_: my_eight.{name}\n{rest}")
        words = [
            "--config-dir=conf",
            f"data={name}",
            f"hydra.run.dir={name}",
            "network.hidden_sizes=[9]",
            "logger=none",
        ]
        ran(run_script, *words)
    assert "explain needs pictures" in refusal(run_script, "run=Plain", "trust=true", script="explain.py")
    ran(run_script, "run=Odd", "trust=true", script="explain.py")
    page, said = chromium.new_page(), []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(Path("Odd", "explain.html").absolute().as_uri())
    page.wait_for_timeout(100)
    x = torch.tensor(page.evaluate("digits.map(({ x }) => Array.from(x))"), dtype=torch.float64)
    logits = page.evaluate("digits.map(({ x }) => Array.from(forward(trained(), phi, x).logits))")
    weights, biases = rounded(Path("Odd"))
    assert near(logits, backprop.forward(x, weights, biases, ReLU()).logits)
    assert page.locator("#pad").count() == 0
    assert page.locator("#output-deltas span").count() == 3
    assert page.locator("#unit-0").get_attribute("max") == "47"
    page.locator("#unit-0").fill("13")
    assert "Input 13: row 2, column 1" in page.locator("#unit-text").inner_text()
    assert page.evaluate("$('seen').width / $('seen').height") == 6 / 8
    page.close()
    assert said == []
