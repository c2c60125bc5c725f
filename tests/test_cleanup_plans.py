"""What a cleanup plans and does, on a real server: the keys of a plan, its figures, and how its work ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from looking import redisvl_hash
from removing import MODEL, counts, item, left, stored
from servers import Server, running

from embedcache import NEVER, CacheUnavailableError, EmbeddingsCache, audit
from embedcache.connection import RedisConnection
from embedcache.filtering import EntryFilter
from embedcache.removal import STEP_KEYS
from pages.ui import cleanup_plans
from pages.ui.cleanup_plans import Planned, Task
from pages.ui.jobs import JobCancelledError, Progress

EVERYTHING = EntryFilter()
NOWHERE = "redis://127.0.0.1:1"  # asked for caches of many keys alone


class Cancelling(Progress):
    """Cancels the work as soon as that many are done."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def tell(self, done: int, total: int | None = None, note: str | None = None) -> None:
        if done >= self._after:
            self.cancel()
        super().tell(done, total, note)


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as opened:
        yield opened


@pytest.fixture
def connection(cache: EmbeddingsCache) -> RedisConnection:
    return cache.connection


def plan(connection: RedisConnection, chosen: EntryFilter = EVERYTHING) -> Planned:
    return cleanup_plans.make(connection, NOWHERE, "c", chosen, "words", Progress())


def do(connection: RedisConnection, planned: Planned, task: Task = "remove", ttl: int = 60) -> cleanup_plans.Outcome:
    return cleanup_plans.carry_out(connection, planned, task, ttl, "ada", None, Progress())


def damage(valkey: Server, key: str) -> None:
    """Flips the last byte of a vector, which only reading the whole value shows."""
    value = bytearray(valkey.raw.get(key))
    value[-1] ^= 0xFF
    valkey.raw.set(key, bytes(value))


# ------------------------------------------------------------------------------------------------ plans


def test_a_plan_counts_what_it_chose_and_touches_nothing(cache: EmbeddingsCache, valkey: Server) -> None:
    stored(cache, 30)
    cache.mset([{"text": f"other {n}", "model_name": "other", "embedding": [1.0]} for n in range(10)], ttl=50)
    before = {key: (valkey.raw.dump(key), valkey.raw.pttl(key) > 0) for key in left(valkey)}
    planned = plan(cache.connection, EntryFilter(model_name="other"))
    assert (len(planned.plan), planned.whole, planned.share) == (10, 40, 0.25)
    assert planned.plan.total_bytes == sum(valkey.raw.strlen(key) for key in planned.sample_keys)
    assert planned.by_model == (("other", 10),)
    assert planned.oldest <= planned.newest
    assert {entry.text for entry in planned.sample} == {f"other {n}" for n in range(10)}
    assert {key: (valkey.raw.dump(key), valkey.raw.pttl(key) > 0) for key in left(valkey)} == before


def test_a_filter_of_texts_and_an_empty_one(cache: EmbeddingsCache) -> None:
    stored(cache, 25)
    assert len(plan(cache.connection, EntryFilter(text_contains="TEXT 1")).plan) == 11  # 1, and 10 to 19
    whole = plan(cache.connection)
    assert (len(whole.plan), whole.share, whole.by_model) == (25, 1.0, ((MODEL, 25),))
    assert len(set(whole.sample_keys)) == cleanup_plans.SAMPLED


def test_nothing_matches(cache: EmbeddingsCache) -> None:
    stored(cache, 3)
    planned = plan(cache.connection, EntryFilter(model_name="none"))
    assert (len(planned.plan), planned.share, planned.sample, planned.oldest) == (0, 0.0, (), None)
    assert do(cache.connection, planned).report.changed == 0


def test_an_empty_cache(connection: RedisConnection) -> None:
    assert (len(plan(connection).plan), plan(connection).share) == (0, 0.0)


def test_models_in_words() -> None:
    assert (
        cleanup_plans.models_in_words([("a`b", 1_200), (None, 3)]) == "By model: `` a`b ``: 1,200, cannot be read: 3."
    )
    many = [(f"m{number}", 1) for number in range(8)]
    assert cleanup_plans.models_in_words(many).endswith("`m4`: 1, and 3 more models.")
    assert cleanup_plans.models_in_words([]) == "It has no entries."


def test_making_a_plan_can_be_cancelled(cache: EmbeddingsCache) -> None:
    stored(cache, 3)
    with pytest.raises(JobCancelledError):
        cleanup_plans.make(cache.connection, NOWHERE, "c", EVERYTHING, "", Cancelling(3))


# ------------------------------------------------------------------------------------------------ doing it


def test_what_came_later_and_what_was_written_anew_stays(cache: EmbeddingsCache, valkey: Server) -> None:
    keys = stored(cache, 20)
    planned = plan(cache.connection)
    later = cache.set("later", MODEL, [1.0])
    cache.mset([item("text 0"), item("text 1")])
    cache.drop_by_key(keys[2])
    outcome = do(cache.connection, planned)
    assert counts(outcome.report) == {"changed": 17, "kept_newer": 2, "gone": 1}
    assert outcome.report.remaining == 2
    assert left(valkey) == {later, keys[0], keys[1]}
    (record,) = audit.read(cache.connection, "c")
    assert (record.actor, record.action, record.count) == ("ada", "remove", 17)
    assert record.detail["words"] == outcome.words == "words"


