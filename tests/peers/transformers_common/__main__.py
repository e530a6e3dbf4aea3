"""Put our test case among transformers' own, and run it there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ABSENT = {"generation/test_utils.py": "GenerationTesterMixin", "exporters/test_export.py": "ExportTesterMixin"}
"""Modules that the common tests import, and the class that each would have."""


def main(folder: Path, *options: str) -> int:
    tests = folder / "tests"
    if not (tests / "test_modeling_common.py").is_file():
        print(f"{folder} is no source distribution of transformers; see {HERE.name}/__init__.py", file=sys.stderr)
        return 2
    for name, mixin in ABSENT.items():
        if not (tests / name).is_file():
            _write(tests / name, f"class {mixin}:\n    pass\n")
    ours = tests / "models" / "formery" / "test_modeling_formery.py"
    _write(ours, "")
    shutil.copyfile(HERE / "modeling_formery.py", ours)
    for package in (tests, *(tests / n for n in ("models", "models/formery", "generation", "exporters"))):
        (package / "__init__.py").touch()
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(ours.relative_to(folder))]
    env = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    return subprocess.run([*command, *options], cwd=folder, env=env, check=False).returncode


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]) if len(sys.argv) > 1 else 2)
