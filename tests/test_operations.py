"""Operations without a server: the replies are played by hand, and the commands are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playing import Answer, Trip, play, written

from embedcache import NEVER, codec, operations
from embedcache.commands import run_ahead
from embedcache.counters import Counters
from embedcache.errors import ForeignKeyError, InvalidInputError, ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.operations import CHUNK_BYTES, Command, Operation, Posted, ServerAbilities
from embedcache.packing import PART_ENTRIES, pack_texts
from embedcache.scripts import CHANGE_TTL, READ_RESTARTING_TTLS, RESTART_TTLS, WRITE_WITH_TTL

MODEL = "m"
SPACE = Keyspace("c")
SPACE_60 = Keyspace("c", 60)
COUNTERS = Counters(lambda: None)
FLOAT32 = codec.stored_dtype("float32")

UNKNOWN = ServerReplyError("ERR unknown command 'MSETEX', with args beginning with: '2' 'c:...'")
NOSCRIPT = ServerReplyError("NOSCRIPT No matching script. Please use EVAL.")
NOPERM = ServerReplyError("NOPERM User u has no permissions to run the 'evalsha' command")
CROSSSLOT = ServerReplyError("CROSSSLOT Keys in request don't hash to the same slot")
FULL = ServerReplyError("OOM command not allowed when used memory > 'maxmemory'.")
READ_ONLY = ServerReplyError("READONLY You can't write against a read only replica.")


def names(trips: list[Trip]) -> list[list[Any]]:
    return [[command[0] for command in trip] for trip in trips]


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def items(count: int, **fields: Any) -> list[Any]:
    return [{"text": text, "model_name": MODEL, "embedding": [1.0, 2.0], **fields} for text in texts(count)]


def values(count: int, ttl: int | None = None) -> list[bytes]:
    return [written(item, space=SPACE)[1] for item in items(count, ttl=ttl)]


def keys(count: int) -> list[str]:
    return pack_texts(SPACE, texts(count), MODEL)[0]


def mget(space: Keyspace, count: int, able: ServerAbilities | None = None, *, refresh: bool = True) -> Operation[Any]:
    return operations.mget(space, able or ServerAbilities(), COUNTERS, texts(count), MODEL, refresh=refresh)


def mset(given: list[Any], able: ServerAbilities | None = None, ttl: Any = None) -> Operation[Any]:
    return operations.mset(SPACE, able or ServerAbilities(), COUNTERS, FLOAT32, given, ttl, now=1.0)


def reading(stored: list[bytes], evalsha: ServerReplyError | None = None) -> Answer:
    """Answers commands that read these values or restart their TTLs, and EVALSHA by an error if one is given."""

    def reply(command: tuple[Any, ...]) -> Any:
        if evalsha is not None and command[0] == "EVALSHA":
            return evalsha
        if command[0] == "EXPIRE" or {RESTART_TTLS.sha, RESTART_TTLS.source} & set(command):
            return 1
        return stored

    return lambda commands: [reply(command) for command in commands]


def reading_each(stored: list[bytes], evalsha: ServerReplyError | None = None) -> Answer:
    """As `reading`, for values in several chunks."""
    by_key: dict[Any, bytes] = dict(zip(keys(len(stored)), stored, strict=True))
    return lambda commands: reading([by_key[key] for key in commands[0][1:] if key in by_key], evalsha)(commands)


def sent_pairs(trips: list[Trip], start: int) -> list[Any]:
    """The keys in the single command of each trip, which alternate with the values from `start` on."""
    return [key for ((*command,),) in trips for key in command[start::2] if isinstance(key, str) and ":" in key]


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("count", [1, 10, PART_ENTRIES - 1])
def test_a_batch_is_read_in_one_round_trip(count: int) -> None:
    found, trips = play(mget(SPACE, count), [values(count)])
    assert [entry["text"] for entry in found] == texts(count)
    assert trips == [[("MGET", *keys(count))]]


@pytest.mark.parametrize("count", [PART_ENTRIES, 1000, 2500])
def test_a_large_batch_is_posted_in_parts(count: int) -> None:
    found, trips = play(mget(SPACE, count), then=reading_each(values(count)))
    assert [entry["text"] for entry in found] == texts(count)
    assert {type(trip) for trip in trips} == {Posted}
    assert [key for ((_, *asked),) in trips for key in asked] == keys(count)
    assert max(len(asked) for ((_, *asked),) in trips) == PART_ENTRIES


@pytest.mark.parametrize("count", [1, 10, 63])
def test_a_small_batch_of_a_cache_with_a_ttl_is_read_and_restarted_in_one_round_trip(count: int) -> None:
    found, trips = play(mget(SPACE_60, count), reading(values(count, 60)))
    assert [entry["ttl"] for entry in found] == [60] * count
    assert trips == [[("EVALSHA", READ_RESTARTING_TTLS.sha, count, *keys(count))]]


@pytest.mark.parametrize("count", [64, 1000, 2500])
def test_the_ttls_of_a_large_batch_are_restarted_in_the_round_trip_that_reads_it(count: int) -> None:
    found, trips = play(mget(SPACE_60, count), then=reading_each(values(count, 60)))
    assert [entry["ttl"] for entry in found] == [60] * count
    assert [key for read, _ in trips for key in read[1:]] == keys(count)
    assert all(restart[:2] == ("EVALSHA", RESTART_TTLS.sha) for _, restart in trips)
    assert [key for _, restart in trips for key in restart[3:]] == keys(count)


def test_a_large_batch_whose_ttls_cannot_be_restarted_by_a_script_is_read_all_the_same() -> None:
    able = ServerAbilities()
    found, trips = play(mget(SPACE_60, 1500, able), then=reading_each(values(1500, 60), NOPERM))
    assert [entry["text"] for entry in found] == texts(1500)
    assert not able.scripts
    assert trips[4] == [("EVALSHA", RESTART_TTLS.sha, 1000, *keys(1500)[:1000])], "once by itself"
    restarts = [command for trip in trips[5:] for command in trip if command[0] != "MGET"]
    assert restarts == [("EXPIRE", key, 60) for key in keys(1500)]


def test_parts_are_made_and_taken_while_the_server_works() -> None:
    happened: list[str] = []

    def parts() -> Iterator[tuple[int, list[Command]]]:
        for number in range(6):
            happened.append(f"make {number}")
            yield number, [("ECHO", number)]

    operation = run_ahead(parts(), lambda number, replies: happened.append(f"take {number}: {replies}"))
    _, trips = play(operation, *([f"{number}"] for number in range(6)))
    assert [command for (command,) in trips] == [("ECHO", number) for number in range(6)]
    ahead = happened.index("take 0: ['0']")
    assert happened[:ahead] == [f"make {number}" for number in range(ahead)]
    assert 1 < ahead < 6
    assert [each for each in happened if each.startswith("take")] == [f"take {at}: ['{at}']" for at in range(6)]


def test_own_ttls_in_a_cache_without_one_take_a_second_round_trip() -> None:
    stored: list[Any] = values(5)
    stored[1], stored[3] = values(5, 30)[1], values(5, 40)[3]
    _, trips = play(mget(SPACE, 5), [stored], [0])
    assert trips[1] == [("EVALSHA", RESTART_TTLS.sha, 2, keys(5)[1], keys(5)[3])]
    _, trips = play(mget(SPACE, 5, ServerAbilities(scripts=False)), [stored], [1, 1])
    assert trips[1] == [("EXPIRE", keys(5)[1], 30), ("EXPIRE", keys(5)[3], 40)]


def test_no_ttl_is_restarted_where_that_is_not_wanted() -> None:
    for space in (SPACE, SPACE_60):
        _, trips = play(mget(space, 2, refresh=False), [values(2, 30)])
        assert names(trips) == [["MGET"]]


@pytest.mark.parametrize("count", [2, 100])
def test_a_script_that_the_server_does_not_hold_is_sent(count: int) -> None:
    stored = values(count, 60)
    found, trips = play(mget(SPACE_60, count), then=reading(stored, NOSCRIPT))
    assert [entry["text"] for entry in found] == texts(count)
    ((name, source, _, *restarted),) = trips[-1]
    assert name == "EVAL"
    assert source in {READ_RESTARTING_TTLS.source, RESTART_TTLS.source}
    assert restarted == keys(count)


@pytest.mark.parametrize("count", [2, 100])
@pytest.mark.parametrize("refusal", [NOPERM, CROSSSLOT, ServerReplyError("ERR unknown command `EVALSHA`")])
def test_where_scripts_are_refused_ttls_restart_by_plain_commands(refusal: ServerReplyError, count: int) -> None:
    able, stored = ServerAbilities(), values(count, 60)
    restarts = [("EXPIRE", key, 60) for key in keys(count)]
    found, trips = play(mget(SPACE_60, count, able), then=reading(stored, refusal))
    assert [entry["text"] for entry in found] == texts(count)
    assert trips[-1] == restarts
    _, trips = play(mget(SPACE_60, count, able), [stored], [1] * count)
    assert trips == [[("MGET", *keys(count))], restarts]


def test_a_server_that_may_not_write_still_answers_reads() -> None:
    found, _ = play(mget(SPACE, 2, ServerAbilities(scripts=False)), [values(2, 60)], [READ_ONLY, READ_ONLY])
    assert [entry["text"] for entry in found] == texts(2)


@pytest.mark.parametrize("damaged", [None, b"x", b"EMB\x01", values(3)[1][:-1], values(3)[0], b"EMB\x02" + bytes(9)])
def test_one_bad_value_is_one_miss(damaged: bytes | None) -> None:
    first, _, last = values(3)
    found, _ = play(mget(SPACE, 3, refresh=False), [[first, damaged, last]])
    assert [entry and entry["text"] for entry in found] == ["text 0", None, "text 2"]
    by_keys = operations.mget_by_keys(SPACE, ServerAbilities(), COUNTERS, keys(3), refresh=False)
    found, _ = play(by_keys, [[first, damaged, last]])
    assert [entry and entry["text"] for entry in found] == ["text 0", None, "text 2"]
    rows = operations.mget_embeddings(
        SPACE, ServerAbilities(), COUNTERS, texts(3), MODEL, dimension=None, refresh=False
    )
    (matrix, mask), _ = play(rows, [[first, damaged, last]])
    assert mask.tolist() == [True, False, True]
    np.testing.assert_array_equal(matrix, [[1, 2], [np.nan, np.nan], [1, 2]])


def test_a_foreign_key_is_not_asked_for() -> None:
    wanted = ["d:" + "0" * 64, keys(1)[0], "c:x"]
    found, trips = play(operations.mget_by_keys(SPACE, ServerAbilities(), COUNTERS, wanted, refresh=False), [values(1)])
    assert [entry and entry["text"] for entry in found] == [None, "text 0", None]
    assert trips == [[("MGET", keys(1)[0])]]
    held, trips = play(operations.mexists_by_keys(SPACE, wanted), [b"EMB\x01"])
    assert held == [False, True, False]
    assert [command[1] for command in trips[0]] == [keys(1)[0]]


def test_existence_moves_no_vector() -> None:
    (tag,) = pack_texts(SPACE, texts(1), MODEL)[1]
    (value,) = values(1)
    asked = operations.mexists(SPACE, texts(1), MODEL)
    _, ((command,),) = play(asked, [value[:40]])
    assert command[:3] == ("GETRANGE", keys(1)[0], 0)
    assert command[3] < 17 + len(tag) < len(value)


@pytest.mark.parametrize("count", [10, 1000])
def test_existence_of_a_batch_is_one_round_trip(count: int) -> None:
    def answer(commands: Trip) -> list[Any]:
        held = dict(zip(keys(count), values(count), strict=True))
        return [held[key][first : last + 1] if key != keys(3)[2] else b"" for _, key, first, last in commands]

    found, trips = play(operations.mexists(SPACE, texts(count), MODEL), answer)
    assert found == [position != 2 for position in range(count)]
    assert len(trips) == 1


def test_a_wrong_type_under_a_key_is_no_entry() -> None:
    wrong = ServerReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert play(operations.mexists(SPACE, texts(1), MODEL), [wrong])[0] == [False]
    assert play(operations.mexists_by_keys(SPACE, keys(1)), [wrong])[0] == [False]


def test_an_error_for_a_read_is_raised() -> None:
    loading = ServerReplyError("LOADING Redis is loading the dataset in memory")
    with pytest.raises(ServerReplyError, match="LOADING") as caught:
        play(mget(SPACE, 2), [loading])
    assert caught.value.code == "LOADING"
    for count in (2, 100):
        with pytest.raises(ServerReplyError, match="LOADING"):
            play(mget(SPACE_60, count), then=lambda commands: [loading] * len(commands))


# ------------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_a_batch_is_written_in_one_round_trip(count: int) -> None:
    stored, trips = play(mset(items(count)), [True])
    assert stored == keys(count)
    assert names(trips) == [["MSET"]]
    assert sent_pairs(trips, 1) == keys(count)


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_a_batch_with_a_ttl_is_written_in_one_round_trip(count: int) -> None:
    stored, trips = play(mset(items(count), ttl=60), [1])
    assert stored == keys(count)
    ((command,),) = trips
    assert (command[:2], command[-2:]) == (("MSETEX", count), ("EX", 60))
    assert sent_pairs(trips, 2) == keys(count)


def test_one_entry_is_written_with_its_ttl_in_one_command() -> None:
    (value,) = values(1, 60)
    assert play(mset(items(1), ttl=60), [True])[1] == [[("SET", keys(1)[0], value, "EX", 60)]]
    assert play(mset(items(1, ttl=NEVER), ttl=60), [True])[1] == [[("SET", keys(1)[0], values(1)[0])]]


def test_a_batch_over_a_thousand_is_written_in_chunks() -> None:
    stored, trips = play(mset(items(2500)), [True], [True], [True])
    assert stored == keys(2500)
    assert [len(command) // 2 for (command,) in trips] == [1000, 1000, 500]
    assert sent_pairs(trips, 1) == keys(2500)


def test_a_batch_of_long_texts_is_written_in_chunks_of_bytes() -> None:
    long = "x" * (CHUNK_BYTES // 4)
    given = [{"text": f"{number} {long}", "model_name": MODEL, "embedding": [1.0]} for number in range(9)]
    stored, trips = play(mset(given), *[[True]] * 3)
    assert all(sum(len(part) for part in command if not isinstance(part, str)) <= CHUNK_BYTES for (command,) in trips)
    assert sent_pairs(trips, 1) == stored


@pytest.mark.parametrize("different", [2, 6])
def test_items_of_different_ttls_are_written_in_one_round_trip(different: int) -> None:
    given = items(6)
    for position, item in enumerate(given):
        item["ttl"] = 10 + position % different
    stored, trips = play(mset(given), [True] * 6)
    assert stored == keys(6)
    assert [(name, key, *tail) for name, key, _, *tail in trips[0]] == [
        ("SET", key, "EX", 10 + position % different) for position, key in enumerate(keys(6))
    ]


def test_without_msetex_a_script_writes_and_that_is_remembered() -> None:
    able = ServerAbilities()
    stored, trips = play(mset(items(3), able, ttl=60), [UNKNOWN], [NOSCRIPT], [3])
    assert stored == keys(3)
    assert names(trips) == [["MSETEX"], ["EVALSHA"], ["EVAL"]]
    assert trips[2] == [("EVAL", WRITE_WITH_TTL.source, 3, *keys(3), *values(3, 60), 60)]
    _, trips = play(mset(items(3), able, ttl=60), [3])
    assert trips == [[("EVALSHA", WRITE_WITH_TTL.sha, 3, *keys(3), *values(3, 60), 60)]]


@pytest.mark.parametrize("refusal", [NOPERM, CROSSSLOT])
def test_without_scripts_either_a_pipeline_writes_each_value_with_its_ttl(refusal: ServerReplyError) -> None:
    able = ServerAbilities()
    _, trips = play(mset(items(2), able, ttl=60), [UNKNOWN], [refusal], [True, True])
    expected = [("SET", key, value, "EX", 60) for key, value in zip(keys(2), values(2, 60), strict=True)]
    assert trips[2] == expected
    _, trips = play(mset(items(2), able, ttl=60), [True, True])
    assert trips == [expected]


def test_an_error_for_a_write_is_raised_and_no_reason_to_try_otherwise() -> None:
    for given, ttl in ((items(1), None), (items(2), None), (items(2), 60)):
        with pytest.raises(ServerReplyError, match="OOM") as caught:
            play(mset(given, ttl=ttl), [FULL])
        assert caught.value.code == "OOM"
    able = ServerAbilities(scripts=False, msetex=False)
    with pytest.raises(ServerReplyError, match="OOM"):
        play(mset(items(3), able, ttl=60), [True, FULL, True])
    with pytest.raises(ServerReplyError, match="OOM"):
        play(mset(items(2), ServerAbilities(msetex=False), ttl=60), [FULL])


def test_of_one_text_given_twice_the_last_stays() -> None:
    given = [*items(2), {"text": "text 0", "model_name": MODEL, "embedding": [3.0, 4.0]}]
    stored, ((command,),) = play(mset(given), [True])
    assert stored == [*keys(2), keys(1)[0]]
    held = dict(zip(command[1::2], command[2::2], strict=True))
    assert codec.decode_by_key(bytes(held[keys(1)[0]]), keys(1)[0])["embedding"].tolist() == [3, 4]


# ------------------------------------------------------------------------------------------------ removing, TTL


@pytest.mark.parametrize(("count", "trips"), [(10, 1), (1000, 1), (2500, 3)])
def test_a_batch_is_dropped_in_as_few_round_trips(count: int, trips: int) -> None:
    def answer(commands: Trip) -> list[Any]:
        return [len(command) - 1 for command in commands]

    for operation in (
        operations.mdrop(SPACE, COUNTERS, texts(count), MODEL),
        operations.mdrop_by_keys(SPACE, COUNTERS, keys(count)),
    ):
        dropped, sent = play(operation, *[answer] * trips)
        assert dropped == count
        assert [key for trip in sent for _, *some in trip for key in some] == keys(count)


def test_clearing_goes_over_all_and_drops_the_own() -> None:
    own = [key.encode() for key in keys(3)]
    strangers = [b"c:" + b"z" * 64, b"c:\xff" + b"0" * 63]
    pages = [[[b"17", [own[0], *strangers]]], [1], [[b"5", strangers]], [[b"0", own[1:]]], [2]]
    dropped, trips = play(operations.clear(SPACE, COUNTERS), *pages)
    assert dropped == 3
    assert names(trips) == [["SCAN"], ["UNLINK"], ["SCAN"], ["SCAN"], ["UNLINK"]]
    assert [trip[0][1] for trip in trips if trip[0][0] == "SCAN"] == [0, b"17", b"5"]
    assert trips[4] == [("UNLINK", *keys(3)[1:])]


def test_what_is_left_is_rounded_up_to_seconds() -> None:
    for reply, left in ((-2, None), (-1, NEVER), (1, 1), (1000, 1), (1001, 2), (60_000, 60)):
        assert play(operations.remaining_ttl(SPACE, keys(1)[0]), [reply])[0] == left
    assert play(operations.remaining_ttl(SPACE, "d:" + "0" * 64)) == (None, [])


@pytest.mark.parametrize(("ttl", "seconds"), [(300, 300), (None, 60), (NEVER, 0)])
def test_a_ttl_is_changed_in_one_round_trip(ttl: Any, seconds: int) -> None:
    (key,) = keys(1)
    changed, trips = play(operations.expire(SPACE_60, ServerAbilities(), COUNTERS, key, ttl), [1])
    assert changed is True
    assert trips == [[("EVALSHA", CHANGE_TTL.sha, 1, key, seconds.to_bytes(4, "little"), seconds)]]
    assert play(operations.expire(SPACE_60, ServerAbilities(), COUNTERS, key, ttl), [0])[0] is False


@pytest.mark.parametrize(("ttl", "tail"), [(300, ("XX", "EX", 300)), (NEVER, ("XX",))])
def test_without_scripts_a_ttl_is_changed_only_where_there_is_an_entry(ttl: Any, tail: tuple[Any, ...]) -> None:
    (key,), (value,) = keys(1), values(1, 60)
    able = ServerAbilities()
    changed, trips = play(operations.expire(SPACE, able, COUNTERS, key, ttl), [NOPERM], [[value]], [b"OK"])
    assert changed is True
    ((name, written_key, written, *rest),) = trips[2]
    assert (name, written_key, tuple(rest)) == ("SET", key, tail)
    assert codec.decode_by_key(written, key)["ttl"] == (None if ttl is NEVER else ttl)
    assert play(operations.expire(SPACE, able, COUNTERS, key, ttl), [[value]], [None])[0] is False
    for nothing in (None, b"text", value[:-1]):
        assert play(operations.expire(SPACE, able, COUNTERS, key, ttl), [[nothing]])[0] is False


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "operation",
    [
        operations.mget(SPACE, ServerAbilities(), COUNTERS, ["a", ""], MODEL, refresh=True),
        operations.mget(SPACE, ServerAbilities(), COUNTERS, ["a"], "", refresh=True),
        operations.mget(SPACE, ServerAbilities(), COUNTERS, "text", MODEL, refresh=True),
        operations.mget_by_keys(SPACE, ServerAbilities(), COUNTERS, ["a", None], refresh=True),
        operations.mget_embeddings(SPACE, ServerAbilities(), COUNTERS, [5], MODEL, dimension=None, refresh=True),
        operations.mexists(SPACE, [" "], MODEL),
        operations.mexists_by_keys(SPACE, "key"),
        operations.mdrop(SPACE, COUNTERS, [""], MODEL),
        operations.remaining_ttl(SPACE, 5),
        operations.expire(SPACE, ServerAbilities(), COUNTERS, keys(1)[0], 0),
        mset([*items(1500), {"text": "a", "model_name": MODEL, "embedding": [float("nan"), 0.0]}]),
        mset(items(2), ttl=0),
    ],
)
def test_bad_input_raises_before_anything_is_sent(operation: Operation[Any]) -> None:
    with pytest.raises(InvalidInputError):
        next(operation)


def test_a_foreign_key_is_refused_before_anything_is_sent() -> None:
    for operation in (
        operations.mdrop_by_keys(SPACE, COUNTERS, [*keys(2), "d:x"]),
        operations.expire(SPACE, ServerAbilities(), COUNTERS, "d:x", 60),
    ):
        with pytest.raises(ForeignKeyError, match="'d:x' is not one of cache 'c'"):
            next(operation)


def test_nothing_asked_is_nothing_sent() -> None:
    able = ServerAbilities()
    for operation, result in (
        (operations.mget(SPACE_60, able, COUNTERS, [], MODEL, refresh=True), []),
        (operations.mget_by_keys(SPACE_60, able, COUNTERS, [], refresh=True), []),
        (operations.mexists(SPACE, [], MODEL), []),
        (operations.mexists_by_keys(SPACE, []), []),
        (mset([]), []),
        (operations.mdrop(SPACE, COUNTERS, [], MODEL), 0),
        (operations.mdrop_by_keys(SPACE, COUNTERS, []), 0),
    ):
        assert play(operation) == (result, [])
