"""Exercise: judge a student's functions, each alone, against autograd; name the mistake that a wrong one looks like.

A mistake is named only if a function that makes it returns the student's numbers in every case.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from handgrad.errors import UserError, describe_os_error
from handgrad.inspection.mistakes import ARGUMENTS, mistakes_of
from handgrad.nn.activations import Activation
from handgrad.nn.mlp import MLP
from handgrad.runs.folder import MINE
from handgrad.training import handin

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest number of a result
SIZES = {"the tiny case": (2, 3, 4, 5), "random numbers": (7, 3, 4, 5), "one example": (1, 4, 3, 2)}  # B, I, O, C
SQUARE = (4, 4, 4, 4)  # only to recognize a mistake that fails on other shapes
FEW = 60  # most numbers of a case printed in full


class Case(NamedTuple):
    """Arguments and right result of every function.

    name: what the case is.
    sizes: numbers of examples, inputs, outputs and classes, by their letters B, I, O and C.
    values: arguments by name.
    right: results by function.
    """

    name: str
    sizes: dict[str, int]
    values: dict[str, Any]
    right: dict[str, Tensor]


class Verdict(NamedTuple):
    """Judgement of one function.

    function: its name.
    right: whether it is right.
    brief: "right", "not written yet", or what is wrong, for a table.
    full: the same in sentences, with the first wrong number and the case it occurs in.
    """

    function: str
    right: bool
    brief: str
    full: str

    def __repr__(self) -> str:
        """Text that a notebook shows."""
        return f"{self.function}: {self.full if self.brief == self.full else f'wrong: {self.full}'}"


def write_template(folder: Path, phi: Activation, option: str) -> Path:
    """Write the file for a student to fill in, my_backprop.py; return its path.

    Args:
        folder: where to write it.
        phi: the activation to be written.
        option: the activation's name on the command line.

    Raises:
        UserError: there is such a file, or it cannot be written.
    """
    described = " ".join((inspect.getdoc(type(phi)) or "").split("Source:")[0].split())
    numbers = re.findall(r"\(\d+\)", described)  # the last: "phi'(0)" is no equation
    settings = "".join(f", {name} = {value}" for name, value in vars(phi).items())
    kinks = {"relu": " phi'(0) is 0, by convention.", "leaky_relu": " phi'(0) is the slope s, by convention."}
    text = (Path(__file__).parent / "my_backprop.py.template").read_text(encoding="utf-8")
    filled = Template(text).substitute(
        option="" if option == "relu" else f" activation={option}",
        name=option,
        formula=described.split("; phi'")[0] + settings,
        equation=numbers[-1] if numbers else "",
        kink=kinks.get(option, ""),
    )
    try:
        with (folder / MINE).open("x", encoding="utf-8") as file:
            file.write(filled)
    except FileExistsError:
        raise UserError(f"{MINE} exists already: move it away, or work in another folder") from None
    except OSError as error:
        raise UserError(describe_os_error(error, folder / MINE)) from None
    return folder / MINE


def all_cases(phi: Activation, network: MLP, x: Tensor, y: Tensor) -> list[Case]:
    """Make the cases: a tiny one, random ones in float64, a square one, and a network on images in float32."""
    random = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    cases = []
    for name, (b, i, o, c) in [*SIZES.items(), ("square shapes", SQUARE)]:
        z, weight, delta, logits = numbers(b, i), numbers(o, i), numbers(b, o) / b, numbers(b, c)
        if name == "the tiny case":
            weight, delta, logits = (part.mul(4).round() / 4 for part in (weight, delta, logits))
            z = torch.tensor([[1.5, 0, -2.25], [0.5, 1.25, 0.75]], dtype=torch.float64)  # relu's kink is at 0
        cases.append(make_case(name, phi, z, weight, delta, logits, one_hot(torch.arange(b) % c, c).double()))
    network, x, y = network.cpu().float().requires_grad_(), x.float(), y.float()
    zs, reference = [x @ network.weights[0].T + network.biases[0]], phi.reference()
    for weight, bias in zip(network.weights[1:], network.biases[1:], strict=True):
        zs.append(reference(zs[-1]) @ weight.T + bias)
    if len(zs) < 3:
        raise UserError("network.hidden_sizes: the exercise needs a network with two hidden layers or more")
    delta = torch.autograd.grad(cross_entropy(zs[-1], y), zs[-2])[0]
    *_, z, _, logits = (each.detach() for each in zs)
    return [*cases, make_case("MNIST", phi, z, network.weights[-2].detach(), delta, logits, y)]


def make_case(name: str, phi: Activation, z: Tensor, weight: Tensor, delta: Tensor, logits: Tensor, y: Tensor) -> Case:
    """Compute the right results of the functions by autograd, PyTorch's loss and PyTorch's SGD.

    Args:
        name: what the case is.
        phi: activation.
        z: (B, I) pre-activations.
        weight: (O, I) weights of the next layer.
        delta: (B, O) dLoss/dz of the next layer.
        logits: (B, C) logits.
        y: (B, C) targets.
    """
    grad, reference = torch.autograd.grad, phi.reference()
    z, weight, logits = (each.clone().requires_grad_() for each in (z, weight, logits))
    bias = torch.zeros(len(weight), dtype=z.dtype, requires_grad=True)
    a = reference(z)
    (slope,) = grad(a.sum(), z, retain_graph=True)
    hidden, of_weight, of_bias = grad(((a @ weight.T + bias) * delta).sum(), [z, weight, bias], retain_graph=True)
    (output,) = grad(cross_entropy(logits, y), logits)
    stepped, lr = weight.detach().clone().requires_grad_(), 0.1 if name in ("the tiny case", "MNIST") else 0.25
    stepped.grad = of_weight
    torch.optim.SGD([stepped], lr=lr).step()
    values = {"z": z, "a": a, "slope": slope, "p": torch.softmax(logits, dim=1), "y": y, "delta": delta}
    values |= {"delta_next": delta, "weight_next": weight, "parameter": weight, "gradient": of_weight}
    results = (a, slope, output, hidden, of_bias, of_weight, stepped)
    sizes = dict(zip("BIOC", (*z.shape, len(weight), logits.shape[1]), strict=True))
    return Case(
        name,
        sizes,
        {key: value.detach() for key, value in values.items()} | {"lr": lr},
        {key: result.detach() for key, result in zip(handin.FUNCTIONS, results, strict=True)},
    )


@torch.no_grad()
def judge(name: str, module: ModuleType, source: bytes, phi: Activation, cases: Sequence[Case]) -> Verdict:
    """Judge one function of a student's executed file on cases from `all_cases`; the source is for messages."""
    try:
        if handin.is_blank(source, name):
            return Verdict(name, False, "not written yet", "not written yet")
        function = handin.find(module, name)
    except UserError as missing:
        return Verdict(name, False, "missing", str(missing))
    outcomes = [outcome(function, [case.values[key] for key in ARGUMENTS[name]]) for case in cases]
    for case, result in zip(cases, outcomes, strict=True):
        if case.name == "square shapes" or not (wrong := complaint(name, case, result, source, function)):
            continue
        if isinstance(result, NotImplementedError):
            return Verdict(name, False, "not written yet", "not written yet")
        looks = recognized(name, phi, cases, outcomes)
        brief, full = (looks or wrong[0]), wrong[1] + (f" It looks like this mistake: {looks}." if looks else "")
        return Verdict(name, False, brief, "\n".join([full, *printed(name, case, result)]))
    return Verdict(name, True, "right", "right")


