"""Commands that move entries: ``export``, ``import``, ``convert``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from embedcache import transfer, walking
from embedcache.cli import choosing, options, output
from embedcache.cli.confirming import confirm
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidInputError
from embedcache.transfer.convert import convert_entries

Processes = Annotated[int, typer.Option("--processes", "-p", min=1, max=64, help="How many work on it.")]
File = Annotated[Path, typer.Argument(help="The file.", show_default=False)]


def export(
    file: File,
    file_format: Annotated[
        Literal["parquet", "jsonl"] | None,
        typer.Option("--format", help="Of the file.", show_default="as its name ends, else parquet"),
    ] = None,
    vectors: Annotated[
        Literal["numbers", "base64"] | None,
        typer.Option("--vectors", help="How JSON lines hold vectors.", show_default="numbers"),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="A file of that name may go.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what was read if this is interrupted, and go on from there.")
    ] = False,
    processes: Processes = 1,
    contains: choosing.Contains = None,
    model: choosing.OfModel = None,
    metadata: choosing.Field = None,
    older: choosing.Older = None,
    newer: choosing.Newer = None,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    json: options.Json = False,
) -> None:
    """Write a cache's entries to a file, all or those that match. The cache is not changed."""
    asked = choosing.entry_filter(contains, model, metadata, older, newer)
    lines = file.suffix.lower() in {".jsonl", ".ndjson"}
    with options.opened(url, name, read_only=True) as cache:
        keys = None
        if not asked.is_empty:
            chosen = choosing.choose(cache, asked)
            keys = chosen.index.keys(chosen.positions)
        with output.progress("Exporting") as tell:
            report = transfer.export_entries(
                cache.connection,
                name,
                file,
                keys,
                tell,
                file_format=file_format or ("jsonl" if lines else "parquet"),
                vectors=vectors,
                replace=replace,
                resume=resume,
                processes=processes,
            )
    if json:
        output.show_json(asdict(report))
        return
    typer.echo(
        f"{report.entries:,} entries are in {output.plain(report.path, None)}, {output.size(report.bytes)}, "
        f"after {output.span(report.seconds)}."
    )
    if report.resumed:
        output.note(f"{report.resumed:,} keys were read by an earlier export that had not ended, and are as they were.")
    if report.skipped_unreadable:
        output.note(f"{report.skipped_unreadable:,} values could not be read and are left out: see embedcache doctor.")


def import_(
    file: File,
    on_conflict: Annotated[
        Literal["skip", "overwrite", "newer"],
        typer.Option("--on-conflict", help="What happens to entries that the cache has already."),
    ] = "skip",
    check_first: Annotated[
        bool, typer.Option("--check-first", help="Go through the whole file before anything is written.")
    ] = False,
    processes: Processes = 1,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Write the entries of an exported file into a cache. Begun again, it goes on where it ended."""
    summary = transfer.describe_file(file)
    if not json:
        typer.echo(
            f"{output.plain(file, None)}: {summary.entries:,} entries of {output.plain(summary.cache_name)}, "
            f"exported {output.moment(summary.exported_at)} UTC."
        )
    if dry_run:
        if json:
            output.show_json(asdict(summary) | {"dry_run": True})
        return
    if on_conflict != "skip":
        confirm(f"Importing may replace entries of {output.plain(name)}", name, yes=yes)
    with options.opened(url, name) as cache, output.steps("Importing") as tell:
        report = transfer.restore_entries(
            cache.connection,
            name,
            file,
            tell,
            on_conflict=on_conflict,
            layout=layout,
            check_first=check_first,
            processes=processes,
        )
    if json:
        output.show_json(asdict(report) | {"dry_run": False})
        return
    typer.echo(
        f"{report.restored:,} entries were written in {output.span(report.seconds)}; {report.skipped_existing:,} were "
        f"left as the cache has them, {report.expired:,} have expired."
    )


def convert(
    layout: Annotated[Literal["packed", "redisvl"], typer.Argument(help="The layout wanted.", show_default=False)],
    to_url: Annotated[str | None, typer.Option("--to-url", help="Copy to it.", show_default="the same")] = None,
    to_name: Annotated[str | None, typer.Option("--to-name", help="Copy to it.", show_default="the same")] = None,
    dtype: Annotated[
        Literal["float32", "float64", "float16", "int8"], typer.Option("--dtype", help="How packed vectors are stored.")
    ] = "float32",
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    json: options.Json = False,
) -> None:
    """Move a cache from one layout to the other: in place, once you confirm, or as a copy."""
    in_place = to_url is None and to_name in (None, name)
    with options.opened(url, name, read_only=dry_run) as cache:
        with output.progress("Looking at entries") as tell:
            index = walking.index_cache(cache.connection, name, tell)
        theirs = index.redisvl_entries
        ours = len(index) - theirs - index.unreadable
        todo = theirs if layout == "packed" else ours
        if not json:
            typer.echo(f"{todo:,} of {len(index):,} entries are not {layout} yet.")
        if dry_run:
            if json:
                output.show_json({"cache": name, "entries": len(index), "to_convert": todo, "dry_run": True})
            return
        if in_place:
            confirm(f"Converting {todo:,} entries of {output.plain(name)} in place", name, yes=yes)
        target = None if to_url is None else RedisConnection(to_url)
        try:
            if target is not None and target.address == cache.connection.address and to_name in (None, name):
                raise InvalidInputError("--to-url names this cache itself; leave it out to convert in place")
            with output.steps("Converting") as tell:
                report = convert_entries(
                    cache.connection, name, layout, tell, to=target, to_name=to_name, dtype=dtype, actor=options.actor()
                )
        finally:
            if target is not None:
                target.close()
    if json:
        output.show_json(asdict(report) | {"dry_run": False})
        return
    typer.echo(
        f"{report.converted:,} entries were converted in {output.span(report.seconds)}; {report.skipped:,} were so "
        f"already, {report.changed_meanwhile:,} were written meanwhile, {report.vanished:,} were gone."
    )
    if report.unreadable:
        output.note(f"{report.unreadable:,} could not be read and stay as they are: see embedcache doctor.")
