"""What a result was obtained with and on: versions of libraries, and the machine."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..host import cores, processor
from ..saving import formery_version

LIBRARIES = ("torch", "lightning", "torchmetrics", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of Python, of formery and of the libraries whose numbers may differ."""
    found = {"python": platform.python_version(), "formery": formery_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use, operating system, and accelerators."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "devices": devices,
    }
