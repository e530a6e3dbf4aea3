"""Every token mixer that is registered keeps what it declares."""

from __future__ import annotations

from tests.contract import mixer_streams  # noqa: F401  (adds its promises)
from tests.contract.mixers import MIXERS
from tests.contract.subjects import Promise, Subject, classes, subjects_of

SUBJECTS = [subject for part in classes("mixer") for subject in subjects_of(part)]


@MIXERS.parametrize(SUBJECTS)
def test_mixer(promise: Promise, subject: Subject) -> None:
    promise.check(subject)


def test_every_mixer_is_checked_on_some_grid() -> None:
    assert {subject.part for subject in SUBJECTS} == set(classes("mixer"))


def test_every_promise_is_checked_on_some_mixer() -> None:
    assert {promise.check for promise, _ in MIXERS.pairs(SUBJECTS)} == {promise.check for promise in MIXERS}
