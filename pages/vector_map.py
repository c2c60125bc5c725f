"""Vector map: a sample of vectors as points, what lies near what, and whether the vectors are well."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from embedcache.sampling import Sample, Vectors
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import (
    empty_states,
    entry_view,
    health_view,
    longwork,
    maps,
    projection,
    session,
    solid_clicks,
    vector_health,
    widgets,
    wording,
)
from pages.ui.jobs import Job
from pages.ui.mapped import (
    ALL_MODELS,
    MOST_FREQUENT,
    NEAR_A_TEXT,
    Found,
    Mapped,
    Request,
    draw_map,
    find_vector,
    marks_of,
    neighbours,
)
from pages.ui.maps import Colours

SIZES = (500, 2_000, 10_000)
DEFAULT_SIZE = 2_000
MODELS = {MOST_FREQUENT: "The most frequent", ALL_MODELS: "All models"}
MAP_JOB = "vector_map"
TEXT_JOB = "vector_map_text"
REQUEST_KEY = "map_request"
CHOSEN_KEY = "map_chosen"
POINTS_KEY = "map_points"
SOLID_KEY = "map_solid"
MATCH_KEY = "map_match"
QUICK_SECONDS = 0.4  # most samples are there by then, and no bar flashes up for them
NEAR_AN_ENTRY = 5
MOST_MATCHES = 50
FLAT, SOLID = "2-D", "3-D"


# -------------------------------------------------------------------------------------------------- controls


def _choose() -> Request:
    """The model and the size of the sample."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        model = st.selectbox(
            "Model",
            [MOST_FREQUENT, *session.models_to_choose(session.cache_name()), ALL_MODELS],
            format_func=lambda name: MODELS.get(name) or wording.one_line(name, 200),
            key="map_model",
            persist_state="session",
            width=320,
            help="Vectors of two models share no space. All models puts those of one dimension side by side.",
        )
        size = st.radio(
            "Sample",
            SIZES,
            index=SIZES.index(DEFAULT_SIZE),
            format_func=wording.count,
            horizontal=True,
            key="map_size",
            persist_state="session",
            help="Entries to draw, as good as at random. The rest of the cache is not read.",
        )
        st.button("Draw again", icon=":material/refresh:", key="map_again", on_click=longwork.forget, args=(MAP_JOB,))
    return Request(session.server_key(), session.cache_name(), model or MOST_FREQUENT, size or DEFAULT_SIZE)


def _choose_view(mapped: Mapped) -> tuple[str, Colours]:
    """Flat or solid, and what points are coloured by."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        view = st.radio("View", (FLAT, SOLID), horizontal=True, key="map_view", persist_state="session")
        ways = _colourings(mapped)
        way = st.selectbox("Colour by", list(ways), key="map_colour", persist_state="session", width=240)
        chosen = ways.get(way or "", next(iter(ways.values())))
        return view or FLAT, chosen()


def _colourings(mapped: Mapped) -> dict[str, Callable[[], Colours]]:
    """The ways to colour this map, by what they are called."""
    vectors = mapped.vectors
    by_model: dict[str, Callable[[], Colours]] = {"Model": lambda: maps.by_model(vectors)}
    ways: dict[str, Callable[[], Colours]] = {
        "Cluster": lambda: _colour_by_cluster(mapped),
        "Age": lambda: maps.by_age(vectors, mapped.at),
    }
    ways = {**by_model, **ways} if len(set(vectors.model_names)) > 1 else {**ways, **by_model}
    for name in maps.field_names(vectors):
        ways.setdefault(f"Metadata: {wording.one_line(name, 60)}", lambda name=name: maps.by_field(vectors, name))
    return ways


def _colour_by_cluster(mapped: Mapped) -> Colours:
    count = st.number_input(
        "Clusters",
        min_value=projection.FEWEST_CLUSTERS,
        max_value=projection.MOST_CLUSTERS,
        value=6,
        key="map_clusters",
        persist_state="session",
        width=120,
        help="k-means of the whole vectors, by their directions. Numbers go by size: cluster 1 is the largest.",
    )
    if count not in mapped.clusters:
        with st.spinner("Finding clusters"):
            mapped.clusters[count] = projection.clusters(mapped.vectors.matrix, count)
    return maps.by_cluster(mapped.clusters[count])


# -------------------------------------------------------------------------------------------------- fetch


def _start(request: Request) -> Job[Mapped | Sample]:
    """This user's map, begun anew where it is not the one that is asked for."""
    if st.session_state.get(REQUEST_KEY) != request:
        st.session_state[REQUEST_KEY] = request
        st.session_state.pop(CHOSEN_KEY, None)
        for name in (MAP_JOB, TEXT_JOB, health_view.JOB):
            longwork.forget(name)
    job = longwork.find(MAP_JOB)
    if job is None:
        connection = session.open_cache(request.cache_name, refresh_ttl=False).connection
        job = longwork.start(MAP_JOB, partial(draw_map, request, connection))
        job.wait(QUICK_SECONDS)
    return job


