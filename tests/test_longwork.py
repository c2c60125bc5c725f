"""Jobs of sessions: found again by a rerun, and forgotten when the session is."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from clicking import own_server
from streamlit.testing.v1 import AppTest

from pages.ui import longwork

PAGE = """
import streamlit as st
from pages.ui import longwork

job = longwork.find("sum") or longwork.start("sum", lambda progress: 1 + 2)
job.wait()
st.caption(f"It is {job.result}.")
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


def open_page() -> AppTest:
    app = AppTest.from_string(PAGE, default_timeout=30).run()
    assert app.caption[0].value == "It is 3."
    return app


def test_a_rerun_finds_the_job_again() -> None:
    app = open_page()
    owner = app.session_state["owner"]
    job = longwork.jobs().find(owner, "sum")
    app.run()
    assert longwork.jobs().find(owner, "sum") is job


def test_a_session_that_is_gone_leaves_no_results() -> None:
    gone, stays = open_page(), open_page()
    first, second = gone.session_state["owner"], stays.session_state["owner"]
    del gone
    gc.collect()
    open_page()  # where a job starts, those of who left are forgotten
    assert longwork.jobs().find(first, "sum") is None
    assert longwork.jobs().find(second, "sum").result == 3
