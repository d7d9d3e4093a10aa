"""Forward and backward pass of a multilayer perceptron, derived by hand.

Pure functions of tensors. For a_0 = x and layers l = 1 ... L:

    z_l      = a_(l-1) @ W_l.T + b_l                                (1)
    a_l      = phi(z_l)              for l < L                      (2)
    delta_L  = (p - y) / B                                          (BP1, 5)
    delta_l  = (delta_(l+1) @ W_(l+1)) * phi'(z_l)                  (BP2, 6)
    dLoss/db_l = sum of delta_l over the batch                      (BP3, 7)
    dLoss/dW_l = delta_l.T @ a_(l-1)                                (BP4, 8)

Both passes broadcast over a leading dimension of S independent networks: inputs (S, B, I), weights (S, O, I) and
biases (S, O) give (S, B, O).

No autograd graph is recorded. Products are computed transposed, `(W @ a.mT).mT` for `a @ W.T`: this makes the B values
of a unit contiguous in memory, which is faster on a CPU (docs/scaling.md). Equation numbers: docs/derivation.md.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.nn.activations import Activation, is_activation
from handgrad.nn.losses import cross_entropy, cross_entropy_delta, log_softmax
from handgrad.nn.regularizers import dropped


class ForwardPass(NamedTuple):
    """Intermediate values of a forward pass, in layer order.

    zs: L pre-activations, z_1 ... z_L, each (B, O); the last one holds the logits.
    inputs: L layer inputs, a_0 = x ... a_(L-1), each (B, I); with dropout, masked.
    slopes: L - 1 derivatives of the next layer's input by z, phi'(z_1) ... phi'(z_(L-1)), each (B, O); with dropout,
        masked; empty if not requested.
    """

    zs: list[Tensor]
    inputs: list[Tensor]
    slopes: list[Tensor]

    @property
    def logits(self) -> Tensor:
        """(B, C) pre-activations z_L of the output layer."""
        return self.zs[-1]


class FactoredGradient(NamedTuple):
    """Gradient of one layer in factored form: the two factors of the weight gradient delta.T @ input.

    delta: (B, O) dLoss/dz of the layer.
    input: (B, I) input of the layer.
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
        """() squared Euclidean norm of the layer's gradient, including the bias and the penalty's decay * W.   (22, 23)

        Computed from two (B, B) products, without forming the weight gradient.

        Args:
            weight: (O, I) weights of the layer.
            decay: factor c of the penalty's gradient c * W.
        """
        squares = ((self.delta @ self.delta.T) * (self.input @ self.input.T)).sum()
        if decay:
            along = (self.delta * (self.input @ weight.T)).sum()
            squares = squares + 2 * decay * along + decay**2 * weight.square().sum()
        return squares + self.bias().square().sum()


