"""Commands that remove entries or change how long they live: ``drop``, ``clear``, ``ttl``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from embedcache import removal
from embedcache.cache import EmbeddingsCache
from embedcache.cli import choosing, options, output
from embedcache.cli.confirming import confirm
from embedcache.cli.exits import Exit
from embedcache.cli.looking import Key, Text, key_of
from embedcache.entry import NEVER, Never
from embedcache.errors import InvalidInputError
from embedcache.filtering import EntryFilter
from embedcache.removal import RemovalPlan, RemovalReport
from embedcache.walking import count_keys

_SHOWN_KEYS = 5

Everything = Annotated[bool, typer.Option("--all", help="All entries, where no filter is given.")]
Carry = Callable[[EmbeddingsCache, RemovalPlan, removal.Tell], RemovalReport]


def drop(
    text: Text = None,
    key: Key = None,
    model: choosing.OfModel = None,
    contains: choosing.Contains = None,
    metadata: choosing.Field = None,
    older: choosing.Older = None,
    newer: choosing.Newer = None,
    idle: choosing.Idle = None,
    expires_within: choosing.Expires = None,
    never_expires: choosing.NeverExpires = None,
    larger: choosing.Larger = None,
    smaller: choosing.Smaller = None,
    corrupt: choosing.Corrupt = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Remove one entry, by its text or --key, or all that match the filters given, once you confirm.

    What matches is planned first. Entries that are stored or written anew after that stay.
    """
    if text is not None or key is not None:
        others = (contains, metadata, older, newer, idle, expires_within, never_expires, larger, smaller)
        if corrupt or any(each is not None for each in others):
            raise InvalidInputError("a text or --key names one entry; filters name others. Give one or the other")
        _drop_one(text, key, model, url, name, layout, dry_run=dry_run, yes=yes, json=json)
        return
    asked = choosing.entry_filter(
        contains, model, metadata, older, newer, idle, expires_within, never_expires, larger, smaller, corrupt
    )
    if asked.is_empty:
        raise InvalidInputError("say which entries: a text, --key or filters; `embedcache clear` removes all")

    def carry(cache: EmbeddingsCache, plan: RemovalPlan, tell: removal.Tell) -> RemovalReport:
        return removal.carry_out(cache.connection, plan, tell, options.actor())

    _by_plan(asked, "Removing", carry, url, name, dry_run=dry_run, yes=yes, json=json)


def _drop_one(
    text: str | None,
    key: str | None,
    model: str | None,
    url: str | None,
    name: str,
    layout: str,
    *,
    dry_run: bool,
    yes: bool,
    json: bool,
) -> None:
    with options.opened(url, name, layout, read_only=dry_run) as cache:
        wanted = key_of(cache, text, key, model)
        there = cache.exists_by_key(wanted)
        if there and not dry_run:
            confirm(f"Removing {output.plain(wanted, None)}", name, yes=yes)
        dropped = there and not dry_run and cache.drop_by_key(wanted)
    if json:
        output.show_json({"key": wanted, "found": there, "dropped": dropped, "dry_run": dry_run})
    else:
        words = "Dropped." if dropped else "It would be dropped." if there and dry_run else "There is no such entry."
        typer.echo(words)
    if not there:
        raise typer.Exit(Exit.NOTHING)


def clear(
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    json: options.Json = False,
) -> None:
    """Remove every entry of a cache, once you confirm. Other caches, statistics and the audit log stay."""
    with options.opened(url, name, read_only=dry_run) as cache:
        with output.progress("Counting keys") as tell:
            there = count_keys(cache.connection, tell).by_cache.get(name, 0)
        if not json:
            typer.echo(f"Cache {output.plain(name)} has {there:,} entries.")
        if dry_run:
            if json:
                output.show_json({"cache": name, "entries": there, "dry_run": True})
            return
        confirm(f"Removing all {there:,} entries of {output.plain(name)}", name, yes=yes)
        with output.steps("Removing") as bar:
            report = removal.clear_cache(cache.connection, name, lambda done: bar(done, there), options.actor())
    _show_report(report, json=json)


