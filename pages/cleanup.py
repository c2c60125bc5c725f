"""Cleanup: entries removed, or given another TTL, by a plan that is made, read and confirmed first; copies restored."""

import streamlit as st

from embedcache import InvalidInputError
from embedcache.entry import NEVER, TTL
from embedcache.filtering import EntryFilter
from pages.ui import (
    cleanup_steps,
    cleanup_work,
    empty_states,
    filter_builder,
    longwork,
    restoring,
    session,
    widgets,
    wording,
)
from pages.ui.inputs import UnusableInputError

TASKS = {
    "remove": "Remove entries",
    "ttl": "Set their TTL",
    "clear": "Clear the cache",
    "restore": "Restore a copy",
}
TASK_KEY = "cleanup_task"
FILTER_KEY = "cleanup"
HANDED_OVER_KEY = "cleanup_filter"  # what Browse chose, as `EntryFilter.to_dict`
LIVES = {"seconds": "After a time", "never": "Never"}
STEPS = ("Choose", "Plan", "Confirm", "Report")
DAY = 86_400


# -------------------------------------------------------------------------------------------------- controls


def _take_over() -> None:
    """Takes a filter that another page handed over, once."""
    given = st.session_state.pop(HANDED_OVER_KEY, None)
    if not isinstance(given, dict):
        return
    try:
        filter_builder.choose(FILTER_KEY, EntryFilter.from_dict(given))
    except (InvalidInputError, UnusableInputError) as error:
        widgets.show_error(error)
        return
    if st.session_state.get(TASK_KEY) != "ttl":
        st.session_state[TASK_KEY] = "remove"


def _choose_task() -> str:
    return st.radio(
        "What to do",
        list(TASKS),
        format_func=lambda option: TASKS[option],
        horizontal=True,
        label_visibility="collapsed",
        key=TASK_KEY,
        persist_state="session",
    )


def _step(number: int) -> None:
    st.subheader(f":blue-badge[{number}] {STEPS[number - 1]}", anchor=False)


def _choose_entries() -> EntryFilter | None:
    """The filter; None where what was typed cannot be used, which is said."""
    try:
        return filter_builder.filter_builder(FILTER_KEY, session.models_to_choose(session.cache_name()))
    except UnusableInputError as error:
        widgets.show_error(error)
        return None


def _choose_all(name: str) -> EntryFilter:
    """No filter, and what that means."""
    st.markdown(
        f"**Every entry** of {wording.code_span(name, 80)} that is there when the plan is made goes, those that cannot "
        "be read too. What is stored later stays, and so do its statistics, prices and audit log, and other caches."
    )
    return EntryFilter()


def _choose_ttl() -> TTL:
    chosen = st.radio(
        "They expire",
        list(LIVES),
        format_func=lambda option: LIVES[option],
        horizontal=True,
        key="cleanup_ttl_kind",
        persist_state="session",
        help="Their time begins when the TTL is set, and each hit starts it again.",
    )
    return NEVER if chosen == "never" else widgets.seconds_input("cleanup_ttl_seconds", DAY, persist="session")


# -------------------------------------------------------------------------------------------------- by a plan


def _plan_and_confirm(name: str, task: str) -> None:
    _step(1)
    chosen = _choose_all(name) if task == "clear" else _choose_entries()
    ttl = _choose_ttl() if task == "ttl" else None
    widgets.require_server()
    job = longwork.find(cleanup_work.PLAN_JOB)
    busy = chosen is None or (job is not None and job.running)
    pressed = st.button(
        "Make a plan",
        type="primary" if job is None else "secondary",  # the next step stands out, here or below
        icon=":material/checklist:",
        disabled=busy,
        key="make_plan",
    )
    if pressed and chosen is not None:
        cleanup_steps.start_plan(name, chosen)
        st.rerun()
    _step(2)
    if job is None:
        st.caption("A plan counts what you chose and shows some of it. It touches nothing.")
    planned = job.result if job is not None and longwork.shown(job, "Making the plan") else None
    outdated = None
    if planned is not None:
        outdated = cleanup_steps.why_outdated(planned, name, chosen)
        if outdated is not None:
            st.warning(outdated, icon=":material/warning:")
        cleanup_steps.show_plan(planned)
        if not planned.whole:
            empty_states.sample_data_button()
    if planned is None or not len(planned.plan):
        _step(3)
        st.caption("When there is a plan, you confirm it here by typing the name of the cache.")
        return
    cleanup_steps.show_export(planned)
    _step(3)
    why_not = cleanup_work.why_cannot_begin() or ("This plan is out of date. Make a new one." if outdated else None)
    if why_not is None and cleanup_work.is_writing_copy():
        why_not = "The copy is being written. Wait for its end, or cancel it."
    if cleanup_work.ask(_what_is_done(task, ttl, len(planned.plan)), _ICONS[task], name, why_not):
        cleanup_steps.begin(planned, "ttl" if task == "ttl" else "remove", ttl)
        st.rerun()


def _what_is_done(task: str, ttl: TTL, count: int) -> str:
    entries = wording.counted(count, "entry", "entries")
    if task in _REMOVALS:
        return f"{_REMOVALS[task]} {entries}"
    return (
        f"Set a TTL of {wording.duration(ttl)} on {entries}" if isinstance(ttl, int) else f"Let {entries} never expire"
    )


_REMOVALS = {"remove": "Remove", "clear": "Remove all"}
_ICONS = {"remove": ":material/delete:", "clear": ":material/delete_sweep:", "ttl": ":material/timer:"}


# -------------------------------------------------------------------------------------------------- restoring


def _restore(name: str) -> None:
    _step(1)
    path, on_conflict = restoring.choose()
    widgets.require_server()
    _step(2)
    found = None
    if path is None:
        st.caption("What is in the copy stands here when you have chosen one.")
    else:
        found = restoring.describe(path)
    _step(3)
    if path is None or found is None:
        st.caption(
            "When there is a copy, you confirm here that it is restored; by typing the name of the cache where entries "
            "may be replaced."
        )
        return
    entries = wording.counted(found.entries, "entry", "entries")
    label = f"Restore {entries} into {wording.plain_label(name)}"
    why_not = cleanup_work.why_cannot_begin()
    if on_conflict == "skip":
        pressed = cleanup_work.press(label, ":material/restore:", why_not)
    else:  # it may replace entries
        pressed = cleanup_work.ask(label, ":material/restore:", name, why_not)
    if pressed:
        restoring.begin(name, path, on_conflict)
        st.rerun()


# -------------------------------------------------------------------------------------------------- the page

widgets.header("Cleanup", "Plan first, then change: nothing is touched before you have seen what it is and said yes.")
_take_over()
name = session.cache_name()
task = _choose_task()
st.caption(f"In the cache {wording.code_span(name, 80)}, which is chosen in the sidebar.")

steps, report = st.container(), st.container()
with report:  # first, and below: it is there whatever ends the steps
    _step(4)
    cleanup_work.show()
with steps, widgets.errors_as_sentences():
    if task == "restore":
        _restore(name)
    else:
        _plan_and_confirm(name, task)
with widgets.errors_as_sentences():
    cleanup_work.show_audit(name)