# -------------------------------------------------------------------------------------------------- one entry


def _take_click() -> None:
    """Remembers the entry whose point was clicked. A click beside the points leaves the last one."""
    points = st.session_state[POINTS_KEY]["selection"]["points"]
    row = points[0].get("customdata") if points else None
    _take_row(row[0] if isinstance(row, list) and row else row)


def _take_row(row: object) -> None:
    """Remembers the entry in this row of the map."""
    job = longwork.find(MAP_JOB)
    keys = job.result.vectors.keys if job is not None and job.state == "done" else ()
    if isinstance(row, int) and 0 <= row < len(keys):  # it comes from the browser
        st.session_state[CHOSEN_KEY] = keys[row]


def _take_match() -> None:
    st.session_state[CHOSEN_KEY] = st.session_state[MATCH_KEY]


def _show_finder(mapped: Mapped) -> None:
    """For keyboards, and for points that lie under others."""
    words = st.text_input(
        "Words of its text",
        placeholder="machine learning",
        key="map_find",
        persist_state="session",
    )
    wanted = (words or "").strip().casefold()
    if not wanted:
        return
    texts = dict(zip(mapped.vectors.keys, map(wording.visible, mapped.vectors.texts), strict=True))
    matches = [key for key, text in texts.items() if wanted in text.casefold()]
    if not matches:
        st.caption("No entry of this sample holds these words.")
        return
    st.selectbox(
        wording.counted(len(matches), "match", "matches")
        + (f", the first {MOST_MATCHES} to choose from" if len(matches) > MOST_MATCHES else ""),
        matches[:MOST_MATCHES],
        index=None,
        format_func=lambda key: wording.one_line(texts[key], 100),
        placeholder="Choose an entry",
        key=MATCH_KEY,
        on_change=_take_match,
    )


def _show_entry(mapped: Mapped) -> None:
    """The entry that was clicked or found, and what lies nearest to it."""
    key = st.session_state.get(CHOSEN_KEY)
    if key not in mapped.vectors.keys:
        return
    row = mapped.vectors.keys.index(key)
    with st.container(border=True):
        entry_view.text_block(mapped.vectors.texts[row])
        model = mapped.vectors.model_names[row]
        stored = wording.ago(time.time() - mapped.vectors.inserted_at[row])
        st.caption(f"{wording.code_span(model, 120)}, stored {stored}")
        st.page_link("pages/lookup.py", label="Open in Lookup", icon=":material/search:", query_params={"key": key})
        st.markdown("**Nearest in the sample**")
        rows, similarities = neighbours(mapped, mapped.vectors.matrix[row], model, key, NEAR_AN_ENTRY)
        _show_neighbours(mapped.vectors, rows, similarities, "map_near_entry")


