"""What every test runs under: one thread, seeded, its own cache folder; and memory poisoned by NaN where asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch.utils._device import _device_constructors

from formery.interop.torchvision import declare_missing_operators

settings.register_profile("formery", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("formery")


def pytest_configure() -> None:
    """Before anything is collected: no network, one thread a worker, and timm and lightning can be imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    declare_missing_operators()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this session, for subprocesses too: nothing of the user's is read or written."""
    folder = tmp_path_factory.mktemp("formery_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORMERY_CACHE", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MPLBACKEND", "Agg")
        yield folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is NaN: what is read before it is written shows in the result."""

    def poison(make):  # type: ignore[no-untyped-def]
        def made(*args, **kwargs):  # type: ignore[no-untyped-def]
            tensor = make(*args, **kwargs)
            if tensor.is_floating_point() and not tensor.is_meta:
                with torch.no_grad():
                    tensor.fill_(torch.nan)
            return tensor

        return made

    _device_constructors()  # torch remembers which functions obey `with torch.device(...)`: the true ones, not these
    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(torch.Tensor, name, poison(getattr(torch.Tensor, name)))
