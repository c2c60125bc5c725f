"""The dashboard's rights: the lines of docs/security.md are enough, and none too much; pages say what they may not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import streamlit as st
from acl_users import PASSWORD, User, lines
from clicking import open_page, words
from removing import plan_of
from servers import Server
from test_benchmark_runs import make
from working import MODEL, items

from embedcache import EmbeddingsCache, audit, inspector, removal, walking
from embedcache.benchmark import runs
from embedcache.connection import RedisConnection
from embedcache.errors import ServerReplyError

ROLES = ["reader", "writer"]
LINES = {"reader": lines("Reading")["reader"], "writer": lines("Reading and writing")["writer"]}
DASHBOARD = lines("The dashboard")
FASTER = lines("Faster")
AS_REDISVL = EmbeddingsCache("c").key_for("as RedisVL", MODEL)
PAGES = ["overview", "hit_rates", "browse", "lookup", "vector_map", "embed", "benchmark", "cleanup", "settings"]


@pytest.fixture
def filled(server: Server) -> Server:
    """A cache `c`, an entry of RedisVL's and a damaged one in it, and a cache `d` that is not the user's."""
    for name in ("c", "d"):
        with EmbeddingsCache(name, redis_url=server.url) as cache:
            cache.mset(items(20))
            cache.get("text 1", MODEL)
        with EmbeddingsCache(name, redis_url=server.url, layout="redisvl", stats=False) as cache:
            cache.set("as RedisVL", MODEL, [0.5])
        server.raw.set(f"{name}:{'0' * 64}", "damaged")
    return server


@pytest.fixture
def user(filled: Server) -> Iterator[Callable[[str], User]]:
    yield lambda name: User(filled, name)
    for name in ROLES:
        filled.raw.execute_command("ACL", "DELUSER", name)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Points the dashboard at a URL, and leaves nothing of it behind."""

    def show(url: str) -> None:
        monkeypatch.setenv("EMBEDCACHE_URL", url)

    yield show
    st.cache_data.clear()
    st.cache_resource.clear()


def tell(done: int, total: int | None) -> None:
    """How far a walk is, which nobody wants to know here."""


def plan(connection: RedisConnection, *texts: str) -> removal.RemovalPlan:
    return plan_of(connection, [EmbeddingsCache("c").key_for(text, MODEL) for text in texts])


def look(connection: RedisConnection) -> None:
    """What pages do that look."""
    keys = [EmbeddingsCache("c").key_for("text 1", MODEL), AS_REDISVL]
    steps: list[Callable[[], object]] = [
        lambda: inspector.server_info(connection),
        lambda: inspector.summarise(connection, keys),
        lambda: inspector.redisvl_entries(connection, keys),
        lambda: walking.count_keys(connection, tell),
        lambda: walking.index_cache(connection, "c", tell),
        lambda: walking.find_unreadable(connection, walking.index_cache(connection, "c", tell), tell),
        lambda: runs.list_runs(connection),
        lambda: runs.read_run(connection, "one"),
        lambda: audit.read(connection, "c"),
    ]
    for step in steps:
        with contextlib.suppress(ServerReplyError, removal.RemovalStoppedError):
            step()


def change(connection: RedisConnection) -> None:
    """What pages do that change something."""
    look(connection)
    steps: list[Callable[[], object]] = [
        lambda: removal.set_ttl(connection, plan(connection, "text 2", "as RedisVL"), 500, tell, "me"),
        lambda: removal.carry_out(connection, plan(connection, "text 3", "as RedisVL"), tell, "me"),
        lambda: runs.save(connection, make()),
        lambda: runs.delete_run(connection, "one"),
        lambda: audit.amend(
            connection, audit.record(connection, "c", "me", "try", count=1), count=2, size=3, detail={}
        ),
    ]
    for step in steps:
        with contextlib.suppress(ServerReplyError, removal.RemovalStoppedError):
            step()


DO = {"reader": look, "writer": change}


@pytest.mark.parametrize("role", ROLES)
def test_the_line_is_enough(user: Callable[[str], User], role: str) -> None:
    they = user(role)
    they.may([*LINES[role], *DASHBOARD[role]])
    connection = RedisConnection(they.url)
    DO[role](connection)
    connection.close()
    assert they.denied() <= {"evalsha"}


@pytest.mark.parametrize("role", ROLES)
def test_each_command_is_needed(user: Callable[[str], User], role: str) -> None:
    they = user(role)
    needless = []
    for rule in DASHBOARD[role]:
        if rule.startswith("+"):
            they.may([*LINES[role], *(other for other in DASHBOARD[role] if other != rule)])
            connection = RedisConnection(they.url)
            DO[role](connection)
            connection.close()
            needless += [] if rule[1:].partition("|")[0] in they.denied() else [rule]
    assert needless == []


def test_pages_work_with_the_line(user: Callable[[str], User], pages: Callable[[str], None]) -> None:
    they = user("writer")
    they.may([*LINES["writer"], *FASTER["writer"], *DASHBOARD["writer"]])
    pages(they.url)
    for page in PAGES:
        app = open_page(page, cache="c")
        assert [error.value for error in app.error] == [], page
        assert PASSWORD not in words(app)


def test_pages_say_what_they_may_not(filled: Server, user: Callable[[str], User], pages: Callable[[str], None]) -> None:
    they = user("reader")
    they.may(LINES["reader"])
    filled.raw.delete(AS_REDISVL)
    pages(they.url)
    for page in PAGES:
        app = open_page(page, cache="c")
        said = [error.value for error in app.error]
        assert all("lacks a right" in each and "docs/security.md" in each for each in said), page
        assert bool(said) == (page == "benchmark"), page
        assert PASSWORD not in words(app)
    assert "may not ask it for INFO" in words(open_page("overview", cache="c"))
