"""Before anything is deleted or overwritten: what would be done is shown, and a person types the cache's name."""

from __future__ import annotations

import sys

import typer

from embedcache.cli.exits import RefusedError
from embedcache.cli.output import plain


def confirm(what: str, cache_name: str, *, yes: bool) -> None:
    """Lets only those on who typed the cache's name, or gave ``--yes``.

    Raises:
        RefusedError: Another name was typed, or nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError(f"{what} needs a yes: there is no terminal to ask at, so add --yes. Nothing was done")
    asked = f"{what}. Type the cache's name, {plain(cache_name)}, to go on"
    try:
        typed = typer.prompt(asked, default="", show_default=False, err=True)  # standard output is the document's
    except typer.Abort:  # the end of the input
        typed = ""
    if typed != cache_name:
        raise RefusedError(f"{plain(typed)!r} is not the cache's name. Nothing was done")


def agrees(question: str, *, yes: bool) -> bool:
    """Whether a person says yes to one thing of several.

    Raises:
        RefusedError: Nobody can be asked.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise RefusedError("there is no terminal to ask at, so add --yes. Nothing was done")
    try:
        return typer.confirm(plain(question, None), default=False, err=True)
    except typer.Abort:  # the end of the input
        return False
