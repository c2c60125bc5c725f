"""Each thing that may be wrong with a cache: made on a real server, found, put right, and not found again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from looking import NO_SCRIPTS, looking_at, redisvl_hash
from servers import Server, running

from embedcache import NEVER, EmbeddingsCache, audit, buckets, codec, doctor
from embedcache.benchmark import runs
from embedcache.doctor import Examination, Finding, Kind
from embedcache.doctor.namespace import HELD
from embedcache.errors import InvalidInputError, ReadOnlyError, ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.removal import RemovalStoppedError

MODEL = "a/model"
GOOD = [f"text {number}" for number in range(20)]
TTL = 500


def items(texts: list[Any], size: int = 4, **fields: Any) -> list[Any]:
    plain = {"model_name": MODEL, "embedding": [0.5] * size}
    return [{"text": text, **plain, **fields} for text in texts]


@pytest.fixture
def cache(server: Server) -> Iterator[EmbeddingsCache]:
    """A cache in which nothing is wrong, with statistics and an audit log, and neighbours whose names are alike."""
    for name in ("c:b", "cc", "*", "c:stats"):
        with EmbeddingsCache(name, redis_url=server.url) as neighbour:
            neighbour.mset(items(["theirs"]))
            neighbour.flush_stats()
    server.raw.set("cx", "no cache's")
    server.raw.set("c", "no cache's")
    with EmbeddingsCache("c", ttl=TTL, redis_url=server.url, slow_lookup_seconds=0) as opened:
        opened.mset(items(GOOD))
        opened.mget([*GOOD, "missing"], MODEL)
        opened.set_token_price(MODEL, 0.02)
        opened.flush_stats()
        audit.record(opened.connection, "c", "tests", "made")
        server.raw.set("c:flight:" + "0" * 32, "token", px=60_000)
        yield opened


def neighbours(server: Server) -> dict[bytes, str]:
    """Digests of what is not the cache's own, by key."""
    keys = [key for key in server.raw.scan_iter() if not key.startswith(b"c:") or key.startswith((b"c:b", b"c:stats:"))]
    mine = [key for key in keys if not key.startswith(b"c:stats:{" + tag("c"))]
    return {key: hashlib.sha256(server.raw.dump(key)).hexdigest() for key in mine}


def tag(name: str) -> bytes:
    return hashlib.sha256(name.encode()).hexdigest()[:8].encode()


def statistics_key(ending: str) -> str:
    return f"c:stats:{{{tag('c').decode()}}}:{ending}"


# ------------------------------------------------------------------------------------------------ what is made


def corrupt(cache: EmbeddingsCache, server: Server) -> list[str]:
    keys = cache.mset(items(["flipped", "cut", "moved"]))
    flipped = bytearray(server.raw.get(keys[0]))
    flipped[-1] ^= 1
    server.raw.set(keys[0], bytes(flipped), ex=60)
    server.raw.set(keys[1], server.raw.get(keys[1])[:-3])
    server.raw.set(keys[2], server.raw.get(cache.key_for(GOOD[0], MODEL)))
    return keys


def foreign_values(cache: EmbeddingsCache, server: Server) -> list[str]:
    keys = [f"c:{number:064x}" for number in range(4)]
    server.raw.rpush(keys[0], "x")
    server.raw.hset(keys[1], "a", "x")
    server.raw.set(keys[2], "a stranger's")
    server.raw.xadd(keys[3], {"a": "b"})
    return keys


def other_version(cache: EmbeddingsCache, server: Server) -> list[str]:
    key = cache.set("later", MODEL, [0.5] * 4)
    value = server.raw.get(key)
    server.raw.set(key, value[:3] + bytes([codec.MAGIC[3] + 1]) + value[4:])
    return [key]


def other_layout(cache: EmbeddingsCache, server: Server) -> list[str]:
    with EmbeddingsCache("c", ttl=TTL, redis_url=server.url, layout="redisvl", stats=False) as theirs:
        return theirs.mset(items(["their one", "their other"]))


def mixed_dimensions(cache: EmbeddingsCache, server: Server) -> list[str]:
    with EmbeddingsCache("c", ttl=TTL, redis_url=server.url, dtype="int8", stats=False) as other:
        return [*cache.mset(items(["long", "longer"], 5)), *other.mset(items(["longest"], 9))]


