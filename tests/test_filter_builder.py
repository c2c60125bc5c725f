"""The filter builder: what is chosen in it, what it refuses, and how a filter reads."""

from __future__ import annotations

import pytest
from clicking import HOSTILE
from streamlit.testing.v1 import AppTest

from embedcache.filtering import EntryFilter
from pages.ui import filter_builder


def build() -> None:
    import streamlit as st

    from pages.ui import filter_builder
    from pages.ui.inputs import UnusableInputError

    try:
        st.session_state.chosen = filter_builder.filter_builder("f", ["a/model", "b/model"])
    except UnusableInputError as error:
        st.session_state.chosen = str(error)


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_function(build).run()


def chosen(app: AppTest) -> EntryFilter:
    assert not app.exception
    return app.session_state.chosen


def test_nothing_is_chosen_at_first(app):
    assert chosen(app) == EntryFilter()
    assert [box.label for box in app.selectbox] == [
        "Model",
        "Stored longer ago than",
        "Stored within the last",
        "Not read for",
        "Expires",
        "Value larger than",
        "Value smaller than",
        "Values",
    ]


def test_all_that_is_chosen_is_asked_for(app):
    app.text_input(key="f_text").set_value("Weather")
    app.text_input(key="f_field").set_value("source.page")
    app.text_input(key="f_value").set_value("3")
    app.selectbox(key="f_model").set_value("b/model")
    app.selectbox(key="f_older").set_value("1 day")
    app.selectbox(key="f_newer").set_value("90 days")
    app.selectbox(key="f_idle").set_value("1 hour")
    app.selectbox(key="f_expiry").set_value("Within 1 day")
    app.selectbox(key="f_smallest").set_value("1 KiB")
    app.selectbox(key="f_largest").set_value("1 MiB")
    assert chosen(app.run()) == EntryFilter(
        text_contains="Weather",
        model_name="b/model",
        metadata_field="source.page",
        metadata_value="3",
        min_age=86_400,
        max_age=90 * 86_400,
        min_idle=3_600,
        expires_within=86_400,
        min_bytes=1_024,
        max_bytes=1_048_576,
    )


@pytest.mark.parametrize(("option", "never"), [("Never", True), ("At some time", False), (None, None)])
def test_whether_it_expires_at_all(app, option, never):
    app.selectbox(key="f_expiry").set_value(option)
    assert chosen(app.run()) == EntryFilter(never_expires=never)


def typed_expiry() -> None:
    import streamlit as st

    from pages.ui import filter_builder
    from pages.ui.inputs import UnusableInputError

    st.session_state["f_expiry"] = st.session_state.typed  # AppTest itself types nothing that is not listed
    try:
        st.session_state.chosen = filter_builder.filter_builder("f", [])
    except UnusableInputError as error:
        st.session_state.chosen = str(error)


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("Within 7 days", EntryFilter(expires_within=604_800)),
        ("within 36 h", EntryFilter(expires_within=129_600)),
        ("90 min", EntryFilter(expires_within=5_400)),
        ("soon", "A span of time is a number and a unit: 45 min, 36 h, 7 days, 2 weeks, 1 year."),
    ],
)
def test_any_span_until_it_expires(typed, asked):
    app = AppTest.from_function(typed_expiry)
    app.session_state.typed = typed
    assert chosen(app.run()) == asked


def test_damaged_ones(app):
    app.selectbox(key="f_values").set_value("damaged")
    assert chosen(app.run()) == EntryFilter(unreadable=True)


def test_what_contradicts_itself_is_refused_by_the_labels_of_the_controls(app):
    app.text_input(key="f_text").set_value("x")
    app.selectbox(key="f_values").set_value("damaged")
    assert "Damaged ones goes with no text" in chosen(app.run())
    app.selectbox(key="f_values").set_value("all")
    app.text_input(key="f_value").set_value("3")
    assert "Metadata field and Metadata value go together" in chosen(app.run())


def test_a_filter_in_words():
    whole = EntryFilter(
        text_contains="what",
        model_name="m",
        metadata_field="a",
        metadata_value="1",
        min_age=86_400,
        max_age=2 * 86_400,
        min_idle=60,
        expires_within=3_600,
        min_bytes=1_024,
        max_bytes=2_048,
    )
    assert filter_builder.in_words(whole) == [
        "text contains `what`",
        "model `m`",
        "metadata `a = 1`",
        "stored over 1 d ago",
        "stored within the last 2 d",
        "not read for 1 min",
        "expires within 1 h",
        "at least 1.0 KiB",
        "at most 2.0 KiB",
    ]
    assert filter_builder.in_words(EntryFilter(never_expires=True)) == ["never expires"]
    assert filter_builder.in_words(EntryFilter(never_expires=False)) == ["expires at some time"]
    assert filter_builder.in_words(EntryFilter(unreadable=True)) == ["damaged"]
    assert filter_builder.in_words(EntryFilter()) == []


def test_a_strangers_words_are_quoted():
    (said,) = filter_builder.in_words(EntryFilter(text_contains=HOSTILE))
    assert said.startswith("text contains ```")
    assert "\x1b" not in said


def take_over() -> None:
    import streamlit as st

    from pages.ui import filter_builder
    from pages.ui.inputs import UnusableInputError

    try:
        filter_builder.choose("f", st.session_state.given)
        st.session_state.chosen = filter_builder.filter_builder("f", ["a/model"])
    except UnusableInputError as error:
        st.session_state.chosen = str(error)


@pytest.mark.parametrize(
    "given",
    [
        EntryFilter(),
        EntryFilter(text_contains=HOSTILE, model_name="not listed", metadata_field="a", metadata_value="1"),
        EntryFilter(min_age=86_400, max_age=90_061.5, min_idle=59, expires_within=3_600),
        EntryFilter(min_bytes=1_024, max_bytes=1_500_001, never_expires=True),
        EntryFilter(never_expires=False),
        EntryFilter(expires_within=5),
        EntryFilter(unreadable=True),
    ],
)
def test_a_filter_from_elsewhere_is_taken_over(given):
    app = AppTest.from_function(take_over)
    app.session_state.given = given
    assert chosen(app.run()) == given
