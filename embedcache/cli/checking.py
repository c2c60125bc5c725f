"""``doctor``: what may be wrong with a cache, and its fixes, each once somebody has said yes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedcache import doctor as doctoring
from embedcache.cache import EmbeddingsCache
from embedcache.cli import choosing, options, output
from embedcache.cli.confirming import agrees
from embedcache.cli.exits import Exit
from embedcache.doctor import Examination, Finding, Repair


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Ask for each finding whether to put it right.")] = False,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    ttl: Annotated[
        int | None,
        typer.Option("--ttl", parser=choosing.whole_span, metavar="TIME", help="The TTL that its entries are to have."),
    ] = None,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Look a cache through for what may be wrong, and change nothing unless you say --fix and yes."""
    fixes = fix and not dry_run
    with options.opened(url, name, layout, ttl=ttl, read_only=not fixes) as cache:
        with output.progress("Examining") as tell:
            examination = doctoring.examine(cache, lambda _what, done, total: tell(done, total))
        if not json:
            _show(examination)
        asked = examination.findings if fixes else ()
        repairs = [done for finding in asked if (done := _put_right(cache, finding, yes=yes))]
    if json:
        output.show_json(_as_json(examination, repairs))
    left = len(examination.findings) - len(repairs)
    if left:
        raise typer.Exit(Exit.NOTHING)


def _put_right(cache: EmbeddingsCache, finding: Finding, *, yes: bool) -> Repair | None:
    """What became of one finding; None where the answer was no."""
    if not agrees(f"{finding.fix.words}?", yes=yes):
        return None
    with output.steps("Putting it right") as tell:
        repaired = doctoring.repair(cache, finding, options.actor(), tell)
    output.note(f"{repaired.changed:,} changed, {repaired.left:,} left as they are.")
    return repaired


def _show(examination: Examination) -> None:
    output.show_table(
        ("", "what", "keys", "size", "fix"),
        (
            (
                each.severity,
                each.kind.value,
                each.count,
                output.size(each.bytes),
                output.plain(each.fix.words, 80),
            )
            for each in examination.findings
        ),
        empty=f"Nothing is wrong with {output.plain(examination.cache_name)}: {examination.entries:,} entries.",
    )
    for each in examination.findings:
        typer.echo(f"{each.kind.value}: {output.plain(each.explanation, None)}")
        for key in each.sample:
            typer.echo(f"  {output.plain(key, None)}")
    for words in examination.not_told:
        output.note(words)


def _as_json(examination: Examination, repairs: list[Repair]) -> dict[str, Any]:
    return {
        "cache": examination.cache_name,
        "entries": examination.entries,
        "findings": [
            {
                "kind": each.kind.value,
                "severity": each.severity,
                "count": each.count,
                "bytes": each.bytes,
                "sample": each.sample,
                "explanation": each.explanation,
                "fix": each.fix.words,
            }
            for each in examination.findings
        ],
        "not_told": examination.not_told,
        "repairs": [{"kind": each.kind.value, "changed": each.changed, "left": each.left} for each in repairs],
    }
