"""``warm``: the texts of a file embedded before anybody asks for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from embedcache import warming
from embedcache.cli import choosing, options, output, vectorizing
from embedcache.cli.exits import Exit
from embedcache.vectorizers.prompts import InputType
from embedcache.warming import CacheSettings, CorpusFormat, Tell, WarmProgress, WarmReport

_THOUSANDTHS = 1_000


def warm(
    corpus: Annotated[Path, typer.Argument(help="A .txt, .csv, .tsv, .jsonl or .parquet file, in UTF-8.")],
    column: Annotated[str, typer.Option("--column", "-c", help="The column of the texts; .txt has none.")] = "text",
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="COLUMN,…", help="Columns to keep beside the vectors.")
    ] = None,
    model: options.Model = None,
    kind: vectorizing.Kind = vectorizing.HUGGINGFACE,
    option: vectorizing.Options = None,
    input_type: Annotated[
        Literal["query", "document"] | None, typer.Option("--input-type", help="What the texts are.")
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option("--ttl", parser=choosing.span, metavar="TIME", help="New entries live so long: 7d."),
    ] = None,
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="How many load the model.")] = 1,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Texts computed and stored at a time.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many rows.")] = None,
    file_format: Annotated[
        Literal["txt", "csv", "parquet", "jsonl"] | None,
        typer.Option("--format", help="The file's format.", show_default="by its ending"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is missing, and do nothing.")] = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Embed the texts of a file that the cache lacks. Ended in any way, it goes on where it was when run again."""
    settings = vectorizing.settings(model, kind, option, CacheSettings(name, redis_url=url, layout=layout))
    what: InputType | None = input_type
    written: CorpusFormat | None = file_format
    last = _Last()
    try:
        with _bar("Counting" if dry_run else "Warming") as show:
            report = warming.warm(
                corpus,
                settings,
                column=column,
                metadata=[each.strip() for each in (metadata or "").split(",") if each.strip()],
                limit=limit,
                file_format=written,
                ttl=None if ttl is None else int(ttl),
                input_type=what,
                batch=batch,
                processes=processes,
                dry_run=dry_run,
                tell=last.telling(show),
            )
    except KeyboardInterrupt:
        output.note(f"Interrupted. At least {last.computed:,} texts were stored; run it again to go on.")
        raise
    if json:
        output.show_json(asdict(report))
    else:
        _show(report)
    if report.failed:
        raise typer.Exit(Exit.NOTHING)


class _Last:
    """Remembers how far it was."""

    def __init__(self) -> None:
        self.computed = 0

    def telling(self, show: Tell) -> Tell:
        """As `show`, remembering what was told."""

        def tell(progress: WarmProgress) -> None:
            self.computed = progress.computed
            show(progress)

        return tell


def _show(report: WarmReport) -> None:
    done = f"{report.missing:,} missing" if report.dry_run else f"{report.computed:,} computed"
    seconds = max(report.seconds, 1 / _THOUSANDTHS)
    typer.echo(
        f"{report.rows:,} rows: {done}, {report.hits:,} cached already or repeated,"
        f" {report.failed:,} that cannot be used, in {output.span(seconds)}."
    )
    for bad in report.bad_rows:
        output.note(f"row {bad.number:,}: {output.plain(bad.reason, None)}")
    if report.failed > len(report.bad_rows):
        output.note(f"and {report.failed - len(report.bad_rows):,} more rows")


@contextmanager
def _bar(what: str) -> Iterator[Tell]:
    """A bar on standard error, where that is a terminal: how much is done, how fast, and how long it takes still."""
    if not sys.stderr.isatty():
        yield lambda _progress: None
        return
    from rich.console import Console  # a tenth of a second that no program with its output in a file waits for
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0, told="")
        yield lambda progress: bar.update(task, completed=progress.fraction, told=_told(progress))


def _told(progress: WarmProgress) -> str:
    left = output.span(progress.seconds_left)
    bad = f", {progress.failed:,} bad" if progress.failed else ""
    return f"{progress.computed:,} computed, {progress.hits:,} hits{bad}, {progress.rate:,.0f} rows/s" + (
        "" if left is None else f", {left} left"
    )
