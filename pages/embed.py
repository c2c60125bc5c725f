"""Embed: texts to vectors through the cache, and for each whether it was there already."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from embedcache import EmbeddingsCache
from embedcache.entry import TTL, Metadata
from embedcache.vectorizers import DEFAULT_MODEL, EmbedReport
from pages.ui import frames, inputs, session, widgets, wording

SOURCES = {"one": "One text", "lines": "Many lines", "file": "File"}
MAX_FILE_MEGABYTES = 20
RESULT_KEY = "embedded"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last press of Embed gave, kept for this user until the next.

    Attributes:
        cache_name: The cache that was asked.
        model_name: The model.
        texts: In the order given.
        report: Their vectors, and how each came about.
    """

    cache_name: str
    model_name: str
    texts: list[str]
    report: EmbedReport


# -------------------------------------------------------------------------------------------------- controls


def _choose_texts() -> tuple[list[str], int]:
    """The texts to embed, and how many blank ones were left out."""
    source = st.radio(
        "Source",
        list(SOURCES),
        format_func=lambda option: SOURCES[option],
        horizontal=True,
        label_visibility="collapsed",
        key="embed_source",
        persist_state="session",
    )
    if source == "file":
        return _file_texts()
    if source == "lines":
        typed = st.text_area(
            "Texts, one per line",
            placeholder="What is machine learning?\nHow do neural networks work?",
            height=220,
            key="embed_lines",
            persist_state="session",
        )
        return inputs.lines_of(typed or "")
    typed = st.text_area(
        "Text",
        placeholder="What is machine learning?",
        height=220,
        key="embed_text",
        persist_state="session",
    )
    return ([typed] if typed and typed.strip() else []), 0


def _file_texts() -> tuple[list[str], int]:
    upload = st.file_uploader(
        "A .txt file with a text per line, or a .csv file with a header",
        type=["txt", "csv"],
        max_upload_size=MAX_FILE_MEGABYTES,
        key="embed_file",
    )
    if upload is None:
        return [], 0
    try:
        if not upload.name.lower().endswith(".csv"):
            return inputs.lines_of(inputs.decode_file(upload.getvalue()))
        table = inputs.read_table(upload.getvalue())
    except inputs.UnusableInputError as error:
        widgets.show_error(error)
        return [], 0
    column = st.selectbox(
        "Column that holds the texts",
        range(len(table.columns)),
        index=inputs.wordiest_column(table),
        format_func=lambda position: wording.one_line(str(table.columns[position]), 80),
        key="embed_column",
    )
    return inputs.column_texts(table, column)


def _choose_options(cache: EmbeddingsCache) -> tuple[str, str, TTL]:
    """The model's name, the metadata as typed, and the TTL."""
    model = st.selectbox(
        "Model",
        [DEFAULT_MODEL],
        accept_new_options=True,
        key="embed_model",
        persist_state="session",
        help="The one listed is on this machine. Type another name from Hugging Face, or a folder, to use that.",
    )
    metadata = st.text_area(
        "Metadata, as JSON (optional)",
        placeholder='{"source": "handbook"}',
        height=68,
        key="embed_metadata",
        persist_state="session",
        help="Stored beside each vector that is computed now. A hit keeps what it has.",
    )
    ttl = widgets.ttl_choice("embed_ttl", cache.ttl)
    return model or DEFAULT_MODEL, metadata or "", ttl


# -------------------------------------------------------------------------------------------------- the work


def _embed(cache: EmbeddingsCache, texts: list[str], model: str, metadata: Metadata | None, ttl: TTL) -> Outcome:
    """Embeds, saying meanwhile what it waits for."""
    place = st.empty()
    shared = session.shared_model(model)
    if not shared.loaded and not all(cache.mexists(texts, shared.model_name)):
        with place, st.spinner("Loading the model (the first time takes about 5 s)", show_time=True):
            shared.load()
    bar = place.progress(0.0, text=f"Embedding {wording.counted(len(texts), 'text')}")

    def show(done: int, total: int) -> None:
        bar.progress(done / total if total else 1.0, text=f"{done:,} of {wording.counted(total, 'distinct text')}")

    report = session.vectorizer(model, cache).embed_report(texts, metadata=metadata, ttl=ttl, on_progress=show)
    place.empty()
    session.count_again()
    return Outcome(cache.name, shared.model_name, texts, report)


