"""Importing what imports torchvision, where torchvision was built for another torch.

timm, transformers and torchmetrics (hence lightning) import torchvision wherever it is installed. A torchvision whose
compiled operators do not load beside this torch (a CUDA build beside a CPU torch, two releases that do not match) then
fails at import: it describes the shapes of operators that do not exist. Nothing that formery uses needs those
operators, so they are declared without an implementation: importing works, and calling one of them still fails.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a declaration lasts as long as its library object


def declare_missing_operators() -> list[str]:
    """Declare the operators that importing torchvision looks for and this installation lacks; their names.

    Call it before importing timm, transformers, torchmetrics or lightning. It does nothing, and says so by an empty
    list, where torchvision is absent or works, and when called again.
    """
    found = find_spec("torchvision")
    if found is None:
        return []
    for folder in found.submodule_search_locations or ():
        for library in sorted((*Path(folder).glob("_C*.so"), *Path(folder).glob("_C*.pyd"))):
            try:
                torch.ops.load_library(str(library))
            except OSError:  # built for another torch: the case this is for
                continue
    missing = [name for name in _OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        declarations = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            declarations.define(name + _OPERATORS[name])
        _declared.append(declarations)
    return missing
