"""Processes that count in one cache: their sums are exact, whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from counted import Shelf, finished, run, started, stats_of, wait_until
from servers import Server, running

from embedcache import EmbeddingsCache, flushing
from embedcache.counters import ByModel

# Looks up, stores and drops in threads or in tasks, and says how often it did what, by model.
WORK = """
from collections import Counter
from embedcache.errors import CacheUnavailableError

seconds, number, asynchronous = float(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "async"
cache = EmbeddingsCache("c", redis_url=url)
did, lock = Counter(), threading.Lock()

def note(model, **amounts):
    with lock:
        did.update({f"{model} {name}": amount for name, amount in amounts.items()})

def plan(worker):
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turn += 1
        yield turn, f"m{(number + turn) % 3}", [f"{number} {worker} {each}" for each in range(turn % 5 + 1)]

def item(text, model):
    return {"text": text, "model_name": model, "embedding": [1.0, 2.0]}

def work(worker):
    for turn, model, texts in plan(worker):
        try:
            found = cache.mget(texts, model)
            note(model, hits=sum(map(bool, found)), misses=found.count(None), lookups=1)
            cache.mset([item(text, model) for text in texts])
            note(model, sets=len(texts))
            if turn % 3 == 0:
                note(model, drops=cache.mdrop(texts, model))
        except CacheUnavailableError:
            note("any", errors=1)
            time.sleep(0.01)

async def awork(worker):
    for turn, model, texts in plan(worker):
        found = await cache.amget(texts, model)
        note(model, hits=sum(map(bool, found)), misses=found.count(None), lookups=1)
        await cache.amset([item(text, model) for text in texts])
        note(model, sets=len(texts))
        if turn % 3 == 0:
            note(model, drops=await cache.amdrop(texts, model))

async def all_work():
    await asyncio.gather(*map(awork, range(3)))

if asynchronous:
    asyncio.run(all_work())
else:
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(json.dumps(did))
"""


def counted_by_server(total: ByModel) -> Counter[str]:
    found: Counter[str] = Counter()
    for model, each in total.items():
        names = ("hits", "misses", "sets", "drops")
        found.update({f"{model} {name}": getattr(each, name) for name in names})
        found[f"{model} lookups"] += sum(each.latencies.values())
    return +found


@pytest.fixture
def seen(valkey: Server) -> Iterator[Shelf]:
    """What the server knows, without asking any process."""
    with Shelf(valkey) as shelf:
        yield shelf


def test_counts_of_four_processes_sent_at_most_once_a_second_add_up_to_the_truth(valkey, seen):
    valkey.raw.config_resetstat()
    began = time.monotonic()
    kinds = ("sync", "async", "sync", "async")
    processes = [started(WORK, valkey.url, 1.6, number, kind) for number, kind in enumerate(kinds)]
    truth: Counter[str] = Counter()
    for process in processes:
        truth.update(json.loads(finished(process)))
    took = time.monotonic() - began
    # Each flush asks for the time once: at the start, once a second, and at the end.
    assert 4 * 2 <= valkey.raw.info("commandstats")["cmdstat_time"]["calls"] <= 4 * (took + 2)
    assert sum(truth.values()) > 1_000
    assert counted_by_server(seen.total()) == +truth
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as asking:
        last_hour = asking.stats("1h")
        assert last_hour.lookups == sum(amount for name, amount in truth.items() if name.endswith(" lookups"))
        assert sum(each.hits for each in asking.stats_series("10m", "1m")) == last_hour.hits


def test_a_server_that_dies_and_comes_back_has_every_count_once():
    with running("valkey9", "--appendonly", "yes", "--appendfsync", "always") as server:
        process = started(WORK, server.url, 2.5, 0, "sync")
        with Shelf(server) as shelf:
            assert wait_until(lambda: sum(each.hits for each in shelf.total().values()))
        for _ in range(2):
            server._process.send_signal(signal.SIGKILL)
            server._process.wait()
            server.start()
            time.sleep(0.3)
        truth = Counter(json.loads(finished(process)))
        with Shelf(server) as shelf:
            total = shelf.total()
        assert sum(each.errors for each in total.values()) == truth.pop("any errors")
        found = counted_by_server(total)
        assert {name: found[name] for name in truth if "drops" not in name and "sets" not in name} == {
            name: amount for name, amount in truth.items() if "drops" not in name and "sets" not in name
        }


# ------------------------------------------------------------------------------------------------ forks and children


def test_a_forked_child_counts_its_own_and_its_parents_counts_are_not_doubled(valkey, seen):
    run(
        """
cache = EmbeddingsCache("c", redis_url=url)
for _ in range(5): cache.get("parent", "p")
child = os.fork()
if child == 0:
    for _ in range(7): cache.get("child", "c")
    grandchild = os.fork()
    if grandchild == 0:
        cache.get("grandchild", "g")
        sys.exit()
    assert os.waitpid(grandchild, 0)[1] == 0
    sys.exit()
for _ in range(20): cache.get("parent", "p")
assert os.waitpid(child, 0)[1] == 0
""",
        valkey.url,
    )
    assert {model: each.misses for model, each in seen.total().items()} == {"p": 25, "c": 7, "g": 1}


def test_forks_in_the_middle_of_counting_and_flushing_neither_hang_nor_double(valkey, seen):
    out = run(
        """
cache = EmbeddingsCache("c", redis_url=url)
done, counted = threading.Event(), []
def count():
    while not done.is_set():
        cache.get("text", "p")
        counted.append(1)
        cache.flush_stats()
thread = threading.Thread(target=count)
thread.start()
children = []
for _ in range(12):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        cache.get("text", "c")
        cache.flush_stats()
        os._exit(0)
    children.append(child)
done.set()
thread.join()
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print(len(counted))
""",
        valkey.url,
    )
    assert {model: each.misses for model, each in seen.total().items()} == {"p": int(out), "c": 12}


def test_no_call_imports_a_module_which_a_child_forked_meanwhile_would_wait_for_for_ever(valkey):
    out = run(
        """
cache = EmbeddingsCache("c", redis_url=url)
before = set(sys.modules)
cache.set("text", "m", [0.5, 1.0], metadata={"a": 1}, ttl=9)
cache.mget(["text", "other"], "m")
cache.mget_embeddings(["text"], "m")
cache.drop("text", "m")
cache.flush_stats()
print(sorted(set(sys.modules) - before))
""",
        valkey.url,
    )
    assert out == "[]\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_deliver_what_they_counted(valkey, seen, tmp_path, method):
    run(
        """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
cache = EmbeddingsCache("c", redis_url=url)

def count(times):
    for _ in range(times): cache.get("text", "child")
    return times

if __name__ == "__main__":
    cache.get("text", "parent")
    context = multiprocessing.get_context(sys.argv[2])
    child = context.Process(target=count, args=(3,))
    child.start()
    child.join()
    assert child.exitcode == 0
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(count, [4, 5])) == [4, 5]
""",
        valkey.url,
        method,
        file=tmp_path / "script.py",
    )
    assert {model: each.misses for model, each in seen.total().items()} == {"parent": 1, "child": 12}


# ------------------------------------------------------------------------------------------------ the end

ENDS = {
    "at once": "",
    "closed": "cache.close()",
    "closed twice": "cache.close(); cache.close()",
    "forgotten": "del cache; import gc; gc.collect()",
    "by sys.exit": "sys.exit(0)",
    "used again after it was closed": "cache.close(); cache.get('text', 'm')",
    "after a change of its TTL": "cache.set_ttl(5); cache.get('text', 'm')",
}
ASYNC_ENDS = {
    "async": "asyncio.run(look_up())",
    "async and closed": "async def main():\n    async with cache: await look_up()\nasyncio.run(main())",
    "async on two loops": "asyncio.run(look_up()); asyncio.run(look_up())",
}


def test_a_program_that_ends_at_once_has_delivered(valkey):
    """All at a time, each in a cache of its own."""
    make = "cache = EmbeddingsCache(sys.argv[2], redis_url=url)\n"
    scripts = {name: f"{make}cache.get('text', 'm')\n{end}" for name, end in ENDS.items()}
    look_up = "async def look_up(): await cache.aget('text', 'm')\n"
    scripts |= {name: make + look_up + end for name, end in ASYNC_ENDS.items()}
    processes = [started(script, valkey.url, name) for name, script in scripts.items()]
    for process in processes:
        finished(process)
    twice = {"used again after it was closed", "after a change of its TTL", "async on two loops"}
    counted = {name: stats_of(valkey.url, name).misses for name in scripts}
    assert counted == {name: 2 if name in twice else 1 for name in scripts}


def test_a_program_that_gave_an_async_client_has_delivered(valkey):
    run(
        """