class LossAndGradients(NamedTuple):
    """Loss and gradients of one batch.

    loss: () mean cross-entropy in nats per example, without the penalty.
    forward: the forward pass.
    gradients: L gradients in factored form, in layer order, without the penalty's gradient; fewer than B rows if
        learned examples were skipped.
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
    masks: Sequence[Tensor | None] | None = None,
    skip: float = 0.0,
) -> LossAndGradients:
    """Run the forward and backward pass on a batch.   (1 to 8)

    Args:
        x: (B, I) inputs.
        y: (B, C) targets; each row sums to 1.
        weights: L matrices, each (O, I).
        biases: L vectors, each (O,).
        phi: activation of every layer but the last.
        examples: size of the whole batch if x is only a part of it; None for B.
        scale: loss scaling for float16, applied to the output delta; the returned gradients stay scaled.
        masks: dropout masks of the layers' inputs, see `forward`.
        skip: examples with max |p - y| up to this are left out of the backward pass; of one network only.

    Returns:
        loss, forward pass and gradients.
    """
    passed = forward(x, weights, biases, phi, slopes=True, masks=masks)
    log_p = log_softmax(passed.logits)
    y = y.to(log_p.dtype)
    delta = cross_entropy_delta(log_p, y, examples)
    taken = passed
    if skip:
        taken, delta = without_learned(passed, delta, skip / (examples or len(y)))
    if scale is not None:
        delta = scale(delta)
    gradients = backward(delta.to(passed.logits.dtype), taken, weights)
    return LossAndGradients(cross_entropy(log_p, y, examples), passed, gradients)


def without_learned(passed: ForwardPass, delta: Tensor, least: float) -> tuple[ForwardPass, Tensor]:
    """Leave out the examples whose output delta is nearly zero: selective backpropagation.   (31)

    Args:
        passed: forward pass of B examples, of one network.
        delta: (B, C) dLoss/dz of the output layer.
        least: an example stays if an entry of its delta is larger than this in magnitude.

    Returns:
        forward pass, of the pre-activations only the logits, and deltas of the examples that stay.

    Source: docs/derivation.md, eq. 31; by a percentile of the losses in Jiang et al., Accelerating Deep Learning by
    Focusing on the Biggest Losers, 2019.
    """
    index = (delta.abs().amax(dim=-1) > least).nonzero().squeeze(1)

    def rows(values: Tensor) -> Tensor:
        return values.mT.index_select(1, index).mT  # the B values of a unit stay contiguous

    x, *hidden = passed.inputs
    inputs = [x.index_select(0, index), *map(rows, hidden)]
    return ForwardPass([rows(passed.logits)], inputs, [*map(rows, passed.slopes)]), delta.index_select(0, index)


def accumulate(batches: Sequence[Sequence[FactoredGradient]], divisor: int) -> list[FactoredGradient]:
    """Accumulate gradients over several batches by concatenating their factors along the batch dimension.   (24)

    Args:
        batches: for each batch, the gradients of its layers in layer order.
        divisor: divides the sum: the number of batches in a full step.

    Returns:
        L gradients in layer order, each with the examples of all batches.
    """
    return [
        FactoredGradient(torch.cat([each.delta for each in layer]) / divisor, torch.cat([each.input for each in layer]))
        for layer in zip(*batches, strict=True)
    ]


@torch.no_grad()
def forward(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    phi: Activation,
    slopes: bool = False,
    masks: Sequence[Tensor | None] | None = None,
) -> ForwardPass:
    """Run a batch through the network.   (1, 2), with dropout (28, 29)

    Args:
        x: (B, I) inputs.
        weights: L matrices, each (O, I).
        biases: L vectors, each (O,).
        phi: activation of every layer but the last.
        slopes: also compute phi'(z), which the backward pass needs.
        masks: for each layer's input a dropout mask (B, I), or None for that layer; None: no dropout.

    Returns:
        pre-activations and inputs of every layer, and the slopes if requested.

    Raises:
        ValueError: names the layer whose shapes do not fit.
        TypeError: x is not floating point, or phi has no derivative.
    """
    check_arguments(x, weights, biases, phi)
    first, *others = masks or [None] * len(weights)
    passed = ForwardPass([], [dropped(x, first)], [])
    for weight, bias, mask in zip(weights[:-1], biases[:-1], others, strict=True):
        z = pre_activation(passed.inputs[-1], weight, bias)  # (B, O)
        a = phi(z)
        passed.zs.append(z)
        passed.inputs.append(dropped(a, mask))
        if slopes:
            passed.slopes.append(dropped(phi.derivative(z, a), mask))  # of a, not of the masked a
    passed.zs.append(pre_activation(passed.inputs[-1], weights[-1], biases[-1]))  # (B, C)
    return passed


def check_arguments(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], phi: Activation) -> None:
    """Check that the shapes fit: broadcasting would hide some mistakes.

    Raises:
        ValueError: names the layer whose shapes do not fit.
        TypeError: x is not floating point or of another precision than the weights, or phi has no derivative.
    """
    if not is_activation(phi):
        name = getattr(phi, "__name__", phi)
        raise TypeError(f"phi must be an activation with a derivative, e.g. handgrad.activations.ReLU(), not {name}")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a tensor of floating-point numbers, not {kind}: divide images of bytes by 255")
    if x.dtype != weights[0].dtype:
        raise TypeError(f"x is {x.dtype}, the weights are {weights[0].dtype}: x.to(weights[0].dtype)")
    if len(weights) != len(biases):
        raise ValueError(f"there are {len(weights)} weights and {len(biases)} biases: each layer has one of each")
    if x.dim() != weights[0].dim() or x.shape[-1] != weights[0].shape[-1]:
        expected = f"(B, {weights[0].shape[-1]}), one example per row"
        raise ValueError(f"x has shape {tuple(x.shape)}: W_1 {tuple(weights[0].shape)} takes {expected}")
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        if bias.shape != weight.shape[:-1]:
            shapes = f"b_{number} has shape {tuple(bias.shape)}, W_{number} {tuple(weight.shape)}"
            raise ValueError(f"{shapes}: the bias must be {tuple(weight.shape[:-1])}, one number per unit")
        if number > 1 and weight.shape[-1] != weights[number - 2].shape[-2]:
            before = f"layer {number - 1} has {weights[number - 2].shape[-2]} units"
            raise ValueError(f"W_{number} has shape {tuple(weight.shape)}, but {before}: weights are (outputs, inputs)")


def pre_activation(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the pre-activation of a layer.

        z = a @ W.T + b                                             (1)

    Args:
        a: (B, I) input of the layer.
        weight: (O, I) weights.
        bias: (O,) biases.

    Returns:
        (B, O) pre-activations.
    """
    shifted_product = torch.addmm if weight.dim() == 2 else torch.baddbmm  # fused: rounds once; baddbmm for S networks
    return shifted_product(bias[..., None], weight, a.mT).mT


