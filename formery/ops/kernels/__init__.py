"""Triton kernels of the recurrences, and what launches them. They need triton, so forms import them when they are used.

`device` holds the kernels, the files beside it what calls them on tensors. A tensor reaches a kernel as `Rows`: a
pointer with the strides of batch, token and head; the last axis is contiguous.
"""