import redis.asyncio
async def main():
    client = redis.asyncio.Redis.from_url(url)
    await EmbeddingsCache('c', async_redis_client=client).aget('text', 'm')
    await client.aclose()
asyncio.run(main())
""",
        valkey.url,
    )
    assert stats_of(valkey.url).misses == 1


def test_a_program_that_ends_while_its_counts_are_on_their_way_waits_for_them(valkey):
    run(
        """
cache = EmbeddingsCache('c', redis_url=url)
cache.exists('text', 'm')
cache.connection.client().execute_command('CLIENT', 'PAUSE', '700', 'WRITE')
cache.get('text', 'm')
time.sleep(0.2)  # the thread has taken the counts, and the server keeps it waiting
""",
        valkey.url,
    )
    assert stats_of(valkey.url).misses == 1


def test_a_program_that_ends_in_an_exception_has_delivered(valkey):
    process = started(
        "cache = EmbeddingsCache('c', redis_url=url)\ncache.get('text', 'm')\nraise SystemExit(3)", valkey.url
    )
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert stats_of(valkey.url).misses == 1


def test_a_program_on_the_embedded_server_delivers_before_the_server_stops(tmp_path):
    url = f"embedded://{tmp_path}/data"
    run("EmbeddingsCache('c', redis_url=url).get('text', 'm')", url)
    run("cache = EmbeddingsCache('c', redis_url=url)\ncache.get('text', 'm')\ncache.close()", url)
    assert stats_of(url).misses == 2


def test_a_killed_process_loses_at_most_its_last_second(valkey):
    process = started(
        """