def _show_neighbours(
    vectors: Vectors, rows: npt.NDArray[np.int64], similarities: npt.NDArray[np.float32], key: str
) -> None:
    if not len(rows):
        st.caption("The sample holds no other entry of this model.")
        return
    table = pd.DataFrame(
        {
            "similarity": similarities,
            "open": [vector_health.lookup_link(vectors.keys[row]) for row in rows],
            "text": [wording.one_line(vectors.texts[row]) for row in rows],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        key=key,
        column_config={
            "similarity": st.column_config.NumberColumn("Cosine", format="%.3f", width=68),
            "open": health_view.OPEN,
            "text": st.column_config.TextColumn("Text", width=840),
        },
    )


# -------------------------------------------------------------------------------------------------- a text


def _ask_text(mapped: Mapped, request: Request) -> None:
    """The form for a text; once it is sent, its vector is looked for in a thread."""
    st.subheader("Nearest to a text", anchor=False)
    with st.form("map_text_form", border=False):
        text = st.text_input("Text", placeholder="What is machine learning?", key="map_text", persist_state="session")
        pressed = st.form_submit_button("Find neighbours", icon=":material/search:")
    if not pressed:
        return
    longwork.forget(TEXT_JOB)
    if not (text or "").strip():
        st.info("There is no text here yet. Type one, then press Find neighbours.", icon=":material/info:")
        return
    models = list(dict.fromkeys(mapped.vectors.model_names))
    cache = session.open_cache(request.cache_name, refresh_ttl=False)
    bundled = session.shared_model(DEFAULT_MODEL)
    job = longwork.start(TEXT_JOB, partial(find_vector, text or "", models, mapped.vectors.dimension, cache, bundled))
    job.wait(QUICK_SECONDS)
    st.rerun()  # the map stands above the form, and marks what was found


def _found() -> Found | None:
    """The text whose vector was found last, if it is over."""
    job = longwork.find(TEXT_JOB)
    return job.result if job is not None and job.state == "done" else None


def _show_found(mapped: Mapped, found: Found | None) -> None:
    job = longwork.find(TEXT_JOB)
    if job is None or not longwork.shown(job, "Looking for its vector", unit=("text", "texts")):
        return
    if found is None:
        st.rerun()  # it was found since the map was drawn, which is to mark it
    if found.vector is None or found.model is None:
        st.info(
            "This text is not in the cache, and the model of this map is not on this machine to compute its vector. "
            "Embed the text with your own program, or try one that is cached.",
            icon=":material/info:",
        )
        return
    source = "read from the cache" if found.cached else "computed just now, and not stored"
    st.caption(f"{wording.code_span(found.text, 160)}: {source}. The map marks it with a cross and rings these:")
    rows, similarities = neighbours(mapped, found.vector, found.model, found.key, NEAR_A_TEXT)
    _show_neighbours(mapped.vectors, rows, similarities, "map_near_text")


# -------------------------------------------------------------------------------------------------- drawing


def _show_map(mapped: Mapped, request: Request) -> None:
    found = _found()
    view, colours = _choose_view(mapped)
    draw = maps.flat if view == FLAT else maps.solid
    left, right = st.columns([5, 3], gap="large")
    with left:
        figure = draw(mapped.projection, mapped.hover, colours, marks_of(mapped, found), session.theme())
        alt = f"{wording.counted(len(mapped.vectors), 'vector')} on their principal components, by {colours.title}."
        if view == FLAT:
            st.plotly_chart(
                figure,
                key=POINTS_KEY,
                config=maps.MAP_CONFIG,
                alt=alt,
                on_select=_take_click,
                selection_mode="points",
            )
        else:
            st.plotly_chart(figure, key=SOLID_KEY, config=maps.MAP_CONFIG, alt=alt)
            solid_clicks.on_click(SOLID_KEY, _take_row)
        st.caption(_about(mapped, 2 if view == FLAT else 3))
    with right:
        st.subheader("An entry", anchor=False)
        st.caption("Click a point, or find its text.")
        _show_finder(mapped)
        _show_entry(mapped)
    _ask_text(mapped, request)
    _show_found(mapped, found)


def _about(mapped: Mapped, axes: int) -> str:
    """What the map shows, and how far it can be trusted."""
    sample, vectors = mapped.sample, mapped.vectors
    shown = float(mapped.projection.variance[:axes].sum())
    models = list(dict.fromkeys(vectors.model_names))
    drawn = "all there are" if sample.whole else "drawn as good as at random"
    parts = [
        f"{wording.counted(len(vectors), 'entry', 'entries')}, {drawn}, of "
        f"{wording.code_span(models[0], 80) if len(models) == 1 else wording.counted(len(models), 'model')}, "
        f"with {wording.counted(vectors.dimension, 'dimension')}.",
        f"The {'two' if axes == 2 else 'three'} axes show {wording.share(shown)} of what tells these vectors apart.",  # noqa: PLR2004
        projection.trust(shown),
    ]
    if len(models) > 1:
        parts.append("Distances between points of two models mean nothing: each model has a space of its own.")
    if left_out := sample.entries - len(mapped.everything):
        others = wording.counted(left_out, "entry", "entries")
        parts.append(f"{others} of other models or dimensions {'is' if left_out == 1 else 'are'} not on the map.")
    if sample.out_of_room:
        parts.append("There are fewer than asked for, because more would not fit into this page's memory.")
    return " ".join(parts)


def _show_nothing(sample: Sample, request: Request) -> None:
    name = wording.code_span(request.cache_name, 80)
    with st.container(border=True):
        st.subheader("No vectors to map yet", anchor=False)
        if unreadable := sample.unreadable + sample.entries:
            st.write(
                f"The cache {name} holds {wording.counted(unreadable, 'value')} under its keys, and none with a vector "
                "that can be drawn: they are damaged, or another program wrote them."
            )
        else:
            st.write(
                f"The cache {name} holds no entry here. When it does, this page draws them as points: texts that mean "
                "alike lie close to each other, and it shows which vectors are broken or stored twice."
            )
        empty_states.sample_data_button()
        st.page_link("pages/embed.py", label="Embed some texts", icon=":material/bolt:")
    longwork.forget(MAP_JOB)  # the next run looks again


# -------------------------------------------------------------------------------------------------- the page


def _show(request: Request) -> None:
    """The map that was asked for, or how far it is."""
    # In a function, for what a page's own names hold lives as long as the session: a map each.
    with widgets.errors_as_sentences():
        widgets.require_server()
        job = _start(request)
    if not longwork.shown(job, "Drawing a sample"):
        if job.state == "failed":
            longwork.forget(MAP_JOB)  # the next run tries again
        st.stop()
    mapped = job.result
    if isinstance(mapped, Sample):
        _show_nothing(mapped, request)
        st.stop()

    with widgets.errors_as_sentences():
        _show_map(mapped, request)
    health_view.show(mapped, request)


widgets.header("Vector map", "A sample of the cache's vectors: what lies near what, and whether they are well.")
request = _choose()

_show(request)
