"""Rows of entries as tables and CSV, and what a link to Browse names."""

from __future__ import annotations

import csv
import io
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from clicking import HOSTILE
from hypothesis import assume, given
from hypothesis import strategies as st

from embedcache import EntrySummary
from embedcache.filtering import EntryFilter
from pages.ui import browse_links, entry_frames
from pages.ui.browse_links import View
from pages.ui.entry_frames import Row
from pages.ui.inputs import UnusableInputError

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["org/a", "other/b", "org/a", "c"], ["a", "b", "a", "c"]),
        (["org/a", "other/a"], ["org/a", "other/a"]),
        (["org/a", "a"], ["org/a", "a"]),
        (["/models/mine", "", "org/", "a b/c"], ["/models/mine", "", "org/", "a b/c"]),
        (["org/a/b"], ["a/b"]),
    ],
)
def test_models_are_named_without_their_owners_where_that_is_enough(names: list[str], short: list[str]) -> None:
    assert entry_frames.short_model_names(names) == short


def summary(**fields: object) -> EntrySummary:
    given = {
        "key": f"c:{'0' * 64}",
        "text": "a text",
        "model_name": "m",
        "dimension": 2,
        "dtype": "float32",
        "inserted_at": NOW - 3_600,
        "metadata": None,
        "ttl": None,
        "expires_in": None,
        "value_bytes": 100,
        "memory_bytes": 2_048,
        "idle_seconds": None,
    }
    return EntrySummary(**{**given, **fields})  # type: ignore[arg-type]


def row(**fields: object) -> Row:
    return Row(f"c:{'0' * 64}", summary(**fields), np.array([0.5, -1.0]), "", 100)


def test_a_row_reads_as_people_say_it():
    (cells,) = entry_frames.frame([row(expires_in=7_200.0)], NOW, ZoneInfo("Europe/Lisbon")).to_dict("records")
    assert cells == {
        "open": "Open",
        "text": "a text",
        "state": [],
        "model": "m",
        "stored": "1 h ago",
        "expires": "in 2 h",
        "read": "not told",
        "size": "2.0 KiB",
        "vector": [0.5, -1.0],
        "dimension": 2,
        "metadata": "",
        "moment": "15 Jan 2027, 07:00:00",
    }


def test_one_that_is_gone_has_nothing_to_open():
    gone = Row(f"c:{'0' * 64}", None, None, "Gone", 0)
    (cells,) = entry_frames.frame([gone], NOW, ZoneInfo("UTC")).to_dict("records")
    assert (cells["open"], cells["text"], cells["state"], cells["size"]) == ("", "", ["Gone"], "")


def test_a_sparkline_keeps_the_peaks_and_their_signs():
    vector = np.zeros(384, np.float32)
    vector[[3, 200, 383]] = [0.5, -0.75, 0.25]
    line = entry_frames.sparkline(vector)
    assert len(line) == entry_frames.SPARKS
    assert [value for value in line if value] == [0.5, -0.75, 0.25]
    assert entry_frames.sparkline(np.array([np.nan, np.inf, 1.0])) == [0.0, 0.0, 1.0]


def test_metadata_is_one_line_of_json():
    assert entry_frames.metadata_line({"a": {"b": [1, "é"]}}) == '{"a": {"b": [1, "é"]}}'
    assert entry_frames.metadata_line(None) == ""
    assert "\x1b" not in entry_frames.metadata_line({HOSTILE: HOSTILE})
    assert len(entry_frames.metadata_line({"a": "x" * 10_000})) < 200


@pytest.mark.parametrize("text", ["=1+1", "@x", "-2", "\t=1", HOSTILE, "\ud800", b"\xff\xfe"])
def test_a_csv_holds_no_formula(text):
    content = entry_frames.table_csv([row(text=text, model_name="=m", metadata={"a": 1})]).decode()
    (cells,) = csv.DictReader(io.StringIO(content))
    assert cells["text"][0] not in "=@-\t"
    assert cells["model"] == "'=m"
    assert (cells["stored"], cells["bytes"], cells["metadata"]) == ("2027-01-15T07:00:00+00:00", "100", '{"a": 1}')


def test_a_time_that_is_none_does_not_break_the_table():
    entry_frames.frame([row(inserted_at=1e300)], NOW, ZoneInfo("UTC"))
    assert b"1e+300" not in entry_frames.table_csv([row(inserted_at=1e300)])


# ------------------------------------------------------------------------------------------------ links

views = st.builds(
    View,
    sort=st.sampled_from(list(browse_links.SORTINGS)),
    page=st.integers(1, 99_999),
    size=st.sampled_from(browse_links.SIZES),
    entry_filter=st.builds(
        EntryFilter,
        text_contains=st.none() | st.text(min_size=1, max_size=200),
        min_age=st.none() | st.floats(0, 1e9),
        never_expires=st.none() | st.booleans(),
    ),
    key=st.none() | st.text(min_size=1, max_size=100).filter(lambda key: key == key.strip()),
)


@given(views)
def test_what_a_link_names_is_read_back(view):
    written = {name: value for name, value in browse_links.write(view).items() if value is not None}
    assert browse_links.read(written) == view


def test_what_is_as_by_default_is_not_named():
    assert set(browse_links.write(View()).values()) == {None}


@given(st.dictionaries(st.sampled_from(("page", "sort", "size", "key")), st.text()))
def test_any_link_shows_something(parameters):
    view = browse_links.read(parameters)
    assert view.sort in browse_links.SORTINGS
    assert view.size in browse_links.SIZES
    assert view.page >= 1


@given(st.text(min_size=1))
def test_a_filter_that_cannot_be_read_is_refused_in_our_own_words(written):
    assume(written not in ("{}", " {}"))
    with pytest.raises(UnusableInputError, match="all entries are shown"):
        browse_links.read({"filter": written})
