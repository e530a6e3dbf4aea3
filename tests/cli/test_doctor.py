from __future__ import annotations

from collections.abc import Callable

import pytest

from formery.cli import doctor
from tests.cli.conftest import Answer

Ask = Callable[..., Answer]


def test_every_library_of_every_extra_is_looked_up(ask: Ask) -> None:
    facts = ask("doctor", "--json").json
    rows = {row["library"]: row for row in facts["libraries"]}
    assert rows["torch"]["state"] == "ok"
    assert rows["onnxruntime"]["extra"] == "export"
    assert {row["extra"] for row in rows.values()} == set(doctor.ADDS)
    assert facts["machine"]["cores"] >= 1


def test_what_is_missing_comes_with_its_pip_line(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    gone = {"timm": None, "onnx": "0.1", "mkdocs-material": None, "mkdocstrings": None}  # docs need not be there
    monkeypatch.setattr(doctor, "_version", lambda name: gone.get(name, real(name)))
    out = ask("doctor").out
    assert "pip install --upgrade 'formery[export,timm]'" in out
    assert "too old" in out
    facts = ask("doctor", "--json").json
    assert {row["library"] for row in facts["libraries"] if row["state"] != "ok"} == set(gone)
    gone["rich"] = None
    assert "pip install --upgrade formery" in ask("doctor").out.splitlines()[-1]


def test_a_library_that_does_not_import_is_said(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        if name == "onnx":
            raise OSError("libnosuch.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", broken)
    rows = {row["library"]: row["state"] for row in ask("doctor", "--import", "--json").json["libraries"]}
    assert "libnosuch.so" in rows["onnx"]
    assert rows["torch"] == "ok"
