"""Junk for connections: their URLs, the settings of redis-py's clients, the breaker's policy.

Clients and caches that are passed in are objects of redis-py's and ours: junk in their place is refused by their type,
and that is all that is looked at.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import redis
from drawing import junk
from hypothesis import example, given
from hypothesis import strategies as st
from public import public
from world import World, patient, refusal

from embedcache import EmbeddingsCache
from embedcache.breaker import USUAL_POLICY, BreakerPolicy
from embedcache.connection import RedisConnection
from embedcache.operations import checked
from embedcache.urls import _SCHEMES

CONNECTIONS = public(
    "embedcache.connection.RedisConnection", "embedcache.breaker.BreakerPolicy", "embedcache.breaker.Outage"
)
TAKE_OPERATIONS = {"drive", "adrive"}
"""Their argument is a generator of ours, which the functions of all other rooms make."""
PLAUSIBLE: dict[str, Any] = {
    "RedisConnection": lambda world: RedisConnection(world.server.url),
    "url": lambda world: [None, world.server.url],
    "client": [None],
    "async_client": [None],
    "settings": [None, {}, {"socket_timeout": 5}],
    "read_only": [False, True],
    "breaker": [None, USUAL_POLICY],
    "failures": [3],
    "first_pause": [0.5],
    "longest_pause": [5.0],
}


@pytest.mark.parametrize("name", [name for name, each in CONNECTIONS.items() if each.short_name not in TAKE_OPERATIONS])
@patient
@given(data=st.data())
def test_a_connection(world: World, name: str, data: st.DataObject) -> None:
    world.check(CONNECTIONS[name], data, PLAUSIBLE)


PIECES = st.sampled_from(
    ["/", ":", "@", "?", "#", "[", "]", ",", "&", "=", "%", "%zz", "db", "maxmemory", "socket_timeout", "6379", "99999"]
)
URLS = st.tuples(
    st.sampled_from(_SCHEMES), st.just("://"), st.lists(PIECES | st.text(max_size=3), max_size=8).map("".join)
).map("".join)


HOSTS = ["a..b", "a" * 70, "\ud800"]
NOWHERE = [
    *(f"{scheme}://{host}:1{rest}" for host in HOSTS for scheme, rest in (("redis", "/"), ("redis+cluster", ""))),
    *(f"redis+sentinel://{host}:1/s" for host in HOSTS),
    *("embedded:///tmp/\0x", "embedded:///tmp/%00x", "embedded:///\ud800/x", "unix:///tmp/\0x", "unix:///\ud800"),
    *("redis://localhost:1/?socket_read_size=-5", "redis://localhost:1/?socket_timeout=-1", "redis://localhost:99999"),
]


@pytest.mark.parametrize("url", NOWHERE, ids=ascii)
def test_a_url_of_no_place_is_refused_at_the_latest_when_it_is_asked(url: str, runner: asyncio.Runner) -> None:
    async def get() -> None:
        async with EmbeddingsCache(redis_url=url, breaker=None, stats=False) as cache:
            await cache.aget("a", "m")

    assert refusal(lambda: EmbeddingsCache(redis_url=url, breaker=None, stats=False).get("a", "m")) is not None
    assert refusal(lambda: runner.run(get())) is not None


@patient
@example("embedded://[")
@given(url=URLS | st.text(max_size=8))
def test_a_url(url: str) -> None:
    error = refusal(lambda: RedisConnection(url).close())
    assert error is None or str(error)


SETTINGS = sorted(
    (
        inspect.signature(redis.connection.AbstractConnection).parameters.keys()
        | inspect.signature(redis.UnixDomainSocketConnection).parameters.keys()
        | {"max_connections", "connection_class", "host", "port", "cache", "cache_config", "ssl_ca_certs", "other"}
    )
    - {"path", "kwargs"}
)


@pytest.mark.parametrize("name", SETTINGS)
@patient
@given(value=junk)
def test_a_setting_of_clients(world: World, name: str, value: Any) -> None:
    """What redis-py makes of junk, whether when it makes a client or when that connects, comes out as ours."""

    def ask() -> None:
        connection = RedisConnection(world.server.url, settings={name: value}, breaker=None)
        try:
            connection.drive(checked(("PING",)))
        finally:
            connection.close()

    async def aask() -> None:
        connection = RedisConnection(world.server.url, settings={name: value}, breaker=None)
        try:
            await connection.adrive(checked(("PING",)))
        finally:
            await connection.aclose()

    for error in (refusal(ask), refusal(lambda: world.run(aask()))):
        assert error is None or str(error)


OF_TLS = sorted(
    name
    for name in inspect.signature(redis.SSLConnection).parameters
    if name.startswith("ssl_") and name != "ssl_context"
)


@pytest.mark.parametrize("name", OF_TLS)
@patient
@given(value=junk)
def test_a_setting_of_tls(world: World, name: str, value: Any) -> None:
    """Read when the connection is made, for a server that is not asked."""
    error = refusal(lambda: RedisConnection("rediss://localhost:1", settings={name: value}).close())
    assert error is None or str(error)


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis+sentinel"])
@pytest.mark.parametrize("name", ["address_remap", "max_connections", "sentinel_kwargs", "db", "service"])
@patient
@given(value=junk)
def test_a_setting_of_many_servers(scheme: str, name: str, value: Any) -> None:
    error = refusal(lambda: RedisConnection(f"{scheme}://localhost:1/s", settings={name: value}).close())
    assert error is None or str(error)


def test_a_policy_of_breakers_is_its_own_kind() -> None:
    assert refusal(lambda: BreakerPolicy(longest_pause=0.1)) is not None
