"""Contracts hold on poisoned memory."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _on_poisoned_memory(poisoned: None) -> None:
    """Every contract test runs with fresh memory full of NaN."""
