"""Gradient check: gradients by hand against autograd and central finite differences, with injected bugs on request.

Errors are relative to the largest entry of the reference gradient, max |ours - reference| / max |reference|, so that
entries near zero do not inflate them.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from handgrad.nn import backprop, losses
from handgrad.nn.activations import Activation
from handgrad.nn.backprop import FactoredGradient
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer, adversarial

DTYPES = {"float64": torch.float64, "float32": torch.float32}
STEPS = {"float64": 1e-6, "float32": 3e-3}  # larger: crosses more kinks of ReLU; smaller: more rounding error
TOLERANCES = {
    ("autograd", "float64"): 1e-9,
    ("differences", "float64"): 1e-4,
    ("autograd", "float32"): 1e-4,
    ("differences", "float32"): 0.2,
}
KINKS = {torch.float64: 1e-3, torch.float32: 0.1}  # relative curvature over one step that marks a kink
Key = tuple[str, str]  # (reference, precision), as in TOLERANCES
BROKEN = {
    "BP1": "delta_L = p - y, the division by B left out",
    "BP2": "delta_l without the factor phi'(z_l)",
    "BP3": "dLoss/db_l as the mean over the batch in place of the sum",
    "BP4": "dLoss/dW_l with z_(l-1) in place of a_(l-1)",
    "phi": "phi'(a_l) in place of phi'(z_l)",
    "L2": "the penalty's gradient without its factor 2",
    "dropout": "phi'(z_l) without the dropout mask m_l",
    "smoothing": "delta_L = p - y with the targets before smoothing",
    "input": "dLoss/dx with a factor phi'(x), as if the inputs were a hidden layer",
}
NEEDS = {
    "dropout": "dropout",
    "smoothing": "smoothing",
    "input": "adversarial",
}  # bug: its regularizer


class Objective(NamedTuple):
    """Objective to differentiate: mean loss of a network on a batch, including the penalty.

    network: L layers.
    phi: activation.
    regularizer: penalty, dropout, smoothing, adversarial examples.
    x: (B, I) inputs.
    y: (B, C) targets, before smoothing.
    masks: dropout masks of the layers' inputs; None: no dropout.
    by_input: differentiate with respect to the inputs, too.
    """

    network: MLP
    phi: Activation
    regularizer: Regularizer
    x: Tensor
    y: Tensor
    masks: Sequence[Tensor | None] | None = None
    by_input: bool = False

    @property
    def variables(self) -> dict[str, Tensor]:
        """Variables of differentiation by name: weight and bias of every layer, in layer order, and the inputs."""
        return dict(self.network.named_parameters()) | ({"layers.0.input": self.x} if self.by_input else {})


class Row(NamedTuple):
    """Relative errors of one parameter's gradient by hand, per reference and precision.

    layer: number of the layer, from 1.
    parameter: "weight" or "bias", or "input".
    shape: shape of the parameter.
    apart: relative errors.
    bounds: largest errors allowed: the tolerance plus, for finite differences, the rounding error.
    """

    layer: int
    parameter: str
    shape: tuple[int, ...]
    apart: dict[Key, float]
    bounds: dict[Key, float]

    def right(self, key: Key) -> bool:
        """Tell whether one error is within its bound; False for NaN."""
        return self.apart[key] <= self.bounds[key]

    @property
    def verdict(self) -> str:
        """Verdict on all errors: "right" or "wrong"."""
        return "right" if all(map(self.right, self.apart)) else "wrong"


@dataclass(frozen=True)
class WrongDerivative:
    """Activation with an injected wrong derivative.

    Args:
        phi: activation.
        wrong: function of (z, a) that replaces phi'(z).
    """

    phi: Activation
    wrong: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        return self.phi(z)

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        return self.wrong(z, a)

    def reference(self) -> torch.nn.Module:
        return self.phi.reference()


@torch.no_grad()
def frozen(objective: Objective) -> Objective:
    """Fix a training step's dropout masks and adversarial examples, which are random or move with the weights.

    The loss of the step is that of the examples and the moved examples together, in a batch of 2 B.
    """
    regularizer, x, y = objective.regularizer, objective.x, objective.y
    masks = None
    if regularizer.dropout:
        masks = regularizer.masks(len(x), objective.network.weights, torch.Generator().manual_seed(0))
    if not regularizer.adversarial:
        return objective._replace(masks=masks)
    gradient = by_hand(objective._replace(masks=masks, by_input=True))[-1]
    twice = None if masks is None else [None if mask is None else torch.cat([mask, mask]) for mask in masks]
    moved = adversarial(x, gradient, regularizer.adversarial)
    return objective._replace(x=torch.cat([x, moved]), y=torch.cat([y, y]), masks=twice, by_input=True)


@torch.no_grad()
def by_hand(objective: Objective, broken: str | None = None) -> list[Tensor]:
    """Compute the weight and bias gradients of every layer by hand, including the penalty.

    Args:
        objective: objective to differentiate.
        broken: bug to inject, a key of `BROKEN`.

    Returns:
        2 L tensors in layer order: (O, I), (O,), (O, I), ...; with `by_input` also (B, I).
    """
    network, phi, regularizer, x, y, masks, by_input = objective
    y = y if broken == "smoothing" else regularizer.smooth(y)
    used: Activation = phi
    if broken == "BP2":
        used = WrongDerivative(phi, lambda z, a: torch.ones_like(z))
    elif broken == "phi":
        used = WrongDerivative(phi, lambda z, a: phi.derivative(a, phi(a)))
    _, passed, gradients = backprop.loss_and_gradients(
        x, y, network.weights, network.biases, used, examples=1 if broken == "BP1" else None, masks=masks
    )
    if broken == "dropout":
        slopes = [phi.derivative(z, phi(z)) for z in passed.zs[:-1]]
        gradients = backprop.backward(gradients[-1].delta, passed._replace(slopes=slopes), network.weights)
    if broken == "BP4":
        inputs = [passed.inputs[0], *passed.zs[:-1]]
        gradients = [FactoredGradient(gradient.delta, z) for gradient, z in zip(gradients, inputs, strict=True)]
    decay = regularizer.weight_decay / 2 if broken == "L2" else regularizer.weight_decay
    found = []
    for weight, gradient in zip(network.weights, gradients, strict=True):
        found += [gradient.weight() + decay * weight, gradient.bias() / (len(x) if broken == "BP3" else 1)]
    if by_input:
        of_input = backprop.input_gradient(gradients[0], network.weights[0], masks[0] if masks else None)
        found.append(of_input * phi.derivative(x, phi(x)) if broken == "input" else of_input)
    return found


def by_autograd(objective: Objective) -> list[Tensor]:
    """Compute the same gradients with autograd, from PyTorch's own layers and loss."""
    network, phi, regularizer, x, y, masks, by_input = objective
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = network(x, phi.reference(), masks)
        mean_loss = torch.nn.functional.cross_entropy(logits, y, label_smoothing=regularizer.smoothing)
        by = [*network.parameters(), *([x] if by_input else [])]
        return list(torch.autograd.grad(mean_loss + regularizer.penalty(network.weights), by))