def judge_function(function: Callable[..., Any], phi: Activation, cases: Sequence[Case]) -> Verdict:
    """Judge one function that was written in a notebook; UserError if its name or source cannot be used."""
    name = str(getattr(function, "__name__", function))
    if name not in handin.FUNCTIONS or isinstance(function, type):
        raise UserError(f"{name} is none of the exercise's functions: {', '.join(handin.FUNCTIONS)}")
    try:
        source = textwrap.dedent(inspect.getsource(function)).encode()
    except (OSError, TypeError):
        raise UserError(f"the source of {name} is not available: write it with def in a cell or a file") from None
    known = inspect.unwrap(function).__globals__
    return judge(name, handin.execute(source, known), source, phi, cases)


def outcome(function: Callable[..., Any], values: Sequence[Any]) -> Any:
    """Call a function on copies of its arguments; return its result, its error, or `Overwritten`."""
    copies = [value.clone() if isinstance(value, Tensor) else value for value in values]
    try:
        result = function(*copies)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    changed = [
        number
        for number, (copy, value) in enumerate(zip(copies, values, strict=True))
        if isinstance(value, Tensor) and not (copy.shape == value.shape and torch.equal(copy, value))
    ]
    return Overwritten(changed[0]) if changed else result


class Overwritten(NamedTuple):
    """Outcome of a function that changed an argument, by the argument's number."""

    argument: int


