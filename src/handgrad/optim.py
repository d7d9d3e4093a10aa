"""The notebook's update as what it is: SGD with two learning rates."""

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import SGD


def notebook_sgd(named_parameters: Iterable[tuple[str, Parameter]], lr: float, batch_size: int) -> SGD:
    """SGD whose weights move by lr times the batch's sum and biases by lr times its mean, as in the notebook.

        W <- W - lr * B * dLoss/dW,   b <- b - lr * dLoss/db        (20)

    The gradient is of the mean loss, so the sum over a batch of B is a learning rate of lr * B.

    Args:
        named_parameters: (name, parameter) pairs; names end in ".weight" or ".bias".
        lr: the notebook's eta, 0.01.
        batch_size: B, 64 in the notebook.
    """
    named = list(named_parameters)
    weights = [pair for pair in named if pair[0].endswith("weight")]
    biases = [pair for pair in named if pair[0].endswith("bias")]
    return SGD(
        [
            {"params": weights, "lr": lr * batch_size, "name": "weights"},
            {"params": biases, "lr": lr, "name": "biases"},
        ],
        fused=True,
    )
