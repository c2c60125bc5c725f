"""The ways to a Redis Cluster's nodes, sync and async: they move a delivery along, to all of its nodes at a time.

Sync, each node is written to before the first is read from, so that all work at once. (A thread for each node took
longer: its start alone takes as long as a node needs for 100 commands.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.connection import Connection
from redis.exceptions import ResponseError

from embedcache.cluster.delivery import deliver
from embedcache.cluster.slots import Address
from embedcache.cluster.topology import Delivery, Outcome, Round, Topology
from embedcache.commands import Command
from embedcache.round_trips import NO_ANSWER, KeptConnections, reply_error

# ------------------------------------------------------------------------------------------------ sync


class ClusterConnections:
    """The sync way. Threads may share it.

    Args:
        topology: What is known of the Cluster.
        open_node: The connections to one node.
    """

    def __init__(self, topology: Topology, open_node: Callable[[Address], KeptConnections]) -> None:
        self._topology = topology
        self._open_node = open_node
        self._nodes: dict[Address, KeptConnections] = {}

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """One reply per command, in order; the servers' errors as values."""
        delivery = deliver(self._topology, commands)
        try:
            step = next(delivery)
            while True:
                if isinstance(step, float):
                    time.sleep(step)
                    step = delivery.send({})
                else:
                    step = delivery.send(self._go(step))
        except StopIteration as end:
            return cast("list[Any]", end.value)

    def _go(self, going: Round) -> dict[Address, Outcome]:
        outcomes: dict[Address, Outcome] = {}
        held: dict[Address, Connection] = {}
        try:
            for address, commands in going.items():
                try:
                    held[address] = connection = self._node(address).take()
                    self._node(address).write(connection, commands)
                except NO_ANSWER as error:
                    outcomes[address] = self._failed(address, held, error)
            for address in list(held):
                node, connection = self._node(address), held[address]
                try:
                    outcomes[address] = [node.read(connection, command[0]) for command in going[address]]
                except NO_ANSWER as error:
                    outcomes[address] = self._failed(address, held, error)
                else:
                    node.give_back(held.pop(address))
        finally:
            for address, connection in held.items():
                self._node(address).discard(connection)
        return outcomes

    def _failed(self, address: Address, held: dict[Address, Connection], error: Exception) -> Exception:
        node = self._node(address)
        if address in held:
            node.discard(held.pop(address))
        node.distrust()
        return error

    def _node(self, address: Address) -> KeptConnections:
        node = self._nodes.get(address)
        # Without a lock, which a fork may leave taken: of two that are opened at once, one is never used.
        return self._nodes.setdefault(address, self._open_node(address)) if node is None else node

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        for node in self._nodes.values():
            node.forget()

    def close(self) -> None:
        """Closes all connections."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            node.close()


# ------------------------------------------------------------------------------------------------ async


class AsyncNode(Protocol):
    """The connections to one node, on one event loop."""

    callbacks: Mapping[str, Callable[[Any], Any]]

    async def take(self) -> AsyncConnection:
        """A connection, to be given back."""

    async def give(self, connection: AsyncConnection) -> None:
        """Takes a connection back, which was closed if anything went wrong."""

    async def aclose(self) -> None:
        """Closes all connections."""


class AsyncClusterConnections:
    """The async way, of one event loop.

    Args:
        topology: What is known of the Cluster.
        open_node: The connections to one node.
    """

    def __init__(self, topology: Topology, open_node: Callable[[Address], AsyncNode]) -> None:
        self._topology = topology
        self._open_node = open_node
        self._nodes: dict[Address, AsyncNode] = {}

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Async twin of `ClusterConnections.send`."""
        delivery: Delivery[list[Any]] = deliver(self._topology, commands)
        try:
            step = next(delivery)
            while True:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    step = delivery.send({})
                else:
                    step = delivery.send(await self._go(step))
        except StopIteration as end:
            return cast("list[Any]", end.value)

    async def _go(self, going: Round) -> dict[Address, Outcome]:
        if len(going) == 1:  # most lookups: a task would take as long as the server does
            ((address, commands),) = going.items()
            return {address: await self._exchange(address, commands)}
        outcomes = await asyncio.gather(*(self._exchange(*each) for each in going.items()))
        return dict(zip(going, outcomes, strict=True))

    async def _exchange(self, address: Address, commands: list[Command]) -> Outcome:
        if (node := self._nodes.get(address)) is None:
            node = self._nodes[address] = self._open_node(address)
        try:
            connection = await node.take()
            try:
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await _read(connection, command[0], node.callbacks) for command in commands]
            except BaseException:  # no reply that is still to come may reach another caller
                await connection.disconnect(nowait=True)
                raise
            finally:
                await node.give(connection)
        except NO_ANSWER as error:
            return error

    async def aclose(self) -> None:
        """Closes all connections that we opened."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.aclose()


async def _read(connection: AsyncConnection, name: object, callbacks: Mapping[str, Callable[[Any], Any]]) -> Any:
    try:
        reply = await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return reply_error(error)
    callback = callbacks.get(name)  # type: ignore[call-overload]  # a name that is no str has none
    return reply if callback is None else callback(reply)


class MadeNode:
    """A node's connections, of a client of our own making."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.callbacks = cast("Mapping[str, Callable[[Any], Any]]", client.response_callbacks)
        self._client = client
        self._pool = client.connection_pool

    async def take(self) -> AsyncConnection:
        """See `AsyncNode.take`."""
        return cast("AsyncConnection", await self._pool.get_connection())

    async def give(self, connection: AsyncConnection) -> None:
        """See `AsyncNode.give`."""
        await self._pool.release(connection)

    async def aclose(self) -> None:
        """See `AsyncNode.aclose`."""
        await self._client.aclose()