@pytest.mark.parametrize(("ttl", "told"), [(60, 60), (NEVER, None)])
def test_a_ttl_for_all_of_them(cache: EmbeddingsCache, ttl: int, told: int | None) -> None:
    keys = stored(cache, 5, ttl=500)
    assert do(cache.connection, plan(cache.connection), "ttl", ttl).report.changed == 5
    found = [cache.get_by_key(key) for key in keys]
    assert [entry["ttl"] for entry in found] == [told] * 5


def test_values_whose_vectors_are_damaged(cache: EmbeddingsCache, valkey: Server) -> None:
    keys = stored(cache, 10)
    for key in keys[:3]:
        damage(valkey, key)
    planned = plan(cache.connection, EntryFilter(unreadable=True))
    assert set(planned.sample_keys) == set(keys[:3])
    assert planned.by_model == ((None, 3),)
    cache.set("text 0", MODEL, [1.0, 2.0])  # mended since
    assert counts(do(cache.connection, planned).report) == {"changed": 2, "kept_newer": 1}
    assert left(valkey) == {keys[0], *keys[3:]}


def test_values_that_are_no_entries(cache: EmbeddingsCache, valkey: Server) -> None:
    keys = stored(cache, 2)
    strangers = [f"c:{number:064x}" for number in range(3)]
    valkey.raw.set(strangers[0], b"nonsense")
    valkey.raw.rpush(strangers[1], "a", "list")
    valkey.raw.hset(strangers[2], "no", "entry")
    planned = plan(cache.connection, EntryFilter(unreadable=True))
    assert sorted(planned.sample_keys) == strangers
    assert planned.sample == (None, None, None)
    assert do(cache.connection, planned, "ttl").report.skipped == 3
    assert do(cache.connection, planned).report.changed == 3
    assert left(valkey) == set(keys)


def test_the_hashes_of_redisvl(connection: RedisConnection, valkey: Server) -> None:
    keys = [f"c:{number:064x}" for number in range(4)]
    for key in keys:
        valkey.raw.hset(key, mapping=redisvl_hash("a text"))
    planned = plan(connection, EntryFilter(text_contains="a text"))
    assert [entry.text for entry in planned.sample] == ["a text"] * 4
    valkey.raw.hset(keys[0], "inserted_at", "1800000000.5")
    assert counts(do(connection, planned, "ttl").report) == {"changed": 3, "kept_newer": 1}
    assert [valkey.raw.ttl(key) > 0 for key in keys] == [False, True, True, True]
    assert do(connection, planned).report.changed == 3
    assert left(valkey) == {keys[0]}


def test_no_filter_takes_whatever_is_there(cache: EmbeddingsCache, valkey: Server) -> None:
    stored(cache, 5)
    valkey.raw.set(f"c:{1:064x}", b"nonsense")
    valkey.raw.set(f"c:b:{1:064x}", b"of another cache")
    report = do(cache.connection, plan(cache.connection)).report
    assert (report.changed, report.remaining) == (6, 0)
    assert left(valkey, "c:b") != set()


# ------------------------------------------------------------------------------------------------ ends half-way


def test_cancelled_half_way_it_says_what_was_done(cache: EmbeddingsCache, valkey: Server) -> None:
    stored(cache, 4 * STEP_KEYS)
    planned = plan(cache.connection)
    progress = Cancelling(2 * STEP_KEYS)
    outcome = cleanup_plans.carry_out(cache.connection, planned, "remove", None, "ada", "/a/copy", progress)
    assert (outcome.report.outcome, outcome.error, outcome.copy) == ("cancelled", None, "/a/copy")
    assert outcome.report.changed == 2 * STEP_KEYS
    assert outcome.report.remaining == len(left(valkey)) == 2 * STEP_KEYS
    assert progress.note.startswith("removing, ")
    assert progress.note.endswith(" a second")


def test_a_server_that_goes_half_way() -> None:
    with running("valkey9") as server, EmbeddingsCache("c", redis_url=server.url, stats=False) as cache:
        stored(cache, 4 * STEP_KEYS)
        planned = plan(cache.connection)

        class Stopping(Progress):
            def tell(self, done: int, total: int | None = None, note: str | None = None) -> None:
                if done == STEP_KEYS:
                    server.stop()
                super().tell(done, total, note)

        outcome = cleanup_plans.carry_out(cache.connection, planned, "remove", None, "ada", None, Stopping())
        assert outcome.report.outcome == "failed"
        assert isinstance(outcome.error, CacheUnavailableError)
        assert (outcome.report.changed, outcome.report.untouched) == (STEP_KEYS, 3 * STEP_KEYS)
        assert outcome.report.remaining is None
        assert not outcome.report.recorded
        with pytest.raises(CacheUnavailableError):  # nothing was done
            do(cache.connection, planned)


def test_entries_are_stored_while_others_are_removed(cache: EmbeddingsCache, valkey: Server) -> None:
    stored(cache, 8 * STEP_KEYS)
    planned = plan(cache.connection)
    ended = threading.Event()
    kept: list[str] = []

    def store() -> None:
        number = 0
        while not ended.is_set():
            kept.append(cache.set(f"meanwhile {number}", MODEL, [1.0]))
            number += 1

    thread = threading.Thread(target=store)
    thread.start()
    try:
        outcome = do(cache.connection, planned)
    finally:
        ended.set()
        thread.join()
    assert outcome.report.changed == 8 * STEP_KEYS
    assert kept
    assert left(valkey) == set(kept)
