"""A real Redis Cluster for the tests: three primaries and a replica of each, on the loopback, always stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from servers import Server, ServerNotFoundError, free_port, is_statistics

from embedcache.cluster.slots import SLOTS, slot_of

PRIMARIES = 3
NODE_TIMEOUT_MS = 2_000  # a busy machine may keep a node from the processor for a while
READY_SECONDS = 60
_POLL_SECONDS = 0.02


class RawCluster(redis.RedisCluster):
    """A client that looks in from outside as a plain one does: what it is told to do, it does across slots."""

    def mset(self, mapping: Any) -> Any:
        return self.mset_nonatomic(mapping)

    def mget(self, keys: Any, *args: Any) -> Any:
        return self.mget_nonatomic(keys, *args)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        # What a server is told of itself or of its users, each node is told.
        if args[0] in {"ACL", "CONFIG", "SCRIPT"}:
            told = super().execute_command(*args, **options, target_nodes=redis.RedisCluster.ALL_NODES)
            return next(iter(told.values())) if isinstance(told, dict) else told
        if args[0] in {"DBSIZE", "KEYS"}:
            return super().execute_command(*args, **options, target_nodes=redis.RedisCluster.PRIMARIES)
        return super().execute_command(*args, **options)


class ClusterOfServers:
    """Three primaries with a third of the slots each, and their replicas; it looks like a `Server` to tests."""

    kind = "cluster"

    def __init__(self, kind: str = "valkey9", replicas: int = PRIMARIES) -> None:
        self.nodes: list[Server] = []
        self._raw: RawCluster | None = None
        try:
            self._start(kind, replicas)
        except BaseException:
            self.remove()
            raise
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:PRIMARIES])

    def _start(self, kind: str, replicas: int) -> None:
        for _ in range(PRIMARIES + replicas):
            self.nodes.append(_start_node(kind))
        first, *others = self.nodes
        primaries = self.nodes[:PRIMARIES]
        bounds = [SLOTS * each // PRIMARIES for each in range(PRIMARIES + 1)]
        for epoch, node in enumerate(primaries):
            owned = range(bounds[epoch], bounds[epoch + 1])
            node.raw.execute_command("CLUSTER", "ADDSLOTS", *owned)
            node.raw.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch + 1)
        for node in others:
            node.raw.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, _bus_port(first))
        wait_until(lambda: all(len(known(node)) == len(self.nodes) for node in self.nodes), "the nodes met")
        for place, node in enumerate(self.nodes[PRIMARIES:]):
            node.raw.execute_command("CLUSTER", "REPLICATE", id_of(primaries[place % PRIMARIES]))
        self.wait_until_whole(replicas)

    @property
    def socket(self) -> str:
        """Asked for by tests of a single server's unix socket."""
        pytest.skip("a Redis Cluster is reached by TCP alone")

    folder = socket

    @property
    def raw(self) -> RawCluster:
        """A client of its own, made anew after the nodes have changed."""
        if self._raw is None:
            startup = [redis.cluster.ClusterNode("127.0.0.1", node.port) for node in self.nodes]
            self._raw = RawCluster(startup_nodes=startup)
        return self._raw

    def wait_until_whole(self, replicas: int = 0) -> None:
        """Until all running nodes say that all slots are served, by the same primaries, with so many replicas."""

        def is_whole() -> bool:
            told = [slots_of(node) for node in self.running()]
            states = [node.raw.execute_command("CLUSTER", "INFO") for node in self.running()]
            linked = sum(_is_linked(node) for node in self.running())
            return (
                all(each == told[0] for each in told)
                and all(b"cluster_state:ok" in state for state in states)
                and linked >= replicas
            )

        wait_until(is_whole, "the Cluster was whole")

    def running(self) -> list[Server]:
        """The nodes that were not killed."""
        return [node for node in self.nodes if node.is_running]

    def primary_of(self, key: str) -> Server:
        """Who serves a key, by the word of those that run."""
        slot = slot_of(key)
        for first, last, port in slots_of(self.running()[0]):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(key)

    def plain_keys(self) -> list[bytes]:
        """All keys but those of statistics."""
        return [key for key in self.raw.scan_iter() if not is_statistics(key)]

    def pttl(self, key: str) -> int:
        """As of `Server`."""
        return int(self.raw.pttl(key))

    def remove(self) -> None:
        """Stops all nodes and removes their folders."""
        if self._raw is not None:
            self._raw.close()
        for node in self.nodes:
            node.remove()


# ------------------------------------------------------------------------------------------------ nodes


def _start_node(kind: str) -> Server:
    for attempt in range(5):
        bus = free_port()
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        try:
            node = Server(
                kind, *options, "--cluster-port", str(bus), "--repl-diskless-sync-delay", "0", port=free_port()
            )
        except RuntimeError:  # somebody took one of the ports meanwhile
            if attempt == 4:
                raise
        else:
            node.bus = bus
            return node
    raise AssertionError


def _bus_port(node: Server) -> int:
    return node.bus


def id_of(node: Server) -> str:
    return str(node.raw.execute_command("CLUSTER", "MYID").decode())


def known(node: Server) -> list[bytes]:
    """The nodes that one has shaken hands with."""
    lines = node.raw.execute_command("CLUSTER", "NODES").splitlines()
    return [line for line in lines if b"handshake" not in line]


def slots_of(node: Server) -> list[tuple[int, int, int]]:
    """First and last slot, and the port of its primary, of each range that a node knows."""
    ranges = node.raw.execute_command("CLUSTER", "SLOTS")
    return sorted((first, last, primary[1]) for first, last, primary, *_ in ranges)


def _is_linked(node: Server) -> bool:
    said = node.raw.info("replication")
    return said["role"] == "slave" and said["master_link_status"] == "up"


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(redis.RedisError):
            if is_so():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{READY_SECONDS} s passed before {what}")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def running_cluster(kind: str = "valkey9", replicas: int = PRIMARIES) -> Iterator[ClusterOfServers]:
    """One of its own for a test that breaks it."""
    try:
        cluster = ClusterOfServers(kind, replicas)
    except ServerNotFoundError as error:
        pytest.skip(str(error))
    try:
        yield cluster
    finally:
        cluster.remove()


def move_slot(cluster: ClusterOfServers, slot: int, source: Server, target: Server, keys_at_once: int = 10) -> None:
    """Moves a slot as operators do: keys one step after the other, clients being told ASK, then MOVED."""
    begin_move(slot, source, target)
    while keys := source.raw.execute_command("CLUSTER", "GETKEYSINSLOT", slot, keys_at_once):
        source.raw.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    end_move(cluster, slot, target)


def begin_move(slot: int, source: Server, target: Server) -> None:
    target.raw.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
    source.raw.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))


def end_move(cluster: ClusterOfServers, slot: int, target: Server) -> None:
    primaries = {port for _, _, port in slots_of(target)}
    for node in [target, *(each for each in cluster.running() if each.port in primaries and each is not target)]:
        node.raw.execute_command("CLUSTER", "SETSLOT", slot, "NODE", id_of(target))
