"""Calls that wait for one of an event loop's connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis.asyncio
from servers import Server

from embedcache.errors import CacheUnavailableError
from embedcache.patience import PatientPool


def pool_of_one(server: Server, check: Callable[[], None] = lambda: None) -> PatientPool:
    unix = redis.asyncio.UnixDomainSocketConnection
    return PatientPool(check, connection_class=unix, path=str(server.socket), max_connections=1)


async def test_where_the_one_that_is_told_is_cancelled_the_next_one_gets_the_connection(valkey: Server) -> None:
    pool = pool_of_one(valkey)
    held = await pool.get_connection()
    first, second = [asyncio.create_task(pool.get_connection()) for _ in range(2)]
    await asyncio.sleep(0.01)
    await pool.release(held)
    first.cancel()
    assert await asyncio.wait_for(second, 20) is held
    assert first.cancelled()
    await pool.release(held)
    await pool.aclose()


async def test_one_cancelled_while_it_connects_leaves_its_place_to_the_next_one(valkey: Server) -> None:
    pool = pool_of_one(valkey)
    first = asyncio.create_task(pool.get_connection())
    await asyncio.sleep(0)
    first.cancel()
    connection = await asyncio.wait_for(pool.get_connection(), 20)
    assert first.cancelled()
    assert pool._in_use_connections == {connection}
    await pool.release(connection)
    await pool.aclose()


async def test_all_who_wait_leave_once_there_is_nothing_to_wait_for(valkey: Server) -> None:
    away: list[CacheUnavailableError] = []

    def check() -> None:
        if away:
            raise away[0]

    pool = pool_of_one(valkey, check)
    held = await pool.get_connection()
    waiting = [asyncio.create_task(pool.get_connection()) for _ in range(5)]
    await asyncio.sleep(0.01)
    away.append(CacheUnavailableError("it is away"))
    await pool.release(held)
    for each in waiting:
        with pytest.raises(CacheUnavailableError, match="it is away"):
            await asyncio.wait_for(each, 20)
    await pool.aclose()