def no_ttl(cache: EmbeddingsCache, server: Server) -> list[str]:
    return cache.mset(items(["lasting", "too"]), ttl=NEVER)


def big_texts(cache: EmbeddingsCache, server: Server) -> list[str]:
    return cache.mset(items(["x" * doctor.BIG_TEXT_BYTES, "long in metadata"], metadata={"a": "x" * 100_000}))


def foreign_keys(cache: EmbeddingsCache, server: Server) -> list[str]:
    keys = ["c:", "c:junk", "c:" + "0" * 63, "c:" + "F" * 64, "c:stats:{00000000}:total", "c:audit", "c:flight:x"]
    server.raw.mset(dict.fromkeys(keys, "x"))
    server.raw.rpush(b"c:\xff", "x")
    return [*keys, "c:\\xff"]


def orphaned_keys(cache: EmbeddingsCache, server: Server) -> list[str]:
    keys = [statistics_key("total"), statistics_key("stored"), "c:flight:" + "1" * 32]
    server.raw.set(keys[2], "token of who died")
    for key in keys[:2]:
        assert server.raw.persist(key)
    return keys


def spoilt_keys(cache: EmbeddingsCache, server: Server) -> list[str]:
    keys = [statistics_key("total"), buckets.bucket_key(Keyspace("c"), buckets.HOURS, 0), statistics_key("prices")]
    server.raw.delete(*keys)
    for key in keys:
        server.raw.rpush(key, "x")
    return keys


MAKERS: dict[Kind, Callable[[EmbeddingsCache, Server], list[str]]] = {
    Kind.CORRUPT: corrupt,
    Kind.FOREIGN_VALUES: foreign_values,
    Kind.OTHER_VERSION: other_version,
    Kind.OTHER_LAYOUT: other_layout,
    Kind.MIXED_DIMENSIONS: mixed_dimensions,
    Kind.NO_TTL: no_ttl,
    Kind.BIG_TEXTS: big_texts,
    Kind.FOREIGN_KEYS: foreign_keys,
    Kind.ORPHANED_KEYS: orphaned_keys,
    Kind.SPOILT_KEYS: spoilt_keys,
}
kinds = pytest.mark.parametrize("kind", list(MAKERS), ids=lambda kind: kind.name.lower())


def only(examination: Examination) -> Finding:
    (finding,) = examination.findings
    return finding


def test_every_kind_has_a_test() -> None:
    assert {*MAKERS, Kind.EVICTION_POLICY} == set(Kind)


# ------------------------------------------------------------------------------------------------ found and put right


def test_where_nothing_is_wrong_nothing_is_found(cache: EmbeddingsCache, server: Server) -> None:
    before = neighbours(server)
    told: list[tuple[str, int, int | None]] = []
    found = doctor.examine(cache, lambda *step: told.append(step))
    assert (found.findings, found.not_told, found.entries, found.is_well) == ((), (), len(GOOD), True)
    assert {part for part, _, _ in told} == {"entries", "values", "other keys"}
    assert ("values", len(GOOD), len(GOOD)) in told
    assert neighbours(server) == before


@kinds
def test_what_is_wrong_is_found_and_put_right(cache: EmbeddingsCache, server: Server, kind: Kind) -> None:
    before = neighbours(server)
    keys = MAKERS[kind](cache, server)
    finding = only(doctor.examine(cache))
    assert (finding.kind, finding.count, finding.cache_name) == (kind, len(keys), "c")
    assert set(finding.sample) == set(keys)
    assert re.search(r"\d|policy|layout", finding.fix.words)
    told: list[int] = []
    done = doctor.repair(cache, finding, "ada", lambda done, _: told.append(done))
    assert (done.kind, done.changed, done.left, done.recorded) == (kind, len(keys), 0, True)
    assert told
    assert told[-1] >= len(keys)
    assert doctor.examine(cache).findings == ()
    assert neighbours(server) == before
    assert all(cache.mexists(GOOD, MODEL))
    (record, *_) = audit.read(cache.connection, "c")
    assert (record.actor, record.count, record.detail["outcome"]) == ("ada", len(keys), "done")
    assert cache.stats("all").errors == 0