@torch.no_grad()
def by_differences(objective: Objective, at: Sequence[Tensor], step: float) -> list[Tensor]:
    """Estimate gradient entries by central finite differences of the forward pass; the loss is summed in float64.

        dLoss/dw ~ (Loss(w + h) - Loss(w - h)) / 2h

    At a kink of the loss, e.g. of relu at z = 0, there is no derivative: the left and the right one differ.

    Args:
        objective: objective to differentiate.
        at: for each of the objective's variables, flat indices of the entries to perturb.
        step: step size h.

    Returns:
        for each variable, the derivatives at its indices; NaN at a kink.
    """
    network, phi, regularizer, x, y, masks, _ = objective
    y = regularizer.smooth(y)

    def value() -> Tensor:
        logits = backprop.forward(x, network.weights, network.biases, phi, masks=masks).logits
        penalty = regularizer.penalty([weight.double() for weight in network.weights]) if regularizer.strength else 0
        return losses.cross_entropy(losses.log_softmax(logits.double()), y.double()) + penalty

    found, middle = [], value()
    for parameter, indices in zip(objective.variables.values(), at, strict=True):
        flat, derivatives = parameter.view(-1), []
        for index in indices.tolist():
            entry = float(flat[index])
            flat[index] = entry + step
            up, above = value(), float(flat[index])
            flat[index] = entry - step
            down, below = value(), float(flat[index])
            flat[index] = entry
            kink = (up - 2 * middle + down).abs() > KINKS[parameter.dtype] * (up - down).abs()
            derivatives.append(torch.full_like(up, torch.nan) if kink else (up - down) / (above - below))  # actual 2h
        found.append(torch.stack(derivatives))
    return found


