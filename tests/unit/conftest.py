"""Models of images and of text as a training leaves them: untrained, with what they say of their data and task."""

from __future__ import annotations

import pytest
import torch

import formery
from formery.data import ImageData, open_data
from formery.tasks import task_of

IMAGE = {
    "stem": {"kind": "patches", "dim": 8, "size": 2, "in_chans": 1, "img_size": 8},
    "body": {"kind": "stack", "layout": "depthwise_conv pooling", "channel": "mlp"},
    "head": {"kind": "classes", "num_classes": 10},
}
TEXT = {
    "stem": {"kind": "tokens", "dim": 16, "vocab": 256},
    "body": {"kind": "stack", "layout": "gated_deltanet attention", "channel": "mlp"},
    "head": {"kind": "next_token", "vocab": 256},
}


@pytest.fixture(scope="module")
def digits() -> ImageData:
    """Grey images of 8 by 8 pixels in ten classes."""
    found = open_data("digits")
    assert isinstance(found, ImageData)
    return found


@pytest.fixture(scope="module")
def model(digits: ImageData) -> formery.Model:
    """Classifies the digits."""
    torch.manual_seed(0)
    made = formery.Model(IMAGE).eval()
    made.extra = task_of("classify").extra(digits)
    return made


@pytest.fixture(scope="module")
def text_model() -> formery.Model:
    """Reads bytes in windows of 16."""
    torch.manual_seed(0)
    made = formery.Model(TEXT).eval()
    made.extra = {"task": {"kind": "language", "length": 16}, "tokens": "bytes"}
    return made