@pytest.mark.parametrize(
    "kind",
    [kind for kind in MAKERS if kind not in {Kind.CORRUPT, Kind.FOREIGN_VALUES, Kind.OTHER_VERSION}],
    ids=lambda kind: kind.name.lower(),
)
def test_what_is_written_anew_in_between_stays(cache: EmbeddingsCache, server: Server, kind: Kind) -> None:
    keys = MAKERS[kind](cache, server)
    finding = only(doctor.examine(cache))
    key = keys[0]
    if kind is Kind.ORPHANED_KEYS:
        server.raw.expire(key, 100)
    elif kind in {Kind.FOREIGN_KEYS, Kind.SPOILT_KEYS}:
        server.raw.delete(key)
        server.raw.zadd(key, {"a": 1})
    else:
        server.raw.rename(cache.set("written since", MODEL, [0.5] * 4), key)
    done = doctor.repair(cache, finding, "ada", pace=1)
    assert server.raw.exists(key)
    assert (done.changed, done.left) == (len(keys) - 1, 1)


@pytest.mark.parametrize("kind", [Kind.CORRUPT, Kind.OTHER_VERSION], ids=["corrupt", "other_version"])
def test_a_value_that_can_be_read_again_stays(cache: EmbeddingsCache, server: Server, kind: Kind) -> None:
    MAKERS[kind](cache, server)
    finding = only(doctor.examine(cache))
    cache.mset(items(["flipped", "later"]))
    done = doctor.repair(cache, finding, "ada")
    assert (done.changed, done.left) == (finding.count - 1, 1)
    assert cache.mexists(["flipped", "later"], MODEL) == [True, True]
    assert doctor.examine(cache).is_well


def test_all_at_once_are_found_problems_first(cache: EmbeddingsCache, server: Server) -> None:
    for make in (corrupt, foreign_values, other_version, big_texts, foreign_keys, orphaned_keys, no_ttl, other_layout):
        make(cache, server)
    found = doctor.examine(cache).findings
    assert len(found) == 8
    severities = [each.severity for each in found]
    assert severities == sorted(severities, key=["problem", "warning", "note"].index)
    for each in found:
        doctor.repair(cache, each, "ada", pace=1)
    assert doctor.examine(cache).is_well
    assert all(cache.mexists(GOOD, MODEL))


def test_a_cache_of_the_other_layout_is_converted_the_other_way(server: Server) -> None:
    with EmbeddingsCache("c", redis_url=server.url, layout="redisvl", stats=False) as cache:
        cache.mset(items(GOOD))
        assert doctor.examine(cache).is_well
        with EmbeddingsCache("c", redis_url=server.url, stats=False) as packed:
            packed.mset(items(["ours"]))
        finding = only(doctor.examine(cache))
        assert (finding.kind, finding.count) == (Kind.OTHER_LAYOUT, 1)
        assert doctor.repair(cache, finding, "ada").changed == 1
        assert cache.get("ours", MODEL) is not None
        assert doctor.examine(cache).is_well


def test_entries_of_redisvl_programs_get_a_ttl_too(server: Server) -> None:
    with EmbeddingsCache("c", ttl=60, redis_url=server.url, layout="redisvl", stats=False) as cache:
        (key,) = cache.mset(items(["a"]), ttl=NEVER)
        finding = only(doctor.examine(cache))
        assert finding.kind is Kind.NO_TTL
        assert doctor.repair(cache, finding, "ada").changed == 1
        assert 0 < server.pttl(key) <= 60_000


def test_the_ttl_of_a_cache_is_told_by_its_entries_where_it_is_not_said(server: Server) -> None:
    with EmbeddingsCache("c", redis_url=server.url, stats=False) as cache:
        cache.mset(items(f"text {number}" for number in range(16)), ttl=500)
        cache.mset(items(["a", "b"]), ttl=900)
        lasting = cache.mset(items(["left", "behind"]))
        finding = only(doctor.examine(cache))
        assert (finding.kind, finding.count, set(finding.sample)) == (Kind.NO_TTL, 2, set(lasting))
        assert "opened without a TTL" in finding.explanation
        assert "500 s" in finding.fix.words
        assert doctor.repair(cache, finding, "ada").changed == 2
        assert all(0 < server.pttl(key) <= 500_000 for key in lasting)
        cache.mset(items(["one", "more", "than", "a", "tenth"]), ttl=NEVER)
        assert doctor.examine(cache).is_well


