"""Lesson page: a trained network with forward pass, backward pass and update step in the browser."""

import base64
import json
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from torch import Tensor

from handgrad.errors import UserError
from handgrad.inspection.export import sequential
from handgrad.inspection.predict import like_mnist
from handgrad.inspection.weights import Layer
from handgrad.nn.mlp import MLP
from handgrad.runs.folder import write_text
from handgrad.training.build import Assembly
from handgrad.training.data import ClassificationData, Examples
from handgrad.training.modules import mlp_of

DIGITS, SAMPLE = 20, 200  # test images to choose from, and to measure accuracy on
WRONG = 4  # misclassified images among the DIGITS, if there are that many
ROUNDED = torch.float16
SCRIPTS = ("mathematics", "draw", "unit", "show", "quiz", "tiny", "lesson")  # the last one starts the page
LARGEST = 32_000_000  # bytes; more is too much for a phone


def write(assembly: Assembly, name: str, path: Path) -> str:
    """Write the page of a trained network, with its name; return the effect of 16-bit weights, as a sentence.

    Raises:
        UserError: the network is too large for a page, or there is no test set to take images from.
    """
    module, data = assembly.module, assembly.data
    network = mlp_of(module, "explain").cpu().float()
    check_size(network, data)
    test = data.sets["test"]
    images, targets = test.rows, test.targets.argmax(dim=1)
    layers = list(zip(network.weights, network.biases, strict=True))
    rounding, wrong = effect_of_rounding(layers, assembly, images / test.divisor, targets)
    failed = wrong[(wrong >= DIGITS) & (wrong < len(images) - SAMPLE)][:WRONG]
    chosen = torch.cat([torch.arange(DIGITS - len(failed)), failed])
    content = {
        "sizes": [network.weights[0].shape[1], *(len(bias) for bias in network.biases)],
        "activation": type(module.activation).__name__,
        "drawable": like_mnist(data.image_shape or (), data.class_names),
        "negative_slope": getattr(module.activation, "negative_slope", None),
        "classes": data.class_names,
        "layers": [
            {"W": packed(weight.detach().to(ROUNDED)), "b": packed(bias.detach().to(ROUNDED))}
            for weight, bias in layers
        ],
        "shape": data.image_shape,
        "divisor": test.divisor,
        "digits": pictures(test, chosen),
        "start": DIGITS - len(failed) if len(failed) else 0,
        "sample": pictures(test, slice(-SAMPLE, None)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, rendered(content, name=name, wrong=len(failed), rounding=rounding))
    return rounding


def pictures(examples: Examples, part: Tensor | slice) -> dict[str, Any]:
    """Encode a part of a set's pictures, as bytes or 16-bit floats, with their classes."""
    rows = examples.rows[part]
    pixels = rows if examples.divisor > 1 else rows.to(ROUNDED)
    return {"pixels": packed(pixels), "labels": examples.targets[part].argmax(dim=1).tolist()}


def check_size(network: MLP, data: ClassificationData) -> None:
    """Refuse a network that is too large for a page, data that are not pictures, and too few of them."""
    if data.image_shape is None:
        raise UserError(f"explain needs pictures, and the examples of {data.dataset} are not (image_shape is null)")
    if "test" not in data.sets or len(data.sets["test"]) < DIGITS:
        raise UserError(f"a page needs {DIGITS} test images: leave data.score_test=true")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if 3 * parameters > LARGEST:  # two bytes, in base64
        raise UserError(
            f"{parameters:,} weights make a page of {3 * parameters / 1e6:.0f} MB: choose a smaller network"
        )


def rendered(content: dict[str, Any], **told: Any) -> str:
    """Render the template with the page's data, parts and texts."""
    loader = PackageLoader("handgrad.inspection", "page")
    environment = Environment(loader=loader, autoescape=select_autoescape(["html.jinja"]))
    scripts = [source(f"{script}.js") for script in SCRIPTS]
    parts = {"style": source("lesson.css"), "scripts": scripts, "data": embedded(content)}
    return environment.get_template("lesson.html.jinja").render(content, **told, **parts)


def source(name: str) -> Markup:
    """Read a part of the page from its file in `page/`."""
    return Markup((Path(__file__).parent / "page" / name).read_text(encoding="utf-8"))


def embedded(content: dict[str, Any]) -> Markup:
    """Serialize to JSON that cannot close its script element."""
    return Markup(json.dumps(content).replace("<", "\\u003c"))


def packed(numbers: Tensor) -> str:
    """Encode a tensor's bytes, row by row, in base64."""
    return base64.b64encode(numbers.contiguous().numpy().tobytes()).decode("ascii")


def effect_of_rounding(layers: list[Layer], assembly: Assembly, x: Tensor, targets: Tensor) -> tuple[str, Tensor]:
    """Measure how rounding the weights to 16 bits changes the probabilities on the test set.

    Returns:
        a sentence, and the indices of the images that the rounded network misclassifies.
    """
    phi = assembly.module.activation
    rounded = [(weight.to(ROUNDED).float(), bias.to(ROUNDED).float()) for weight, bias in layers]
    with torch.no_grad():
        whole, short = (torch.softmax(sequential(each, phi)(x), dim=1) for each in (layers, rounded))
    apart = float((whole - short).abs().max())
    right = [p.argmax(dim=1) == targets for p in (whole, short)]
    before, after = (float(hits.float().mean()) for hits in right)
    sentence = (
        f"The weights are 16-bit floats. Of {len(x):,} test images, {after:.2%} are right."
        if not apart
        else (
            f"The weights are rounded to 16-bit floats. Over {len(x):,} test images no probability moves by more than "
            f"{apart:.1g}, and {after:.2%} are right ({before:.2%} before)."
        )
    )
    return sentence, (~right[1]).nonzero().flatten()
