"""What empty pages offer to fill them."""

from __future__ import annotations

from functools import partial
from typing import Final

import streamlit as st

from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import longwork, sample_data, session, widgets, wording
from pages.ui.jobs import Job

_JOB: Final = "sample data"


def sample_data_button(*, looked_up: bool = False) -> None:
    """A button that fills the chosen cache with sample data, its progress, and where to it goes.

    When it is done, the page is run again, with the entries counted anew. To be called once on a page.

    Args:
        looked_up: Whether the sentences are looked up, too, so that there are hits and misses to show.
    """
    name = session.cache_name()
    job = longwork.find(_JOB)
    pressed = st.button(
        "Load sample data",
        icon=":material/dataset:",
        key="load_sample_data",
        disabled=not session.may_write() or (job is not None and job.running),
        help=session.why_read_only(),
    )
    st.caption(
        f"{wording.counted(len(sample_data.samples()), 'sentence')} with their topic, language and source, embedded "
        f"by the bundled model and stored in the cache {wording.code_span(name, 80)}"
        f"{', and looked up there before and after' if looked_up else ''}."
    )
    if pressed and session.may_write():
        with widgets.errors_as_sentences():
            cache = session.open_cache(name)
        load = partial(sample_data.load, cache, session.shared_model(DEFAULT_MODEL), looked_up=looked_up)
        longwork.start(_JOB, load)
        st.rerun()  # with the button disabled
    if job is not None:
        _follow(job)


def _follow(job: Job[int]) -> None:
    if longwork.shown(job, "Loading sample data", unit=("sentence", "sentences")):
        longwork.forget(_JOB)
        session.count_again()
        st.rerun()
