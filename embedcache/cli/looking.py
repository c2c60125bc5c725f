"""Commands that only look: ``caches``, ``ls``, ``get``, ``why``, ``stats``, ``metrics``."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, cast

import typer

from embedcache import inspector
from embedcache.cache import EmbeddingsCache
from embedcache.cli import choosing, options, output
from embedcache.cli.exits import Exit
from embedcache.entry import CacheEntry, EntrySummary
from embedcache.errors import InvalidInputError
from embedcache.index import Column
from embedcache.statistics import CacheStats

_PAGE: Final = 1_000
_VECTOR_SHOWN: Final = 4
_TOP: Final = "\x1b[H\x1b[J"  # the cursor to the first line, and all below it cleared

Sort = Literal["inserted", "expires", "used", "size", "model", "dimension", "ttl"]
_COLUMNS: Final[dict[Sort, Column]] = {
    "inserted": "inserted_at",
    "expires": "expires_at",
    "used": "last_access",
    "size": "value_bytes",
    "model": "model_name",
    "dimension": "dimension",
    "ttl": "ttl",
}


def caches(url: options.Url = None, json: options.Json = False) -> None:
    """List the caches of a server, RedisVL's among them."""
    with options.opened(url, options.DEFAULT_NAME, read_only=True) as cache:
        found = inspector.find_caches(cache.connection)
    if json:
        output.show_json(asdict(found))
        return
    output.show_table(
        ("cache", "entries", "of RedisVL", "size of values", "models"),
        (
            (
                output.plain(each.name),
                each.entries,
                each.redisvl_entries,
                output.size(each.bytes),
                ", ".join(output.plain(model) for model in each.models),
            )
            for each in found.caches
        ),
        empty="There is no cache on this server yet.",
    )
    if not found.complete:
        output.note(f"Only {found.scanned_keys:,} keys were looked at, so that there may be more.")


