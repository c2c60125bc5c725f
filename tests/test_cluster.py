"""A whole Redis Cluster: what its three primaries do together, beside what `test_cluster_contract.py` asserts."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from clusters import ClusterOfServers
from removing import plan_of
from servers import free_port, running

from embedcache import EmbeddingsCache, inspector
from embedcache.cluster.slots import slot_of
from embedcache.errors import (
    CacheUnavailableError,
    ClientRefusedError,
    InvalidInputError,
    InvalidURLError,
    ReadOnlyError,
    ServerReplyError,
)
from embedcache.inspector import find_caches, find_names
from embedcache.operations import checked
from embedcache.removal import carry_out, clear_cache
from embedcache.transfer import export_entries, restore_entries
from embedcache.transfer.convert import convert_entries
from embedcache.walking import count_keys, index_cache

MODEL = "m"


def items(count: int, prefix: str = "text", **fields: Any) -> list[Any]:
    return [
        {"text": f"{prefix} {number}", "model_name": MODEL, "embedding": [float(number), 1.0], **fields}
        for number in range(count)
    ]


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


@pytest.fixture
def cache(cluster: ClusterOfServers) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=cluster.url, stats=False) as opened:
        yield opened


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://127.0.0.1:1/3", "redis+cluster://127.0.0.1:no", "redis+cluster://u:geheim@h:1,h:two"],
)
def test_a_url_that_names_no_cluster_is_refused(url: str) -> None:
    with pytest.raises(InvalidURLError) as caught:
        EmbeddingsCache("c", redis_url=url)
    assert "geheim" not in str(caught.value)


def test_the_password_is_never_shown() -> None:
    cache = EmbeddingsCache("c", redis_url="redis+cluster://u:geheim@127.0.0.1:1,127.0.0.1:2", stats=False)
    with pytest.raises(CacheUnavailableError) as caught:
        cache.get("a", MODEL)
    assert "geheim" not in f"{cache!r} {caught.value}"
    cache.close()


def test_clients_of_two_kinds_are_refused(cluster: ClusterOfServers) -> None:
    with redis.Redis() as single, pytest.raises(ClientRefusedError, match="single server"):
        EmbeddingsCache("c", redis_client=single, async_redis_client=redis.asyncio.RedisCluster("127.0.0.1", 1))


def test_a_server_that_is_no_cluster_says_so() -> None:
    with (
        running("valkey9", port=free_port()) as server,
        EmbeddingsCache("c", redis_url=f"redis+cluster://127.0.0.1:{server.port}", stats=False) as cache,
        pytest.raises(ServerReplyError, match="cluster support disabled"),
    ):
        cache.get("a", MODEL)


@pytest.mark.parametrize("command", [("FLUSHALL",), ("RANDOMKEY",), ("CONFIG", "GET", "save"), ("EVAL", "return 1", 0)])
def test_a_command_that_names_no_node_is_refused(cache: EmbeddingsCache, command: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInputError, match="names no key"):
        cache.connection.drive(checked(command))


def test_there_is_no_single_client(cache: EmbeddingsCache) -> None:
    with pytest.raises(ClientRefusedError, match="Redis Cluster"):
        cache.connection.client()


# ------------------------------------------------------------------------------------------------ counts


def test_entries_lie_on_all_primaries_and_are_counted_once(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    keys = cache.mset(items(3_000))
    held = [node.raw.dbsize() for node in cluster.nodes[:3]]
    assert min(held) > 500
    assert sum(held) == 3_000
    survey = find_caches(cache.connection)
    assert [(each.name, each.entries) for each in survey.caches] == [("c", 3_000)]
    assert survey.scanned_keys == 3_000
    assert survey.complete
    assert inspector.server_info(cache.connection).total_keys == 3_000
    assert count_keys(cache.connection, lambda *_: None).by_cache == {"c": 3_000}
    index = index_cache(cache.connection, "c", lambda *_: None)
    assert len(index) == 3_000
    assert cache.mdrop_by_keys(keys[:1_000]) == 1_000
    assert cache.clear() == 2_000
    assert cluster.raw.dbsize() == 0


def test_clear_leaves_neighbours(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    with EmbeddingsCache("c:d", redis_url=cluster.url, stats=False) as neighbour:
        neighbour.mset(items(300))
        cache.mset(items(300))
        assert cache.clear() == 300
        assert all(neighbour.mexists(texts(300), MODEL))
    assert find_names(cache.connection) == ("c:d",)


def test_a_scan_finds_each_key(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    keys = set(cache.mset(items(5_000)))
    for count in (10, 100, 10_000):
        found: list[str] = []
        cursor: Any = 0
        while True:
            cursor, some = cache.connection.drive(checked(("SCAN", cursor, "MATCH", "c:*", "COUNT", count)))
            found += [key.decode() for key in some]
            if cursor == 0:
                break
        assert set(found) == keys


def test_a_removal_by_a_plan(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    keys = cache.mset(items(800))
    plan = plan_of(cache.connection, keys[:400])
    cache.set("text 3", MODEL, [3.0])
    report = carry_out(cache.connection, plan, lambda *_: None, "me", pace=1)
    assert (report.changed, report.kept_newer) == (399, 1)
    assert clear_cache(cache.connection, "c", lambda *_: None, "me", pace=1).changed == 401


def test_the_overview_adds_the_primaries_up(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    cache.mset(items(100))
    info = inspector.server_info(cache.connection)
    used = [node.raw.info("memory")["used_memory"] for node in cluster.nodes[:3]]
    assert info.mode == "cluster"
    assert info.used_memory_bytes == pytest.approx(sum(used), rel=0.2)
    assert info.total_keys == 100
    assert info.address == cluster.url


# ------------------------------------------------------------------------------------------------ everything else


def test_statistics_lie_on_one_node_and_are_read_back(cluster: ClusterOfServers) -> None:
    with EmbeddingsCache("c", redis_url=cluster.url) as cache:
        cache.mset(items(10))
        cache.mget([*texts(10), "nobody has it"], MODEL)
        cache.flush_stats()
        found = cache.stats()
        assert (found.hits, found.misses) == (10, 1)
    slots = {slot_of(key) for key in cluster.raw.scan_iter() if b":stats:" in key}
    assert len(slots) == 1


def test_export_and_import(cluster: ClusterOfServers, cache: EmbeddingsCache, tmp_path: Path) -> None:
    cache.mset(items(600, ttl=900))
    export_entries(cache.connection, "c", tmp_path / "c.parquet")
    cache.clear()
    restore_entries(cache.connection, "c", tmp_path / "c.parquet")
    assert [entry["embedding"][0] for entry in cache.mget(texts(600), MODEL)] == list(range(600))
    assert 0 < cluster.pttl(cache.key_for("text 1", MODEL)) <= 900_000


def test_export_goes_on_and_import_as_hashes(cluster: ClusterOfServers, cache: EmbeddingsCache, tmp_path: Path) -> None:
    def stop(done: int, _total: int | None) -> None:
        if done > 300:
            raise KeyboardInterrupt

    cache.mset(items(600))
    with pytest.raises(KeyboardInterrupt):
        export_entries(cache.connection, "c", tmp_path / "c.parquet", tell=stop, resume=True)
    report = export_entries(cache.connection, "c", tmp_path / "c.parquet", resume=True)
    assert (report.entries, 300 < report.resumed <= 600) == (600, True)
    cache.clear()
    restore_entries(cache.connection, "c", tmp_path / "c.parquet", layout="redisvl")
    with EmbeddingsCache("c", redis_url=cluster.url, stats=False, layout="redisvl") as other:
        assert all(other.mexists(texts(600), MODEL))
        assert export_entries(other.connection, "c", tmp_path / "again.parquet").entries == 600


def test_conversion_there_and_back(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    cache.mset([*items(100), {"text": b"\xff\x00", "model_name": MODEL, "embedding": [7.0, 1.0]}])
    convert_entries(cache.connection, "c", "redisvl", pace=1)
    with EmbeddingsCache("c", redis_url=cluster.url, stats=False, layout="redisvl") as other:
        assert all(other.mexists([*texts(100), b"\xff\x00"], MODEL))
    convert_entries(cache.connection, "c", "packed", pace=1)
    assert cache.get(b"\xff\x00", MODEL)["embedding"].tolist() == [7, 1]
    assert all(cache.mexists(texts(100), MODEL))


def test_why_and_read_only(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    cache.set("text 0", MODEL, [1.0])
    with EmbeddingsCache("c", redis_url=cluster.url, read_only=True) as looking:
        assert looking.get("text 0", MODEL) is not None
        assert looking.why("text 0 ", MODEL) is not None
        with pytest.raises(ReadOnlyError):
            looking.set("a", MODEL, [1.0])


def test_a_near_cache_goes_by_its_ttl_alone(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    with EmbeddingsCache("c", redis_url=cluster.url, stats=False, near_cache=10) as near:
        cache.set("a", MODEL, [1.0])
        assert near.get("a", MODEL) is not None
        cluster.raw.delete(cache.key_for("a", MODEL))
        assert near.get("a", MODEL) is not None
        state = near.near_state
        assert state is not None
        assert not state.tracked


# ------------------------------------------------------------------------------------------------ clients


def test_a_client_that_was_passed_in_is_used_and_stays_open(cluster: ClusterOfServers) -> None:
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[1].port, decode_responses=True) as client:
        with EmbeddingsCache("c", redis_client=client) as cache:
            cache.mset(items(100))
            assert len([entry for entry in cache.mget(texts(100), MODEL) if entry]) == 100
            cache.flush_stats()
            assert asyncio.run(cache.amget(texts(2), MODEL))[1]["embedding"].tolist() == [1, 1]
        assert client.ping()


async def test_an_async_client_that_was_passed_in_is_used_and_stays_open(cluster: ClusterOfServers) -> None:
    async with redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.nodes[1].port) as client:
        async with EmbeddingsCache("c", async_redis_client=client, stats=False) as cache:
            await cache.amset(items(100))
            found = await asyncio.gather(*(cache.amget(texts(100), MODEL) for _ in range(20)))
            assert all(entry["embedding"][0] == n for each in found for n, entry in enumerate(each))
            assert cache.mexists(texts(2), MODEL) == [True, True]
        assert await client.ping()


def test_threads_share_a_connection(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    cache.mset(items(200))

    def look(number: int) -> bool:
        found = cache.mget(texts(200), MODEL)
        return all(entry["embedding"][0] == n for n, entry in enumerate(found)) and cache.exists("text 1", MODEL)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(80)))


def test_a_cancelled_call_leaves_its_replies_to_nobody(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    async def cancel_some() -> None:
        await cache.amset(items(500))
        for wait in range(20):
            task = asyncio.create_task(cache.amget(texts(500), MODEL))
            await asyncio.sleep(wait / 5_000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            entry = await cache.aget("text 7", MODEL)
            assert entry is not None
            assert entry["embedding"].tolist() == [7, 1]
        await cache.aclose()

    asyncio.run(cancel_some())


def test_a_forked_child_has_connections_of_its_own(cluster: ClusterOfServers, cache: EmbeddingsCache) -> None:
    cache.mset(items(50))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            found = cache.mget(texts(50), MODEL)
            code = 0 if all(entry["embedding"][0] == n for n, entry in enumerate(found)) else 2
        finally:
            os._exit(code)
    assert all(entry["embedding"][0] == n for n, entry in enumerate(cache.mget(texts(50), MODEL)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_user_needs_leave_to_ask_for_the_slots(cluster: ClusterOfServers) -> None:
    cluster.raw.execute_command(
        "ACL", "SETUSER", "plain", "reset", "on", ">pw", "~*", "+get", "+mget", "+cluster|slots"
    )
    try:
        url = cluster.url.replace("://", "://plain:pw@")
        with EmbeddingsCache("c", redis_url=url, stats=False) as cache:
            assert cache.mget(["a", "b"], MODEL) == [None, None]
    finally:
        cluster.raw.execute_command("ACL", "DELUSER", "plain")


def test_the_page_says_what_is(cluster: ClusterOfServers, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("redis+cluster://10.0.0.1:6379,10.0.0.2:6379", cluster.url), names)  # noqa: S102 - it is ours
    assert capsys.readouterr().out.split() == ["100", "100"]
    names["cache"].close()
