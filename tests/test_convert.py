"""A cache moved from one layout to the other: what is kept, what is left alone, and what a crash leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import NO_SCRIPTS, looking_at
from redisvl_packages import NEW, redisvl
from servers import Server, running

from embedcache import NEVER, EmbeddingsCache, audit
from embedcache.codec import stored_dtype
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, InvalidInputError, ReadOnlyError, ServerReplyError
from embedcache.operations import ServerAbilities
from embedcache.transfer import converting
from embedcache.transfer.convert import LISTED, ConvertReport, convert_entries
from embedcache.transfer.converting import Fate, ToPacked, ToRedisVL

MODEL = "a/model"
METADATA = {"category": "ai", "tags": ["ü", {"b": None}], "n": 1}
WAYS = [("packed", "redisvl"), ("redisvl", "packed")]
ways = pytest.mark.parametrize(("before", "after"), WAYS, ids=["to redisvl", "to packed"])


def cache_of(server: Server, layout: Any, name: str = "c", **options: Any) -> EmbeddingsCache:
    return EmbeddingsCache(
        name, redis_url=server.url, layout=layout, **{"stats": False, "refresh_ttl": False} | options
    )


def items(count: int) -> list[Any]:
    vectors = np.random.default_rng(5).standard_normal((count, 8)).astype(np.float32)
    return [
        {"text": _text(n), "model_name": MODEL, "embedding": vectors[n], "metadata": {"n": n} if n % 3 else None}
        for n in range(count)
    ]


def _text(number: int) -> str | bytes:
    return f"text {number}" if number % 10 else b"\xff image %d" % number


def contents(cache: EmbeddingsCache, texts: list[Any]) -> list[Any]:
    """All of the entries that does not depend on the layout."""
    return [
        entry
        and {name: value for name, value in entry.items() if name not in {"key", "entry_id", "embedding"}}
        | {"embedding": entry["embedding"].tolist()}
        for entry in cache.mget(texts, MODEL)
    ]


def entries(server: Server) -> int:
    """How many keys the cache has, its audit log left out."""
    return len(list(server.raw.scan_iter(f"c:{'?' * 64}", count=1_000)))


def sums(report: ConvertReport) -> dict[str, int]:
    """What is not zero."""
    names = ("converted", "skipped", "unreadable", "changed_meanwhile", "vanished")
    return {name: count for name in names if (count := getattr(report, name))}


# ------------------------------------------------------------------------------------------------ in place


@pytest.mark.parametrize("rights", [(), NO_SCRIPTS], ids=["scripts", "no scripts"])
@ways
def test_entries_keep_all_that_they_have(server: Server, before: str, after: str, rights: tuple[str, ...]) -> None:
    given = [*items(30), {**items(1)[0], "text": "own", "ttl": 900}, {**items(1)[0], "text": b"\xfe", "ttl": 500}]
    texts = [each["text"] for each in given]
    with cache_of(server, before) as old, cache_of(server, after) as new:
        keys = old.mset(given)
        server.raw.expire(keys[-2], 100)
        server.raw.expire(keys[3], 300)
        expected = contents(old, texts)
        with looking_at(server, *rights) as connection:
            report = convert_entries(connection, "c", new.layout)
        assert sums(report) == {"converted": 32}
        assert contents(new, texts) == expected
        assert [entry["ttl"] for entry in new.mget(texts[-2:], MODEL)] == [900, 500]
        left = [new.remaining_ttl(new.key_for(text, MODEL)) for text in (texts[-2], texts[-1], texts[3], texts[4])]
        assert left[3] is NEVER
        assert [round(seconds, -2) for seconds in left[:3]] == [100, 500, 300]
        assert old.mget(texts, MODEL) == [None] * 32
        assert entries(server) == 32


@ways
def test_begun_again_it_skips_what_is_done(valkey: Server, before: str, after: str) -> None:
    with cache_of(valkey, before) as old, cache_of(valkey, after) as new:
        old.mset(items(600))
        assert sums(convert_entries(new.connection, "c", new.layout)) == {"converted": 600}
        assert sums(convert_entries(new.connection, "c", new.layout)) == {"skipped": 600}
        old.mset(items(20))
        new.drop("text 1", MODEL)
        # Two of them are bytes, whose new keys are taken; their old entries stay.
        assert convert_entries(new.connection, "c", new.layout).converted == 17


@ways
def test_there_and_back_again_is_the_same(valkey: Server, before: str, after: str) -> None:
    with cache_of(valkey, before, dtype="float64") as old:
        given = items(50)
        texts = [each["text"] for each in given]
        keys = old.mset([{**each, "embedding": np.float64(each["embedding"]) / 3} for each in given], ttl=900)
        expected = contents(old, texts)
        stored = {key: valkey.raw.dump(key) for key in keys}
        for layout in (after, before):
            convert_entries(old.connection, "c", layout, dtype="float64")  # type: ignore[arg-type]
        assert contents(old, texts) == expected
        if before == "packed":
            assert {key: valkey.raw.dump(key) for key in keys} == stored


def test_redisvl_reads_what_was_converted_and_what_it_wrote_is_converted(valkey: Server) -> None:
    with redisvl(NEW, valkey.url, "c") as theirs, cache_of(valkey, "packed", dtype="float64") as ours:
        theirs.set("theirs", MODEL, [0.1, 0.2], METADATA, 900)
        theirs.set(b"\xff", MODEL, [0.3])
        inserted_at = theirs.get("theirs", MODEL)["inserted_at"]
        assert sums(convert_entries(ours.connection, "c", "packed", dtype="float64")) == {"converted": 2}
        entry = ours.get("theirs", MODEL)
        assert (entry["embedding"].tolist(), entry["metadata"]) == ([0.1, 0.2], METADATA)
        assert (entry["inserted_at"], entry["ttl"]) == (inserted_at, None)
        assert 800 < ours.remaining_ttl(entry["key"]) <= 900
        assert ours.get(b"\xff", MODEL)["embedding"].tolist() == [0.3]
        assert sums(convert_entries(ours.connection, "c", "redisvl")) == {"converted": 2}
        assert theirs.get("theirs", MODEL)["embedding"] == [0.1, 0.2]
        assert theirs.get(b"\xff", MODEL)["embedding"] == [0.3]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_packed_entries_have_the_dtype_that_is_wanted(valkey: Server, dtype: str) -> None:
    with cache_of(valkey, "redisvl") as old, cache_of(valkey, "packed", dtype=dtype) as new:
        old.set("a", MODEL, [1.0, -0.5])
        convert_entries(new.connection, "c", "packed", dtype=dtype)
        copied = valkey.raw.get(new.key_for("a", MODEL))
        new.set("a", MODEL, [1.0, -0.5])
        assert len(valkey.raw.get(new.key_for("a", MODEL))) == len(copied)


def test_other_caches_and_strangers_keys_stay_as_they_are(valkey: Server) -> None:
    with cache_of(valkey, "packed", "c") as mine, cache_of(valkey, "packed", "c:d") as other:
        mine.set("a", MODEL, [1.0])
        kept = [other.set("a", MODEL, [1.0]), "c:not an id", "c"]
        valkey.raw.mset({kept[1]: "x", kept[2]: "x"})
        before = {key: valkey.raw.dump(key) for key in kept}
        assert sums(convert_entries(mine.connection, "c", "redisvl")) == {"converted": 1}
        assert {key: valkey.raw.dump(key) for key in kept} == before


# ------------------------------------------------------------------------------------------------ what is left alone


@ways
def test_what_cannot_be_read_is_left_and_named(valkey: Server, before: str, after: str) -> None:
    with cache_of(valkey, before) as old:
        keys = old.mset(items(5))
        key = old.key_for("strange", MODEL)
        valkey.raw.rpush(key, "x")
        if before == "packed":
            valkey.raw.setrange(keys[1], 30, "xxx")
        else:
            valkey.raw.hset(keys[1], "embedding", "[0.5, NaN]")
        left = {each: valkey.raw.dump(each) for each in (key, keys[1])}
        report = convert_entries(old.connection, "c", after)  # type: ignore[arg-type]
        assert sums(report) == {"converted": 4, "unreadable": 2}
        assert set(report.unreadable_keys) == {key, keys[1]}
        assert {each: valkey.raw.dump(each) for each in left} == left


def test_no_more_than_some_unreadable_keys_are_named(valkey: Server) -> None:
    with cache_of(valkey, "packed") as cache:
        for number in range(LISTED + 200):
            valkey.raw.set(cache.key_for(f"text {number}", MODEL), "x")
        report = convert_entries(cache.connection, "c", "redisvl")
        assert (report.unreadable, len(report.unreadable_keys)) == (LISTED + 200, LISTED)


def way_to(after: str) -> Any:
    return ToRedisVL("c", "c") if after == "redisvl" else ToPacked("c", "c", stored_dtype("float32"))


@ways
def test_what_somebody_wrote_meanwhile_stays(server: Server, before: str, after: str) -> None:
    with cache_of(server, before) as old, cache_of(server, after) as new:
        texts = ["same", "written", "dropped", "gone over", b"\xff"]
        keys = old.mset([{"text": text, "model_name": MODEL, "embedding": [1.0]} for text in texts])
        way = way_to(after)
        found = old.connection.drive(way.read(keys))
        old.set("written", MODEL, [2.0], METADATA, ttl=900)
        old.drop("dropped", MODEL)
        new.set("gone over", MODEL, [3.0])
        new.set(b"\xff", MODEL, [4.0])
        fates = old.connection.drive(converting.replace(way, ServerAbilities(), found))
        assert fates == [Fate.CONVERTED, Fate.CHANGED, Fate.GONE, Fate.CHANGED, Fate.SKIPPED]
        assert old.get("written", MODEL)["metadata"] == METADATA
        assert new.get("dropped", MODEL) is None
        assert new.get("gone over", MODEL)["embedding"].tolist() == [3]
        assert new.get(b"\xff", MODEL)["embedding"].tolist() == [4]
        assert new.get("same", MODEL)["embedding"].tolist() == [1]


@ways
def test_what_expired_since_it_was_listed_has_vanished(valkey: Server, before: str, after: str) -> None:
    with cache_of(valkey, before) as old:
        keys = old.mset(items(3))

        def drop(done: int, total: int | None) -> None:
            if total is None:
                valkey.raw.delete(keys[1])

        assert sums(convert_entries(old.connection, "c", after, drop)) == {"converted": 2, "vanished": 1}  # type: ignore[arg-type]


@ways
def test_writers_and_readers_never_see_an_older_version(valkey: Server, before: str, after: str) -> None:
    """Others write while it is at work: the last version of each entry is there in the end, in one of the layouts."""
    count, stop = 400, threading.Event()
    versions = dict.fromkeys(range(count), 0)

    def write() -> None:
        with cache_of(valkey, before) as cache:
            while not stop.is_set():
                for number in range(0, count, 7):
                    cache.set(f"text {number}", MODEL, [float(versions[number] + 1)])
                    versions[number] += 1

    with cache_of(valkey, before) as old, cache_of(valkey, after) as new:
        old.mset([{"text": f"text {n}", "model_name": MODEL, "embedding": [0.5]} for n in range(count)])
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(5):
                convert_entries(new.connection, "c", new.layout, pace=1.0)
        finally:
            stop.set()
            writer.join()
        texts = [f"text {n}" for n in range(count)]
        for number, (first, second) in enumerate(zip(old.mget(texts, MODEL), new.mget(texts, MODEL), strict=True)):
            assert (first is None) is not (second is None)
            assert (first or second)["embedding"].tolist() == [versions[number] or 0.5]


# ------------------------------------------------------------------------------------------------ to another server


@pytest.fixture
def other() -> Iterator[Server]:
    with running("redis62") as server:
        yield server


@pytest.mark.parametrize("rights", [(), NO_SCRIPTS], ids=["scripts", "no scripts"])
@ways
def test_entries_are_copied_to_another_server(
    valkey: Server, other: Server, before: str, after: str, rights: tuple[str, ...]
) -> None:
    given = [*items(300), {**items(1)[0], "text": "own", "ttl": 900}]
    texts = [each["text"] for each in given]
    with cache_of(valkey, before) as source, cache_of(other, after) as target:
        source.mset(given)
        target.set("text 1", MODEL, [9.0])
        expected = contents(source, texts)
        with looking_at(other, *rights) as connection:
            report = convert_entries(source.connection, "c", target.layout, to=connection)
            assert sums(report) == {"converted": 300, "skipped": 1}
            assert sums(convert_entries(source.connection, "c", target.layout, to=connection)) == {"skipped": 301}
        assert contents(source, texts) == expected
        assert target.get("text 1", MODEL)["embedding"].tolist() == [9]
        assert contents(target, texts)[2:] == expected[2:]
        assert 800 < target.remaining_ttl(target.key_for("own", MODEL)) <= 900
        assert target.remaining_ttl(target.key_for("text 2", MODEL)) is NEVER


@ways
def test_entries_are_copied_under_another_name(valkey: Server, before: str, after: str) -> None:
    with cache_of(valkey, before) as source, cache_of(valkey, after, "d") as target:
        given = items(30)
        texts = [each["text"] for each in given]
        source.mset(given)
        assert sums(convert_entries(source.connection, "c", target.layout, to_name="d")) == {"converted": 30}
        assert contents(target, texts) == contents(source, texts)
        assert {entry["key"][:2] for entry in target.mget(texts, MODEL)} == {"d:"}


# ------------------------------------------------------------------------------------------------ how it ends


def test_it_tells_how_far_it_is_and_ends_where_that_raises(valkey: Server) -> None:
    told: list[tuple[int, int | None]] = []

    def tell(done: int, total: int | None) -> None:
        told.append((done, total))
        if done >= 500:
            raise KeyboardInterrupt

    with cache_of(valkey, "packed") as cache:
        cache.mset(items(700))
        with pytest.raises(KeyboardInterrupt):
            convert_entries(cache.connection, "c", "redisvl", tell)
        assert told[-2:] == [(250, 700), (500, 700)]
        assert sums(convert_entries(cache.connection, "c", "redisvl")) == {"converted": 200, "skipped": 500}


def test_it_is_on_record_however_it_ends(valkey: Server) -> None:
    def stop(done: int, _total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with cache_of(valkey, "packed") as cache:
        cache.mset(items(600))
        with pytest.raises(KeyboardInterrupt):
            convert_entries(cache.connection, "c", "redisvl", stop, actor="ada")
        (record,) = audit.read(cache.connection, "c")
        assert (record.actor, record.action, record.count) == ("ada", "convert", 250)
        assert {"layout": "redisvl", "outcome": "cancelled"}.items() <= record.detail.items()
        report = convert_entries(cache.connection, "c", "redisvl")
        assert report.recorded
        record = audit.read(cache.connection, "c")[0]
        assert (record.actor, record.count, record.detail["skipped"]) == ("embedcache", 350, 250)
        assert record.detail["outcome"] == "done"
        convert_entries(cache.connection, "c", "packed", to_name="d")
        assert audit.read(cache.connection, "d")[0].detail["from"] == "c"
        convert_entries(cache.connection, "c", "packed", actor=None)
        assert len(audit.read(cache.connection, "c")) == 2


def test_a_server_that_goes_away_is_on_record_as_far_as_it_was(monkeypatch: pytest.MonkeyPatch, valkey: Server) -> None:
    monkeypatch.setattr("embedcache.transfer.convert._TELL_SECONDS", 0.0)
    with cache_of(valkey, "packed") as cache:
        cache.mset(items(600))

        def leave(done: int, _total: int | None) -> None:
            if done:
                raise ServerReplyError("refused")

        with pytest.raises(ServerReplyError):
            convert_entries(cache.connection, "c", "redisvl", leave)
        (record,) = audit.read(cache.connection, "c")
        assert (record.count, record.detail["outcome"]) == (250, "failed")


@ways
def test_a_near_cache_of_this_process_lets_go(valkey: Server, before: str, after: str) -> None:
    with cache_of(valkey, before, near_cache=100) as cache:
        cache.set("a", MODEL, [1.0])
        assert cache.get("a", MODEL) is not None
        convert_entries(cache.connection, "c", after)  # type: ignore[arg-type]
        assert cache.get("a", MODEL) is None


def test_bad_input_is_refused_before_anything_is_read() -> None:
    nowhere = RedisConnection("unix:///nowhere")
    wrong: Any = "json"
    for refused in (
        lambda: convert_entries(nowhere, "c", wrong),
        lambda: convert_entries(nowhere, "", "packed"),
        lambda: convert_entries(nowhere, "c", "packed", dtype="float8"),
        lambda: convert_entries(nowhere, "c", "packed", pace=0),
        lambda: convert_entries(nowhere, "c", "packed", to_name=" "),
    ):
        with pytest.raises(InvalidInputError):
            refused()
    with pytest.raises(ReadOnlyError, match="read_only=False"):
        convert_entries(RedisConnection("unix:///nowhere", read_only=True), "c", "packed")
    with pytest.raises(CacheUnavailableError):
        convert_entries(nowhere, "c", "packed")


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("kind", ["valkey9", "redis62"])
@ways
def test_a_full_server_loses_nothing(kind: str, before: str, after: str, scripts: bool) -> None:
    with running(kind) as server, cache_of(server, before) as old:
        texts = [each["text"] for each in items(20)]
        old.mset(items(20))
        expected = contents(old, texts)
        server.raw.config_set("maxmemory", 1)
        with (
            looking_at(server, *(() if scripts else NO_SCRIPTS)) as connection,
            pytest.raises(ServerReplyError, match=r"OOM|EXECABORT"),
        ):
            convert_entries(connection, "c", after)  # type: ignore[arg-type]
        assert contents(old, texts) == expected


_CONVERTING = """
import sys
from embedcache.connection import RedisConnection
from embedcache.transfer.convert import convert_entries
convert_entries(RedisConnection(sys.argv[1]), "c", sys.argv[2], lambda done, total: print(done, flush=True), pace=1.0)
"""


@ways
def test_a_process_that_is_killed_loses_nothing(valkey: Server, before: str, after: str) -> None:
    given = items(3_000)
    texts = [each["text"] for each in given]
    with cache_of(valkey, before) as old, cache_of(valkey, after) as new:
        old.mset(given, ttl=900)
        expected = contents(old, texts)
        process = subprocess.Popen(
            [sys.executable, "-c", _CONVERTING, valkey.url, after],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert process.stdout is not None
        while process.stdout.readline().strip() != "500":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        mixed = [first or second for first, second in zip(contents(old, texts), contents(new, texts), strict=True)]
        assert mixed == expected
        report = convert_entries(new.connection, "c", new.layout)
        assert 500 <= report.skipped < 3_000
        assert report.converted == 3_000 - report.skipped
        assert contents(new, texts) == expected


@ways
def test_a_server_that_is_killed_loses_nothing(before: str, after: str) -> None:
    given = items(2_000)
    texts = [each["text"] for each in given]
    with running("valkey9", "--appendonly", "yes", "--appendfsync", "always") as server:
        with cache_of(server, before) as old:
            old.mset(given, ttl=900)
            expected = contents(old, texts)

            def kill(done: int, total: int | None) -> None:
                if done == 500:
                    threading.Timer(0.002, server.kill).start()

            with pytest.raises(CacheUnavailableError):
                convert_entries(old.connection, "c", after, kill, pace=0.5)  # type: ignore[arg-type]
        server.stop()
        server.start()
        with cache_of(server, before) as old, cache_of(server, after) as new:
            mixed = [first or second for first, second in zip(contents(old, texts), contents(new, texts), strict=True)]
            assert mixed == expected
            assert entries(server) == 2_000
            convert_entries(new.connection, "c", new.layout)
            assert contents(new, texts) == expected
            assert all(800_000 < server.pttl(new.key_for(text, MODEL)) <= 900_000 for text in texts[:50])
