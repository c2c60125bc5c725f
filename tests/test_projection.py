"""Principal components, clusters and nearest neighbours, and the maps drawn of them."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from clicking import HOSTILE
from sampled import vectors_of

from pages.ui import maps, projection

RANDOM = np.random.default_rng(7)


def blobs(*sizes: int, dimension: int = 8) -> Any:
    """Groups of vectors around centres far apart, in order."""
    centres = 10 * np.eye(dimension)
    rows = [centres[n] + RANDOM.normal(scale=0.1, size=(size, dimension)) for n, size in enumerate(sizes)]
    return np.concatenate(rows).astype(np.float32)


# ------------------------------------------------------------------------------------------------ components


def test_components_are_those_of_the_covariance() -> None:
    matrix = (RANDOM.normal(size=(400, 5)) * [5, 3, 2, 1, 0.5] + 100).astype(np.float32)
    found = projection.project(matrix)
    values = np.sort(np.linalg.eigvalsh(np.cov(matrix.astype(np.float64).T)))[::-1]
    assert found.variance == pytest.approx(values[:3] / values.sum(), rel=1e-3)
    assert found.coordinates.var(axis=0, ddof=1) == pytest.approx(values[:3], rel=1e-3)
    assert found.coordinates.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-3)


def test_a_map_is_the_same_each_time_and_in_any_order() -> None:
    matrix = blobs(50, 40, 30)
    order = RANDOM.permutation(len(matrix))
    first, second = projection.project(matrix), projection.project(matrix[order])
    assert projection.project(matrix).coordinates.tolist() == first.coordinates.tolist()
    assert second.coordinates == pytest.approx(first.coordinates[order], abs=1e-3)


def test_a_vector_of_the_sample_is_placed_on_its_own_point() -> None:
    matrix = blobs(50, 40, 30)
    found = projection.project(matrix)
    for row in (0, 60, 119):
        assert found.place(matrix[row]) == pytest.approx(found.coordinates[row], abs=1e-4)


@pytest.mark.parametrize(
    "matrix",
    [np.ones((1, 4)), np.ones((5, 4)), np.array([[1.0], [2.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros((3, 2))],
    ids=["one vector", "all the same", "one dimension", "two vectors", "zeros"],
)
def test_what_has_fewer_than_three_components(matrix: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = projection.project(matrix.astype(np.float32))
        labels = projection.clusters(matrix.astype(np.float32), 4)
    assert found.coordinates.shape == (len(matrix), 3)
    assert np.isfinite(found.coordinates).all()
    assert found.variance.sum() == pytest.approx(1 if len(np.unique(matrix, axis=0)) > 1 else 0)
    assert labels.max() < len(matrix)


def test_huge_numbers_do_not_overflow() -> None:
    matrix = (blobs(20, 20) * 1e36).astype(np.float32)
    assert np.isfinite(projection.project(matrix).coordinates).all()
    assert projection.clusters(matrix, 2).tolist() == [0] * 20 + [1] * 20
    assert projection.nearest(matrix, matrix[0], 1)[1][0] == pytest.approx(1)


def test_trust_in_words() -> None:
    assert "most of it" in projection.trust(0.9)
    assert "a part" in projection.trust(0.5)
    assert "go by the nearest neighbours" in projection.trust(0.1)


# ------------------------------------------------------------------------------------------------ clusters, neighbours


def test_clusters_are_the_groups_largest_first() -> None:
    labels = projection.clusters(blobs(20, 60, 40), 3)
    assert labels.tolist() == [2] * 20 + [0] * 60 + [1] * 40


def test_neighbours_by_cosine() -> None:
    matrix = np.array([[1, 0], [10, 0.1], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
    rows, similarities = projection.nearest(matrix, np.array([2.0, 0.0]), 4)
    assert rows.tolist() == [0, 1, 2, 4]
    assert similarities == pytest.approx([1, 0.99995, 0, 0], abs=1e-5)
    rows, similarities = projection.nearest(matrix, matrix[0], 9, but=np.array([0, 2]))
    assert rows.tolist() == [1, 4, 3]
    assert similarities[-1] == pytest.approx(-1)


# ------------------------------------------------------------------------------------------------ colours


def labelled(colours: maps.Colours) -> list[str]:
    return [colours.labels[code] for code in colours.codes]


def test_categories_most_frequent_first_and_the_rest_as_other() -> None:
    names = [f"v{number:02}" for number in range(20) for _ in range(21 - number)]
    metadata = (*({"kind": name} for name in names), None, {"else": 1})
    colours = maps.by_field(vectors_of(np.ones((len(metadata), 2)), metadata=metadata), "kind")
    assert len(colours.labels) == maps.MOST_CATEGORIES
    assert colours.labels[:2] == ("v00", "v01")
    assert colours.labels[-2:] == ("other (10 values)", "not set")
    assert labelled(colours)[-2:] == ["not set", "not set"]
    assert colours.plain == 2


def test_numbers_are_a_scale_where_there_are_many_and_else_categories() -> None:
    few = vectors_of(np.ones((4, 2)), metadata=({"n": 1}, {"n": 2}, {"n": True}, {"n": [1]}))
    assert maps.by_field(few, "n").labels == ("1", "2", "[1]", "true")
    metadata = (*({"n": number / 2} for number in range(30)), {}, {"n": float("inf")})
    many = maps.by_field(vectors_of(np.ones((32, 2)), metadata=metadata), "n")
    assert many.labels == ()
    assert many.numbers[:3].tolist() == [0, 0.5, 1]
    assert np.isnan(many.numbers[-2:]).all()


@pytest.mark.parametrize(
    ("oldest", "title", "shown"),
    [(30, "age (seconds)", 30), (600, "age (minutes)", 10), (7_200, "age (hours)", 2), (864_000, "age (days)", 10)],
)
def test_age_in_the_unit_that_fits(oldest: float, title: str, shown: float) -> None:
    at = np.array([5_000_000.0 - oldest, 5_000_099.0, np.nan])
    colours = maps.by_age(vectors_of(np.ones((3, 2)), inserted_at=at), 5_000_000.0)
    assert (colours.title, colours.numbers[0], colours.numbers[1]) == (title, shown, 0)
    assert np.isnan(colours.numbers[2])


def test_models_clusters_and_field_names() -> None:
    vectors = vectors_of(np.ones((3, 2)), model_names=("b", "a", "b"), metadata=({"x": 1}, {"y": 1, "x": 0}, None))
    assert maps.by_model(vectors).labels == ("b", "a")
    assert maps.by_cluster(np.array([0, 1, 0])).labels == ("cluster 1", "cluster 2")
    assert maps.field_names(vectors) == ["x", "y"]


# ------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("draw", [maps.flat, maps.solid])
def test_a_map_names_its_axes_and_counts_its_categories(draw: Any) -> None:
    vectors = vectors_of(blobs(20, 60))
    placed = projection.project(vectors.matrix)
    marks = maps.Marks(placed.place(vectors.matrix[3]), np.array([3, 4]))
    figure = draw(
        placed, maps.hover_texts(vectors, 1_060.0), maps.by_cluster(np.repeat([1, 0], [20, 60])), marks, "dark"
    )
    assert [trace.name for trace in figure.data] == [
        "cluster 1 (60)",
        "cluster 2 (20)",
        "nearest neighbours",
        "your text",
    ]
    assert figure.data[1].customdata.tolist() == list(range(20))
    assert figure.data[1].text[3] == "text 3<br><br>m<br>stored 1 min ago"
    layout = figure.layout if draw is maps.flat else figure.layout.scene
    shown = projection.project(vectors.matrix).variance[0]
    assert layout.xaxis.title.text.startswith("1st")
    assert f"{shown:.1%}" in layout.xaxis.title.text


def test_a_scale_carries_its_unit_and_what_has_no_number_is_named() -> None:
    vectors = vectors_of(blobs(20, 60))
    numbers = np.where(np.arange(80) < 70, np.arange(80), np.nan)
    colours = maps.Colours("age (days)", numbers=numbers)
    figure = maps.flat(projection.project(vectors.matrix), maps.hover_texts(vectors, 0.0), colours)
    assert [(trace.name, len(trace.x)) for trace in figure.data] == [("known", 70), ("not set", 10)]
    assert figure.data[0].marker.colorbar.title.text == "age (days)"


def test_more_categories_than_colours_differ_by_symbol() -> None:
    vectors = vectors_of(RANDOM.normal(size=(24, 3)).astype(np.float32))
    figure = maps.flat(
        projection.project(vectors.matrix), maps.hover_texts(vectors, 0.0), maps.by_cluster(np.arange(24) % 12)
    )
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == 12


def test_large_maps_are_drawn_by_webgl() -> None:
    vectors = vectors_of(RANDOM.normal(size=(3_000, 3)).astype(np.float32))
    figure = maps.flat(
        projection.project(vectors.matrix), maps.hover_texts(vectors, 0.0), maps.by_cluster(np.zeros(3_000, dtype=int))
    )
    assert {trace.type for trace in figure.data} == {"scattergl"}


def test_a_strangers_words_are_no_html_in_a_map() -> None:
    n = 3
    vectors = vectors_of(
        np.eye(n, dtype=np.float32),
        texts=(HOSTILE,) * n,
        model_names=(HOSTILE,) * n,
        metadata=({HOSTILE: HOSTILE},) * n,
    )
    placed, hover = projection.project(vectors.matrix), maps.hover_texts(vectors, 0.0)
    for colours in (maps.by_model(vectors), maps.by_field(vectors, HOSTILE)):
        drawn = json.dumps(json.loads(maps.flat(placed, hover, colours).to_json()), ensure_ascii=False)
        assert "<script" not in drawn
        assert "$x^2$" not in drawn
        assert "&lt;script&gt;" in drawn


def test_long_texts_are_wrapped_and_cut() -> None:
    vectors = vectors_of(np.ones((2, 2)), texts=("word " * 500, b"\xff\x00" * 500))
    for text in maps.hover_texts(vectors, 0.0):
        assert max(map(len, text.split("<br>"))) <= 61
        assert len(text) < 300


def test_norms_that_differ_by_rounding_alone_are_one_bar() -> None:
    figure = maps.norms(1 + RANDOM.normal(scale=1e-7, size=500))
    numbers = sorted(figure.data[0].y)
    assert sum(numbers) == 500
    assert len([number for number in numbers if number]) <= 2
    assert sum(maps.norms(np.array([0.0, 1.0, 5.0])).data[0].y) == 3
    assert sum(maps.norms(np.zeros(4)).data[0].y) == 4
