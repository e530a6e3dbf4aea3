"""A model as a tree: every part, its options, its parameters; runs of equal blocks once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ..saving import blank
from ..spec import MODEL, children, walk

if TYPE_CHECKING:
    from rich.tree import Tree

    from ..model import Model

Member = tuple[str, str, dict[str, Any]]
"""(path, role, resolved node) of a part."""


def nodes(model: Model) -> list[dict[str, Any]]:
    """Path, role, kind and parameters of every part in order; `there` is false for what a rewrite took away."""
    counts = _counts(model)
    return [
        {"path": path, "role": role, "kind": node["kind"], "params": counts.get(path, 0), "there": path in counts}
        for path, role, node in walk(model.resolved)
    ]


def tree(model: Model, total: int) -> Tree:
    """The tree for a terminal."""
    from rich.tree import Tree

    made = Tree(f"[bold]{escape(model.name)}[/bold]  {total:,} parameters{_rewrites(model)}")
    counts = _counts(model)
    for key, role in MODEL.items():
        _grow(made, (key, role, model.resolved[key]), counts)
    return made


def _rewrites(model: Model) -> str:
    """What was done to the model since it was built, in words."""
    times = Counter(plan["kind"] for plan in model.plans)
    done = [kind if number == 1 else f"{kind} ({number} times)" for kind, number in times.items()]
    return f", rewritten by {', '.join(done)}" if done else ""


def _counts(model: Model) -> dict[str, int]:
    """Parameters below every module; nodes of the spec without a module of their own have none, and what a rewrite
    took away is not there."""
    there = {path: sum(p.numel() for p in module.parameters()) for path, module in model.named_modules()}
    if not model.plans:
        at_first = set(there)
    else:
        with blank():
            at_first = {path for path, _ in type(model)(model.resolved).named_modules()}
    without = {path: 0 for path, _, _ in walk(model.resolved) if path not in at_first}
    return without | there


def _grow(branch: Tree, member: Member, counts: dict[str, int]) -> None:
    path, role, node = member
    below = branch.add(_label(member, counts))
    members = [(f"{path}.{relative}", inner, child) for relative, inner, child in children(role, node)]
    for run in _runs(members, counts):
        if len(run) == 1:
            _grow(below, run[0], counts)
        else:
            first, last = (_last(run[i][0]) for i in (0, -1))
            _grow(below.add(f"[bold]blocks {first} to {last}[/bold]: {len(run)} times"), run[0], counts)


def _runs(members: list[Member], counts: dict[str, int]) -> list[list[Member]]:
    """Members one after another, blocks that are alike together."""
    runs: list[list[Member]] = []
    for member in members:
        if runs and member[1] == "block" and _alike(runs[-1][0], member, counts):
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs


def _alike(a: Member, b: Member, counts: dict[str, int]) -> bool:
    """Whether two blocks are equal but for their drop path, after all rewrites."""

    def bare(node: dict[str, Any]) -> dict[str, Any]:
        scheme = node.get("scheme") or {}
        return {**node, "scheme": {option: value for option, value in scheme.items() if option != "drop_path"}}

    def left(path: str) -> dict[str, int]:
        return {p.removeprefix(path): n for p, n in counts.items() if p == path or p.startswith(f"{path}.")}

    return a[1] == b[1] and bare(a[2]) == bare(b[2]) and left(a[0]) == left(b[0])


def _label(member: Member, counts: dict[str, int]) -> str:
    path, role, node = member
    inside = {relative.partition(".")[0] for relative, _, _ in children(role, node)}
    options = [
        f"{option}={value}"
        for option, value in node.items()
        if option != "kind" and option not in inside and value not in (None, [])
    ]
    name = _last(path)
    if name.isdigit():  # one of several: blocks.3
        name = ".".join(path.split(".")[-2:])
    if path not in counts:
        return f"[dim]{escape(name)} {escape(node['kind'])}: taken away[/dim]"
    words = [f"[bold]{escape(name)}[/bold]", escape(node["kind"])]
    words += [f"[dim]{escape(' '.join(options))}[/dim]"] if options else []
    words += [f" {counts[path]:,}"] if counts[path] else []
    return " ".join(words)


def _last(path: str) -> str:
    return path.rpartition(".")[2]
