"""Tensor functions, no modules: a file an operation, with its reference and its fast forms."""
