"""The command ``embedcache``: the package from a shell. `docs/cli.md` tells of each command, and of exit codes.

A room for each kind of command; `_COMMANDS` is the table of them all. Each is a thin shell over the package, prints
tables for people and, with ``--json``, one document for programs. Rooms are imported when one of their commands is
asked for, since some bring half a second of libraries along.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any, Final, cast

import typer
from typer.core import TyperGroup

from embedcache.cli.exits import Exit, InterruptedWorkError, code_of, words_of
from embedcache.errors import EmbedcacheError

_COMMANDS: Final = {
    # command: (room, function, group in the help)
    "dashboard": ("dashboarding", "dashboard", "Look"),
    "caches": ("looking", "caches", "Look"),
    "ls": ("looking", "ls", "Look"),
    "get": ("looking", "get", "Look"),
    "why": ("looking", "why", "Look"),
    "stats": ("looking", "stats", "Look"),
    "metrics": ("looking", "metrics", "Look"),
    "embed": ("computing", "embed", "Compute"),
    "warm": ("warming", "warm", "Compute"),
    "verify": ("computing", "verify", "Compute"),
    "bench": ("computing", "bench", "Compute"),
    "drop": ("removing", "drop", "Change"),
    "clear": ("removing", "clear", "Change"),
    "ttl": ("removing", "ttl", "Change"),
    "doctor": ("checking", "doctor", "Change"),
    "export": ("moving", "export", "Move"),
    "import": ("moving", "import_", "Move"),
    "convert": ("moving", "convert", "Move"),
    "server": ("serving", "app", "Server"),
}
_EPILOG: Final = (
    "Exit codes: 0 done, 1 no such entry or something found, 2 wrong arguments, 3 server or model unavailable, "
    "4 refused or not confirmed, 5 a file cannot be used, 6 ended half-way, 130 interrupted."
)


class _Lazy(TyperGroup):
    """Commands whose rooms are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """All of them, in the table's order."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """One of them, as click knows it."""
        if cmd_name not in _COMMANDS:
            return None
        from importlib import import_module

        room, function, panel = _COMMANDS[cmd_name]
        found: Any = getattr(import_module(f"embedcache.cli.{room}"), function)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        if isinstance(found, typer.Typer):
            alone.add_typer(found, name=cmd_name, rich_help_panel=panel)
            return typer.main.get_group(alone).commands[cmd_name]
        alone.command(cmd_name, rich_help_panel=panel)(found)
        command = typer.main.get_command(alone)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Lazy,
    name="embedcache",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from embedcache import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def about(
    ctx: typer.Context,
    version: bool = typer.Option(  # noqa: ARG001 - its callback prints it
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
    url: str = typer.Option(None, "--url", help="The cache's server.", show_default="$EMBEDCACHE_URL, or embedded"),
    name: str = typer.Option(
        None, "--name", "-n", envvar="EMBEDCACHE_NAME", help="The cache.", show_default="embedcache"
    ),
    layout: str = typer.Option(None, "--layout", help="How its entries lie: packed or redisvl.", show_default="packed"),
    json: bool = typer.Option(None, "--json", help="Print one JSON document, for programs."),
) -> None:
    """Look into an embeddings cache, fill it, move it and clean it up.

    The options may stand before or after the command; those after it win.
    """
    given = {"url": url, "name": name, "layout": layout, "json": json}
    given = {option: value for option, value in given.items() if value is not None}
    # Defaults of every command, which click hands on to those of a group in the same way.
    ctx.default_map = {command: given | dict.fromkeys(("start", "status", "stop"), given) for command in _COMMANDS}
    # `metrics` takes several names and, without any, tells of all caches, whatever the environment names.
    named = getattr(ctx.get_parameter_source("name"), "name", None) == "COMMANDLINE"
    ctx.default_map["metrics"] = given | {"name": [name] if named else None}


# The base of all that click says of arguments: of click itself, or of the copy of it that newer typers carry.
_WrongWordsError: Final = cast("type[Exception]", typer.BadParameter.__mro__[2])


def main() -> None:
    """What the shell calls. Every failure is a sentence on standard error and a code, and no traceback."""
    _prepare_streams()
    try:
        code = app(standalone_mode=False)
    except _WrongWordsError as error:
        code = _told_usage(error)
    except (typer.Abort, KeyboardInterrupt):  # a question was not answered
        code = _told("interrupted", Exit.INTERRUPTED)
    except (EmbedcacheError, InterruptedWorkError, ImportError, OSError) as error:
        code = _told(words_of(error), code_of(error))
    sys.exit(code or Exit.DONE)


def _prepare_streams() -> None:
    """Makes streams that are closed read and write nothing, and those that lack a character write it as Python does."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _told(sentence: str, code: Exit) -> Exit:
    from embedcache.cli.output import plain

    typer.echo(f"embedcache: {plain(sentence, None)}", err=True)
    return code


def _told_usage(error: Any) -> Exit:
    """Click's own words, without what may be a password: it repeats arguments, and a URL may be among them."""
    said = io.StringIO()
    error.show(file=said)
    typer.echo(re.sub("://.*", "://…", said.getvalue()), err=True, nl=False)
    return Exit.USAGE
