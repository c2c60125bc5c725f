"""The page Vector map, run without a browser on a real embedded server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clicking import HOSTILE, metrics, open_page, own_server, press, words
from looking import redisvl_hash
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache, HFTextVectorizer
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import wording
from pages.ui.jobs import JobCancelledError, Progress
from pages.ui.mapped import find_vector

DIMENSION = 6
PATIENCE = 80  # runs, half a second apart


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


def fill(cache: EmbeddingsCache, count: int = 60, model: str = "m", dimension: int = DIMENSION) -> None:
    """Entries in two groups, far apart: "even 0", "odd 1", "even 2", …"""
    random = np.random.default_rng(0)
    items: list[Any] = []
    for number in range(count):
        kind = "odd" if number % 2 else "even"
        vector = random.normal(scale=0.05, size=dimension)
        vector[number % 2] += 1
        items.append(
            {
                "text": f"{kind} {number}",
                "model_name": model,
                "embedding": vector / np.linalg.norm(vector),
                "metadata": {"kind": kind, "number": number},
            }
        )
    cache.mset(items)


def open_map() -> AppTest:
    return settled(open_page("vector_map"))


def settled(app: AppTest) -> AppTest:
    """The page, once its job is over."""
    for _ in range(PATIENCE):
        if "Cancel" not in [button.label for button in app.button]:
            break
        time.sleep(0.5)
        app.run()
    assert not app.exception
    return app


def figure(app: AppTest, key: str = "map_points") -> dict[str, Any]:
    (chart,) = [chart for chart in app.get("plotly_chart") if chart.proto.id.endswith(key)]
    return json.loads(chart.proto.spec)


def names(app: AppTest, key: str = "map_points") -> list[str]:
    return [trace["name"] for trace in figure(app, key)["data"]]


def colour_by(app: AppTest, way: str) -> AppTest:
    app.selectbox(key="map_colour").set_value(way)
    return settled(app.run())


def find(app: AppTest, text: str) -> AppTest:
    app.text_input(key="map_text").set_value(text)
    return settled(press(app, "Find neighbours"))


def table(app: AppTest, column: str) -> Any:
    (found,) = [each.value for each in app.dataframe if column in each.value.columns]
    return found


# ------------------------------------------------------------------------------------------------ the map


def test_an_empty_page_teaches() -> None:
    app = open_map()
    assert app.title[0].value == "Vector map"
    assert "No vectors to map yet" in words(app)
    assert "Embed some texts" in [link.label for link in app.get("page_link")]
    assert "Load sample data" in [button.label for button in app.button]
    assert not app.get("plotly_chart")


def test_the_page_looks_again_once_there_is_something(cache: EmbeddingsCache) -> None:
    app = open_map()
    fill(cache)
    settled(app.run())
    assert "60 entries, all there are, of `m`, with 6 dimensions." in words(app)


def test_two_groups_are_two_clusters(cache: EmbeddingsCache) -> None:
    fill(cache)
    app = open_map()
    app.number_input(key="map_clusters").set_value(2)
    settled(app.run())
    assert names(app) == ["cluster 1 (30)", "cluster 2 (30)"]
    kinds = [{text.split()[0] for text in trace["text"]} for trace in figure(app)["data"]]
    assert sorted(map(tuple, kinds)) == [("even",), ("odd",)]
    layout = figure(app)["layout"]
    assert layout["xaxis"]["title"]["text"].startswith("1st component, ")
    assert layout["xaxis"]["title"]["text"].endswith("% of the variance")
    assert "The two axes show" in words(app)


def test_colours(cache: EmbeddingsCache) -> None:
    fill(cache)
    app = open_map()
    ways = ["Cluster", "Age", "Model", "Metadata: kind", "Metadata: number"]
    assert app.selectbox(key="map_colour").options == ways
    assert names(colour_by(app, "Model")) == ["m (60)"]
    assert names(colour_by(app, "Metadata: kind")) == ["even (30)", "odd (30)"]
    assert figure(colour_by(app, "Age"))["data"][0]["marker"]["colorbar"]["title"]["text"] == "age (seconds)"
    assert figure(colour_by(app, "Metadata: number"))["data"][0]["marker"]["colorbar"]["title"]["text"] == "number"


def test_models_are_apart_unless_all_are_asked_for(cache: EmbeddingsCache) -> None:
    fill(cache, 60)
    fill(cache, 20, model="n")
    fill(cache, 30, model="o", dimension=3)
    app = open_map()
    assert "60 entries, all there are, of `m`" in words(app)
    assert "50 entries of other models or dimensions are not on the map" in words(app)
    app.selectbox(key="map_model").set_value("o")
    settled(app.run())
    assert "30 entries, all there are, of `o`, with 3 dimensions" in words(app)
    app.selectbox(key="map_model").set_value(" ")
    settled(app.run())
    assert "80 entries, all there are, of 2 models" in words(app)
    assert "Distances between points of two models mean nothing" in words(app)
    assert names(colour_by(app, "Model")) == ["m (60)", "n (20)"]


def test_a_sample_of_many(cache: EmbeddingsCache) -> None:
    fill(cache, 3_000)
    app = open_map()
    app.radio(key="map_size").set_value(500)
    settled(app.run())
    assert "500 entries, drawn as good as at random" in words(app)
    app.radio(key="map_size").set_value(10_000)
    settled(app.run())
    assert "3,000 entries, all there are" in words(app)


# ------------------------------------------------------------------------------------------------ entries, neighbours


@pytest.mark.parametrize("view", ["2-D", "3-D"])
def test_an_entry_found_by_its_words(cache: EmbeddingsCache, view: str) -> None:
    fill(cache)
    app = open_map()
    app.radio(key="map_view").set_value(view)
    app.text_input(key="map_find").set_value("ODD 1")
    settled(app.run())
    if view == "3-D":
        assert names(app, "map_solid")[0].startswith("cluster 1")
    match = app.selectbox(key="map_match")
    assert match.label == "6 matches"
    key = cache.key_for("odd 13", "m")
    match.set_value(key)
    settled(app.run())
    assert app.code[0].value == "odd 13"
    assert "`m`, stored" in words(app)
    (link,) = [each for each in app.get("page_link") if each.label == "Open in Lookup"]
    assert key.partition(":")[2] in str(link.proto)
    near = table(app, "similarity")
    assert len(near) == 5
    assert {text.split()[0] for text in near["text"]} == {"odd"}
    assert "odd 13" not in list(near["text"])
    assert near["similarity"].is_monotonic_decreasing
    assert near["open"][0].startswith("lookup?key=embedcache%3A")


def test_words_that_nothing_holds(cache: EmbeddingsCache) -> None:
    fill(cache)
    app = open_map()
    app.text_input(key="map_find").set_value("nowhere")
    assert "No entry of this sample holds these words" in words(settled(app.run()))


def test_neighbours_of_a_text_that_is_cached(cache: EmbeddingsCache) -> None:
    fill(cache)
    app = find(open_map(), "even 4")
    assert "`even 4`: read from the cache" in words(app)
    near = table(app, "similarity")
    assert len(near) == 10
    assert {text.split()[0] for text in near["text"]} == {"even"}
    assert "even 4" not in list(near["text"])
    assert names(app)[-2:] == ["nearest neighbours", "your text"]
    assert len(figure(app)["data"][-2]["text"]) == 10


def test_a_search_for_a_text_is_cancelled_before_the_model_is_loaded(cache: EmbeddingsCache) -> None:
    class CancelledAtTheModel(Progress):
        def tell(self, done: int, total: int | None = None, note: str | None = None) -> None:
            if note:
                self.cancel()
            super().tell(done, total, note)

    model = HFTextVectorizer(DEFAULT_MODEL)
    with pytest.raises(JobCancelledError):
        find_vector("never seen", ["m", model.model_name], 6, cache, model, CancelledAtTheModel())
    assert not model.loaded


def test_a_text_whose_vector_nobody_here_has(cache: EmbeddingsCache) -> None:
    fill(cache)
    app = find(open_map(), "never seen")
    assert "the model of this map is not on this machine" in words(app)
    assert "your text" not in names(app)
    assert "There is no text here yet" in words(find(app, " "))


@pytest.mark.model
def test_a_text_that_the_bundled_model_computes(cache: EmbeddingsCache) -> None:
    from embedcache import HFTextVectorizer

    texts = ["How do I bake bread?", "Baking a loaf at home", "The train leaves at noon", "Rail timetable"]
    HFTextVectorizer(cache=cache).embed_many(texts)
    app = find(open_map(), "bread recipe")
    for _ in range(PATIENCE):
        if "computed just now, and not stored" in words(app):
            break
        time.sleep(0.5)
        app.run()
    assert "computed just now, and not stored" in words(app)
    assert set(table(app, "similarity")["text"][:2]) == set(texts[:2])
    assert not cache.exists("bread recipe", DEFAULT_MODEL)


def test_looking_is_not_counted(cache: EmbeddingsCache) -> None:
    fill(cache)
    key = cache.set("even 100", "m", [1.0] * DIMENSION, ttl=1_000)
    cache.connection.client().expire(key, 300)
    find(open_map(), "even 100")
    assert cache.stats().texts == 0
    assert cache.connection.client().ttl(key) <= 300


# ------------------------------------------------------------------------------------------------ health


def test_health(cache: EmbeddingsCache) -> None:
    fill(cache)
    cache.set("nothing", "m", [0.0] * DIMENSION)
    cache.set(" EVEN  0", "m", [1.0] + [0.0] * (DIMENSION - 1))
    cache.connection.client().set(f"{cache.name}:{'0' * 64}", "no entry")
    app = open_map()
    found = metrics(app)
    assert (found["Length 1"], found["Broken"], found["Shared"], found["Spelt twice"]) == ("98.4%", "1", "0", "1")
    rows = app.table[0].value.set_index("Check")["Found"]
    assert (rows["Zero vectors"], rows["Unreadable values"], rows["NaN or infinity"]) == ("1", "1", "0")
    assert "1 text is stored in several spellings. One entry each would save 1 entry" in words(app)
    assert set(table(app, "texts")["texts"][0].split("  |  ")) == {"even 0", "␣EVEN␣␣0"}
    assert figure(app, "map_norms")["layout"]["xaxis"]["title"]["text"] == "norm of the vector (no unit)"


def test_the_health_of_all_vectors_is_checked_by_a_click(cache: EmbeddingsCache) -> None:
    fill(cache, 600)
    spaced = [
        {"text": f"even {i}" + " " * (1 + i), "model_name": "m", "embedding": [1.0, i, *[0.0] * 4]} for i in (0, 2)
    ]
    cache.mset(spaced)
    cache.set("of another dimension", "m", [1.0])
    cache.set("of another model", "n", [0.0] * DIMENSION)
    cache.connection.client().set(f"{cache.name}:{'0' * 64}", "no entry")
    cache.connection.client().hset(cache.key_for("theirs", "m"), mapping=redisvl_hash("theirs", size=DIMENSION))
    app = open_map()
    app.radio(key="map_size").set_value(500)
    settled(app.run())
    assert "vectors, a sample, as of" in words(app)
    settled(press(app, "Check all of the cache"))
    assert "603 vectors, all there are, as of just now." in words(app)
    found = metrics(app)
    assert (found["Broken"], found["Spelt twice"]) == ("0", "2")
    rows = app.table[0].value.set_index("Check")["Found"]
    assert rows["Unreadable values"] == "2"  # one is of another dimension
    assert "2 texts are stored in several spellings. One entry each would save 2 entries" in words(app)
    assert "in this sample" not in words(app)
    assert sorted(each.split("  |  ")[0].strip("␣") for each in table(app, "texts")["texts"]) == ["even 0", "even 2"]
    app.selectbox(key="map_model").set_value("n")
    assert "1 vector, all there are" in words(settled(app.run()))  # of that map alone


def test_nothing_but_what_cannot_be_read(cache: EmbeddingsCache) -> None:
    cache.connection.client().set(f"{cache.name}:{'0' * 64}", "no entry")
    assert "holds 1 value under its keys, and none with a vector" in words(open_map())


# ------------------------------------------------------------------------------------------------ strangers, outages


def test_a_strangers_words_stay_words(cache: EmbeddingsCache) -> None:
    fill(cache, 10, model=HOSTILE)
    key = cache.set(HOSTILE, HOSTILE, [1.0] * DIMENSION, {HOSTILE: HOSTILE})
    cache.set(HOSTILE.upper(), HOSTILE, [1.0] * DIMENSION)
    app = open_map()
    app.text_input(key="map_find").set_value("alert")
    settled(app.run())
    app.selectbox(key="map_match").set_value(key)
    settled(app.run())
    assert app.code[0].value == wording.visible(HOSTILE)
    find(app, HOSTILE)
    assert wording.code_span(HOSTILE, 160) in words(app)
    assert wording.code_span(HOSTILE, 120) in words(app)
    colour_by(app, f"Metadata: {wording.one_line(HOSTILE, 60)}")
    for chart in app.get("plotly_chart"):
        assert "<script" not in chart.proto.spec
        assert "$x^2$" not in chart.proto.spec


def test_a_server_that_is_away_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", "redis://127.0.0.1:1/0")
    app = open_page("vector_map")
    assert "does not answer" in words(app)
    assert not app.get("plotly_chart")
