"""Passwords are never told, wherever they were given; nothing is pickled."""

from __future__ import annotations

import ast
import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio
import streamlit as st
from calling import Caller
from certificates import Authority
from clicking import ROOT, open_page
from servers import free_port, running
from working import MODEL, VECTOR

from embedcache import CacheUnavailableError, CustomVectorizer, EmbedcacheError, EmbeddingsCache

PASSWORD = "s3cret-word"  # noqa: S105 - of servers that live as long as their test, or of none
THEIRS = "the1rs-too"

# Places for a password, by what is away there: nothing answers at port 1, and no socket is there.
URLS = {
    "before the host": f"redis://:{PASSWORD}@127.0.0.1:1",
    "with a user": f"redis://me:{PASSWORD}@127.0.0.1:1/2",
    "as an option": f"redis://127.0.0.1:1?password={PASSWORD}",
    "escaped": f"redis://127.0.0.1:1?pass%77ord={PASSWORD}",
    "by TLS": f"rediss://me:{PASSWORD}@127.0.0.1:1?ssl_cert_reqs=none",
    "on a socket": f"unix://me:{PASSWORD}@/nowhere/at/all",
    "on a socket, as an option": f"unix:///nowhere/at/all?password={PASSWORD}",
    "for a Cluster": f"redis+cluster://me:{PASSWORD}@127.0.0.1:1,127.0.0.1:2",
    "for a Cluster by TLS": f"rediss+cluster://127.0.0.1:1?password={PASSWORD}",
    "for sentinels": f"redis+sentinel://me:{PASSWORD}@127.0.0.1:1,127.0.0.1:2/v?sentinel_password={THEIRS}",
    "for sentinels by TLS": f"rediss+sentinel://:{PASSWORD}@127.0.0.1:1/v?sentinel_username=s&sentinel_password={THEIRS}",
}
SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "in settings": ("redis://127.0.0.1:1", {"password": PASSWORD}),
    "in settings, with a user": ("unix:///nowhere/at/all", {"username": "me", "password": PASSWORD}),
    "in settings, for sentinels": (
        "redis+sentinel://127.0.0.1:1/v",
        {"password": PASSWORD, "sentinel_password": THEIRS},
    ),
    "both ways": (f"redis://:{THEIRS}@127.0.0.1:1", {"password": PASSWORD}),
}
PLACES = {name: (url, {}) for name, url in URLS.items()} | SETTINGS


def told(*words: object) -> str:
    """All that may be read of what happened: errors with the chain of their causes, all else as it shows itself."""
    return "\n".join(
        "".join([*traceback.format_exception(each), repr(each)]) if isinstance(each, BaseException) else repr(each)
        for each in words
    )


