"""The application: its commands, and what becomes of errors. Imports nothing heavy; commands import inside themselves."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer
from typer._click import exceptions as click

from ..errors import FormeryError

COMMANDS = {
    "list": "listing",
    "show": "show",
    "fit": "fit",
    "train": "train",
    "predict": "predict",
    "measure": "measure",
    "compare": "compare",
    "shrink": "shrink",
    "export": "export",
    "verify": "verify",
    "doctor": "doctor",
}
"""Names of the commands, in the order of `--help`, and their modules."""

USER_ERROR, INTERRUPTED = 2, 130


def make() -> typer.Typer:
    """The application with all its commands."""
    app = typer.Typer(
        name="formery",
        help="Find, train, shrink, check and ship the right hybrid Transformer for your data and budget.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    for name, module in COMMANDS.items():
        app.command(name)(command(module))
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
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    """Find, train, shrink, check and ship the right hybrid Transformer for your data and budget."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns its exit code."""
    try:
        result = make()(list(arguments), standalone_mode=False)
    except click.NoArgsIsHelpError as error:
        print(error.format_message())
        return USER_ERROR
    except click.NoSuchOption as error:
        near = difflib.get_close_matches(error.option_name, _options(error), n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; see 'formery {_command(arguments)} --help'"
        return complain(f"no option is called {error.option_name}{hint}")
    except click.UsageError as error:
        message = error.format_message().rstrip(".")
        if message.startswith("No such command"):
            wrong = next((a for a in arguments if not a.startswith("-")), "")
            near = difflib.get_close_matches(wrong, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(COMMANDS)}"
            return complain(f"no command is called {wrong!r}; {hint}")
        return complain(f"{message[0].lower()}{message[1:]}; see 'formery {_command(arguments)} --help'")
    except click.ClickException as error:
        return complain(error.format_message())
    except FormeryError as error:
        return complain(str(error))
    except (KeyboardInterrupt, click.Abort) if hasattr(click, "Abort") else KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return int(result) if isinstance(result, int) else 0


def complain(message: str) -> int:
    """One line on stderr; returns the exit code of user errors."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def _command(arguments: Sequence[str]) -> str:
    return next((a for a in arguments if a in COMMANDS), "").strip()


def _options(error: click.NoSuchOption) -> list[str]:
    context = error.ctx
    return [] if context is None else [o for p in context.command.get_params(context) for o in p.opts]
