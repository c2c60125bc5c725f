"""A copy restored on the page: which file, what is in it, and what happens to entries that are there already."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Final, cast

import streamlit as st

from embedcache import transfer
from embedcache.errors import TransferError
from embedcache.transfer import FileSummary
from embedcache.transfer.operations import OnConflict
from pages.ui import access, cleanup_plans, cleanup_work, exports, session, widgets, wording

_CONFLICTS: Final[dict[OnConflict, str]] = {
    "skip": "Keep what is there",
    "newer": "Keep the newer",
    "overwrite": "Take the copy's",
}
_UPLOAD_KEY: Final = "restore_upload"
_KEPT_KEY: Final = "restore_kept"


# ------------------------------------------------------------------------------------------------ choosing


def choose() -> tuple[Path | None, OnConflict]:
    """Draws the controls; the file, if one is chosen, and what happens to entries that are there already.

    Raises:
        TransferError: The folder of copies cannot be used.
    """
    given = _ask_upload() or _ask_file(exports.listed())
    on_conflict = st.radio(
        "Where an entry is there already",
        list(_CONFLICTS),
        format_func=lambda option: _CONFLICTS[cast("OnConflict", option)],
        horizontal=True,
        key="restore_conflict",
        persist_state="session",
    )
    return given, on_conflict


def _ask_upload() -> Path | None:
    """Where the uploaded file was written to, once; None where there is none."""
    if (why_not := session.why_read_only()) is not None:
        st.caption(f":material/lock: {why_not}")
        return None
    upload = st.file_uploader(
        "A copy that you downloaded (.parquet or .jsonl)",
        type=["parquet", "jsonl"],
        max_upload_size=exports.MAX_UPLOAD_MEGABYTES,
        key=_UPLOAD_KEY,
    )
    if upload is None:
        return None
    file_id, path = st.session_state.get(_KEPT_KEY, (None, None))
    if file_id != upload.file_id or not path.exists():
        upload.seek(0)  # it may have been read before
        path = exports.keep_upload(upload)
        st.session_state[_KEPT_KEY] = (upload.file_id, path)
    return cast("Path", path)


def _ask_file(files: list[Path]) -> Path | None:
    if not files:
        st.caption(
            "There is no copy on the dashboard's machine: the plan of a removal offers to write one. "
            f"{exports.HOW_LONG}"
        )
        return None
    chosen = st.selectbox(
        "A copy on the dashboard's machine",
        files,
        index=None,
        format_func=lambda path: wording.one_line(path.name, 160),
        placeholder="Choose a copy",
        key="restore_file",
        help="Those that were written here before a removal, for everybody who may change things here.",
    )
    st.caption(exports.HOW_LONG)
    return chosen


# ------------------------------------------------------------------------------------------------ what is in it


def describe(path: Path) -> FileSummary | None:
    """Shows what a file has in it; None where it is no copy, which is said."""
    try:
        found = transfer.describe_file(path)
    except TransferError as error:
        widgets.show_error(error)
        return None
    cells = widgets.metric_cells()
    cells.metric("Entries", wording.count(found.entries), border=True)
    cells.metric("File", wording.size(found.bytes), border=True, help=f"{wording.count(found.bytes)} bytes.")
    cells.metric("Models", wording.count(len(found.models)), border=True)
    cells.metric(
        "Written",
        wording.ago(time.time() - found.exported_at),
        border=True,
        help=wording.moment(found.exported_at, session.zone()),
    )
    st.caption(
        f"Of the cache {wording.code_span(found.cache_name, 80)} on {wording.plain_label(found.server)}. "
        f"{cleanup_plans.models_in_words(list(found.models.items()))} "
        "Entries keep their ages and what is left of their TTLs; what has expired since is left out."
    )
    return found


def begin(name: str, path: Path, on_conflict: OnConflict) -> None:
    """Restores a file into a cache, once."""
    connection, actor = session.open_cache(name).connection, access.actor()
    cleanup_work.begin(partial(exports.restore, connection, name, path, on_conflict, actor), typed=False)