def hidden_delta(delta_next: Tensor, weight_next: Tensor, derivative: Tensor) -> Tensor:
    """Propagate delta one layer back.

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
        output_delta: (B, C) dLoss/dz of the output layer, e.g. from `losses.cross_entropy_delta`.
        passed: result of `forward` for the same weights, with slopes.
        weights: L matrices, each (O, I).

    Returns:
        L gradients in factored form, in layer order, without the penalty's gradient.

    Raises:
        ValueError: the forward pass has no slopes, or output_delta is not shaped like its logits.
    """
    if len(passed.slopes) != len(weights) - 1:
        raise ValueError("backward needs phi'(z) of every hidden layer: call forward(..., slopes=True)")
    if output_delta.shape != passed.logits.shape:
        raise ValueError(f"output_delta has shape {tuple(output_delta.shape)}, the logits {tuple(passed.logits.shape)}")
    delta = output_delta
    gradients = [FactoredGradient(delta, passed.inputs[-1])]
    for layer in range(len(weights) - 2, -1, -1):
        delta = hidden_delta(delta, weights[layer + 1], passed.slopes[layer])
        gradients.append(FactoredGradient(delta, passed.inputs[layer]))
    return gradients[::-1]


def input_gradient(gradient: FactoredGradient, weight: Tensor, mask: Tensor | None = None) -> Tensor:
    """Propagate the first layer's delta to the inputs.

        dLoss/dx = delta_1 @ W_1, times the inputs' dropout mask if there is one        (26)

    Args:
        gradient: gradient of the first layer.
        weight: (O, I) weights of the first layer.
        mask: (B, I) dropout mask of the inputs.

    Returns:
        (B, I) dLoss/dx.

    Source: Nielsen, ch. 2, BP2 for the inputs, which have no activation and so no factor phi'.
    """
    return dropped((weight.mT @ gradient.delta.mT).mT, mask)