# ------------------------------------------------------------------------------------------------ the server's setting


@pytest.fixture(scope="module")
def full_server() -> Iterator[Server]:
    with running("valkey9", "--maxmemory", "1gb") as started:
        yield started


@pytest.mark.parametrize(
    ("policy", "ttl", "found"),
    [
        *(("volatile-lru", None, True), ("volatile-lfu", None, True), ("volatile-ttl", 60, True)),
        *(("volatile-random", 60, True), ("allkeys-random", 60, True), ("volatile-lru", 60, False)),
        *(("allkeys-lru", None, False), ("allkeys-lfu", None, False), ("noeviction", None, False)),
    ],
)
def test_a_policy_that_drops_statistics_is_found_and_changed(
    full_server: Server, policy: str, ttl: int | None, found: bool
) -> None:
    full_server.raw.flushall()
    full_server.raw.config_set("maxmemory-policy", policy)
    with EmbeddingsCache("c", ttl=ttl, redis_url=full_server.url) as cache:
        cache.mset(items(GOOD))
        examination = doctor.examine(cache)
        assert [each.kind for each in examination.findings] == [Kind.EVICTION_POLICY] * found
        if not found:
            return
        assert policy in examination.findings[0].explanation
        assert doctor.repair(cache, examination.findings[0], "ada").changed == 1
        assert full_server.raw.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
        assert doctor.examine(cache).is_well