def ls(
    contains: choosing.Contains = None,
    model: choosing.OfModel = None,
    metadata: choosing.Field = None,
    older: choosing.Older = None,
    newer: choosing.Newer = None,
    idle: choosing.Idle = None,
    expires_within: choosing.Expires = None,
    never_expires: choosing.NeverExpires = None,
    larger: choosing.Larger = None,
    smaller: choosing.Smaller = None,
    corrupt: choosing.Corrupt = False,
    sort: Annotated[Sort, typer.Option("--sort", help="By what, largest or latest first.")] = "inserted",
    ascending: Annotated[bool, typer.Option("--ascending", help="Smallest or earliest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=100_000, help="How many at most.")] = 20,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    json: options.Json = False,
) -> None:
    """List entries of a cache: all, or those that match every filter given."""
    asked = choosing.entry_filter(
        contains, model, metadata, older, newer, idle, expires_within, never_expires, larger, smaller, corrupt
    )
    with options.opened(url, name, read_only=True) as cache:
        chosen = choosing.choose(cache, asked)
        index = chosen.index
        ordered = index.order(chosen.positions, _COLUMNS[sort], descending=not ascending)[:limit]
        keys = index.keys(ordered)
        found = [
            summary
            for start in range(0, len(keys), _PAGE)
            for summary in inspector.summarise(cache.connection, keys[start : start + _PAGE])
        ]
    unread = [
        {"key": key, "unreadable": True, "value_bytes": int(index.value_bytes[position])}
        for key, position, summary in zip(keys, ordered.tolist(), found, strict=True)
        if summary is None
    ]
    total = len(chosen.positions)
    if json:
        output.show_json(
            {"cache": name, "matching": total, "entries": [_as_json(each) for each in found if each] + unread}
        )
        return
    _show_entries([each for each in found if each], f"No entry of {output.plain(name)} matches.", unread)
    if total > len(keys):
        output.note(f"{len(keys):,} of {total:,} entries are shown. --limit shows more, filters show others.")


def _show_entries(found: list[EntrySummary], empty: str, unread: list[dict[str, Any]]) -> None:
    now = time.time()
    rows: list[tuple[output.Cell, ...]] = [
        (
            output.plain(each.text),
            output.plain(each.model_name, 40),
            each.dimension,
            each.dtype,
            output.span(now - each.inserted_at),
            "never" if each.expires_in is None else output.span(each.expires_in),
            output.size(each.value_bytes),
            output.plain(each.metadata, 40) if each.metadata else None,
            each.key[-64:][:12],
        )
        for each in found
    ]
    nothing = [None] * 5
    rows += [
        ("(unreadable)", *nothing, output.size(each["value_bytes"]), None, each["key"][-64:][:12]) for each in unread
    ]
    headings = ("text", "model", "dimensions", "dtype", "age", "expires in", "size", "metadata", "id begins")
    output.show_table(headings, rows, empty=empty)


def _as_json(each: EntrySummary) -> dict[str, Any]:
    record = asdict(each)
    return output.json_text(record.pop("text")) | record


# ------------------------------------------------------------------------------------------------ one entry

Text = Annotated[str | None, typer.Argument(help="The text, as it was stored.", show_default=False)]
Key = Annotated[str | None, typer.Option("--key", help="The entry's key, in place of a text.")]


def get(
    text: Text = None,
    key: Key = None,
    model: options.Model = None,
    vector: Annotated[bool, typer.Option("--vector", help="Show the whole vector.")] = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Show an entry, by its text or its key. Looking restarts no TTL and is not counted."""
    with options.opened(url, name, layout, read_only=True) as cache:
        wanted = key_of(cache, text, key, model)
        entry = cache.get_by_key(wanted)
        left = cache.remaining_ttl(wanted) if entry else None
    if entry is None:
        missing = {"found": False, "key": wanted}
        output.show_json(missing) if json else output.note("There is no such entry. `embedcache why` tells why.")
        raise typer.Exit(Exit.NOTHING)
    seconds = left if isinstance(left, int) else None
    if json:
        output.show_json({"found": True, **_entry_as_json(entry, vector=vector), "expires_in": seconds})
        return
    numbers = entry["embedding"] if vector else entry["embedding"][:_VECTOR_SHOWN]
    output.show_facts(
        {
            "text": output.plain(entry["text"], None),
            "model": output.plain(entry["model_name"], None),
            "key": output.plain(entry["key"], None),
            "inserted": f"{output.moment(entry['inserted_at'])} UTC",
            "expires in": output.span(seconds) if seconds is not None else "never",
            "own TTL": output.span(entry["ttl"]),
            "metadata": output.plain(entry["metadata"], None) if entry["metadata"] else None,
            "dimensions": len(entry["embedding"]),
            "vector": ", ".join(f"{number:.6g}" for number in numbers) + ("" if vector else ", …"),
        }
    )


def key_of(cache: EmbeddingsCache, text: str | None, key: str | None, model: str | None) -> str:
    """The key of the entry that is named by its text or its key.

    Raises:
        InvalidInputError: It is named by both, or by neither.
        ForeignKeyError: The key is of no entry of this cache.
    """
    if (text is None) == (key is None):
        raise InvalidInputError("name the entry by its text, or by --key")
    if key is None:
        return cache.key_for(cast("str", text), options.model_or_default(model))
    if not cache.owns(key):
        from embedcache.errors import ForeignKeyError

        raise ForeignKeyError(f"{key!r} is no key of an entry of cache {cache.name!r}")
    return key


def _entry_as_json(entry: CacheEntry, *, vector: bool) -> dict[str, Any]:
    record: dict[str, Any] = dict(entry)
    told = {name: record[name] for name in ("key", "model_name", "inserted_at", "metadata", "ttl")}
    told |= output.json_text(entry["text"]) | {"dimension": len(entry["embedding"])}
    return told | {"embedding": entry["embedding"]} if vector else told


def why(
    text: Annotated[str, typer.Argument(help="The text that is asked for.")],
    model: options.Model = None,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Tell why a text hits or misses: expired, evicted, another model, another spelling, never stored."""
    with options.opened(url, name, layout, read_only=True) as cache:
        found = cache.why(text, options.model_or_default(model))
    if json:
        similar = [output.json_text(like) | {"model_name": of} for like, of in found.similar]
        output.show_json(
            {
                "reason": found.reason.value,
                "hit": found.is_hit,
                "key": found.key,
                "similar": similar,
                "stored_at": found.stored_at,
                "expired_at": found.expired_at,
                "detail": found.detail,
            }
        )
    else:
        typer.echo(output.plain(found, None))
    if not found.is_hit:
        raise typer.Exit(Exit.NOTHING)


# ------------------------------------------------------------------------------------------------ statistics


def stats(
    window: Annotated[str, typer.Option("--window", "-w", help="How long, up to now: 15m, 24h, 7d, all.")] = "1h",
    watch: Annotated[bool, typer.Option("--watch", help="Show them anew every few seconds, until Ctrl+C.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="With --watch: seconds in between.")] = 2.0,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    json: options.Json = False,
) -> None:
    """Show hits, misses, latencies and savings of all processes, by model. With --watch --json, a document a line."""
    with options.opened(url, name, read_only=True) as cache:
        while True:
            found = {"": cache.stats(window), **cache.stats_by_model(window)}
            if watch and not json and sys.stdout.isatty():
                sys.stdout.write(_TOP)
            _show_stats(name, window, found, json=json)
            if not watch:
                return
            time.sleep(every)


def _show_stats(name: str, window: str, found: dict[str, CacheStats], *, json: bool) -> None:
    if json:
        total, *models = [_stats_as_json(each) for each in found.values()]
        output.show_json({"cache": name, "window": window, "total": total, "models": models})
        return
    typer.echo(
        f"Cache {output.plain(name)}, " + ("all the time" if window == "all" else f"last {output.plain(window)}")
    )
    output.show_table(
        ("model", "texts", "hit rate", "hits", "misses", "stored", "dropped", "errors", "p50", "p95", "time saved"),
        (
            (
                output.plain(model or "(all)", 40),
                each.texts,
                output.share(each.hit_rate),
                each.hits + each.near_hits,
                each.misses,
                each.sets,
                each.drops,
                each.errors,
                output.span(each.p50),
                output.span(each.p95),
                output.span(each.time_saved),
            )
            for model, each in found.items()
        ),
        empty="Nothing was counted.",
    )


def _stats_as_json(each: CacheStats) -> dict[str, Any]:
    record = asdict(each)
    del record["latencies"]
    told = {"hit_rate": each.hit_rate, "lookups": each.lookups, "p50": each.p50, "p95": each.p95, "p99": each.p99}
    return record | told


def metrics(
    serve: Annotated[
        int | None, typer.Option("--serve", metavar="PORT", min=1, max=65_535, help="Answer at this port of 127.0.0.1.")
    ] = None,
    url: options.Url = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", "-n", help="A cache; may be given several times.", show_default="all of the server"),
    ] = None,
) -> None:
    """Print what all processes have counted in Prometheus' text format, or serve it until Ctrl+C."""
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server  # an extra, as the error says

    from embedcache.integrations.prometheus import SharedCollector

    with options.opened(url, options.DEFAULT_NAME, read_only=True) as cache:
        inspector.ping(cache.connection)
        names = name or inspector.find_names(cache.connection) or [options.DEFAULT_NAME]
        registry = CollectorRegistry()
        registry.register(SharedCollector.over(cache.connection, names))
        if serve is None:
            typer.echo(generate_latest(registry).decode(), nl=False)
            return
        try:
            server, thread = start_http_server(serve, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise InvalidInputError(f"port {serve} cannot be listened at: {error.strerror}") from error
        output.note(f"http://127.0.0.1:{serve}/metrics answers until Ctrl+C")
        try:
            thread.join()
        finally:
            server.shutdown()
