"""Run timm's test file with formery's models in the place of timm's list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.families import families

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
QUIET = "ignore::pytest.PytestUnknownMarkWarning"
LEFT_OUT = {
    "inference or pretrained": "need downloads",
    "naflex or gemma or regnetx": "are about single models of timm's",
    "torchscript": "TorchScript is deprecated by torch; torch.export and ONNX take its place",
    "fx": "symbolic tracing by torch.fx is not supported; torch.compile and torch.export are",
    "t2t and test_model_backward": "wants a gradient for every parameter; random features and sines are frozen ones",
    "uniformer_xxs and test_model_backward": "the class token's classifier is frozen until both outputs are asked for",
}
"""pytest's expressions of tests that are not run, and why."""


def main(file: Path, names: list[str], options: list[str]) -> int:
    if not file.is_file():
        print(f"{file} does not exist; see {HERE.name}/__init__.py", file=sys.stderr)
        return 2
    names = names or families()
    for expression, reason in LEFT_OUT.items():
        print(f"left out: {expression}: {reason}")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(file, Path(folder) / "test_models.py")
        shutil.copyfile(HERE / "sample.py", Path(folder) / "conftest.py")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "FORMERY_SAMPLE": " ".join(names)}
        chosen = " and ".join(f"not ({expression})" for expression in LEFT_OUT)
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-W", QUIET, "-k", chosen]
        return subprocess.run([*command, "test_models.py", *options], cwd=folder, env=env, check=False).returncode


if __name__ == "__main__":
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    if not cut:
        sys.exit(f"python -m tests.peers.{HERE.name} FILE [NAME ...]")
    sys.exit(main(Path(given[0]), given[1:cut], given[cut + 1 :]))
