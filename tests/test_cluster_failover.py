"""A primary is killed, and slots are moved, while threads and tasks use the cache."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clusters import (
    ClusterOfServers,
    begin_move,
    end_move,
    move_slot,
    running_cluster,
    slots_of,
    wait_until,
)

from embedcache import EmbeddingsCache
from embedcache.cluster.slots import slot_of
from embedcache.errors import CacheUnavailableError, EmbedcacheError
from embedcache.operations import checked

MODEL = "m"
COUNT = 300
LONG = os.environ.get("EMBEDCACHE_TEST_CLUSTER") == "1"
"""`make cluster`: each primary in turn is killed, and hundreds of slots are moved."""
WORKERS = 3
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def breakable() -> Iterator[ClusterOfServers]:
    with running_cluster() as cluster:
        yield cluster


def texts(count: int = COUNT) -> list[str]:
    return [f"text {number}" for number in range(count)]


def item(number: int) -> Any:
    return {"text": f"text {number}", "model_name": MODEL, "embedding": [float(number), 1.0]}


class Load:
    """Threads and tasks that read and write for as long as it is entered, and note what went wrong.

    Attributes:
        errors: Those of our own tree; work is expected to go on after them.
        wrong: Everything that never may be: another's vector, another kind of error.
        missing: Lookups that found nothing though the entry was stored before.
        rounds: How many times each worker read all entries without an error.
    """

    def __init__(self, cluster: ClusterOfServers) -> None:
        self.cache = EmbeddingsCache("load", redis_url=cluster.url, stats=False)
        self.errors: list[EmbedcacheError] = []
        self.wrong: list[Any] = []
        self.missing = 0
        self.rounds = [0] * 2 * WORKERS
        self.slowest = 0.0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(WORKERS)]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._work_async())))

    def __enter__(self) -> Load:
        self.cache.mset([item(number) for number in range(COUNT)])
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self.cache.close()

    def _work(self, worker: int) -> None:
        number = worker
        while not self._stopped.is_set():
            number = (number + 7) % COUNT
            started = time.monotonic()
            try:
                self._check(self.cache.mget(texts(), MODEL))
                self.cache.set(**item(number))
                self._check_one(number, self.cache.get(f"text {number}", MODEL))
                self.rounds[worker] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                self._note(error)
            self.slowest = max(self.slowest, time.monotonic() - started)

    async def _work_async(self) -> None:
        await asyncio.gather(*(self._task(WORKERS + number) for number in range(WORKERS)))
        await self.cache.aclose()

    async def _task(self, worker: int) -> None:
        number = worker
        while not self._stopped.is_set():
            number = (number + 11) % COUNT
            try:
                self._check(await self.cache.amget(texts(), MODEL))
                await self.cache.aset(**item(number))
                self._check_one(number, await self.cache.aget(f"text {number}", MODEL))
                self.rounds[worker] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                self._note(error)

    def _check(self, found: list[Any]) -> None:
        for number, entry in enumerate(found):
            self._check_one(number, entry)

    def _check_one(self, number: int, entry: Any) -> None:
        if entry is None:
            self.missing += 1
        elif entry["embedding"].tolist() != [number, 1.0] or entry["text"] != f"text {number}":
            self.wrong.append((number, entry))

    def _note(self, error: Exception) -> None:
        if isinstance(error, CacheUnavailableError):
            self.errors.append(error)
            time.sleep(0.01)  # as a program would compute the vector meanwhile
        else:
            self.wrong.append(error)

    def wait_for_rounds(self, count: int = 3) -> None:
        """Until each worker has got so much further."""
        before = list(self.rounds)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(now < then + count for now, then in zip(self.rounds, before, strict=True)):
            if time.monotonic() > deadline or self.wrong:
                raise AssertionError(f"no further than {self.rounds}: {self.wrong[:1]}, {self.errors[-1:]}")
            time.sleep(0.02)


# ------------------------------------------------------------------------------------------------ slots on the move


def ends_of_a_move(cluster: ClusterOfServers, key: str) -> tuple[int, Any, Any]:
    source = cluster.primary_of(key)
    ports = [port for _, _, port in slots_of(source) if port != source.port]
    return slot_of(key), source, next(node for node in cluster.nodes if node.port == ports[0])


def test_keys_are_found_while_their_slot_is_on_its_way(breakable: ClusterOfServers) -> None:
    with EmbeddingsCache("asked", redis_url=breakable.url, stats=False) as cache:
        keys = [f"asked:{{tag}}:{number}" for number in range(20)]
        drive: Callable[..., Any] = lambda *command: cache.connection.drive(checked(command))  # noqa: E731
        drive("MSET", *(part for key in keys for part in (key, "x")))
        slot, source, target = ends_of_a_move(breakable, keys[0])
        begin_move(slot, source, target)
        half = source.raw.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10)
        source.raw.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *half)
        assert drive("MGET", *keys) == [b"x"] * 20
        assert drive("EXISTS", *keys, "asked:{tag}:new") == 20
        drive("SET", "asked:{tag}:new", "y")
        assert drive("GET", "asked:{tag}:new") == b"y"
        assert asyncio.run(cache.connection.adrive(checked(("MGET", *keys)))) == [b"x"] * 20
        assert whole_walk(cache, "asked:*") == {*keys, "asked:{tag}:new"}
        move_slot(breakable, slot, source, target)
        end_move(breakable, slot, target)
        assert drive("MGET", *keys) == [b"x"] * 20
        assert drive("UNLINK", *keys, "asked:{tag}:new") == 21


def test_keys_that_move_behind_a_walk_are_found(breakable: ClusterOfServers) -> None:
    """They go from a node that is still walked over to one that was done, for it had none."""
    with EmbeddingsCache("behind", redis_url=breakable.url, stats=False) as cache:
        keys = {f"behind:{{tag}}:{number}" for number in range(500)}
        cache.connection.drive(checked(("MSET", *(part for key in keys for part in (key, "x")))))
        slot, source, target = ends_of_a_move(breakable, "behind:{tag}:0")
        cursor, some = cache.connection.drive(checked(("SCAN", 0, "MATCH", "behind:*", "COUNT", 30)))
        found = {key.decode() for key in some}
        move_slot(breakable, slot, source, target)
        assert found < keys
        assert found | rest_of_walk(cache, cursor, "behind:*") == keys
        assert cache.connection.drive(checked(("UNLINK", *keys))) == 500


def rest_of_walk(cache: EmbeddingsCache, cursor: Any, pattern: str) -> set[str]:
    found: set[str] = set()
    while cursor:
        cursor, some = cache.connection.drive(checked(("SCAN", cursor, "MATCH", pattern, "COUNT", 200)))
        found |= {key.decode() for key in some}
    return found


def whole_walk(cache: EmbeddingsCache, pattern: str) -> set[str]:
    cursor, some = cache.connection.drive(checked(("SCAN", 0, "MATCH", pattern, "COUNT", 200)))
    return {key.decode() for key in some} | rest_of_walk(cache, cursor, pattern)


def test_work_goes_on_while_slots_are_moved(breakable: ClusterOfServers) -> None:
    with Load(breakable) as load:
        load.wait_for_rounds()
        keys = [load.cache.key_for(text, MODEL) for text in texts(COUNT if LONG else 30)]
        for key in keys:
            slot, source, target = ends_of_a_move(breakable, key)
            move_slot(breakable, slot, source, target)
        load.wait_for_rounds()
    assert not load.wrong
    assert not load.errors
    assert load.missing == 0


def test_a_walk_misses_no_key_while_slots_are_moved(breakable: ClusterOfServers) -> None:
    with EmbeddingsCache("walked", redis_url=breakable.url, stats=False) as cache:
        keys = cache.mset([item(number) for number in range(2_000)])
        stopped = threading.Event()

        def move() -> None:
            for key in keys:
                if stopped.is_set():
                    break
                slot, source, target = ends_of_a_move(breakable, key)
                move_slot(breakable, slot, source, target)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            for _ in range(20 if LONG else 3):
                assert whole_walk(cache, "walked:*") == set(keys)
        finally:
            stopped.set()
            mover.join()
        assert cache.clear() == 2_000


# ------------------------------------------------------------------------------------------------ a primary dies


@pytest.mark.parametrize("victim", range(3 if LONG else 1))
def test_work_goes_on_after_a_primary_was_killed(breakable: ClusterOfServers, victim: int) -> None:
    breakable.wait_until_whole(replicas=3)
    with Load(breakable) as load:
        load.wait_for_rounds()
        dead = breakable.primary_of(load.cache.key_for(f"text {victim}", MODEL))
        dead.kill()
        wait_until(lambda: not dead.is_running, "the primary was dead")
        wait_until(
            lambda: all(port != dead.port for node in breakable.running() for _, _, port in slots_of(node)),
            "a replica took over",
        )
        breakable.wait_until_whole()
        load.wait_for_rounds()
        assert load.errors, "nobody noticed that a primary was dead"
        seen = len(load.errors)
        load.wait_for_rounds(5)
        assert len(load.errors) == seen
    assert not load.wrong
    assert load.slowest < PATIENCE_SECONDS / 2
    dead.stop()
    dead.start()  # it finds its folder as it was, and becomes a replica
    breakable.wait_until_whole(replicas=3)


def test_calls_fail_soon_while_a_primary_has_no_successor() -> None:
    with running_cluster(replicas=0) as cluster, EmbeddingsCache("c", redis_url=cluster.url, stats=False) as cache:
        keys = cache.mset([item(number) for number in range(100)])
        dead = cluster.primary_of(keys[0])
        dead.kill()
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(CacheUnavailableError, match=r"redis\+cluster://"):
                cache.mget(texts(100), MODEL)
            with pytest.raises(CacheUnavailableError):
                asyncio.run(cache.aget_by_key(keys[0]))
            with pytest.raises(CacheUnavailableError):
                cache.clear()
        assert time.monotonic() - started < 30  # 60 calls: more than a minute if each waited
