"""The Grafana dashboard asks for metrics that there are, and its panels lie side by side."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from servers import Server

from embedcache import EmbeddingsCache
from embedcache.integrations.prometheus import ProcessCollector, SharedCollector

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "docs" / "grafana" / "embedcache.json").read_text(encoding="utf-8")
)
PANELS = DASHBOARD["panels"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
EXPRESSIONS = [
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
    *(each["definition"] for each in VARIABLES.values() if each["type"] == "query"),
]


@pytest.fixture
def exposed(valkey: Server) -> dict[str, set[str]]:
    """The labels of every metric that a scraper reads."""
    registry = CollectorRegistry()
    with EmbeddingsCache("docs", redis_url=valkey.url) as cache:
        cache.get("a", "m")
        cache.flush_stats()
        registry.register(ProcessCollector(cache))
        registry.register(SharedCollector(cache))
        families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_every_metric_asked_for_is_exposed_with_the_labels_asked_for(exposed: dict[str, set[str]]) -> None:
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"embedcache_\w+", expression)}
    assert asked - exposed.keys() == set()
    assert len(asked) > 10
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"(embedcache_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=~", matchers)) <= exposed[name], expression
        grouped = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(", ")}
        assert grouped <= {"cache", "model", "le"}, expression


def test_every_counter_is_on_it(exposed: dict[str, set[str]]) -> None:
    shared = {name for name in exposed if not name.startswith("embedcache_process_")}
    told = {name for name in shared if not re.search(r"_(bucket|sum|count|created)$", name)}
    assert {name for name in told if not any(name in expression for expression in EXPRESSIONS)} == set()


def test_counters_are_asked_for_as_rates() -> None:
    for expression in EXPRESSIONS:
        if "label_values" not in expression:
            bare = re.sub(r"(rate|increase)\(embedcache_\w+\{[^}]*\}\[\$__\w+\]\)", "", expression)
            # What a text takes is a ratio of two sums of all time.
            left = set(re.findall(r"embedcache_\w+_(?:total|bucket|count)", bare))
            assert left <= {"embedcache_compute_seconds_total", "embedcache_texts_computed_total"}, expression


def test_panels_do_not_overlap_and_fit_the_grid() -> None:
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] >= 0
        assert at["x"] + at["w"] <= 24
    for one, other in combinations(PANELS, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one['title']!r} lies over {other['title']!r}"


def test_panels_have_units_titles_and_the_data_source_of_the_viewers_choice() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_cache_and_model_are_chosen_by_variables() -> None:
    assert list(VARIABLES) == ["datasource", "cache", "model"]
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for panel in PANELS:
        for target in panel["targets"]:
            selectors = re.findall(r"embedcache_(\w+)\{([^}]*)\}", target["expr"])
            assert selectors
            for name, matchers in selectors:
                wanted = 'cache=~"$cache"' if name == "up" else 'cache=~"$cache", model=~"$model"'
                assert matchers == wanted, target["expr"]
