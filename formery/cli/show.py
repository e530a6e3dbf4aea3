"""`formery show`: a part, a system and its card, a spec as a tree with the parameters of each node."""

from __future__ import annotations

from typing import Any

import typer

from .models import SET, is_saved, read_spec
from .output import JSON, console, emit, number, table


def command(
    name: str = typer.Argument(help="A model, a saved model's folder, a spec file, a system, or a part (role.name)."),
    set_: list[str] = SET,
    card_only: bool = typer.Option(False, "--card", help="Show the system's card: published figures, claims."),
    yaml: bool = typer.Option(False, "--yaml", help="Print the resolved spec as YAML."),
    as_json: bool = JSON,
) -> None:
    """Show what a part, a system or a model is made of.

    Example: [bold]formery show poolformer_s12 --set body.stages.3.mixer=attention[/bold], [bold]formery show mixer.pooling[/bold]
    """
    from .. import cards
    from ..registry import HOMES, UNIONS

    role, dot, part = name.partition(".")
    if dot and (role in HOMES or role in UNIONS) and not name.endswith((".yaml", ".yml", ".json")):
        _part(role, part, as_json)
    elif (name in cards.cards() or card_only) and not is_saved(name):
        _card(name, as_json)
    else:
        _model(name, set_ or [], yaml, as_json)


def _part(role: str, name: str, as_json: bool) -> None:
    from ..registry import find, index

    if name not in index(role):
        find(role, name)  # raises with the nearest names
    cls = find(role, name)
    from ..spec import options

    schema = [
        {
            "option": option,
            "type": _type(entry.hint),
            "default": "needed" if entry.required else entry.default,
            "role": entry.role,
        }
        for option, entry in options(cls.__init__).items()
    ]
    can = {
        fact: getattr(cls, fact)
        for fact in ("causal", "streams", "packs", "grids", "state_growth", "bound", "exports", "looks_at_batch", "reads", "writes", "acts_on", "over", "stride")
        if hasattr(cls, fact)
    }  # fmt: skip
    facts = {"role": role, "name": name, "says": " ".join((cls.__doc__ or "").split()), "capabilities": can, "options": schema, "target": index(role)[name]}
    if as_json:
        emit(facts)
        return
    console().print(f"[bold]{role} {name}[/bold]  {facts['target']}\n{facts['says']}\n")
    console().print("  ".join(f"{k}: [bold]{_plain(v)}[/bold]" for k, v in can.items()))
    table("", ["option", "type", "default"], [(s["option"], s["type"], _plain(s["default"])) for s in schema])


def _type(hint: Any) -> str:
    text = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
    text = (text or str(hint)).replace("typing.", "")
    if "Annotated" in text:
        from ..spec import _role_of

        role = _role_of(hint)
        text = f"{role} spec{' or null' if 'None' in text else ''}" if role else text.split("[", 1)[-1].split(",", 1)[0]
    return text


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _card(name: str, as_json: bool) -> None:
    from .. import cards

    card = cards.card(name)
    if as_json:
        emit({"system": card.name, **card.data})
        return
    data = card.data
    out = console()
    out.print(f"[bold]{card.title}[/bold] ({data.get('year')}), arXiv {data.get('arxiv')}, code {data.get('code')}", markup=True)
    out.print(" ".join(str(data["idea"]).split()) + "\n", markup=False)
    rows = [
        (variant, f"{facts.get('params', 0):,}", number(facts.get("macs")), ", ".join(f"{k} {v}" for k, v in facts.get("published", {}).items()))
        for variant, facts in card.variants.items()
    ]  # fmt: skip
    table("Variants", ["name", "params (counted)", "MACs (counted)", "published"], rows, right=(1, 2))
    if card.claims:
        table("Claims", ["id", "says", "bar"], [(c["id"], " ".join(str(c["says"]).split()), c.get("bar", "")) for c in card.claims])
    for note in data.get("notes", []):
        out.print(f"- {' '.join(str(note).split())}", markup=False)


def _model(name: str, overrides: list[str], yaml: bool, as_json: bool) -> None:
    from .. import spec as specs
    from ..errors import BadSpec

    changes = specs.from_pairs(overrides)
    plans: list[Any] = []
    if is_saved(name):
        from pathlib import Path

        from ..saving import read_config

        if changes:
            raise BadSpec("a saved model is built as it was saved; --set goes with names and spec files")
        config = read_config(Path(name))
        resolved, plans = config["resolved"], config["plans"]
    else:
        resolved = specs.resolve(read_spec(name))
        if changes:
            resolved = specs.override(resolved, changes)
    if yaml:
        from ..formats import to_yaml

        print(to_yaml(resolved), end="")
        return
    import torch

    from ..model import Model
    from ..saving import replay

    with torch.device("meta"):
        model = Model(resolved)
        replay(model, plans)
    counts = {path: sum(p.numel() for p in module.parameters()) for path, module in model.named_modules()}
    if as_json:
        nodes = [{"path": p, "role": r, "kind": n["kind"], "params": counts.get(p, 0)} for p, r, n in specs.walk(resolved)]
        emit({"name": model.name, "params": sum(p.numel() for p in model.parameters()), "plans": plans, "resolved": resolved, "nodes": nodes})
        return
    _print_tree(model.name, resolved, counts, sum(p.numel() for p in model.parameters()), plans)


def _print_tree(name: str, resolved: dict[str, Any], counts: dict[str, int], total: int, plans: list[Any]) -> None:
    from rich.tree import Tree

    from ..spec import MODEL, children

    tree = Tree(f"[bold]{name}[/bold]  {total:,} parameters" + (f"  rewritten by {', '.join(p['kind'] for p in plans)}" if plans else ""))

    def label(path: str, role: str, node: dict[str, Any]) -> str:
        inner = {option for option, _, _ in ((p.partition(".")[0], r, n) for p, r, n in children(role, node))}
        shown = {k: v for k, v in node.items() if k != "kind" and k not in inner and v is not None and v != []}
        options = " ".join(f"{k}={v}" for k, v in shown.items())
        params = counts.get(path, 0)
        return f"[bold]{path.rpartition('.')[2] if role != 'block' else '.'.join(path.split('.')[-2:])}[/bold] {node['kind']} [dim]{options}[/dim]" + (f"  {params:,}" if params else "")

    def grow(branch: Tree, path: str, role: str, node: dict[str, Any]) -> None:
        below = branch.add(label(path, role, node))
        members = [(f"{path}.{p}", r, n) for p, r, n in children(role, node)]
        index = 0
        while index < len(members):
            here, inner, child = members[index]
            last = index
            while last + 1 < len(members) and _same(members[last + 1][2], child) and members[last + 1][1] == inner == "block":
                last += 1
            if last > index:
                run = below.add(f"[bold]blocks {here.rpartition('.')[2]} to {members[last][0].rpartition('.')[2]}[/bold]: {last - index + 1} times")
                grow(run, here, inner, child)
            else:
                grow(below, here, inner, child)
            index = last + 1

    for key, role in MODEL.items():
        grow(tree, key, role, resolved[key])
    console().print(tree)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two blocks are alike but for their drop path."""
    def bare(node: dict[str, Any]) -> dict[str, Any]:
        return {**node, "scheme": {k: v for k, v in node.get("scheme", {}).items() if k != "drop_path"}}

    return bare(a) == bare(b)
