"""What the registry's classes say of themselves, read from their source without importing them (or torch)."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def _tree(module: str) -> ast.Module | None:
    package, _, _ = module.partition(".")
    root = find_spec(package)
    if root is None or root.origin is None:
        return None
    path = Path(root.origin).parent.joinpath(*module.split(".")[1:])
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else None


def summary(target: str) -> str:
    """The first line of the docstring of `module:Class`'s module, which says what the idea is and where it is from."""
    module, _, member = target.partition(":")
    tree = _tree(module)
    if tree is None:
        return ""
    own = next((n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == member), None)
    text = ast.get_docstring(tree) or (ast.get_docstring(own) if own else None) or ""
    return " ".join(text.split("\n\n")[0].split())
