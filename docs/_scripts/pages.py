"""Pages that are written by the code they describe: systems from cards, tables from the registry, the reference.

A hook of mkdocs. `<!-- index: mixer -->` in a page becomes the table of all token mixers; every card
`formery/systems/ROOM/NAME.toml` becomes a page; every module and room of formery becomes a page of the reference.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "formery"
MARK = re.compile(r"^<!-- index: (\w+) -->$", re.MULTILINE)
CAPABILITIES = ("causal", "streams", "state_growth")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the written pages where the navigation has room for them."""
    for section in config.nav or []:
        if "Systems" in section:
            section["Systems"] += [{card["title"]: page} for page, card in _cards()]
        if "Reference" in section:
            section["Reference"] += [{name: page} for page, name in _modules()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Write them."""
    for page, card in _cards():
        files.append(File.generated(config, page, content=_system(card)))
    for page, name in _modules():
        text = f"# {name}\n\n::: {name}\n    options:\n      show_submodules: {str(name.count('.') == 1).lower()}\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the tables of a page."""
    return MARK.sub(lambda mark: _table(mark[1]), markdown)


def _cards() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(PACKAGE.glob("systems/*/*.toml")):
        card = tomllib.loads(path.read_text())
        yield f"systems/{path.stem}.md", card | {"name": path.stem, "group": path.parent.name}


def _modules() -> Iterator[tuple[str, str]]:
    """Modules and packages directly in formery, the command line left out: it has its own page."""
    for path in sorted(PACKAGE.iterdir()):
        name = path.stem
        if name.startswith("_") or name == "cli":
            continue
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            yield f"reference/{name}.md", f"formery.{name}"


def _plain(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ").strip()


def _system(card: dict[str, Any]) -> str:
    """A card as a page: everything it says, its variants as one table."""
    lines = [f"# {card['title']}", "", card.get("idea", "").strip(), ""]
    facts = {key: value for key, value in card.items() if not isinstance(value, dict) and key not in ("title", "idea")}
    claims = facts.pop("claims", [])
    if "code" in facts and re.fullmatch(r"[\w.-]+/[\w.-]+", str(facts["code"])):
        facts["code"] = f"[{facts['code']}](https://github.com/{facts['code']})"
    if "arxiv" in facts:
        facts["arxiv"] = f"[{facts['arxiv']}](https://arxiv.org/abs/{facts['arxiv']})"
    if "year" in facts:
        facts["year"] = str(facts["year"])
    lines += ["| | |", "|---|---|", *(f"| {key} | {_plain(value)} |" for key, value in facts.items()), ""]
    variants = card.get("variants", {})
    if variants:
        columns = list(dict.fromkeys(column for variant in variants.values() for column in variant))
        lines += ["## Variants", "", f"| name | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for name, variant in variants.items():
            cells = [_plain(variant.get(column, "")) for column in columns]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        lines.append("")
    if claims:
        lines += ["## Claims", "", f"`formery verify {card['name']}` checks them.", ""]
        lines += ["| claim | what is claimed | source | bar |", "|---|---|---|---|"]
        for claim in claims:
            cells = [_plain(claim.get(key, "")) for key in ("says", "source", "bar")]
            lines.append(f"| `{claim['id']}` | {' | '.join(cells)} |")
        lines.append("")
    others = {key: value for key, value in card.items() if isinstance(value, dict) and key != "variants"}
    for key, value in others.items():
        lines += [f"## {key.replace('_', ' ').capitalize()}", "", "| | |", "|---|---|"]
        lines += [*(f"| {name} | {_plain(item)} |" for name, item in value.items()), ""]
    return "\n".join(lines)


def _table(role: str) -> str:
    """Every name of a role, what it is, and its options with their defaults."""
    if role == "command":
        return _commands()
    from formery import registry

    rows = ["| name | what it is | options | |", "|---|---|---|---|"]
    for name in registry.index(role):
        part = registry.find(role, name)
        says = _plain(_first_paragraph(part))
        declared = ", ".join(f"{key.replace('_', ' ')}: {getattr(part, key)}" for key in _capabilities(role, part))
        shown = ", ".join(_options(getattr(part, "decide", part)))
        if hasattr(part, "shorthand"):
            shown = f"{', '.join(_options(part.shorthand))}; or in full {shown}"
        rows.append(f"| `{name}` | {says} | {shown} | {declared} |")
    return "\n".join(rows)


def _first_paragraph(part: Any) -> str:
    """What a part says first; its module where the class says no more than that."""
    says = inspect.getdoc(part) or ""
    if says.startswith("See the module"):
        says = inspect.getdoc(inspect.getmodule(part)) or ""
    return says.split("\n\n")[0]


def _capabilities(role: str, part: Any) -> tuple[str, ...]:
    """Which of a mixer's declarations say something: how a state grows, only where there is one."""
    if role != "mixer":
        return ()
    return CAPABILITIES if part.streams != "no" else CAPABILITIES[:2]


def _options(part: Any) -> Iterator[str]:
    """The keyword-only arguments that a spec may say, with their defaults."""
    from formery import spec

    for parameter in inspect.signature(part).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in (*spec.FILLED, "place"):
            default = "" if parameter.default is parameter.empty else f"={_plain(parameter.default)}"
            yield f"`{parameter.name}{default}`"


def _commands() -> str:
    """The commands as `--help` has them: what each does, its arguments and options."""
    import typer

    from formery.cli import app

    group: Any = typer.main.get_command(app.make())
    lines = []
    for name in app.COMMANDS:
        command = group.commands[name]
        says, _, example = re.sub(r"\[/?bold\]", "`", command.help or "").partition("Example: ")
        lines += [f"## {name}", "", says.strip(), ""]
        lines += [f"Example: {example.strip()}", ""] if example else []
        lines += ["| | |", "|---|---|"]
        for parameter in command.params:
            shown = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
            default = parameter.default if parameter.default not in (None, "", False, ()) else None
            tail = f" Default: {_plain(default)}." if default is not None and not parameter.required else ""
            lines.append(f"| `{shown}` | {_plain(parameter.help or '')}{tail} |")
        lines.append("")
    return "\n".join(lines)
