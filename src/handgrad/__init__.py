"""Backpropagation derived by hand, proved right, and raced against autograd."""
