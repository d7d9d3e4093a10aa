"""Common mistakes in backpropagation by hand, each as a function with the arguments of the right one."""

from collections.abc import Callable

import torch
from torch import Tensor

from handgrad.nn.activations import GELU, Activation, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh

Mistake = Callable[..., Tensor]
ARGUMENTS = {  # of every function, by name
    "phi": ("z",),
    "derivative": ("z", "a"),
    "output_delta": ("p", "y"),
    "hidden_delta": ("delta_next", "weight_next", "slope"),
    "bias_gradient": ("delta",),
    "weight_gradient": ("delta", "a"),
    "update": ("parameter", "gradient", "lr"),
}
ACTIVATIONS = (Sigmoid(), Tanh(), ReLU(), LeakyReLU(), SiLU(), GELU(), Softplus())
MISTAKES: dict[str, dict[str, Mistake]] = {
    "output_delta": {
        "not divided by B": lambda p, y: p - y,
        "y - p in place of p - y": lambda p, y: (y - p) / len(p),
        "y - p in place of p - y, and not divided by B": lambda p, y: y - p,
        "divided by B twice": lambda p, y: (p - y) / len(p) ** 2,
        "divided by C in place of B": lambda p, y: (p - y) / p.shape[1],
        "divided by B and by C: the mean over all numbers": lambda p, y: (p - y) / p.numel(),
        "y left out": lambda p, y: p / len(p),
        "divided by p: the derivative with respect to p, not to the logits": lambda p, y: -y / p / len(p),
        "times p (1 - p): the delta of another loss": lambda p, y: (p - y) * p * (1 - p) / len(p),
        "times p (1 - p), the delta of another loss, and not divided by B": lambda p, y: (p - y) * p * (1 - p),
        "summed over the batch": lambda p, y: (p - y).sum(0) / len(p),
        "summed over the classes": lambda p, y: (p - y).sum(1) / len(p),
        "broadcast into (B, B)": lambda p, y: (p.sum(1) - y.sum(1)[:, None]) / len(p),
        "multiplied into (B, B)": lambda p, y: p @ y.T,
    },
    "hidden_delta": {
        "phi' left out": lambda delta, w, slope: delta @ w,
        "the sign is flipped": lambda delta, w, slope: -(delta @ w) * slope,
        "W is transposed": lambda delta, w, slope: (delta @ w.T) * slope,
        "W is transposed, and phi' left out": lambda delta, w, slope: delta @ w.T,
        "phi' added in place of multiplied": lambda delta, w, slope: delta @ w + slope,
        "divided by B again": lambda delta, w, slope: (delta @ w) * slope / len(delta),
        "multiplied by B": lambda delta, w, slope: (delta @ w) * slope * len(delta),
        "the result is transposed": lambda delta, w, slope: ((delta @ w) * slope).T,
        "summed over the batch": lambda delta, w, slope: ((delta @ w) * slope).sum(0),
        "phi' multiplied twice": lambda delta, w, slope: (delta @ w) * slope**2,
        "divided by phi'": lambda delta, w, slope: (delta @ w) / slope,
        "phi' averaged over the batch": lambda delta, w, slope: (delta @ w) * slope.mean(0),
        "W left out": lambda delta, w, slope: delta.sum(1, keepdim=True) * slope,
        "W multiplied elementwise": lambda delta, w, slope: delta * w * slope,
        "phi' multiplied as a matrix": lambda delta, w, slope: (delta @ w) @ slope.T,
        "broadcast into (B, B)": lambda delta, w, slope: (delta @ w).sum(1) * slope.sum(1)[:, None],
    },
    "bias_gradient": {
        "mean in place of sum": lambda delta: delta.mean(0),
        "summed over the wrong axis": lambda delta: delta.sum(1),
        "summed over both axes": lambda delta: delta.sum(),
        "mean over the wrong axis": lambda delta: delta.mean(1),
        "mean over both axes": lambda delta: delta.mean(),
        "not summed over the batch": lambda delta: delta,
        "the axis of the batch is kept": lambda delta: delta.sum(0, keepdim=True),
        "summed over the wrong axis, which is kept": lambda delta: delta.sum(1, keepdim=True),
        "a column in place of a vector": lambda delta: delta.sum(0)[:, None],
        "the sign is flipped": lambda delta: -delta.sum(0),
        "multiplied by B": lambda delta: delta.sum(0) * len(delta),
        "only the last example": lambda delta: delta[-1],
        "the first example alone": lambda delta: delta[0],
        "broadcast into (B, B)": lambda delta: delta.sum(1) + delta.sum(1)[:, None],
    },
    "weight_gradient": {
        "transposed": lambda delta, a: a.T @ delta,
        "divided by B again (mean in place of sum)": lambda delta, a: delta.T @ a / len(a),
        "transposed, and divided by B again": lambda delta, a: a.T @ delta / len(a),
        "the sign is flipped": lambda delta, a: -(delta.T @ a),
        "transposed, and the sign is flipped": lambda delta, a: -(a.T @ delta),
        "multiplied by B": lambda delta, a: delta.T @ a * len(a),
        "summed over the wrong axis": lambda delta, a: delta @ a.T,
        "summed over the wrong axis, no transpose": lambda delta, a: delta @ a,
        "multiplied elementwise": lambda delta, a: delta * a,
        "not summed over the batch": lambda delta, a: delta[:, :, None] * a[:, None, :],
        "the product of two sums in place of the sum of products": lambda delta, a: delta.sum(0)[:, None] * a.sum(0),
        "only the last example": lambda delta, a: delta[-1][:, None] * a[-1],
        "the first example alone": lambda delta, a: delta[0][:, None] * a[0],
        "delta left out": lambda delta, a: a.sum(0).expand(delta.shape[1], -1),
    },
    "update": {
        "the wrong direction: + in place of -": lambda w, g, lr: w + lr * g,
        "the learning rate left out": lambda w, g, lr: w - g,
        "the learning rate left out, and + in place of -": lambda w, g, lr: w + g,
        "the step alone, without the parameter": lambda w, g, lr: lr * g,
        "the step alone, without the parameter (negative)": lambda w, g, lr: -lr * g,
        "no step: the parameter as it was": lambda w, g, lr: w,
        "0.1 in place of the learning rate": lambda w, g, lr: w - 0.1 * g,
        "0.01 in place of the learning rate": lambda w, g, lr: w - 0.01 * g,
        "divided by the learning rate": lambda w, g, lr: w - g / lr,
        "the learning rate multiplied twice": lambda w, g, lr: w - lr * lr * g,
        "the learning rate multiplies the parameter too": lambda w, g, lr: lr * (w - g),
        "the sign of the whole is flipped": lambda w, g, lr: lr * g - w,
    },
}