# ------------------------------------------------------------------------------------------------ clients passed in


def addresses_of(client: redis.RedisCluster | redis.asyncio.RedisCluster) -> list[Address]:
    """Where a client that was passed in would look for the Cluster."""
    manager = client.nodes_manager
    nodes: dict[str, Any] = {**manager.nodes_cache, **manager.startup_nodes}
    return [(str(node.host), int(node.port)) for node in nodes.values()]


def given_node(client: redis.RedisCluster, address: Address) -> KeptConnections:
    """A node's connections, out of a sync client that was passed in."""
    host, port = address
    node = client.get_node(host=host, port=port)
    if node is None:
        # By the client's own means it closes with the client.
        node = client.nodes_manager.nodes_cache.setdefault(f"{host}:{port}", redis.cluster.ClusterNode(host, port))
    return KeptConnections(client.get_redis_connection(node), keep=False)


class GivenNode:
    """A node's connections, out of an async client that was passed in."""

    def __init__(self, client: redis.asyncio.RedisCluster, address: Address) -> None:
        self._client = client
        self._address = address
        self.callbacks: Mapping[str, Callable[[Any], Any]] = client.response_callbacks
        self._taken_from: dict[int, redis.asyncio.cluster.ClusterNode] = {}

    async def take(self) -> AsyncConnection:
        """See `AsyncNode.take`."""
        await self._client.initialize()  # else it would not know that it has something to close
        host, port = self._address
        manager = self._client.nodes_manager
        node = manager.get_node(host=host, port=port)
        if node is None:
            node = redis.asyncio.cluster.ClusterNode(host, port, **manager.connection_kwargs)
            manager.set_nodes(manager.nodes_cache, {node.name: node})
        connection = node.acquire_connection()
        self._taken_from[id(connection)] = node
        await node.disconnect_if_needed(connection)
        return connection

    async def give(self, connection: AsyncConnection) -> None:
        """See `AsyncNode.give`."""
        self._taken_from.pop(id(connection)).release(cast("Any", connection))

    async def aclose(self) -> None:
        """Nothing: who passed the client in closes it."""