def ttl(
    text: Text = None,
    key: Key = None,
    seconds: Annotated[
        int | None,
        typer.Option("--set", parser=choosing.whole_span, metavar="TIME", help="Live so long from now: 90, 15m, 7d."),
    ] = None,
    persist: Annotated[bool, typer.Option("--persist", help="Let it never expire.")] = False,
    everything: Everything = False,
    model: choosing.OfModel = None,
    contains: choosing.Contains = None,
    metadata: choosing.Field = None,
    older: choosing.Older = None,
    newer: choosing.Newer = None,
    idle: choosing.Idle = None,
    expires_within: choosing.Expires = None,
    never_expires: choosing.NeverExpires = None,
    larger: choosing.Larger = None,
    smaller: choosing.Smaller = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Show how long an entry lives still; with --set or --persist, change it, of one entry or of all that match."""
    if seconds is not None and persist:
        raise InvalidInputError("--set and --persist exclude each other")
    wanted = NEVER if persist else None if seconds is None else seconds
    if text is not None or key is not None:
        others = (contains, metadata, older, newer, idle, expires_within, never_expires, larger, smaller)
        if everything or any(each is not None for each in others):
            raise InvalidInputError("a text or --key names one entry; filters name others. Give one or the other")
        _ttl_of_one(text, key, model, wanted, url, name, layout, dry_run=dry_run, json=json)
        return
    asked = choosing.entry_filter(
        contains, model, metadata, older, newer, idle, expires_within, never_expires, larger, smaller
    )
    if wanted is None:
        raise InvalidInputError("say whose TTL to show: a text or --key; or what to --set")
    if asked.is_empty and not everything:
        raise InvalidInputError("say which entries: a text, --key, filters, or --all")

    def carry(cache: EmbeddingsCache, plan: RemovalPlan, tell: removal.Tell) -> RemovalReport:
        return removal.set_ttl(cache.connection, plan, wanted, tell, options.actor())

    _by_plan(asked, "Changing the TTL of", carry, url, name, dry_run=dry_run, yes=yes, json=json)


def _ttl_of_one(
    text: str | None,
    key: str | None,
    model: str | None,
    wanted: int | Never | None,
    url: str | None,
    name: str,
    layout: str,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    looks = wanted is None or dry_run
    with options.opened(url, name, layout, read_only=looks) as cache:
        one = key_of(cache, text, key, model)
        changed = not looks and (cache.persist(one) if wanted is NEVER else cache.expire(one, wanted))
        there = cache.exists_by_key(one)
        left = cache.remaining_ttl(one) if there else None
    seconds = left if isinstance(left, int) else None
    if json:
        output.show_json({"key": one, "found": there, "expires_in": seconds, "changed": bool(changed)})
    elif there:
        typer.echo("It never expires." if seconds is None else f"It expires in {output.span(seconds)} ({seconds:,} s).")
    else:
        typer.echo("There is no such entry.")
    if not there:
        raise typer.Exit(Exit.NOTHING)


# ------------------------------------------------------------------------------------------------ plans


def _by_plan(
    asked: EntryFilter, doing: str, carry: Carry, url: str | None, name: str, *, dry_run: bool, yes: bool, json: bool
) -> None:
    """Plan, confirm, carry out, report: for all that changes many entries."""
    with options.opened(url, name, read_only=dry_run) as cache:
        plan = choosing.choose(cache, asked).plan(asked)
        if not json:
            typer.echo(
                f"{len(plan):,} entries of {output.plain(name)} match, {output.size(plan.total_bytes)} of values."
            )
            for each in plan.keys(slice(0, _SHOWN_KEYS)):
                typer.echo(f"  {output.plain(each, None)}")
        if dry_run or not len(plan):
            if json:
                output.show_json(choosing.described(plan) | {"dry_run": dry_run, "changed": 0})
            return
        confirm(f"{doing} {len(plan):,} entries of {output.plain(name)}", name, yes=yes)
        with output.steps(doing) as tell:
            report = carry(cache, plan, tell)
    _show_report(report, json=json)


def _show_report(report: RemovalReport, *, json: bool) -> None:
    if json:
        output.show_json(asdict(report) | {"dry_run": False})
        return
    verb = "changed" if report.action == "set TTL" else "removed"
    typer.echo(f"{report.changed:,} entries were {verb} in {output.span(report.seconds)}.")
    told: dict[str, Any] = {
        "were gone already": report.gone,
        "were written anew since, and stay": report.kept_newer,
        "were skipped": report.skipped,
    }
    for words, count in told.items():
        if count:
            typer.echo(f"{count:,} {words}.")
    if verb == "removed" and report.remaining is not None:
        typer.echo(f"Counted again: {report.remaining:,} of them are there.")