def mistakes_of(name: str, phi: Activation) -> dict[str, Mistake]:
    """Return the common mistakes in one function, by name; those of phi depend on phi."""
    if name == "phi":
        return mistakes_in_phi(phi)
    return mistakes_in_derivative(phi) if name == "derivative" else MISTAKES[name]


def mistakes_in_phi(phi: Activation) -> dict[str, Mistake]:
    """Return mistakes in the activation itself."""
    return {
        "nothing is done: z itself": lambda z: z,
        "phi' in place of phi": lambda z: phi.derivative(z, phi(z)),
        "the sign is flipped": lambda z: -phi(z),
        "phi(-z) in place of phi(z)": lambda z: phi(-z),
        "min in place of max": lambda z: z.clamp(max=0),
        "the absolute value": lambda z: z.abs(),
    } | {f"this is {type(other).__name__}, another activation": other for other in ACTIVATIONS}


def mistakes_in_derivative(phi: Activation) -> dict[str, Mistake]:
    """Return mistakes in the derivative."""

    def of(other: Activation) -> Mistake:
        return lambda z, a: other.derivative(z, other(z))

    return {
        "phi' at a in place of z": lambda z, a: phi.derivative(a, phi(a)),
        "z in place of a in the formula": lambda z, a: phi.derivative(z, z),
        "phi in place of phi'": lambda z, a: phi(z),
        "the sign is flipped": lambda z, a: -phi.derivative(z, a),
        "1 everywhere: phi' left out": lambda z, a: torch.ones_like(z),
        "phi'(0) is the convention's other value": lambda z, a: phi.derivative(z.where(z != 0, 1e-300), a),
        "1 where z < 0, in place of z > 0": lambda z, a: (z < 0).to(z),
        "1 - a alone: a factor or a square is missing": lambda z, a: 1 - a,
    } | {f"the derivative of {type(other).__name__}, another activation": of(other) for other in ACTIVATIONS}
