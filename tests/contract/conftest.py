"""What every contract test runs under: fresh memory is NaN, and nothing is skipped."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True)
def _poisoned_memory(poisoned: None) -> None:
    """What a part reads before it wrote it shows."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What does not apply is not collected: a contract test that skips itself has failed."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
    return report
