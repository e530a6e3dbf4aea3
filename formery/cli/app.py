"""The application: its commands, and what becomes of errors. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, TextIO

import typer

from . import Terminated, faults

COMMANDS = {
    "list": "listing",
    "show": "show",
    "fit": "fit",
    "train": "train",
    "predict": "predict",
    "generate": "generate",
    "measure": "measure",
    "compare": "compare",
    "characterize": "characterize",
    "probe": "probe",
    "shrink": "shrink",
    "export": "export",
    "deploy": "deploy",
    "verify": "verify",
    "doctor": "doctor",
}
"""Names of the commands, in the order of `--help`, and their modules."""

USER_ERROR, INTERRUPTED = 2, 130


def make(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """The application with these commands, all of them unless said."""
    app = typer.Typer(
        name="formery",
        help="Find, train, shrink, check and ship the right hybrid Transformer for your data and budget.",
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    for name in names:
        app.command(name)(command(COMMANDS[name]))
    return app


def command(module: str) -> Callable[..., Any]:
    """The function of a command's module."""
    function: Callable[..., Any] = import_module(f".{module}", __package__).command
    return function


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"formery {version('formery')}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Find, train, shrink, check and ship the right hybrid Transformer for your data and budget."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns its exit code. What is no mistake of the user's comes through as it was raised."""
    try:
        code = _answer(list(arguments))
        sys.stdout.flush()  # a full disk shows here, not when the process is gone
        return code
    except BrokenPipeError:  # the reader of our output has left
        _let_go(sys.stdout)
        return 0
    except Terminated:
        raise
    except KeyboardInterrupt as error:
        _tell(f"interrupted {error}".rstrip())
        return INTERRUPTED
    except Exception as error:
        message = faults.message(error, arguments)
        if message is None:
            raise
        if isinstance(error, OSError):
            _let_go(sys.stdout)
        return complain(message)


def _answer(arguments: list[str]) -> int:
    if not arguments:
        _answer(["--help"])
        return USER_ERROR
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        raise faults.unknown_command(name, COMMANDS)
    application = typer.main.get_command(make() if name is None else make([name]))
    try:
        with application.make_context("formery", arguments) as context:
            application.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    return 0


def complain(message: str) -> int:
    """One line on stderr; returns the exit code of user errors."""
    _tell(f"error: {' '.join(message.split())}")
    return USER_ERROR


def _tell(line: str) -> None:
    with suppress(OSError, ValueError):  # stderr is closed or full: the exit code must do
        print(line, file=sys.stderr, flush=True)


def _let_go(stream: TextIO) -> None:
    """Where what is still to be written cannot be, it goes nowhere, so that Python does not stumble when it exits."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
