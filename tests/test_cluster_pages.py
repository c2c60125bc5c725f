"""The dashboard on a Redis Cluster: it is added as a connection, and pages show all of its primaries."""

from __future__ import annotations

from pathlib import Path

import pytest
from clicking import finish, open_page, own_server, press, words
from clusters import ClusterOfServers

from embedcache import EmbeddingsCache


def filled(cluster: ClusterOfServers) -> None:
    with EmbeddingsCache(redis_url=cluster.url) as cache:
        cache.mset([{"text": f"text {n}", "model_name": "m", "embedding": [float(n), 1.0]} for n in range(300)])
        cache.mget([f"text {n}" for n in range(50)], "m")


@pytest.mark.parametrize("page", [None, "browse", "hit_rates", "cleanup"])
def test_pages_show_a_cluster(
    cluster: ClusterOfServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str | None
) -> None:
    filled(cluster)
    with own_server(tmp_path, monkeypatch):
        monkeypatch.setenv("EMBEDCACHE_URL", cluster.url)
        app = finish(open_page(page))
        assert not app.exception
        assert not app.error
        if page is None:
            assert "300" in words(app)


def test_a_cluster_is_added_as_a_connection(
    cluster: ClusterOfServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(cluster)
    with own_server(tmp_path, monkeypatch):
        app = open_page("settings")
        app.text_input(key="settings_new_name").set_value("wide")
        app.text_input(key="settings_new_url").set_value(cluster.url)
        app = press(app, "Add")
        assert not app.error
        app.radio(key="settings_server").set_value("wide").run()
        assert not app.exception
        assert "You work with `wide` now." in words(app)
