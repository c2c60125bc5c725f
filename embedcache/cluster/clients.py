"""The Redis Cluster of a connection: what is known of it, and the ways to it, for threads and for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import redis
import redis.asyncio

from embedcache.client_settings import describe_cluster
from embedcache.cluster.connections import (
    AsyncClusterConnections,
    ClusterConnections,
    GivenNode,
    MadeNode,
    addresses_of,
    given_node,
)
from embedcache.cluster.slots import Address, Remap
from embedcache.cluster.topology import Topology
from embedcache.commands import Command
from embedcache.errors import ClientRefusedError
from embedcache.event_loops import LoopClient
from embedcache.round_trips import KeptConnections

OpenNode = Callable[[Address], redis.Redis]
OpenAsyncNode = Callable[[Address], redis.asyncio.Redis]


class Cluster:
    """Sends batches of commands to a Redis Cluster. Nothing is connected before the first.

    Args:
        nodes: Some of its nodes.
        open_node: Makes the sync client of one node.
        open_async_node: Makes the async client of one node.
        client: A sync client to use in place of those.
        async_client: An async client to use in place of those.
        remap: Says where a node is reached, if not at the address that the nodes name.
    """

    def __init__(
        self,
        nodes: Iterable[Address],
        open_node: OpenNode,
        open_async_node: OpenAsyncNode,
        *,
        client: redis.RedisCluster | None = None,
        async_client: redis.asyncio.RedisCluster | None = None,
        remap: Remap | None = None,
    ) -> None:
        named = sorted(set(nodes))
        self.address = describe_cluster(named)
        self._topology = topology = Topology(named, remap)
        self._made = self._sync = ClusterConnections(topology, lambda address: _kept(open_node(address)))
        if client is not None:
            self._sync = ClusterConnections(topology, lambda address: given_node(client, address))
        self._given_async: AsyncClusterConnections | None = None
        if async_client is not None:
            self._given_async = AsyncClusterConnections(topology, lambda address: GivenNode(async_client, address))
        self._open_async_node = open_async_node
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient[AsyncClusterConnections]] = (
            WeakKeyDictionary()
        )

    @classmethod
    def of_clients(
        cls,
        client: redis.Redis | redis.RedisCluster | None,
        async_client: redis.asyncio.Redis | redis.asyncio.RedisCluster | None,
        open_node: OpenNode,
        open_async_node: OpenAsyncNode,
    ) -> Cluster | None:
        """That of clients that were passed in; None where they are of a single server.

        Raises:
            ClientRefusedError: One is of a Cluster and the other of a single server.
        """
        given = [each for each in (client, async_client) if each is not None]
        clusters = [each for each in given if is_cluster_client(each)]
        if not clusters:
            return None
        if len(clusters) != len(given):
            raise ClientRefusedError("one of the clients is of a Redis Cluster, and the other is of a single server")
        manager = clusters[0].nodes_manager
        return cls(
            addresses_of(clusters[0]),
            open_node,
            open_async_node,
            client=client if isinstance(client, redis.RedisCluster) else None,
            async_client=async_client if isinstance(async_client, redis.asyncio.RedisCluster) else None,
            remap=lambda address: manager.remap_host_port(*address),
        )

    def send(self, commands: Sequence[Command], *, background: bool = False) -> list[Any]:
        """One reply per command, in order; the servers' errors as values.

        In the background, a client that was passed in is not used.

        Raises:
            ConnectionError: A node that is needed gives no answer, and no other has taken its place yet.
            InvalidInputError: A command names no node.
        """
        return (self._made if background else self._sync).send(commands)

    async def asend(self, commands: Sequence[Command]) -> list[Any]:
        """Async twin of `send`, on the running loop's connections."""
        if self._given_async is not None:
            return await self._given_async.send(commands)
        loop = asyncio.get_running_loop()
        held = self._loops.get(loop)
        if held is None:
            opening = self._open_async_node
            made = AsyncClusterConnections(self._topology, lambda address: MadeNode(opening(address)))
            held = self._loops.setdefault(loop, LoopClient(made, made.aclose))
            await held.close_with_loop(lambda: self._loops.pop(loop, None))
        return await held.client.send(commands)

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._made.forget()
        self._sync.forget()

    def close(self) -> None:
        """Closes the sync connections that were opened here."""
        self._made.close()

    async def aclose(self) -> None:
        """Closes those of the running loop."""
        held = self._loops.pop(asyncio.get_running_loop(), None)
        if held is not None:
            await held.aclose()


def is_cluster_client(client: object) -> TypeGuard[redis.RedisCluster | redis.asyncio.RedisCluster]:
    """Whether a client is of a Redis Cluster."""
    return isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster)


def _kept(client: redis.Redis) -> KeptConnections:
    # Credentials that change by themselves are sent again when a connection passes the pool.
    return KeptConnections(client, keep=client.connection_pool.connection_kwargs.get("credential_provider") is None)
