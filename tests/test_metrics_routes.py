"""What the dashboard's server tells machines, asked of a dashboard as `make run` starts it."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard
from prometheus_client.parser import text_string_to_metric_families
from servers import Server, free_port, running
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from embedcache import EmbeddingsCache
from embedcache.server import EmbeddedServer
from pages.ui import exports, serving, session

PASSWORD = "s3cret"  # noqa: S105 - a test's
TEXT = "a private text"


class Answer:
    def __init__(self, url: str, accept: str = "*/*") -> None:
        request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request) as response:  # noqa: S310 - ours
                self.status, self.kind, self.text = response.status, response.headers["content-type"], response.read()
        except urllib.error.HTTPError as error:
            with error:
                self.status, self.kind, self.text = error.code, error.headers["content-type"], error.read()
        self.text = self.text.decode()

    def sample(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None


@pytest.fixture
def own_server() -> Iterator[Server]:
    with running("valkey9", port=free_port(), password=PASSWORD) as server:
        yield server


def url_of(server: Server) -> str:
    return f"redis://:{PASSWORD}@127.0.0.1:{server.port}"


def test_metrics_and_health_come_and_go_with_the_server(own_server: Server, tmp_path: Path) -> None:
    with EmbeddingsCache("docs", redis_url=url_of(own_server)) as cache:
        cache.set(TEXT, "m", [1.0])
        cache.get(TEXT, "m")
        cache.get("never stored", "m")
        cache.flush_stats()
    with EmbeddingsCache("uncounted", redis_url=url_of(own_server), stats=False) as cache:
        cache.set(TEXT, "m", [1.0])
    log = tmp_path / "log"
    with dashboard(url_of(own_server), log) as address:
        health = Answer(f"{address}/healthz")
        assert (health.status, health.kind) == (200, "application/json")
        assert json.loads(health.text)["status"] == "ok"
        up = Answer(f"{address}/metrics")
        assert (up.status, up.kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert up.sample("embedcache_up", cache="docs") == up.sample("embedcache_up", cache="uncounted") == 1
        assert up.sample("embedcache_hits_total", cache="docs", model="m") == 1
        assert up.sample("embedcache_misses_total", cache="docs", model="m") == 1
        assert "# TYPE embedcache_process_hits_total counter" in up.text
        openmetrics = Answer(f"{address}/metrics", "application/openmetrics-text; version=1.0.0")
        assert openmetrics.kind.startswith("application/openmetrics-text; version=1.0.0")
        assert openmetrics.text.endswith("# EOF\n")

        own_server.stop()
        health = Answer(f"{address}/healthz")
        assert (health.status, json.loads(health.text)) == (503, {"status": "unavailable"})
        down = Answer(f"{address}/metrics")
        assert down.status == 200
        assert down.sample("embedcache_up", cache="docs") == down.sample("embedcache_up", cache="uncounted") == 0
        assert down.sample("embedcache_hits_total", cache="docs", model="m") is None
        for page in ("", "/lookup", "/_stcore/health"):
            assert Answer(f"{address}{page}").status == 200

        own_server.start()
        assert Answer(f"{address}/healthz").status == 200
        assert Answer(f"{address}/metrics").sample("embedcache_up", cache="docs") == 1
    for told in (up.text, down.text, openmetrics.text, health.text, log.read_text()):
        for secret in (PASSWORD, "private", "Traceback"):
            assert secret not in told


def test_a_server_that_never_answered(tmp_path: Path) -> None:
    with dashboard(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}", tmp_path / "log") as address:
        assert Answer(f"{address}/healthz").status == 503
        metrics = Answer(f"{address}/metrics")
        assert (metrics.status, metrics.sample("embedcache_up", cache="embedcache")) == (200, 0)
    assert PASSWORD not in metrics.text + (tmp_path / "log").read_text()


def test_an_address_that_cannot_be_read(tmp_path: Path) -> None:
    with dashboard(f"http://:{PASSWORD}@nonsense", tmp_path / "log") as address:
        health = Answer(f"{address}/healthz")
        assert (health.status, json.loads(health.text)) == (503, {"status": "unavailable"})
        metrics = Answer(f"{address}/metrics")
        assert (metrics.status, metrics.sample("embedcache_up", cache="embedcache")) == (200, 0)
    log = (tmp_path / "log").read_text()
    assert PASSWORD not in metrics.text + log
    assert "Traceback" not in log


def test_an_embedded_server_is_left_with_the_dashboard(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with EmbeddingsCache("docs", redis_url=f"embedded://{folder}") as cache:
        cache.get("never stored", "m")
    with dashboard(f"embedded://{folder}", tmp_path / "log") as address:
        assert Answer(f"{address}/healthz").status == 200
        assert Answer(f"{address}/metrics").sample("embedcache_misses_total", cache="docs", model="m") == 1
    assert EmbeddedServer(folder).pid is None


async def test_what_the_dashboard_itself_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "server"
    monkeypatch.setenv("EMBEDCACHE_URL", f"embedded://{folder}")
    request = Request({"type": "http", "headers": []})
    async with serving.load_and_close(None):
        session.open_cache("docs").get("never stored", "m")
        told = bytes((await serving.metrics(request)).body).decode()
        assert 'embedcache_process_misses_total{cache="docs",model="m"} 1.0' in told
    assert EmbeddedServer(folder).pid is None
    with EmbeddingsCache("docs") as cache:
        assert cache.stats("all").misses == 1
    st.cache_resource.clear()


@pytest.mark.parametrize(
    ("kind", "accept", "times"),
    [("http", b"text/html,*/*;q=0.8", 1), ("http", b"*/*", 0), ("websocket", b"text/html", 0)],
)
async def test_walks_give_way_to_who_opens_a_page(
    kind: str, accept: bytes, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[None] = []
    served: list[object] = []
    monkeypatch.setattr(serving.apart, "give_way", lambda: given.append(None))

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope)

    async def nothing(*_: object) -> dict[str, object]:
        return {}

    scope = {"type": kind, "headers": [(b"accept", accept)]}
    await serving.WalksGiveWay(page)(scope, nothing, nothing)
    assert (len(given), served) == (times, [scope])


async def test_copies_kept_long_enough_go_though_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_FIRST_TIDY_SECONDS", 0.0)
    old, fresh = (exports.folder() / name for name in ("old.parquet", "fresh.parquet"))
    for path, age in ((old, exports.KEPT_SECONDS + 60), (fresh, 0)):
        path.touch()
        os.utime(path, (0, time.time() - age))
    async with serving.load_and_close(None):
        for _ in range(2_000):
            if not old.exists():
                break
            await asyncio.sleep(0.01)
    assert not old.exists()
    assert fresh.exists()
