"""The ends of a cleanup on the page: the question before it begins, how far it is, and what became of it.

A question is answered once. Its widgets bear its name, and when the work begins the next question has another: a second
click of a double click answers a question that is no longer asked.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import pandas as pd
import streamlit as st

from embedcache import audit
from embedcache.audit import AuditRecord
from embedcache.removal import RemovalReport
from pages.ui import audit_frames, longwork, session, widgets, wording
from pages.ui.cleanup_plans import Outcome
from pages.ui.exports import Restored
from pages.ui.jobs import Job, Progress

PLAN_JOB: Final = "cleanup plan"
EXPORT_JOB: Final = "cleanup export"
WORK_JOB: Final = "cleanup"
_QUESTION_KEY: Final = "cleanup_question"
_SEEN_KEY: Final = "cleanup_seen"
_NAME_SHOWN: Final = 300
_NAME_PIXELS: Final = 420
_AUDITED: Final = 5
_DOUBLE_CLICK_SECONDS: Final = 2.0  # on a busy machine a click takes its time to arrive
_CLEANUPS: Final = frozenset({"remove", "set TTL", "clear", "restore"})


# ------------------------------------------------------------------------------------------------ the question


def why_cannot_begin() -> str | None:
    """Why this user cannot begin any cleanup now, as a sentence; None where they can."""
    if (read_only := session.why_read_only()) is not None:
        return read_only
    return "A cleanup of yours is running. Wait for its end, or cancel it below." if _is_running(WORK_JOB) else None


def is_writing_copy() -> bool:
    """Whether a copy of the planned entries is being written."""
    return _is_running(EXPORT_JOB)


def _is_running(name: str) -> bool:
    job = longwork.find(name)
    return job is not None and job.running


def ask(label: str, icon: str, name: str, why_not: str | None) -> bool:
    """Asks for the cache's name, typed, before a button can be pressed; whether it was pressed.

    Args:
        label: What the button does, with how many entries.
        icon: The button's.
        name: The cache's name.
        why_not: Why it cannot be done now, as a sentence, or None.
    """
    shown = wording.one_line(name, _NAME_SHOWN)
    typed = st.text_input(
        "Type the name of the cache to confirm",
        placeholder=shown,
        key=f"cleanup_name_{_question().token}",
        autocomplete="off",
        disabled=why_not is not None,
        width=_NAME_PIXELS,
    )
    named = typed in (name, shown)  # as it is, or as it can be read and typed
    if typed and not named and why_not is None:
        st.caption(f"That is not its name. It is {wording.code_span(name, _NAME_SHOWN)}.")
    return _press(label, icon, why_not, None if named else "Type the name first, and press Enter.")


def press(label: str, icon: str, why_not: str | None) -> bool:
    """The button that begins what needs no name typed; whether it was pressed, and may be.

    A button takes its place as soon as it has begun, and a double click's second half may meet that one: it does not
    count.
    """
    return _press(label, icon, why_not) and time.monotonic() - _question().asked_at > _DOUBLE_CLICK_SECONDS


def _press(label: str, icon: str, why_not: str | None, hint: str | None = None) -> bool:
    if why_not is not None:
        st.caption(f":material/lock: {why_not}")
    not_now = why_not or hint
    pressed = st.button(
        label,
        type="primary",
        icon=icon,
        disabled=not_now is not None,
        key=f"cleanup_go_{_question().token}",
        help=not_now,
    )
    return pressed and not_now is None


def ask_anew(asked_at: float = -math.inf) -> None:
    """Has the name typed again: what was typed was the answer to another question."""
    st.session_state[_QUESTION_KEY] = _Question(secrets.token_hex(4), asked_at)


class _Question(NamedTuple):
    """One that is answered once: in widgets' keys, and when the one before it was answered with yes."""

    token: str
    asked_at: float


def _question() -> _Question:
    return cast("_Question", st.session_state.setdefault(_QUESTION_KEY, _Question(secrets.token_hex(4), -math.inf)))


def begin(work: Callable[[Progress], Outcome | Restored], *, typed: bool = True) -> None:
    """Begins what was answered with yes, once; a plan is spent with that.

    Args:
        work: What is done.
        typed: Whether a name had to be typed for it, as for its successor.
    """
    jobs, owner, shelf, server = longwork.jobs(), longwork.owner(), session.index_shelf(), session.server_key()

    def work_and_tell(progress: Progress) -> Outcome | Restored:
        try:
            return work(progress)
        finally:
            shelf.outdate(server)

    ask_anew(-math.inf if typed else time.monotonic())
    # From here on nothing of Streamlit's is called: any such call may end this run, where another click has come.
    for spent in (PLAN_JOB, EXPORT_JOB):
        jobs.forget(owner, spent)
    jobs.start(owner, WORK_JOB, work_and_tell)


# ------------------------------------------------------------------------------------------------ the report


def show() -> None:
    """How far this user's cleanup is, or what became of the last one."""
    job: Job[Outcome | Restored] | None = longwork.find(WORK_JOB)
    if job is None:
        st.caption("What was done is counted again on the server, and stands here in the end.")
        return
    if not longwork.shown(job, "Cleaning up"):
        return
    ended = job.result
    if st.session_state.get(_SEEN_KEY) is not ended:
        st.session_state[_SEEN_KEY] = ended
        session.count_again()  # once: names and counts of other pages are right from now on
    if isinstance(ended, Restored):
        _show_restored(ended)
    else:
        _show_removed(ended)


