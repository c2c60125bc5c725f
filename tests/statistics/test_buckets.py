"""How counts lie in Redis and what is sent to add them: replies are played by hand, commands are read."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgpack
import pytest
from counted import MODEL, batch
from hypothesis import given
from hypothesis import strategies as st
from playing import Trip, play

from embedcache import buckets
from embedcache.buckets import (
    DAYS,
    HOURS,
    MINUTES,
    RESOLUTIONS,
    add_batch,
    bucket_key,
    read_buckets,
    read_slow,
    read_standing,
)
from embedcache.counters import SUMS, Batch, Counts, Slow
from embedcache.errors import ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities
from embedcache.scripts import ADD_COUNTS

SPACE = Keyspace("c")
DAY = 86_400
NOW = 1_700_000_000
TIME = [str(NOW).encode(), b"250000"]
TAG = sha256(b"c").hexdigest()[:8]
ID = sha256(MODEL.encode()).hexdigest()[:8]

NOSCRIPT = ServerReplyError("NOSCRIPT No matching script. Please use EVAL.")
NOPERM = ServerReplyError("NOPERM User u has no permissions to run the 'evalsha' command")
CROSSSLOT = ServerReplyError("CROSSSLOT Keys in request don't hash to the same slot")
FULL = ServerReplyError("OOM command not allowed when used memory > 'maxmemory'.")
FORBIDDEN = ServerReplyError("NOPERM User u has no permissions to run the 'time' command")
WRONG = ServerReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")


def adding(counted: Batch, able: ServerAbilities | None = None, space: Keyspace = SPACE, number: int = 3) -> Any:
    return add_batch(space, able or ServerAbilities(), counted, writer="w", number=number, process="host:1")


def accepting(commands: Trip) -> list[Any]:
    return [TIME if command[0] == "TIME" else 1 for command in commands]


def script_call(trips: list[Trip]) -> tuple[list[str], list[Any]]:
    """The keys and arguments of the one script call."""
    ((_, sha, count, *rest),) = next(trip for trip in trips if trip[0][0] == "EVALSHA")
    assert sha == ADD_COUNTS.sha
    return rest[:count], rest[count:]


# ------------------------------------------------------------------------------------------------ adding


def test_counts_go_to_the_total_and_to_the_minute_hour_and_day_that_the_server_says():
    _, trips = play(adding(batch()), then=accepting)
    keys, arguments = script_call(trips)
    minute, hour, day = NOW // 60 * 60, NOW // 3600 * 3600, NOW // DAY * DAY
    prefix = f"c:stats:{{{TAG}}}:"
    assert keys == [prefix + end for end in ("writer:w", "total", f"m:{minute}", f"h:{hour}", f"d:{day}")]
    number, writer_kept, total_until, *until, names = arguments[:7]
    assert (number, writer_kept, names) == (3, 3_600, 1)
    assert until == [minute + 60 + 2 * DAY, hour + 3_600 + 60 * DAY, day + DAY + 730 * DAY]
    assert total_until == NOW + 730 * DAY
    assert arguments[7:] == [ID.encode(), MODEL.encode(), f"{ID}h".encode(), b"1"]


def test_each_sum_has_a_code_of_its_own_and_what_is_zero_is_not_sent():
    counts = {name: number for number, name in enumerate(SUMS, start=1)}
    _, trips = play(adding(batch({MODEL: Counts(**counts, latencies={17: 4, 203: 5}), None: Counts()})), then=accepting)
    _, arguments = script_call(trips)
    sent = dict(zip(arguments[9::2], arguments[10::2], strict=True))
    codes = "hmnsdxvcefrwtuk"
    assert sent == {
        **{f"{ID}{code}".encode(): str(number).encode() for number, code in enumerate(codes, start=1)},
        f"{ID}l17".encode(): b"4",
        f"{ID}l203".encode(): b"5",
    }


def test_what_no_model_can_be_named_for_has_an_id_of_dashes_and_no_name():
    _, trips = play(adding(batch({None: Counts(misses=2)})), then=accepting)
    _, arguments = script_call(trips)
    assert arguments[6:] == [0, b"--------m", b"2"]


def test_counts_are_booked_to_when_they_happened_not_to_when_they_arrive():
    _, trips = play(adding(batch(ago=600.0)), then=accepting)
    keys, _ = script_call(trips)
    then = NOW - 600
    assert [key.rpartition(":")[2] for key in keys[2:]] == [
        str(then // seconds * seconds) for seconds in (60, 3_600, DAY)
    ]


def test_this_machines_clock_does_not_matter(monkeypatch):
    plain = script_call(play(adding(batch()), then=accepting)[1])
    monkeypatch.setattr(time, "time", lambda: 12_345.0)
    assert script_call(play(adding(batch()), then=accepting)[1]) == plain


def test_where_time_is_forbidden_this_machines_clock_serves(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW + 7_200.0)
    _, trips = play(adding(batch()), [FORBIDDEN], then=accepting)
    keys, _ = script_call(trips)
    assert keys[2].endswith(f":m:{(NOW + 7_200) // 60 * 60}")


def test_a_script_the_server_does_not_know_is_sent_whole():
    able = ServerAbilities()
    _, trips = play(adding(batch(), able), [TIME], [NOSCRIPT], [1])
    assert [trip[0][0] for trip in trips] == ["TIME", "EVALSHA", "EVAL"]
    assert trips[2][0][1] == ADD_COUNTS.source
    assert trips[1][0][2:] == trips[2][0][2:]
    assert able.scripts


@pytest.mark.parametrize("refusal", [NOPERM, CROSSSLOT], ids=["NOPERM", "CROSSSLOT"])
def test_without_scripts_plain_commands_add_the_same(refusal):
    able = ServerAbilities()
    counts = Counts(hits=2, latencies={9: 2})
    _, trips = play(adding(batch({MODEL: counts}), able), [TIME], [refusal], then=accepting)
    hashes = [f"c:stats:{{{TAG}}}:{end}" for end in ("total", *(f"{r.code}:{r.start(NOW)}" for r in RESOLUTIONS))]
    ends = [("EXPIREAT", key) for key in hashes]
    names = [("HSET", key, ID, MODEL) for key in hashes]
    added = [("HINCRBY", key, f"{ID}{code}", 2) for key in hashes for code in ("h", "l9")]
    assert [command[:4] for command in trips[2]][:4] == names
    assert [command[:2] for command in trips[2]][4:] == ends
    assert trips[3][:8] == added
    assert [command[:2] for command in trips[3]][8:] == ends
    _, trips = play(adding(batch({MODEL: counts}), able), then=accepting)
    assert "EVALSHA" not in {command[0] for trip in trips for command in trip}


@pytest.mark.parametrize("scripts", [True, False])
def test_an_error_of_the_server_is_raised_so_that_the_batch_is_kept(scripts):
    def full(commands: Trip) -> list[Any]:
        return [TIME if command[0] == "TIME" else FULL for command in commands]

    with pytest.raises(ServerReplyError, match="OOM"):
        play(adding(batch(), ServerAbilities(scripts=scripts)), then=full)


def test_without_scripts_nothing_is_added_where_something_is_refused_that_comes_before():
    def refusing_ends(commands: Trip) -> list[Any]:
        return [{"TIME": TIME, "EXPIREAT": NOPERM}.get(command[0], 1) for command in commands]

    sent: list[str] = []
    with pytest.raises(ServerReplyError, match="NOPERM"):
        play(
            adding(batch(), ServerAbilities(scripts=False)),
            then=lambda trip: sent.extend(c[0] for c in trip) or refusing_ends(trip),
        )
    assert "HINCRBY" not in sent


# ------------------------------------------------------------------------------------------------ what was there


def missed_where(scores: Any, *keys: str, types: Sequence[Any] | None = None) -> tuple[list[Any], Batch]:
    missed = [(key, MODEL, time.monotonic()) for key in keys]
    reply = [scores, *(types or [b"none"] * len(keys))]
    return reply, batch({MODEL: Counts(misses=len(keys))}, missed=missed)


def score(ago: int, ttl: int) -> int:
    """As the documentation has it."""
    return (NOW - ago - 1_577_836_800) * 2**22 + ttl


def test_misses_of_what_had_been_there_are_counted_as_expired_or_evicted():
    keys = [f"c:{letter * 64}" for letter in "abcdef"]
    scores = [str(score(10, 5)).encode(), float(score(100, 1)), score(10, 500), score(10, 0), score(0, 60), None]
    reply, counted = missed_where(scores, *keys)
    _, trips = play(adding(counted), [TIME], reply, [1])
    members = [bytes.fromhex(key[2:18]) for key in keys]
    assert trips[1] == [("ZMSCORE", f"c:stats:{{{TAG}}}:stored", *members), *(("TYPE", key) for key in keys)]
    _, arguments = script_call(trips)
    told = dict(zip(arguments[-6::2], arguments[-5::2], strict=True))
    assert told == {f"{ID}m".encode(): b"6", f"{ID}x".encode(): b"2", f"{ID}v".encode(): b"2"}
    assert counted.counts[MODEL].expired == 0, "a batch that is sent again must not be counted twice"


@pytest.mark.parametrize("error", [WRONG, NOPERM], ids=["WRONGTYPE", "NOPERM"])
def test_where_the_record_of_writes_cannot_be_read_misses_are_plain_misses(error):
    reply, counted = missed_where(error, "c:" + "a" * 64)
    _, trips = play(adding(counted), [TIME], reply, [1])
    _, arguments = script_call(trips)
    assert arguments[-2:] == [f"{ID}m".encode(), b"1"]


@pytest.mark.parametrize(
    ("value_type", "counted_as"),
    [(b"string", {"m": b"6", "c": b"2", "v": b"4"}), (b"hash", {"m": b"6", "c": b"2", "v": b"4"})],
)
def test_a_miss_of_what_is_no_entry_is_corrupt_and_not_evicted(value_type, counted_as):
    """To MGET, a value of another type is the same as nothing. One that was stored since then is no damage."""
    other = {b"string": b"hash", b"hash": b"string"}[value_type]
    types = [b"list", other, value_type, b"none", NOPERM, b"none"]
    reply, counted = missed_where([score(10, 0)] * 6, *(f"c:{letter * 64}" for letter in "abcdef"), types=types)
    operation = add_batch(
        SPACE, ServerAbilities(), counted, writer="w", number=1, process="host:1", value_type=value_type
    )
    _, trips = play(operation, [TIME], reply, [1])
    _, arguments = script_call(trips)
    told = dict(zip(arguments[7 + 2 :: 2], arguments[7 + 3 :: 2], strict=True))
    assert told == {f"{ID}{code}".encode(): amount for code, amount in counted_as.items()}


@pytest.mark.parametrize(("ttl", "kept"), [(60, 60), (None, 0), (10**9, 2**22 - 1)])
def test_what_was_stored_is_remembered_and_what_was_dropped_forgotten(ttl, kept):
    stored, gone = {"c:" + "a" * 64: (time.monotonic() - 30, ttl)}, {"c:" + "b" * 64}
    _, trips = play(adding(batch(stored=stored, dropped=gone)), then=accepting)
    forget, remember, *bounds = trips[-1]
    key = f"c:stats:{{{TAG}}}:stored"
    assert forget == ("ZREM", key, b"\xbb" * 8)
    assert remember[:2] == ("ZADD", key)
    assert remember[2] in (score(31, kept), score(30, kept), score(29, kept))
    assert float(remember[2]) == remember[2], "a sorted set's score is a float"
    assert remember[3:] == (b"\xaa" * 8,)
    assert [command[0] for command in bounds] == ["ZREMRANGEBYRANK", "EXPIRE"]
    _, trips = play(adding(batch(stored=stored, dropped=gone, cleared=True)), then=accepting)
    assert [command[0] for command in trips[-1][:2]] == ["UNLINK", "ZADD"]


# ------------------------------------------------------------------------------------------------ reading


def test_what_is_read_is_what_was_added_and_no_row_is_an_empty_one():
    row = {ID: MODEL, f"{ID}h": "3", f"{ID}l20": "2", "--------m": "4"}
    flat = [word.encode() for pair in row.items() for word in pair]
    keyed = {name.encode(): value.encode() for name, value in row.items()}
    counts, trips = play(read_buckets(SPACE, HOURS, [0, 3_600, 7_200]), [flat, [], keyed])
    assert [command[1] for command in trips[0]] == [bucket_key(SPACE, HOURS, start) for start in (0, 3_600, 7_200)]
    assert counts == [
        {MODEL: Counts(hits=3, latencies={20: 2}), None: Counts(misses=4)},
        {},
        {MODEL: Counts(hits=3, latencies={20: 2}), None: Counts(misses=4)},
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{ID}q", "7"),
        (f"{ID}q", "1.5"),
        (f"{ID}new", "not a number"),
        (f"{ID}lx", "7"),
        (f"{ID}l", "7"),
        (f"{ID}l²", "7"),
        (f"{ID}\xff", "7"),
        (f"{ID}l99999999999", "7"),
        ("version", "2"),
        ("v", "2"),
        (f"{ID}m", "no number"),
        (f"{ID}m", ""),
        (f"{ID}m", "-3"),
        (f"{ID}l7", "1e9"),
        (f"{ID}m", "9" * 5_000),
    ],
)
def test_fields_of_a_later_version_and_what_is_no_number_are_passed_over(name, value):
    row = [ID.encode(), MODEL.encode(), f"{ID}h".encode(), b"3", name.encode(), value.encode()]
    counts, _ = play(read_buckets(SPACE, MINUTES, [0]), [row])
    assert counts == [{MODEL: Counts(hits=3)}]


def test_many_buckets_are_read_in_few_round_trips():
    counts, trips = play(read_buckets(SPACE, MINUTES, range(0, 1_440 * 60, 60)), then=lambda trip: [[] for _ in trip])
    assert len(counts) == 1_440
    assert len(trips) == 3


def test_prices_are_read_with_the_total():
    (found, _) = play(read_standing(SPACE), [TIME], [[], [b"m", b"0.02", b"free", b"0.0"]])
    assert (found.now, found.total, found.prices) == (NOW + 0.25, {}, {"m": 0.02, "free": 0.0})


def test_what_is_no_price_is_passed_over():
    row = [b"m", b"0.02", b"a", b"dear", b"b", b"-1", b"c", b"nan", b"\xff", b"1", b"d", b""]
    (found, _) = play(read_standing(SPACE), [TIME], [[], row])
    assert found.prices == {"m": 0.02}


def test_an_error_for_a_read_is_raised_and_names_the_key():
    with pytest.raises(ServerReplyError, match=r"^WRONGTYPE c:stats:.*:m:0 is no hash of counts"):
        play(read_buckets(SPACE, MINUTES, [0]), [WRONG])


def test_slow_lookups_of_a_later_version_are_read_as_far_as_they_are_known():
    row = (float(NOW), 0.5, MODEL, "c:key", 3, 2, None, "host:1")
    found, _ = play(read_slow(SPACE), [[msgpack.packb((*row, "news")), msgpack.packb(row)]])
    assert found[0] == found[1] == buckets.SlowLookup(*row)


def test_slow_lookups_are_told_by_the_servers_clock():
    slow = Slow(
        at=time.monotonic() - 30, seconds=0.5, model_name=MODEL, key="c:key", texts=3, hits=2, text="lone \ud800"
    )
    _, trips = play(adding(batch(slow=[slow])), then=accepting)
    push, trim, expire = trips[-1]
    (found,), _ = play(read_slow(SPACE), [[push[2]]])
    assert found.at == pytest.approx(NOW + 0.25 - 30, abs=1)
    assert (found.text, found.process, found.hits) == ("lone \ud800", "host:1", 2)
    assert trim[0] == "LTRIM"
    assert expire[0] == "EXPIRE"


# ------------------------------------------------------------------------------------------------ whose keys

names = st.one_of(
    st.text(min_size=1).filter(lambda name: name.strip() and name.isprintable()),
    st.from_regex(r"[a-c:*?\[\]\\{}]{1,12}(:stats)?(:\{[0-9a-f]{8}\})?(:m:17)?", fullmatch=True),
)


def all_keys(space: Keyspace) -> set[str]:
    everything = batch(
        missed=[("c:" + "a" * 64, MODEL, time.monotonic())],
        stored={"c:" + "a" * 64: (time.monotonic(), 60)},
        dropped={"c:" + "b" * 64},
        slow=[Slow(at=0.0, seconds=1.0, model_name=None, key="k", texts=1, hits=0, text=None)],
    )
    operations = [adding(everything, space=space), read_standing(space), read_slow(space)]
    operations += [read_buckets(space, each, [0, 60 * DAY]) for each in (MINUTES, HOURS, DAYS)]
    operations.append(buckets.set_price(space, MODEL, 1.0))

    def answer(commands: Trip) -> list[Any]:
        empty = {"TIME": TIME, "HGETALL": [], "LRANGE": [], "ZMSCORE": [None]}
        return [empty.get(command[0], 1) for command in commands]

    trips = [trip for operation in operations for trip in play(operation, then=answer)[1]]
    found = {command[1] for trip in trips for command in trip if command[0] not in {"TIME", "EVALSHA", "TYPE"}}
    return found | {key for trip in trips for (name, *rest) in trip if name == "EVALSHA" for key in rest[2:7]}


@given(names, names)
def test_keys_of_statistics_lie_in_no_caches_namespace(name, other):
    keys = all_keys(Keyspace(name))
    assert len(keys) > 8
    spaces = [Keyspace(each) for each in (name, other, f"{name}:stats")]
    spaces += [Keyspace(key.rpartition(":")[0]) for key in keys] + [Keyspace(key) for key in keys]
    assert not any(space.owns(key) for space in spaces for key in keys)


@given(names, names)
def test_caches_of_different_names_share_no_key(name, other):
    for one, two in ((name, other), (name, f"{name}:stats"), (name, f"{name}:stats:m")):
        assert one == two or all_keys(Keyspace(one)).isdisjoint(all_keys(Keyspace(two)))


@given(names)
def test_an_acl_for_the_caches_name_covers_its_statistics(name):
    assert all(key.startswith(f"{name}:") for key in all_keys(Keyspace(name)))


@given(names)
def test_all_keys_of_a_cache_have_one_hash_tag(name):
    def hashed(key: str) -> str:
        """The part by which Redis Cluster chooses the slot."""
        tag = re.search(r"\{(.*?)\}", key, re.DOTALL)
        return tag[1] if tag and tag[1] else key

    tags = {hashed(key) for key in all_keys(Keyspace(name))}
    assert len(tags) == 1 or "{}" in name
