"""Forward and backward pass of a multilayer perceptron, derived by hand.

Pure functions of tensors. With a_0 = x and layers l = 1 ... L:

    z_l      = a_(l-1) @ W_l.T + b_l                                (1)
    a_l      = phi(z_l)              for l < L                      (2)
    delta_L  = (p - y) / B                                          (BP1, 5)
    delta_l  = (delta_(l+1) @ W_(l+1)) * phi'(z_l)                  (BP2, 6)
    dLoss/db_l = sum of delta_l over the batch                      (BP3, 7)
    dLoss/dW_l = delta_l.T @ a_(l-1)                                (BP4, 8)

All of it broadcasts over a dimension in front: inputs (S, B, I) of S networks with weights (S, O, I) and biases (S, O)
give (S, B, O), each network's numbers what they would be alone.

No autograd graph is recorded anywhere. Products are computed as their transposes, `(W @ a.mT).mT` for `a @ W.T`: then a
unit's B values lie side by side in memory, which a CPU multiplies faster (docs/scaling.md). Equation numbers:
docs/derivation.md.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.nn.activations import Activation
from handgrad.nn.losses import cross_entropy, cross_entropy_delta, log_softmax


class ForwardPass(NamedTuple):
    """What the backward pass needs to remember, from the input on.

    zs: L pre-activations, z_1 ... z_L, each (B, O); the last are the logits.
    inputs: L inputs of the layers, a_0 = x ... a_(L-1), each (B, I).
    slopes: L - 1 derivatives of the activation, phi'(z_1) ... phi'(z_(L-1)), each (B, O); none unless asked for.
    """

    zs: list[Tensor]
    inputs: list[Tensor]
    slopes: list[Tensor]

    @property
    def logits(self) -> Tensor:
        """(B, C) pre-activations of the output layer."""
        return self.zs[-1]


class FactoredGradient(NamedTuple):
    """A layer's gradient in factored form: the weight gradient is delta.T @ input, not multiplied out.

    delta: (B, O) dLoss/dz of the layer.
    input: (B, I) the layer's input.
    """

    delta: Tensor
    input: Tensor

    def weight(self) -> Tensor:
        """(O, I) dLoss/dW = delta.T @ input.   (BP4, 8)"""
        return self.delta.mT @ self.input

    def bias(self) -> Tensor:
        """(O,) dLoss/db = sum of delta over the batch.   (BP3, 7)"""
        return self.delta.sum(dim=-2)

    def squared_norm(self, weight: Tensor, decay: float) -> Tensor:
        """() squared length of the layer's gradient, bias and the penalty's decay * W included.   (22, 23)

        The weight gradient is not multiplied out: two (B, B) products take its place.

        Args:
            weight: (O, I) the layer's weights.
            decay: c where the penalty's gradient is c * W.
        """
        squares = ((self.delta @ self.delta.T) * (self.input @ self.input.T)).sum()
        if decay:
            along = (self.delta * (self.input @ weight.T)).sum()
            squares = squares + 2 * decay * along + decay**2 * weight.square().sum()
        return squares + self.bias().square().sum()


class LossAndGradients(NamedTuple):
    """What a batch gives a training step.

    loss: () mean cross-entropy in nats per example, without the penalty.
    forward: pass that led to it.
    gradients: L gradients in factored form, from the input on; a penalty's gradient is not in them.
    """

    loss: Tensor
    forward: ForwardPass
    gradients: list[FactoredGradient]


@torch.no_grad()
def loss_and_gradients(
    x: Tensor,
    y: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    phi: Activation,
    *,
    examples: int | None = None,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> LossAndGradients:
    """Run a batch forward and backward: one step of the algorithm, all four equations.   (1 to 8)

    Args:
        x: (B, I) inputs.
        y: (B, C) targets, each row with sum 1.
        weights: L matrices, each (O, I).
        biases: L vectors, each (O,).
        phi: activation of every layer but the last.
        examples: of the whole batch, where these are a part of it; None for B.
        scale: multiplies the output delta, so that small numbers survive float16; the gradients are scaled likewise.

    Returns:
        loss, forward pass and gradients.
    """
    passed = forward(x, weights, biases, phi, slopes=True)
    log_p = log_softmax(passed.logits)
    y = y.to(log_p.dtype)
    delta = cross_entropy_delta(log_p, y, examples)
    if scale is not None:
        delta = scale(delta)
    gradients = backward(delta.to(passed.logits.dtype), passed, weights)
    return LossAndGradients(cross_entropy(log_p, y, examples), passed, gradients)


def accumulate(batches: Sequence[Sequence[FactoredGradient]], divisor: int) -> list[FactoredGradient]:
    """Sum the gradients of several batches over a divisor: the product of the stacked factors.   (24)

    Args:
        batches: of every batch, its layers' gradients from the input on.
        divisor: how many batches a step is meant to have.

    Returns:
        L gradients, from the input on, of (sum of B) examples each.
    """
    return [
        FactoredGradient(torch.cat([each.delta for each in layer]) / divisor, torch.cat([each.input for each in layer]))
        for layer in zip(*batches, strict=True)
    ]


@torch.no_grad()
def forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], phi: Activation, slopes: bool = False
) -> ForwardPass:
    """Run a batch through the network.   (1, 2)

    Args:
        x: (B, I) inputs.
        weights: L matrices, each (O, I).
        biases: L vectors, each (O,).
        phi: activation of every layer but the last.
        slopes: keep phi'(z) of every layer beside phi(z), for a backward pass.

    Returns:
        pre-activations and inputs of every layer.
    """
    passed = ForwardPass([], [x], [])
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        z = pre_activation(passed.inputs[-1], weight, bias)  # (B, O)
        a = phi(z)
        passed.zs.append(z)
        passed.inputs.append(a)
        if slopes:
            passed.slopes.append(phi.derivative(z, a))
    passed.zs.append(pre_activation(passed.inputs[-1], weights[-1], biases[-1]))  # (B, C)
    return passed


def pre_activation(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Weigh and shift a layer's input.

        z = a @ W.T + b                                             (1)

    Args:
        a: (B, I) the layer's input.
        weight: (O, I) its weights.
        bias: (O,) its biases.

    Returns:
        (B, O) pre-activations.
    """
    shifted_product = torch.addmm if weight.dim() == 2 else torch.baddbmm  # rounded once, of one network or of several
    return shifted_product(bias[..., None], weight, a.mT).mT


