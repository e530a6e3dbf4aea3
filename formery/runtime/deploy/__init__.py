"""From a trained image model to what serves it fastest here: exact rewrites first, then forms, each checked on images.

report = deploy(model, "served", forms=("eager", "packed", "bfloat16", "onnx"))
run = opened("served")
scores = run(images)
"""

from __future__ import annotations

from .forms import FORMS, Form, forms_of
from .opening import opened
from .run import DeployReport, deploy

__all__ = ["FORMS", "DeployReport", "Form", "deploy", "forms_of", "opened"]