cache = EmbeddingsCache('c', redis_url=url)
counted = 0
while True:
    cache.get('text', 'm')
    counted += 1
    if counted % 20 == 0: print(time.monotonic(), counted, flush=True)
""",
        valkey.url,
    )
    told: list[tuple[float, int]] = []
    while not told or told[-1][0] - told[0][0] < 2.6:
        moment, counted = process.stdout.readline().split()
        told.append((float(moment), int(counted)))
    process.kill()
    rest, _ = process.communicate()
    told += [(float(line.split()[0]), int(line.split()[1])) for line in rest.splitlines()[:-1]]
    known = stats_of(valkey.url).misses
    a_second_before = max(counted for moment, counted in told if moment <= told[-1][0] - 1.5)
    assert a_second_before <= known <= told[-1][1] + 20


# ------------------------------------------------------------------------------------------------ no server

SHORT = "connection_kwargs={'socket_timeout': 0.3, 'socket_connect_timeout': 0.3}"


def test_a_program_ends_though_its_server_is_away(tmp_path):
    script = f"""
from embedcache.errors import CacheUnavailableError
cache = EmbeddingsCache('c', redis_url=url, {SHORT})
try: cache.get('text', 'm')
except CacheUnavailableError: print('away')
"""
    ends = ("", "cache.close()", "asyncio.run(cache.aclose())")
    processes = [started(script + end, f"unix://{tmp_path}/none") for end in ends]
    assert [finished(process) for process in processes] == ["away\n"] * 3


def test_a_program_ends_though_its_server_hangs():
    with running("valkey9") as server:
        process = started(
            f"cache = EmbeddingsCache('c', redis_url=url, {SHORT})\ncache.get('text', 'm')\n"
            "cache.flush_stats(); cache.get('text', 'm'); print('did', flush=True); sys.stdin.read()",
            server.url,
        )
        assert process.stdout.readline() == "did\n"
        os.kill(server._process.pid, signal.SIGSTOP)
        try:
            finished(process)
        finally:
            os.kill(server._process.pid, signal.SIGCONT)
        assert stats_of(server.url).misses in {1, 2}


def test_a_closed_cache_is_not_kept_for_a_server_that_is_away():
    with running("valkey9") as server:
        cache = EmbeddingsCache("c", redis_url=server.url)
        cache.get("text", "m")
        server.stop()
        cache.close()
        assert cache._outbox not in flushing._flusher._full


def test_importing_the_package_starts_no_thread_and_counting_nothing_neither(tmp_path):
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            "import threading, embedcache\n"
            "cache = embedcache.EmbeddingsCache(redis_url='unix:///none', stats=False)\n"
            "cache.record_computation('m', 1, 1.0)\n"
            "print(threading.active_count())",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert out.stdout == "1\n"
