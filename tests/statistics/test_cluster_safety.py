"""A server in cluster mode that has all slots: a command on keys of two slots is an error there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from counted import MODEL, Shelf, batch, wait_until
from servers import Server, running

from embedcache import buckets, statistics
from embedcache.buckets import read_slow, set_price
from embedcache.counters import Counts, Slow
from embedcache.errors import ServerReplyError
from embedcache.operations import checked

NAMES = ["c", "x{y}", "x}y{z", "{", "a:b"]


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    with running("valkey9", "--cluster-enabled", "yes") as server:
        server.raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        assert wait_until(lambda: b"cluster_state:ok" in server.raw.execute_command("CLUSTER", "INFO"))
        yield server


@pytest.fixture
def cluster(node: Server) -> Server:
    node.raw.flushall()
    return node


def fill(shelf: Shelf) -> None:
    """Every kind of key that statistics have."""
    slow = Slow(at=0.0, seconds=1.0, model_name=MODEL, key="k", texts=1, hits=1, text=None)
    key = shelf.space.key(b"text:" + MODEL.encode())
    counts = {MODEL: Counts(hits=2, misses=1, latencies={40: 3})}
    shelf.add(batch(counts, missed=[(key, MODEL, 0.0)], stored={key: (0.0, 60)}, slow=[slow]), number=1)
    shelf.add(batch(counts, missed=[(key, MODEL, 0.0)], dropped={"c:" + "0" * 64}), number=2)
    shelf.connection.drive(set_price(shelf.space, MODEL, 0.5))


def all_told(shelf: Shelf) -> None:
    found = shelf.connection.drive(statistics.stats(shelf.space, "1h", None))
    assert (found.hits, found.misses, found.lookups) == (4, 2, 6)
    steps = shelf.connection.drive(statistics.series(shelf.space, "10m", "1m", MODEL))
    assert sum(step.hits for step in steps) == 4
    assert shelf.total()[MODEL].hits == 4
    assert len(shelf.connection.drive(read_slow(shelf.space))) == 1
    assert shelf.connection.drive(buckets.read_standing(shelf.space)).prices == {MODEL: 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_all_keys_of_a_cache_lie_in_one_slot_and_scripts_run(cluster, name):
    with Shelf(cluster, name) as shelf:
        fill(shelf)
        assert shelf.able.scripts
        all_told(shelf)
        keys = list(cluster.raw.scan_iter())
        assert len(keys) == 8
        assert len({cluster.raw.execute_command("CLUSTER", "KEYSLOT", key) for key in keys}) == 1


@pytest.mark.parametrize("name", ["{}", "x{}y"])
def test_a_name_that_rules_out_one_slot_is_counted_by_plain_commands(cluster, name):
    with Shelf(cluster, name) as shelf:
        fill(shelf)
        assert not shelf.able.scripts
        all_told(shelf)
        keys = list(cluster.raw.scan_iter())
        assert len({cluster.raw.execute_command("CLUSTER", "KEYSLOT", key) for key in keys}) > 1
        assert {cluster.pttl(key) > 0 or key.endswith(b":prices") for key in keys} == {True}


def test_the_servers_rule_is_in_force(cluster):
    with Shelf(cluster) as shelf, pytest.raises(ServerReplyError, match="CROSSSLOT"):
        shelf.connection.drive(checked(("MGET", "a", "b")))


def test_a_batch_sent_twice_is_added_once_there_too(cluster):
    with Shelf(cluster) as shelf:
        for _ in range(3):
            shelf.add(batch(), number=1)
        assert shelf.total()[MODEL].hits == 1
