"""Tensor functions without modules: each operation with its definition (`reference`), fast forms and their choice."""
