"""Long work on a page: started by a button, shown by a fragment until it is over, found again by a rerun.

::

    job = longwork.find("plan")
    if pressed:
        job = longwork.start("plan", work)
    if job is not None and longwork.shown(job, "Looking at entries"):
        draw(job.result)
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import streamlit as st

from embedcache import EmbedcacheError
from pages.ui import failures, session, widgets, wording
from pages.ui.jobs import Job, Jobs, Progress

R = TypeVar("R")

SHARED: Final = "everybody"
"""Owner of jobs whose result is the same for all users."""
_OWNER_KEY: Final = "owner"
_PRESENCES_KEY: Final = "owner_presences"
_TOKEN_KEY: Final = "owner_token"  # noqa: S105 - not a secret, only new each time
_POLL_SECONDS: Final = 0.5


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The jobs of this process."""
    return Jobs()


def owner() -> str:
    """A name for this user's jobs on the server that they work with, which nobody else has."""
    token = st.session_state.setdefault(_TOKEN_KEY, secrets.token_hex(8))
    name = f"{token} on {session.server_key()}"
    st.session_state[_OWNER_KEY] = name
    presences: dict[str, _Presence] = st.session_state.setdefault(_PRESENCES_KEY, {})
    if name not in presences:
        presences[name] = _Presence()
        weakref.finalize(presences[name], jobs().leave, name)
    return name


class _Presence:
    """There as long as a session is: what its jobs found is forgotten with it, and not an hour later."""


def start(name: str, work: Callable[[Progress], R], *, shared: bool = False) -> Job[R]:
    """Starts this user's job of that name, or finds it where it runs already."""
    return jobs().start(SHARED if shared else owner(), name, work)


def find(name: str, *, shared: bool = False) -> Job[Any] | None:
    """This user's job of that name, or None."""
    return jobs().find(SHARED if shared else owner(), name)


def forget(name: str, *, shared: bool = False) -> None:
    """Cancels and forgets this user's job of that name."""
    jobs().forget(SHARED if shared else owner(), name)


def shown(job: Job[Any], label: str, *, unit: tuple[str, str] = ("entry", "entries"), cancel: bool = True) -> bool:
    """Draws how a job stands; whether it is done, and its result is there to draw.

    While it runs, a bar that moves by itself, and a button that cancels it. Where it failed or was cancelled, that in a
    sentence.

    Args:
        job: The job.
        label: What it does, such as ``Looking at entries``.
        unit: One and many of what it counts.
        cancel: Whether to offer a button that cancels it.
    """
    if job.running:
        _watch(job, label, unit, cancel)
    elif job.state == "cancelled":
        st.info(f"{label} was cancelled after {_counted(job, unit)}.", icon=":material/cancel:")
    elif job.error is not None:
        _show_failure(job, job.error)
    return job.state == "done"


def _show_failure(job: Job[Any], error: Exception) -> None:
    if isinstance(error, EmbedcacheError):
        widgets.show_error(error)
        return
    st.error(failures.unexpected(job.reference), icon=":material/error:")


@st.fragment(run_every=_POLL_SECONDS)
def _watch(job: Job[Any], label: str, unit: tuple[str, str], cancel: bool) -> None:
    if not job.running:
        st.rerun()  # the whole page: the job is over, and its result is to be drawn
    st.progress(_part(job), text=_words(job, label, unit))
    if cancel:
        _cancel_button(job, "secondary")


@st.fragment(run_every=_POLL_SECONDS)
def on_a_line(job: Job[Any], label: str) -> None:
    """How far a running job is, on one line with a button that cancels it: no higher than what it stands in for.

    When it is over, the page runs again.

    Args:
        job: The job, running.
        label: What it does, in Markdown.
    """
    if not job.running:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{label} {_part(job):.0%}" if job.progress.total else label, width="content")
        _cancel_button(job, "tertiary", _words(job, "So far", ("entry", "entries")))


def _cancel_button(job: Job[Any], kind: Literal["secondary", "tertiary"], tip: str | None = None) -> None:
    st.button(
        "Cancelling" if job.progress.cancelling else "Cancel",
        icon=":material/cancel:",
        type=kind,
        on_click=job.progress.cancel,  # the job's own would keep its result as long as the session
        disabled=job.progress.cancelling,
        help=tip,
        key=f"cancel_{id(job)}",
    )


def _part(job: Job[Any]) -> float:
    total = job.progress.total
    return min(job.progress.done / total, 1.0) if total else 0.0


def _words(job: Job[Any], label: str, unit: tuple[str, str]) -> str:
    parts = [f"{label}: {_counted(job, unit)}"]
    if job.progress.note:
        parts.append(wording.plain_label(job.progress.note, 80))
    if (left := job.remaining_seconds) is not None and left >= 1:
        parts.append(f"about {wording.duration(round(left))} left")
    return ", ".join(parts)


def _counted(job: Job[Any], unit: tuple[str, str]) -> str:
    done, total = job.progress.done, job.progress.total
    counted = wording.counted(total or done, *unit)
    return f"{wording.count(done)} of {counted}" if total else counted
