"""Embed: texts to vectors through the cache, and for each whether it was there already."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from embedcache import EmbeddingsCache
from embedcache.entry import TTL
from embedcache.vectorizers import DEFAULT_MODEL, EmbedReport
from pages.ui import charts, empty_states, entry_view, frames, inputs, longwork, session, similarity, widgets, wording
from pages.ui.embedding import Outcome, embed
from pages.ui.jobs import Job

SOURCES = {"one": "One text", "lines": "Many lines", "file": "File"}
MAX_FILE_MEGABYTES = 20
MAX_ROWS = 10_000  # in the table: a browser holds more, but a page that sends them each time is slow
SHORT_WORK_SECONDS = 0.4  # work that is over within this shows no bar
ALL = "All"
ONLY = {ALL: "All", frames.HIT: "Hits only", frames.MISS: "Misses only"}
PAIR_PIXELS = 66  # three lines
JOB = "embed"
RESULT_KEY = "embedded"
NUMBER_KEY = "embed_number"
TABLE_KEY = "embed_table"
UNIT = ("text", "texts")


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
        st.session_state.pop(TABLE_KEY, None)
        return [], 0
    try:
        if not upload.name.lower().endswith(".csv"):
            return inputs.lines_of(inputs.decode_file(upload.getvalue()))
        table = _table_of(upload)
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


def _table_of(upload: UploadedFile) -> pd.DataFrame:
    """The table in a .csv file, which is read once and not in each run of the page."""
    kept, table = st.session_state.get(TABLE_KEY, (None, None))
    if table is None or kept != upload.file_id:
        table = inputs.read_table(upload.getvalue())
        st.session_state[TABLE_KEY] = (upload.file_id, table)
    return table


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


def _start(cache: EmbeddingsCache, texts: list[str], model: str, metadata: str, ttl: TTL) -> None:
    """Starts embedding; returns once it is over, where that is soon."""
    inputs.check_number(texts)
    work = partial(embed, cache, session.shared_model(model), texts, inputs.read_metadata(metadata), ttl)
    st.session_state.pop(RESULT_KEY, None)
    st.session_state[NUMBER_KEY] = st.session_state.get(NUMBER_KEY, 0) + 1
    if not longwork.start(JOB, work).wait(SHORT_WORK_SECONDS):
        st.rerun()  # with the button disabled


def _follow(job: Job[Outcome]) -> None:
    """Shows how far the work is; takes its outcome once it is done."""
    if job.state == "cancelled":
        _show_cancelled(job)
    elif longwork.shown(job, "Embedding", unit=UNIT):
        st.session_state[RESULT_KEY] = job.result
        longwork.forget(JOB)  # from here on it is the session's, and goes with it
        session.count_again()
    elif job.running:
        st.caption("You can leave this page meanwhile: the work goes on.")


def _show_cancelled(job: Job[Outcome]) -> None:
    done, total = job.progress.done, job.progress.total
    counted = f"{wording.count(done)} of {wording.counted(total or 0, *UNIT)}" if total else "the look-up"
    rest = (
        "Their vectors are stored: press Embed again and it goes on from there."
        if session.may_write()
        else "Nothing was stored."
    )
    st.info(f"**Cancelled after {counted}.** {rest if done else 'Nothing was computed yet.'}", icon=":material/cancel:")


# -------------------------------------------------------------------------------------------------- drawing


def _show_outcome(outcome: Outcome) -> None:
    _show_metrics(outcome.report)
    _show_unstored(outcome.report)
    _offer_downloads(outcome)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Texts", anchor=False)
        rows = _choose_rows(outcome.table)
    with right:
        st.subheader("Vector", anchor=False)
        _show_row(outcome, rows[0] if rows else 0)
    _show_similarity(outcome, rows)


def _show_unstored(report: EmbedReport) -> None:
    if report.unstored:
        st.warning(
            f"{wording.counted(report.unstored, 'vector')} computed here could not be stored: the server does not "
            "answer, or takes nothing more. Embed again when that is mended, and only these are computed anew. "
            f"The reason: {wording.code_span(report.cache_failure or 'unknown')}",
            icon=":material/warning:",
        )
    if report.withheld:
        st.info(
            f"{wording.counted(report.withheld, 'vector')} computed here and not stored: you may read this cache, not "
            "change it.",
            icon=":material/lock:",
        )


def _show_metrics(report: EmbedReport) -> None:
    hits, total = int(np.count_nonzero(report.hits)), len(report.hits)
    seconds = (report.lookup_seconds, report.compute_seconds, report.store_seconds)
    parts = " + ".join(
        f"{word} {wording.elapsed(part)}" for word, part in zip(("look-up", "model", "storing"), seconds, strict=True)
    )
    cells = widgets.metric_cells()
    cells.metric("Hits", wording.count(hits), border=True, help="Read from the cache.")
    cells.metric("Misses", wording.count(total - hits), border=True, help="Computed now, each distinct text once.")
    cells.metric("Hit rate", f"{hits / total:.0%}", border=True, help=f"{hits:,} of {total:,} texts.")
    cells.metric("Total time", wording.elapsed(sum(seconds)), border=True, help=f"{parts}.")


def _offer_downloads(outcome: Outcome) -> None:
    """Files of all texts, in the order given. Each is made when it is asked for."""
    texts, report = outcome.texts, outcome.report
    count, dimension = report.vectors.shape
    stem = f"embeddings-{count}x{dimension}"
    files = {
        "npy": ("The vectors: float32, a row per text.", partial(frames.vector_npy, report.vectors)),
        "parquet": (
            "Text, model, hit and vector of each text.",
            partial(frames.report_parquet, texts, outcome.model_name, report),
        ),
        "csv": ("Text, result and milliseconds of each text.", partial(frames.report_csv, texts, report)),
    }
    with st.container(horizontal=True):
        for kind, (held, make) in files.items():
            st.download_button(
                f".{kind}",
                make,
                f"{stem}.{kind}",
                icon=":material/download:",
                on_click="ignore",
                key=f"embed_download_{kind}",
                help=held,
            )


def _choose_rows(table: pd.DataFrame) -> list[int]:
    """Draws the table, all of it or its hits or misses; returns the positions, in the whole, of the rows ticked."""
    shown, only = table, ALL
    if table["result"].str[0].nunique() > 1:
        only = st.radio(
            "Show", list(ONLY), format_func=ONLY.get, horizontal=True, label_visibility="collapsed", key="embed_only"
        )
        shown = table if only == ALL else table[table["result"].str[0] == only]
    shown = shown.head(MAX_ROWS)
    state = st.dataframe(
        shown,
        height=min(420, 38 + 35 * len(shown)),
        column_config={
            "result": st.column_config.MultiselectColumn(
                "Result", options=[frames.HIT, frames.MISS], color=["green", "orange"], width=72
            ),
            "ms": st.column_config.NumberColumn("Time", format="%.2f ms", width=88),
            "text": st.column_config.TextColumn("Text"),
        },
        column_order=["result", "ms", "text"],
        hide_index=False,  # the map names texts by their numbers
        on_select="rerun",
        selection_mode="multi-row",
        key=f"embed_rows_{st.session_state.get(NUMBER_KEY)}_{only}",  # ticks are for these rows, and no others
    )
    if len(table) > 1:
        cut = f"The first {MAX_ROWS:,} rows; the files above hold all. " if len(shown) == MAX_ROWS < len(table) else ""
        st.caption(f"{cut}Tick a row to see its vector, and several to compare them alone.")
    return [int(shown.index[row]) - 1 for row in state["selection"]["rows"] if row < len(shown)]


def _show_row(outcome: Outcome, row: int) -> None:
    text = outcome.texts[row]
    st.caption(f"Text {row + 1}: {wording.code_span(text, 90)}")
    entry_view.vector_chart(outcome.report.vectors[row], key="embed_vector")
    key = session.open_cache(outcome.cache_name).key_for(text, outcome.model_name)
    st.page_link("pages/lookup.py", label="Open in Lookup", icon=":material/search:", query_params={"key": key})


def _show_similarity(outcome: Outcome, ticked: list[int]) -> None:
    """How alike the texts are that are ticked, or where there are not several, the first ones."""
    rows, said = _compared(outcome, ticked)
    if len(rows) < 2:  # noqa: PLR2004 - one text is like nothing
        return
    st.subheader("Similarity", anchor=False)
    st.caption(said)
    by_likeness = st.toggle(
        "Put what is alike side by side",
        value=True,
        key="embed_by_likeness",
        persist_state="session",
        help="Groups of similar texts show as blocks along the diagonal. Off, texts stand in the order given.",
    )
    matrix = similarity.cosine_similarities(outcome.report.vectors[rows])
    order = similarity.order_by_likeness(matrix) if by_likeness else list(range(len(rows)))
    left, right = st.columns([3, 2], gap="large")
    with left:
        _show_map(outcome, [rows[position] for position in order], matrix[np.ix_(order, order)])
    with right:
        pairs = similarity.most_alike(matrix)
        _show_pairs(frames.pairs_frame(pairs, [row + 1 for row in rows], [outcome.texts[row] for row in rows]))


def _compared(outcome: Outcome, ticked: list[int]) -> tuple[list[int], str]:
    """Rows of distinct texts to compare, and in words which they are."""
    chosen = _distinct(outcome.texts, sorted(ticked))
    everything = _distinct(outcome.texts, range(len(outcome.texts)))
    rows, of = (chosen, "ticked") if len(chosen) > 1 else (everything, "distinct")
    most = similarity.MAX_TEXTS
    counted = wording.counted(len(rows), f"{of} text")
    said = f"The first {most} of {counted}; tick rows above to choose others." if len(rows) > most else f"{counted}."
    return rows[:most], said


def _distinct(texts: list[str], rows: Iterable[int]) -> list[int]:
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(texts[row], row)
    return list(first.values())


def _show_map(outcome: Outcome, rows: list[int], matrix: similarity.Similarities) -> None:
    numbers, texts = [row + 1 for row in rows], [outcome.texts[row] for row in rows]
    st.plotly_chart(
        charts.similarity_map(matrix, numbers, texts, session.theme()),
        key="embed_map",
        config=charts.CONFIG,
        alt=f"Heat map of the cosine similarity of {len(rows)} texts with each other, from {matrix.min():.2f} to 1.",
    )


def _show_pairs(pairs: pd.DataFrame) -> None:
    st.dataframe(
        pairs,
        hide_index=True,
        row_height=PAIR_PIXELS,
        height=min(560, 38 + PAIR_PIXELS * len(pairs)),
        column_config={
            "similarity": st.column_config.NumberColumn(
                "Cosine", format="%.3f", width=64, help="Cosine similarity: 1 is the same direction, 0 a right angle."
            ),
            "one": st.column_config.TextColumn("Most alike", width=146),
            "other": st.column_config.TextColumn("and", width=146),
        },
        key="embed_pairs",
    )


def _show_idle() -> None:
    with st.container(border=True):
        st.subheader("Nothing embedded yet", anchor=False)
        st.write(
            "Embed a text twice: the first time it is a miss and the model computes its vector, the second a hit, read "
            "from the cache. What comes back, how long each text took, and which texts are alike is shown here."
        )
        empty_states.sample_data_button()


# -------------------------------------------------------------------------------------------------- the page

widgets.header("Embed", "Turn texts into vectors. What the cache holds is read; only what is missing is computed.")
with widgets.errors_as_sentences():
    cache = session.open_cache(session.cache_name())

words, options = st.columns([3, 2], gap="large")
with words:
    texts, blank = _choose_texts()
with options:
    model, metadata, ttl = _choose_options(cache)
job = longwork.find(JOB)
with st.container(horizontal=True, vertical_alignment="center"):
    pressed = st.button(
        "Embed", type="primary", icon=":material/bolt:", key="embed_button", disabled=job is not None and job.running
    )
    if len(texts) > 1 or blank:
        left_out = f"; {wording.counted(blank, 'blank one')} left out" if blank else ""
        st.caption(f"{wording.counted(len(texts), 'text')}{left_out}")
if (reason := session.why_read_only()) is not None:
    st.caption(f":material/lock: {reason} Vectors are computed and shown all the same, and not stored.")

trouble = st.container()
if pressed:
    with trouble, widgets.errors_as_sentences():
        widgets.require_server()
        _start(cache, texts, model, metadata, ttl)
    job = longwork.find(JOB)
if job is not None:
    _follow(job)
outcome = st.session_state.get(RESULT_KEY)
if outcome is not None:
    _show_outcome(outcome)
with trouble, widgets.errors_as_sentences():
    widgets.require_server()  # last: what was computed is shown though the server is gone
if outcome is None and job is None:
    _show_idle()