# -------------------------------------------------------------------------------------------------- drawing


def _show_outcome(outcome: Outcome) -> None:
    _show_metrics(outcome.report)
    if unstored := outcome.report.unstored:
        st.warning(
            f"The server stopped answering: {wording.counted(unstored, 'vector')} computed here could not be stored. "
            "Embed again when it is back, and only these are computed anew.",
            icon=":material/warning:",
        )
    table = frames.report_frame(outcome.texts, outcome.report)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Texts", anchor=False)
        row = _choose_row(table)
    with right:
        st.subheader("Vector", anchor=False)
        _show_row(outcome, row)


def _show_metrics(report: EmbedReport) -> None:
    hits, total = int(np.count_nonzero(report.hits)), len(report.hits)
    seconds = (report.lookup_seconds, report.compute_seconds, report.store_seconds)
    parts = " + ".join(
        f"{word} {wording.elapsed(part)}" for word, part in zip(("look-up", "model", "storing"), seconds, strict=True)
    )
    cells = widgets.metric_cells()
    cells.metric("Hits", wording.count(hits), border=True, help="Read from the cache.")
    cells.metric(
        "Misses", wording.count(total - hits), border=True, help="Computed now, each distinct text once, and stored."
    )
    cells.metric("Hit rate", f"{hits / total:.0%}", border=True, help=f"{hits:,} of {total:,} texts.")
    cells.metric("Total time", wording.elapsed(sum(seconds)), border=True, help=f"{parts}.")


def _choose_row(table: pd.DataFrame) -> int:
    """Draws the table; returns the position of the row that is chosen in it, or of the first."""
    state = st.dataframe(
        table,
        height=min(420, 38 + 35 * len(table)),
        column_config={
            "result": st.column_config.MultiselectColumn(
                "Result", options=[frames.HIT, frames.MISS], color=["green", "orange"], width=72
            ),
            "ms": st.column_config.NumberColumn("Time", format="%.2f ms", width=88),
            "dimension": st.column_config.NumberColumn("Dim.", format="localized", width=64),
            "text": st.column_config.TextColumn("Text"),
        },
        on_select="rerun",
        selection_mode="single-row",
        key="embed_rows",
    )
    if len(table) > 1:
        st.caption("Tick a row to see its vector.")
    rows = state["selection"]["rows"]
    return int(rows[0]) if rows and rows[0] < len(table) else 0


def _show_row(outcome: Outcome, row: int) -> None:
    text = outcome.texts[row]
    st.caption(f"Text {row + 1}: {wording.code_span(text, 90)}")
    widgets.vector_chart(outcome.report.vectors[row], key="embed_vector")
    key = session.open_cache(outcome.cache_name).key_for(text, outcome.model_name)
    st.page_link("pages/lookup.py", label="Open in Lookup", icon=":material/search:", query_params={"key": key})


def _show_idle() -> None:
    st.caption(
        "Embed a text twice: the first time it is a miss and the model computes its vector, the second a hit, read "
        "from the cache. What comes back, and how long each text took, is shown here."
    )


# -------------------------------------------------------------------------------------------------- the page

widgets.header("Embed", "Turn texts into vectors. What the cache holds is read; only what is missing is computed.")
with widgets.errors_as_sentences():
    cache = session.open_cache(session.cache_name())

words, options = st.columns([3, 2], gap="large")
with words:
    texts, blank = _choose_texts()
with options:
    model, metadata, ttl = _choose_options(cache)
with st.container(horizontal=True, vertical_alignment="center"):
    pressed = st.button("Embed", type="primary", icon=":material/bolt:", key="embed_button")
    if len(texts) > 1 or blank:
        left_out = f"; {wording.counted(blank, 'blank one')} left out" if blank else ""
        st.caption(f"{wording.counted(len(texts), 'text')}{left_out}")

with widgets.errors_as_sentences():
    widgets.require_server()
    if pressed:
        st.session_state.pop(RESULT_KEY, None)
        inputs.check_number(texts)
        st.session_state[RESULT_KEY] = _embed(cache, texts, model, inputs.read_metadata(metadata), ttl)

outcome = st.session_state.get(RESULT_KEY)
if outcome is None:
    _show_idle()
    st.stop()
_show_outcome(outcome)