def complaint(
    name: str, case: Case, result: Any, source: bytes, function: Callable[..., Any]
) -> tuple[str, str] | None:
    """Describe what is wrong with an outcome, briefly and in full; None if nothing is."""
    right = case.right[name]
    if isinstance(result, BaseException):
        return handin.describe_briefly(result, function), f"{handin.describe(result, source, function)}."
    if isinstance(result, Overwritten):
        argument = ARGUMENTS[name][result.argument]
        sentence = f"overwrites its argument {argument}: make a new tensor, e.g. {argument} * 2, not {argument} *= 2."
        return f"overwrites {argument}", sentence
    if result is None:
        return "returns None", "returns nothing (None): is a `return` missing?"
    if not isinstance(result, Tensor):
        kind = type(result).__name__
        return f"returns {kind}", f"returns an object of type {kind}, not a tensor."
    if result.shape != right.shape:
        shapes = [lettered(tensor.shape, case.sizes) for tensor in (result, right)]
        return f"shape {shapes[0]}", f"returns {tuple(result.shape)}, that is {shapes[0]}, in place of {shapes[1]}."
    if equal(result, right) and result.is_floating_point():  # float32 too: (z > 0).float() is no mistake
        return None
    if result.dtype != right.dtype:
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (result, right)]
        convert = f"returns {kinds[0]} for arguments of {kinds[1]}: convert it, .to({ARGUMENTS[name][0]}.dtype)."
        return f"dtype {kinds[0]}", f"{'the numbers are right, but it ' if equal(result, right) else ''}{convert}"
    index, ours, theirs = first_wrong(result, right)
    where = f"In {case.name} ({', '.join(f'{letter} = {size}' for letter, size in case.sizes.items())})"
    digits = ".6g" if f"{ours:.6g}" != f"{theirs:.6g}" else ".17g"
    return "wrong", f"{where} the first wrong entry is {index}: got {ours:{digits}}, expected {theirs:{digits}}."


def lettered(shape: Sequence[int], sizes: dict[str, int]) -> str:
    """Name a shape by the letters of its sizes: (B, O)."""
    letters = {size: letter for letter, size in reversed(sizes.items())}
    return f"({', '.join(letters.get(size, str(size)) for size in shape)}{',' * (len(shape) == 1)})"


def same_shape(ours: Tensor, theirs: Tensor) -> bool:
    """Tell whether the numbers of two results can be compared one by one."""
    return ours.shape == theirs.shape and ours.layout == theirs.layout and ours.device == theirs.device


def equal(ours: Tensor, theirs: Tensor) -> bool:
    """Tell whether two results have the same shape and, up to rounding, the same numbers; False for NaN."""
    if not same_shape(ours, theirs):
        return False
    bound = TOLERANCES[theirs.dtype] * float(theirs.abs().max())
    return bool((ours.to(theirs.dtype) - theirs).abs().max() <= bound)


def first_wrong(ours: Tensor, right: Tensor) -> tuple[list[int], float, float]:
    """Return the index of the first wrong number, the number, and the right one."""
    apart = (ours - right).abs()
    wrong = ~(apart <= TOLERANCES[right.dtype] * right.abs().max())  # NaN is wrong
    index = [int(number) for number in wrong.nonzero()[0]]
    return index, float(ours[tuple(index)]), float(right[tuple(index)])


def recognized(name: str, phi: Activation, cases: Sequence[Case], outcomes: Sequence[Any]) -> str | None:
    """Return the first mistake that gives the student's outcomes in every case of random numbers; None if none does."""
    small = [pair for pair in zip(cases, outcomes, strict=True) if pair[0].name != "MNIST"]
    computed = [(result, case.right[name]) for case, result in small if isinstance(result, Tensor)]
    if all(equal(result, right) for result, right in computed):  # errors alone, or a wrong dtype
        return None
    for told, mistake in mistakes_of(name, phi).items():
        if all(repeats(mistake, name, case, result) for case, result in small):
            return told
    top = int(computed[0][1].abs().argmax())
    factor = float(computed[0][0].flatten()[top] / computed[0][1].flatten()[top]) if same_shape(*computed[0]) else 0.0
    multiple = factor and all(equal(result, factor * right) for result, right in computed)
    return f"every number is {factor:.6g} times the right one" if multiple else None


def repeats(mistake: Callable[..., Tensor], name: str, case: Case, result: Any) -> bool:
    """Tell whether a mistake gives the same outcome: the same numbers, or an error."""
    try:
        made = mistake(*(case.values[key] for key in ARGUMENTS[name]))
    except (RuntimeError, IndexError):
        return isinstance(result, BaseException)
    return isinstance(result, Tensor) and equal(result, made)


def printed(name: str, case: Case, result: Any) -> list[str]:
    """Print a small case in full: arguments, the right result, and the student's."""
    shown = {key: case.values[key] for key in ARGUMENTS[name]} | {"right": case.right[name]}
    shown |= {"yours": result} if isinstance(result, Tensor) else {}
    if any(isinstance(value, Tensor) and value.numel() > FEW for value in shown.values()):
        return []
    return [f"  {key} = {numbered(value, len(key) + 5)}" for key, value in shown.items()]


def numbered(value: Any, indent: int) -> str:
    """Write a tensor's numbers to four digits, a row per line."""
    if not isinstance(value, Tensor):
        return str(value)
    numbers = np.array(value.to_dense().tolist(), dtype=float)
    form, before = "{:7.4f}".format, " " * indent
    text = np.array2string(numbers, 1000, separator=", ", prefix=before, formatter={"float_kind": form})
    return text.strip().replace("\n\n", "\n")
