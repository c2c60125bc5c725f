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
from itertools import groupby
from typing import Any, Final, cast

import typer
from typer.core import TyperGroup

from embedcache.cli.exits import Exit, InterruptedWorkError, code_of, words_of
from embedcache.errors import EmbedcacheError

_COMMANDS: Final = {
    # command: (room, function, group in the help, what the help says of it)
    "dashboard": ("dashboarding", "dashboard", "Look", "Serve the dashboard until Ctrl+C."),
    "caches": ("looking", "caches", "Look", "List the caches of a server, RedisVL's among them."),
    "ls": ("looking", "ls", "Look", "List entries: all, or those that match every filter."),
    "get": ("looking", "get", "Look", "Show an entry, by its text or its key."),
    "why": ("looking", "why", "Look", "Tell why a text hits or misses."),
    "stats": ("looking", "stats", "Look", "Show hits, misses, latencies and savings."),
    "metrics": ("looking", "metrics", "Look", "Print what is counted, for Prometheus, or serve it."),
    "embed": ("computing", "embed", "Compute", "Embed texts through the cache."),
    "warm": ("warming", "warm", "Compute", "Embed the texts of a file that the cache lacks."),
    "verify": ("computing", "verify", "Compute", "Embed a sample of cached texts anew, and compare."),
    "bench": ("computing", "bench", "Compute", "Time the cache in use, beside none."),
    "drop": ("removing", "drop", "Change", "Remove one entry, or all that match filters."),
    "clear": ("removing", "clear", "Change", "Remove every entry of a cache."),
    "ttl": ("removing", "ttl", "Change", "Show or change how long entries live."),
    "doctor": ("checking", "doctor", "Change", "Look for what may be wrong; with --fix, mend it."),
    "export": ("moving", "export", "Move", "Write entries to a file."),
    "import": ("moving", "import_", "Move", "Write the entries of a file into a cache."),
    "convert": ("moving", "convert", "Move", "Move a cache from one layout to the other."),
    "server": ("serving", "app", "Server", "Start, look at and stop the embedded server."),
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

        room, function, _, _ = _COMMANDS[cmd_name]
        found: Any = getattr(import_module(f"embedcache.cli.{room}"), function)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        if isinstance(found, typer.Typer):
            alone.add_typer(found, name=cmd_name)
            return typer.main.get_group(alone).commands[cmd_name]
        alone.command(cmd_name)(found)
        command = typer.main.get_command(alone)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        """The list of commands in the help, by group, from the table: no room is imported for it."""
        for group, commands in groupby(_COMMANDS.items(), key=lambda item: item[1][2]):
            with formatter.section(group):
                formatter.write_dl([(command, said) for command, (_, _, _, said) in commands])


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
