"""What went wrong in a command, in one line where it is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from ..errors import FormeryError, UnknownName

Usage: Any = typer.BadParameter.__bases__[0]
"""What typer raises for a command line that it cannot read; it has a public name only for one kind of it."""

LONGEST = 120
"""Letters of a name that are shown."""

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
TOO_LARGE = ("overflow", "too large", "invalid size")


def message(error: Exception, arguments: Sequence[str]) -> str | None:
    """The line for the user; None where the fault is ours and its traceback is wanted."""
    if isinstance(error, FormeryError):
        return str(error)
    if isinstance(error, Usage):
        return _usage(error, arguments)
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, RecursionError):
        return "the input is nested too deeply to be read; make it flatter"
    return _beyond(error)


def unknown_command(name: str, names: Iterable[str]) -> UnknownName:
    """The error for a first word that is no command."""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
    return UnknownName(f"no command is called {_short(name)!r}; {hint}")


def _usage(error: Any, arguments: Sequence[str]) -> str:
    """What typer says, with where to read more; an unknown option with the nearest one."""
    context = getattr(error, "ctx", None)
    path = "formery" if context is None else context.command_path
    see = f"see '{path} --help'"
    if hasattr(error, "possibilities"):
        parameters = [] if context is None else context.command.get_params(context)
        known = [option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)]
        near = difflib.get_close_matches(error.option_name, [o for o in known if o.startswith("--")], n=1)
        return f"no option is called {_short(error.option_name)}; {f'did you mean {near[0]}?' if near else see}"
    said = " ".join(str(error.format_message()).split()).rstrip(".")
    return f"{said[:1].lower()}{said[1:]}; {see}"


def _system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"cannot write the output: {reason}" if error.errno is not None else reason
    return f"cannot use {_short(str(error.filename))}: {reason}"


def _beyond(error: Exception) -> str | None:
    """Sizes that no machine, or this one, can hold."""
    text = str(error)
    lowered = text.lower()
    if isinstance(error, MemoryError) or any(sign in lowered for sign in OUT_OF_MEMORY):
        return "there is not enough memory for this; take a smaller model, batch or size"
    if isinstance(error, RuntimeError | TypeError | OverflowError) and any(sign in lowered for sign in TOO_LARGE):
        return f"a size is too large: {_short(text.strip().splitlines()[0])}"
    return None


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
