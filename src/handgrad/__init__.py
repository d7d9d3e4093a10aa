"""Backpropagation derived by hand, proved correct, and benchmarked against autograd."""
