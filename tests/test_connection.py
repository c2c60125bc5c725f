"""Reaching a server: addresses, passwords and rights, and servers that are away."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import Caller
from servers import BINARIES, Server, free_port, running
from working import MODEL, VECTOR, items, works

from embedcache import CacheUnavailableError, EmbedcacheError, EmbeddingsCache
from embedcache.errors import InvalidInputError, InvalidURLError, ServerReplyError

PASSWORD = "s3cret-word"  # noqa: S105 - of a server that lives as long as its test
embedded = pytest.mark.usefixtures("valkey")  # which skips where there is no such server to embed


# ------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://localhost:6379", "starts with http://"),
        ("localhost:6379", "starts with none"),
        ("redis:/localhost", "starts with none"),
        ("postgres://u:pw@host/db", "starts with postgres://"),
        ("redis://localhost:port", "redis://localhost:port: is its port a number"),
        ("redis://localhost:99999", "redis://localhost:99999"),
        ("redis://[::1", "cannot read the server's URL"),
        ("redis://localhost?db=first", "cannot read the server's URL"),
        ("embedded://host/folder", "an embedded server has no host: write embedded:///host/folder"),
        ("embedded:///folder?maxmem=1gb", "has the option maxmemory, not maxmem"),
    ],
)
def test_an_address_that_cannot_be_read(url: str, words: str) -> None:
    with pytest.raises(InvalidURLError) as caught:
        EmbeddingsCache(redis_url=url)
    assert words in str(caught.value)


def test_what_is_no_address_names_those_that_are() -> None:
    for url in (5, b"redis://localhost", ["redis://localhost"], Path("/tmp")):  # noqa: S108 - a path is not opened
        with pytest.raises(InvalidURLError, match="embedded://, redis://, rediss://, unix://"):
            EmbeddingsCache(redis_url=url)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{PASSWORD}@127.0.0.1:port",
        f"http://user:{PASSWORD}@127.0.0.1",
        f"redis://:{PASSWORD}/more@127.0.0.1:6379",
        f"redis://:{PASSWORD}#more@127.0.0.1:6379",
        f"redis://:{PASSWORD}?more@127.0.0.1:6379",
        f"redis://:[{PASSWORD}@127.0.0.1",
        f"redis://user:123/{PASSWORD}@127.0.0.1",  # which reads as host "user", port 123
        f"redis://user:123#{PASSWORD}@127.0.0.1",
        f"redis://user:123?{PASSWORD}@127.0.0.1",
        f"redis+sentinel://user:123/{PASSWORD}@127.0.0.1/vectors",
        f"redis+cluster://user:123/{PASSWORD}@127.0.0.1",
        f"redis+cluster://user:{PASSWORD}@127.0.0.1,127.0.0.2:port",
        f"redis+cluster://127.0.0.1/3?password={PASSWORD}",
        f"redis+sentinel://user:{PASSWORD}@127.0.0.1:port/vectors",
        f"redis+sentinel://user:{PASSWORD}@127.0.0.1",
        f"redis+sentinel://127.0.0.1?sentinel_password={PASSWORD}",
        f"redis://127.0.0.1?db=x&password={PASSWORD}",
        f"rediss://user:{PASSWORD}@[::1:6379",
        f"embedded://user:{PASSWORD}@host/folder",
    ],
)
def test_a_wrong_address_does_not_tell_its_password(url: str) -> None:
    with pytest.raises(InvalidURLError) as caught:
        EmbeddingsCache(redis_url=url)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value.with_traceback(None)))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://user:{PASSWORD}@127.0.0.1:{{port}}/0", "redis://user:***@127.0.0.1:"),
        (f"redis://:{PASSWORD}@127.0.0.1:{{port}}", "redis://:***@127.0.0.1:"),
        (f"redis://127.0.0.1:{{port}}?db=2&password={PASSWORD}", "password=***"),
        (f"unix://user:{PASSWORD}@/nowhere/{{port}}.sock", "unix://user:***@/nowhere/"),
        (f"unix:///nowhere/{{port}}.sock?password={PASSWORD}", "unix:///nowhere/"),
    ],
)
@pytest.mark.timeout(20)
def test_an_address_is_shown_without_its_password(
    caller: Callable[[EmbeddingsCache], Caller], url: str, shown: str
) -> None:
    cache = EmbeddingsCache(redis_url=url.format(port=free_port()))
    assert shown in repr(cache)
    assert PASSWORD not in repr(cache) + repr(cache.connection) + cache.connection.address
    with pytest.raises(CacheUnavailableError) as caught:
        caller(cache).get("a", MODEL)
    assert shown in str(caught.value)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_without_an_address_the_environment_gives_it(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    with EmbeddingsCache() as cache:
        cache.set("a", MODEL, VECTOR)
        assert len(valkey.plain_keys()) == 1
        assert valkey.url in repr(cache)


def test_an_address_that_is_given_comes_before_the_environments(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", "unix:///nowhere.sock")
    with EmbeddingsCache(redis_url=valkey.url) as cache:
        assert works(cache)


@embedded
def test_with_nothing_given_the_embedded_server_serves(
    caller: Callable[[EmbeddingsCache], Caller], tmp_path: Path
) -> None:
    cache = caller(EmbeddingsCache())
    assert works(cache)
    assert "embedded://" in repr(cache.cache)
    assert cache.cache.connection.is_embedded
    assert any((tmp_path / "data-home").rglob("server.lock"))


@embedded
def test_an_embedded_server_keeps_entries_in_the_folder_given(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}/some%20folder?maxmemory=64mb"
    with EmbeddingsCache(redis_url=url) as cache:
        cache.set("a", MODEL, VECTOR)
    assert (tmp_path / "some folder").is_dir()
    with EmbeddingsCache(redis_url=url) as cache:
        assert cache.get("a", MODEL)["embedding"].tolist() == VECTOR


def test_settings_reach_the_clients_that_the_cache_makes(
    valkey: Server, caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    cache = caller(EmbeddingsCache(redis_url=valkey.url, connection_kwargs={"db": 3, "client_name": "me"}))
    cache.set("a", MODEL, VECTOR)
    assert valkey.raw.info("keyspace").keys() == {"db3"}
    assert "me" in {client["name"] for client in valkey.raw.client_list()}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"redis_url": "redis://127.0.0.1:1?nonsense=1"}, "nonsense"),
        ({"redis_url": "redis://127.0.0.1:1", "connection_kwargs": {"nonsense": 1}}, "nonsense"),
        ({"redis_url": "redis://127.0.0.1:1", "connection_kwargs": 5}, "connection_kwargs"),
        ({"redis_url": "redis://127.0.0.1:1", "connection_kwargs": ["db"]}, "connection_kwargs"),
    ],
)
def test_a_setting_that_there_is_not_is_named(
    caller: Callable[[EmbeddingsCache], Caller], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        caller(EmbeddingsCache(**options)).get("a", MODEL)


# ------------------------------------------------------------------------------------------------ a server that is away


@pytest.mark.timeout(20)
def test_a_server_that_is_not_there_is_named(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    port = free_port()
    for url, named in (
        (f"redis://127.0.0.1:{port}", f"127.0.0.1:{port}"),
        ("unix:///nowhere/at/all.sock", "/nowhere/at/all.sock"),
    ):
        cache = caller(EmbeddingsCache(redis_url=url))
        for call in (
            lambda cache=cache: cache.get("a", MODEL),
            lambda cache=cache: cache.mset(items(3), ttl=5),
            lambda cache=cache: cache.clear(),
        ):
            with pytest.raises(CacheUnavailableError, match="no answer from") as caught:
                call()
            assert named in str(caught.value)
            assert isinstance(caught.value, ConnectionError)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.timeout(20)
def test_a_server_that_does_not_answer_is_given_up(
    caller: Callable[[EmbeddingsCache], Caller], silent_port: int
) -> None:
    settings = {"socket_timeout": 0.1, "socket_connect_timeout": 0.1}
    cache = caller(EmbeddingsCache(redis_url=f"redis://127.0.0.1:{silent_port}", connection_kwargs=settings))
    with pytest.raises(CacheUnavailableError, match=f"127.0.0.1:{silent_port}"):
        cache.get("a", MODEL)


def test_a_server_that_comes_back_is_used_again(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with running("valkey9") as server:
        cache = caller(EmbeddingsCache(redis_url=server.url))
        assert works(cache)
        server.stop()
        with pytest.raises(CacheUnavailableError):
            cache.get("a", MODEL)
        server.start()
        assert works(cache)


@embedded
def test_an_embedded_server_that_was_killed_comes_back(
    caller: Callable[[EmbeddingsCache], Caller], tmp_path: Path
) -> None:
    cache = caller(EmbeddingsCache(redis_url=f"embedded://{tmp_path}/data"))
    assert works(cache)
    os.kill(cache.cache.connection.client().info("server")["process_id"], signal.SIGKILL)
    assert works(cache)


def test_what_answers_but_is_no_redis_is_named(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    class Stranger(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)
            self.request.sendall(b"<html>400 Bad Request</html>\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        url = f"redis://127.0.0.1:{stranger.server_address[1]}"
        cache = caller(EmbeddingsCache(redis_url=url))
        for call in (
            lambda: cache.get("a", MODEL),
            lambda: cache.mexists(["a", "b"], MODEL),
            lambda: cache.mset(items(2)),
        ):
            with pytest.raises(CacheUnavailableError, match=url):
                call()
        stranger.shutdown()


@embedded
def test_an_embedded_server_that_cannot_come_back_is_one_that_is_away(
    caller: Callable[[EmbeddingsCache], Caller], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = caller(EmbeddingsCache(redis_url=f"embedded://{tmp_path}/data"))
    assert works(cache)
    monkeypatch.setenv("EMBEDCACHE_SERVER_BINARY", "/nowhere/at/all")
    os.kill(cache.cache.connection.client().info("server")["process_id"], signal.SIGKILL)
    with pytest.raises(CacheUnavailableError, match="/nowhere/at/all"):
        cache.get("a", MODEL)
    monkeypatch.delenv("EMBEDCACHE_SERVER_BINARY")
    assert works(cache)


def test_a_full_server_answers_reads_and_refuses_writes(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with running("valkey9", "--maxmemory-policy", "noeviction") as server:
        cache = caller(EmbeddingsCache(redis_url=server.url, ttl=500))
        cache.set("a", MODEL, VECTOR)
        server.raw.config_set("maxmemory", "1mb")
        for batch in (items(1), items(3)):
            with pytest.raises(ServerReplyError, match="maxmemory") as caught:
                cache.mset(batch)
            assert caught.value.code == "OOM"
        assert cache.get("a", MODEL)["embedding"].tolist() == VECTOR
        assert cache.drop("a", MODEL) is True


# ------------------------------------------------------------------------------------------------ passwords and rights


def test_a_server_with_a_password(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with running("valkey9", port=free_port(), password=PASSWORD) as server:
        at = f"127.0.0.1:{server.port}"
        right = (f"redis://:{PASSWORD}@{at}", f"redis://default:{PASSWORD}@{at}/1", f"redis://{at}?password={PASSWORD}")
        for url in right:
            cache = caller(EmbeddingsCache(redis_url=url))
            assert works(cache)
            assert PASSWORD not in repr(cache.cache)
        for url, words in ((f"redis://:{PASSWORD}-not@{at}", "WRONGPASS|invalid"), (f"redis://{at}", "(?i)auth")):
            with pytest.raises(EmbedcacheError, match=words) as caught:
                caller(EmbeddingsCache(redis_url=url)).get("a", MODEL)
            assert PASSWORD not in "".join(traceback.format_exception(caught.value))


RIGHTS = {
    "all but scripts": ["+@all", "-@scripting"],
    "reading and writing": ["+@read", "+@write", "+@connection", "-eval", "-evalsha"],
}


@pytest.mark.parametrize("rights", RIGHTS)
@pytest.mark.parametrize("default", [None, 900])
def test_a_user_with_few_rights_can_do_everything(
    server: Server, caller: Callable[[EmbeddingsCache], Caller], rights: str, default: int | None
) -> None:
    allowed = [*RIGHTS[rights], "-msetex"] if server.kind == "valkey9" else RIGHTS[rights]  # the others know no MSETEX
    server.raw.execute_command("ACL", "SETUSER", "few", "reset", "on", f">{PASSWORD}", "~c:*", *allowed)
    try:
        cache = caller(EmbeddingsCache("c", ttl=default, redis_url=f"unix://few:{PASSWORD}@{server.socket}"))
        assert works(cache)
        for count in (3, 100):
            keys = cache.mset(items(count), ttl=500)
            server.raw.expire(keys[1], 100)
            assert all(cache.mget([f"text {n}" for n in range(count)], MODEL))
            assert all(400_000 < server.pttl(key) <= 500_000 for key in keys)
        assert cache.persist(keys[0]) is True
        assert server.pttl(keys[0]) == -1
        assert cache.expire(cache.key_for("missing", MODEL), 5) is False
    finally:
        server.raw.execute_command("ACL", "DELUSER", "few")


def test_a_user_who_may_only_read_gets_hits(server: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with EmbeddingsCache("c", redis_url=server.url) as writer:
        writer.mset(items(3), ttl=500)
    rights = ("on", f">{PASSWORD}", "~c:*", "+@read", "+@connection")
    server.raw.execute_command("ACL", "SETUSER", "reader", "reset", *rights)
    try:
        cache = caller(EmbeddingsCache("c", ttl=900, redis_url=f"unix://reader:{PASSWORD}@{server.socket}"))
        assert [entry["text"] for entry in cache.mget(["text 0", "text 2"], MODEL)] == ["text 0", "text 2"]
        with pytest.raises(ServerReplyError, match="permission") as caught:
            cache.set("a", MODEL, VECTOR)
        assert caught.value.code == "NOPERM"
        assert PASSWORD not in str(caught.value)
    finally:
        server.raw.execute_command("ACL", "DELUSER", "reader")


@pytest.mark.parametrize("count", [3, 100])
@pytest.mark.parametrize("default", [None, 900])
def test_a_server_that_forgot_the_scripts_is_told_again(
    make_cache: Callable[..., Caller], server: Server, count: int, default: int | None
) -> None:
    cache = make_cache(ttl=default)
    keys = cache.mset(items(count), ttl=500)
    for _ in range(2):
        server.raw.script_flush()
        server.raw.expire(keys[0], 100)
        assert all(cache.mget_by_keys(keys))
        assert server.pttl(keys[0]) > 400_000


@pytest.mark.parametrize("kind", BINARIES)
@pytest.mark.parametrize("default", [None, 900])
def test_a_replica_answers_reads(caller: Callable[[EmbeddingsCache], Caller], kind: str, default: int | None) -> None:
    with running(kind) as server:
        texts = [f"text {n}" for n in range(100)]
        cache = caller(EmbeddingsCache("c", ttl=default, redis_url=server.url))
        cache.mset(items(100), ttl=500)
        server.raw.replicaof("127.0.0.1", free_port())
        assert [entry["text"] for entry in cache.mget(texts, MODEL)] == texts
        assert cache.mget_embeddings(texts, MODEL)[1].all()
        assert cache.get("text 7", MODEL)["embedding"].tolist() == [7, 1]
        assert cache.exists("text 7", MODEL) is True
        with pytest.raises(ServerReplyError, match="read only replica") as caught:
            cache.set("a", MODEL, VECTOR)
        assert caught.value.code == "READONLY"
        for call in (lambda: cache.mset(items(3), ttl=5), cache.clear):
            with pytest.raises(ServerReplyError, match="read only replica"):
                call()