def check_untold(text: str) -> None:
    assert PASSWORD not in text
    assert THEIRS not in text


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does, the log of all libraries together does not hold a password."""
    with caplog.at_level(logging.DEBUG):
        yield
    check_untold("\n".join(record.getMessage() + str(record.exc_text or "") for record in caplog.records))


# ------------------------------------------------------------------------------------------------ servers that are away


@pytest.mark.parametrize("place", PLACES)
def test_a_server_that_is_away(caller: Callable[[EmbeddingsCache], Caller], place: str) -> None:
    url, settings = PLACES[place]
    cache = caller(EmbeddingsCache("c", redis_url=url, connection_kwargs=settings, near_cache=10))
    check_untold(told(cache.cache, cache.cache.connection, cache.cache.connection.address))
    calls: list[Callable[[], object]] = [
        lambda: cache.get("a", MODEL),
        lambda: cache.mset([{"text": "a", "model_name": MODEL, "embedding": VECTOR}]),
        cache.flush_stats,
        cache.stats,
    ]
    for call in calls:
        with pytest.raises(CacheUnavailableError) as caught:
            call()
        check_untold(told(caught.value))


@pytest.mark.parametrize("place", URLS)
def test_the_environments_server(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", URLS[place])
    vectorizer = CustomVectorizer(lambda _: VECTOR, "toy", EmbeddingsCache("c"))
    assert vectorizer.embed("works on").tolist() == VECTOR  # and says in the log that it has no cache
    check_untold(told(vectorizer, vectorizer.cache))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_client_that_was_passed_in(asynchronous: bool) -> None:
    client = (redis.asyncio if asynchronous else redis).Redis(port=1, username="me", password=PASSWORD)
    cache = EmbeddingsCache("c", **{"async_redis_client" if asynchronous else "redis_client": client})
    check_untold(told(cache, cache.connection))
    with pytest.raises(CacheUnavailableError) as caught:
        cache.get("a", MODEL)
    check_untold(told(caught.value))
    with pytest.raises(CacheUnavailableError) as caught:
        asyncio.run(cache.aget("a", MODEL))
    check_untold(told(caught.value))


@pytest.mark.parametrize("place", PLACES)
def test_a_setting_that_there_is_not(place: str) -> None:
    url, settings = PLACES[place]
    with pytest.raises(EmbedcacheError) as caught:
        EmbeddingsCache(redis_url=url, connection_kwargs=settings | {"n0_setting": PASSWORD})
    check_untold(told(caught.value))


# ------------------------------------------------------------------------------------------------ servers that refuse


def test_a_server_that_wants_another_password(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with running("valkey9", port=free_port(), password="another") as server:  # noqa: S106 - a test's
        for url in (f"redis://:{PASSWORD}@127.0.0.1:{server.port}", f"unix://me:{PASSWORD}@{server.socket}"):
            cache = caller(EmbeddingsCache("c", redis_url=url, near_cache=10))
            for call in (lambda: cache.get("a", MODEL), lambda: cache.set("a", MODEL, VECTOR), cache.stats):  # noqa: B023
                with pytest.raises(EmbedcacheError, match=r"(?i)wrongpass|invalid") as caught:
                    call()
                check_untold(told(caught.value))


def test_a_user_who_may_nothing(caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with running("valkey9") as server:
        server.raw.execute_command("ACL", "SETUSER", "me", "reset", "on", f">{PASSWORD}")
        cache = caller(EmbeddingsCache("c", redis_url=f"unix://me:{PASSWORD}@{server.socket}"))
        with pytest.raises(EmbedcacheError, match="NOPERM") as caught:
            cache.get("a", MODEL)
        check_untold(told(caught.value))


def test_a_keys_password(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "ca").sign("client", password=PASSWORD)
    files = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    for place in ("rediss://127.0.0.1:1", "rediss+sentinel://127.0.0.1:1/v"):
        cache = EmbeddingsCache(redis_url=f"{place}?ssl_password={PASSWORD}", connection_kwargs=files)
        with pytest.raises(CacheUnavailableError) as caught:
            cache.get("a", MODEL)
        check_untold(told(cache, cache.connection, caught.value))
    with pytest.raises(EmbedcacheError) as refused:
        EmbeddingsCache(redis_url="rediss://127.0.0.1:1", connection_kwargs=files | {"ssl_password": THEIRS})
    check_untold(told(refused.value))


# ------------------------------------------------------------------------------------------------ the dashboard


@pytest.mark.parametrize("place", ["escaped", "on a socket, as an option", "for sentinels by TLS"])
def test_pages_of_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", URLS[place])
    for page in ("overview", "settings"):
        app = open_page(page)
        check_untold(repr(app.main) + repr(app.sidebar))
    st.cache_data.clear()
    st.cache_resource.clear()


# ------------------------------------------------------------------------------------------------ pickles

_PICKLING = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "jsonpickle"}
_READS_PICKLES = {"read_pickle", "to_pickle", "allow_pickle"}


def sources() -> list[Path]:
    folders = [ROOT / name for name in ("embedcache", "pages", "benchmarks")]
    return [ROOT / "app.py", ROOT / "dashboard.py", *(path for folder in folders for path in folder.rglob("*.py"))]


def pickling(source: str) -> list[str]:
    """What in a module's source reads or writes pickles."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [each.name for each in names if each.name.partition(".")[0] in _PICKLING]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in _PICKLING:
                found.append(module)
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=False)):
                pass
            case ast.keyword(arg=str(name)) | ast.Attribute(attr=name) | ast.Name(id=name) if name in _READS_PICKLES:
                found.append(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save" as name)):
                found.append(f"torch.{name}")
    return found


def test_nothing_is_pickled() -> None:
    assert len(sources()) > 100
    found = {str(path.relative_to(ROOT)): pickling(path.read_text()) for path in sources()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal as m",
        "from shelve import open",
        "from joblib.memory import Memory",
        "numpy.load(file, allow_pickle=True)",
        "numpy.load(file, allow_pickle=wanted)",
        "frame.to_pickle(path)",
        "torch.load(path)",
    ],
)
def test_a_pickle_would_be_found(source: str) -> None:
    assert pickling(source) != []


def test_what_is_no_pickle_is_not_taken_for_one() -> None:
    assert pickling("import json\nnumpy.save(file, array, allow_pickle=False)\nmodel.load(path)") == []
