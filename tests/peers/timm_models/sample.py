"""A conftest beside timm's test file: timm lists formery's models, and nothing else."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from typing import Any

import tests.tvshim  # noqa: F401 # isort: skip # before timm

import timm
import timm.models

from formery.interop.timm import PREFIX

SAMPLE = [PREFIX + name for name in os.environ["FORMERY_SAMPLE"].split()]
TOKENS = ("cct_*", "cvt_*", "t2t_*")
"""Models of ours whose features are tokens and no maps, as are those that timm's own patterns name."""
SEVERAL = ("crossvit_*", "cvt_2_*", "cct_2_*", "vit_lite_2_*")
"""Models whose features are several tensors, which timm leaves out of its list of modules too, or that have but two
blocks, where timm's tests want three maps."""


def list_models(
    filter: Any = "", *, module: Any = "", exclude_filters: Any = "", pretrained: bool = False, **_: Any
) -> list[str]:
    """timm's function, over the sample. Patterns look at names without our prefix; modules let most models through."""
    if pretrained:
        return []
    wanted, refused = _patterns(filter), _patterns(exclude_filters)
    names = [name for name in SAMPLE if not wanted or _fits(name, wanted)]
    names = [name for name in names if not _fits(name, refused)]
    return [name for name in names if not _fits(name, SEVERAL)] if module else names


def _patterns(given: Any) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) and given else tuple(given)
    return (*found, *TOKENS) if "vit_*" in found else found  # timm's list of models without maps


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name.removeprefix(PREFIX), pattern) for pattern in patterns)


timm.list_models = list_models
timm.models.list_models = list_models
timm.list_pretrained = lambda *_, **__: []
