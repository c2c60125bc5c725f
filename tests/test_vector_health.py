"""What is wrong with vectors, or wasteful, and how the page says it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from sampled import vectors_of

from pages.ui import vector_health
from pages.ui.vector_health import Examination, Health, examine, findings, groups_frame, saving, spelt

RANDOM = np.random.default_rng(3)


def unit(n: int, dimension: int = 6) -> Any:
    rows = RANDOM.normal(size=(n, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def told(health: vector_health.Health, check: str, unreadable: int = 0) -> tuple[str, str]:
    table = findings(health, unreadable).set_index("Check")
    return table.loc[check, "Found"], table.loc[check, "What it means"]


def test_all_is_well() -> None:
    health = examine(vectors_of(unit(10)))
    assert (health.unit, health.zero, health.not_finite, health.duplicated, health.constant) == (10, 0, 0, 0, 0)
    assert health.norms == pytest.approx(np.ones(10))
    assert told(health, "Length 1")[0] == "100.0%"
    assert "the same" in told(health, "Length 1")[1]
    assert set(findings(health, 0)["What it means"][1:]) == {"None, as it should be."}
    assert "nothing to merge" in saving(health, True, 10)


def test_broken_vectors() -> None:
    matrix = unit(10)
    matrix[0] = 0
    matrix[1, 2] = np.nan
    matrix[2, 0] = np.inf
    matrix[3] *= 5
    health = examine(vectors_of(matrix))
    assert (health.unit, health.zero, health.not_finite) == (6, 1, 2)
    assert health.finite.tolist() == [True, False, False, *[True] * 7]
    assert len(health.norms) == 8
    assert told(health, "Zero vectors")[0] == "1"
    assert told(health, "NaN or infinity")[0] == "2"
    assert told(health, "Length 1") == (
        "60.0%",
        "4 of 10 have another norm, as if two programs wrote them. Dot products favour the longer ones: compare by "
        "cosine similarity, or normalize all.",
    )
    assert told(health, "Unreadable values", 7)[0] == "7"
    assert "embedding the texts again" in told(health, "Unreadable values", 7)[1]
    assert "None has a norm of 1" in told(examine(vectors_of(unit(3) * 7)), "Length 1")[1]


def test_parts_that_follow_one_another_are_as_good_as_one() -> None:
    matrix = unit(40)
    matrix[3], matrix[30] = matrix[17], matrix[17]  # under other texts, in other parts
    matrix[5], matrix[6, 1], matrix[:, 4] = 0, np.nan, 0.25
    texts = tuple(f"Text {row % 37}{' ' * (row % 2)}" for row in range(40))
    vectors = vectors_of(matrix, texts=texts, value_bytes=np.arange(40))
    whole, examination = examine(vectors), Examination()
    for rows in np.array_split(np.arange(40), 7):
        examination.add(vectors.part(rows))
    parts = examination.result()
    assert parts.duplicates == ((3, 17, 30),)
    assert parts.spellings == ((0, 37), (1, 38), (2, 39))
    assert parts.saved_bytes == 3
    for each in fields(Health):
        assert np.array_equal(getattr(parts, each.name), getattr(whole, each.name)), each.name


def test_nothing_that_is_finite() -> None:
    health = examine(vectors_of(np.full((2, 3), np.nan, dtype=np.float32)))
    assert (health.not_finite, health.constant, len(health.norms), health.duplicates) == (2, 0, 0, ())


def test_the_same_vector_under_other_texts() -> None:
    matrix = unit(8)
    matrix[1] = matrix[0]
    matrix[3] = matrix[2]
    matrix[5] = matrix[4]
    matrix[6:] = 0
    texts = ("one", "two", "Hello", "hello ", "x", "y", "p", "q")
    models = ("m", "m", "m", "m", "m", "n", "m", "m")
    health = examine(vectors_of(matrix, texts=texts, model_names=models))
    assert health.duplicates == ((0, 1),)  # not: a mere spelling, another model, zeros
    assert health.duplicated == 2
    assert told(health, "Shared vectors")[0] == "2"


def test_positions_that_never_change() -> None:
    matrix = unit(5)
    matrix[:, 2:4] = 0.25
    assert told(examine(vectors_of(matrix)), "Positions that never change")[0] == "2"
    assert examine(vectors_of(matrix[:1])).constant == 0


def test_texts_that_differ_in_spelling_alone() -> None:
    texts = (
        "What is AI?",
        "what  is AI?\n",
        "WHAT IS AI?",
        "caf\u00e9",
        "cafe\u0301",
        "other",
        "what is ai?",
        b"other",
    )
    models = ("m",) * 6 + ("n", "m")
    sizes = np.array([100, 300, 200, 10, 20, 1, 1, 1])
    health = examine(vectors_of(unit(8), texts=texts, model_names=models, value_bytes=sizes))
    assert health.spellings == ((0, 1, 2), (3, 4))
    assert (health.saved_entries, health.saved_bytes) == (3, 310)
    said = saving(health, True, 8)
    assert said.startswith("2 texts are stored in several spellings. One entry each would save 3 entries and 310 B. ")
    assert "about" not in said
    assert "before they are embedded" in said


def test_what_merging_would_save_in_the_whole_cache() -> None:
    texts = tuple(f"Text {row // 2 if row < 24 else row}{' ' * (row % 2)}" for row in range(100))
    health = examine(vectors_of(unit(100), texts=texts))
    assert health.saved_entries == 12
    said = saving(health, False, 10_000)
    assert "12 entries and 1.2 KiB in this sample; about 1,200 entries and 117.2 KiB among the 10,000" in said
    assert "or more" in said
    assert "about" not in saving(health, False, 0)


def test_spellings_can_be_told_apart_in_the_table() -> None:
    vectors = vectors_of(
        unit(5), texts=("a b", "a  b", "a\tb\n", "A b ", "A B"), keys=tuple(f"c/?&:{n}" for n in range(5))
    )
    entries = dict(enumerate(zip(vectors.keys, vectors.texts, strict=True)))
    table = groups_frame(entries, [(0, 1, 2, 3, 4)])
    assert table["texts"][0] == "a b  |  a␣␣b  |  a⇥b⏎  |  and 2 more"
    assert table["entries"][0] == 5
    assert table["open"][0] == "lookup?key=c%2F%3F%26%3A0"
    assert spelt("x" * 500) == "x" * 60 + "…"
    assert len(groups_frame(entries, [(0, 1)] * 80)) == 50