def test_a_server_without_a_limit_evicts_nothing(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        valkey.raw.config_set("maxmemory-policy", "volatile-lru")
        try:
            assert doctor.examine(cache).is_well
        finally:
            valkey.raw.config_set("maxmemory-policy", "noeviction")


# ------------------------------------------------------------------------------------------------ refused and cut short


def test_without_scripts_all_is_found_and_put_right_too(cache: EmbeddingsCache, server: Server) -> None:
    made = [corrupt, foreign_values, foreign_keys, orphaned_keys, spoilt_keys, no_ttl, mixed_dimensions, big_texts]
    made.remove(orphaned_keys)  # the totals are spoilt already
    before = neighbours(server)
    for make in made:
        make(cache, server)
    with looking_at(server, *NO_SCRIPTS) as connection:
        other = EmbeddingsCache("c", ttl=TTL, redis_client=connection.client(), stats=False)
        for finding in doctor.examine(other).findings:
            assert doctor.repair(other, finding, "ada", pace=1).changed == finding.count
        assert doctor.examine(other).is_well
    assert neighbours(server) == before


def test_a_read_only_cache_can_be_examined_and_not_repaired(cache: EmbeddingsCache, server: Server) -> None:
    foreign_keys(cache, server)
    no_ttl(cache, server)
    with EmbeddingsCache("c", ttl=TTL, redis_url=server.url, read_only=True) as looking:
        found = doctor.examine(looking)
        assert {each.kind for each in found.findings} == {Kind.FOREIGN_KEYS, Kind.NO_TTL}
        for each in found.findings:
            with pytest.raises(ReadOnlyError, match="read_only=False"):
                doctor.repair(looking, each, "ada")
    assert len(doctor.examine(cache).findings) == 2


def test_what_the_server_refuses_to_tell_is_said(cache: EmbeddingsCache, server: Server) -> None:
    corrupt(cache, server)
    with looking_at(server, "+@all", "-info", "-type") as connection:
        other = EmbeddingsCache("c", ttl=TTL, redis_client=connection.client(), stats=False)
        found = doctor.examine(other)
        assert [each.kind for each in found.findings] == [Kind.CORRUPT]
        assert [words.split(":")[0] for words in found.not_told] == ["keys beside the entries", "the eviction policy"]


def test_a_setting_that_the_server_refuses_is_an_error_and_on_record(full_server: Server) -> None:
    full_server.raw.flushall()
    full_server.raw.config_set("maxmemory-policy", "allkeys-random")
    with looking_at(full_server, "+@all", "-config") as connection:
        other = EmbeddingsCache("c", redis_client=connection.client(), stats=False)
        finding = only(doctor.examine(other))
        with pytest.raises(ServerReplyError, match="NOPERM"):
            doctor.repair(other, finding, "ada")
        (record,) = audit.read(connection, "c")
        assert (record.count, record.detail["outcome"]) == (0, "failed")


class CancelledError(Exception):
    pass


def cancel_after(steps: int) -> Callable[..., None]:
    left = [steps]

    def tell(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise CancelledError

    return tell


def test_an_examination_and_a_repair_can_be_cancelled(valkey: Server) -> None:
    with EmbeddingsCache("c", ttl=TTL, redis_url=valkey.url) as cache:
        cache.mset(items([f"text {number}" for number in range(600)]), ttl=NEVER)
        valkey.raw.mset({f"c:junk {number}": "x" for number in range(600)})
        with pytest.raises(CancelledError):
            doctor.examine(cache, cancel_after(1))
        lasting, junk = sorted(doctor.examine(cache).findings, key=lambda each: each.kind is Kind.FOREIGN_KEYS)
        with pytest.raises(RemovalStoppedError) as stopped:
            doctor.repair(cache, lasting, "ada", cancel_after(2))
        assert 0 < stopped.value.report.changed < 600
        with pytest.raises(CancelledError):
            doctor.repair(cache, junk, "ada", cancel_after(2))
        (record, *_) = audit.read(cache.connection, "c")
        assert (record.action, record.count, record.detail["outcome"]) == ("repair", 500, "failed")
        assert only_kinds(doctor.examine(cache)) == {Kind.FOREIGN_KEYS: 100, Kind.NO_TTL: 100}


def only_kinds(examination: Examination) -> dict[Kind, int]:
    return {each.kind: each.count for each in examination.findings}


def test_more_keys_than_a_fix_holds_take_several(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        valkey.raw.mset({f"c:junk {number}": "x" for number in range(HELD + 50)})
        for left in (HELD + 50, 50):
            finding = only(doctor.examine(cache))
            assert finding.count >= left  # SCAN may return a key twice while the table shrinks
            doctor.repair(cache, finding, "ada", pace=1)
        assert doctor.examine(cache).is_well


def test_bad_input(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache, EmbeddingsCache("d") as other:
        valkey.raw.set("c:junk", "x")
        for bad in (0, -1, 1.5, True, "5", None):
            with pytest.raises(InvalidInputError, match="big_text_bytes"):
                doctor.examine(cache, big_text_bytes=bad)
        finding = only(doctor.examine(cache))
        with pytest.raises(InvalidInputError, match="of cache 'c', and this one is 'd'"):
            doctor.repair(other, finding, "ada")
        with pytest.raises(InvalidInputError, match="one of an Examination, not str"):
            doctor.repair(cache, "corrupt", "ada")
        with pytest.raises(InvalidInputError, match="pace"):
            doctor.repair(cache, finding, "ada", pace=0)
        assert valkey.raw.keys() == [b"c:junk"]


def test_redisvl_hashes_are_no_foreign_values(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as cache:
        valkey.raw.hset(cache.key_for("a text", "m"), mapping=redisvl_hash())
        assert doctor.examine(cache).is_well


def test_saved_benchmarks_are_no_strangers(valkey: Server) -> None:
    with EmbeddingsCache("embedcache", redis_url=valkey.url, stats=False) as cache:
        for key in (runs._SUMMARIES, runs._SAMPLES):
            valkey.raw.set(key, "x")
        assert doctor.examine(cache).is_well


# ------------------------------------------------------------------------------------------------ docs/doctor.md

PAGE = Path(__file__).parent.parent / "docs" / "doctor.md"


def test_the_page_lists_every_kind_and_its_python_runs(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text()
    assert re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE) == [kind.name for kind in Kind]
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    valkey.raw.set("answers:junk", "x")
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, {"input": lambda asked: print(asked) or "yes"})  # noqa: S102 - it is ours
    printed = capsys.readouterr().out
    assert "note keys of others in the namespace 1 ['answers:junk']" in printed
    assert "remove the 1 keys?" in printed
    assert not valkey.raw.exists("answers:junk")