def hidden_delta(delta_next: Tensor, weight_next: Tensor, derivative: Tensor) -> Tensor:
    """Propagate the error one layer back.

        delta = (delta_next @ W_next) * phi'(z)                     (BP2, 6)

    Args:
        delta_next: (B, O) dLoss/dz of the layer above, already divided by B.
        weight_next: (O, I) weights of the layer above.
        derivative: (B, I) phi'(z) of this layer.

    Returns:
        (B, I) dLoss/dz of this layer.

    Source: Nielsen, Neural Networks and Deep Learning, ch. 2, BP2.
    """
    return (weight_next.mT @ delta_next.mT).mT.mul_(derivative)


@torch.no_grad()
def backward(output_delta: Tensor, passed: ForwardPass, weights: Sequence[Tensor]) -> list[FactoredGradient]:
    """Propagate the output layer's delta back to the first layer.   (6, 7, 8)

    Args:
        output_delta: (B, C) dLoss/dz of the output layer, e.g. `loss.cross_entropy_delta`.
        passed: what `forward` returned for the same weights, slopes included.
        weights: L matrices, each (O, I).

    Returns:
        L gradients in factored form, from the input on; a penalty's gradient is not in them.
    """
    delta = output_delta
    gradients = [FactoredGradient(delta, passed.inputs[-1])]
    for layer in range(len(weights) - 2, -1, -1):
        delta = hidden_delta(delta, weights[layer + 1], passed.slopes[layer])
        gradients.append(FactoredGradient(delta, passed.inputs[layer]))
    return gradients[::-1]
