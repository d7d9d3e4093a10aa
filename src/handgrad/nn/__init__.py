"""The mathematics, read this first: activations, losses, backprop, mlp, optimizers, gradcheck. Needs only torch."""
