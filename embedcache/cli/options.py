"""Options that commands share, and the cache that they name."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Literal, cast

import typer

from embedcache.cache import EmbeddingsCache
from embedcache.entry_layout import LayoutName

DEFAULT_NAME: Final = "embedcache"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The cache's server.",
        show_default="$EMBEDCACHE_URL, else the embedded one",
        rich_help_panel="Which cache",
    ),
]
Name = Annotated[
    str,  # $EMBEDCACHE_NAME is read before the command, so that --name before it wins over that
    typer.Option("--name", "-n", help="The cache.", rich_help_panel="Which cache"),
]
Layout = Annotated[
    Literal["packed", "redisvl"],
    typer.Option("--layout", help="How its entries lie on the server.", rich_help_panel="Which cache"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The model's name.", show_default="the bundled one")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


@contextmanager
def opened(
    url: str | None, name: str, layout: str = "packed", *, ttl: int | None = None, read_only: bool = False
) -> Iterator[EmbeddingsCache]:
    """The cache that the options name. What only looks opens it read-only: it restarts no TTL and counts nothing."""
    with EmbeddingsCache(name, ttl, redis_url=url, layout=cast("LayoutName", layout), read_only=read_only) as cache:
        yield cache


def model_or_default(model: str | None) -> str:
    """The model that is meant where none is named: the bundled one."""
    if model is not None:
        return model
    from embedcache.vectorizers import DEFAULT_MODEL  # vectorizers are more than most commands need

    return DEFAULT_MODEL


def actor() -> str:
    """Who does it, for the audit log: the user of this machine."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # a user without a name
        return "command line"