def check(
    network: MLP,
    phi: Activation,
    regularizer: Regularizer,
    x: Tensor,
    y: Tensor,
    entries: int = 20,
    broken: str | None = None,
) -> list[Row]:
    """Compare every parameter's gradient by hand with both references in both precisions.

    Dropout masks are drawn once and adversarial examples moved once, by the network as it is; with adversarial examples
    the gradient with respect to the inputs is compared, too.

    Args:
        network: network of any precision; not modified.
        phi: activation.
        regularizer: penalty, dropout, smoothing, adversarial examples.
        x: (B, I) inputs, B > 0.
        y: (B, C) targets; each row sums to 1.
        entries: number of entries per parameter to check by finite differences: those with the largest gradients.
        broken: bug to inject into the gradient by hand, a key of `BROKEN`.

    Returns:
        a row per parameter, in layer order.

    Raises:
        ValueError: a row of y does not sum to 1, or nothing is to be checked.
    """
    if entries < 1 or not len(x):
        raise ValueError("a check needs one example and one entry (fd_entries) or more")
    if not torch.allclose(y.double().sum(dim=-1), torch.ones(len(y), dtype=torch.float64, device=y.device), atol=1e-3):
        raise ValueError("y: every row of the targets must sum to 1")
    rows: list[Row] = []
    for name, dtype in DTYPES.items():
        own = copy.deepcopy(network).to("cpu", dtype).requires_grad_()
        targets = y.to(dtype) / y.to(dtype).sum(dim=-1, keepdim=True)  # a row in float32 sums to 1 only to 1e-7
        cast = frozen(Objective(own, phi, regularizer, x.to(dtype), targets))
        if not rows:
            for variable, tensor in cast.variables.items():
                _, index, parameter = variable.split(".")
                rows.append(Row(int(index) + 1, parameter, tuple(tensor.shape), {}, {}))
        ours, graph = by_hand(cast, broken), by_autograd(cast)
        at = [gradient.abs().flatten().topk(min(entries, gradient.numel())).indices for gradient in graph]
        moved = by_differences(cast, at, STEPS[name])
        logits = backprop.forward(cast.x, own.weights, own.biases, phi, masks=cast.masks).logits
        rounding = torch.finfo(dtype).eps * float(logits.abs().max()) / STEPS[name]
        for row, gradient, reference, indices, differences in zip(rows, ours, graph, at, moved, strict=True):
            by_graph, by_differing = ("autograd", name), ("differences", name)
            row.apart[by_graph] = relative_error(gradient, reference)
            row.bounds[by_graph] = TOLERANCES[by_graph]
            smooth = ~differences.isnan()
            differences = differences[smooth]
            row.apart[by_differing] = relative_error(gradient.flatten()[indices][smooth], differences)
            row.bounds[by_differing] = TOLERANCES[by_differing] + rounding / (largest(differences) or 1)
    return rows


def affected(objective: Objective, bugs: Sequence[str]) -> dict[str, list[bool]]:
    """Tell for each bug which rows of `check` it changes, by more than the tolerance in float64."""
    network, phi, regularizer, x, y, *_ = objective
    own = copy.deepcopy(network).to("cpu", torch.float64)
    cast = frozen(Objective(own, phi, regularizer, x.double(), y.double()))
    found, correct = {}, by_hand(cast)
    for bug in bugs:
        errors = map(relative_error, by_hand(cast, bug), correct)
        found[bug] = [not error <= TOLERANCES["autograd", "float64"] for error in errors]
    return found


def report(rows: Sequence[Row], broken: str | None) -> dict[str, Any]:
    """Return the content of `check.json`."""
    return {
        "broken": broken,
        "tolerances": {" ".join(key): tolerance for key, tolerance in TOLERANCES.items()},
        "rows": [
            {"layer": row.layer, "parameter": row.parameter, "shape": list(row.shape), "verdict": row.verdict}
            | {" ".join(key): share for key, share in row.apart.items()}
            for row in rows
        ],
    }


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Return max |ours - theirs| / max |theirs|, or the numerator if theirs is all zero; 0 for empty tensors."""
    return largest(ours - theirs) / (largest(theirs) or 1)


def largest(numbers: Tensor) -> float:
    """Return the largest magnitude, 0 for an empty tensor."""
    return float(numbers.abs().max()) if len(numbers) else 0.0
