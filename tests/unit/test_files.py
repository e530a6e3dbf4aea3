"""Outputs are whole or absent, and never at the cost of somebody's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from formery.data.drawn import write_textures
from formery.errors import BadFile, Unwritable
from formery.files import atomic, read_json, write_text


def test_a_folder_with_files_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    (home / "letters" / "dear.txt").write_text("dear")
    with pytest.raises(Unwritable, match="it is a folder with files in it; choose another place") as caught:
        write_textures(home, 2, size=8)
    assert "\n" not in str(caught.value)
    with pytest.raises(Unwritable, match="it is a folder with files in it"):
        write_text(home, "text")
    assert [p.name for p in tmp_path.rglob("*")] == ["home", "letters", "dear.txt"]


def test_a_folder_that_fills_up_meanwhile_is_kept(tmp_path: Path) -> None:
    def write() -> None:
        with atomic(tmp_path / "out") as temporary:
            temporary.mkdir()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "other").write_text("another program's")

    with pytest.raises(Unwritable):
        write()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "other"]


def test_an_empty_folder_and_an_older_file_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert len(list(write_textures(tmp_path / "images", 2, size=8).rglob("*.png"))) > 0
    for text in ("old", "new"):
        write_text(tmp_path / "text", text)
    assert (tmp_path / "text").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "text"]


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5000], ids=["open", "deep", "long"])
def test_json_that_cannot_be_read_is_a_bad_file(text: str, tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", text)
    with pytest.raises(BadFile) as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