def _show_removed(ended: Outcome) -> None:
    report = ended.report
    entries, name = wording.counted(report.changed, "entry", "entries"), wording.code_span(report.cache_name, 80)
    if report.action == "set TTL":
        done = f"Set the TTL of {entries} of {name}"
    else:
        done = f"Removed {entries} of {name}, {wording.size(report.bytes)} of values"
    if report.outcome == "done":
        st.success(f"**{done}**, in {wording.elapsed(report.seconds)}.", icon=":material/check_circle:")
    else:
        how = "cancelled half-way" if report.outcome == "cancelled" else "stopped half-way"
        rest = f" {wording.counted(report.untouched, 'entry', 'entries')} were not looked at."
        st.warning(
            f"**It was {how}.** {done}; that stays so.{rest} Make a new plan for the rest.", icon=":material/warning:"
        )
    if ended.error is not None:
        widgets.show_error(ended.error)
    st.markdown(_as_list([*_details(report), *_origins(ended)]))


def _details(report: RemovalReport) -> list[str]:
    said = []
    said.append(_counted_again(report))
    for number, words in (
        (report.kept_newer, "left alone, because they were written anew since the plan"),
        (report.gone, "gone already"),
        (report.skipped, "left alone, because they cannot be read"),
    ):
        if number:
            said.append(f"{wording.counted(number, 'entry', 'entries')} {words}.")
    said.append("It is in the audit log." if report.recorded else "The audit log may lack the last second of it.")
    return said


def _counted_again(report: RemovalReport) -> str:
    """What is left by the server's own word, after all was done."""
    if report.remaining is None:
        return "What is left could not be counted."
    if report.expiring is not None:
        return _ttl_counted_again(report.expiring, report.remaining)
    left = wording.count(report.remaining)
    return f"Counted again: {left if report.remaining else 'none'} of the plan's keys are there."


def _ttl_counted_again(having: int, there: int) -> str:
    if not there:
        return "Counted again: none of the plan's keys are there."
    entries = wording.counted(there, "entry", "entries")
    if having == there:
        return (
            f"Counted again: the {entries} of the plan that {'are' if there > 1 else 'is'} there all have the new TTL."
        )
    return f"Counted again: {wording.count(having)} of the plan's {entries} that are there have the new TTL."


def _origins(ended: Outcome) -> list[str]:
    said = [f"What was chosen: {wording.code_span(ended.words)}."] if ended.words else []
    if ended.copy is not None:
        copy = wording.code_span(ended.copy)
        said.append(f"The copy that was written before is {copy} on the dashboard's machine, and kept for a day.")
    return said


def _show_restored(ended: Restored) -> None:
    name, report = wording.code_span(ended.cache_name, 80), ended.report
    details = []
    if report is None:
        how = "cancelled half-way" if ended.outcome == "cancelled" else "stopped half-way"
        st.warning(
            f"**The restore was {how}.** {wording.counted(ended.rows, 'row')} of the file were gone through; what was "
            f"written into {name} stays. Restore the file again to go on.",
            icon=":material/warning:",
        )
    else:
        entries = wording.counted(report.restored, "entry", "entries")
        st.success(
            f"**Restored {entries} into {name}**, in {wording.elapsed(report.seconds)}.", icon=":material/check_circle:"
        )
        for number, why in ((report.skipped_existing, "left as it is in the cache"), (report.expired, "expired")):
            if number:
                details.append(f"{wording.counted(number, 'entry', 'entries')} of the file left out: {why}.")
    if ended.error is not None:
        widgets.show_error(ended.error)
    if ended.entries is None:
        details.append("What is in the cache now was not counted.")
    else:
        details.append(f"Counted again: the cache has {wording.counted(ended.entries, 'entry', 'entries')}.")
    details.append("It is in the audit log." if ended.recorded else "The audit log does not have how it ended.")
    st.markdown(_as_list(details))


def _as_list(sentences: list[str]) -> str:
    return "\n".join(f"- {each}" for each in sentences)


# ------------------------------------------------------------------------------------------------ the audit log


def show_audit(name: str) -> None:
    """The last cleanups of a cache.

    Raises:
        EmbedcacheError: The server does not answer, or refuses.
    """
    written = audit.read(session.open_cache(name, refresh_ttl=False).connection, name)
    records = [each for each in written if each.action in _CLEANUPS][:_AUDITED]
    if not records:
        return
    st.subheader("Done here before", anchor=False)
    frame = audit_frames.audit_frame(records)[["at", "actor", "action", "count", "mebibytes"]]
    frame["mebibytes"] = frame["mebibytes"].where(frame["mebibytes"] > 0)  # a restore does not know
    told = pd.DataFrame([_told(each) for each in records], columns=["chosen", "ended"])
    st.dataframe(
        pd.concat([frame, told], axis="columns"),
        hide_index=True,
        column_order=["at", "action", "count", "mebibytes", "chosen", "ended", "actor"],
        column_config={
            "at": st.column_config.DatetimeColumn("When", format="D MMM YYYY, HH:mm", timezone=session.zone().key),
            "actor": st.column_config.TextColumn("Who"),
            "action": st.column_config.TextColumn("What"),
            "count": st.column_config.NumberColumn("Entries", format="localized"),
            "mebibytes": st.column_config.NumberColumn("Values", format="%.2f MiB"),
            "chosen": st.column_config.TextColumn("Chosen", width="medium"),
            "ended": st.column_config.TextColumn("Ended"),
        },
        key="cleanup_audit",
    )
    st.page_link("pages/settings.py", label="The whole audit log is in Settings", icon=":material/settings:")


def _told(record: AuditRecord) -> tuple[str, str]:
    """Which entries were chosen, and how it ended, as far as the record has it."""
    words, file, outcome = (
        wording.one_line(value) if isinstance(value := record.detail.get(field), str) else ""
        for field in ("words", "file", "outcome")
    )
    return words or file, outcome
