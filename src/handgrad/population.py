"""Several networks of one shape that learn in one tensor, each from its own batches and at its own rate."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from handgrad import backprop, loss
from handgrad.activation import Activation
from handgrad.backprop import LayerGradient
from handgrad.data import Batch
from handgrad.network import MLP
from handgrad.optim import adam_step


class Lesson(NamedTuple):
    """What one network is to learn from.

    network: the parameters, which are moved.
    optimizer: its state is kept as if it had taken the steps itself: SGD's or Adam's.
    activation: phi of every hidden layer.
    decay: c where the penalty's gradient is c * W.
    batches: K of them.
    rates: of each step, that of the weights and that of the biases.
    """

    network: MLP
    optimizer: Optimizer
    activation: Activation
    decay: float
    batches: Sequence[Batch]
    rates: Sequence[tuple[float, float]]

    @property
    def sizes(self) -> list[int]:
        """Examples of every batch."""
        return [len(x) for x, _ in self.batches]


def learn(lessons: Sequence[Lesson]) -> list[list[Tensor]]:
    """Let every network learn from its batches, those with batches of the same sizes at once.

    Args:
        lessons: of networks with the same layers, activation and kind of optimizer.

    Returns:
        of every network, () mean cross-entropy of each of its batches, before its step.
    """
    order = sorted(range(len(lessons)), key=lambda number: lessons[number].sizes)
    losses: list[list[Tensor]] = [[] for _ in lessons]
    for _, numbers in groupby(order, key=lambda number: lessons[number].sizes):
        these = list(numbers)
        for number, its in zip(these, at_once([lessons[number] for number in these]).unbind(dim=1), strict=True):
            losses[number] = list(its)
    return losses


@torch.no_grad()
def at_once(lessons: Sequence[Lesson]) -> Tensor:
    """Take K steps of S networks.

    Returns:
        (K, S) losses.
    """
    layers = list(zip(*(lesson.network.linear for lesson in lessons), strict=True))
    weights = [torch.stack([linear.weight for linear in layer]) for layer in layers]  # each (S, O, I)
    biases = [torch.stack([linear.bias for linear in layer]) for layer in layers]  # each (S, O)
    phi = lessons[0].activation
    move = ByAdam(lessons) if isinstance(lessons[0].optimizer, Adam) else ByRate(lessons)
    losses = []
    for step in range(len(lessons[0].batches)):
        x, y = (torch.stack(parts) for parts in zip(*(lesson.batches[step] for lesson in lessons), strict=True))
        passed = backprop.forward(x, weights, biases, phi)
        log_p = loss.log_softmax(passed.logits)
        y = y.to(log_p.dtype)
        losses.append(loss.cross_entropy(log_p, y))
        delta = loss.cross_entropy_delta(log_p, y)
        move(step, weights, biases, backprop.backward(delta, passed, weights, phi))
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        for number, linear in enumerate(layer):
            linear.weight.copy_(weight[number])
            linear.bias.copy_(bias[number])
    move.finish()
    return torch.stack(losses)


class ByRate:
    """Moves S networks by SGD, each at its own rates.   (20, 21)

    Args:
        lessons: S of them.
    """

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        parameter = lessons[0].network.weights[0]
        like: dict[str, Any] = {"dtype": parameter.dtype, "device": parameter.device}
        rates = torch.tensor([lesson.rates for lesson in lessons], **like).permute(1, 2, 0)[..., None]
        self.rates = [(of_weights[..., None], of_biases) for of_weights, of_biases in rates]  # (S, 1, 1) and (S, 1)
        self.decay = torch.tensor([lesson.decay for lesson in lessons], **like)[:, None, None]
        self.decays = any(lesson.decay for lesson in lessons)

    def __call__(
        self, step: int, weights: Sequence[Tensor], biases: Sequence[Tensor], gradients: Sequence[LayerGradient]
    ) -> None:
        """Take a step: weights (S, O, I) and biases (S, O) move by gradients without the penalty."""
        of_weights, of_biases = self.rates[step]
        for weight, bias, gradient in zip(weights, biases, gradients, strict=True):
            if self.decays:
                weight.mul_(1 - of_weights * self.decay)
            weight.baddbmm_((gradient.delta * -of_weights).mT, gradient.input)
            bias.sub_(of_biases * gradient.bias())

    def finish(self) -> None:
        """Leave every optimizer as if it had taken the steps itself: SGD remembers nothing."""


class ByAdam(ByRate):
    """Moves S networks by Adam, each at its own rates.   (26)

    Args:
        lessons: S of them; their optimizers hold the moments.
    """

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        super().__init__(lessons)
        self.options = lessons[0].optimizer.param_groups[0]
        self.kept = []  # of every parameter, from the input on, weight before bias: what S optimizers remember
        for layer in zip(*(lesson.network.linear for lesson in lessons), strict=True):
            for name in ("weight", "bias"):
                parameters = [linear.get_parameter(name) for linear in layer]
                states = [lesson.optimizer.state[each] for lesson, each in zip(lessons, parameters, strict=True)]
                for parameter, state in zip(parameters, states, strict=True):
                    if not state:  # as torch's own begins
                        device = parameter.device if self.options["fused"] else None
                        state["step"] = torch.zeros((), dtype=torch.float32, device=device)
                        state |= {moment: torch.zeros_like(parameter) for moment in MOMENTS}
                self.kept.append(states)
        self.steps = torch.stack([state["step"] for state in self.kept[0]]).to(self.decay)[:, None]
        first, second = ([torch.stack([state[name] for state in states]) for states in self.kept] for name in MOMENTS)
        self.moments = list(zip(first, second, strict=True))

    def __call__(
        self, step: int, weights: Sequence[Tensor], biases: Sequence[Tensor], gradients: Sequence[LayerGradient]
    ) -> None:
        self.steps += 1
        of_weights, of_biases = self.rates[step]
        moments = iter(self.moments)
        betas, eps = self.options["betas"], self.options["eps"]
        for weight, bias, gradient in zip(weights, biases, gradients, strict=True):
            whole = gradient.weight()
            if self.decays:
                whole.add_(self.decay * weight)
            adam_step(weight, whole, next(moments), of_weights, self.steps[..., None], betas, eps)
            adam_step(bias, gradient.bias(), next(moments), of_biases, self.steps, betas, eps)

    def finish(self) -> None:
        for states, moments in zip(self.kept, self.moments, strict=True):
            for number, state in enumerate(states):
                state["step"].fill_(float(self.steps[number]))
                for name, moment in zip(MOMENTS, moments, strict=True):
                    state[name].copy_(moment[number])


MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names in Adam's state
