"""TLS: a CA and a client certificate, and what is said where they do not fit. On a real server that speaks it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from calling import Caller
from certificates import Authority
from sentinels import SERVICE, Sentinel, wait_until
from servers import Server, free_port, running
from working import MODEL, awaits, works

from embedcache import CacheUnavailableError, EmbeddingsCache
from embedcache.errors import InvalidInputError
from embedcache.tls import advice

PASSWORD = "s3cret-word"  # noqa: S105 - of a server, and of a key, that live as long as their test
KEY_PASSWORD = "0f the key"  # noqa: S105 - as well


@dataclass(frozen=True)
class Secured:
    """A server that wants a client certificate, and files that fit it and that do not."""

    server: Server
    port: int
    ca: Path
    other_ca: Path
    client: dict[str, Any]
    strangers: dict[str, Any]
    locked: dict[str, Any]

    def url(self, host: str = "localhost") -> str:
        return f"rediss://:{PASSWORD}@{host}:{self.port}"

    @property
    def fitting(self) -> dict[str, Any]:
        return {"ssl_ca_certs": str(self.ca), **self.client}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other = Authority(folder, "ca"), Authority(folder, "other-ca")
    certificate, key = ca.sign("server", "localhost")
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with running("tls", *options, "--tls-ca-cert-file", str(ca.path), password=PASSWORD) as server:
        yield Secured(
            server,
            port,
            ca.path,
            other.path,
            _named(*ca.sign("client")),
            _named(*other.sign("stranger")),
            _named(*ca.sign("locked", password=KEY_PASSWORD)),
        )


def _named(certificate: Path, key: Path) -> dict[str, Any]:
    """Settings; a busy machine may take longer than the usual second to shake hands."""
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key), "socket_connect_timeout": 20}


# ------------------------------------------------------------------------------------------------ what works


def test_a_cache_works_by_tls(secured: Secured, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    options = "&".join(f"{name}={value}" for name, value in secured.fitting.items())
    assert works(caller(EmbeddingsCache("c", redis_url=f"{secured.url()}/1?{options}")))


def test_sentinels_are_asked_by_tls_and_so_is_the_primary(
    secured: Secured, caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    port = free_port()
    options = {
        "tls-port": port,
        "tls-replication": "yes",  # also how it speaks to those that it watches
        "tls-cert-file": secured.client["ssl_certfile"],
        "tls-key-file": secured.client["ssl_keyfile"],
        "tls-ca-cert-file": secured.ca,
    }
    sentinel = Sentinel("tls", None, *(f"{name} {value}" for name, value in options.items()))
    try:
        sentinel.raw.execute_command("SENTINEL MONITOR", SERVICE, "127.0.0.1", secured.port, 1)
        url = f"rediss+sentinel://:{PASSWORD}@127.0.0.1:{port}/{SERVICE}"
        settings = {**secured.fitting, "ssl_check_hostname": False}  # sentinels name a primary by its number
        assert works(caller(EmbeddingsCache("c", redis_url=url, connection_kwargs=settings)))
        refused = caller(EmbeddingsCache("c", redis_url=url, connection_kwargs=secured.client))
        with pytest.raises(CacheUnavailableError, match="name the file of its CA in ssl_ca_certs"):
            refused.get("a", MODEL)
    finally:
        sentinel.remove()


def test_tls_can_be_set_up_by_settings(secured: Secured, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    assert works(caller(EmbeddingsCache("c", redis_url=secured.url(), connection_kwargs=secured.fitting)))


def test_a_key_may_have_a_password(secured: Secured, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    settings = {"ssl_ca_certs": str(secured.ca), **secured.locked, "ssl_password": KEY_PASSWORD}
    cache = caller(EmbeddingsCache("c", redis_url=secured.url(), connection_kwargs=settings))
    assert works(cache)
    assert KEY_PASSWORD not in repr(cache.cache)


def test_another_host_name_is_accepted_where_that_is_wanted(
    secured: Secured, caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    settings = {**secured.fitting, "ssl_check_hostname": False}
    assert works(caller(EmbeddingsCache("c", redis_url=secured.url("127.0.0.1"), connection_kwargs=settings)))


def test_a_near_cache_is_told_of_writes_by_tls(secured: Secured) -> None:
    with EmbeddingsCache(
        "c", redis_url=secured.url(), connection_kwargs=secured.fitting, near_cache=10, near_ttl=500, stats=False
    ) as cache:
        cache.get("a", MODEL)
        wait_until(lambda: cache.near_state.tracked, "word of others' writes")


async def test_clients_that_were_passed_in_have_a_twin_by_tls(secured: Secured) -> None:
    given: dict[str, Any] = {"port": secured.port, "ssl": True, "password": PASSWORD, **secured.fitting}
    with redis.Redis(**given) as client:
        cache = EmbeddingsCache("c", redis_client=client)
        assert works(cache)
        assert await awaits(cache)
        await cache.aclose()
    async with redis.asyncio.Redis(**given) as other:
        cache = EmbeddingsCache("c", async_redis_client=other)
        assert await awaits(cache)
        assert works(cache)
        await cache.aclose()


# ------------------------------------------------------------------------------------------------ what does not


def refusals(secured: Secured) -> dict[str, tuple[str, dict[str, Any], str]]:
    """Host, settings, and what is said."""
    ca = {"ssl_ca_certs": str(secured.ca), "socket_connect_timeout": 20}
    return {
        "another CA": (
            "localhost",
            {"ssl_ca_certs": str(secured.other_ca), **secured.client},
            "not signed by a CA that we know: name the file of its CA in ssl_ca_certs",
        ),
        "no CA": ("localhost", secured.client, "not signed by a CA that we know"),
        "another host": ("127.0.0.1", {**ca, **secured.client}, "its certificate is another host's"),
        "no client certificate": ("localhost", ca, "client certificate"),
        "a stranger's client certificate": (
            "localhost",
            {**ca, **secured.strangers},
            "does not know the CA that signed our client certificate|reset by peer|closed|Broken pipe|EOF",
        ),
    }


@pytest.mark.parametrize(
    "why", ["another CA", "no CA", "another host", "no client certificate", "a stranger's client certificate"]
)
def test_what_does_not_fit_is_said(secured: Secured, caller: Callable[[EmbeddingsCache], Caller], why: str) -> None:
    host, settings, words = refusals(secured)[why]
    cache = caller(EmbeddingsCache("c", redis_url=secured.url(host), connection_kwargs=settings))
    for call in (lambda: cache.get("a", MODEL), lambda: cache.mexists(["a", "b"], MODEL)):
        with pytest.raises(CacheUnavailableError, match=words) as caught:
            call()
        assert host in str(caught.value)
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_a_server_without_tls_is_told_from_one_that_is_away(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with running("redis62", port=free_port()) as server:
        # It waits for the end of a command that never comes, and we for its answer.
        url = f"rediss://:{PASSWORD}@localhost:{server.port}?socket_connect_timeout=0.3&socket_timeout=0.3"
        cache = caller(EmbeddingsCache("c", redis_url=url))
        with pytest.raises(CacheUnavailableError, match="does it speak TLS at this port") as caught:
            cache.get("a", MODEL)
    assert PASSWORD not in str(caught.value)


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} names '/nowhere.pem', which is not there"):
        EmbeddingsCache(redis_url=f"rediss://:{PASSWORD}@localhost?{name}=/nowhere.pem")


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_key_that_its_password_does_not_open_is_named(tmp_path: Path, password: str | None) -> None:
    certificate, key = Authority(tmp_path, "ca").sign("client", password=KEY_PASSWORD)
    settings = {**_named(certificate, key), "ssl_password": password}
    with pytest.raises(InvalidInputError, match="another password") as caught:
        EmbeddingsCache(redis_url="rediss://localhost", connection_kwargs=settings)
    assert str(key) in str(caught.value)
    assert "'wrong'" not in str(caught.value)


def test_a_certificate_and_a_key_that_are_no_pair_are_named(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    (certificate, _), (_, key) = ca.sign("one"), ca.sign("other")
    with pytest.raises(InvalidInputError, match="KEY_VALUES_MISMATCH"):
        EmbeddingsCache(redis_url="rediss://localhost", connection_kwargs=_named(certificate, key))


def test_a_key_alone_is_refused(tmp_path: Path) -> None:
    _, key = Authority(tmp_path, "ca").sign("one")
    with pytest.raises(InvalidInputError, match="of no use without the certificate"):
        EmbeddingsCache(redis_url=f"rediss://localhost?ssl_keyfile={key}")


def test_a_setting_of_tls_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="maybe"):
        EmbeddingsCache(redis_url="rediss://localhost?ssl_cert_reqs=maybe")
    with pytest.raises(InvalidInputError, match=r"'ssl_ca_certs'.*go with rediss://"):
        EmbeddingsCache(redis_url="redis://localhost", connection_kwargs={"ssl_ca_certs": "/ca.pem"})


@pytest.mark.parametrize("error", ["Connection refused", "Connection closed by server.", "WRONG_VERSION_NUMBER"])
def test_no_advice_on_tls_where_there_is_none(error: str) -> None:
    assert advice(error, {"connection_class": redis.Connection}) == ""
    assert advice(error, {}) == ""


def test_advice_goes_by_what_is_set() -> None:
    assert advice("Timeout connecting to server", {}) == ""
    by_tls: dict[str, Any] = {"connection_class": redis.SSLConnection}
    assert "does it want a client certificate?" in advice("Connection closed by server.", by_tls)
    assert advice("Connection closed by server.", by_tls | {"ssl_certfile": "/c.pem"}) == ""
    assert advice("Error 111 connecting to localhost:6379. Connection refused.", by_tls) == ""
    assert "does not speak TLS" in advice("[SSL: WRONG_VERSION_NUMBER] wrong version number", by_tls)
